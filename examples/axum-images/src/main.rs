//! An image service: it takes a JPEG or PNG, sharpens, scales and recompresses it, and answers with
//! the new image's address, or with the address where that will be known.
//!
//! - `LISTEN` is the address to listen on (default 127.0.0.1:3000; port 0 takes a free one).
//! - `DATA_DIR` is the folder that images are kept in (default `data`), and operations too if nothing
//!   else is said.
//! - `DATABASE_URL` (PostgreSQL) or `REDIS_URL` keeps operations on a server, which any number of replicas
//!   share; they need one folder of images in common.
//! - `ROLE` is `gateway` for a replica that leaves accepted images to others, or `worker` for a process that
//!   only works and listens nowhere; without it a replica does both.

mod gallery;
mod images;
mod pipeline;

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{env, io, thread};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use respond_async::header::vary_on_prefer;
use respond_async::operations::JobPolicy;
use respond_async::store::{OperationStore, PostgresStore, RedisStore, SqliteStore};
use respond_async::{Operations, Owner, Problem};
use tokio::net::TcpListener;

use crate::gallery::Gallery;
use crate::images::{Images, Workshop};
use crate::pipeline::MAX_UPLOAD_BYTES;

/// How long running work may go on once the service has been told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// How long after the death of the process its images are taken up again.
const LEASE: Duration = Duration::from_secs(5);
/// How many images wait or are worked on; one more is answered 503. Each is kept as it came until
/// it is done.
const LIVE_LIMIT: usize = 256;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let data = env::var("DATA_DIR").unwrap_or_else(|_| "data".to_owned());
    let gallery = Gallery::open(&data)?;
    let store = store(&data).await?;
    let role = env::var("ROLE").unwrap_or_default();
    let listener = match role.as_str() {
        "worker" => None,
        "" | "gateway" => Some(TcpListener::bind(&listen).await?),
        _ => return Err(format!("ROLE is {role:?}, neither gateway nor worker").into()),
    };
    let cores = thread::available_parallelism()?.get();
    let accepted_here = if role == "gateway" { 0 } else { cores };

    let workshop = Workshop::new(gallery, cores);
    let enhance = {
        let workshop = workshop.clone();
        move |upload, context| workshop.clone().enhance(upload, context)
    };
    let operations = Operations::builder(store)
        .job_with(JobPolicy::new().with_concurrency(accepted_here), enhance)
        .live_limit(LIVE_LIMIT)
        .progress_interval(Duration::from_millis(200))
        .lease(LEASE)
        .start();
    let Some(listener) = listener else {
        let _ = writeln!(io::stdout(), "Working on what the replicas accept, on {cores} cores.");
        told_to_stop().await;
        operations.shutdown(SHUTDOWN_GRACE).await;
        return Ok(());
    };
    let app = app(Images { operations: operations.clone(), workshop });

    say_what_to_try(&format!("http://{}", listener.local_addr()?));
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            told_to_stop().await;
            // Polls and downloads are still answered meanwhile.
            operations.shutdown(SHUTDOWN_GRACE).await;
        })
        .await?;
    Ok(())
}

/// Where operations are kept. Killed in the middle of an image, the service finishes it: once it is started
/// again, or by another replica.
async fn store(data: &str) -> Result<Arc<dyn OperationStore>, Box<dyn Error>> {
    if let Ok(url) = env::var("DATABASE_URL") {
        return Ok(Arc::new(PostgresStore::open(&url).await?));
    }
    if let Ok(url) = env::var("REDIS_URL") {
        return Ok(Arc::new(RedisStore::open(&url).await?));
    }
    Ok(Arc::new(SqliteStore::open(Path::new(data).join("operations.db"))?))
}

fn app(images: Images) -> Router {
    // Each answer of a route that negotiates names `Prefer`, a 413 or 405 too.
    let negotiates = middleware::map_response(async |mut response: Response| {
        vary_on_prefer(response.headers_mut());
        response
    });
    let not_allowed = async || Problem::from_status(StatusCode::METHOD_NOT_ALLOWED);
    Router::new()
        .route("/images", post(images::upload).layer(DefaultBodyLimit::max(MAX_UPLOAD_BYTES)))
        .method_not_allowed_fallback(not_allowed)
        .layer(negotiates)
        .route("/images/{id}", get(images::download))
        .nest("/operations", respond_async::axum::monitor(&images.operations))
        .fallback(async || Problem::from_status(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn(who_asks))
        .with_state(images)
}

/// Names the client, so that its operations are its own. Put your authentication here: this one
/// believes whatever `X-User` says. A client without a name can use the links that it was given,
/// and nothing else.
async fn who_asks(mut request: Request, next: Next) -> Result<Response, Problem> {
    if let Some(name) = request.headers().get("x-user") {
        // Whoever gives a name that cannot be one is not taken for somebody without a name.
        let owner = name.to_str().ok().and_then(|name| Owner::new(name).ok());
        let no_name = || Problem::from_status(StatusCode::BAD_REQUEST).detail("X-User is no name.");
        request.extensions_mut().insert(owner.ok_or_else(no_name)?);
    }
    Ok(next.run(request).await)
}

fn say_what_to_try(base: &str) {
    // A service whose output nobody reads serves all the same.
    let _ = writeln!(
        io::stdout(),
        "Images at {base}. With a JPEG or PNG of yours, try:

  curl -i {base}/images -H 'Content-Type: image/jpeg' --data-binary @photo.jpg
  curl -i {base}/images -H 'Content-Type: image/jpeg' --data-binary @photo.jpg \\
       -H 'Prefer: respond-async' -H 'X-User: ann'
  curl -i {base}/operations/ID -H 'X-User: ann'         # the Content-Location of the 202
  curl -i {base}/operations/ID/result -H 'X-User: ann'  # what the first command got at once
  curl -i {base}/operations -H 'X-User: ann'
"
    );
}

async fn told_to_stop() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    // Without a signal to wait for there is nothing to stop for.
    if interrupt.await.is_err() {
        std::future::pending::<()>().await;
    }
}
