use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::header::{JSON, UriReference, retry_after};
use crate::problem::{self, Problem, types};

/// How a piece of work ended: the HTTP response that a synchronous caller would have got.
///
/// Its bytes are never looked into: what a handler answered is what every reader of the result gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The status of the answer; from 400 on the work counts as failed.
    pub status: StatusCode,
    /// The fields of the answer.
    pub headers: HeaderMap,
    /// The content of the answer.
    pub body: Bytes,
}

/// What an operation tells of its outcome without the outcome's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeHead {
    status: StatusCode,
    location: Option<UriReference>,
}

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static(problem::MEDIA_TYPE);

/// Fields that speak of one message on one connection, or to one client only, and so are not kept
/// with an outcome: the hop-by-hop fields of [RFC 9110 §7.6.1], the framing of [RFC 9112 §6], `Date`
/// (the answer to a poll has its own) and `Set-Cookie`.
///
/// [RFC 9110 §7.6.1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
/// [RFC 9112 §6]: https://www.rfc-editor.org/rfc/rfc9112#section-6
pub const NOT_KEPT: [HeaderName; 12] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::DATE,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

impl Outcome {
    /// The longest `Location` that an operation tells, 8 KiB; a longer one is in the result alone.
    pub const MAX_LOCATION_BYTES: usize = 8 * 1024;
    /// How many bytes the names and values of its fields may have together for a store to take it: 64 KiB.
    pub const MAX_FIELD_BYTES: usize = 64 << 10;

    /// An answer of that status, without fields or content.
    pub fn new(status: StatusCode) -> Self {
        Self { status, ..Self::default() }
    }

    /// An answer with content of that media type.
    pub fn with_body(status: StatusCode, media_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, media_type);
        Self { status, headers, body: body.into() }
    }

    /// An answer with a JSON document. A value that cannot be written as JSON (a map with keys that
    /// are no strings, a `Serialize` that fails) becomes a 500 problem.
    pub fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::with_body(status, JSON, body),
            Err(_) => Problem::new(types::INTERNAL).into_outcome(),
        }
    }

    /// What an operation tells of this outcome.
    pub fn head(&self) -> OutcomeHead {
        let location = self.headers.get(header::LOCATION).map(HeaderValue::as_bytes);
        let location = location
            .filter(|location| location.len() <= Self::MAX_LOCATION_BYTES)
            .and_then(|location| std::str::from_utf8(location).ok());
        OutcomeHead { status: self.status, location: location.map(UriReference::new) }
    }

    /// The problem that the outcome is, if it is an error: the document that its body holds, as far as
    /// an operation [tells it](Problem::MAX_KEPT_BYTES), else one made of its status; with the time to try
    /// again, if its fields tell that in seconds.
    pub fn problem(&self) -> Option<Problem> {
        if self.status.as_u16() < 400 {
            return None;
        }
        let is_problem = self.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
            let media_type =
                value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
            media_type.trim_ascii().eq_ignore_ascii_case(problem::MEDIA_TYPE.as_bytes())
        });
        let parsed: Option<Problem> =
            is_problem.then(|| serde_json::from_slice(&self.body).ok()).flatten();
        let problem = match parsed {
            Some(problem) => problem.within_bounds().with_status(self.status),
            None => Problem::from_status(self.status),
        };
        let delay = self.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Some(match delay.and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) => problem.with_retry_after(Duration::from_secs(seconds)),
            None => problem,
        })
    }

    /// Takes out the fields that may not be kept: [`NOT_KEPT`] and those that `Connection` names.
    #[must_use]
    pub fn without_connection_fields(mut self) -> Self {
        let named: Vec<HeaderName> = self
            .headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .collect();
        let goes = |name: &&HeaderName| NOT_KEPT.contains(name) || named.contains(name);
        let gone: Vec<_> = self.headers.keys().filter(goes).cloned().collect();
        for name in gone {
            self.headers.remove(name);
        }
        self
    }
}

