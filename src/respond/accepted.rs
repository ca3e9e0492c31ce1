use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, header};
use serde::Serialize;

use super::Response;
use crate::header::{CacheControl, JSON, Link, UriReference, retry_after, vary_on_prefer};
use crate::operation::Outcome;
use crate::prefer::{PREFERENCE_APPLIED, PreferenceApplied, Preferences};

/// 202 Accepted: the work goes on, and its status monitor is there
/// ([RFC 9110 §15.3.3](https://www.rfc-editor.org/rfc/rfc9110#section-15.3.3)).
///
/// Send it only after whatever must survive has been stored.
///
/// - `Content-Location` names the monitor: the content of this answer is a report that a GET of the
///   monitor gives too ([RFC 9110 §8.7](https://www.rfc-editor.org/rfc/rfc9110#section-8.7)).
/// - `Location` names it again, by convention, and `Link` with the relation `monitor`
///   ([RFC 5989](https://www.rfc-editor.org/rfc/rfc5989)).
/// - `Vary: Prefer`, `Cache-Control: no-store`, and `Retry-After` and `Preference-Applied` as given.
#[derive(Debug, Clone)]
#[must_use]
pub struct Accepted {
    monitor: UriReference,
    outcome: Outcome,
}

/// How many fields a 202 has, and those that a server adds.
const FIELDS: usize = 12;

impl Accepted {
    /// The status monitor is at `monitor`.
    pub fn at(monitor: impl Into<UriReference>) -> Self {
        let mut outcome = Outcome::new(StatusCode::ACCEPTED);
        outcome.headers.reserve(FIELDS);
        Self { monitor: monitor.into(), outcome }
    }

    /// Gives what the monitor would say now, as JSON. A value that has no JSON form makes the whole
    /// answer a 500 problem.
    pub fn json<T: Serialize + ?Sized>(self, status: &T) -> Self {
        let content = Outcome::json(StatusCode::ACCEPTED, status);
        if content.status == StatusCode::ACCEPTED {
            self.content(content.body)
        } else {
            Self { outcome: content, ..self }
        }
    }

    /// Gives it as JSON that has been written already.
    pub(super) fn content(mut self, json: impl Into<Bytes>) -> Self {
        self.outcome.headers.insert(header::CONTENT_TYPE, JSON);
        self.outcome.body = json.into();
        self
    }

    /// Says when to ask the monitor, in whole seconds and at least one.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.outcome.headers.insert(header::RETRY_AFTER, retry_after(delay));
        self
    }

    /// Says that `respond-async` was applied, if these preferences carry it. `wait`, which then did
    /// not come true, is not named.
    pub fn applied(self, preferences: &Preferences) -> Self {
        self.applied_with(preferences, false)
    }

    /// The same, and whether `callback` was.
    pub(super) fn applied_with(mut self, preferences: &Preferences, callback: bool) -> Self {
        let mut applied = PreferenceApplied::of(preferences).respond_async();
        if callback {
            applied = applied.callback();
        }
        if let Some(applied) = applied.to_header_value() {
            self.outcome.headers.insert(PREFERENCE_APPLIED, applied);
        }
        self
    }

    /// The answer as a response.
    pub fn into_response(self) -> Response {
        let mut response = self.outcome.into_response();
        if response.status() == StatusCode::ACCEPTED {
            let headers = response.headers_mut();
            let monitor = self.monitor.to_header_value();
            let content_location = self.monitor.without_fragment().to_header_value();
            headers.insert(header::CONTENT_LOCATION, content_location);
            headers.insert(header::LOCATION, monitor);
            headers.insert(header::LINK, Link::monitor(self.monitor).to_header_value());
            headers.insert(header::CACHE_CONTROL, CacheControl::no_store().to_header_value());
            vary_on_prefer(headers);
        }
        response
    }
}
