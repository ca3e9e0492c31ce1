//! The gateway: HTTP in front, messages behind.

mod cached;
mod copies;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path as Segment, Query, Request, State};
use axum::http::request::Parts;
use axum::middleware::{self, Next};
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use respond_async::amqp::{Amqp, Recorder, Requests};
use respond_async::axum::Head;
use respond_async::header::vary_on_prefer;
use respond_async::operation::{IntoOutcome, TraceContext};
use respond_async::operations::{Job, JobPolicy};
use respond_async::prefer::Preferences;
use respond_async::respond::Response;
use respond_async::store::{Idempotency, SqliteStore};
use respond_async::{Operations, Owner, Problem};
use serde::Deserialize;

use crate::gateway::cached::CachedUsers;
use crate::gateway::copies::{LocalUsers, SnapshotUsers};
use crate::messages::{CreateUser, EventsAfter, GetSnapshot, GetUser, ListUsers, UpdateUser};

/// How long the service may take to answer a request that waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long after the death of a gateway its operations are taken up by another.
const LEASE: Duration = Duration::from_secs(5);
/// The longest that a reader is held who waits for what he wrote.
const WAIT_CAP: Duration = Duration::from_secs(10);

/// The gateway, as long as it is kept.
#[derive(Debug)]
pub struct Gateway {
    operations: Operations,
    _recorder: Recorder,
    router: Router,
}

/// What the routes share.
#[derive(Debug, Clone)]
struct App {
    operations: Operations,
    local: LocalUsers,
    cached: CachedUsers,
    snapshot: SnapshotUsers,
}

impl Gateway {
    /// Opens the store of operations in that folder, and begins to take replies and events.
    ///
    /// # Errors
    /// If the folder cannot be used.
    pub fn start(amqp: &Amqp, folder: &Path) -> Result<Self, Box<dyn Error + Send + Sync>> {
        fs::create_dir_all(folder)?;
        let store = SqliteStore::open(folder.join("operations.db"))?;
        let requests = Requests::builder(amqp, "gateway").timeout(TIMEOUT).start();
        // What the service cannot do now, it may do in a moment; after ten times it has failed.
        let patient = JobPolicy::new()
            .with_attempt_limit(10)
            .with_backoff(Duration::from_millis(200), Duration::from_secs(10));
        let builder = Operations::builder(store)
            .lease(LEASE)
            .job_with(patient, requests.handler::<CreateUser>())
            .job_with(patient, requests.handler::<UpdateUser>())
            .job(requests.handler::<GetUser>())
            .job(requests.handler::<ListUsers>());
        // Others hear when an operation has ended: see `Subscriber`.
        let operations = if std::env::var("TELL").is_ok() {
            amqp.tell("/gateway", builder).start()
        } else {
            builder.start()
        };
        let recorder = requests.record(&operations);
        let app = App {
            local: LocalUsers::start(amqp, requests.handler::<GetSnapshot>(), folder),
            cached: CachedUsers::new(requests.handler::<GetUser>()),
            snapshot: SnapshotUsers::new(requests.handler::<EventsAfter>(), folder),
            operations: operations.clone(),
        };
        // Each answer of a route that negotiates names `Prefer`, a 400 or 405 too.
        let negotiates =
            middleware::map_response(async |mut response: axum::response::Response| {
                vary_on_prefer(response.headers_mut());
                response
            });
        let named = middleware::from_fn(name_the_client);
        let not_allowed = async || Problem::from_status(StatusCode::METHOD_NOT_ALLOWED);
        let users = Router::new()
            .route("/users", get(list).post(create))
            .route("/users/{id}", get(read).put(update))
            .method_not_allowed_fallback(not_allowed)
            .layer(named.clone())
            .layer(negotiates);
        let others = Router::new()
            .route("/model/users", get(copies::list))
            .route("/model/users/{id}", get(copies::read))
            .route("/cached/users/{id}", get(cached::read))
            .route("/snapshot/users", get(copies::list_snapshot))
            .route("/snapshot/users/{id}", get(copies::read_snapshot))
            .nest("/operations", respond_async::axum::monitor(&operations))
            .method_not_allowed_fallback(not_allowed)
            .layer(named);
        let router = users
            .merge(others)
            .fallback(async || Problem::from_status(StatusCode::NOT_FOUND))
            .with_state(app);
        Ok(Self { operations, _recorder: recorder, router })
    }

    /// Its routes.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Ends what runs within that time. What is left others take up.
    pub async fn stop(&self, grace: Duration) {
        self.operations.shutdown(grace).await;
    }
}

