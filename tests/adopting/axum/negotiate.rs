use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use respond_async::prefer::Preferences;
use respond_async::respond::{Created, Response};
use respond_async::store::MemoryStore;
use respond_async::{Context, Operations};

use crate::report::{Report, write_report};

pub(crate) fn app() -> Router {
    let operations = Operations::builder(MemoryStore::new()).start();
    Router::new()
        .route("/reports/{year}", post(create))
        .nest("/operations", respond_async::axum::monitor(&operations))
        .with_state(operations)
}

async fn create(
    State(operations): State<Operations>,
    prefer: Preferences,
    Path(year): Path<u16>,
) -> Response {
    operations.respond_with(&prefer, move |context| write(year, context)).await
}

async fn write(year: u16, context: Context) -> Created {
    let report: Report = write_report(year, |done| context.progress(done, "writing")).await;
    Created::at(format!("/reports/{year}")).json(&report)
}
