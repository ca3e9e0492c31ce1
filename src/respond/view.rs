//! The one place where operations become HTTP.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response as HttpResponse, StatusCode};
use serde::Serialize;

use super::document::{ListDocument, OperationDocument};
use super::{Accepted, Body, Event, MonitorUrls, Response, page};
use crate::header::{CacheControl, EntityTag, JSON, Link, SUNSET, UriReference, retry_after};
use crate::operation::{IntoOutcome, Operation, Outcome, Status};
use crate::prefer::{PREFERENCE_APPLIED, PreferenceApplied, Preferences};
use crate::problem::{Problem, ProblemType, types};
use crate::time::Timestamp;

/// May be kept by its client alone, who asks before each use whether it still holds.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache, private");

/// An operation as its client sees it.
///
/// ```
/// use std::time::Duration;
/// use respond_async::operation::{NewOperation, OperationId};
/// use respond_async::respond::{MonitorUrls, OperationView};
/// use respond_async::Timestamp;
///
/// let now: Timestamp = "2026-11-23T05:54:39Z".parse()?;
/// let operation = NewOperation::new(OperationId::generate(now)?).accept(now);
/// let urls = MonitorUrls::default();
/// let view = OperationView::new(&operation, now, &urls).retry_after(Duration::from_secs(2));
///
/// let response = view.monitor(&http::HeaderMap::new());
/// assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (200, &"2".parse()?));
///
/// let mut request = http::HeaderMap::new();
/// request.insert("if-none-match", response.headers()["etag"].clone());
/// assert_eq!(view.monitor(&request).status(), 304);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct OperationView<'a> {
    operation: &'a Operation,
    now: Timestamp,
    urls: &'a MonitorUrls,
    retry_after: Duration,
    applied: Option<HeaderValue>,
}

impl<'a> OperationView<'a> {
    /// The default of [`retry_after`](Self::retry_after).
    pub const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

    /// The operation as it is seen at `now`, a time of the store's clock.
    pub fn new(operation: &'a Operation, now: Timestamp, urls: &'a MonitorUrls) -> Self {
        Self { operation, now, urls, retry_after: Self::DEFAULT_RETRY_AFTER, applied: None }
    }