impl App {
    /// a and b: the client's preference decides which.
    async fn kick_off<J: Job>(
        &self,
        preferences: &Preferences,
        owner: Owner,
        head: &Parts,
        body: &[u8],
        job: J,
    ) -> Result<Response, Problem> {
        let named = Idempotency::from_request(&head.method, &head.uri, &head.headers, body)?;
        let trace = TraceContext::from_headers(&head.headers);
        let kick_off = self.operations.kick_off(preferences).owner(owner).idempotency(named);
        Ok(kick_off.trace(trace).respond(job).await)
    }
}

/// Puts who asks where [`Owner`] is extracted from.
async fn name_the_client(
    mut request: Request,
    next: Next,
) -> Result<axum::response::Response, Problem> {
    let owner = who_asks(request.headers())?;
    request.extensions_mut().insert(owner);
    Ok(next.run(request).await)
}

/// Who asks, so that its operations and its idempotency keys are its own. Put your authentication here: this one
/// believes whatever `X-User` says.
fn who_asks(headers: &HeaderMap) -> Result<Owner, Problem> {
    let Some(name) = headers.get("x-user") else { return Ok(Owner::anonymous()) };
    let owner = name.to_str().ok().and_then(|name| Owner::new(name).ok());
    let no_name =
        || Problem::from_status(StatusCode::BAD_REQUEST).with_detail("X-User is no name.");
    owner.ok_or_else(no_name)
}

async fn create(
    State(app): State<App>,
    preferences: Preferences,
    owner: Owner,
    Head(head): Head,
    body: Content,
) -> Result<Response, Problem> {
    let body = content(body)?;
    let job = checked(&body)?;
    app.kick_off(&preferences, owner, &head, &body, job).await
}

async fn update(
    State(app): State<App>,
    id: Id,
    preferences: Preferences,
    owner: Owner,
    Head(head): Head,
    body: Content,
) -> Result<Response, Problem> {
    let body = content(body)?;
    let job = UpdateUser { id: number(id)?, to: checked(&body)? };
    app.kick_off(&preferences, owner, &head, &body, job).await
}

async fn read(State(app): State<App>, id: Id, head: Parts) -> Result<Response, Problem> {
    let tags = head.headers.get(http::header::IF_NONE_MATCH);
    let if_none_match = tags.and_then(|tags| tags.to_str().ok()).map(str::to_owned);
    let job = GetUser { id: number(id)?, if_none_match };
    // A read is answered at once, or not at all: there is nothing to prefer.
    Ok(app.operations.respond(&Preferences::default(), job).await)
}

/// Which page of a list.
#[derive(Debug, Deserialize)]
struct Page {
    #[serde(default)]
    after: u64,
    #[serde(default = "Page::limit")]
    limit: u32,
}

impl Page {
    fn limit() -> u32 {
        50
    }
}

type PageQuery = Result<Query<Page>, QueryRejection>;

fn page(query: PageQuery) -> Result<Page, Problem> {
    let mut page = asked(query)?;
    page.limit = page.limit.clamp(1, 200);
    Ok(page)
}

async fn list(State(app): State<App>, query: PageQuery) -> Result<Response, Problem> {
    let Page { after, limit } = page(query)?;
    Ok(app.operations.respond(&Preferences::default(), ListUsers { after, limit }).await)
}

/// What a query says. One that is not understood is a problem, as all that is wrong is.
fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    let refuse = |error: QueryRejection| {
        Problem::from_status(StatusCode::BAD_REQUEST).with_detail(error.body_text())
    };
    query.map(|Query(query)| query).map_err(refuse)
}

/// What can be refused now is refused now.
fn checked(body: &[u8]) -> Result<CreateUser, Problem> {
    let job: CreateUser = serde_json::from_slice(body).map_err(|error| {
        Problem::from_status(StatusCode::BAD_REQUEST)
            .with_detail(format!("That is no user: {error}."))
    })?;
    job.check()?;
    Ok(job)
}

type Content = Result<Bytes, BytesRejection>;

/// What a request has in it, unless that is too large.
fn content(body: Content) -> Result<Bytes, Problem> {
    body.map_err(|rejection| Problem::from_status(rejection.status()))
}

type Id = Result<Segment<String>, PathRejection>;

/// A user's number. What is none is nobody's.
fn number(id: Id) -> Result<u64, Problem> {
    id.ok().and_then(|Segment(id)| id.parse().ok()).ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::from_status(StatusCode::NOT_FOUND).with_detail("There is no such user.")
}

/// An answer with JSON.
fn json<T: serde::Serialize>(value: &T) -> Response {
    respond_async::Outcome::json(StatusCode::OK, value).into_outcome().into_response()
}
