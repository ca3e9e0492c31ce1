use std::sync::Arc;
use std::time::Duration;

use respond_async::operations::OperationsBuilder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Service;
use super::interposed::Interposed;

const WAIT: [(&str, &str); 1] = [("prefer", "wait=20")];

#[tokio::test(start_paused = true)]
async fn a_thousand_who_wait_for_one_operation_cost_one_reader() {
    let service = Arc::new(Service::new());
    let id = service.begun().await;
    let mut waiting = JoinSet::new();
    for _ in 0..1_000 {
        let service = Arc::clone(&service);
        waiting.spawn(async move { service.poll(id, &WAIT).await });
    }
    sleep(Duration::from_millis(1)).await;
    // Each was let in by a read of its own, and there was a first look.
    assert!((1_000..=1_002).contains(&service.reads()), "{}", service.reads());
    let before = service.reads();
    sleep(Duration::from_millis(10_500)).await;
    // A look a second, for all together.
    assert!((10..=12).contains(&(service.reads() - before)), "{}", service.reads() - before);
    let before = service.reads();
    let start = Instant::now();
    service.progress(id, "half").await;
    for answer in waiting.join_all().await {
        assert_eq!(answer.headers()["preference-applied"], "wait=20");
        assert!(answer.body().as_bytes().windows(4).any(|part| part == b"half"));
    }
    assert!(start.elapsed() < Duration::from_millis(100), "a hint wakes them at once");
    assert!(service.reads() - before <= 2, "{}", service.reads() - before);
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_leaves_nothing_that_reads() {
    let service = Service::new();
    let id = service.begun().await;
    for _ in 0..10 {
        let cut_off = timeout(Duration::from_millis(10), service.poll(id, &WAIT)).await;
        assert!(cut_off.is_err());
    }
    sleep(Duration::from_millis(10)).await;
    let before = service.reads();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(service.reads(), before);
}

#[tokio::test(start_paused = true)]
async fn without_hints_a_change_is_seen_by_looking() {
    let service = Arc::new(Service::with(Interposed::without_hints, |builder| builder));
    let id = service.begun().await;
    let waiting = tokio::spawn({
        let service = Arc::clone(&service);
        async move { service.poll(id, &WAIT).await }
    });
    sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    service.progress(id, "half").await;
    waiting.await.unwrap();
    assert!((100..=1_100).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_asks_too_often_costs_the_store_nothing() {
    let service = Service::with(|store| store, |builder| builder.owner_poll_rate(1));
    let id = service.begun().await;
    let mut refused = 0;
    for _ in 0..1_000 {
        refused += usize::from(service.poll(id, &[]).await.status() == 429);
    }
    assert_eq!((refused, service.reads()), (990, 10));
}

/// Somebody changes the operation as fast as can be, and others wait for what is newer than what they
/// have. Nobody looks unasked, so a wake-up that is missed is a poll that is held to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_missed_in_a_million_changes() {
    const CHANGES: u64 = 1_000_000;
    const WAITERS: usize = 4;
    let hour = Duration::from_secs(3600);
    // Each asks as often as it can.
    let set = |builder: OperationsBuilder| builder.poll_interval(hour).owner_poll_rate(u32::MAX);
    let service = Arc::new(Service::with(|store| store, set));
    let id = service.begun().await;
    let last = 2 + CHANGES;
    let mut waiting = JoinSet::new();
    for _ in 0..WAITERS {
        let service = Arc::clone(&service);
        waiting.spawn(async move {
            let (mut seen, mut polls) = (2, 0_u64);
            while seen < last {
                let known = format!("\"{seen}\"");
                let fields = [("prefer", "wait=20"), ("if-none-match", &*known)];
                let answer = service.poll(id, &fields).await;
                assert_eq!(answer.status(), 200, "nothing new in 20 s after revision {seen}");
                let tag = answer.headers()["etag"].to_str().unwrap().trim_matches('"').to_owned();
                let now: u64 = tag.parse().unwrap();
                assert!(now > seen, "revision {now} after {seen}");
                (seen, polls) = (now, polls + 1);
            }
            polls
        });
    }
    for change in 0..CHANGES {
        service.progress(id, &change.to_string()).await;
        if change % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let polls = waiting.join_all().await;
    println!("{CHANGES} changes, seen by {polls:?} polls, {} reads", service.reads());
    assert!(polls.iter().all(|polls| *polls > 100), "they did not race: {polls:?}");
}
