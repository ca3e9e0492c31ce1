//! A hundred thousand operations in flight at once: what each takes, and that nothing of it stays.

use std::alloc::System;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use respond_async::prefer::Preferences;
use respond_async::store::MemoryStore;
use respond_async::time::ManualClock;
use respond_async::{Operations, Outcome};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::watch;

/// Counts the live bytes, which, unlike the size of the process, do not depend on what the allocator
/// keeps for later.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const OPERATIONS: usize = 100_000;
const ROUNDS: usize = 3;
/// The most that one operation in flight may take: its task and future, its entry in the store and
/// in what finds it by time.
const MOST_PER_OPERATION: usize = 5 << 10;
/// What may stay behind of all of them together: the runtime's queue of a hundred thousand tasks,
/// which it keeps, and the room that an empty store and registry have. A map of them that had not
/// shrunk would take more.
const MOST_LEFT: usize = 4 << 20;
const RETENTION: Duration = Duration::from_secs(60);

fn live_bytes() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// What the process takes of the machine, in the words of the kernel: for people only.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or("?", str::trim).to_owned()
}

/// Lets the other tasks run until that is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(tokio::time::Instant::now() < patience, "still not {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_hundred_thousand_at_once_leave_nothing_behind() {
    let clock = Arc::new(ManualClock::default());
    let store = MemoryStore::builder().clock(Arc::clone(&clock)).build();
    let operations = Operations::builder(store.clone())
        .clock(Arc::clone(&clock))
        .concurrency(OPERATIONS)
        .lease(Duration::from_secs(3600))
        .retention(RETENTION)
        .sweep_interval(Duration::from_millis(10))
        .start();
    let preferences = Preferences::parse("respond-async").unwrap();
    let before = live_bytes();
    let mut left = Vec::new();

    for round in 1..=ROUNDS {
        let (release, released) = watch::channel(false);
        for _ in 0..OPERATIONS {
            let mut released = released.clone();
            let work = move |_| async move {
                released.wait_for(|released| *released).await.unwrap();
                Outcome::new(StatusCode::NO_CONTENT)
            };
            let accepted = operations.respond_with(&preferences, work).await;
            assert_eq!(accepted.status(), StatusCode::ACCEPTED);
        }
        drop(released);
        assert_eq!(store.len(), OPERATIONS);
        assert_eq!(release.receiver_count(), OPERATIONS, "some work does not wait");
        let each = (live_bytes() - before) / OPERATIONS;
        println!("round {round}: {each} bytes each in flight, process {}", resident());
        assert!(each <= MOST_PER_OPERATION, "{each} bytes each");

        release.send(true).unwrap();
        until("finished", || release.receiver_count() == 0).await;
        let each = (live_bytes() - before) / OPERATIONS;
        println!("         {each} bytes each when finished");

        clock.advance(RETENTION);
        until("purged", || store.is_empty()).await;
        left.push(live_bytes().saturating_sub(before));
        println!("         {} bytes of all left, process {}", left[round - 1], resident());
    }
    assert!(left.iter().all(|left| *left <= MOST_LEFT), "{left:?} bytes are left");
    assert!(left[ROUNDS - 1] <= left[0] + left[0] / 10, "each round leaves more: {left:?}");
}
