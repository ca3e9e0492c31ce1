//! Calls of the store whose answers come late, or not as they were asked.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use respond_async::store::{ListQuery, StoreError, StoreErrorKind};

use super::interposed::{Call, Interposed, When};
use super::*;

fn away() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "away")
}

/// A store whose claims are answered after so many seconds.
fn slow_to_claim(place: &Place, long: u64) -> Interposed {
    Interposed::new(&place.store, move |when, call| async move {
        if (when, call) == (When::After, Call::Claim) {
            sleep(seconds(long)).await;
        }
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_lease_has_passed_when_it_comes_is_not_begun() {
    let place = Place::new();
    let store = slow_to_claim(&place, 40);
    let slow = place.builder(store).job(place.handler("slow")).start();
    let id = submit(&slow, act("work", 20)).await;
    sleep(seconds(1)).await;
    let _other = place.process("other");
    let ended = place.ended(id).await;
    assert_eq!((ended.status(), ended.attempt()), (Status::Succeeded, 2));
    sleep(seconds(60)).await;
    assert_eq!(place.begun_by(), [("other", 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_comes_late_is_kept_before_it_is_begun() {
    let place = Place::new();
    let store = slow_to_claim(&place, 25);
    let _worker = place.builder(store).job(place.handler("worker")).start();
    let gateway = place.process_with("gateway", elsewhere(), |b| b);
    let id = submit(&gateway, act("work", 20)).await;
    let ended = place.ended(id).await;
    assert_eq!((ended.status(), ended.attempt()), (Status::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_claimed_while_its_process_stops_is_given_back_although_it_may_not_run_twice() {
    let place = Place::new();
    let once = JobPolicy::new().never_twice();
    let gateway = place.process_with("gateway", elsewhere().never_twice(), |b| b);
    let id = submit(&gateway, act("work", 1)).await;
    // However many of them stop.
    for worker in ["one", "two", "three"] {
        let store = slow_to_claim(&place, 5);
        let worker = place.builder(store).job_with(once, place.handler(worker)).start();
        while place.get(id).await.status() == Status::Pending {
            sleep(Duration::from_millis(10)).await;
        }
        // It is the worker's, which does not know of it yet.
        assert_eq!(worker.shutdown(seconds(20)).await, 0);
        sleep(seconds(10)).await;
        let given_back = place.get(id).await;
        assert_eq!((given_back.status(), given_back.attempts_left()), (Status::Pending, 1));
    }
    let _other = place.process_with("other", once, |b| b);
    assert_eq!(place.ended(id).await.status(), Status::Succeeded);
    assert_eq!(place.begun_by(), [("other", 4)]);
}

/// Nothing runs, and nothing was interrupted.
#[tokio::test(start_paused = true)]
async fn what_a_claim_may_bring_is_no_work_yet() {
    let place = Place::new();
    let store = slow_to_claim(&place, 10);
    let worker = place.builder(store).job(place.handler("worker")).start();
    sleep(seconds(1)).await;
    assert_eq!(worker.health().await.workers[0].running, 0);
    assert_eq!(worker.shutdown(seconds(1)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_overdue_attempt_does_not_press_a_store_that_is_away() {
    let place = Place::new();
    let (is_away, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let store = Interposed::new(&place.store, {
        let (is_away, swaps) = (Arc::clone(&is_away), Arc::clone(&swaps));
        move |when, call| {
            let is_away = is_away.load(Ordering::SeqCst) && when == When::Before;
            if is_away && call == Call::Swap {
                swaps.fetch_add(1, Ordering::SeqCst);
            }
            async move { if is_away { Err(away()) } else { Ok(()) } }
        }
    });
    let worker = place.builder(store).deadline(seconds(5)).job(place.handler("worker")).start();
    let id = submit(&worker, act("work", 600)).await;
    sleep(seconds(1)).await;
    is_away.store(true, Ordering::SeqCst);
    sleep(seconds(60)).await;
    let swaps = swaps.load(Ordering::SeqCst);
    assert!((10..=70).contains(&swaps), "{swaps}");
    is_away.store(false, Ordering::SeqCst);
    sleep(seconds(3)).await;
    assert_failed(&place.get(id).await, types::DEADLINE_PASSED);
}

/// What follows from an acceptance is told of the acceptance, also if its answer comes when a worker has it.
#[tokio::test(start_paused = true)]
async fn an_acceptance_that_is_found_late_is_told_as_it_was() {
    let place = Place::new();
    let lost = Interposed::new(&place.store, |when, call| async move {
        if (when, call) == (When::After, Call::Accept) {
            sleep(seconds(1)).await;
            return Err(StoreError::new(StoreErrorKind::Ambiguous, "lost"));
        }
        Ok(())
    });
    let _worker = place.process("worker");
    let told = Arc::new(Mutex::new(Vec::new()));
    let gateway = place
        .builder(lost)
        .job_with(elsewhere(), place.handler("gateway"))
        .follow_up({
            let told = Arc::clone(&told);
            move |operation: &Operation| {
                told.lock().unwrap().push((operation.revision(), operation.status()));
                None::<Note>
            }
        })
        .job(async |_: Note, _| Outcome::default())
        .start();
    let response = ask(&gateway, "respond-async", act("work", 600)).await;
    assert_eq!(place.get(accepted(&response)).await.status(), Status::Running);
    assert_eq!(told.lock().unwrap().clone(), [(1, Status::Pending)]);
}

#[derive(Serialize, Deserialize)]
struct Note;

impl Job for Note {
    const KIND: &'static str = "tests.note";
}

/// The operation that a key stands for goes between two reads: its key is free, and the same request begins anew.
#[tokio::test(start_paused = true)]
async fn a_replay_whose_operation_goes_meanwhile_is_no_404() {
    for nth in 0..3 {
        let place = Place::new();
        let first = place.process("first");
        let none = Preferences::default();
        let send = async |operations: &Operations| {
            let named = ann(operations.kick_off(&none)).idempotency(named("k"));
            named.respond(act("work", 1)).await
        };
        assert_eq!(send(&first).await.status(), StatusCode::CREATED);
        let reads = Arc::new(AtomicUsize::new(0));
        let store = Interposed::new(&place.store, {
            let (memory, reads) = (place.store.clone(), Arc::clone(&reads));
            move |when, call| {
                let is_now = (when, call) == (When::Before, Call::Read)
                    && reads.fetch_add(1, Ordering::SeqCst) == nth;
                let memory = memory.clone();
                async move {
                    if is_now {
                        let ann = Owner::new("ann").unwrap();
                        for operation in memory.list(&ann, &ListQuery::default()).await?.operations
                        {
                            memory.remove(operation.id(), operation.version()).await?;
                        }
                    }
                    Ok(())
                }
            }
        });
        let other = place.builder(store).job(place.handler("other")).start();
        // Not by the other's own doings.
        reads.store(0, Ordering::SeqCst);
        let mut refused = 0;
        for _ in 0..3 {
            let answer = send(&other).await;
            if answer.status() != StatusCode::CREATED {
                assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{nth}: {answer:?}");
                assert!(answer.headers().contains_key("retry-after"), "{nth}: {answer:?}");
                refused += 1;
            }
        }
        assert_eq!(refused, 1, "{nth}");
        assert_eq!(place.begun_by(), [("first", 1), ("other", 1)], "{nth}");
    }
}

/// Nobody looks by itself.
#[tokio::test(start_paused = true)]
async fn hints_that_end_begin_anew() {
    let place = Place::new();
    let store = Interposed::new(&place.store, |_, _| async { Ok(()) }).whose_first_hints_end();
    let builder = place.builder(store).poll_interval(100 * 24 * HOUR);
    let _worker = builder.job(place.handler("worker")).start();
    let gateway = place.process_with("gateway", elsewhere(), |b| b);
    sleep(seconds(10)).await;
    let id = submit(&gateway, act("work", 1)).await;
    sleep(seconds(2)).await;
    assert_eq!(place.get(id).await.status(), Status::Succeeded);
}
