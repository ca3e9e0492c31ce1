//! Polls that are held: `Prefer: wait` on a monitor.

use std::time::Duration;

use http::{Method, StatusCode};
use respond_async::store::{OperationStore, OperationStoreExt};
use respond_async::{OperationId, Owner, Status};
use tokio::time::{Instant, sleep};

use super::{Answer, Service};

/// The answer to such a poll, and for how long it was held.
async fn held(service: &Service, uri: &str, fields: &[(&str, &str)]) -> (Answer, u128) {
    let start = Instant::now();
    let answer = service.send(Method::GET, uri, fields).await;
    // To the nearest second: a task that is woken runs within a tick or two of the paused clock.
    (answer, (start.elapsed().as_millis() + 500) / 1_000)
}

fn id_of(monitor: &str) -> OperationId {
    monitor.rsplit('/').next().unwrap().parse().unwrap()
}

/// An operation whose work has begun and reports nothing more.
async fn begun(service: &Service, what: &str) -> (String, String) {
    let monitor = service.post(what, "respond-async").await.monitor();
    sleep(Duration::from_millis(1)).await;
    let tag = service.get(&monitor).await.field("etag").to_owned();
    (monitor, tag)
}

async fn a_poll_is_held_until_there_is_something_new() {
    let service = Service::new();
    let (monitor, tag) = begun(&service, "thing5").await;
    for fields in [
        &[("prefer", "wait=20"), ("if-none-match", &tag)][..],
        &[("prefer", "respond-async, wait=20")],
    ] {
        let (monitor, tag) = match fields {
            [_, _] => (monitor.clone(), tag.clone()),
            _ => begun(&service, "thing5").await,
        };
        let (answer, seconds) = held(&service, &monitor, fields).await;
        assert_eq!((answer.status, seconds), (StatusCode::OK, 5));
        assert_eq!(answer.json()["status"], "succeeded");
        assert_ne!(answer.field("etag"), tag);
        assert_eq!(answer.field("preference-applied"), "wait=20");
        assert!(answer.field("vary").contains("Prefer"));
    }
}

async fn a_poll_is_held_no_longer_than_it_prefers_and_the_cap() {
    let service = Service::new();
    let (monitor, tag) = begun(&service, "ignore").await;
    for (prefer, expected) in [("wait=3", 3), ("wait=60", 25), ("wait=99999999999", 25)] {
        let (answer, seconds) = held(&service, &monitor, &[("prefer", prefer)]).await;
        assert_eq!((answer.status, seconds), (StatusCode::OK, expected));
        assert_eq!(answer.field("preference-applied"), prefer);
        assert_eq!(answer.field("etag"), tag);
        assert!(!answer.field("retry-after").is_empty());
    }
    let known = [("prefer", "wait=2"), ("if-none-match", &tag)];
    let (answer, seconds) = held(&service, &monitor, &known).await;
    assert_eq!((answer.status, seconds), (StatusCode::NOT_MODIFIED, 2));
    assert_eq!(answer.field("preference-applied"), "wait=2");
    let start = Instant::now();
    let head = service.send(Method::HEAD, &monitor, &known[..1]).await;
    assert_eq!((head.status, start.elapsed().as_secs()), (StatusCode::OK, 2));
}

async fn a_poll_is_answered_at_once_where_there_is_nothing_to_wait_for() {
    let service = Service::new();
    let (live, tag) = begun(&service, "ignore").await;
    let finished = service.post("thing0", "respond-async").await.monitor();
    service.ended(&finished).await;
    for (uri, fields) in [
        (&live, &[("prefer", "wait=20"), ("if-none-match", "\"old\"")][..]),
        (&live, &[("prefer", "wait=0")]),
        (&live, &[("prefer", "wait=soon")]),
        (&live, &[("prefer", "wait")]),
        (&finished, &[("prefer", "wait=20")]),
    ] {
        let (answer, seconds) = held(&service, uri, fields).await;
        assert_eq!((answer.status, seconds), (StatusCode::OK, 0), "{fields:?}");
        assert_eq!(answer.field("preference-applied"), "", "{fields:?}");
        assert!(answer.field("vary").contains("Prefer"));
    }
    let own = [("prefer", "wait=20"), ("if-none-match", &*tag), ("owner", "bob")];
    let owned = service.send(
        Method::POST,
        "/tasks/ignore",
        &[("prefer", "respond-async"), ("owner", "ann")],
    );
    let (foreign, seconds) = held(&service, &owned.await.monitor(), &own).await;
    foreign.is_problem(404, "not-found");
    assert_eq!(seconds, 0);
}

