//! A reverse proxy that gives the slow routes of another service an asynchronous mode. That service
//! stays as it is, in whatever language. `/operations` and what is below it is the proxy's own.
//!
//! - `LISTEN` is the address to listen on (default 127.0.0.1:3000; port 0 takes a free one).
//! - `UPSTREAM` is the other service (default: a slow one that is started along, to try this with).
//! - `ROUTES` are those with an asynchronous mode: methods and patterns, separated by commas.
//! - `REPEATABLE` are those of them that may be begun again after a crash although their method is not
//!   idempotent.
//! - `KEEP` are fields of a request that are stored besides those that always are, such as
//!   `authorization`.
//! - `UPSTREAM_TIMEOUT` is how many seconds the other service may take to begin its answer, and to go
//!   on with it (default 60; a year at the most).
//! - `DATA_DIR` is the folder that operations are kept in (default `data`).

mod proxy;
mod slow;
mod stop;
mod upload;

use std::convert::Infallible;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use std::{env, fs, io};

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Router, body::Body};
use http::{HeaderMap, HeaderName, StatusCode};
use respond_async::operations::JobPolicy;
use respond_async::serve::Server;
use respond_async::store::SqliteStore;
use respond_async::tower::{AsyncMode, Route};
use respond_async::{Operations, Owner, Problem};
use tokio::net::TcpListener;
use tower::{Layer, service_fn};

use crate::proxy::Proxy;
use crate::stop::told_to_stop;

/// How long running work may go on once the proxy has been told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// How long after the death of the process its requests are begun again.
const LEASE: Duration = Duration::from_secs(5);
/// A year, which every clock can be set forward by.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The slow routes of the service that is started along.
const ROUTES: &str = "POST /reports/{year}, PUT /reports/{year}";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let var = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let listener = TcpListener::bind(var("LISTEN", "127.0.0.1:3000")).await?;
    let upstream = match env::var("UPSTREAM") {
        Ok(url) => url,
        Err(_) => slow::start().await?,
    };
    let timeout = Duration::from_secs(var("UPSTREAM_TIMEOUT", "60").parse()?).min(LONGEST_TIMEOUT);
    let data = var("DATA_DIR", "data");
    fs::create_dir_all(&data)?;
    let store = SqliteStore::open(Path::new(&data).join("operations.db"))?;

    let repeatable = var("REPEATABLE", "");
    let routes = routes(&var("ROUTES", ROUTES), |text| lists(&repeatable, text))?;
    let mut mode = AsyncMode::new(routes)
        // What the upstream cannot do now it may do in a moment.
        .policy(JobPolicy::new().with_concurrency(64));
    for name in list(&var("KEEP", "")) {
        mode = mode.keep(name.parse::<HeaderName>()?);
    }
    let layer = mode.start::<Body>(Operations::builder(store).lease(LEASE));

    let proxy = Proxy::to(&upstream, timeout)?;
    let proxy = service_fn(move |request: Request| {
        let proxy = proxy.clone();
        async move { Ok::<_, Infallible>(proxy.forward(request).await) }
    });
    let operations = layer.operations().clone();
    say_what_to_try(&format!("http://{}", listener.local_addr()?), &upstream);
    // As a fallback, so that routes of the proxy's own can stand beside it.
    let app = Router::new()
        .fallback_service(layer.layer(proxy))
        .layer(middleware::from_fn(name_the_client));
    // In place of `axum::serve`, which waits for slow clients for ever.
    let stopped = async move {
        told_to_stop().await;
        operations.shutdown(SHUTDOWN_GRACE).await;
    };
    Server::new(listener, app).run(stopped).await;
    Ok(())
}

/// Puts who asks where the layer looks for [`Owner`].
async fn name_the_client(mut request: Request, next: Next) -> Result<Response, Problem> {
    let owner = who_asks(request.headers())?;
    request.extensions_mut().insert(owner);
    Ok(next.run(request).await)
}

/// Put your authentication here: this one believes whatever `X-User` says. Whoever gives a name that is none
/// is not taken for somebody without a name.
fn who_asks(headers: &HeaderMap) -> Result<Owner, Problem> {
    let Some(name) = headers.get("x-user") else { return Ok(Owner::anonymous()) };
    let owner = name.to_str().ok().and_then(|name| Owner::new(name).ok());
    let no_name =
        || Problem::from_status(StatusCode::BAD_REQUEST).with_detail("X-User is no name.");
    owner.ok_or_else(no_name)
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn lists(texts: &str, text: &str) -> bool {
    list(texts).any(|one| one == text)
}

fn routes(texts: &str, is_repeatable: impl Fn(&str) -> bool) -> Result<Vec<Route>, String> {
    let route = |text: &str| {
        let (method, pattern) =
            text.split_once(' ').ok_or(format!("{text:?} is no route: say POST /path"))?;
        let method = method.parse().map_err(|_| format!("{method:?} is no method"))?;
        let route = Route::new(method, pattern.trim());
        Ok(if is_repeatable(text) { route.repeatable() } else { route })
    };
    list(texts).map(route).collect()
}

fn say_what_to_try(base: &str, upstream: &str) {
    // A proxy whose output nobody reads serves all the same.
    let _ = writeln!(
        io::stdout(),
        "{base} passes requests on to {upstream}. With the slow service that is started along, try:

  curl -i {base}/reports/2025
  curl -i -X PUT {base}/reports/2026                               # takes five seconds
  curl -i -X PUT {base}/reports/2026 -H 'Prefer: respond-async'
  curl -i {base}/operations/ID                                     # the Content-Location of the 202
  curl -i {base}/operations/ID/result
"
    );
}
