//! Leases, channels and messages that are lost, and a broker that takes none.

use std::sync::Arc;

use respond_async::amqp::lapin::BasicProperties;
use respond_async::amqp::lapin::types::FieldTable;
use tokio::sync::{Notify, Semaphore};

use super::raw::Raw;
use super::servers::{Server, Sort};
use super::*;

work!(Handed, "test.handed");

/// A gateway that shuts down gives its operation back: nobody asked for it to be canceled.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn work_goes_on_when_its_gateway_shuts_down() {
    let amqp = connect("test.handed").await;
    let (begun, ends) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let handler = {
        let (begun, ends) = (begun.clone(), ends.clone());
        move |_: Handed, context: Context| {
            let (begun, ends) = (begun.clone(), ends.clone());
            async move {
                begun.notify_one();
                tokio::select! {
                    _ = ends.acquire() => Ok(Created::at("/done")),
                    () = context.canceled() => Err(context.check().unwrap_err()),
                }
            }
        }
    };
    let _worker = worker(&amqp).job(handler).start();
    let store = MemoryStore::new();
    let gateway = Gateway::start::<Handed>(&amqp, "test-handed", &store);
    let id = gateway.submit(Handed::new("x")).await;
    begun.notified().await;
    let other = Gateway::start::<Handed>(&amqp, "test-handed", &store);
    gateway.operations.shutdown(Duration::ZERO).await;
    // Published again, under the same id.
    tokio::time::timeout(LONG, begun.notified()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    ends.add_permits(2);
    let done = other.finished(id).await.operation;
    assert_eq!(done.status(), Status::Succeeded, "{done:?}");
}

work!(Odd, "test.odd");
work!(Even, "test.even");

/// A queue that was declared otherwise closes the channel of its worker, again and again.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn one_queue_that_is_not_as_it_should_be_holds_up_no_other() {
    let amqp = connect("test.odd").await;
    let raw = Raw::connect(&servers::shared("AMQP_URL")).await;
    raw.declare("test.odd").await;
    raw.remove("test.even").await;
    let _worker = worker(&amqp)
        .job(async |_: Odd, _| Ok::<_, Problem>(Created::at("/odd")))
        .job(async |_: Even, _| Ok::<_, Problem>(Created::at("/even")))
        .start();
    let gateway = Gateway::start::<Even>(&amqp, "test-odd", &MemoryStore::new());
    eventually(async || {
        let answer = gateway.send("", Even::new("x")).await;
        (answer.status == StatusCode::CREATED).then_some(())
    })
    .await;
    for _ in 0..100 {
        let answer = gateway.send("", Even::new("x")).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

work!(Quiet, "test.quiet");

/// The broker confirmed a job, and has it no more.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_job_that_the_broker_lost_is_sent_again() {
    let amqp = connect("test.quiet").await;
    let raw = Raw::connect(&servers::shared("AMQP_URL")).await;
    raw.declare("test.quiet").await;
    let builder = Requests::builder(&amqp, "test-quiet").silence(Duration::from_millis(700));
    let gateway = Gateway::start_with::<Quiet>(&MemoryStore::new(), builder);
    let id = gateway.submit(Quiet::new("x")).await;
    let lost = eventually(async || raw.take("test.quiet").await).await;
    // As long as there is word of it, it is not lost.
    let progress = BasicProperties::default()
        .with_type("progress".into())
        .with_correlation_id(lost.properties().correlation_id().clone().unwrap());
    let to = lost.properties().reply_to().clone().unwrap();
    for _ in 0..10 {
        raw.publish(to.as_str(), progress.clone(), b"{}").await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(raw.take("test.quiet").await.is_none());
    }
    let again = eventually(async || raw.take("test.quiet").await).await;
    assert_eq!(again.properties().message_id(), lost.properties().message_id());
    let attempt = again.properties().headers().as_ref().map(FieldTable::inner).unwrap();
    assert_eq!(format!("{:?}", attempt["attempt"]), "LongUInt(2)");
    raw.reply(&again, None, 200, "found").await;
    assert_eq!(gateway.finished(id).await.operation.status(), Status::Succeeded);

    // One that waits in its queue is not lost, however long.
    let id = gateway.submit(Quiet::new("y")).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(gateway.get(id).await.operation.attempt(), 1);
    raw.take("test.quiet").await.unwrap();
    assert!(raw.take("test.quiet").await.is_none());
}

