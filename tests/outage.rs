//! A store that is away, slow, or whose answers get lost.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod interposed;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use interposed::{Call, Interposed, When};
use respond_async::monitor::Monitor;
use respond_async::operation::{Change, NewOperation};
use respond_async::operations::HealthStatus;
use respond_async::prefer::Preferences;
use respond_async::problem::types;
use respond_async::respond::{Created, Response};
use respond_async::store::{
    Acceptance, ApplyError, ListQuery, MemoryStore, OperationStore, OperationStoreExt, StoreError,
    StoreErrorKind, Submission,
};
use respond_async::{OperationId, Operations, Outcome, Owner, Problem, Status, Timestamp};
use tokio::time::{Instant, sleep};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Mode {
    Well,
    /// Says at once that it cannot.
    Refusing,
    /// Never answers.
    Silent,
    /// Writes what is accepted and loses the answer; of the rest says that it cannot.
    Losing,
}

/// The switch of a store.
#[derive(Debug, Clone, Default)]
struct Switch(Arc<AtomicU8>);

impl Switch {
    fn set(&self, mode: Mode) {
        self.0.store(mode as u8, Ordering::SeqCst);
    }

    fn store(&self, store: &MemoryStore) -> Interposed {
        let mode = Arc::clone(&self.0);
        Interposed::new(store, move |when, call| {
            let mode = mode.load(Ordering::SeqCst);
            async move {
                match mode {
                    3 if call == Call::Accept => match when {
                        When::Before => Ok(()),
                        When::After => Err(StoreError::new(StoreErrorKind::Ambiguous, "lost")),
                    },
                    3 => Err(StoreError::new(StoreErrorKind::Unavailable, "away")),
                    1 if when == When::Before => {
                        Err(StoreError::new(StoreErrorKind::Unavailable, "away")
                            .with_source("secret"))
                    }
                    2 => std::future::pending().await,
                    _ => Ok(()),
                }
            }
        })
    }
}

struct Service {
    operations: Operations,
    monitor: Monitor,
    store: MemoryStore,
    switch: Switch,
}

fn ann() -> Owner {
    Owner::new("ann").unwrap()
}

fn service() -> Service {
    let (store, switch) = (MemoryStore::new(), Switch::default());
    let operations = Operations::builder(switch.store(&store)).start();
    Service { monitor: Monitor::new(&operations), operations, store, switch }
}

impl Service {
    async fn post(&self, prefer: &str, seconds: u64) -> Response {
        let preferences = Preferences::parse(prefer).unwrap();
        let work = move |_| async move {
            sleep(Duration::from_secs(seconds)).await;
            Created::at("/things/17")
        };
        self.operations.kick_off(&preferences).owner(ann()).respond_with(work).await
    }

    async fn get(&self, uri: &str) -> Response {
        self.monitor.respond(&ann(), &Request::get(uri).body(()).unwrap()).await
    }
}

