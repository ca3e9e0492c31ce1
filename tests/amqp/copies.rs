//! Read models that are fed by a stream.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use respond_async::amqp::EventStream;
use respond_async::read_model::{Model, Positioned, ReadModel, Snapshot};
use respond_async::time::{Clock, SystemClock};

use super::raw::Raw;
use super::servers::{Server, Sort};
use super::*;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Names(BTreeMap<u64, String>);

#[derive(Debug, Serialize, Deserialize)]
struct Named(u64, String);

/// Whether a model has panicked.
static PANICKED: AtomicBool = AtomicBool::new(false);

impl Model for Names {
    type Event = Named;

    fn apply(&mut self, Named(id, name): Named) {
        let panics = name == "name 666" && !PANICKED.swap(true, Ordering::Relaxed);
        assert!(!panics, "what no model should do");
        self.0.insert(id, name);
    }
}

fn named(position: u64) -> Named {
    Named(position % 10, format!("name {position}"))
}

/// What all of them make.
fn all(last: u64) -> Names {
    let mut names = Names::default();
    for position in 1..=last {
        names.apply(named(position));
    }
    names
}

async fn append(stream: &EventStream, positions: impl IntoIterator<Item = u64>) {
    for position in positions {
        let event = Positioned { position, time: SystemClock.now(), event: named(position) };
        while stream.append(std::slice::from_ref(&event)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn fresh(name: &str, amqp: &Amqp) -> EventStream {
    Raw::connect(&servers::shared("AMQP_URL")).await.remove(name).await;
    EventStream::new(amqp, name)
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_copy_follows_and_begins_again_from_its_snapshot() {
    let amqp = connect("test.none").await;
    let stream = fresh("test.copies", &amqp).await;
    let model = ReadModel::new(Names::default());
    let feed = stream.feed(&model, async || None);
    // Some twice, and out of turn, as a writer does that does not know what was confirmed.
    append(&stream, [1, 2, 2, 3, 1, 2, 3, 4, 5]).await;
    model.reached(5, LONG).await.unwrap();
    assert_eq!(model.read(Names::clone), all(5));
    drop(feed);
    let kept = serde_json::to_string(&model.snapshot()).unwrap();
    append(&stream, 6..=20).await;
    let snapshot: Snapshot<Names> = serde_json::from_str(&kept).unwrap();
    assert!(snapshot.cursor.is_some(), "{kept}");
    let again = ReadModel::from_snapshot(snapshot);
    let _feed = stream.feed(&again, async || None);
    again.reached(20, LONG).await.unwrap();
    assert_eq!(again.read(Names::clone), all(20));
    let told = eventually(async || {
        let mut headers = http::HeaderMap::new();
        again.freshness(&mut headers);
        Some(headers).filter(|headers| headers.contains_key("last-modified"))
    })
    .await;
    assert!(told["age"].to_str().unwrap().parse::<u64>().unwrap() < 30);
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn what_is_missing_is_had_from_a_snapshot() {
    let amqp = connect("test.none").await;
    let stream = fresh("test.copies.gap", &amqp).await;
    append(&stream, 8..=12).await;
    let model = ReadModel::new(Names::default());
    let asked = std::sync::Arc::new(AtomicU32::new(0));
    let _feed = stream.feed(&model, {
        let asked = asked.clone();
        move || {
            // The first time there is none.
            let is_there = asked.fetch_add(1, Ordering::Relaxed) > 0;
            let snapshot = Snapshot { position: 9, modified: None, cursor: None, state: all(9) };
            async move { is_there.then_some(snapshot) }
        }
    });
    model.reached(12, LONG).await.unwrap();
    assert_eq!(model.read(Names::clone), all(12));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

/// It shows as missing at once, even if it is the last; a panic of the model or of what builds it anew is no end.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn what_cannot_be_read_or_taken_in_is_tried_again() {
    let amqp = connect("test.none").await;
    let stream = fresh("test.copies.bad", &amqp).await;
    let names = |last: u64| {
        let mut names = Names::default();
        names.0.insert(1, last.to_string());
        names
    };
    append(&stream, [1]).await;
    let raw = Raw::connect(&servers::shared("AMQP_URL")).await;
    let bad = respond_async::amqp::lapin::BasicProperties::default().with_message_id("2".into());
    raw.publish("test.copies.bad", bad, b"no event").await;
    let model = ReadModel::new(Names::default());
    let asked = std::sync::Arc::new(AtomicU32::new(0));
    let _feed = stream.feed(&model, {
        let asked = asked.clone();
        move || {
            let times = asked.fetch_add(1, Ordering::Relaxed);
            assert_ne!(times, 0, "to build it anew can fail in any way");
            let snapshot = Snapshot { position: 2, modified: None, cursor: None, state: names(2) };
            async move { (times > 1).then_some(snapshot) }
        }
    });
    model.reached(1, LONG).await.unwrap();
    model.reached(2, LONG).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    let event = Positioned { position: 3, time: SystemClock.now(), event: named(666) };
    stream.append(&[event]).await.unwrap();
    model.reached(3, LONG).await.unwrap();
    assert!(PANICKED.load(Ordering::Relaxed));
}

/// Its events have other places than those that the copy has taken.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_stream_that_was_made_anew_is_read_from_its_beginning() {
    let amqp = connect("test.none").await;
    let stream = fresh("test.copies.anew", &amqp).await;
    let model = ReadModel::new(Names::default());
    let feed = stream.feed(&model, async || None);
    append(&stream, 1..=5).await;
    model.reached(5, LONG).await.unwrap();
    drop(feed);
    Raw::connect(&servers::shared("AMQP_URL")).await.remove("test.copies.anew").await;
    append(&stream, [6]).await;
    let _feed = stream.feed(&model, async || None);
    model.reached(6, LONG).await.unwrap();
    assert_eq!(model.read(Names::clone), all(6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_broker_that_is_killed_loses_no_event() {
    let mut server = Server::start(Sort::RabbitMq);
    let amqp = connect_to(&server.url()).await;
    let stream = EventStream::new(&amqp, "test.copies.through");
    let model = ReadModel::new(Names::default());
    let _feed = stream.feed(&model, async || None);
    append(&stream, 1..=10).await;
    server = restart(server).await;
    let writing = tokio::spawn({
        let stream = stream.clone();
        async move { append(&stream, 11..=3_000).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!writing.is_finished());
    server = tokio::task::spawn_blocking(move || {
        server.kill();
        server.start_again();
        server
    })
    .await
    .unwrap();
    writing.await.unwrap();
    model.reached(3_000, LONG).await.unwrap();
    assert_eq!(model.read(Names::clone), all(3_000));
    drop(server);
}