    /// Says after how long the client should ask again while the operation is live.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = delay;
        self
    }

    /// What the monitor says, as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self.document()).unwrap_or_default()
    }

    /// Says that the monitor's answer was held as the client preferred (`Preference-Applied: wait`), if
    /// these preferences carry a `wait`.
    pub fn waited(mut self, preferences: &Preferences) -> Self {
        self.applied = PreferenceApplied::of(preferences).wait().to_header_value();
        self
    }

    /// The 202 to the request that began the operation. Its content is what a GET of the monitor
    /// gives ([RFC 9110 §8.7](https://www.rfc-editor.org/rfc/rfc9110#section-8.7)).
    pub fn accepted(&self, preferences: &Preferences) -> Response {
        self.accepted_with(preferences, self.operation.callback().is_some())
    }

    /// The same, and whether it is the client's `callback` that the operation has.
    pub(crate) fn accepted_with(&self, preferences: &Preferences, callback: bool) -> Response {
        let monitor = self.urls.monitor(self.operation.id());
        let document = OperationDocument::at(monitor.clone(), self.operation, self.urls);
        match write(&document) {
            Ok(content) => Accepted::at(monitor)
                .content(content)
                .retry_after(self.retry_after)
                .applied_with(preferences, callback)
                .into_response(),
            Err(problem) => problem.into_response(),
        }
    }

    /// The answer to a GET of the monitor: 200 in every state, or 304 if the client has this
    /// revision ([RFC 9110 §13.1.2](https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2)).
    pub fn monitor(&self, request: &HeaderMap) -> Response {
        let tag = Self::tag(self.operation);
        let response = if tag.is_in_if_none_match(request) {
            not_modified()
        } else {
            json(StatusCode::OK, &self.document())
        };
        self.finish(&tag, response)
    }

    /// What stands in the monitor's answer in whichever form.
    fn finish(&self, tag: &EntityTag, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.insert(header::ETAG, tag.to_header_value());
        if let Some(applied) = &self.applied {
            headers.insert(PREFERENCE_APPLIED, applied.clone());
        }
        match self.operation.expires() {
            None => {
                headers.insert(header::RETRY_AFTER, retry_after(self.retry_after));
                headers.insert(header::CACHE_CONTROL, ASK_AGAIN);
            }
            Some(expires) => self.keep_until(expires, headers),
        }
        response
    }

    /// The same as a page for people. Its tag is another: the two are not the same bytes.
    pub fn page(&self, request: &HeaderMap) -> Response {
        let tag = Self::page_tag(self.operation);
        let mut response = page::operation(self.operation, self.urls, self.retry_after);
        if tag.is_in_if_none_match(request) {
            // The fields of the page still hold.
            *response.body_mut() = Body::default();
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().remove(header::CONTENT_TYPE);
        }
        self.finish(&tag, response)
    }

    /// The tag of the operation as JSON.
    pub(crate) fn tag(operation: &Operation) -> EntityTag {
        EntityTag::of_revision(operation.revision())
    }

    /// The tag of the operation as a page.
    pub(crate) fn page_tag(operation: &Operation) -> EntityTag {
        let text = format!("{}-{}", operation.revision(), page::EDITION);
        EntityTag::new(&text).unwrap_or_else(|_| EntityTag::of_revision(operation.revision()))
    }

    /// The event that tells of this state: its name is `operation`, its data are the content of the
    /// monitor's answer. On the stream of one operation its id is the revision.
    pub fn event(&self, id: &str) -> Event {
        let event = Event::new().name("operation").id(id);
        match serde_json::to_string(&self.document()) {
            Ok(document) => event.data(&document),
            // As `write` has it. Without data it is no event.
            Err(_) => event,
        }
    }

    /// The 202 to a DELETE of the monitor while the operation is live: its cancellation is
    /// requested, and this is how it stands now.
    pub fn cancellation(&self) -> Response {
        let mut response = json(StatusCode::ACCEPTED, &self.document());
        let monitor = self.urls.monitor(self.operation.id());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LOCATION, monitor.to_header_value());
        headers.insert(header::LINK, Link::monitor(monitor).to_header_value());
        headers.insert(header::CACHE_CONTROL, CacheControl::no_store().to_header_value());
        if self.operation.expires().is_none() {
            headers.insert(header::RETRY_AFTER, retry_after(self.retry_after));
        }
        response
    }

    /// The answer to a GET of the result: the outcome itself, byte for byte.
    ///
    /// `stored` is what the store kept of the outcome. A failure that no handler answered (a
    /// deadline, a lost worker) has nothing stored and is answered with its problem; an operation
    /// that was canceled, or is not finished, with a 404 problem of a type of its own. One that succeeded
    /// and of which nothing is stored is gone: it was forgotten, or has expired, since it was read.
    pub fn result(&self, stored: Option<Outcome>) -> Response {
        let Some(expires) = self.operation.expires() else {
            let problem = Problem::new(types::RESULT_NOT_READY).with_retry_after(self.retry_after);
            return no_store(problem.into_response());
        };
        let Some(outcome) = self.outcome(stored) else {
            return no_store(self.without_outcome(types::RESULT_NOT_AVAILABLE));
        };
        let mut response = outcome.into_response();
        let headers = response.headers_mut();
        // What the handler said about keeping its answer holds for the replay too.
        let cache_control = headers.remove(header::CACHE_CONTROL);
        self.keep_until(expires, headers);
        if let Some(cache_control) = cache_control {
            headers.insert(header::CACHE_CONTROL, cache_control);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    /// The answer to the request that began the operation, or to the same request again, once the
    /// operation has finished: the outcome as the handler gave it; if it was canceled, a problem of
    /// the type [`CANCELED`](types::CANCELED).
    pub fn replay(&self, stored: Option<Outcome>) -> Response {
        match self.outcome(stored) {
            Some(outcome) => outcome.into_response(),
            None => self.without_outcome(types::CANCELED),
        }
    }

    fn without_outcome(&self, canceled: ProblemType) -> Response {
        let is_canceled = self.operation.status() == Status::Canceled;
        Problem::new(if is_canceled { canceled } else { types::NOT_FOUND }).into_response()
    }

    /// How it ended: what was stored, or the problem of a failure that no handler answered.
    fn outcome(&self, stored: Option<Outcome>) -> Option<Outcome> {
        stored.or_else(|| self.operation.error().map(|error| error.clone().into_outcome()))
    }

    fn document(&self) -> OperationDocument<'_> {
        OperationDocument::new(self.operation, self.urls)
    }

    /// What is finished never changes, so its client may keep it until it goes
    /// ([RFC 8594](https://www.rfc-editor.org/rfc/rfc8594) for `Sunset`).
    fn keep_until(&self, expires: Timestamp, headers: &mut HeaderMap) {
        let age = expires.duration_since(self.now);
        let cache_control = CacheControl::private().max_age(age);
        headers.insert(header::CACHE_CONTROL, cache_control.to_header_value());
        if let Ok(date) = HeaderValue::try_from(expires.to_http_date()) {
            headers.insert(SUNSET, date);
        }
    }
}