#[track_caller]
fn is_unavailable(response: &Response) {
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    let problem: Problem = serde_json::from_slice(response.body().as_bytes()).unwrap();
    assert!(problem.is(types::STORE_UNAVAILABLE));
    assert_eq!(problem.detail(), None);
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_the_answer_is_503_and_never_a_made_up_404() {
    let service = service();
    let accepted = service.post("respond-async", 5).await;
    let uri = accepted.headers()["location"].to_str().unwrap();
    for (mode, longest) in [(Mode::Refusing, 0), (Mode::Silent, 2)] {
        service.switch.set(mode);
        let start = Instant::now();
        is_unavailable(&service.get(uri).await);
        assert_eq!(start.elapsed().as_secs(), longest);
        let start = Instant::now();
        is_unavailable(&service.post("respond-async", 5).await);
        is_unavailable(&service.post("respond-async, wait=1", 5).await);
        assert_eq!(start.elapsed().as_secs(), 1 + 2 * longest);
        // Who does not prefer it is served all the same.
        assert_eq!(service.post("wait=1", 0).await.status(), StatusCode::CREATED);
        service.switch.set(Mode::Well);
        assert_eq!(service.get(uri).await.status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_nothing_is_canceled_forgotten_or_listed() {
    let service = service();
    let monitor = async |seconds| {
        let accepted = service.post("respond-async", seconds).await;
        accepted.headers()["location"].to_str().unwrap().to_owned()
    };
    let (ended, running) = (monitor(0).await, monitor(3_600).await);
    sleep(Duration::from_secs(1)).await;
    let send = async |method: &str, uri: &str, accept: &str| {
        let request = Request::builder().method(method).uri(uri).header("accept", accept);
        let answer = service.monitor.answer(&ann(), &request.body(()).unwrap()).await;
        (answer.status(), answer.headers().contains_key("retry-after"))
    };
    let list = "/operations".to_owned();
    let requests = [
        ("DELETE", &running, "*/*"),
        ("DELETE", &ended, "*/*"),
        ("GET", &format!("{ended}/result"), "*/*"),
        ("GET", &list, "*/*"),
        ("GET", &list, "text/event-stream"),
        ("GET", &running, "text/event-stream"),
    ];
    for (mode, longest) in [(Mode::Refusing, 0), (Mode::Silent, 2)] {
        for (method, uri, accept) in requests {
            service.switch.set(mode);
            let start = Instant::now();
            let answer = send(method, uri, accept).await;
            assert_eq!(answer, (StatusCode::SERVICE_UNAVAILABLE, true), "{method} {uri} {accept}");
            assert_eq!(start.elapsed().as_secs(), longest, "{method} {uri} {accept}");
            service.switch.set(Mode::Well);
        }
        let canceled = async |uri: &str| {
            let id = uri.rsplit('/').next().unwrap().parse().unwrap();
            let found = service.store.get(id).await.unwrap().unwrap().operation;
            (found.is_cancel_requested(), found.status())
        };
        assert_eq!(canceled(&running).await, (false, Status::Running));
        assert_eq!(canceled(&ended).await, (false, Status::Succeeded));
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_during_an_outage_is_recorded_after_it() {
    for mode in [Mode::Refusing, Mode::Silent] {
        let service = service();
        let accepted = service.post("respond-async", 5).await;
        let uri = accepted.headers()["location"].to_str().unwrap();
        sleep(Duration::from_secs(1)).await;
        service.switch.set(mode);
        sleep(Duration::from_secs(60)).await;
        service.switch.set(Mode::Well);
        sleep(Duration::from_secs(8)).await;
        let body: serde_json::Value =
            serde_json::from_slice(service.get(uri).await.body().as_bytes()).unwrap();
        assert_eq!((&body["status"], &body["attempt"]), (&"succeeded".into(), &1.into()));
        assert_eq!(service.store.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_outage_leaves_in_doubt_is_done_if_it_was_accepted() {
    // Also at the end of the lease, which is 30 s.
    for (prefer, outage) in
        [("respond-async", 4), ("respond-async, wait=1", 4), ("respond-async", 25)]
    {
        let service = service();
        service.switch.set(Mode::Losing);
        let start = Instant::now();
        is_unavailable(&service.post(prefer, 5).await);
        assert!(start.elapsed().as_secs() <= 3, "{:?}", start.elapsed());
        sleep(Duration::from_secs(outage)).await;
        service.switch.set(Mode::Well);
        sleep(Duration::from_secs(15)).await;
        let page = service.store.list(&ann(), &ListQuery::default()).await.unwrap();
        let [operation] = &page.operations[..] else { panic!("{page:?}") };
        assert_eq!((operation.status(), operation.attempt()), (Status::Succeeded, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_sweeper_outlives_an_outage() {
    for mode in [Mode::Refusing, Mode::Silent] {
        let service = service();
        // Work that another process began and will never end.
        let abandoned = new().with_attempt_limit(1).held(Duration::ZERO, true);
        let id = abandoned.id();
        service.switch.set(mode);
        service.store.accept(Submission::new(abandoned)).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(
            service.store.get(id).await.unwrap().unwrap().operation.status(),
            Status::Running
        );
        service.switch.set(Mode::Well);
        sleep(Duration::from_secs(4)).await;
        let ended = service.store.get(id).await.unwrap().unwrap().operation;
        assert!(ended.error().unwrap().is(types::INTERRUPTED));
    }
}

/// One that reads and does not write: nobody else would say so where nothing else is done.
#[tokio::test(start_paused = true)]
async fn a_sweep_that_can_end_nothing_says_so() {
    let memory = MemoryStore::new();
    let store = Interposed::new(&memory, |when, call| async move {
        if (when, call) == (When::Before, Call::Swap) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "read only"));
        }
        Ok(())
    });
    let operations = Operations::builder(store).start();
    sleep(Duration::from_secs(3)).await;
    assert!(operations.health().await.is_well());
    let abandoned = new().with_attempt_limit(1).held(Duration::ZERO, true);
    memory.accept(Submission::new(abandoned)).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(operations.health().await.sweeper, HealthStatus::Fail);
}

/// A store that writes, and then loses the answer of the first call of that sort.
fn losing(store: &MemoryStore, lost: Call) -> (Interposed, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let hook = move |when, call| {
        let fails =
            when == When::After && call == lost && counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if fails { Err(StoreError::new(StoreErrorKind::Ambiguous, "lost")) } else { Ok(()) }
        }
    };
    (Interposed::new(store, hook), count)
}

fn new() -> NewOperation {
    NewOperation::new(OperationId::generate(Timestamp::from_unix_millis(0)).unwrap())
}

#[tokio::test]
async fn a_lost_answer_to_an_acceptance_is_found_out() {
    let memory = MemoryStore::new();
    let (store, count) = losing(&memory, Call::Accept);
    let accepted = store.submit(Submission::new(new())).await.unwrap();
    assert!(matches!(accepted, Acceptance::Created(_)));
    assert_eq!((memory.len(), count.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn a_lost_answer_to_a_write_is_found_out_and_not_written_twice() {
    let memory = MemoryStore::new();
    let (store, count) = losing(&memory, Call::Swap);
    let new = new();
    let id = new.id();
    store.accept(Submission::new(new)).await.unwrap();
    let canceled = store.apply(id, Change::Cancel).await.unwrap();
    assert_eq!((canceled.operation.status(), canceled.operation.version()), (Status::Canceled, 2));
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // Whoever comes later is told what it is now.
    let later = store.apply(id, Change::Cancel).await;
    assert!(matches!(later, Err(ApplyError::Refused(..))));
}

#[tokio::test]
async fn a_lost_answer_with_an_outcome_keeps_the_outcome() {
    let memory = MemoryStore::new();
    let (store, _) = losing(&memory, Call::Swap);
    let new = new().held(Duration::from_secs(30), true);
    let id = new.id();
    store.accept(Submission::new(new)).await.unwrap();
    let outcome = Outcome::new(StatusCode::OK);
    let change = Change::Succeed { attempt: 1, head: outcome.head() };
    store.apply_with(id, change, Some(outcome.clone()), |_| Vec::new()).await.unwrap();
    assert_eq!(memory.outcome(id).await.unwrap(), Some(outcome));
}
