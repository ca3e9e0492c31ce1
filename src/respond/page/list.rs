//! An owner's operations as a page.

use std::time::Duration;

use http::StatusCode;

use super::operation::row;
use super::{Escaped, Page, Refresh, hidden};
use crate::header::UriReference;
use crate::operation::Operation;
use crate::respond::{MonitorUrls, Response};

/// `is_newest` if new operations belong on it.
pub(in crate::respond) fn page(
    operations: &[Operation],
    urls: &MonitorUrls,
    next: Option<&UriReference>,
    is_newest: bool,
    refresh: Duration,
) -> Response {
    let mut page = Page::new("Operations", Refresh::WithoutScript(refresh), None);
    page.push("<main data-page=\"list\">\n<h1>Operations</h1>\n");
    // What has happened, for who cannot see it.
    page.push("<p class=\"unseen\" role=\"status\" data-is=\"news\"></p>\n");
    page.add(format_args!(
        "<p data-is=\"none\"{}>There are none.</p>\n",
        hidden(operations.is_empty())
    ));
    page.add(format_args!(
        "<div class=\"scroll\" data-is=\"table\"{}>\n<table>\n",
        hidden(!operations.is_empty())
    ));
    page.push("<caption>Newest first</caption>\n<thead><tr><th scope=\"col\">Kind</th>");
    page.push("<th scope=\"col\">State</th><th scope=\"col\">Accepted</th>");
    page.push("<th scope=\"col\">Outcome</th></tr></thead>\n<tbody data-is=\"rows\">\n");
    for one in operations {
        row(&mut page, Some(one), urls);
    }
    page.push("</tbody>\n</table>\n</div>\n");
    if is_newest {
        page.push("<template>");
        row(&mut page, None, urls);
        page.push("</template>\n");
    }
    page.push("</main>\n");
    if let Some(next) = next {
        page.add(format_args!(
            "<footer><nav aria-label=\"Pages\"><a rel=\"next\" href=\"{}\">Older</a></nav></footer>\n",
            Escaped(next.as_str())
        ));
    }
    page.into_response(StatusCode::OK, true)
}
