use std::path::Path as FilePath;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::post;
use respond_async::axum::Head;
use respond_async::operations::Job;
use respond_async::prefer::Preferences;
use respond_async::respond::{Created, Response};
use respond_async::store::{Idempotency, SqliteOpenError, SqliteStore};
use respond_async::{Context, Operations, Owner, Problem};
use serde::{Deserialize, Serialize};

use crate::report::{Report, write_report};

pub(crate) fn app(database: &FilePath) -> Result<Router, SqliteOpenError> {
    let operations = Operations::builder(SqliteStore::open(database)?).job(write).start();
    Ok(Router::new()
        .route("/reports/{year}", post(create))
        .nest("/operations", respond_async::axum::monitor(&operations))
        // Around the monitor's routes too.
        .layer(middleware::from_fn(authenticate))
        .with_state(operations))
}

/// In place of your authentication: it believes whatever `X-User` says.
async fn authenticate(mut request: Request, next: Next) -> Result<impl IntoResponse, Problem> {
    let user = request.headers().get("x-user").and_then(|user| user.to_str().ok());
    let owner = user.and_then(|user| Owner::new(user).ok());
    let owner = owner.ok_or_else(|| Problem::from_status(StatusCode::FORBIDDEN))?;
    request.extensions_mut().insert(owner);
    Ok(next.run(request).await)
}

async fn create(
    State(operations): State<Operations>,
    prefer: Preferences,
    owner: Owner,
    Path(year): Path<u16>,
    Head(head): Head,
    body: Bytes,
) -> Result<Response, Problem> {
    let named = Idempotency::from_request(&head.method, &head.uri, &head.headers, &body)?;
    let kick_off = operations.kick_off(&prefer).owner(owner).idempotency(named);
    Ok(kick_off.respond(Write { year }).await)
}

#[derive(Serialize, Deserialize)]
struct Write {
    year: u16,
}

impl Job for Write {
    const KIND: &'static str = "reports.write";
}

async fn write(Write { year }: Write, context: Context) -> Created {
    let report: Report = write_report(year, |done| context.progress(done, "writing")).await;
    Created::at(format!("/reports/{year}")).json(&report)
}
