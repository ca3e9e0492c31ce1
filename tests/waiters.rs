//! Ten thousand who wait at once: what each takes while it waits and when it is woken, and that nothing of
//! it stays.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::alloc::System;
use std::fs;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use respond_async::monitor::{Content, Monitor};
use respond_async::operation::{Change, NewOperation};
use respond_async::store::{MemoryStore, OperationStore, OperationStoreExt, Submission};
use respond_async::time::{Clock, SystemClock};
use respond_async::{OperationId, Operations, Owner, Progress};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Counts the live bytes.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WAITERS: usize = 10_000;
/// The most that one may take, with the task that stands for its connection: 8 KiB.
const MOST_EACH: usize = 8 << 10;
/// What may stay behind of all of them: the room that a map, a queue and a timer keep.
const MOST_LEFT: usize = 4 << 20;

fn live_bytes() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// What this thread, which has the whole runtime, has used of a processor; none where the kernel does not say.
fn used() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

fn owner(number: usize) -> Owner {
    Owner::new(format!("owner {number}")).unwrap()
}

async fn begun(store: &MemoryStore, owner: Owner) -> OperationId {
    let id = OperationId::generate(SystemClock.now()).unwrap();
    store.accept(Submission::new(NewOperation::new(id).with_owner(owner))).await.unwrap();
    store.apply(id, Change::Claim { lease: Duration::from_secs(3600) }).await.unwrap();
    id
}

async fn change(store: &MemoryStore, id: OperationId) {
    let progress = Progress::new(0.5, "half");
    store.apply(id, Change::Progress { attempt: 1, progress }).await.unwrap();
}

/// What a client waits for.
#[derive(Clone, Copy)]
enum Way {
    Poll,
    Stream,
    ListStream,
}

/// The next event, without what is said before it.
async fn event(content: &mut Content) -> Bytes {
    loop {
        let bytes = poll_fn(|cx| content.poll_bytes(cx)).await.expect("an event");
        if bytes.starts_with(b"event") {
            return bytes;
        }
    }
}

/// Waits, and counts itself when it has been let in.
async fn waits(
    monitor: Monitor,
    owner: Owner,
    id: OperationId,
    way: Way,
    let_in: Arc<AtomicUsize>,
) {
    let uri = match way {
        Way::ListStream => "/operations".to_owned(),
        Way::Poll | Way::Stream => format!("/operations/{id}"),
    };
    let (name, value) = match way {
        Way::Poll => ("prefer", "wait=25"),
        Way::Stream | Way::ListStream => ("accept", "text/event-stream"),
    };
    let request = Request::get(uri).header(name, value).body(()).unwrap();
    if let Way::Poll = way {
        // It is held by the time that this thread does anything else.
        let_in.fetch_add(1, Ordering::Relaxed);
    }
    // A server forgets how an answer was made once it is there.
    let answer = Box::pin(monitor.answer(&owner, &request)).await;
    let mut content = answer.into_body();
    let text = if let Way::Poll = way {
        poll_fn(|cx| content.poll_bytes(cx)).await.unwrap()
    } else {
        event(&mut content).await;
        let_in.fetch_add(1, Ordering::Relaxed);
        event(&mut content).await
    };
    assert!(text.windows(4).any(|part| part == b"half"), "{text:?}");
}

async fn measure(what: &str, way: Way, operations_of_all: usize) {
    let store = MemoryStore::new();
    let operations = Operations::builder(store.clone()).start();
    let monitor = Monitor::new(&operations);
    let mut ids = Vec::new();
    for number in 0..operations_of_all {
        ids.push((owner(number), begun(&store, owner(number)).await));
    }
    let (before, start) = (live_bytes(), used());
    let mut waiting = JoinSet::new();
    let here = Arc::new(AtomicUsize::new(0));
    for number in 0..WAITERS {
        let (owner, id) = ids[number % ids.len()].clone();
        waiting.spawn(waits(monitor.clone(), owner, id, way, Arc::clone(&here)));
    }
    // On a busy machine it takes its time.
    while here.load(Ordering::Relaxed) < WAITERS {
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_millis(500)).await;
    assert_eq!(waiting.len(), WAITERS);
    let each = live_bytes().saturating_sub(before) / WAITERS;
    let let_in = used().saturating_sub(start) / u32::try_from(WAITERS).unwrap();

    let start = used();
    sleep(Duration::from_secs(2)).await;
    let idle = used().saturating_sub(start) / 2;
    assert!(waiting.try_join_next().is_none(), "woken by nothing");

    let (start, began) = (used(), Instant::now());
    for (_, id) in &ids {
        change(&store, *id).await;
    }
    while let Some(done) = waiting.join_next().await {
        done.unwrap();
    }
    let woken = used().saturating_sub(start) / u32::try_from(WAITERS).unwrap();
    let last = began.elapsed();
    println!(
        "{what}: {each} bytes each, {let_in:.1?} to let it in, {idle:.1?} a second for all while they wait, \
         {woken:.1?} to wake it, the last after {last:.0?}"
    );
    assert!(each <= MOST_EACH, "{each} bytes each");
    drop(waiting);
    // The tasks of the streams end when they see that their readers have gone.
    sleep(Duration::from_millis(1_500)).await;
    let left = live_bytes().saturating_sub(before);
    assert!(left <= MOST_LEFT, "{left} bytes are left");
}

#[tokio::test]
async fn ten_thousand_wait_at_once() {
    for (what, way, of_all) in [
        ("polls of one operation", Way::Poll, 1),
        ("polls of 10,000 operations", Way::Poll, WAITERS),
        ("streams of one operation", Way::Stream, 1),
        ("streams of 10,000 operations", Way::Stream, WAITERS),
        ("streams of one list", Way::ListStream, 1),
        ("streams of 1,000 lists", Way::ListStream, 1_000),
    ] {
        measure(what, way, of_all).await;
    }
}
