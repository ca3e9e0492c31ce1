//! Clients that hang up at any stage, over real sockets: axum then drops the handler. Nothing half
//! made may be left, and nothing that was accepted may be lost.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod interposed;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use interposed::{Call, Interposed};
use respond_async::prefer::Preferences;
use respond_async::respond::{Created, Response};
use respond_async::store::{ListQuery, MemoryStore, OperationStore};
use respond_async::{Operations, Owner, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

const CLIENTS: usize = 20;
/// How long the handler works, and how long the store takes before and after it has accepted.
const STEP: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicUsize,
    done: AtomicUsize,
}

/// A store that takes its time, as one behind a network does.
fn slow(store: &MemoryStore) -> Interposed {
    Interposed::new(store, |_, call| async move {
        match call {
            Call::Accept => sleep(STEP).await,
            Call::Swap => sleep(STEP / 8).await,
            Call::Read | Call::Claim | Call::Other => {}
        }
        Ok(())
    })
}

struct Service {
    address: SocketAddr,
    store: MemoryStore,
    operations: Operations,
    counts: Arc<Counts>,
}

type App = (Operations, Arc<Counts>);

async fn upload(
    State((operations, counts)): State<App>,
    preferences: Preferences,
    body: Bytes,
) -> Response {
    let owner = Owner::new("ann").unwrap();
    let kick_off = operations.kick_off(&preferences).owner(owner);
    kick_off
        .respond_with(move |_| async move {
            counts.begun.fetch_add(1, Ordering::SeqCst);
            sleep(STEP).await;
            counts.done.fetch_add(1, Ordering::SeqCst);
            Created::at("/things/17").json(&body.len())
        })
        .await
}

async fn service() -> Service {
    let store = MemoryStore::new();
    let operations = Operations::builder(slow(&store)).start();
    let counts = Arc::new(Counts::default());
    let app = Router::new()
        .route("/things", post(upload))
        .nest("/operations", respond_async::axum::monitor(&operations))
        .with_state((operations.clone(), Arc::clone(&counts)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Service { address, store, operations, counts }
}

impl Service {
    /// Sends a part of a request, waits, and hangs up without reading.
    async fn hang_up(&self, sent: &str, after: Duration) {
        self.hang_up_begun(sent, after, 0).await;
    }

    /// The same, but not before so many are begun.
    async fn hang_up_begun(&self, sent: &str, after: Duration, begun: usize) {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (address, sent) = (self.address, sent.to_owned());
            let counts = Arc::clone(&self.counts);
            clients.spawn(async move {
                let mut socket = TcpStream::connect(address).await.unwrap();
                socket.write_all(sent.as_bytes()).await.unwrap();
                sleep(after).await;
                while counts.begun.load(Ordering::SeqCst) < begun {
                    sleep(STEP / 20).await;
                }
            });
        }
        clients.join_all().await;
    }

    /// What the store holds once nothing runs any more: all of it must have succeeded.
    async fn left(&self) -> usize {
        assert_eq!(self.operations.shutdown(Duration::from_secs(10)).await, 0);
        let owner = Owner::new("ann").unwrap();
        let page = self.store.list(&owner, &ListQuery::default()).await.unwrap();
        for operation in &page.operations {
            assert_eq!(operation.status(), Status::Succeeded);
            let outcome = self.store.outcome(operation.id()).await.unwrap().unwrap();
            assert_eq!(outcome.body, "4");
        }
        assert_eq!(page.operations.len(), self.store.len());
        self.store.len()
    }

    fn begun(&self) -> usize {
        self.counts.begun.load(Ordering::SeqCst)
    }

    fn done(&self) -> usize {
        self.counts.done.load(Ordering::SeqCst)
    }
}

fn request(prefer: &str) -> String {
    format!("POST /things HTTP/1.1\r\nHost: x\r\nPrefer: {prefer}\r\nContent-Length: 4\r\n\r\nbody")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_request_is_whole_nothing_begins() {
    let service = service().await;
    let whole = request("respond-async");
    for end in [1, whole.len() / 2, whole.len() - 4, whole.len() - 1] {
        service.hang_up(&whole[..end], Duration::from_millis(1)).await;
    }
    sleep(STEP * 5).await;
    assert_eq!((service.begun(), service.left().await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_accepts_nothing_is_left_half_made() {
    for after in [STEP / 2, STEP * 3 / 2] {
        let service = service().await;
        service.hang_up(&request("respond-async"), after).await;
        let left = service.left().await;
        assert_eq!((left, service.done()), (CLIENTS, CLIENTS), "hung up after {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_handler_answers_at_once_it_is_dropped_and_leaves_nothing() {
    let service = service().await;
    service.hang_up(&request("return=minimal"), STEP / 4).await;
    sleep(STEP * 2).await;
    // This is what axum does to any handler, and why accepted work is a task of its own.
    assert_eq!((service.begun(), service.done()), (CLIENTS, 0));
    assert_eq!(service.left().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_waits_the_work_goes_on() {
    let service = service().await;
    service.hang_up_begun(&request("respond-async, wait=5"), STEP / 4, CLIENTS).await;
    sleep(STEP * 2).await;
    // In time, but nobody is there to read it: done, and nothing stored.
    assert_eq!((service.begun(), service.done()), (CLIENTS, CLIENTS));
    assert_eq!(service.left().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_202_was_read_its_operation_is_there_and_ends() {
    let service = service().await;
    let mut accepted = 0;
    for read in 0..CLIENTS {
        let mut socket = TcpStream::connect(service.address).await.unwrap();
        socket.write_all(request("respond-async").as_bytes()).await.unwrap();
        // Reads more of the answer each time: from nothing up to all of its head.
        let mut answer = vec![0; read * 20];
        socket.read_exact(&mut answer).await.unwrap();
        accepted += usize::from(answer.starts_with(b"HTTP/1.1 202"));
    }
    let left = service.left().await;
    assert!(accepted >= CLIENTS - 1, "{accepted}");
    assert!((accepted..=CLIENTS).contains(&left), "{accepted} were accepted, {left} are left");
    assert_eq!(service.done(), left);
}

/// As actix does: each of its threads has a runtime of its own, which ends with the server.
#[tokio::test]
async fn the_runtime_of_a_request_may_end_before_its_work() {
    let operations = Operations::builder(slow(&MemoryStore::new())).start();
    let serving = {
        let operations = operations.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let preferences = Preferences::parse("respond-async").unwrap();
            let work = |_| async {
                sleep(STEP).await;
                Created::at("/images/17")
            };
            runtime.unwrap().block_on(operations.respond_with(&preferences, work))
        }
    };
    let accepted = tokio::task::spawn_blocking(serving).await.unwrap();
    let monitor = accepted.headers()["location"].to_str().unwrap();
    let id = monitor.rsplit('/').next().unwrap().parse().unwrap();
    loop {
        let observed = operations.get(&Owner::anonymous(), id).await.unwrap();
        match observed.operation.status() {
            Status::Succeeded => break,
            Status::Running => sleep(STEP / 8).await,
            status => panic!("{status:?}"),
        }
    }
}
