//! The store below workers, as the facade runs them: word that does not come, a store that is away,
//! work that fails or panics, and more progress than anybody can write.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use super::Fixture;
use super::lossy::{Lossy, Word};
use super::samples::{LONG, accept, claim, found, new_operation};
use crate::lock::lock;
use crate::operation::{IntoOutcome, Operation, OperationId, Outcome, Status};
use crate::operations::{Context, Job, JobPolicy, Operations, OperationsBuilder};
use crate::prefer::Preferences;
use crate::problem::{Problem, types};
use crate::respond::Created;
use crate::store::OperationStore;
use crate::time::Timestamp;

/// How often workers look by themselves.
const POLL: Duration = Duration::from_millis(20);
/// How long anything may take: a store that is only slow is not wrong.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
struct Task(usize);

impl Job for Task {
    const KIND: &'static str = "conformance.task";
}

fn builder<S: OperationStore>(store: &Arc<Lossy<S>>) -> OperationsBuilder {
    Operations::builder(Arc::clone(store)).lease(LONG).poll_interval(POLL).sweep_interval(POLL)
}

async fn submit(operations: &Operations, number: usize) -> OperationId {
    let none = Preferences::default();
    operations.kick_off(&none).submit(Task(number)).await.unwrap().operation.id()
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let look = async {
        while !is_so().await {
            sleep(POLL).await;
        }
    };
    assert!(timeout(PATIENCE, look).await.is_ok(), "{what}");
}

async fn ended(store: &impl OperationStore, id: OperationId) -> Operation {
    until("an operation does not end", async || found(store, id).await.status().is_finished())
        .await;
    found(store, id).await
}

/// Two processes that are told as `word` has it do all that there is to do, once each.
async fn all_is_done<F: Fixture>(fixture: &F, word: Word) {
    let stores = [(); 2].map(|()| fixture.open());
    let mut processes = Vec::new();
    let done = Arc::new(Mutex::new(Vec::new()));
    for store in stores {
        let store = Arc::new(Lossy::hearing(&Arc::new(store.await), word));
        let done = Arc::clone(&done);
        let handler = move |task: Task, _: Context| {
            lock(&done).push(task.0);
            async { Created::at("/done") }
        };
        let operations = builder(&store).job(handler).start();
        processes.push((store, operations));
    }
    for number in 0..20 {
        let (store, operations) = &processes[number % 2];
        let id = submit(operations, number).await;
        // Some one after another, so that workers are asleep when work comes.
        if number % 5 == 0 {
            ended(store, id).await;
        }
    }
    until("work stays undone", async || done.lock().unwrap().len() >= 20).await;
    let mut done = done.lock().unwrap().clone();
    done.sort_unstable();
    assert_eq!(done, (0..20).collect::<Vec<_>>());
}

/// Hints that are lost, repeated, late and out of order cost time and nothing else.
pub async fn c46_hints_are_only_hints<F: Fixture>(fixture: &F) {
    all_is_done(fixture, Word::Garbled).await;
}

/// Nor does a store that gives no hint, or none that ever comes.
pub async fn c47_without_hints_workers_look_by_themselves<F: Fixture>(fixture: &F) {
    all_is_done(fixture, Word::None).await;
    all_is_done(fixture, Word::Lost).await;
}

/// A sweep that is cut off is made good by a later one, and holds up no other operation.
pub async fn c48_a_sweep_that_is_cut_off_is_made_good<F: Fixture>(fixture: &F) {
    let store = Arc::new(fixture.open().await);
    let mut ids = Vec::new();
    for _ in 0..10 {
        let new = new_operation().with_attempt_limit(1);
        ids.push(accept(&*store, new).await.operation.id());
    }
    assert_eq!(claim(&*store, 10, F::UNIT).await.len(), 10);
    fixture.advance(F::UNIT * 2).await;

    let line = Arc::new(Lossy::new(&store, []));
    line.fail_after(3);
    let sweeper = builder(&line).start();
    until("no sweep is cut off", async || line.failed() > 0).await;
    let left = async || {
        let mut left = 0;
        for id in &ids {
            left += usize::from(!found(&*store, *id).await.status().is_finished());
        }
        left
    };
    assert!(left().await >= 7, "more was settled than reached the store");
    line.come_back();
    until("a cut-off sweep is not made good", async || left().await == 0).await;
    drop(sweeper);
    for id in ids {
        let error = found(&*store, id).await.error().cloned();
        assert!(error.is_some_and(|error| error.is(types::INTERRUPTED)));
    }
}

