use axum::body::Body;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use respond_async::Operations;
use respond_async::store::MemoryStore;
use respond_async::tower::{AsyncMode, Route};
use tower::Layer;

use crate::report::{Report, write_report};

pub(crate) fn app() -> Router {
    let app = Router::new().route("/reports/{year}", post(create));
    let layer = AsyncMode::new([Route::post("/reports/{year}").repeatable()])
        .start::<Body>(Operations::builder(MemoryStore::new()));
    Router::new().fallback_service(layer.layer(app))
}

async fn create(Path(year): Path<u16>) -> impl IntoResponse {
    let report: Report = write_report(year, |_| ()).await;
    let location = [(header::LOCATION, format!("/reports/{year}"))];
    (StatusCode::CREATED, location, Json(report))
}