work!(Seated, "test.seated");
work!(Standing, "test.standing");

/// What a worker was given and has no place for waits in no queue, and is not lost all the same.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_job_that_waits_at_its_worker_gives_a_sign_of_life() {
    let amqp = connect("test.seated").await;
    let raw = Raw::connect(&servers::shared("AMQP_URL")).await;
    raw.remove("test.standing").await;
    let (begun, ends) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let wait = {
        let (begun, ends) = (begun.clone(), ends.clone());
        async move || {
            begun.add_permits(1);
            ends.acquire().await.unwrap().forget();
            Ok::<_, Problem>(Created::at("/"))
        }
    };
    let other = wait.clone();
    let worker = worker(&amqp)
        .concurrency(1)
        .job(move |_: Seated, _| {
            let wait = wait.clone();
            async move { wait().await }
        })
        .job(move |_: Standing, _| {
            let wait = other.clone();
            async move { wait().await }
        })
        .start();
    worker.ready().await;
    raw.remove("test.signs").await;
    raw.declare("test.signs").await;
    for kind in ["test.seated", "test.standing"] {
        let asked = BasicProperties::default()
            .with_correlation_id(kind.into())
            .with_reply_to("test.signs".into());
        raw.publish(kind, asked, br#"{"say":"x"}"#).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(begun.available_permits(), 1);
    tokio::time::pause();
    tokio::time::advance(Worker::SIGN_OF_LIFE).await;
    tokio::time::resume();
    let mut told = Vec::new();
    for _ in 0..2 {
        let sign = eventually(async || raw.take("test.signs").await).await;
        assert_eq!(sign.text(), "{}");
        told.push(sign.properties().correlation_id().as_ref().unwrap().to_string());
    }
    told.sort();
    assert_eq!(told, ["test.seated", "test.standing"]);
    // It is not begun when the worker closes.
    let closing = tokio::spawn(worker.shutdown(LONG));
    tokio::time::sleep(Duration::from_millis(300)).await;
    ends.add_permits(2);
    assert!(closing.await.unwrap());
    assert_eq!(begun.available_permits(), 1);
    eventually(async || raw.take("test.standing").await).await;
}

work!(Long, "test.long");

/// The queue of a gateway that is away for long expires.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_reply_whose_queue_is_gone_goes_to_all_replicas() {
    let amqp = connect("test.long").await;
    let raw = Raw::connect(&servers::shared("AMQP_URL")).await;
    let handler = async |job: Long, _| Ok::<_, Problem>(Created::at(format!("/{}", job.say)));
    let worker = worker(&amqp).job(handler).start();
    worker.ready().await;
    raw.declare("test-long.replies").await;
    for (mode, say) in [(1, "at once"), (2, "later")] {
        let asked = BasicProperties::default()
            .with_correlation_id(say.into())
            .with_reply_to("test-long.replies.gone".into())
            .with_app_id("test-long".into())
            .with_delivery_mode(mode);
        raw.publish("test.long", asked, br#"{"say":"done"}"#).await;
    }
    let reply = eventually(async || raw.take("test-long.replies").await).await;
    assert_eq!(reply.properties().correlation_id().as_ref().unwrap().as_str(), "later");
    raw.remove("test-long.replies").await;
}

work!(Early, "test.early");

/// The broker may have a job that it has not confirmed.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_cancellation_that_comes_before_the_confirm_is_told() {
    let server = Server::start(Sort::RabbitMq);
    let amqp = connect_to(&server.url()).await;
    let raw = Raw::connect(&server.url()).await;
    raw.declare("test.early").await;
    let gateway = Gateway::start::<Early>(&amqp, "test-early", &MemoryStore::new());
    // Replies are taken once one has come, and with them cancellations have their exchange.
    let first = gateway.submit(Early::new("first")).await;
    let request = eventually(async || raw.take("test.early").await).await;
    raw.reply(&request, None, 200, "done").await;
    gateway.finished(first).await;
    raw.listen("test.early.canceled", "respond-async.cancel").await;
    server.pause(true);
    let id = gateway.submit(Early::new("x")).await;
    gateway.until(id, |seen| seen.operation.status() == Status::Running).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    gateway.operations.cancel(&Owner::anonymous(), id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.pause(false);
    let told = eventually(async || raw.take("test.early.canceled").await).await;
    let named = told.properties().correlation_id().as_ref().unwrap().to_string();
    assert_eq!(named, id.to_string());
    assert_eq!(gateway.finished(id).await.operation.status(), Status::Canceled);
}

work!(Held, "test.held");

/// A broker that is short of memory takes no messages, and says so: more of the same would only be kept here.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn what_a_broker_does_not_take_is_sent_once() {
    let server = Server::start(Sort::RabbitMq);
    let amqp = connect_to(&server.url()).await;
    let raw = Raw::connect(&server.url()).await;
    raw.declare("test.held").await;
    let gateway = Gateway::start::<Held>(&amqp, "test-held", &MemoryStore::new());
    eventually(async || {
        let refused = gateway.send("respond-async, wait=0", Held::new("first")).await;
        (refused.status == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    eventually(async || raw.take("test.held").await).await;
    let set = async |server: Server, limit: &'static str| {
        let setting = tokio::task::spawn_blocking(move || {
            server.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", limit]);
            server
        });
        setting.await.unwrap()
    };
    let server = set(server, "1MB").await;
    let mut ids = Vec::new();
    for say in ["one", "two", "three"] {
        ids.push(gateway.submit(Held::new(say)).await);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let began = std::time::Instant::now();
    gateway.send("", Held::new("now")).await.is_problem("broker-unavailable");
    assert!(began.elapsed() < Duration::from_secs(2));
    // Longer than a confirm is waited for.
    tokio::time::sleep(Amqp::CONFIRM_TIMEOUT + Duration::from_secs(5)).await;
    let _server = set(server, "8GB").await;
    let mut taken = Vec::new();
    for _ in ids {
        let request = eventually(async || raw.take("test.held").await).await;
        taken.push(request.text());
    }
    taken.sort();
    assert_eq!(taken, [r#"{"say":"one"}"#, r#"{"say":"three"}"#, r#"{"say":"two"}"#]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(raw.take("test.held").await.is_none());
}

work!(Turn, "test.turn");

/// It was accepted, and uses up no attempt before it has a place.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn an_operation_waits_for_its_place() {
    let amqp = connect("test.turn").await;
    let raw = Raw::connect(&servers::shared("AMQP_URL")).await;
    raw.declare("test.turn").await;
    let builder = Requests::builder(&amqp, "test-turn");
    let builder = builder.in_flight_limit(1).timeout(Duration::from_secs(1));
    let gateway = Arc::new(Gateway::start_with::<Turn>(&MemoryStore::new(), builder));
    let first = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.send("", Turn::new("now")).await }
    });
    eventually(async || raw.take("test.turn").await).await;
    gateway.send("", Turn::new("now")).await.is_problem("overloaded");
    let canceled = gateway.submit(Turn::new("canceled")).await;
    gateway.until(canceled, |seen| seen.operation.status() == Status::Running).await;
    gateway.operations.cancel(&Owner::anonymous(), canceled).await.unwrap();
    assert_eq!(gateway.finished(canceled).await.operation.status(), Status::Canceled);
    let id = gateway.submit(Turn::new("later")).await;
    first.await.unwrap().is_problem("reply-overdue");
    let request = eventually(async || raw.take("test.turn").await).await;
    raw.reply(&request, None, 200, "done").await;
    let done = gateway.finished(id).await.operation;
    assert_eq!((done.status(), done.attempt()), (Status::Succeeded, 1));
}

work!(Kept, "test.kept");

/// A broker that stands still confirms nothing and does not say so: what it was sent is kept here.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn what_is_not_confirmed_keeps_its_place() {
    let server = Server::start(Sort::RabbitMq);
    let amqp = connect_to(&server.url()).await;
    Raw::connect(&server.url()).await.declare("test.kept").await;
    let builder = Requests::builder(&amqp, "test-kept");
    let builder = builder.in_flight_limit(3).timeout(Duration::from_millis(300));
    let gateway = Gateway::start_with::<Kept>(&MemoryStore::new(), builder);
    gateway.send("", Kept::new("first")).await.is_problem("reply-overdue");
    server.pause(true);
    let sends = ["one", "two", "three"].map(|say| gateway.send("", Kept::new(say)));
    for answer in futures_util::future::join_all(sends).await {
        answer.is_problem("broker-unavailable");
    }
    gateway.send("", Kept::new("four")).await.is_problem("overloaded");
    server.pause(false);
    eventually(async || {
        let answer = gateway.send("", Kept::new("five")).await;
        answer.json()["type"].as_str().unwrap().ends_with(":reply-overdue").then_some(())
    })
    .await;
}