/// Each try of work that fails counts, waits as long as its problem says by the store's clock, and
/// after the last one the operation has failed.
pub async fn c51_work_that_fails_is_tried_again_in_time<F: Fixture>(fixture: &F) {
    let store = Arc::new(fixture.open().await);
    let line = Arc::new(Lossy::new(&store, []));
    let pause = Duration::from_secs((F::UNIT * 2).as_secs().max(1));
    let tries: Arc<Mutex<Vec<(u32, Timestamp)>>> = Arc::default();
    let work = {
        let (store, tries) = (Arc::clone(&store), Arc::clone(&tries));
        move |_: Task, context: Context| {
            let (store, tries) = (Arc::clone(&store), Arc::clone(&tries));
            async move {
                let id = context.operation_id().expect("it is stored");
                let now = store.get(id).await.unwrap().expect("it is there").now;
                tries.lock().unwrap().push((context.attempt(), now));
                Err::<Created, _>(Problem::new(types::OVERLOADED).with_retry_after(pause))
            }
        }
    };
    let policy = JobPolicy::new().with_attempt_limit(3).with_backoff(POLL, POLL);
    let operations = builder(&line).job_with(policy, work).start();
    let id = submit(&operations, 0).await;
    let began = Instant::now();
    while !found(&*store, id).await.status().is_finished() {
        assert!(began.elapsed() < PATIENCE, "it is not tried to its end");
        // What is begun now is begun at a time that can be told from the next.
        let seen = tries.lock().unwrap().len();
        if seen > 0 {
            fixture.advance(F::UNIT / 2).await;
        }
        sleep(POLL * 2).await;
    }
    let ended = found(&*store, id).await;
    assert_eq!((ended.status(), ended.attempt()), (Status::Failed, 3));
    assert!(ended.error().is_some_and(|error| error.is(types::ATTEMPTS_EXHAUSTED)));
    let tries = tries.lock().unwrap().clone();
    assert_eq!(tries.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 3]);
    for pair in tries.windows(2) {
        let waited = pair[1].1.duration_since(pair[0].1);
        assert!(waited >= pause, "tried again after {waited:?}, which is before {pause:?}");
    }
}

/// A store that is away while the work is done costs no attempt: the end is recorded when it is back.
pub async fn c53_an_outage_costs_no_attempt<F: Fixture>(fixture: &F) {
    let store = Arc::new(fixture.open().await);
    let line = Arc::new(Lossy::new(&store, []));
    let begun = Arc::new(AtomicUsize::new(0));
    let work = {
        let (line, begun) = (Arc::clone(&line), Arc::clone(&begun));
        move |_: Task, context: Context| {
            line.fail_after(0);
            begun.fetch_add(1, Ordering::SeqCst);
            async move { Created::at("/done").json(&context.attempt()) }
        }
    };
    let operations = builder(&line).job(work).start();
    let id = submit(&operations, 0).await;
    until("the outage hits nobody", async || line.failed() > 2).await;
    let during = found(&*store, id).await;
    assert_eq!((during.status(), during.attempt()), (Status::Running, 1));
    line.come_back();
    let ended = ended(&*store, id).await;
    assert_eq!((ended.status(), ended.attempt()), (Status::Succeeded, 1));
    assert_eq!(&store.outcome(id).await.unwrap().expect("it has an outcome").body[..], b"1");
    assert_eq!(begun.load(Ordering::SeqCst), 1);
}

/// Work that panics fails without telling what it knew, and neither that nor work that never yields
/// stops the worker.
pub async fn c54_work_that_misbehaves_stops_nobody<F: Fixture>(fixture: &F) {
    let store = Arc::new(fixture.open().await);
    let work = |task: Task, _: Context| {
        assert!(task.0 != 0, "secret");
        async move {
            match task.0 {
                1 => {
                    tokio::task::yield_now().await;
                    panic!("secret")
                }
                // Where a panic comes while another is on its way the process would end.
                2 => std::panic::panic_any(3_u8),
                3 => std::thread::sleep(Duration::from_millis(300)),
                _ => {}
            }
            Created::at("/done").into_outcome()
        }
    };
    let line = Arc::new(Lossy::new(&store, []));
    let operations = builder(&line).job(work).start();
    let mut ids = Vec::new();
    for number in [0, 1, 2, 3, 4] {
        ids.push(submit(&operations, number).await);
    }
    for (number, id) in ids.into_iter().enumerate() {
        let ended = ended(&*store, id).await;
        let outcome: Option<Outcome> = store.outcome(id).await.unwrap();
        if number < 3 {
            let error = ended.error().expect("it failed");
            assert!(error.is(types::INTERNAL), "{error}");
            let told = format!("{ended:?} {outcome:?}");
            assert!(!told.contains("secret"), "{told}");
        } else {
            assert_eq!(ended.status(), Status::Succeeded);
        }
        assert_eq!(ended.attempt(), 1);
    }
}

/// However often work reports, the store is written to once an interval; what was reported last is
/// seen within one.
pub async fn c64_progress_is_written_once_an_interval<F: Fixture>(fixture: &F) {
    const INTERVAL: Duration = Duration::from_millis(100);
    const REPORTS: u32 = 2_000;
    let store = Arc::new(fixture.open().await);
    let line = Arc::new(Lossy::new(&store, []));
    let may_end = Arc::new(tokio::sync::Notify::new());
    let work = {
        let may_end = Arc::clone(&may_end);
        move |_: Task, context: Context| {
            let may_end = Arc::clone(&may_end);
            async move {
                for report in 1..=REPORTS {
                    let fraction = f64::from(report) / f64::from(REPORTS * 2);
                    context.progress(fraction, format!("{report}"));
                    if report % 100 == 0 {
                        sleep(Duration::from_millis(10)).await;
                    }
                }
                may_end.notified().await;
                Created::at("/done")
            }
        }
    };
    let operations = builder(&line).progress_interval(INTERVAL).job(work).start();
    let began = Instant::now();
    let id = submit(&operations, 0).await;
    let last = REPORTS.to_string();
    until("the last report is never seen", async || {
        let operation = found(&*store, id).await;
        operation.progress().is_some_and(|progress| progress.message() == Some(&last))
    })
    .await;
    let intervals = began.elapsed().as_millis() / INTERVAL.as_millis();
    let written = line.swaps();
    assert!(
        u128::try_from(written).unwrap_or(u128::MAX) <= intervals + 2,
        "{written} writes in {intervals} intervals"
    );
    may_end.notify_one();
    assert_eq!(ended(&*store, id).await.status(), Status::Succeeded);
}