async fn polls_beyond_the_bound_are_answered_at_once() {
    let service = Service::with(|builder| builder.waiters(1));
    let (monitor, _) = begun(&service, "thing5").await;
    let fields = [("prefer", "wait=20")];
    let second = async {
        sleep(Duration::from_secs(1)).await;
        held(&service, &monitor, &fields).await
    };
    let (first, second) = tokio::join!(held(&service, &monitor, &fields), second);
    assert_eq!((first.0.field("preference-applied"), first.1), ("wait=20", 5));
    assert_eq!((second.0.field("preference-applied"), second.1), ("", 0));
    assert!(!second.0.field("retry-after").is_empty());
    // The place is free again.
    let (monitor, _) = begun(&service, "ignore").await;
    assert_eq!(held(&service, &monitor, &[("prefer", "wait=1")]).await.1, 1);
}

async fn a_held_poll_learns_that_its_operation_has_gone() {
    let service = Service::new();
    let (monitor, _) = begun(&service, "ignore").await;
    let removed = async {
        sleep(Duration::from_secs(2)).await;
        let observed =
            service.store.find(&Owner::anonymous(), id_of(&monitor)).await.unwrap().unwrap();
        assert_eq!(observed.operation.status(), Status::Running);
        service.store.remove(id_of(&monitor), observed.operation.version()).await.unwrap();
    };
    let fields = [("prefer", "wait=20")];
    let (held, ()) = tokio::join!(held(&service, &monitor, &fields), removed);
    held.0.is_problem(404, "not-found");
    assert_eq!(held.1, 2);
}

async fn shutdown_ends_held_polls_at_once_with_the_plain_answer() {
    let service = Service::new();
    let (monitor, tag) = begun(&service, "ignore").await;
    let shutdown = async {
        sleep(Duration::from_secs(1)).await;
        service.operations.shutdown(Duration::from_secs(5)).await
    };
    let fields = [("prefer", "wait=20"), ("if-none-match", &*tag)];
    let (held, _) = tokio::join!(held(&service, &monitor, &fields), shutdown);
    assert_eq!((held.0.status, held.1), (StatusCode::NOT_MODIFIED, 1));
    assert_eq!(held.0.field("preference-applied"), "");
    assert!(!held.0.field("retry-after").is_empty());
}

async fn an_owner_who_asks_too_often_is_refused_and_nobody_else() {
    let service = Service::with(|builder| builder.owner_poll_rate(1));
    let post = async |owner| {
        let fields = [("owner", owner), ("prefer", "respond-async")];
        service.send(Method::POST, "/tasks/ignore", &fields).await.monitor()
    };
    let (of_ann, of_bob) = (post("ann").await, post("bob").await);
    let ann = [("owner", "ann")];
    for uri in ["/operations", &of_ann, &of_bob, "/operations", &of_ann].repeat(2) {
        assert_ne!(service.send(Method::GET, uri, &ann).await.status, 429);
    }
    for (method, uri) in [
        (Method::GET, of_ann.clone()),
        (Method::GET, "/operations".to_owned()),
        (Method::GET, format!("{of_ann}/result")),
        (Method::DELETE, of_ann.clone()),
    ] {
        let refused = service.send(method, &uri, &ann).await;
        refused.is_problem(429, "too-many-polls");
        assert_eq!(
            (refused.field("retry-after"), refused.field("cache-control")),
            ("1", "no-store")
        );
    }
    let own = service.send(Method::GET, &of_bob, &[("owner", "bob")]).await;
    assert_eq!(own.json()["cancel_requested"], serde_json::Value::Null);
    sleep(Duration::from_secs(1)).await;
    let again = service.send(Method::GET, &of_ann, &ann).await;
    assert_eq!((again.status, &again.json()["status"]), (StatusCode::OK, &"running".into()));
}

contract! {
    an_owner_who_asks_too_often_is_refused_and_nobody_else
    a_poll_is_held_until_there_is_something_new
    a_poll_is_held_no_longer_than_it_prefers_and_the_cap
    a_poll_is_answered_at_once_where_there_is_nothing_to_wait_for
    polls_beyond_the_bound_are_answered_at_once
    a_held_poll_learns_that_its_operation_has_gone
    shutdown_ends_held_polls_at_once_with_the_plain_answer
}
