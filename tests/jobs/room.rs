//! What becomes of requests that there is no room or no time for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::StatusCode;
use respond_async::operation::Callback;
use respond_async::operations::{Job, JobPolicy};
use respond_async::prefer::Preferences;
use respond_async::respond::{Created, Response};
use respond_async::store::{MemoryStore, OperationStore, StoreError, StoreErrorKind};
use respond_async::{Operations, Outcome, Owner, Status};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::interposed::{Call, Interposed, When};
use super::{Place, accepted, act, ann, ask, elsewhere, named, seconds, submit};

fn is_replayed(response: &Response) -> bool {
    response.headers().contains_key("idempotency-replayed")
}

/// Begins work that takes so long, and counts it.
async fn begin(
    operations: &Operations,
    key: &str,
    takes: u64,
    begun: &Arc<AtomicUsize>,
) -> Response {
    let preferences = Preferences::parse("respond-async").unwrap();
    let begun = Arc::clone(begun);
    let kick_off = ann(operations.kick_off(&preferences)).idempotency(named(key));
    let work = async move |_| {
        begun.fetch_add(1, Ordering::SeqCst);
        sleep(seconds(takes)).await;
        Created::at("/things/17")
    };
    kick_off.respond_with(work).await
}

/// Its client was told that the store does not answer; its key stands for the work all the same.
#[tokio::test(start_paused = true)]
async fn what_the_store_has_after_all_is_done_after_all() {
    let place = Place::new();
    let is_first = Arc::new(AtomicBool::new(true));
    let store = Interposed::new(&place.store, move |when, call| {
        let is_slow =
            (when, call) == (When::After, Call::Accept) && is_first.swap(false, Ordering::SeqCst);
        async move {
            if is_slow {
                sleep(seconds(25)).await;
            }
            Ok(())
        }
    });
    let one = place.builder(store).start();
    let (begun, asked) = (Arc::default(), Instant::now());
    let refused = begin(&one, "k", 60, &begun).await;
    assert_eq!((refused.status().as_u16(), asked.elapsed()), (503, seconds(2)));
    assert!(refused.headers().contains_key("retry-after"));
    // It has no answer yet, and then one after a renewal of its lease, whose 30 s began with the acceptance.
    let again = begin(&one, "k", 60, &begun).await;
    let id = accepted(&again);
    assert!(is_replayed(&again));
    assert_eq!(place.ended(id).await.status(), Status::Succeeded);
    let answer = begin(&one, "k", 60, &begun).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(begun.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_before_is_answered_however_much_there_is_to_do() {
    let place = Place::new();
    let one = place.builder(place.store.clone()).concurrency(1).queue(0).start();
    let begun = Arc::default();
    let id = accepted(&begin(&one, "k", 60, &begun).await);
    let other = begin(&one, "other", 60, &begun).await;
    assert_eq!(other.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(other.headers().contains_key("retry-after"));
    let again = begin(&one, "k", 60, &begun).await;
    assert!(is_replayed(&again) && accepted(&again) == id);
    assert_eq!((place.store.len(), begun.load(Ordering::SeqCst)), (1, 1));
}

/// Else its effects would be there, and its client told to begin it again.
#[tokio::test(start_paused = true)]
async fn work_that_has_begun_is_answered_if_there_is_no_room_to_store_it() {
    let place = Place::new();
    let one = place.process_with("one", JobPolicy::new(), |builder| builder.live_limit(1));
    submit(&one, act("work", 600)).await;
    let began = Instant::now();
    let answer = ask(&one, "respond-async, wait=2", act("work", 7)).await;
    assert_eq!((answer.status(), began.elapsed()), (StatusCode::CREATED, seconds(7)));
    assert_eq!(place.store.len(), 1);
    // What has not begun is refused.
    let refused = ask(&one, "respond-async", act("work", 7)).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_others_are_bounded() {
    let place = Place::new();
    let gateway = place.process_with("gateway", elsewhere(), |builder| builder.waiters(1));
    let _worker = place.process("worker");
    let ask = |key: &'static str| {
        let gateway = gateway.clone();
        async move {
            let none = Preferences::default();
            let kick_off = ann(gateway.kick_off(&none)).idempotency(named(key));
            kick_off.respond(act("work", 5)).await
        }
    };
    let first = tokio::spawn(ask("a"));
    sleep(seconds(1)).await;
    let began = Instant::now();
    accepted(&ask("b").await);
    assert!(began.elapsed() < seconds(1));
    assert_eq!(first.await.unwrap().status(), StatusCode::CREATED);
    // Work that has a place here needs no other.
    let own = place.process_with("own", JobPolicy::new(), |builder| builder.waiters(0));
    let none = Preferences::default();
    let kick_off = ann(own.kick_off(&none)).idempotency(named("c"));
    assert_eq!(kick_off.respond(act("work", 5)).await.status(), StatusCode::CREATED);
}

/// It is the first request's that is called.
#[tokio::test(start_paused = true)]
async fn a_callback_that_nobody_keeps_is_not_said_to_be_applied() {
    let place = Place::new();
    let one = place.process("one");
    for (url, is_applied) in [("https://a.example/", true), ("https://b.example/", false)] {
        for _ in 0..2 {
            let field = format!("respond-async, callback; url=\"{url}\"");
            let preferences = Preferences::parse(&field).unwrap();
            let kick_off = ann(one.kick_off(&preferences)).idempotency(named("k"));
            let response = kick_off.callback(Callback::new(url)).respond(act("work", 1)).await;
            let applied = response.headers().get("preference-applied");
            let applied = applied.map_or("", |applied| applied.to_str().unwrap());
            assert_eq!(applied.contains("callback"), is_applied, "{response:?}");
            // Now, and when it has ended.
            sleep(seconds(2)).await;
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Told(String);

impl Job for Told {
    const KIND: &'static str = "tests.told";
}

#[tokio::test(start_paused = true)]
async fn what_follows_and_cannot_be_stored_keeps_nothing_from_its_end() {
    let place = Place::new();
    let store = MemoryStore::builder().clock(Arc::clone(&place.clock)).max_body_bytes(200).build();
    let one = place
        .builder(store.clone())
        .job(place.handler("one"))
        .job(async |_: Told, _| Outcome::default())
        .follow_up(|_| Some(Told("x".repeat(500))))
        .start();
    let id = submit(&one, act("work", 3)).await;
    sleep(seconds(5)).await;
    let ended = store.get(id).await.unwrap().unwrap().operation;
    assert_eq!((ended.status(), ended.attempt()), (Status::Succeeded, 1));
    let canceled = submit(&one, act("work", 60)).await;
    sleep(seconds(1)).await;
    one.cancel(&Owner::anonymous(), canceled).await.unwrap();
    assert_eq!(store.len(), 2, "nothing follows");
}

#[tokio::test(start_paused = true)]
async fn work_that_has_begun_is_answered_if_the_disk_is_full() {
    let place = Place::new();
    let store = Interposed::new(&place.store, |when, call| async move {
        let full = StoreError::new(StoreErrorKind::OutOfSpace, "the disk is full");
        if (when, call) == (When::Before, Call::Accept) { Err(full) } else { Ok(()) }
    });
    let one = place.builder(store).job(place.handler("one")).start();
    let answer = ask(&one, "respond-async, wait=2", act("work", 7)).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let refused = ask(&one, "respond-async", act("work", 7)).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
}

/// They give their place back between two attempts.
#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_another_attempt_are_bounded() {
    let place = Place::new();
    let one = place.process_with("one", JobPolicy::new(), |builder| builder.waiters(0));
    let none = Preferences::default();
    let kick_off = ann(one.kick_off(&none)).idempotency(named("k"));
    accepted(&kick_off.respond(act("busy until 3", 0)).await);
}
