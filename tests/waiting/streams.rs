use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use respond_async::operation::{Change, NewOperation};
use respond_async::store::{
    MemoryStore, OperationStore, OperationStoreExt, SqliteStore, Submission,
};
use respond_async::time::{Clock, SystemClock};
use respond_async::{OperationId, Operations, Progress};
use serde_json::Value;
use tokio::time::timeout;

use super::reader::Reader;
use super::{Service, ann, monitor_of, stream_of};

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn accepted(store: &impl OperationStore) -> OperationId {
    let id = OperationId::generate(SystemClock.now()).unwrap();
    let new = NewOperation::new(id).with_owner(ann());
    store.accept(Submission::new(new)).await.unwrap();
    let lease = Duration::from_secs(3600);
    store.apply(id, Change::Claim { lease }).await.unwrap();
    id
}

pub(crate) async fn progress(store: &impl OperationStore, id: OperationId, message: &str) {
    let progress = Progress::new(0.5, message);
    store.apply(id, Change::Progress { attempt: 1, progress }).await.unwrap();
}

/// What a reader was told, each operation's states in their order. Nothing may come twice.
#[derive(Default)]
struct Seen(HashMap<String, Vec<Value>>);

impl Seen {
    fn note(&mut self, event: Value) {
        let states = self.0.entry(event["id"].as_str().unwrap().to_owned()).or_default();
        assert!(!states.contains(&event), "told twice: {event}");
        states.push(event);
    }

    fn has(&self, id: OperationId, message: &str) -> bool {
        let last = self.0.get(&id.to_string()).and_then(|states| states.last());
        last.is_some_and(|last| last["progress"]["message"] == message)
    }
}

/// Four lives of a service on one file. Operations change while it runs and while it does not, and its
/// reader comes again with the id of the last event that it got.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_loses_and_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("operations");
    let (mut seen, mut last, mut last_of_one) = (Seen::default(), None, None);
    let mut ids = Vec::new();
    for life in 0..4 {
        let store = SqliteStore::open(&file).unwrap();
        if life == 0 {
            for _ in 0..5 {
                ids.push(accepted(&store).await);
            }
        }
        let operations = Operations::builder(store.clone()).start();
        let monitor = monitor_of(&operations);
        let content = stream_of(&monitor, "/operations", last.as_deref()).await;
        let mut of_all = Reader::new(content, last.take());
        let uri = format!("/operations/{}", ids[0]);
        let mut one = Reader::new(
            stream_of(&monitor, &uri, last_of_one.as_deref()).await,
            last_of_one.take(),
        );
        for (place, id) in ids.clone().into_iter().enumerate() {
            let message = format!("{life}.{place}");
            progress(&store, id, &message).await;
            while !seen.has(id, &message) {
                seen.note(timeout(PATIENCE, of_all.next()).await.expect(&message).unwrap());
            }
        }
        let mut of_one = Vec::new();
        while of_one.last() != Some(&format!("{life}.0").into()) {
            let event = timeout(PATIENCE, one.next()).await.unwrap().unwrap();
            of_one.push(event["progress"]["message"].clone());
        }
        // What it was told last time is not told again; what changed since, once.
        assert!(of_one.len() <= 2, "{of_one:?}");
        (last, last_of_one) = (of_all.last.clone(), one.last.clone());
        let cut_off = (of_all, one);
        operations.shutdown(Duration::ZERO).await;
        drop(cut_off);
        // While nobody serves it, some change, one more than once, and one is new.
        progress(&store, ids[1], &format!("{life} away")).await;
        progress(&store, ids[1], &format!("{life} away, at last")).await;
        progress(&store, ids[0], &format!("{life} away")).await;
        ids.push(accepted(&store).await);
    }
    let store = SqliteStore::open(&file).unwrap();
    let operations = Operations::builder(store).start();
    let content = stream_of(&monitor_of(&operations), "/operations", last.as_deref()).await;
    let mut of_all = Reader::new(content, last);
    for _ in 0..3 {
        seen.note(timeout(PATIENCE, of_all.next()).await.unwrap().unwrap());
    }
    assert!(seen.has(ids[1], "3 away, at last") && seen.has(ids[0], "3 away"));
    assert_eq!(seen.0.len(), ids.len());
    assert!(timeout(Duration::from_millis(300), of_all.next()).await.is_err(), "nothing more");
}

/// Many operations change at once, more than is remembered for who is behind, and hints get lost. Each of
/// three readers is told the last state of each, in order, and nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_follow_a_list_end_up_with_the_last_state_of_all() {
    const OPERATIONS: usize = 100;
    const CHANGES: usize = 200;
    let service = Arc::new(Service::new());
    let mut ids = Vec::new();
    for _ in 0..OPERATIONS {
        ids.push(accepted(&service.store).await);
    }
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let content = stream_of(&service.monitor, "/operations?limit=200", None).await;
        let ids = ids.clone();
        readers.spawn(async move {
            let (mut reader, mut seen) = (Reader::new(content, None), Seen::default());
            let last = format!("{CHANGES}");
            let mut left = OPERATIONS;
            let mut number = HashMap::<String, usize>::new();
            while left > 0 {
                let event = timeout(PATIENCE, reader.next()).await.expect("a change").unwrap();
                let change = event["progress"]["message"].as_str().unwrap_or("0").parse().unwrap();
                let id = event["id"].as_str().unwrap().to_owned();
                let before = number.insert(id, change);
                assert!(before <= Some(change), "{before:?} before {change}");
                left -= usize::from(change == CHANGES);
                seen.note(event);
            }
            assert!(ids.iter().all(|id| seen.has(*id, &last)));
            seen.0.values().map(Vec::len).sum::<usize>()
        });
    }
    for change in 1..=CHANGES {
        for id in &ids {
            progress(&service.store, *id, &change.to_string()).await;
        }
        tokio::task::yield_now().await;
    }
    println!("{} changes, told as {:?}", OPERATIONS * CHANGES, readers.join_all().await);
}

/// One reader is told of an operation while another does not read at all. The pump of that one ends.
#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_is_cut_off_and_holds_up_nobody() {
    let store = MemoryStore::new();
    let id = accepted(&store).await;
    let builder =
        Operations::builder(store.clone()).streams(2).stall_limit(Duration::from_secs(30));
    let monitor = monitor_of(&builder.start());
    let uri = format!("/operations/{id}");
    let stalled = stream_of(&monitor, &uri, None).await;
    let mut reader = Reader::new(stream_of(&monitor, &uri, None).await, None);
    reader.next().await.unwrap();
    // Both places are taken.
    assert!(!stream_of(&monitor, &uri, None).await.is_stream());
    // It is told that there is nothing to tell after 15 s, and has 30 s to take that.
    tokio::time::sleep(Duration::from_secs(44)).await;
    assert!(!stream_of(&monitor, &uri, None).await.is_stream());
    let last = tokio::spawn(async move {
        while let Some(event) = reader.next().await {
            if event["progress"]["message"] == "late" {
                return;
            }
        }
        panic!("cut off too");
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(stream_of(&monitor, &uri, None).await.is_stream(), "its place is free");
    progress(&store, id, "late").await;
    last.await.unwrap();
    // What it was handed is there still, and then its stream ends.
    let mut stalled = Reader::new(stalled, None);
    assert!(stalled.next().await.is_some());
    assert!(stalled.next().await.is_none());
}
