//! A service as a team would have it, before it has heard of this crate: nothing here is ours.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};

/// What its own middleware makes of a request.
#[derive(Debug, Clone)]
pub(crate) struct Tenant(pub(crate) String);

#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(pub(crate) Arc<AtomicUsize>);

#[derive(Debug, Deserialize)]
struct Options {
    #[serde(default)]
    sleep_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    title: String,
}

#[derive(Debug, Serialize)]
struct Report {
    year: u16,
    title: String,
    tenant: String,
}

pub(crate) fn app(counts: Counts) -> Router {
    Router::new()
        .route("/reports/{year}", post(create).put(create))
        .route("/drafts/new", put(draft))
        .route("/fail/{status}", put(fail))
        .route("/headers", put(headers))
        .route("/panic", put(panics))
        .route("/large", put(large))
        .route("/echo", get(health).post(echo))
        .layer(middleware::from_fn(tenant))
        .with_state(counts)
}

async fn tenant(mut request: Request, next: Next) -> Response {
    if request.extensions().get::<Tenant>().is_none() {
        let name = request.headers().get("x-tenant").and_then(|name| name.to_str().ok());
        let tenant = Tenant(name.unwrap_or("nobody").to_owned());
        request.extensions_mut().insert(tenant);
    }
    next.run(request).await
}

async fn create(
    State(counts): State<Counts>,
    Path(year): Path<u16>,
    Query(options): Query<Options>,
    Extension(Tenant(tenant)): Extension<Tenant>,
    Json(order): Json<Order>,
) -> impl IntoResponse {
    counts.0.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(options.sleep_ms)).await;
    let report = Report { year, title: order.title, tenant };
    let location = [(header::LOCATION, format!("/reports/{year}/1"))];
    (StatusCode::CREATED, location, Json(report))
}

async fn draft() -> impl IntoResponse {
    let places = [(header::LOCATION, "17"), (header::CONTENT_LOCATION, "./17?version=1")];
    (StatusCode::CREATED, places, "a draft")
}

async fn fail(Path(status): Path<u16>) -> impl IntoResponse {
    let body = r#"{"type":"urn:reports:none","title":"No report","lines":[1.10,2]}"#;
    let kind = [(header::CONTENT_TYPE, "application/problem+json"), (header::SET_COOKIE, "a=1")];
    (StatusCode::from_u16(status).unwrap(), kind, body)
}

async fn headers(headers: HeaderMap) -> String {
    let mut names: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    names.sort();
    names.join("\n")
}

async fn panics() {
    panic!("secret");
}

async fn large() -> Bytes {
    vec![b'x'; 5_000].into()
}

async fn health() -> ([(header::HeaderName, HeaderValue); 1], &'static str) {
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))], "well")
}

/// Streams what it gets.
async fn echo(body: Body) -> Result<Response, Infallible> {
    Ok(Response::new(body))
}
