//! Real servers over real sockets, by reqwest: in memory, on SQLite, started again in the middle.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Request, StatusCode, header};
use respond_async::client::{
    Answer, Client, ClientErrorKind, Finished, Opened, PollPolicy, ReqwestTransport,
    StreamTransport, Transport, TransportError, Update,
};
use respond_async::operations::Job;
use respond_async::prefer::Preferences;
use respond_async::respond::{Created, Response};
use respond_async::store::{Idempotency, MemoryStore, OperationStore, SqliteStore};
use respond_async::{Context, Operations, Problem, Status};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::sleep;

#[derive(Serialize, Deserialize)]
struct Work {
    millis: u64,
    fails: bool,
}

impl Job for Work {
    const KIND: &'static str = "work";
}

async fn work(job: Work, context: Context) -> Result<Created, Problem> {
    for step in 0..4 {
        context.progress(f64::from(step) / 4.0, "working");
        tokio::select! {
            () = sleep(Duration::from_millis(job.millis / 4)) => {}
            () = context.canceled() => context.check()?,
        }
    }
    if job.fails {
        let problem = Problem::from_status(StatusCode::UNPROCESSABLE_ENTITY);
        return Err(problem.with_detail("no luck"));
    }
    Ok(Created::at("/things/17").json(&context.attempt()))
}

async fn begin(
    State(operations): State<Operations>,
    preferences: Preferences,
    head: http::request::Parts,
    body: String,
) -> Result<Response, Problem> {
    let named = Idempotency::from_request(&head.method, &head.uri, &head.headers, body.as_bytes())?;
    let job =
        Work { millis: body.trim_end_matches('!').parse().unwrap(), fails: body.ends_with('!') };
    Ok(operations.kick_off(&preferences).idempotency(named).respond(job).await)
}

fn app(store: impl OperationStore) -> Router {
    let operations = Operations::builder(store)
        .job(work)
        .lease(Duration::from_secs(1))
        .progress_interval(Duration::ZERO)
        .sweep_interval(Duration::from_millis(50))
        .poll_interval(Duration::from_millis(50))
        .start();
    Router::new()
        .route("/things", post(begin))
        .route("/large", get(async || vec![b'x'; 1_000]))
        .nest("/operations", respond_async::axum::monitor(&operations))
        .with_state(operations)
}

/// A server in a process of its own: this program, on operations in a file. Dropped, it is killed.
struct Process(Child);

const FILE: &str = "CLIENT_TEST_FILE";
const LISTEN: &str = "CLIENT_TEST_LISTEN";

impl Process {
    fn start(file: &Path, address: SocketAddr) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["real::serve", "--exact", "--ignored", "--test-threads=1"])
            .env(FILE, file)
            .env(LISTEN, address.to_string())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
