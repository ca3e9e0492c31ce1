use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::Response;
use http::Request;
use http_body_util::BodyExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use respond_async::Owner;
use respond_async::monitor::Monitor;
use respond_async::operations::{DeliveryStatus, JobPolicy};
use respond_async::prefer::Preferences;
use respond_async::problem::types;
use respond_async::store::{
    Idempotency, ListQuery, MemoryStore, OperationStore, OperationStoreExt,
};
use respond_async::webhook::{Payload, Webhooks};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::receiver::{Receiver, answer};
use crate::{local, on, operations, owner, secret, settled, settled_of, submit, work};

#[tokio::test]
async fn the_end_is_told_once() {
    let receiver = Receiver::start(|_| answer(204)).await;
    let webhooks = local().build().unwrap();
    let operations = operations(&webhooks).start();
    for (millis, status) in [(0, "succeeded"), (1, "failed")] {
        let callback = webhooks.check(&receiver.url("/done?x=1"), &owner()).unwrap();
        let id = submit(&operations, callback, millis).await;
        let delivery = settled(&operations, id).await;
        assert_eq!((delivery.status, delivery.attempts), (DeliveryStatus::Delivered, 1));
        let call = receiver.calls().pop().unwrap();
        assert_eq!((&*call.path, &*call.content_type), ("/done", "application/json"));
        assert_eq!(call.id, delivery.id.to_string());
        assert_eq!(call.body["id"], id.to_string());
        assert_eq!(call.body["status"], status);
        let monitor = format!("https://service.example/operations/{id}");
        assert_eq!(call.body["links"]["self"], monitor);
        assert_eq!(call.body["links"]["callback"], format!("{monitor}/callback"));
        assert!(call.headers["user-agent"].to_str().unwrap().starts_with("respond-async/"));
        assert!(!call.headers.contains_key("referer"));
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(receiver.calls().len(), 2);
}

#[tokio::test]
async fn who_wants_more_is_told_more() {
    let receiver = Receiver::start(|_| answer(200)).await;
    let source = "/images".to_owned();
    let webhooks = local().payload(Payload::CloudEvent { source }).build().unwrap();
    let operations = operations(&webhooks).start();
    let callback = webhooks.check(&receiver.url("/"), &owner()).unwrap();
    let id = submit(&operations, callback.with_acceptance().with_progress(), 200).await;
    settled(&operations, id).await;
    for _ in 0..100 {
        if receiver.calls().len() >= 3 {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let calls = receiver.calls();
    let ids: HashSet<_> = calls.iter().map(|call| &call.id).collect();
    assert_eq!(ids.len(), calls.len(), "each has a name of its own");
    let mut told: Vec<_> = calls
        .iter()
        .map(|call| {
            assert_eq!(call.content_type, "application/cloudevents+json");
            assert_eq!(
                (&call.body["source"], &call.body["subject"]),
                (&"/images".into(), &id.to_string().into())
            );
            let word = call.body["type"].as_str().unwrap().rsplit('.').next().unwrap();
            (call.body["sequence"].as_str().unwrap().parse::<u32>().unwrap(), word.to_owned())
        })
        .collect();
    told.sort();
    let words: Vec<_> = told.iter().map(|(_, word)| &**word).collect();
    // That a worker has taken it is the store's own doing, and is told by its progress.
    assert_eq!(words, ["accepted", "progressed", "finished"]);
}

#[tokio::test]
async fn it_is_tried_until_it_is_taken() {
    let receiver = Receiver::start(|call| match call {
        1 => answer(500),
        2 => answer(404),
        3 => {
            let mut slower = answer(503);
            slower.headers_mut().insert("retry-after", "1".parse().unwrap());
            slower
        }
        4 => {
            Response::builder().status(302).header("location", "/else").body(String::new()).unwrap()
        }
        _ => answer(200),
    })
    .await;
    let webhooks = local().build().unwrap();
    let operations = operations(&webhooks).start();
    let callback = webhooks.check(&receiver.url("/done"), &owner()).unwrap();
    let id = submit(&operations, callback, 0).await;
    let delivery = settled(&operations, id).await;
    assert_eq!((delivery.status, delivery.attempts), (DeliveryStatus::Delivered, 5));
    let calls = receiver.calls();
    assert!(calls.iter().all(|call| call.id == delivery.id.to_string() && call.path == "/done"));
    assert!(calls.iter().all(|call| call.body == calls[0].body));
}

#[tokio::test]
async fn what_is_not_taken_is_dead_at_last() {
    let gone = Receiver::start(|_| answer(410)).await;
    let broken = Receiver::start(|_| answer(503)).await;
    let webhooks = local().deadline(Duration::from_millis(500)).build().unwrap();
    let operations = operations(&webhooks).start();
    let callback = |receiver: &Receiver| webhooks.check(&receiver.url("/"), &owner()).unwrap();
    let id = submit(&operations, callback(&gone), 0).await;
    let delivery = settled(&operations, id).await;
    assert_eq!((delivery.status, delivery.attempts), (DeliveryStatus::Dead, 1));
    assert!(delivery.last_error.unwrap().is(types::CALLBACK_GONE));
    let id = submit(&operations, callback(&broken), 0).await;
    let delivery = settled(&operations, id).await;
    assert_eq!(delivery.status, DeliveryStatus::Dead);
    assert!(delivery.attempts > 2, "{delivery:?}");
    let told = delivery.last_error.as_ref().and_then(|error| error.detail());
    assert_eq!(told, Some("The endpoint answered 503."), "{delivery:?}");
    let calls = broken.calls().len();
    sleep(Duration::from_millis(300)).await;
    assert_eq!((gone.calls().len(), broken.calls().len()), (1, calls));
}

#[tokio::test]
async fn what_is_forgotten_is_told_to_nobody() {
    let receiver = Receiver::start(|_| answer(503)).await;
    let webhooks =
        local().backoff(Duration::from_millis(20), Duration::from_millis(20)).build().unwrap();
    let store = MemoryStore::new();
    let operations = on(&store, &webhooks).job(work).start();
    let callback = webhooks.check(&receiver.url("/"), &owner()).unwrap();
    let id = submit(&operations, callback, 0).await;
    let delivery = loop {
        match operations.delivery(&owner(), id).await.unwrap() {
            Some(delivery) if delivery.attempts > 1 => break delivery.id,
            _ => sleep(Duration::from_millis(5)).await,
        }
    };
    // Unless it is being told just then, nothing is left of it.
    operations.forget(&owner(), id).await.unwrap();
    let is_over = async || {
        let left = store.get(delivery).await.unwrap();
        left.is_none_or(|left| left.operation.status().is_finished())
    };
    while !is_over().await {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.input(delivery).await.unwrap(), None);
    let calls = receiver.calls().len();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.calls().len(), calls);
}

#[tokio::test]
async fn how_it_goes_is_shown_to_its_owner() {
    let receiver = Receiver::start(|_| answer(503)).await;
    let webhooks =
        local().backoff(Duration::from_secs(60), Duration::from_secs(60)).build().unwrap();
    let operations = operations(&webhooks).start();
    let monitor = Monitor::new(&operations);
    let get = async |owner: &Owner, path: String| {
        let request = Request::get(path).body(()).unwrap();
        let response = monitor.respond(owner, &request).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let callback = webhooks.check(&receiver.url("/token"), &owner()).unwrap();
    let id = submit(&operations, callback, 0).await;
    let path = format!("/operations/{id}/callback");
    let shown = loop {
        let (status, shown) = get(&owner(), path.clone()).await;
        if status == 200 && shown["last_error"].is_object() {
            break shown;
        }
        assert!(status == 200 || status == 404, "{status}");
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((&shown["status"], &shown["attempts"]), (&"pending".into(), &1.into()));
    assert_eq!(shown["last_error"]["detail"], "The endpoint answered 503.");
    assert!(shown["next_attempt"].is_string());
    assert!(!shown.to_string().contains("token"));
    let other = Owner::new("bob").unwrap();
    let nobodys = "/operations/01932f0e-7a5b-4c3d-9e1f-0123456789ab/callback".to_owned();
    assert_eq!(get(&other, path).await.0, 404);
    assert_ne!(get(&other, nobodys).await.0, 200);
    // One without a callback.
    let preferences = respond_async::prefer::Preferences::default();
    let plain =
        operations.kick_off(&preferences).owner(owner()).submit(crate::Work(0)).await.unwrap();
    let id = plain.operation.id();
    assert_eq!(get(&owner(), format!("/operations/{id}/callback")).await.0, 404);
    let (_, document) = get(&owner(), format!("/operations/{id}")).await;
    assert!(document["links"]["callback"].is_null());
}

#[tokio::test]
async fn a_slow_receiver_holds_up_no_other() {
    let slow = Receiver::slow(Duration::from_secs(30), |_| answer(200)).await;
    let quick = Receiver::start(|_| answer(200)).await;
    let webhooks = local().concurrency(6).host_concurrency(2).host_rate(1_000).build().unwrap();
    let operations = operations(&webhooks).start();
    let callback = |url: String| webhooks.check(&url, &owner()).unwrap();
    for _ in 0..50 {
        // Another name than the quick one's, which is told by its address.
        let url = slow.url("/").replace("127.0.0.1", "localhost");
        submit(&operations, callback(url), 0).await;
    }
    let began = Instant::now();
    for _ in 0..20 {
        let id = submit(&operations, callback(quick.url("/")), 0).await;
        assert_eq!(settled(&operations, id).await.status, DeliveryStatus::Delivered);
    }
    assert_eq!(quick.calls().len(), 20);
    // Each call of a slow one ends after a second; with all six places taken by them, it would be minutes.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

/// An owner can have any number of names for one slow receiver.
#[tokio::test]
async fn many_names_take_no_more_than_their_owners_places() {
    let slow = Receiver::slow(Duration::from_secs(30), |_| answer(200)).await;
    let quick = Receiver::start(|_| answer(200)).await;
    let webhooks = local().concurrency(6).owner_concurrency(2).resolver(Here).build().unwrap();
    let operations = operations(&webhooks).start();
    let preferences = Preferences::default();
    let bob = Owner::new("bob").unwrap();
    for name in 0..50 {
        let url = format!("http://n{name}.example:{}/", slow.address.port());
        let callback = webhooks.check(&url, &bob).unwrap();
        let kick_off = operations.kick_off(&preferences).owner(bob.clone());
        kick_off.callback(Some(callback)).submit(crate::Work(0)).await.unwrap();
    }
    let began = Instant::now();
    for _ in 0..20 {
        let callback = webhooks.check(&quick.url("/"), &owner()).unwrap();
        let id = submit(&operations, callback, 0).await;
        assert_eq!(settled(&operations, id).await.status, DeliveryStatus::Delivered);
    }
    // As with one host.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

/// Writes an answer that has no end, and gives how much of it went out.
async fn answer_without_end(mut connection: TcpStream) -> usize {
    let mut request = [0; 4096];
    let _ = connection.read(&mut request).await.unwrap();
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n";
    connection.write_all(head).await.unwrap();
    let (piece, mut written) = (vec![b'x'; 16 << 10], 0);
    while connection.write_all(&piece).await.is_ok() {
        written += piece.len();
    }
    written
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let answering = tokio::spawn(async move {
        let (connection, _) = listener.accept().await.unwrap();
        answer_without_end(connection).await
    });
    let webhooks = local().timeout(Duration::from_secs(60)).build().unwrap();
    let operations = operations(&webhooks).start();
    let id = submit(&operations, webhooks.check(&url, &owner()).unwrap(), 0).await;
    assert_eq!(settled(&operations, id).await.status, DeliveryStatus::Delivered);
    // What is over 16 KiB is what the system takes in advance.
    let written = tokio::time::timeout(Duration::from_secs(10), answering).await.unwrap().unwrap();
    assert!(written < 16 << 20, "{written}");
}

/// Leads all names here.
struct Here;

impl Resolve for Here {
    fn resolve(&self, _: Name) -> Resolving {
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        Box::pin(async move { Ok(Box::new(std::iter::once(here)) as Addrs) })
    }
}

/// Whoever names another host each time has no connection kept to each.
#[tokio::test]
async fn no_connection_is_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let open = Arc::new(Semaphore::new(0));
    tokio::spawn({
        let open = open.clone();
        async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let open = open.clone();
                tokio::spawn(async move {
                    open.add_permits(1);
                    let mut request = [0; 4096];
                    let _ = connection.read(&mut request).await.unwrap();
                    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                    connection.write_all(answer).await.unwrap();
                    while connection.read(&mut request).await.is_ok_and(|read| read > 0) {}
                    open.forget_permits(1);
                });
            }
        }
    });
    let webhooks = local().resolver(Here).build().unwrap();
    let operations = operations(&webhooks).start();
    for name in 0..30 {
        let callback = webhooks.check(&format!("http://n{name}.example:{port}/"), &owner());
        let id = submit(&operations, callback.unwrap(), 0).await;
        assert_eq!(settled(&operations, id).await.status, DeliveryStatus::Delivered);
    }
    sleep(Duration::from_millis(200)).await;
    assert_eq!(open.available_permits(), 0);
}

/// Secrets are rotated by giving both for a while; without any, nothing is sent.
#[tokio::test]
async fn secrets_are_the_owners() {
    let receiver = Receiver::start(|_| answer(200)).await;
    let webhooks = Webhooks::builder(|owner: &Owner| match owner.name() {
        Some("ann") => vec![respond_async::webhook::Secret::new([9; 32]).unwrap(), secret()],
        _ => Vec::new(),
    })
    .allow_http()
    .allow_private_addresses()
    .ports([])
    .deadline(Duration::from_secs(3))
    .backoff(Duration::from_millis(20), Duration::from_millis(20))
    .build()
    .unwrap();
    let operations = operations(&webhooks).start();
    let callback = webhooks.check(&receiver.url("/"), &owner()).unwrap();
    let id = submit(&operations, callback.clone(), 0).await;
    assert_eq!(settled(&operations, id).await.status, DeliveryStatus::Delivered);
    let signatures = receiver.calls()[0].headers["webhook-signature"].to_str().unwrap().to_owned();
    assert_eq!(signatures.split(' ').filter(|one| one.starts_with("v1,")).count(), 2);

    let preferences = respond_async::prefer::Preferences::default();
    let kick_off = operations.kick_off(&preferences).callback(Some(callback));
    let id = kick_off.submit(crate::Work(0)).await.unwrap().operation.id();
    assert_eq!(settled_of(&operations, &Owner::anonymous(), id).await.status, DeliveryStatus::Dead);
    assert_eq!(receiver.calls().len(), 1);
}

/// Neither the records nor anything that can be printed.
#[tokio::test]
async fn secrets_are_kept_nowhere() {
    let receiver = Receiver::start(|_| answer(500)).await;
    let webhooks = local().deadline(Duration::from_millis(200)).build().unwrap();
    let store = respond_async::store::MemoryStore::new();
    let builder = respond_async::Operations::builder(store.clone())
        .sweep_interval(Duration::from_millis(10))
        .job(crate::work);
    let operations = webhooks.tell(builder).start();
    let callback = webhooks.check(&receiver.url("/token"), &owner()).unwrap();
    let id = submit(&operations, callback.clone(), 0).await;
    let delivery = settled(&operations, id).await;
    let mut seen = format!("{webhooks:?} {operations:?} {callback:?} {delivery:?} {:?}", local());
    for id in [id, delivery.id] {
        let observed = store.find(&owner(), id).await.unwrap();
        if let Some(observed) = observed {
            seen += &String::from_utf8(observed.operation.to_record()).unwrap();
        }
        let input = respond_async::store::OperationStore::input(&store, id).await.unwrap();
        seen += &String::from_utf8_lossy(&input.unwrap_or_default());
    }
    assert!(seen.contains("/token"), "the URL is kept, of course");
    assert!(!seen.contains("canary"), "{seen}");
    assert!(!format!("{callback:?} {webhooks:?}").contains("token"));
}

/// Of an answer in time nobody is told, unless it was stored all the same; the answer says so, and the links lead
/// somewhere.
#[tokio::test]
async fn an_answer_in_time_of_what_was_stored_is_told_too() {
    let receiver = Receiver::start(|_| answer(204)).await;
    let webhooks = local().build().unwrap();
    let store = MemoryStore::new();
    let worker = on(&store, &webhooks).job(crate::work).start();
    let elsewhere = JobPolicy::new().with_concurrency(0);
    let gateway = on(&store, &webhooks).job_with(elsewhere, crate::work).start();
    for (operations, key) in [(&worker, Some("\"k\"")), (&gateway, None)] {
        let mut headers = http::HeaderMap::new();
        if let Some(key) = key {
            headers.insert("idempotency-key", key.parse().unwrap());
        }
        let (method, uri) = (http::Method::POST, "/things".parse().unwrap());
        let named = Idempotency::from_request(&method, &uri, &headers, b"").unwrap();
        let text = format!("respond-async, wait=20, callback; url=\"{}\"", receiver.url("/done"));
        let preferences = Preferences::parse(text.as_bytes()).unwrap();
        let callback = webhooks.preferred(&preferences, &owner()).unwrap();
        let kick_off = operations.kick_off(&preferences).owner(owner()).callback(callback);
        let response = kick_off.idempotency(named).respond(crate::Work(0)).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["preference-applied"], "callback");
        let operation = operations.list(&owner(), ListQuery::default()).await.unwrap().operations;
        let id = operation.first().expect("it was removed").id();
        assert_eq!(settled(operations, id).await.status, DeliveryStatus::Delivered);
        assert_eq!(receiver.calls().pop().unwrap().body["id"], id.to_string());
        operations.get(&owner(), id).await.unwrap();
    }
}
