//! What a request may be answered with.

use http::StatusCode;
use utoipa::ToResponse;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::link::Link;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{Content, ContentBuilder, Ref, RefOr};

use super::field::Field;
use super::link::{CANCEL, DELETE, READ, RESULT, link};
use super::problem::problems;
use super::schemas::{examples, reference, text};
use crate::problem::{self, ProblemType, types};
use crate::respond::{Accepted, Event, ListView, OperationView};

/// An answer that is a component of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AnswerComponent {
    /// 202 to a request whose work goes on: where its status monitor is.
    Accepted,
    /// 200: how an operation stands, as JSON, as a page, or as events.
    State,
    /// 204 to who asks for events and has seen the last.
    NoMoreEvents,
    /// 304: the operation stands as the client knows.
    NotModified,
    /// 200: a page of a list, as JSON, as a page for people, or as events.
    List,
    /// 202: an operation's cancellation is requested.
    CancelRequested,
    /// 204: a finished operation is forgotten.
    Forgotten,
    /// 303 to the button of a page: back to it.
    BackToPage,
    /// 400: a preference, or an idempotency key, that the request may not have.
    BadRequest,
    /// 400: a list's query that makes no sense.
    BadQuery,
    /// 403: a form that was not sent by a page of this origin.
    CrossSite,
    /// 404: no such operation, or somebody else's, by an id that is not old.
    NotFound,
    /// 404: an operation that has no result, or none yet.
    NoResult,
    /// 404: a list for somebody without a name.
    NoList,
    /// 405, with the methods that there are.
    MethodNotAllowed,
    /// 409: the work was canceled while the request waited for it.
    Canceled,
    /// 410: the same by an id that is older than the shortest retention.
    Expired,
    /// 412: an operation that has changed since its client saw it.
    Changed,
    /// 413: the work's input is larger than the store takes.
    TooLarge,
    /// 422: a key that was used for another request.
    KeyReused,
    /// 429: the owner has as much unfinished work as one may have.
    TooManyOperations,
    /// 429: the owner asks more often than one may.
    TooManyPolls,
    /// 500: the work failed in a way that it did not foresee.
    Failed,
    /// 503 to a request for work.
    Unavailable,
    /// 503 to whoever asks a monitor.
    StoreUnavailable,
    /// 503 to whoever asks for a result.
    ResultUnavailable,
    /// 504: the work was not done in time.
    Overdue,
}

impl AnswerComponent {
    /// All of them, by their status.
    pub const ALL: &[Self] = &[
        Self::State,
        Self::List,
        Self::Accepted,
        Self::CancelRequested,
        Self::NoMoreEvents,
        Self::Forgotten,
        Self::BackToPage,
        Self::NotModified,
        Self::BadRequest,
        Self::BadQuery,
        Self::CrossSite,
        Self::NotFound,
        Self::NoResult,
        Self::NoList,
        Self::MethodNotAllowed,
        Self::Canceled,
        Self::Expired,
        Self::Changed,
        Self::TooLarge,
        Self::KeyReused,
        Self::TooManyOperations,
        Self::TooManyPolls,
        Self::Failed,
        Self::Unavailable,
        Self::StoreUnavailable,
        Self::ResultUnavailable,
        Self::Overdue,
    ];

