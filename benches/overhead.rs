//! Claim: a request without `Prefer` costs a service next to nothing more than it did before the
//! service took this crate: the aim is 0.97 of the throughput of the bare handler.
//!
//! The same handler, once as it is, once behind `respond_with`, and once behind the layer for tower, as
//! a request that the layer leaves alone (the aim is 0.98); first over HTTP/1.1 on the loopback
//! interface, then, as the harsher measure, as a call in this process with no network.
#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod loopback;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::time::Instant;

use axum::extract::Request as AxumRequest;
use axum::extract::State;
use axum::response::Response as AxumResponse;
use axum::routing::post;
use axum::{Router, ServiceExt};
use http::{Method, Request, StatusCode, header};
use respond_async::Operations;
use respond_async::prefer::Preferences;
use respond_async::respond;
use respond_async::store::MemoryStore;
use respond_async::tower::{AsyncMode, AsyncService, Route};
use serde::Serialize;
use tokio::net::TcpListener;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt as _};

use crate::loopback::{
    Connection, Contender, Figure, Plan, Serving, compare, serve, serve_if_asked,
};

const CONTENDERS: &[Contender] = &[
    Contender { name: "bare", serve: |at| serve(at, bare()), turn: create_one },
    Contender { name: "respond-async", serve: |at| serve(at, negotiating()), turn: create_one },
    Contender { name: "layer", serve: serve_layered, turn: create_one },
];

/// How many calls without network are timed at once.
const CALLS: u32 = 2_000;

type App = BoxCloneSyncService<AxumRequest, AxumResponse, Infallible>;

#[derive(Serialize)]
struct Thing {
    id: u32,
    name: &'static str,
}

/// The handler of both: a 201 with a short document, and nothing of this crate.
async fn create() -> http::Response<String> {
    let thing = Thing { id: 17, name: "a thing" };
    let mut response = http::Response::new(serde_json::to_string(&thing).unwrap_or_default());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, header::HeaderValue::from_static("/things/17"));
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

async fn negotiate(
    State(operations): State<Operations>,
    preferences: Preferences,
) -> respond::Response {
    operations.respond_with(&preferences, |_| create()).await
}

fn bare() -> Router {
    Router::new().route("/things", post(create))
}

fn negotiating() -> Router {
    let operations = Operations::builder(MemoryStore::new()).start();
    Router::new()
        .route("/things", post(negotiate))
        .nest("/operations", respond_async::axum::monitor(&operations))
        .with_state(operations)
}

/// Around the bare service, for other routes than the one that is asked for.
fn layered() -> AsyncService<Router> {
    let mode = AsyncMode::new([Route::post("/reports/{year}"), Route::put("/reports/{year}")]);
    let layer = mode.start::<axum::body::Body>(Operations::builder(MemoryStore::new()));
    layer.layer(bare())
}

fn serve_layered(listener: TcpListener) -> Serving {
    let app = ServiceExt::<AxumRequest>::into_make_service(layered());
    Box::pin(async move { axum::serve(listener, app).await })
}

fn create_one(connection: &mut Connection) -> io::Result<()> {
    let request = b"POST /things HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
    let answer = connection.send(request)?;
    answer.expect(201)?;
    if answer.body.is_empty() { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
}

fn main() -> Result<(), Box<dyn Error>> {
    serve_if_asked(CONTENDERS)?;
    if !cfg!(target_os = "linux") {
        println!("Reads /proc: Linux only.");
        return Ok(());
    }
    let plan = Plan::from_args();
    println!("POST without Prefer, over the loopback interface; one turn is one request");
    compare(plan, CONTENDERS)?;
    without_network(plan)
}

/// The same as calls, on one thread.
fn without_network(plan: Plan) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let apps = [boxed(bare()), boxed(negotiating()), boxed(layered())];
    drop(entered);
    let mut nanos = [const { Vec::new() }; 3];
    for round in 0..=plan.rounds * 20 {
        for at in if round % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] } {
            let start = Instant::now();
            runtime.block_on(call(&apps[at]))?;
            nanos[at].push(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
        }
    }
    println!("\nThe same without network, ns a call");
    for (contender, of_it) in CONTENDERS.iter().zip(&nanos) {
        let ratio = Figure::of(nanos[0].iter().zip(of_it).map(|(bare, ours)| ours / bare));
        let median = Figure::of(of_it.iter().copied()).median;
        println!("{} {median:.0}, ratio {ratio}", contender.name);
    }
    Ok(())
}

/// The same box for all.
fn boxed<S>(app: S) -> App
where
    S: Service<AxumRequest, Response = AxumResponse, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    BoxCloneSyncService::new(app)
}

async fn call(app: &App) -> Result<(), Box<dyn Error>> {
    for _ in 0..CALLS {
        let request = Request::builder().method(Method::POST).uri("/things");
        let response = app.clone().oneshot(request.body(axum::body::Body::empty())?).await?;
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await?;
        if body.is_empty() {
            return Err("an empty answer".into());
        }
    }
    Ok(())
}
