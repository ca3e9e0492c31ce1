//! What one service tells of its operations, and another hears.

use std::sync::Mutex;

use respond_async::amqp::Subscriber;
use respond_async::event::{EventType, OperationEvent};

use super::raw::Raw;
use super::servers::{Server, Sort};
use super::*;

work!(Paint, "test.paint");

async fn paint(job: Paint, context: Context) -> Result<Created, Problem> {
    for step in 1..=3 {
        context.progress(f64::from(step) / 4.0, "painting");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    if job.say == "badly" {
        return Err(Problem::from_status(StatusCode::UNPROCESSABLE_ENTITY));
    }
    Ok(Created::at(format!("/paintings/{}", job.say)))
}

fn service(amqp: &Amqp, store: &MemoryStore) -> Operations {
    let builder = Operations::builder(store.clone())
        .progress_interval(Duration::ZERO)
        .sweep_interval(Duration::from_millis(50))
        .job(paint);
    amqp.tell("/paintings", builder).start()
}

async fn submit(operations: &Operations, say: &str) -> OperationId {
    let preferences = Preferences::parse(b"respond-async").unwrap();
    operations.kick_off(&preferences).submit(Paint::new(say)).await.unwrap().operation.id()
}

type Heard = std::sync::Arc<Mutex<Vec<OperationEvent>>>;

fn listen(amqp: &Amqp, queue: &str, keys: &[&str]) -> (Subscriber, Heard) {
    let heard = Heard::default();
    let subscriber = Subscriber::start(amqp, queue, keys, {
        let heard = heard.clone();
        move |event| {
            heard.lock().unwrap().push(event);
            async { Ok::<_, ()>(()) }
        }
    });
    (subscriber, heard)
}

fn of(heard: &Heard, id: OperationId) -> Vec<OperationEvent> {
    let heard = heard.lock().unwrap();
    heard.iter().filter(|event| event.subject() == id.to_string()).cloned().collect()
}

async fn remove(queues: &[&str]) {
    let raw = Raw::connect(&servers::shared("AMQP_URL")).await;
    for queue in queues {
        raw.remove(queue).await;
        raw.remove(&format!("{queue}.dead")).await;
    }
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn another_service_hears_when_it_is_done() {
    remove(&["test.told.all", "test.told.done"]).await;
    let amqp = connect("test.none").await;
    let (_all, all) = listen(&amqp, "test.told.all", &["*.*.test.paint"]);
    let (_done, done) =
        listen(&amqp, "test.told.done", &["finished.failed.#", "finished.succeeded.test.paint"]);
    // Both are bound once they hear of a first one.
    let store = MemoryStore::new();
    let operations = service(&amqp, &store);
    eventually(async || {
        let id = submit(&operations, "first").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        (!of(&done, id).is_empty() && of(&all, id).len() > 1).then_some(())
    })
    .await;

    for say in ["sun", "badly"] {
        let id = submit(&operations, say).await;
        let finished = eventually(async || of(&done, id).pop()).await;
        assert_eq!(finished.event_type(), EventType::Finished);
        let is_good = say == "sun";
        assert_eq!(
            finished.status(),
            Some(if is_good { Status::Succeeded } else { Status::Failed })
        );
        assert_eq!(finished.source(), "/paintings");
        if is_good {
            assert_eq!(finished.data()["result"]["location"], "/paintings/sun");
            assert_eq!(finished.data()["links"]["self"], format!("/operations/{id}"));
        }
        let events = eventually(async || {
            let events = of(&all, id);
            events
                .last()
                .is_some_and(|last| last.event_type() == EventType::Finished)
                .then_some(events)
        })
        .await;
        // Each at most once, in their order; the acceptance and the end always.
        let revisions: Vec<_> = events.iter().map(|event| event.revision().unwrap()).collect();
        assert!(revisions.is_sorted_by(|one, next| one < next), "{revisions:?}");
        assert_eq!(events[0].event_type(), EventType::Accepted, "{events:?}");
    }
    // What follows is nobody's business: it is gone soon, and nothing follows from it.
    eventually(async || (store.len() <= 20).then_some(())).await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn what_a_subscriber_fails_at_comes_again() {
    remove(&["test.told.clumsy"]).await;
    let amqp = connect("test.none").await;
    let tries = Heard::default();
    let _subscriber = Subscriber::start(&amqp, "test.told.clumsy", &["finished.#"], {
        let tries = tries.clone();
        move |event: OperationEvent| {
            let mut tries = tries.lock().unwrap();
            tries.push(event);
            let number = tries.len();
            drop(tries);
            assert_ne!(number, 2, "once at once");
            async move {
                assert_ne!(number, 3, "and once after that");
                if number == 1 { Err("clumsy") } else { Ok(()) }
            }
        }
    });
    let raw = Raw::connect(&servers::shared("AMQP_URL")).await;
    let operations = service(&amqp, &MemoryStore::new());
    eventually(async || {
        submit(&operations, "x").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        (tries.lock().unwrap().len() > 4).then_some(())
    })
    .await;
    let ids: Vec<_> = tries.lock().unwrap().iter().map(|event| event.id().to_owned()).collect();
    assert!(ids[1..].contains(&ids[0]), "{ids:?}");
    // What is no event is put aside.
    raw.publish(
        "test.told.clumsy",
        respond_async::amqp::lapin::BasicProperties::default(),
        b"no event",
    )
    .await;
    let dead = eventually(async || raw.take("test.told.clumsy.dead").await).await;
    assert_eq!(dead.text(), "no event");
}

/// The broker is killed in the middle; what is told meanwhile is heard later.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn nothing_that_ended_is_left_untold() {
    let mut server = Server::start(Sort::RabbitMq);
    let amqp = connect_to(&server.url()).await;
    let (_subscriber, heard) = listen(&amqp, "test.told.through", &["#"]);
    let store = MemoryStore::new();
    let operations = service(&amqp, &store);
    let is_heard = async || {
        let id = submit(&operations, "first").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        (!of(&heard, id).is_empty()).then_some(())
    };
    eventually(is_heard).await;
    server = restart(server).await;
    eventually(is_heard).await;
    let mut ids = Vec::new();
    for number in 0..150 {
        ids.push(submit(&operations, &number.to_string()).await);
        if number == 50 {
            server = tokio::task::spawn_blocking(move || {
                server.kill();
                server
            })
            .await
            .unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let server = tokio::task::spawn_blocking(move || {
        server.start_again();
        server
    });
    let _server = server.await.unwrap();
    let is_told = |id: &OperationId| {
        of(&heard, *id).iter().any(|event| event.event_type() == EventType::Finished)
    };
    let mut untold = ids.len();
    let all = async || {
        untold = ids.iter().filter(|id| !is_told(id)).count();
        (untold == 0).then_some(())
    };
    let is_all_told = tokio::time::timeout(LONG, eventually(all)).await.is_ok();
    assert!(is_all_told, "{untold} of {} are not told of", ids.len());
    for id in ids {
        let events = of(&heard, id);
        let revisions: Vec<_> = events.iter().map(OperationEvent::revision).collect();
        assert!(revisions.is_sorted_by(|one, next| one < next), "{revisions:?}");
        let accepted = events.iter().filter(|event| event.event_type() == EventType::Accepted);
        assert!(accepted.count() <= 1);
    }
}
