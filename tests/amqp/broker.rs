//! Replies that come late, twice, or after a restart; brokers and workers that die.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use respond_async::amqp::lapin::BasicProperties;

use super::raw::Raw;
use super::servers::{Server, Sort};
use super::*;

work!(Twice, "test.twice");

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_reply_counts_once() {
    let amqp = connect("test.twice").await;
    let raw = Raw::connect(&servers::shared("AMQP_URL")).await;
    raw.declare("test.twice").await;
    let gateway = Gateway::start::<Twice>(&amqp, "test-twice", &MemoryStore::new());
    let id = gateway.submit(Twice::new("x")).await;
    let request = eventually(async || raw.take("test.twice").await).await;
    let properties = request.properties();
    let named = Some(id.to_string());
    assert_eq!(properties.message_id().as_ref().map(ToString::to_string), named);
    assert_eq!(properties.correlation_id().as_ref().map(ToString::to_string), named);
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "test.twice");
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert!(
        properties.expiration().as_ref().unwrap().as_str().parse::<u64>().unwrap() > 80_000_000
    );
    assert_eq!(request.text(), r#"{"say":"x"}"#);
    for body in ["first", "second", "third"] {
        raw.reply(&request, None, 200, body).await;
    }
    gateway.finished(id).await;
    raw.reply(&request, None, 500, "fourth").await;
    raw.reply(&request, Some("test-twice.replies"), 500, "fifth").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(gateway.result(id).await, "first");
    // What is no reply at all is passed over.
    raw.publish("test-twice.replies", BasicProperties::default(), b"?").await;
    let foreign = BasicProperties::default().with_correlation_id("x".into());
    raw.publish("test-twice.replies", foreign, b"?").await;
    let id = gateway.submit(Twice::new("y")).await;
    let request = eventually(async || raw.take("test.twice").await).await;
    raw.reply(&request, Some("test-twice.replies"), 201, "by the other way").await;
    gateway.finished(id).await;
    assert_eq!(gateway.result(id).await, "by the other way");
}

work!(Later, "test.later");

/// The gateway that asked is gone; the reply goes to its queue, and from there to all replicas.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_reply_to_a_gateway_that_is_gone_is_recorded_by_another() {
    let amqp = connect("test.later").await;
    let raw = Raw::connect(&servers::shared("AMQP_URL")).await;
    raw.declare("test.later").await;
    let store = MemoryStore::new();
    let builder = Requests::builder(&amqp, "test-later").reply_wait(Duration::from_millis(100));
    let gateway = Gateway::start_with::<Later>(&store, builder);
    let id = gateway.submit(Later::new("x")).await;
    let request = eventually(async || raw.take("test.later").await).await;
    // As if it had been killed: nothing is given back.
    let Gateway { operations, requests, recorder } = gateway;
    drop((requests, recorder));
    let stopped = operations.shutdown(Duration::ZERO).await;
    assert_eq!(stopped, 1);
    drop(operations);
    let other = Gateway::start::<Later>(&amqp, "test-later", &store);
    raw.reply(&request, None, 200, "to the first").await;
    let done = other.finished(id).await;
    assert_eq!(done.operation.status(), Status::Succeeded);
    assert_eq!(other.result(id).await, "to the first");
}

work!(Poison, "test.poison");

/// What the gateway takes for the same kind: an input that the worker cannot read.
#[derive(Serialize, Deserialize)]
struct Other {
    number: u32,
}

