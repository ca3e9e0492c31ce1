//! The status monitors of a service: `http::Request` in, `http::Response` out.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /operations` | 200: the caller's own operations, newest first; `status`, `kind`, `limit` and `cursor` in the query |
//! | `GET /operations/{id}` | 200 in every state, so that a failed operation is no failed poll; 304 to `If-None-Match` |
//! | `GET /operations/{id}/result` | the outcome itself; before it is there, 404 and `Retry-After`; 503 if [too many](crate::operations::OperationsBuilder::results_bytes) are on their way |
//! | `POST /operations/{id}/cancel` | 303: what the button of a page asks, by a form of the same origin; else 403 |
//! | `GET /operations/{id}/callback` | 200: the state of the delivery of its last change to its callback (feature `webhook`) |
//! | `DELETE /operations/{id}` | live: 202, cancellation is requested; finished: 204, forgotten |
//!
//! A monitor whose `If-Match` or, but for `GET` and `HEAD`, `If-None-Match` does not hold is a 412. A client that asks
//! more often than [it may](crate::operations::OperationsBuilder::owner_poll_rate) gets 429, before
//! anything is read. An unknown operation, one that was forgotten or has expired, and somebody else's are told alike: 404,
//! or 410 once the id is older than the [shortest retention](
//! crate::operations::OperationsBuilder::retention_bounds). `HEAD` is answered as `GET` is: your server leaves the content
//! out. `respond-async` means nothing here, so a client that sends it along with every request gets no second operation.
//!
//! # Forms
//! A monitor and a list are JSON. A client that prefers `text/html` gets a page for people, one that prefers
//! `text/event-stream` a [stream](#streams). JSON and page of a monitor have an entity tag each.
//!
//! A page says all without its script, and asks anew by itself where scripts do not run; with it, it follows
//! the stream. It takes nothing from elsewhere, and its `Content-Security-Policy` lets nothing else in. Its
//! button to cancel is a form, which is heeded only if the browser says that it comes from the same origin
//! (`Sec-Fetch-Site`, or else `Origin`), so that no other site can press it. If you authenticate pages by
//! cookies, this is all they need against forged requests; DELETE cannot be sent by a form at all.
//!
//! # Waiting
//! A poll with `Prefer: wait=20` is held until the operation has another revision than its client
//! (the one in `If-None-Match`, else the one at its arrival), until it is finished, or until 20 s or
//! the [cap](crate::operations::OperationsBuilder::wait_cap) are over.
//! `Preference-Applied: wait` is in its answer if it was held, so that its client may ask again at
//! once, and in no other: not if there was news already, if [too many](
//! crate::operations::OperationsBuilder::waiters) are held, or if the service shuts down. Then
//! `Retry-After` says when to come.
//!
//! # Streams
//! With `Accept: text/event-stream` [`answer`](Monitor::answer) gives events, as the
//! [HTML standard](https://html.spec.whatwg.org/multipage/server-sent-events.html) has them. Each is named
//! `operation`, and its data are that operation as JSON.
//!
//! | stream of | tells first | and then | `id` |
//! | --- | --- | --- | --- |
//! | an operation | how it stands, unless `Last-Event-ID` is its revision | each later state, until the last | the revision |
//! | a list | the page that the query asks for, or what has changed since `Last-Event-ID` | each change of the owner's operations, new ones too | a cursor |
//!
//! Each revision is told once at the most, in their order, and the last one always: what comes faster than
//! it can be told is told as the last of it. An id that cannot be read is ignored. A client that has seen the
//! last state of an operation is answered 204. On a list `kind` holds for all that is told, the rest of the
//! query for the page; that an operation was removed is not told.
//!
//! A stream that has nothing to tell sends a comment [now and
//! then](crate::operations::OperationsBuilder::heartbeat). It ends when its reader
//! [stalls](crate::operations::OperationsBuilder::stall_limit), with its
//! [lifetime](crate::operations::OperationsBuilder::stream_lifetime) and with the service; its client comes
//! again after the time that `retry` says, and misses nothing. Beyond the
//! [bound](crate::operations::OperationsBuilder::streams) a stream sends one event and ends. On an operation that is its
//! state; on a list only `retry`.
//!
//! ```
//! use http::Request;
//! use respond_async::monitor::Monitor;
//! use respond_async::prefer::Preferences;
//! use respond_async::store::MemoryStore;
//! use respond_async::{Operations, Outcome, Owner};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let operations = Operations::builder(MemoryStore::new()).start();
//! let preferences = Preferences::parse(b"respond-async")?;
//! let accepted =
//!     operations.respond_with(&preferences, |_| async { Outcome::new(http::StatusCode::OK) }).await;
//!
//! let monitor = Monitor::new(&operations);
//! let link = accepted.headers()["content-location"].to_str()?;
//! let response = monitor.respond(&Owner::anonymous(), &Request::get(link).body(())?).await;
//! assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
//! ```