/// A page of an owner's operations as its client sees it, newest first.
#[derive(Debug, Clone)]
#[must_use]
pub struct ListView<'a> {
    operations: &'a [Operation],
    urls: &'a MonitorUrls,
    next: Option<UriReference>,
}

impl<'a> ListView<'a> {
    /// A page of these operations.
    pub fn new(operations: &'a [Operation], urls: &'a MonitorUrls) -> Self {
        Self { operations, urls, next: None }
    }

    /// Says where the next page is.
    pub fn next(mut self, page: Option<UriReference>) -> Self {
        self.next = page;
        self
    }

    /// The same as a page for people, which is asked for anew after `refresh` where scripts do not run.
    /// `is_newest` says that new operations belong on it, which its script then adds.
    pub fn page(self, is_newest: bool, refresh: Duration) -> Response {
        let next = self.next.as_ref();
        let response = page::list(self.operations, self.urls, next, is_newest, refresh);
        self.finish(response)
    }

    /// The answer to a GET of the list: 200 with `Link: rel="next"` if there is more.
    pub fn into_response(self) -> Response {
        let document = ListDocument::new(self.operations, self.next.clone(), self.urls);
        let response = json(StatusCode::OK, &document);
        self.finish(response)
    }

    /// What stands in the answer in whichever form.
    fn finish(self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, ASK_AGAIN);
        if let Some(next) = self.next {
            headers.insert(header::LINK, Link::next(next).to_header_value());
        }
        response
    }
}

/// A problem as a page for people, with a link to the page of an operation where it leads `back`.
#[cfg(feature = "tokio")]
pub(crate) fn problem_page(problem: &Problem, back: Option<&UriReference>) -> Response {
    page::problem(problem, back)
}

/// Keeps a 404 or 410 from being cached by heuristics
/// ([RFC 9111 §4.2.2](https://www.rfc-editor.org/rfc/rfc9111#section-4.2.2)).
pub(crate) fn no_store(mut response: Response) -> Response {
    let no_store = CacheControl::no_store().to_header_value();
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}

fn json<T: Serialize>(status: StatusCode, document: &T) -> Response {
    match write(document) {
        Ok(content) => Outcome::with_body(status, JSON, content).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// Writes a document of ours into room for an operation, so that nothing has to move meanwhile.
fn write<T: Serialize>(document: &T) -> Result<Vec<u8>, Problem> {
    let mut content = Vec::with_capacity(1_024);
    match serde_json::to_writer(&mut content, document) {
        Ok(()) => Ok(content),
        // There is nothing in our documents that JSON has no form for.
        Err(_) => Err(Problem::new(types::INTERNAL)),
    }
}

fn not_modified() -> Response {
    let mut response = HttpResponse::new(Body::default());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}
