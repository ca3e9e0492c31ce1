//! The service that is killed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Segment, Request, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::middleware::{self, Next};
use axum::routing::{get, post};
use respond_async::operations::{Job, JobPolicy};
use respond_async::prefer::Preferences;
use respond_async::respond::{Created, Response};
use respond_async::store::{Idempotency, OperationStore, PostgresStore, RedisStore, SqliteStore};
use respond_async::{Context, Operations, Owner, Problem};
use serde::{Deserialize, Serialize};

use crate::interposed::{Call, Interposed, When};
use crate::{FOLDER, LISTEN, POINT, STORE};

/// The one client there is.
pub(crate) const OWNER: &str = "crash";
/// As short as it may be, so that what a dead process held is soon taken up.
const LEASE: Duration = Duration::from_secs(1);

/// Work that may be done again if its process died.
#[derive(Debug, Serialize, Deserialize)]
struct Repeat {
    millis: u64,
}

impl Job for Repeat {
    const KIND: &'static str = "repeat";
}

/// Work that may not.
#[derive(Debug, Serialize, Deserialize)]
struct Once {
    millis: u64,
}

impl Job for Once {
    const KIND: &'static str = "once";
}

/// Something that a handler did, which no store can take back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) word: String,
    pub(crate) operation: String,
    pub(crate) attempt: u32,
}

/// Notes an effect in a file, one line by one write.
fn note(word: &str, context: &Context) {
    let operation = context.operation_id().map(|id| id.to_string()).unwrap_or_default();
    let folder = std::env::var(FOLDER).unwrap();
    let mut file =
        OpenOptions::new().append(true).create(true).open(Path::new(&folder).join("effects"));
    let line = format!("{word} {operation} {}\n", context.attempt());
    file.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
}

pub(crate) fn effects(folder: &Path) -> Vec<Effect> {
    let text = fs::read_to_string(folder.join("effects")).unwrap_or_default();
    let effect = |line: &str| {
        let mut words = line.split(' ');
        let (word, operation) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Effect { word, operation, attempt: words.next()?.parse().ok()? })
    };
    text.lines().filter_map(effect).collect()
}

async fn work(millis: u64, context: Context) -> Created {
    note("began", &context);
    context.progress(0.5, "half");
    tokio::time::sleep(Duration::from_millis(millis)).await;
    note(if context.is_canceled() { "told" } else { "ended" }, &context);
    let id = context.operation_id().map(|id| id.to_string());
    Created::at("/made").json(&(id, context.attempt()))
}

async fn begin(
    State(operations): State<Operations>,
    Segment((kind, millis)): Segment<(String, u64)>,
    preferences: Preferences,
    owner: Owner,
    (method, target, headers): (Method, Uri, HeaderMap),
    content: Bytes,
) -> Result<Response, Problem> {
    let named = Idempotency::from_request(&method, &target, &headers, &content)?;
    let kick_off = operations.kick_off(&preferences).owner(owner).idempotency(named);
    Ok(match kind.as_str() {
        "repeat" => kick_off.respond(Repeat { millis }).await,
        "once" => kick_off.respond(Once { millis }).await,
        _ => kick_off.respond_with(move |context| work(millis, context)).await,
    })
}

/// A server may be away when the process starts.
async fn open(url: &str, folder: &str) -> Arc<dyn OperationStore> {
    if url.is_empty() {
        return Arc::new(SqliteStore::open(Path::new(folder).join("operations.db")).unwrap());
    }
    loop {
        let opened: Option<Arc<dyn OperationStore>> = if url.starts_with("redis") {
            RedisStore::open(url).await.ok().map(|store| Arc::new(store) as _)
        } else {
            PostgresStore::open(url).await.ok().map(|store| Arc::new(store) as _)
        };
        match opened {
            Some(store) => return store,
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Ends the process at the n-th call of a sort, before or after it: `Accept After 3`.
fn interpose(store: &Arc<dyn OperationStore>, point: &str) -> Interposed {
    let mut words = point.split(' ').map(str::to_owned);
    let (call, when) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let nth: usize = words.next().and_then(|number| number.parse().ok()).unwrap_or(0);
    let count = Arc::new(AtomicUsize::new(0));
    Interposed::new(store, move |at: When, of: Call| {
        let is_it = format!("{of:?}") == call && format!("{at:?}") == when;
        if is_it && count.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            // As by SIGKILL: nothing is cleared up.
            std::process::abort();
        }
        async { Ok(()) }
    })
}

#[test]
#[ignore = "it is the child of the others and runs until it is killed"]
fn run() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(&std::env::var(STORE).unwrap_or_default(), &folder).await;
        let store = interpose(&store, &std::env::var(POINT).unwrap_or_default());
        // Attempts that a kill takes count, and there are many kills.
        let repeat = JobPolicy::new().with_attempt_limit(100).with_concurrency(16);
        let once = JobPolicy::new().never_twice().with_concurrency(16);
        let operations = Operations::builder(store)
            .lease(LEASE)
            .poll_interval(Duration::from_millis(100))
            .sweep_interval(Duration::from_millis(200))
            .job_with(repeat, async |job: Repeat, context| work(job.millis, context).await)
            .job_with(once, async |job: Once, context| work(job.millis, context).await)
            .start();
        let who = middleware::from_fn(async |mut request: Request, next: Next| {
            request.extensions_mut().insert(Owner::new(OWNER).unwrap());
            next.run(request).await
        });
        let app = Router::new()
            .route("/", get(async || "ready"))
            .route("/{kind}/{millis}", post(begin))
            .nest("/operations", respond_async::axum::monitor(&operations))
            .layer(who)
            .with_state(operations);
        let listener = tokio::net::TcpListener::bind(std::env::var(LISTEN).unwrap()).await.unwrap();
        axum::serve(listener, app).await.unwrap();
    });
}
