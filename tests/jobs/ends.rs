//! What becomes of work and of those who wait for it when something else ends first: its process, its store,
//! its client's patience.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use respond_async::monitor::Monitor;
use respond_async::operation::{Change, Progress};
use respond_async::operations::{Job, JobPolicy};
use respond_async::prefer::Preferences;
use respond_async::problem::types;
use respond_async::respond::Created;
use respond_async::store::{
    ListQuery, OperationStore, OperationStoreExt, StoreError, StoreErrorKind,
};
use respond_async::time::Clock;
use respond_async::{OperationId, Operations, Outcome, Owner, Status};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::interposed::{Call, Interposed, When};
use super::{
    HOUR, Place, accepted, act, ann, ask, assert_failed, elsewhere, named, seconds, submit,
};

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_no_cancellation() {
    let place = Place::new();
    let one = place.process("one");
    // It listens for its cancellation, and says that it was canceled when it is told to stop.
    let id = submit(&one, act("stop", 100)).await;
    let waiting = {
        let one = one.clone();
        tokio::spawn(async move { ask(&one, "respond-async, wait=20", act("stop", 100)).await })
    };
    sleep(seconds(1)).await;
    one.shutdown(Duration::ZERO).await;
    let released = place.get(id).await;
    assert_eq!((released.status(), released.attempts_left()), (Status::Pending, 5));
    assert_eq!(waiting.await.unwrap().status(), 503);
    let _two = place.process("two");
    assert_eq!(place.ended(id).await.status(), Status::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn what_was_canceled_before_a_shutdown_stays_so() {
    let place = Place::new();
    let one = place.process_with("one", JobPolicy::new().never_twice(), |builder| builder);
    let id = submit(&one, act("work", 100)).await;
    sleep(seconds(1)).await;
    one.cancel(&Owner::anonymous(), id).await.unwrap();
    one.shutdown(Duration::ZERO).await;
    assert_eq!(place.get(id).await.status(), Status::Canceled);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_others_work_is_answered_when_its_own_process_ends() {
    let place = Place::new();
    let gateway = place.process_with("gateway", elsewhere(), |builder| builder);
    let _worker = place.process("worker");
    let began = Instant::now();
    let waiting = {
        let gateway = gateway.clone();
        tokio::spawn(async move {
            let preferences = Preferences::default();
            ann(gateway.kick_off(&preferences))
                .idempotency(named("k"))
                .respond(act("work", 900))
                .await
        })
    };
    sleep(seconds(1)).await;
    gateway.shutdown(seconds(5)).await;
    let response = waiting.await.unwrap();
    assert_eq!(place.get(accepted(&response)).await.status(), Status::Running);
    assert!(began.elapsed() < seconds(15), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_direct_answer_leaves_nothing_wherever_the_work_was_done() {
    let place = Place::new();
    let gateway = place.process_with("gateway", elsewhere(), |builder| builder);
    let _worker = place.process("worker");
    let response = ask(&gateway, "respond-async, wait=5", act("work", 3)).await;
    assert_eq!(response.status(), 201);
    sleep(Duration::from_millis(1)).await;
    assert!(place.store.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_has_an_operation_is_told_of_it_even_if_it_cannot_be_read() {
    let place = Place::new();
    let (accepted_one, refused) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let store = Interposed::new(&place.store, {
        let (accepted_one, refused) = (Arc::clone(&accepted_one), Arc::clone(&refused));
        move |when, call| {
            if (when, call) == (When::After, Call::Accept) {
                accepted_one.store(true, Ordering::SeqCst);
            }
            let is_away =
                (when, call) == (When::Before, Call::Read) && accepted_one.load(Ordering::SeqCst);
            refused.fetch_or(is_away, Ordering::SeqCst);
            async move {
                let error = StoreError::new(StoreErrorKind::Unavailable, "away");
                if is_away { Err(error) } else { Ok(()) }
            }
        }
    });
    let gateway = place.builder(store).job_with(elsewhere(), place.handler("gateway")).start();
    let _worker = place.process("worker");
    let response = ask(&gateway, "respond-async, wait=5", act("work", 1)).await;
    let id = accepted(&response);
    assert!(refused.load(Ordering::SeqCst), "nothing was read");
    assert_eq!(place.ended(id).await.status(), Status::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn what_is_put_off_is_not_waited_for() {
    let place = Place::new();
    let one = place.process("one");
    let began = Instant::now();
    let preferences = Preferences::parse(b"respond-async, wait=5").unwrap();
    let kick_off = ann(one.kick_off(&preferences)).delay(seconds(3_600));
    let response = kick_off.respond(act("work", 1)).await;
    assert_eq!((response.status().as_u16(), began.elapsed()), (202, Duration::ZERO));
    let delay: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(delay >= 24, "{delay}");
    // A deadline counts from when it may begin.
    let policy = JobPolicy::new().with_deadline(seconds(60));
    let two = place.process_with("two", policy, |builder| builder);
    one.shutdown(Duration::ZERO).await;
    let none = Preferences::default();
    let late = two.kick_off(&none).delay(seconds(120)).submit(act("work", 1)).await.unwrap();
    assert_eq!(place.ended(late.operation.id()).await.status(), Status::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_failed_is_tried_again_soon() {
    let place = Place::new();
    let away = Arc::new(AtomicBool::new(false));
    let store = Interposed::new(&place.store, {
        let away = Arc::clone(&away);
        move |when, call| {
            let is_away = when == When::Before && call == Call::Swap && away.load(Ordering::SeqCst);
            async move {
                let error = StoreError::new(StoreErrorKind::Unavailable, "away");
                if is_away { Err(error) } else { Ok(()) }
            }
        }
    });
    let one = place.builder(store).job(place.handler("one")).start();
    let id = submit(&one, act("work", 100)).await;
    sleep(seconds(9)).await;
    // Both renewals that fall into it fail; the next would be when the lease ends.
    away.store(true, Ordering::SeqCst);
    sleep(seconds(15)).await;
    away.store(false, Ordering::SeqCst);
    let _two = place.process("two");
    let ended = place.ended(id).await;
    assert_eq!((ended.status(), ended.attempt()), (Status::Succeeded, 1));
}

#[derive(Serialize, Deserialize)]
struct Note;

impl Job for Note {
    const KIND: &'static str = "tests.note";
}

fn notes(place: &Place, follow: impl Fn() -> Option<Note> + Send + Sync + 'static) -> Operations {
    let policy = JobPolicy::new().with_retention(seconds(1));
    place
        .builder(place.store.clone())
        .job(place.handler("one"))
        .job_with(policy, async |_: Note, _| Outcome::default())
        .follow_up(move |_| follow())
        .start()
}

#[tokio::test(start_paused = true)]
async fn a_mistake_in_what_follows_keeps_nothing_from_its_end() {
    let place = Place::new();
    let one = notes(&place, || panic!("on purpose"));
    let id = submit(&one, act("work", 1)).await;
    assert_eq!(place.ended(id).await.status(), Status::Succeeded);
    let late = submit(&one, act("wrong", 1)).await;
    assert_failed(
        &place.ended(late).await,
        respond_async::problem::ProblemType::new(
            "about:blank",
            "",
            http::StatusCode::UNPROCESSABLE_ENTITY,
        ),
    );
}

#[tokio::test(start_paused = true)]
async fn how_long_notes_are_kept_says_nothing_of_other_operations() {
    let place = Place::new();
    let one = notes(&place, || Some(Note));
    let made = place.clock.now();
    sleep(seconds(60)).await;
    let unknown = OperationId::generate(made).unwrap();
    let problem = one.get(&Owner::anonymous(), unknown).await.unwrap_err();
    assert!(problem.is(types::NOT_FOUND), "{problem:?}");
    assert!(Owner::new("respond-async:follow-up").is_err(), "nobody is called so");
}

#[tokio::test(start_paused = true)]
async fn what_follows_from_an_acceptance_follows_although_its_client_hangs_up() {
    let place = Place::new();
    let store = Interposed::new(&place.store, |when, call| async move {
        if when == When::After && call == Call::Accept {
            sleep(seconds(1)).await;
        }
        Ok(())
    });
    let followed = Arc::new(AtomicBool::new(false));
    let policy = JobPolicy::new().with_retention(seconds(1));
    let note = Arc::clone(&followed);
    let one = place
        .builder(store)
        .job_with(elsewhere(), place.handler("one"))
        .job_with(policy, move |_: Note, _| {
            note.store(true, Ordering::SeqCst);
            async { Outcome::default() }
        })
        .follow_up(|_| Some(Note))
        .start();
    let submitting = ask(&one, "respond-async", act("work", 1));
    tokio::time::timeout(seconds(1) / 2, submitting).await.unwrap_err();
    sleep(seconds(10)).await;
    assert!(followed.load(Ordering::SeqCst));
}

/// Its work waits for nothing, so that its answer does not either.
#[tokio::test(start_paused = true)]
async fn what_is_no_job_is_not_put_off() {
    let place = Place::new();
    let one = place.process("one");
    for prefer in ["", "respond-async, wait=3"] {
        let preferences = Preferences::parse(prefer.as_bytes()).unwrap();
        let named = named(&format!("\"a{}\"", prefer.len()));
        let kick_off = ann(one.kick_off(&preferences)).idempotency(named).delay(seconds(5));
        let response = kick_off.respond_with(async |_| Created::at("/things/17")).await;
        assert_eq!(response.status(), http::StatusCode::CREATED, "{prefer}");
    }
}

/// What is written between the look at the condition and the change is a change of what was looked at.
#[tokio::test(start_paused = true)]
async fn a_conditional_cancellation_is_of_what_its_client_saw() {
    let place = Place::new();
    let meddles = Arc::new(AtomicBool::new(false));
    let store = Interposed::new(&place.store, {
        let (meddles, store) = (Arc::clone(&meddles), place.store.clone());
        move |when, call| {
            let meddles =
                when == When::After && call == Call::Read && meddles.swap(false, Ordering::SeqCst);
            let store = store.clone();
            async move {
                if meddles {
                    let page = store.list(&Owner::new("ann").unwrap(), &ListQuery::default()).await;
                    let id = page.unwrap().operations[0].id();
                    let progress = Progress::new(0.9, "more");
                    store.apply(id, Change::Progress { attempt: 1, progress }).await.unwrap();
                }
                Ok(())
            }
        }
    });
    let one = place.builder(store).job(place.handler("one")).start();
    let id = accepted(&ask(&one, "respond-async", act("work", 100)).await);
    sleep(seconds(5)).await;
    let monitor = Monitor::new(&one);
    let owner = Owner::new("ann").unwrap();
    for (any, expected) in [(false, 412), (true, 202)] {
        let tag = format!("\"{}\"", place.get(id).await.revision());
        let request = http::Request::delete(format!("/operations/{id}"))
            .header("if-match", if any { "*" } else { &tag })
            .body(())
            .unwrap();
        meddles.store(true, Ordering::SeqCst);
        let answer = monitor.respond(&owner, &request).await;
        assert_eq!(answer.status(), expected);
        assert_eq!(place.get(id).await.is_cancel_requested(), any);
    }
}

/// A change that hangs keeps nothing else from being swept, and is not tried again without a pause.
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_in_part_is_swept_and_is_not_pressed() {
    let place = Place::new();
    let hangs = Arc::new(AtomicBool::new(false));
    let tries = Arc::new(AtomicUsize::new(0));
    let store = Interposed::new(&place.store, {
        let (hangs, tries) = (Arc::clone(&hangs), Arc::clone(&tries));
        move |when, call| {
            let hangs = when == When::Before && call == Call::Swap && hangs.load(Ordering::SeqCst);
            tries.fetch_add(usize::from(hangs), Ordering::SeqCst);
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        }
    });
    let builder = place.builder(store).retention_bounds(seconds(1), HOUR).retention(seconds(20));
    let one = builder.lease(seconds(90)).job(place.handler("one")).start();
    let gone = submit(&one, act("work", 1)).await;
    place.ended(gone).await;
    submit(&one, act("work", 500)).await;
    sleep(seconds(1)).await;
    hangs.store(true, Ordering::SeqCst);
    // It is renewed after 30 s; each try takes 2 s, and the next comes 1 s after it.
    sleep(seconds(70)).await;
    let tries = tries.load(Ordering::SeqCst);
    assert!((10..=15).contains(&tries), "{tries}");

    let none = Preferences::default();
    let overdue = one.kick_off(&none).delay(HOUR).deadline(seconds(1));
    overdue.submit(act("work", 1)).await.unwrap();
    sleep(seconds(60)).await;
    assert!(place.store.get(gone).await.unwrap().is_none(), "it is not purged");
}

/// As many fields as no store takes: it is no use to do the work again.
#[tokio::test(start_paused = true)]
async fn an_answer_with_too_many_fields_is_a_failure() {
    let place = Place::new();
    let large = |_: super::Act, _| async {
        let mut outcome = Outcome::default();
        outcome
            .headers
            .insert("x-large", "a".repeat(Outcome::MAX_FIELD_BYTES + 1).parse().unwrap());
        outcome
    };
    let one = place.builder(place.store.clone()).job(large).start();
    let ended = place.ended(submit(&one, act("work", 1)).await).await;
    assert_failed(&ended, types::RESULT_TOO_LARGE);
    assert_eq!(ended.attempt(), 1);

    let waits = one.kick_off(&Preferences::default()).delay(HOUR).submit(act("work", 1)).await;
    let mut outcome = Outcome::default();
    outcome.headers.insert("x-large", "a".repeat(Outcome::MAX_FIELD_BYTES + 1).parse().unwrap());
    let completed = one.complete(waits.unwrap().operation.id(), outcome).await.unwrap();
    assert_failed(&completed.operation, types::RESULT_TOO_LARGE);
}
