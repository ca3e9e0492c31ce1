//! Who holds a job, and what becomes of it when its holder is gone, told to stop, or cut off.

use std::sync::atomic::{AtomicBool, Ordering};

use respond_async::store::{StoreError, StoreErrorKind};

use super::interposed::{Call, Interposed, When};
use super::*;

/// Nobody looks by itself, so whatever begins was told.
const NEVER: Duration = Duration::from_secs(100 * 24 * 3600);

#[tokio::test(start_paused = true)]
async fn a_worker_is_woken_by_work_and_not_by_a_clock() {
    let place = Place::new();
    let worker =
        place.process_with("worker", JobPolicy::new(), |builder| builder.poll_interval(NEVER));
    let gateway = place.process_with("gateway", JobPolicy::new().with_concurrency(0), |builder| {
        builder.poll_interval(NEVER)
    });
    sleep(seconds(10)).await;
    // From another process, by the store's hints; and from the same one.
    for operations in [&gateway, &worker] {
        let id = submit(operations, act("work", 1)).await;
        sleep(seconds(2)).await;
        assert_eq!(place.get(id).await.status(), Status::Succeeded);
    }
    assert_eq!(place.begun_by(), [("worker", 1), ("worker", 1)]);
}

#[tokio::test(start_paused = true)]
async fn without_hints_it_looks_now_and_then() {
    let place = Place::new();
    let deaf = Interposed::new(&place.store, |_, _| async { Ok(()) }).without_hints();
    let _worker = place.builder(deaf).job(place.handler("worker")).start();
    let gateway = place.process_with("gateway", JobPolicy::new().with_concurrency(0), |b| b);
    sleep(seconds(10)).await;
    let id = submit(&gateway, act("work", 1)).await;
    sleep(seconds(3)).await;
    assert_eq!(place.get(id).await.status(), Status::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_for_as_long_as_the_work_goes_on() {
    let place = Place::new();
    let one = place.process("one");
    let _two = place.process("two");
    let id = submit(&one, act("work", 600)).await;
    let ended = place.ended(id).await;
    assert_eq!((ended.status(), ended.attempt()), (Status::Succeeded, 1));
    assert_eq!(place.begun().len(), 1);
}

/// The holder's writes do not get through, so that its lease really passes and really is taken; then
/// they do, and are refused.
#[tokio::test(start_paused = true)]
async fn a_worker_that_lost_its_lease_changes_nothing_and_is_told() {
    let place = Place::new();
    let cut = Arc::new(AtomicBool::new(false));
    let store = Interposed::new(&place.store, {
        let cut = Arc::clone(&cut);
        move |when, call| {
            let is_cut = when == When::Before && call != Call::Accept && cut.load(Ordering::SeqCst);
            async move {
                let error = StoreError::new(StoreErrorKind::Unavailable, "cut off");
                if is_cut { Err(error) } else { Ok(()) }
            }
        }
    });
    let told = Arc::new(AtomicBool::new(false));
    let stale = place
        .builder(store)
        .cancel_grace(HOUR)
        .job({
            let (log, told) = (Arc::clone(&place.log), Arc::clone(&told));
            move |act: Act, context: Context| {
                log.lock().unwrap().push(("stale", act.what, context.attempt(), 0));
                let told = Arc::clone(&told);
                async move {
                    context.canceled().await;
                    told.store(true, Ordering::SeqCst);
                    // It answers all the same, as a handler may.
                    Created::at("/made/by/stale")
                }
            }
        })
        .start();
    let id = submit(&stale, act("work", 50)).await;
    sleep(seconds(1)).await;
    assert_eq!(place.get(id).await.attempt(), 1);
    cut.store(true, Ordering::SeqCst);
    let _other = place.process("other");
    sleep(seconds(60)).await;
    assert_eq!(place.begun_by(), [("stale", 1), ("other", 2)]);
    assert!(!told.load(Ordering::SeqCst), "a store that is away takes nobody's lease");

    cut.store(false, Ordering::SeqCst);
    sleep(seconds(12)).await;
    assert!(told.load(Ordering::SeqCst), "its next renewal tells it");
    let running = place.get(id).await;
    assert_eq!((running.status(), running.attempt()), (Status::Running, 2));
    let ended = place.ended(id).await;
    assert_eq!((ended.status(), ended.attempt()), (Status::Succeeded, 2));
    let outcome = place.store.outcome(id).await.unwrap().unwrap();
    assert_eq!(outcome.headers["location"], "/made/by/other");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_costs_no_attempt() {
    let place = Place::new();
    let away = Arc::new(AtomicBool::new(false));
    let store = Interposed::new(&place.store, {
        let away = Arc::clone(&away);
        move |when, _| {
            let is_away = when == When::Before && away.load(Ordering::SeqCst);
            async move {
                let error = StoreError::new(StoreErrorKind::Unavailable, "away");
                if is_away { Err(error) } else { Ok(()) }
            }
        }
    });
    let operations = place.builder(store).job(place.handler("one")).start();
    let id = submit(&operations, act("work", 5)).await;
    sleep(seconds(1)).await;
    away.store(true, Ordering::SeqCst);
    // The work ends meanwhile; what it ended with is recorded when the store is back.
    sleep(seconds(15)).await;
    assert_eq!(place.get(id).await.status(), Status::Running);
    let refused = ask(&operations, "respond-async", act("work", 1)).await;
    assert_eq!(refused.status(), 503);
    away.store(false, Ordering::SeqCst);
    let ended = place.ended(id).await;
    assert_eq!((ended.status(), ended.attempt()), (Status::Succeeded, 1));
    assert_eq!(place.begun().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn shutdown_gives_leases_back_at_once() {
    let place = Place::new();
    let policy = JobPolicy::new().with_concurrency(2);
    let one = place.process_with("one", policy, |builder| builder);
    let short = submit(&one, act("work", 5)).await;
    sleep(Duration::from_millis(10)).await;
    let long = submit(&one, act("work", 100)).await;
    sleep(Duration::from_millis(10)).await;
    let waiting = submit(&one, act("work", 1)).await;
    sleep(seconds(1)).await;
    let two = place.process("two");
    sleep(seconds(1)).await;
    assert_eq!(place.begun_by(), [("one", 1), ("one", 1), ("two", 1)]);

    assert_eq!(one.shutdown(seconds(10)).await, 1);
    assert_eq!(place.get(short).await.status(), Status::Succeeded, "it was in time");
    assert_eq!(place.get(waiting).await.status(), Status::Succeeded);
    let refused = ask(&one, "respond-async", act("work", 1)).await;
    assert_eq!(refused.status(), 503);
    sleep(seconds(1)).await;
    // The other process has it already: no lease had to pass, and the attempt was given back.
    assert_eq!(place.begun_by().last(), Some(&("two", 2)));
    let taken = place.get(long).await;
    assert_eq!((taken.status(), taken.attempts_left()), (Status::Running, 4));
    assert_eq!(place.ended(long).await.status(), Status::Succeeded);
    assert_eq!(two.shutdown(seconds(1)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn shutdown_interrupts_for_good_what_may_not_run_twice() {
    let place = Place::new();
    let policy = JobPolicy::new().never_twice().with_concurrency(1);
    let one = place.process_with("one", policy, |builder| builder);
    let begun = submit(&one, act("work", 100)).await;
    sleep(Duration::from_millis(10)).await;
    let waiting = submit(&one, act("work", 1)).await;
    sleep(seconds(1)).await;
    assert_eq!(one.shutdown(seconds(1)).await, 1);
    assert_failed(&place.get(begun).await, types::INTERRUPTED);
    // What had not begun waits for somebody else.
    assert_eq!(place.get(waiting).await.status(), Status::Pending);
    let _two = place.process_with("two", policy, |builder| builder);
    assert_eq!(place.ended(waiting).await.status(), Status::Succeeded);
    assert_eq!(place.begun_by(), [("one", 1), ("two", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_reaches_the_worker_in_another_process() {
    let place = Place::new();
    let worker = place.process("worker");
    let gateway = place.process_with("gateway", JobPolicy::new().with_concurrency(0), |b| b);
    let id = submit(&gateway, act("stop", 500)).await;
    sleep(seconds(1)).await;
    let nobody = Owner::anonymous();
    let canceling = gateway.cancel(&nobody, id).await.unwrap().operation;
    assert!(canceling.is_cancel_requested() && canceling.status() == Status::Running);
    // At the next renewal at the latest.
    sleep(seconds(11)).await;
    assert_eq!(place.get(id).await.status(), Status::Canceled);
    // One that waits ends at once, and never begins.
    let waiting = {
        let none = Preferences::default();
        let kick_off = gateway.kick_off(&none).delay(seconds(5));
        kick_off.submit(act("work", 1)).await.unwrap().operation.id()
    };
    let canceled = gateway.cancel(&nobody, waiting).await.unwrap().operation;
    assert_eq!(canceled.status(), Status::Canceled);
    sleep(seconds(20)).await;
    assert_eq!(place.begun().len(), 1);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn the_workers_end_with_the_last_handle() {
    let place = Place::new();
    let operations = place.process("one");
    let running = submit(&operations, act("work", 5)).await;
    sleep(seconds(1)).await;
    drop(operations);
    // What runs is brought to its end; nothing new is begun.
    let gateway = place.process_with("gateway", JobPolicy::new().with_concurrency(0), |b| b);
    let later = submit(&gateway, act("work", 1)).await;
    assert_eq!(place.ended(running).await.status(), Status::Succeeded);
    sleep(seconds(60)).await;
    assert_eq!(place.get(later).await.status(), Status::Pending);
    assert_eq!(place.begun().len(), 1);
}

/// The end of work that was done elsewhere: running here, waiting, delayed, or long over its deadline.
#[tokio::test(start_paused = true)]
async fn an_end_that_is_told_from_outside_counts_once() {
    let place = Place::new();
    let one = place.process("one");
    let told = |status: u16| Outcome::new(StatusCode::from_u16(status).unwrap());
    let running = submit(&one, act("work", 600)).await;
    sleep(seconds(5)).await;
    let done = one.complete(running, told(201)).await.unwrap();
    assert_eq!((done.operation.status(), done.operation.attempt()), (Status::Succeeded, 1));
    // Another end changes nothing, the handler's own neither.
    let again = one.complete(running, told(500)).await.unwrap();
    assert_eq!(again.operation, done.operation);
    sleep(seconds(700)).await;
    assert_eq!(place.get(running).await, done.operation);

    let preferences = Preferences::parse(b"respond-async").unwrap();
    let kick_off = || one.kick_off(&preferences).delay(HOUR);
    let delayed = kick_off().submit(act("work", 1)).await.unwrap().operation.id();
    assert_eq!(one.complete(delayed, told(422)).await.unwrap().operation.status(), Status::Failed);
    let late = kick_off().deadline(seconds(10)).submit(act("work", 1)).await.unwrap();
    let late = late.operation.id();
    tokio::time::advance(seconds(10)).await;
    let late = one.complete(late, told(200)).await.unwrap().operation;
    assert_eq!(late.status(), Status::Failed, "after its deadline nothing succeeds");

    let now = TokioClock(Instant::now()).now() + HOUR;
    let unknown = OperationId::generate(now).unwrap();
    assert!(one.complete(unknown, told(200)).await.unwrap_err().is(types::NOT_FOUND));
}

/// Noted for each change, by a job that follows from it.
#[derive(Serialize, Deserialize)]
struct Note(String);

impl Job for Note {
    const KIND: &'static str = "tests.note";
}

#[tokio::test(start_paused = true)]
async fn what_follows_from_a_change_is_done_and_nothing_follows_from_that() {
    let place = Place::new();
    let notes: Arc<Mutex<Vec<String>>> = Arc::default();
    // One that says what follows, and knows how; its first tries fail.
    let one = place
        .builder(place.store.clone())
        .job(place.handler("one"))
        .follow_up(|operation| {
            let word = format!("{} {}", operation.revision(), operation.status().as_str());
            Some(Note(word))
        })
        .job({
            let notes = notes.clone();
            move |note: Note, context: Context| {
                let is_first = context.attempt() == 1;
                if !is_first {
                    notes.lock().unwrap().push(note.0);
                }
                async move {
                    if is_first {
                        Err(Problem::new(types::OVERLOADED))
                    } else {
                        Ok(Outcome::default())
                    }
                }
            }
        })
        .start();
    let id = submit(&one, act("work", 5)).await;
    assert_eq!(place.ended(id).await.status(), Status::Succeeded);
    let canceled = submit(&one, act("work", 500)).await;
    sleep(seconds(1)).await;
    one.cancel(&Owner::anonymous(), canceled).await.unwrap();
    assert_eq!(place.ended(canceled).await.status(), Status::Canceled);
    let plain = Preferences::default();
    let settled = one.kick_off(&plain).delay(HOUR).deadline(seconds(60));
    let settled = settled.submit(act("work", 1)).await.unwrap().operation.id();
    assert_eq!(place.ended(settled).await.status(), Status::Failed);
    sleep(HOUR * 2).await;
    let mut notes = notes.lock().unwrap().clone();
    notes.sort();
    assert_eq!(
        notes,
        [
            "1 pending",
            "1 pending",
            "1 pending",
            "2 failed",
            "3 running",
            "3 running",
            "4 running",
            "4 succeeded",
            "5 canceled"
        ]
    );
}

#[tokio::test]
#[should_panic(expected = "no handler is registered for \"tests.note\"")]
async fn what_follows_needs_a_handler() {
    let place = Place::new();
    let _ = place.builder(place.store.clone()).follow_up(|_| None::<Note>).start();
}

/// The attempts that were begun, and their traces.
type Seen = Vec<(u32, Option<TraceContext>)>;

#[tokio::test(start_paused = true)]
async fn the_work_belongs_to_the_trace_of_its_request() {
    let place = Place::new();
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let handler = || {
        let seen = seen.clone();
        move |_: Note, context: Context| {
            seen.lock().unwrap().push((context.attempt(), context.trace().cloned()));
            let is_first = context.operation_id().is_some() && context.attempt() == 1;
            async move {
                if is_first { Err(Problem::new(types::OVERLOADED)) } else { Ok(Outcome::default()) }
            }
        }
    };
    let one = place.builder(place.store.clone()).job(handler()).start();
    let trace = TraceContext::new("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=1");
    assert!(trace.is_some());
    for prefer in ["", "respond-async", "respond-async, wait=5"] {
        let preferences = Preferences::parse(prefer.as_bytes()).unwrap();
        let note = Note(String::new());
        one.kick_off(&preferences).trace(trace.clone()).respond(note).await;
        sleep(seconds(10)).await;
    }
    let plain = Preferences::default();
    one.kick_off(&plain)
        .trace(trace.clone())
        .respond_with({
            let seen = seen.clone();
            async move |context: Context| {
                seen.lock().unwrap().push((9, context.trace().cloned()));
                Outcome::default()
            }
        })
        .await;
    let seen = seen.lock().unwrap();
    let attempts: Vec<_> = seen.iter().map(|(attempt, _)| *attempt).collect();
    assert_eq!(attempts, [1, 1, 2, 1, 9]);
    assert!(seen.iter().all(|(_, of)| *of == trace), "{seen:?}");
}