impl Job for Other {
    const KIND: &'static str = "test.poison";
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn poison_ends_as_a_failed_operation_and_a_dead_message() {
    let amqp = connect("test.poison").await;
    let raw = Raw::connect(&servers::shared("AMQP_URL")).await;
    let gateway = Gateway::start::<Other>(&amqp, "test-poison", &MemoryStore::new());
    let reading = worker(&amqp)
        .attempt_limit(2)
        .job(async |_: Poison, _| Ok::<_, Problem>(Created::at("/")))
        .start();
    let id = gateway.submit(Other { number: 77 }).await;
    let failed = gateway.finished(id).await.operation;
    assert!(failed.error().unwrap().type_uri().ends_with(":unreadable-input"));
    let dead = eventually(async || raw.take("test.poison.dead").await).await;
    assert_eq!(dead.text(), r#"{"number":77}"#);
    assert!(reading.shutdown(Duration::from_secs(5)).await);

    // One that takes each of its workers with it.
    let id = gateway.submit(Other { number: 78 }).await;
    for _ in 0..2 {
        let begun = Arc::new(tokio::sync::Notify::new());
        let dying = worker(&amqp).attempt_limit(2).job({
            let begun = begun.clone();
            move |_: Other, _| {
                begun.notify_one();
                std::future::pending::<Result<Created, Problem>>()
            }
        });
        let dying = dying.start();
        begun.notified().await;
        drop(dying);
    }
    let _last = worker(&amqp)
        .attempt_limit(2)
        .job(async |_: Other, _| Ok::<_, Problem>(Created::at("/")))
        .start();
    let failed = gateway.finished(id).await.operation;
    assert!(failed.error().unwrap().type_uri().ends_with(":attempts-exhausted"), "{failed:?}");
    let dead = eventually(async || raw.take("test.poison.dead").await).await;
    assert_eq!(dead.text(), r#"{"number":78}"#);
}

work!(Through, "test.through");

/// The broker is killed again and again under work; what was accepted is done, and recorded once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_broker_that_is_killed_costs_time_only() {
    const KILLS: usize = 3;
    let mut server = Server::start(Sort::RabbitMq);
    let amqp = connect_to(&server.url()).await;
    let done: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let handler = {
        let done = done.clone();
        move |job: Through, _| {
            *done.lock().unwrap().entry(job.say.clone()).or_default() += 1;
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, Problem>(Created::at(format!("/{}", job.say)))
            }
        }
    };
    let _worker = worker(&amqp).job(handler).start();
    let store = MemoryStore::new();
    let gateway = Arc::new(Gateway::start::<Through>(&amqp, "test-through", &store));
    let sending = tokio::spawn({
        let gateway = gateway.clone();
        async move {
            let (mut ids, mut refused) = (Vec::new(), 0);
            for number in 0..2_400 {
                let word = number.to_string();
                if number % 4 == 0 {
                    // At once: either the answer, or a 503 or 504 within its time.
                    let answer = gateway.send("respond-async, wait=1", Through::new(&word)).await;
                    match answer.status {
                        StatusCode::CREATED => {}
                        StatusCode::ACCEPTED => {
                            ids.push((
                                word,
                                answer.json()["id"].as_str().unwrap().parse().unwrap(),
                            ));
                        }
                        StatusCode::SERVICE_UNAVAILABLE => refused += 1,
                        status => panic!("{status} {}", answer.text),
                    }
                } else {
                    ids.push((word.clone(), gateway.submit(Through::new(&word)).await));
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            (ids, refused)
        }
    });
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_secs(2)).await;
        server = tokio::task::spawn_blocking(move || {
            server.kill();
            server.start_again();
            server
        })
        .await
        .unwrap();
    }
    let (ids, _refused) = sending.await.unwrap();
    assert!(ids.len() >= 1_800);
    for (word, id) in ids {
        let operation = gateway.finished(id).await.operation;
        assert_eq!(operation.status(), Status::Succeeded, "{operation:?}");
        let location = operation.outcome_head().unwrap().location().unwrap().as_str().to_owned();
        assert_eq!(location, format!("/{word}"));
        assert!(done.lock().unwrap()[&word] >= 1);
    }
}

work!(Away, "test.away");

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn without_a_broker_it_is_503_now_and_done_later() {
    let mut server = Server::start(Sort::RabbitMq);
    let url = server.url();
    server = tokio::task::spawn_blocking(move || {
        server.kill();
        server
    })
    .await
    .unwrap();
    let amqp = Amqp::connect(&url).unwrap();
    assert!(!amqp.is_connected());
    let _worker =
        worker(&amqp).job(async |_: Away, _| Ok::<_, Problem>(Created::at("/back"))).start();
    let gateway = Gateway::start::<Away>(&amqp, "test-away", &MemoryStore::new());
    let refused = gateway.send("", Away::new("x")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    refused.is_problem("broker-unavailable");
    let id = gateway.submit(Away::new("x")).await;
    let server = tokio::task::spawn_blocking(move || {
        server.start_again();
        server
    });
    let _server = server.await.unwrap();
    let done = gateway.finished(id).await.operation;
    assert_eq!((done.status(), done.attempt()), (Status::Succeeded, 1));
    let now = eventually(async || {
        let answer = gateway.send("", Away::new("x")).await;
        Some(answer).filter(|answer| answer.status == StatusCode::CREATED)
    });
    now.await;
}