    /// Its name among the components.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::State => "OperationState",
            Self::NoMoreEvents => "NoMoreEvents",
            Self::NotModified => "NotModified",
            Self::List => "OperationList",
            Self::CancelRequested => "CancelRequested",
            Self::Forgotten => "OperationForgotten",
            Self::BackToPage => "BackToPage",
            Self::BadRequest => "BadAsyncRequest",
            Self::BadQuery => "BadListQuery",
            Self::CrossSite => "CrossSite",
            Self::NotFound => "OperationNotFound",
            Self::NoResult => "NoResult",
            Self::NoList => "NoList",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::Canceled => "OperationCanceled",
            Self::Expired => "OperationExpired",
            Self::Changed => "OperationChanged",
            Self::TooLarge => "WorkTooLarge",
            Self::KeyReused => "IdempotencyKeyReused",
            Self::TooManyOperations => "TooManyOperations",
            Self::TooManyPolls => "TooManyPolls",
            Self::Failed => "WorkFailed",
            Self::Unavailable => "Unavailable",
            Self::StoreUnavailable => "StoreUnavailable",
            Self::ResultUnavailable => "ResultUnavailable",
            Self::Overdue => "WorkOverdue",
        }
    }

    /// The status that it has.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::State | Self::List => StatusCode::OK,
            Self::Accepted | Self::CancelRequested => StatusCode::ACCEPTED,
            Self::NoMoreEvents | Self::Forgotten => StatusCode::NO_CONTENT,
            Self::BackToPage => StatusCode::SEE_OTHER,
            Self::NotModified => StatusCode::NOT_MODIFIED,
            Self::BadRequest | Self::BadQuery => StatusCode::BAD_REQUEST,
            Self::CrossSite => StatusCode::FORBIDDEN,
            Self::NotFound | Self::NoResult | Self::NoList => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Canceled => StatusCode::CONFLICT,
            Self::Expired => StatusCode::GONE,
            Self::Changed => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyOperations | Self::TooManyPolls => StatusCode::TOO_MANY_REQUESTS,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable | Self::StoreUnavailable | Self::ResultUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Overdue => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The types of the problem that it is; none if it is none.
    pub const fn problems(self) -> &'static [ProblemType] {
        match self {
            Self::BadRequest => &[
                types::INVALID_PREFERENCE,
                types::INVALID_KEY,
                types::KEY_REQUIRED,
                types::CALLBACK_REFUSED,
            ],
            Self::BadQuery => &[types::INVALID_QUERY],
            Self::CrossSite => &[types::CROSS_SITE],
            Self::NotFound => &[types::NOT_FOUND],
            Self::NoResult => {
                &[types::NOT_FOUND, types::RESULT_NOT_READY, types::RESULT_NOT_AVAILABLE]
            }
            Self::NoList => &[types::OWNER_REQUIRED],
            Self::MethodNotAllowed => &[types::METHOD_NOT_ALLOWED],
            Self::Canceled => &[types::CANCELED],
            Self::Expired => &[types::EXPIRED],
            Self::Changed => &[types::PRECONDITION_FAILED],
            Self::TooLarge => &[types::REQUEST_TOO_LARGE],
            Self::KeyReused => &[types::KEY_REUSED],
            Self::TooManyOperations => &[types::TOO_MANY_OPERATIONS],
            Self::TooManyPolls => &[types::TOO_MANY_POLLS],
            Self::Failed => &[
                types::INTERNAL,
                types::INTERRUPTED,
                types::ATTEMPTS_EXHAUSTED,
                types::UNREADABLE_INPUT,
                types::RESULT_TOO_LARGE,
            ],
            Self::Unavailable => &[
                types::OVERLOADED,
                types::STORE_UNAVAILABLE,
                types::SHUTTING_DOWN,
                types::BROKER_UNAVAILABLE,
                types::NO_WORKER,
                types::NOT_CAUGHT_UP,
            ],
            Self::StoreUnavailable => &[types::STORE_UNAVAILABLE],
            Self::ResultUnavailable => &[types::STORE_UNAVAILABLE, types::OVERLOADED],
            Self::Overdue => &[types::DEADLINE_PASSED, types::REPLY_OVERDUE],
            _ => &[],
        }
    }

    /// A reference to the component.
    pub fn reference(self) -> Ref {
        Ref::from_response_name(self.name())
    }

    /// Adds it to an operation, if that does not describe an answer of this status yet.
    pub fn describe(self, operation: &mut Operation) {
        let status = self.status().as_str().to_owned();
        operation.responses.responses.entry(status).or_insert_with(|| self.reference().into());
    }

    /// What it is.
    pub fn object(self) -> Response {
        let response = ResponseBuilder::new().description(self.description());
        let (always, sometimes) = self.fields();
        let response = always
            .iter()
            .fold(response, |response, field| response.header(field.name(), field.object(true)));
        let response = sometimes
            .iter()
            .fold(response, |response, field| response.header_ref(field.name(), field.reference()));
        let response =
            self.contents().into_iter().fold(response, |response, (media_type, content)| {
                response.content(media_type, content)
            });
        self.links()
            .into_iter()
            .fold(response, |response, (name, link)| response.link(name, link))
            .build()
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Accepted => {
                "The work goes on. Its status monitor is at `Content-Location`, and the content is what that \
                 says now."
            }
            Self::State => {
                "How the operation stands, in every state: one that failed is told of by `error`. Ask again \
                 after `Retry-After`, or have each state told by an event of a stream (`text/event-stream`), \
                 the last of which is how it ended."
            }
            Self::NoMoreEvents => "To who asks for events: the last one was read.",
            Self::NotModified => "It stands as the client knows.",
            Self::List => {
                "The caller's own operations, newest first. A stream (`text/event-stream`) tells of these, and \
                 of each change from then on, by an event."
            }
            Self::CancelRequested => "Its cancellation is requested. This is how it stands now.",
            Self::Forgotten => "It had ended, and is forgotten.",
            Self::BackToPage => "Its cancellation is requested; its page tells what becomes of it.",
            Self::BadRequest => {
                "A preference, a callback or an idempotency key that this request may not have."
            }
            Self::BadQuery => "The query makes no sense; `parameter` says which part.",
            Self::CrossSite => "The request was not sent by a page of this origin.",
            Self::NotFound => "There is no such operation, or it is somebody else's.",
            Self::NoResult => {
                "There is no such operation, or it has no result yet, or will have none."
            }
            Self::NoList => "A list is given only to a client whose name is known.",
            Self::MethodNotAllowed => "The resource does not know this method.",
            Self::Canceled => "The work was canceled.",
            Self::Expired => {
                "There is no such operation, or it is somebody else's. By its id it may have ended, and its \
                 retention have passed."
            }
            Self::Changed => {
                "The operation is not as `If-Match` has it, or as `If-None-Match` will not have it. Nothing was done."
            }
            Self::TooLarge => "The request is larger than can be kept. Nothing of it was stored.",
            Self::KeyReused => "The idempotency key was used before, for another request.",
            Self::TooManyOperations => "The client has as much unfinished work as one may have.",
            Self::TooManyPolls => "The client asks more often than one may.",
            Self::Failed => "The work failed.",
            Self::Unavailable => {
                "The service takes no work now. Ask again, with the same idempotency key if there is one."
            }
            Self::StoreUnavailable => "Operations cannot be read now.",
            Self::ResultUnavailable => {
                "Operations cannot be read now, or too many results are on their way to clients."
            }
            Self::Overdue => "The work was not done in time.",
        }
    }

    /// The fields that it always has, and those that it may have.
    const fn fields(self) -> (&'static [Field], &'static [Field]) {
        use Field::{
            Allow, CacheControl, ContentLocation, ETag, IdempotencyReplayed, Link, Location,
            PreferenceApplied, RetryAfter, Sunset, Vary,
        };
        match self {
            Self::Accepted => (
                &[ContentLocation, Location, Link, RetryAfter, CacheControl, Vary],
                &[PreferenceApplied, IdempotencyReplayed],
            ),
            Self::State => (&[CacheControl, Vary], &[ETag, RetryAfter, Sunset, PreferenceApplied]),
            Self::NotModified => {
                (&[ETag, CacheControl, Vary], &[RetryAfter, Sunset, PreferenceApplied])
            }
            Self::List => (&[CacheControl, Vary], &[Link]),
            Self::CancelRequested => (&[ContentLocation, Link, CacheControl, Vary], &[RetryAfter]),
            Self::NoMoreEvents => (&[Vary], &[CacheControl]),
            Self::BackToPage => (&[Location, CacheControl, Vary], &[]),
            Self::BadRequest => (&[], &[Vary]),
            Self::Forgotten | Self::KeyReused | Self::TooLarge => (&[Vary], &[]),
            Self::BadQuery | Self::CrossSite | Self::NoList | Self::Changed => {
                (&[CacheControl, Vary], &[])
            }
            Self::NoResult => (&[CacheControl], &[RetryAfter]),
            Self::MethodNotAllowed => (&[Allow], &[CacheControl, Vary]),
            Self::Canceled | Self::Failed | Self::Overdue => {
                (&[], &[Vary, IdempotencyReplayed, RetryAfter])
            }
            Self::NotFound | Self::Expired => (&[CacheControl], &[Vary]),
            Self::TooManyOperations | Self::Unavailable => (&[RetryAfter, Vary], &[]),
            Self::ResultUnavailable => (&[RetryAfter, CacheControl], &[]),
            Self::TooManyPolls | Self::StoreUnavailable => (&[RetryAfter, CacheControl], &[Vary]),
        }
    }

    fn contents(self) -> Vec<(String, Content)> {
        let state = || {
            let examples = examples()
                .map(|(name, value)| (name, ExampleBuilder::new().value(Some(value)).build()));
            ContentBuilder::new()
                .schema(Some(reference::<OperationView<'_>>()))
                .examples_from_iter(examples)
                .build()
        };
        let page = || Content::new(Some(text("A page for people.")));
        let events = || (Event::MEDIA_TYPE.to_owned(), Content::new(Some(reference::<Event>())));
        let mut contents = match self {
            Self::Accepted | Self::CancelRequested => {
                vec![("application/json".to_owned(), state())]
            }
            Self::State => vec![
                ("application/json".to_owned(), state()),
                ("text/html".to_owned(), page()),
                events(),
            ],
            Self::List => vec![
                ("application/json".to_owned(), Content::new(Some(reference::<ListView<'_>>()))),
                ("text/html".to_owned(), page()),
                events(),
            ],
            _ => Vec::new(),
        };
        if !self.problems().is_empty() {
            contents.push((problem::MEDIA_TYPE.to_owned(), problems(self.problems())));
            let is_of_page = matches!(
                self,
                Self::BadQuery
                    | Self::CrossSite
                    | Self::NotFound
                    | Self::Changed
                    | Self::NoList
                    | Self::Expired
                    | Self::TooManyPolls
                    | Self::StoreUnavailable
            );
            if is_of_page {
                contents.push(("text/html".to_owned(), page()));
            }
        }
        contents
    }

    fn links(self) -> Vec<(&'static str, Link)> {
        // What has no content in JSON has its operation's id in the path.
        let id = match self {
            Self::Accepted => "$response.body#/id",
            _ => "$request.path.id",
        };
        let link = |operation: &str, description: &str| link(operation, id, description);
        let (monitor, result, delete, cancel) = (
            ("monitor", link(READ, "How it stands.")),
            ("result", link(RESULT, "The answer itself, once it is there.")),
            ("delete", link(DELETE, "Requests its cancellation, or forgets it once it has ended.")),
            ("cancel", link(CANCEL, "Requests its cancellation, for a page.")),
        );
        match self {
            Self::Accepted => vec![monitor, result, delete],
            Self::State => vec![result, delete, cancel],
            Self::CancelRequested | Self::BackToPage => vec![monitor],
            _ => Vec::new(),
        }
    }
}

impl<'r> ToResponse<'r> for Accepted {
    fn response() -> (&'r str, RefOr<Response>) {
        (AnswerComponent::Accepted.name(), AnswerComponent::Accepted.object().into())
    }
}