mod content;
mod cursor;
mod events;
mod origin;
mod pump;
mod query;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Uri};

pub use self::content::Content;
use crate::header::preferred_type;
use crate::operation::{Operation, OperationId, Outcome, Owner};
use crate::operations::{Held, Operations, polled};
use crate::prefer::Preferences;
use crate::problem::{Problem, types};
use crate::respond::{Event, ListView, OperationView, Response, SeeOther, no_store, problem_page};
use crate::store::ListQuery;

/// After how long the page of a list is asked for anew where scripts do not run.
const LIST_REFRESH: Duration = Duration::from_secs(10);

/// Answers for the operations of a service. A clone is the same.
#[derive(Debug, Clone)]
pub struct Monitor {
    operations: Operations,
    /// The path of the base URL, without its trailing slash.
    base: Arc<str>,
}

/// What a path below the base names.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    List,
    Operation(OperationId),
    Result(OperationId),
    /// What the button of a page asks.
    Cancel(OperationId),
    /// The state of the delivery to its callback.
    #[cfg(feature = "webhook")]
    Callback(OperationId),
}

impl Target {
    /// Whether it has several forms.
    fn negotiates(&self) -> bool {
        matches!(self, Self::List | Self::Operation(_) | Self::Cancel(_))
    }

    /// A word for what it is, as metrics have it.
    fn name(&self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Operation(_) => "operation",
            Self::Result(_) => "result",
            Self::Cancel(_) => "cancel",
            #[cfg(feature = "webhook")]
            Self::Callback(_) => "callback",
        }
    }

    fn operation(&self) -> Option<OperationId> {
        match self {
            Self::List => None,
            Self::Operation(id) | Self::Result(id) | Self::Cancel(id) => Some(*id),
            #[cfg(feature = "webhook")]
            Self::Callback(id) => Some(*id),
        }
    }
}

/// In which form an answer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Page,
    Events,
}

/// The forms. The first is for clients without a preference; the last is not given by
/// [`Monitor::respond`].
const FORMS: [(&str, Form); 3] = [
    ("application/json", Form::Json),
    ("text/html", Form::Page),
    (Event::MEDIA_TYPE, Form::Events),
];

/// A request, as far as it decides about the answer.
#[derive(Clone, Copy)]
struct Asked<'a> {
    owner: &'a Owner,
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    form: Form,
}

impl Asked<'_> {
    /// Whether its conditions hold ([RFC 9110 §13.2.2](https://www.rfc-editor.org/rfc/rfc9110#section-13.2.2)). To a GET of
    /// what the client has already the answer is a 304, which the view gives.
    fn check_conditions(&self, operation: &Operation) -> Result<(), Problem> {
        let headers = self.headers;
        let tags = || [OperationView::tag(operation), OperationView::page_tag(operation)];
        let is_other = headers.contains_key(header::IF_MATCH)
            && !tags().iter().any(|tag| tag.is_in_if_match(headers));
        let is_known = !matches!(*self.method, Method::GET | Method::HEAD)
            && tags().iter().any(|tag| tag.is_in_if_none_match(headers));
        if is_other || is_known { Err(Problem::new(types::PRECONDITION_FAILED)) } else { Ok(()) }
    }

    /// The revision that the operation has to have still when what was asked is done; none if any will do.
    fn revision_of(&self, operation: &Operation) -> Option<u64> {
        let is_of_any = self.headers.get(header::IF_MATCH).is_none_or(|condition| condition == "*");
        let is_pinned = !is_of_any || self.headers.contains_key(header::IF_NONE_MATCH);
        is_pinned.then(|| operation.revision())
    }
}

impl Monitor {
    /// The monitors of these operations.
    pub fn new(operations: &Operations) -> Self {
        Self { operations: operations.clone(), base: operations.urls().path().into() }
    }

    /// The same where a proxy leaves another path of the base URL's.
    #[cfg(feature = "tower")]
    pub(crate) fn seen_at(self, path: &str) -> Self {
        Self { base: path.into(), ..self }
    }

    /// Whether a path is the base URL's, or below it.
    #[cfg(feature = "tower")]
    pub(crate) fn is_at(&self, path: &str) -> bool {
        let below = path.strip_prefix(&*self.base);
        below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
    }

