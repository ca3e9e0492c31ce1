//! One operation, as a page and as a row of a list: the same parts under the same names, which the script
//! finds them by.

use std::time::Duration;

use http::StatusCode;

use super::{Escaped, Page, Refresh, hidden, time, word};
use crate::operation::{Operation, Progress, Status};
use crate::respond::{MonitorUrls, Response};

pub(in crate::respond) fn page(
    operation: &Operation,
    urls: &MonitorUrls,
    refresh: Duration,
) -> Response {
    let status = operation.status();
    let is_live = !status.is_finished();
    let title = format_args!("{}: {}", operation.kind(), word(status)).to_string();
    let refresh = if is_live { Refresh::WithoutScript(refresh) } else { Refresh::Never };
    let mut page = Page::new(title, refresh, None);
    let of = if is_live { "operation" } else { "over" };
    page.add(format_args!("<main data-page=\"{of}\">\n<h1 data-is=\"kind\">"));
    page.add(format_args!("{}</h1>\n", Escaped(operation.kind())));
    page.push("<p class=\"state\" role=\"status\">");
    state(&mut page, operation);
    page.push("</p>\n");
    bar(&mut page, operation);
    problem(&mut page, operation);
    links(&mut page, operation, urls);
    cancel(&mut page, Some(operation), urls);
    page.push("<h2>Times</h2>\n<dl>\n");
    for (term, name, at) in [
        ("Accepted", "created", Some(operation.created())),
        ("Begun", "started", operation.started()),
        ("Ended", "finished", operation.finished()),
        ("Kept until", "expires", operation.expires()),
    ] {
        page.add(format_args!("<div data-line{}><dt>{term}</dt><dd>", hidden(at.is_some())));
        time(&mut page, name, at);
        page.push("</dd></div>\n");
    }
    page.add(format_args!("</dl>\n<p class=\"quiet\">{}</p>\n</main>\n", operation.id()));
    if operation.owner().name().is_some() {
        page.add(format_args!(
            "<footer><nav aria-label=\"Operations\"><a href=\"{}\">All operations</a></nav></footer>\n",
            Escaped(urls.list().as_str())
        ));
    }
    page.into_response(StatusCode::OK, is_live)
}

/// A row; without an operation, what the script makes rows of.
pub(super) fn row(page: &mut Page, operation: Option<&Operation>, urls: &MonitorUrls) {
    let Some(operation) = operation else {
        page.push("<tr><td><a data-is=\"monitor\"><span data-is=\"kind\"></span></a></td>\n<td>");
        page.push("<strong data-is=\"status\" tabindex=\"-1\"></strong> ");
        page.push("<span class=\"quiet\" data-is=\"message\"></span>\n");
        page.push("<div data-is=\"bar\"><progress data-is=\"progress\" max=\"1\" aria-label=\"Progress\">");
        page.push("</progress></div>\n<div class=\"problem\" data-is=\"problem\" hidden>");
        page.push(
            "<p><strong data-is=\"title\"></strong> <span data-is=\"detail\"></span></p></div>",
        );
        page.push("</td>\n<td>");
        time(page, "created", None);
        page.push("</td>\n<td><a data-is=\"location\" hidden>What was made</a> ");
        page.push("<a data-is=\"result\" hidden>Result</a>");
        cancel(page, None, urls);
        page.push("</td></tr>\n");
        return;
    };
    let monitor = urls.monitor(operation.id());
    page.add(format_args!(
        "<tr id=\"{}\"><td><a data-is=\"monitor\" href=\"{}\"><span data-is=\"kind\">{}</span></a></td>\n<td>",
        operation.id(),
        Escaped(monitor.as_str()),
        Escaped(operation.kind())
    ));
    state(page, operation);
    bar(page, operation);
    problem(page, operation);
    page.push("</td>\n<td>");
    time(page, "created", Some(operation.created()));
    page.push("</td>\n<td>");
    links(page, operation, urls);
    cancel(page, Some(operation), urls);
    page.push("</td></tr>\n");
}

fn state(page: &mut Page, operation: &Operation) {
    let status = operation.status();
    let canceling = if operation.is_cancel_requested() { ", to be canceled" } else { "" };
    let message = operation.progress().and_then(Progress::message).unwrap_or_default();
    page.add(format_args!(
        "<strong data-is=\"status\" class=\"{status}\" tabindex=\"-1\">{}{canceling}</strong> \
         <span class=\"quiet\" data-is=\"message\">{}</span>",
        word(status),
        Escaped(message)
    ));
}

/// How far it is, as long as it is on its way.
fn bar(page: &mut Page, operation: &Operation) {
    let is_live = !operation.status().is_finished();
    page.add(format_args!("\n<div data-is=\"bar\"{}>", hidden(is_live)));
    page.push("<progress data-is=\"progress\" max=\"1\" aria-label=\"Progress\"");
    match operation.progress().and_then(Progress::fraction) {
        Some(fraction) => {
            let percent = (fraction * 100.0).floor();
            page.add(format_args!(" value=\"{fraction}\">{percent} %</progress></div>\n"));
        }
        None => page.push("></progress></div>\n"),
    }
}

/// Why it failed.
fn problem(page: &mut Page, operation: &Operation) {
    let problem = operation.error();
    page.add(format_args!(
        "<div class=\"problem\" data-is=\"problem\"{}><p><strong data-is=\"title\">{}</strong> \
         <span data-is=\"detail\">{}</span></p></div>\n",
        hidden(problem.is_some()),
        Escaped(problem.map_or("", |problem| problem.title().unwrap_or("It failed."))),
        Escaped(problem.and_then(|problem| problem.detail()).unwrap_or_default())
    ));
}

/// What came of it.
fn links(page: &mut Page, operation: &Operation, urls: &MonitorUrls) {
    let head = operation.outcome_head();
    let made = head.and_then(|head| head.location());
    let result = head.map(|_| urls.result(operation.id()));
    for (name, text, link) in
        [("location", "What was made", made), ("result", "Result", result.as_ref())]
    {
        match link {
            Some(link) => page.add(format_args!(
                "<a data-is=\"{name}\" href=\"{}\">{text}</a>\n",
                Escaped(link.as_str())
            )),
            None => page.add(format_args!("<a data-is=\"{name}\" hidden>{text}</a>\n")),
        }
    }
}

/// A button to cancel it, as long as that makes sense.
fn cancel(page: &mut Page, operation: Option<&Operation>, urls: &MonitorUrls) {
    let is_live = operation.is_some_and(|operation| {
        matches!(operation.status(), Status::Pending | Status::Running)
            && !operation.is_cancel_requested()
    });
    page.add(format_args!("<form data-is=\"cancel\" method=\"post\"{}", hidden(is_live)));
    if let Some(operation) = operation {
        page.add(format_args!(" action=\"{}\"", Escaped(urls.cancel(operation.id()).as_str())));
    }
    page.push("><button>Cancel</button></form>\n");
}
