//! Answers that are event streams.

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::cursor::Cursor;
use super::pump::Pump;
use super::{Asked, Content, Monitor, stream};
use crate::operation::{OperationId, Outcome};
use crate::respond::{Body, Event, no_store};
use crate::store::{ListQuery, Observed};

const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

impl Monitor {
    /// The stream of an operation's revisions.
    pub(super) fn events(
        &self,
        id: OperationId,
        found: &Observed,
        asked: Asked<'_>,
    ) -> http::Response<Content> {
        let operation = &found.operation;
        let revision = operation.revision();
        let seen = stream::last_revision(asked.headers).filter(|seen| *seen == revision);
        let is_finished = operation.status().is_finished();
        if is_finished && seen.is_some() {
            // It has seen the end. This is how a browser is told not to come again
            // (https://html.spec.whatwg.org/multipage/server-sent-events.html#server-sent-events-intro).
            return no_store(Outcome::new(StatusCode::NO_CONTENT).into_response())
                .map(Content::from);
        }
        let observer = self.operations.observer();
        let first = |retry| match seen {
            Some(_) => Event::new().retry(retry),
            None => stream::event(&observer, operation, &revision.to_string()).retry(retry),
        };
        let place = (asked.method == Method::GET && !is_finished)
            .then(|| observer.stream_place())
            .flatten();
        let content = match place {
            Some(place) => {
                let owner = asked.owner.clone();
                let first = first(observer.reconnect_after());
                Pump::start(&observer, place, first, |observer, pump| {
                    stream::operation(observer, pump, owner, id, revision)
                })
            }
            None => Body::from(first(self.operations.retry_after(found)).into_bytes()).into(),
        };
        event_stream(content)
    }

    /// The stream of all changes of an owner's operations.
    pub(super) fn list_events(
        &self,
        query: ListQuery,
        asked: Asked<'_>,
    ) -> http::Response<Content> {
        let observer = self.operations.observer();
        let retry = Event::new().retry(observer.reconnect_after());
        let place = (asked.method == Method::GET).then(|| observer.stream_place()).flatten();
        event_stream(match place {
            Some(place) => {
                let cursor = stream::last_event_id(asked.headers).and_then(Cursor::decode);
                let owner = asked.owner.clone();
                Pump::start(&observer, place, retry, |observer, pump| {
                    stream::list(observer, pump, owner, query, cursor)
                })
            }
            None => Body::from(retry.into_bytes()).into(),
        })
    }
}

/// An event stream that nobody keeps, and no proxy holds back.
fn event_stream(content: Content) -> http::Response<Content> {
    let mut response = http::Response::new(content);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Event::MEDIA_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx and those that follow it.
    headers.insert(NO_BUFFERING, HeaderValue::from_static("no"));
    response
}