    /// Answers a request of `owner`. The path may begin with that of the base URL, or be what a
    /// router left of it. No answer is a stream: a client that prefers events is answered in another form.
    ///
    /// # Cancel safety
    /// A cancellation or removal that was begun is brought to its end.
    pub async fn respond<B>(&self, owner: &Owner, request: &Request<B>) -> Response {
        let response = self.negotiate(owner, request, &FORMS[..2]).await;
        response.map(Content::into_body)
    }

    /// Answers as [`respond`](Self::respond) does, and with an event stream whoever prefers that.
    ///
    /// # Cancel safety
    /// As [`respond`](Self::respond). A stream ends with its content.
    pub async fn answer<B>(&self, owner: &Owner, request: &Request<B>) -> http::Response<Content> {
        self.negotiate(owner, request, &FORMS).await
    }

    async fn negotiate<B>(
        &self,
        owner: &Owner,
        request: &Request<B>,
        forms: &[(&str, Form)],
    ) -> http::Response<Content> {
        let (path, headers) = (request.uri().path(), request.headers());
        let target = self.target(path);
        let media_types: Vec<&str> = forms.iter().map(|(media_type, _)| *media_type).collect();
        // JSON if the client accepts nothing that there is: it says more than a 406.
        let form = preferred_type(headers, &media_types).map_or(Form::Json, |form| forms[form].1);
        let asked = Asked { owner, method: request.method(), uri: request.uri(), headers, form };
        let resource = target.as_ref().map_or("unknown", Target::name);
        let negotiates = target.as_ref().is_some_and(Target::negotiates);
        // What a button asks is nothing to look at.
        let page = match target {
            Some(Target::Cancel(id)) => Some(self.operations.urls().monitor(id)),
            _ => None,
        };
        let answer = match target {
            None => Err(Problem::new(types::NOT_FOUND)),
            Some(target) => match self.operations.spend(owner, target.operation()) {
                Ok(()) => self.answer_to(target, asked).await,
                Err(problem) => Err(problem),
            },
        };
        let mut response = answer.unwrap_or_else(|problem| {
            let allow = problem.is(types::METHOD_NOT_ALLOWED).then(|| self.allow(path));
            let in_words = negotiates && form == Form::Page;
            let is_there = !problem.is(types::NOT_FOUND) && !problem.is(types::EXPIRED);
            let mut response = no_store(if in_words {
                problem_page(&problem, page.as_ref().filter(|_| is_there))
            } else {
                problem.into_response()
            });
            if let Some(allow) = allow {
                response.headers_mut().insert(header::ALLOW, allow);
            }
            response.map(Content::from)
        });
        polled(resource, response.status());
        if negotiates {
            let vary = HeaderValue::from_static("Accept, Prefer");
            response.headers_mut().insert(header::VARY, vary);
        }
        response
    }

    async fn answer_to(
        &self,
        target: Target,
        asked: Asked<'_>,
    ) -> Result<http::Response<Content>, Problem> {
        let answer = match (asked.method, target) {
            (&Method::GET | &Method::HEAD, Target::List) => return self.list(asked).await,
            (&Method::GET | &Method::HEAD, Target::Operation(id)) => {
                return self.status(id, asked).await;
            }
            (&Method::GET | &Method::HEAD, Target::Result(id)) => self.result(id, asked).await?,
            #[cfg(feature = "webhook")]
            (&Method::GET | &Method::HEAD, Target::Callback(id)) => {
                let delivery = self.operations.delivery(asked.owner, id).await?;
                delivery.ok_or_else(|| Problem::new(types::NOT_FOUND))?.into_response()
            }
            (&Method::DELETE, Target::Operation(id)) => self.delete(id, asked).await?,
            (&Method::POST, Target::Cancel(id)) => self.cancel(id, asked).await?,
            _ => return Err(Problem::new(types::METHOD_NOT_ALLOWED)),
        };
        Ok(answer.map(Content::from))
    }

    async fn status(
        &self,
        id: OperationId,
        asked: Asked<'_>,
    ) -> Result<http::Response<Content>, Problem> {
        let observed = self.operations.get(asked.owner, id).await?;
        asked.check_conditions(&observed.operation)?;
        if asked.form == Form::Events {
            return Ok(self.events(id, &observed, asked));
        }
        let headers = asked.headers;
        let preferences = Preferences::from_headers(headers);
        let tag = || match asked.form {
            Form::Page => OperationView::page_tag(&observed.operation),
            Form::Json | Form::Events => OperationView::tag(&observed.operation),
        };
        // The client has another revision, so there is nothing to wait for.
        let is_known =
            !headers.contains_key(header::IF_NONE_MATCH) || tag().is_in_if_none_match(headers);
        let wait = preferences.wait().filter(|_| is_known).unwrap_or_default();
        let Held { observed, was_held } = self.operations.hold(asked.owner, observed, wait).await?;
        let urls = self.operations.urls();
        let view = OperationView::new(&observed.operation, observed.now, urls)
            .retry_after(self.operations.delay(&observed, was_held));
        let view = if was_held { view.waited(&preferences) } else { view };
        let answer = match asked.form {
            Form::Page => view.page(headers),
            Form::Json | Form::Events => view.monitor(headers),
        };
        Ok(answer.map(Content::from))
    }