#[ignore = "the process that another test kills"]
async fn serve() {
    let Ok(file) = std::env::var(FILE) else { return };
    let listener = TcpListener::bind(std::env::var(LISTEN).unwrap()).await.unwrap();
    axum::serve(listener, app(SqliteStore::open(file).unwrap())).await.unwrap();
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server in a runtime of its own, and gone with it.
struct Server {
    runtime: Option<Runtime>,
    address: SocketAddr,
}

impl Server {
    fn start(store: impl OperationStore, address: SocketAddr) -> Self {
        let runtime = Runtime::new().unwrap();
        let address = std::thread::scope(|scope| {
            let serve = async {
                let app = app(store);
                let listener = TcpListener::bind(address).await.unwrap();
                let address = listener.local_addr().unwrap();
                tokio::spawn(async { axum::serve(listener, app).await });
                address
            };
            scope.spawn(|| runtime.block_on(serve)).join().unwrap()
        });
        Self { runtime: Some(runtime), address }
    }

    fn in_memory() -> Self {
        Self::start(MemoryStore::new(), "127.0.0.1:0".parse().unwrap())
    }

    fn post(&self, body: &'static str) -> Request<&'static str> {
        Request::post(format!("http://{}/things", self.address)).body(body).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn policy() -> PollPolicy {
    PollPolicy::new().with_pauses(Duration::from_millis(20), Duration::from_millis(100))
}

fn client() -> Client {
    Client::new().unwrap().poll_policy(policy())
}

/// Both ways to follow an operation: by its event stream, and by polls.
fn clients() -> [(&'static str, Client); 2] {
    let polling = Client::new().unwrap().poll_policy(policy().with_events(false));
    [("events", client()), ("polls", polling)]
}

/// A client that notes how it asks.
#[derive(Debug, Clone)]
struct Noting {
    transport: ReqwestTransport,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Noting {
    fn new() -> Self {
        Self { transport: ReqwestTransport::new().unwrap(), asked: Arc::default() }
    }

    fn note(&self, how: &str, request: &Request<Bytes>) {
        let seen = request.headers().get("last-event-id");
        let seen = seen.map(|id| format!(" after {}", id.to_str().unwrap())).unwrap_or_default();
        let path = request.uri().path();
        let name = if path.ends_with("/result") {
            "result"
        } else if path.starts_with("/operations/") {
            "monitor"
        } else {
            path
        };
        self.asked.lock().unwrap().push(format!("{how} {name}{seen}"));
    }
}

#[async_trait]
impl Transport for Noting {
    async fn send(&self, request: Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        self.note("send", &request);
        self.transport.send(request).await
    }

    fn streaming(&self) -> Option<&dyn StreamTransport> {
        Some(self)
    }
}

#[async_trait]
impl StreamTransport for Noting {
    async fn open(&self, request: Request<Bytes>) -> Result<Opened, TransportError> {
        self.note("open", &request);
        self.transport.open(request).await
    }
}

#[tokio::test]
async fn what_is_there_in_time_is_the_answer() {
    let server = Server::in_memory();
    for wait in [None, Some(Duration::from_secs(9))] {
        let mut sending = client().send(server.post("20"));
        if let Some(wait) = wait {
            sending = sending.respond_async().wait(wait);
        }
        let Answer::Answered(answer) = sending.await.unwrap() else { panic!() };
        assert_eq!((answer.status(), &**answer.body()), (StatusCode::CREATED, &b"1"[..]));
    }
}

#[tokio::test]
async fn an_operation_is_followed_to_its_result() {
    for (how, client) in clients() {
        follow_to_the_result(how, &client).await;
    }
}

async fn follow_to_the_result(how: &str, client: &Client) {
    let server = Server::in_memory();
    let Answer::Accepted(poller) = client.send(server.post("400")).respond_async().await.unwrap()
    else {
        panic!()
    };
    let updates: Vec<_> = poller.updates().collect().await;
    let mut fractions = Vec::new();
    for update in &updates[..updates.len() - 1] {
        let Ok(Update::Progress(snapshot)) = update else { panic!("{update:?}") };
        fractions.extend(snapshot.progress().and_then(respond_async::Progress::fraction));
    }
    assert!(fractions.len() > 1 && fractions.is_sorted(), "{how}: {fractions:?}");
    let Some(Ok(Update::Finished(Finished::Succeeded(outcome)))) = updates.last() else { panic!() };
    assert_eq!(outcome.status, StatusCode::CREATED);
    assert_eq!(outcome.headers[header::LOCATION], "/things/17");
}

#[tokio::test]
async fn one_stream_tells_it_all() {
    let server = Server::in_memory();
    let noting = Noting::new();
    let client = Client::with(noting.clone()).poll_policy(policy());
    let Answer::Accepted(mut poller) =
        client.send(server.post("400")).respond_async().await.unwrap()
    else {
        panic!()
    };
    let mut updates = 0;
    while let Some(update) = poller.next().await {
        update.unwrap();
        updates += 1;
    }
    assert!(updates > 3, "{updates}");
    let asked = std::mem::take(&mut *noting.asked.lock().unwrap());
    assert_eq!(asked, ["send /things", "open monitor", "send result"]);

    // Taken up again where it was left.
    let Answer::Accepted(mut poller) =
        client.send(server.post("400")).respond_async().await.unwrap()
    else {
        panic!()
    };
    while poller.snapshot().progress().is_none() {
        poller.next().await.unwrap().unwrap();
    }
    let state = serde_json::to_string(&poller.state()).unwrap();
    drop(poller);
    let resumed = client.resume(serde_json::from_str(&state).unwrap(), HeaderMap::new());
    assert!(matches!(resumed.await.unwrap(), Finished::Succeeded(_)));
    let asked = noting.asked.lock().unwrap().split_off(2);
    let after = asked[0].strip_prefix("open monitor after ").unwrap().parse::<u64>().unwrap();
    assert!(after > 1 && asked[1..] == ["send result"], "{asked:?}");
}

#[tokio::test]
async fn a_late_error_is_the_same_problem() {
    for (how, client) in clients() {
        let server = Server::in_memory();
        let finished = client.send(server.post("20!")).respond_async().finished().await.unwrap();
        let Finished::Failed(problem, Some(outcome)) = finished else {
            panic!("{how}: {finished:?}")
        };
        assert_eq!(problem.detail(), Some("no luck"));
        assert_eq!(outcome.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
}

#[tokio::test]
async fn a_cancellation_arrives() {
    for (how, client) in clients() {
        let server = Server::in_memory();
        let sending = client.send(server.post("60000")).respond_async();
        let Answer::Accepted(mut poller) = sending.await.unwrap() else { panic!() };
        while poller.snapshot().status() != Status::Running {
            poller.next().await.unwrap().unwrap();
        }
        poller.cancel().await.unwrap();
        assert_eq!(poller.await.unwrap(), Finished::Canceled, "{how}");
    }
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again_is_waited_for() {
    for (_, client) in clients() {
        wait_for_a_killed_server(&client).await;
    }
}

async fn wait_for_a_killed_server(client: &Client) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("operations.db");
    let address = free_address();
    let server = Process::start(&file, address);
    let request = Request::post(format!("http://{address}/things")).body("600").unwrap();
    let sending = client.clone().tries(100).send(request).respond_async();
    let Answer::Accepted(mut poller) = sending.await.unwrap() else { panic!() };
    while poller.snapshot().status() != Status::Running {
        poller.next().await.unwrap().unwrap();
    }
    let kept = serde_json::to_string(&poller.state()).unwrap();
    drop(server);
    let starting = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_millis(500));
        Process::start(&file, address)
    });
    let finished = poller.await.unwrap();
    let _server = starting.await.unwrap();
    assert_eq!(finished.json::<u32>().unwrap(), 2, "the second attempt");
    // And by another client, from what was kept.
    let resumed = client.resume(serde_json::from_str(&kept).unwrap(), HeaderMap::new());
    assert_eq!(lasting(resumed.await.unwrap()), lasting(finished));
}

/// Without what an answer says of the moment that it was given at.
fn lasting(mut finished: Finished) -> Finished {
    let Finished::Succeeded(outcome) = &mut finished else { panic!("{finished:?}") };
    outcome.headers.remove(header::DATE);
    outcome.headers.remove(header::CACHE_CONTROL);
    finished
}

#[tokio::test]
async fn a_request_to_a_server_that_is_not_there_yet_arrives_once() {
    let free = free_address();
    let starting = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_millis(300));
        let store = MemoryStore::new();
        (Server::start(store.clone(), free), store)
    });
    let request = Request::post(format!("http://{free}/things")).body("20").unwrap();
    let finished = client().tries(100).send(request).respond_async().finished().await.unwrap();
    assert!(matches!(finished, Finished::Succeeded(_)));
    let (_server, store) = starting.await.unwrap();
    assert_eq!(store.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_is_told() {
    let server = Server::in_memory();
    let transport = ReqwestTransport::new().unwrap().with_max_response_bytes(999);
    let large = Request::get(format!("http://{}/large", server.address)).body("").unwrap();
    let error = Client::with(transport).send(large).await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::Transport);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("larger"), "{source}");
    let gone = format!("http://{}/operations/01932f0e-7a5b-4c3d-9e1f-0123456789ab", server.address);
    let followed = client().follow(&gone.parse().unwrap(), HeaderMap::new()).unwrap();
    let error = followed.await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::Gone);
    assert!(error.problem().unwrap().type_uri().ends_with(":not-found"));
    assert!(error.to_string().starts_with("the operation is not there any more: 404"));
}