impl OutcomeHead {
    /// What an operation tells of an outcome with that status and, if something was created, its
    /// place.
    pub fn new(status: StatusCode, location: Option<UriReference>) -> Self {
        Self { status, location }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Where what was created is: the answer's `Location`.
    pub fn location(&self) -> Option<&UriReference> {
        self.location.as_ref()
    }
}

/// What a handler may return: anything that is an answer.
///
/// Implemented for [`Outcome`], [`Problem`], [`http::Response`] with a body of bytes,
/// [`Created`](crate::respond::Created), [`SeeOther`](crate::respond::SeeOther), and a `Result` of
/// two such.
pub trait IntoOutcome {
    /// The answer that a synchronous caller gets.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl<B: Into<Bytes>> IntoOutcome for Response<B> {
    fn into_outcome(self) -> Outcome {
        let (parts, body) = self.into_parts();
        Outcome { status: parts.status, headers: parts.headers, body: body.into() }
    }
}

impl IntoOutcome for Problem {
    fn into_outcome(self) -> Outcome {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut outcome = Outcome::with_body(self.status(), PROBLEM_JSON, body);
        if let Some(delay) = self.retry_after() {
            outcome.headers.insert(header::RETRY_AFTER, retry_after(delay));
        }
        outcome
    }
}

impl<T: IntoOutcome, E: IntoOutcome> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(answer) => answer.into_outcome(),
            Err(error) => error.into_outcome(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A foreign document may say what it likes.
    #[test]
    fn a_problem_says_the_status_that_it_is_answered_with() {
        for (document, status) in [(r#"{"status":200}"#, 500), (r#"{"status":404}"#, 404)] {
            let problem: Problem = serde_json::from_str(document).unwrap();
            let outcome = problem.into_outcome();
            assert_eq!(outcome.status, status);
            let said: serde_json::Value = serde_json::from_slice(&outcome.body).unwrap();
            assert_eq!(said["status"], status);
        }
    }

    #[test]
    fn an_error_outcome_holds_its_problem() {
        let problem = Problem::new(types::INTERRUPTED).with_detail("gone").with_extension("x", 1);
        assert_eq!(problem.clone().into_outcome().problem(), Some(problem));
        let plain = Outcome::with_body(
            StatusCode::BAD_GATEWAY,
            HeaderValue::from_static("text/html"),
            "<h1>oh</h1>",
        );
        assert_eq!(plain.problem(), Some(Problem::from_status(StatusCode::BAD_GATEWAY)));
        let mut broken = plain.clone();
        broken.headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        assert_eq!(broken.problem(), Some(Problem::from_status(StatusCode::BAD_GATEWAY)));
        assert_eq!(Outcome::new(StatusCode::SEE_OTHER).problem(), None);
    }

    #[test]
    fn a_location_in_another_script_is_told() {
        let mut outcome = Outcome::new(StatusCode::CREATED);
        outcome
            .headers
            .insert(header::LOCATION, HeaderValue::from_bytes("/bilder/ü".as_bytes()).unwrap());
        assert_eq!(outcome.head().location().unwrap().as_str(), "/bilder/%C3%BC");
        let long = format!("/{}", "x".repeat(Outcome::MAX_LOCATION_BYTES));
        outcome.headers.insert(header::LOCATION, HeaderValue::try_from(long).unwrap());
        assert_eq!(outcome.head().location(), None);
    }

    #[test]
    fn connection_fields_are_not_kept() {
        let mut outcome = Outcome::new(StatusCode::OK);
        for name in NOT_KEPT {
            outcome.headers.insert(name, HeaderValue::from_static("x-secret"));
        }
        outcome.headers.insert("x-secret", HeaderValue::from_static("1"));
        outcome.headers.insert("x-open", HeaderValue::from_static("2"));
        let kept = outcome.without_connection_fields();
        assert_eq!(kept.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-open"]);
    }

    #[test]
    fn a_problem_that_says_when_gets_retry_after() {
        let problem = Problem::new(types::OVERLOADED).with_retry_after(Duration::from_secs(3));
        let outcome = problem.clone().into_outcome();
        assert_eq!(outcome.headers[header::RETRY_AFTER], "3");
        assert_eq!(outcome.problem(), Some(problem));
    }

    #[test]
    fn json_that_cannot_be_written_is_a_problem() {
        let keyed = std::collections::HashMap::from([((1, 2), 3)]);
        assert_eq!(Outcome::json(StatusCode::OK, &keyed).status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
