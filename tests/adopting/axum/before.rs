use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};

use crate::report::{Report, write_report};

pub(crate) fn app() -> Router {
    Router::new().route("/reports/{year}", post(create))
}

async fn create(Path(year): Path<u16>) -> impl IntoResponse {
    let report: Report = write_report(year, |_| ()).await;
    let location = [(header::LOCATION, format!("/reports/{year}"))];
    (StatusCode::CREATED, location, Json(report))
}
