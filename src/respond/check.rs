use std::fmt;

use http::{Response, StatusCode, header};

use crate::header::{Link, varies_on_prefer};
use crate::prefer::{PreferenceApplied, Preferences};

/// What is wrong with an answer that was made by hand: a rule that it breaks. Its text names the
/// specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Violation {
    /// A 202 from which a client cannot learn how it ends: neither `Content-Location`, nor
    /// `Location`, nor a `Link` to a monitor
    /// ([RFC 9110 §15.3.3](https://www.rfc-editor.org/rfc/rfc9110#section-15.3.3)).
    NoMonitor,
    /// `Preference-Applied` names what the client did not state
    /// ([RFC 7240 §3](https://www.rfc-editor.org/rfc/rfc7240#section-3)).
    NotPreferred,
    /// The answer depends on `Prefer`, and `Vary` does not say so
    /// ([RFC 7240 §2](https://www.rfc-editor.org/rfc/rfc7240#section-2)).
    NoVary,
    /// A `Content-Location` with a fragment
    /// ([RFC 9110 §8.7](https://www.rfc-editor.org/rfc/rfc9110#section-8.7)).
    Fragment,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMonitor => "a 202 names no status monitor (RFC 9110 §15.3.3)",
            Self::NotPreferred => {
                "Preference-Applied names a preference that the client did not state (RFC 7240 §3)"
            }
            Self::NoVary => "the answer depends on Prefer, and Vary does not list it (RFC 7240 §2)",
            Self::Fragment => "Content-Location has a fragment (RFC 9110 §8.7)",
        })
    }
}

/// Which rules an answer to a request with these preferences breaks.
///
/// What this crate builds breaks none. It is for what a service builds by hand, in its tests; in debug
/// builds the facade and the layer for tower look at each answer of a route that negotiates, and report
/// by `tracing`, at the level `WARN`.
///
/// ```
/// use http::Response;
/// use respond_async::prefer::Preferences;
/// use respond_async::respond::{Violation, violations};
///
/// let preferences = Preferences::parse("respond-async")?;
/// let response = Response::builder().status(202).header("vary", "Prefer").body(())?;
/// assert_eq!(violations(&preferences, &response).collect::<Vec<_>>(), [Violation::NoMonitor]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn violations<B>(
    preferences: &Preferences,
    response: &Response<B>,
) -> impl Iterator<Item = Violation> + use<B> {
    let headers = response.headers();
    let is_accepted = response.status() == StatusCode::ACCEPTED;
    let applied = PreferenceApplied::from_headers(headers);
    let has_monitor =
        [header::CONTENT_LOCATION, header::LOCATION].iter().any(|name| headers.contains_key(name))
            || Link::monitor_in(headers).is_some();
    let depends = !applied.is_empty() || (is_accepted && preferences.respond_async());
    let has_fragment = |value: &header::HeaderValue| value.as_bytes().contains(&b'#');
    [
        (is_accepted && !has_monitor).then_some(Violation::NoMonitor),
        applied
            .iter()
            .any(|one| preferences.get(one.name()).is_none())
            .then_some(Violation::NotPreferred),
        (depends && !varies_on_prefer(headers)).then_some(Violation::NoVary),
        headers
            .get(header::CONTENT_LOCATION)
            .is_some_and(has_fragment)
            .then_some(Violation::Fragment),
    ]
    .into_iter()
    .flatten()
}

/// In debug builds, reports what is wrong with an answer.
#[cfg(feature = "tokio")]
pub(crate) fn report<B>(preferences: &Preferences, response: &Response<B>) {
    if cfg!(debug_assertions) {
        for violation in violations(preferences, response) {
            let status = response.status().as_u16();
            tracing::warn!(target: "respond_async", status, "{violation}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(prefer: &str, status: u16, fields: &[(&str, &str)], expected: &[Violation]) {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let preferences = Preferences::parse(prefer).unwrap();
        let found: Vec<_> = violations(&preferences, &response.body(()).unwrap()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_rule_is_told() {
        use Violation::{Fragment, NoMonitor, NoVary, NotPreferred};
        let vary = ("vary", "Accept, prefer");
        let applied = ("preference-applied", "respond-async");
        check("", 200, &[], &[]);
        check("respond-async", 201, &[], &[]);
        check("", 202, &[], &[NoMonitor]);
        check("respond-async", 202, &[], &[NoMonitor, NoVary]);
        check("respond-async", 202, &[vary, ("location", "/o/1")], &[]);
        check("respond-async", 202, &[vary, ("content-location", "/o/1")], &[]);
        check("", 202, &[("link", "</a>; rel=x, </b>; title=\"c\"; rel=\"up Monitor\"")], &[]);
        check("", 202, &[("link", "</monitor>; rel=next; title=\"monitor\"")], &[NoMonitor]);
        check("respond-async", 200, &[applied], &[NoVary]);
        check("Respond-Async", 200, &[applied, vary], &[]);
        check("return=minimal", 200, &[applied, vary], &[NotPreferred]);
        check("", 200, &[("content-location", "/a#b")], &[Fragment]);
        check("", 200, &[("vary", "*"), applied], &[NotPreferred]);
    }

    #[test]
    fn texts_name_the_section() {
        for violation in
            [Violation::NoMonitor, Violation::NotPreferred, Violation::NoVary, Violation::Fragment]
        {
            assert!(violation.to_string().contains('§'));
        }
    }
}
