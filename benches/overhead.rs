//! Claim: a request without `Prefer` costs a service next to nothing more than it did before the
//! service took this crate: the aim is 0.97 of the throughput of the bare handler.
//!
//! The same handler, once as it is and once behind `respond_with`, first over HTTP/1.1 on the
//! loopback interface, then, as the harsher measure, as a call in this process with no network.
#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod loopback;

use std::error::Error;
use std::io;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http::{Method, Request, StatusCode, header};
use respond_async::Operations;
use respond_async::prefer::Preferences;
use respond_async::respond;
use respond_async::store::MemoryStore;
use serde::Serialize;
use tower::ServiceExt;

use crate::loopback::{Connection, Contender, Figure, Plan, compare, serve_if_asked};

const CONTENDERS: &[Contender] = &[
    Contender { name: "bare", app: bare, turn: create_one },
    Contender { name: "respond-async", app: negotiating, turn: create_one },
];

/// How many calls without network are timed at once.
const CALLS: u32 = 2_000;

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

/// The same two as calls, on one thread.
fn without_network(plan: Plan) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let apps = [bare(), negotiating()];
    drop(entered);
    let mut nanos = [Vec::new(), Vec::new()];
    for round in 0..=plan.rounds * 20 {
        for at in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            let start = Instant::now();
            runtime.block_on(call(&apps[at]))?;
            nanos[at].push(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
        }
    }
    let ratio = Figure::of(nanos[0].iter().zip(&nanos[1]).map(|(bare, ours)| ours / bare));
    let [bare, ours] = nanos.map(|rounds| Figure::of(rounds.into_iter()).median);
    println!("\nThe same without network, ns a call");
    println!("bare {bare:.0}, respond-async {ours:.0}, ratio {ratio}");
    Ok(())
}

async fn call(app: &Router) -> Result<(), Box<dyn Error>> {
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