    async fn result(&self, id: OperationId, asked: Asked<'_>) -> Result<Response, Problem> {
        let (observed, outcome) = self.operations.outcome(asked.owner, id).await?;
        let outcome = match outcome {
            // The content is left out of the answer to a HEAD.
            Some(outcome) if asked.method == Method::GET => {
                Some(self.operations.admit_result(outcome)?)
            }
            outcome => outcome,
        };
        let view = OperationView::new(&observed.operation, observed.now, self.operations.urls());
        Ok(view.retry_after(self.operations.retry_after(&observed)).result(outcome))
    }

    /// Does what the button of a page asks, and shows the page again.
    async fn cancel(&self, id: OperationId, asked: Asked<'_>) -> Result<Response, Problem> {
        let urls = self.operations.urls();
        if !origin::is_own_page(asked.headers, asked.uri, urls.origin()) {
            return Err(Problem::new(types::CROSS_SITE));
        }
        let operation = self.operations.get(asked.owner, id).await?.operation;
        asked.check_conditions(&operation)?;
        self.operations.cancel_at(id, asked.revision_of(&operation)).await?;
        Ok(no_store(SeeOther::to(urls.monitor(id)).into_response()))
    }

    async fn delete(&self, id: OperationId, asked: Asked<'_>) -> Result<Response, Problem> {
        let operation = self.operations.get(asked.owner, id).await?.operation;
        asked.check_conditions(&operation)?;
        if operation.status().is_finished() {
            self.operations.forget(asked.owner, id).await?;
            return Ok(Outcome::new(StatusCode::NO_CONTENT).into_response());
        }
        // If it finishes before the cancellation, the answer says so, and it is kept: whoever sent
        // this has not seen how it ended.
        let observed = self.operations.cancel_at(id, asked.revision_of(&operation)).await?;
        let view = OperationView::new(&observed.operation, observed.now, self.operations.urls());
        Ok(view.retry_after(self.operations.retry_after(&observed)).cancellation())
    }

    async fn list(&self, asked: Asked<'_>) -> Result<http::Response<Content>, Problem> {
        let owner = asked.owner;
        if owner.name().is_none() {
            let detail = "A list is given only to a client whose name the service knows.";
            return Err(Problem::new(types::OWNER_REQUIRED).with_detail(detail));
        }
        let query = query::parse(asked.uri.query().unwrap_or_default())?;
        if asked.form == Form::Events {
            // So that a client hears of a store that is away before a stream has begun.
            self.operations.list(owner, ListQuery::default().with_limit(1)).await?;
            return Ok(self.list_events(query, asked));
        }
        let page = self.operations.list(owner, query.clone()).await?;
        let urls = self.operations.urls();
        let next = page.next.map(|next| query::next_page(&urls.list(), &query, next));
        let view = ListView::new(&page.operations, urls).next(next);
        let answer = if asked.form == Form::Page {
            let is_newest = query.before.is_none() && query.status.is_none();
            view.page(is_newest, LIST_REFRESH)
        } else {
            view.into_response()
        };
        Ok(answer.map(Content::from))
    }

    fn target(&self, path: &str) -> Option<Target> {
        let below = match path.strip_prefix(&*self.base) {
            Some(below) if below.is_empty() || below.starts_with('/') => below,
            _ => path,
        };
        let mut segments = below.strip_prefix('/').unwrap_or(below).split('/');
        match (segments.next(), segments.next(), segments.next()) {
            (Some("") | None, None, _) => Some(Target::List),
            (Some(id), None, _) => id.parse().ok().map(Target::Operation),
            (Some(id), Some("result"), None) => id.parse().ok().map(Target::Result),
            (Some(id), Some("cancel"), None) => id.parse().ok().map(Target::Cancel),
            #[cfg(feature = "webhook")]
            (Some(id), Some("callback"), None) => id.parse().ok().map(Target::Callback),
            _ => None,
        }
    }

    fn allow(&self, path: &str) -> HeaderValue {
        HeaderValue::from_static(match self.target(path) {
            Some(Target::Operation(_)) => "GET, HEAD, DELETE",
            Some(Target::Cancel(_)) => "POST",
            _ => "GET, HEAD",
        })
    }
}
