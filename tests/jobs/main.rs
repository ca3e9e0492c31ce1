//! Durable work: stored with its input, claimed by whichever process has room, tried again, given
//! back. All on the memory store and paused time, which the store's clock follows; a process is an
//! `Operations` of its own on the same store.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "../interposed/mod.rs"]
mod interposed;

mod attempts;
mod ends;
mod idempotency;
mod late;
mod leases;
mod negotiation;
mod room;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use respond_async::operation::{IntoOutcome, Operation, TraceContext};
use respond_async::operations::{Job, JobPolicy, KickOff, OperationsBuilder};
use respond_async::prefer::Preferences;
use respond_async::problem::types;
use respond_async::respond::{Created, Response};
use respond_async::store::{IDEMPOTENCY_KEY, Idempotency, MemoryStore, OperationStore};
use respond_async::time::{Clock, Timestamp};
use respond_async::{Context, OperationId, Operations, Outcome, Owner, Problem, Status};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3600);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Follows tokio's clock, paused or not.
#[derive(Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(1_800_000_000_000) + self.0.elapsed()
    }
}

/// What to do: a word, and how many seconds it takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Act {
    what: String,
    #[serde(default)]
    seconds: u64,
}

impl Job for Act {
    const KIND: &'static str = "tests.act";
}

fn act(what: &str, seconds: u64) -> Act {
    Act { what: what.to_owned(), seconds }
}

/// Who began what, which attempt that was, and how many seconds after the start.
type Log = Arc<Mutex<Vec<(&'static str, String, u32, u64)>>>;

/// One store and what the handlers of all processes did.
struct Place {
    store: MemoryStore,
    clock: Arc<TokioClock>,
    began: Instant,
    log: Log,
}

impl Place {
    fn new() -> Self {
        let clock = Arc::new(TokioClock(Instant::now()));
        let store = MemoryStore::builder().clock(Arc::clone(&clock)).build();
        Self { store, clock, began: Instant::now(), log: Log::default() }
    }

    fn builder(&self, store: impl OperationStore) -> OperationsBuilder {
        Operations::builder(store).clock(Arc::clone(&self.clock)).retention(HOUR)
    }

    /// A process that does what it is told.
    fn process(&self, name: &'static str) -> Operations {
        self.process_with(name, JobPolicy::new(), |builder| builder)
    }

    fn process_with(
        &self,
        name: &'static str,
        policy: JobPolicy,
        set: impl FnOnce(OperationsBuilder) -> OperationsBuilder,
    ) -> Operations {
        let builder = self.builder(self.store.clone());
        set(builder).job_with(policy, self.handler(name)).start()
    }

    fn handler(
        &self,
        name: &'static str,
    ) -> impl Fn(
        Act,
        Context,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Outcome, Problem>> + Send>>
    + Send
    + Sync
    + use<> {
        let (log, began) = (Arc::clone(&self.log), self.began);
        move |act, context| {
            let entry = (name, act.what.clone(), context.attempt(), began.elapsed().as_secs());
            log.lock().unwrap().push(entry);
            Box::pin(handle(name, act, context))
        }
    }

    /// What began, in order.
    fn begun(&self) -> Vec<(&'static str, String, u32, u64)> {
        self.log.lock().unwrap().clone()
    }

    /// Who began what, with the attempt.
    fn begun_by(&self) -> Vec<(&'static str, u32)> {
        self.begun().iter().map(|(who, _, attempt, _)| (*who, *attempt)).collect()
    }

    async fn get(&self, id: OperationId) -> Operation {
        self.store.get(id).await.unwrap().expect("the operation is there").operation
    }

    /// Lets time pass until the operation has ended.
    async fn ended(&self, id: OperationId) -> Operation {
        for _ in 0..100_000 {
            let operation = self.get(id).await;
            if operation.status().is_finished() {
                return operation;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not end: {:?}", self.get(id).await);
    }
}

async fn handle(name: &'static str, act: Act, context: Context) -> Result<Outcome, Problem> {
    context.progress(0.5, &act.what);
    match act.what.as_str() {
        "panic" => panic!("secret"),
        "busy" => return Err(Problem::new(types::OVERLOADED)),
        "busy until 3" if context.attempt() < 3 => {
            return Err(Problem::new(types::OVERLOADED).with_retry_after(seconds(40)));
        }
        "wrong" => return Err(Problem::from_status(StatusCode::UNPROCESSABLE_ENTITY)),
        "stop" => {
            tokio::select! {
                () = context.canceled() => {}
                () = sleep(seconds(act.seconds)) => {}
            }
            context.check()?;
        }
        _ => sleep(seconds(act.seconds)).await,
    }
    Ok(Created::at(format!("/made/by/{name}")).json(&context.attempt()).into_outcome())
}

/// A request with that `Prefer` field, of the owner ann.
async fn ask(operations: &Operations, prefer: &str, job: Act) -> Response {
    let preferences = Preferences::parse(prefer.as_bytes()).unwrap();
    ann(operations.kick_off(&preferences)).respond(job).await
}

fn ann(kick_off: KickOff<'_>) -> KickOff<'_> {
    kick_off.owner(Owner::new("ann").unwrap())
}

/// Stores a job as nobody's in particular.
async fn submit(operations: &Operations, job: Act) -> OperationId {
    let none = Preferences::default();
    operations.kick_off(&none).submit(job).await.unwrap().operation.id()
}

/// For a process that leaves such jobs to others.
fn elsewhere() -> JobPolicy {
    JobPolicy::new().with_concurrency(0)
}

/// What a client calls a request of the same content.
fn named(key: &str) -> Option<Idempotency> {
    let mut headers = HeaderMap::new();
    headers.insert(IDEMPOTENCY_KEY, key.parse().unwrap());
    let (method, uri) = (Method::POST, "/things".parse().unwrap());
    Idempotency::from_request(&method, &uri, &headers, b"payload").unwrap()
}

/// The operation that a 202 links to.
#[track_caller]
fn accepted(response: &Response) -> OperationId {
    assert_eq!(response.status(), StatusCode::ACCEPTED, "{response:?}");
    let link = response.headers()["content-location"].to_str().unwrap();
    link.strip_prefix("/operations/").unwrap().parse().unwrap()
}

#[track_caller]
fn assert_failed(operation: &Operation, kind: respond_async::problem::ProblemType) {
    assert_eq!(operation.status(), Status::Failed);
    assert!(operation.error().unwrap().is(kind), "{operation:?}");
}
