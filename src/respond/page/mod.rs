//! Operations as pages for people.
//!
//! A page says all there is to say without its script, and asks anew by itself where scripts do not run. The
//! script follows the event stream of the page's own URL and changes what has changed. It and the style
//! are the same on every page and are named by their digests in the `Content-Security-Policy`
//! ([CSP §6.7.3.3](https://www.w3.org/TR/CSP3/#match-element-to-source-list)), so that nothing else can run:
//! no script from elsewhere, none that a text smuggles in, no frame around it. Texts are escaped, and so are
//! addresses, each in the quoted value of an attribute.

mod list;
mod operation;
mod text;

use std::fmt::Write;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};

pub(super) use self::list::page as list;
pub(super) use self::operation::page as operation;
use self::text::Escaped;
use super::{Body, Response};
use crate::header::{UriReference, retry_after};
use crate::operation::Status;
#[cfg(feature = "tokio")]
use crate::problem::Problem;
use crate::time::Timestamp;

/// The media type of pages.
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const SCRIPT: &str = include_str!("script.js");
const STYLE: &str = include_str!("style.css");

macro_rules! digests {
    ($script:literal, $style:literal) => {
        /// The digests of script and style (SHA-256 in base64); a test compares them.
        #[cfg(test)]
        const DIGESTS: [&str; 2] = [$script, $style];
        /// What a page may do: run its script, wear its style, ask its own origin.
        const POLICY: &str = concat!(
            "default-src 'none'; script-src 'sha256-",
            $script,
            "'; style-src 'sha256-",
            $style,
            "'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        );
        /// Changes with the script and the style, so that no kept page has another's.
        pub(super) const EDITION: &str = concat!($script, $style);
    };
}

digests!(
    "krV1iotNHXKiNiz0VTEQX7fezPr6RifY+UVbhgkiZwM=",
    "lGBgIaPzfnbdvCSOQHFNu8Loo9C6puPR8zZi4f8aEuQ="
);

/// When a page is asked for anew.
#[derive(Clone, Copy)]
enum Refresh {
    Never,
    WithoutScript(Duration),
    #[cfg(feature = "tokio")]
    Always(Duration),
}

/// A page that is being written.
struct Page(String);

impl Page {
    /// The head; `refresh` says after how long the page is asked for anew, or the one at `place`.
    fn new(title: impl std::fmt::Display, refresh: Refresh, place: Option<&UriReference>) -> Self {
        let mut page = Self(String::with_capacity(STYLE.len() + SCRIPT.len() + 4_096));
        page.push("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        page.push("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        page.push("<meta name=\"color-scheme\" content=\"light dark\">\n");
        page.add(format_args!("<title>{}</title>\n", Escaped(title)));
        let (before, delay, after) = match refresh {
            Refresh::Never => ("", None, ""),
            Refresh::WithoutScript(delay) => ("<noscript>", Some(delay), "</noscript>"),
            #[cfg(feature = "tokio")]
            Refresh::Always(delay) => ("", Some(delay), ""),
        };
        if let Some(delay) = delay.map(retry_after) {
            let seconds = delay.to_str().unwrap_or_default();
            let place = place.map(|place| format!("; url={}", Escaped(place))).unwrap_or_default();
            page.add(format_args!(
                "{before}<meta http-equiv=\"refresh\" content=\"{seconds}{place}\">{after}\n"
            ));
        }
        page.add(format_args!("<style>{STYLE}</style>\n</head>\n<body>\n"));
        page
    }

    fn push(&mut self, markup: &str) {
        self.0.push_str(markup);
    }

    fn add(&mut self, markup: std::fmt::Arguments<'_>) {
        // A string takes whatever is written.
        let _ = self.0.write_fmt(markup);
    }

    /// The end; `is_followed` if the script has something to do.
    fn into_response(mut self, status: StatusCode, is_followed: bool) -> Response {
        if is_followed {
            self.add(format_args!("<script>{SCRIPT}</script>\n"));
        }
        self.push("</body>\n</html>\n");
        let mut response = Response::new(Body::from(self.0));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HTML);
        for (name, value) in PROTECTION {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// What keeps a page to itself. Its address may be all that guards it, so no other site is told it. `no-referrer`
/// would be too much: the button's form would then say that it comes from nowhere (`Origin: null`).
const PROTECTION: [(HeaderName, &str); 3] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// A problem as a page, with a link to the page of an operation where it leads `back`.
#[cfg(feature = "tokio")]
pub(super) fn problem(problem: &Problem, back: Option<&UriReference>) -> Response {
    let title = problem.title().or(problem.status().canonical_reason()).unwrap_or("Problem");
    let refresh = problem.retry_after().map_or(Refresh::Never, Refresh::Always);
    let mut page = Page::new(title, refresh, back);
    page.add(format_args!("<main data-page=\"over\">\n<h1>{}</h1>\n", Escaped(title)));
    if let Some(detail) = problem.detail() {
        page.add(format_args!("<p>{}</p>\n", Escaped(detail)));
    }
    if let Some(back) = back {
        page.add(format_args!("<p><a href=\"{}\">Back to the operation</a></p>\n", Escaped(back)));
    }
    page.push("</main>\n");
    let mut response = page.into_response(problem.status(), false);
    let delay = problem.retry_after().map(retry_after);
    response.headers_mut().extend(delay.map(|delay| (header::RETRY_AFTER, delay)));
    response
}

/// A state in a word for people.
fn word(status: Status) -> &'static str {
    match status {
        Status::Pending => "Waiting",
        Status::Running => "Running",
        Status::Succeeded => "Done",
        Status::Failed => "Failed",
        Status::Canceled => "Canceled",
    }
}

/// A time, to the second; in UTC until the script knows better. Empty if there is none yet.
fn time(page: &mut Page, name: &str, time: Option<Timestamp>) {
    let Some(time) = time else {
        page.add(format_args!("<time data-is=\"{name}\"></time>"));
        return;
    };
    let text = time.to_string();
    let (date, clock) = text.split_once('T').unwrap_or((&text, ""));
    let clock = clock.split(['.', 'Z']).next().unwrap_or_default();
    page.add(format_args!(
        "<time data-is=\"{name}\" datetime=\"{text}\">{date} {clock} UTC</time>"
    ));
}

/// `hidden` for what there is not.
fn hidden(is_there: bool) -> &'static str {
    if is_there { "" } else { " hidden" }
}

#[cfg(test)]
mod tests;
