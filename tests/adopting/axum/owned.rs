use std::path::Path as FilePath;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::routing::post;
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
        .with_state(operations))
}

async fn create(
    State(operations): State<Operations>,
    prefer: Preferences,
    owner: Owner,
    Path(year): Path<u16>,
    head: Parts,
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
