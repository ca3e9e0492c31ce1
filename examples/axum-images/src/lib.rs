//! The routes of the image service on axum.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use images::{Images, MAX_UPLOAD_BYTES, who_asks};
use respond_async::axum::Head;
use respond_async::header::vary_on_prefer;
use respond_async::prefer::Preferences;
use respond_async::{Owner, Problem, respond};

/// The service.
pub fn app(images: Images) -> Router {
    // Each answer of a route that negotiates names `Prefer`, a 413 or 405 too.
    let negotiates = middleware::map_response(async |mut response: Response| {
        vary_on_prefer(response.headers_mut());
        response
    });
    let not_allowed = async || Problem::from_status(StatusCode::METHOD_NOT_ALLOWED);
    Router::new()
        .route("/images", post(upload).layer(DefaultBodyLimit::max(MAX_UPLOAD_BYTES)))
        .method_not_allowed_fallback(not_allowed)
        .layer(negotiates)
        .route("/images/{id}", get(download))
        .nest("/operations", respond_async::axum::monitor(images.operations()))
        .route("/health", get(health))
        .route("/openapi.json", get(async || images::document()))
        .fallback(async || Problem::from_status(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn(name_the_client))
        .with_state(images)
}

async fn upload(
    State(images): State<Images>,
    preferences: Preferences,
    owner: Owner,
    Head(head): Head,
    body: Result<Bytes, BytesRejection>,
) -> Result<respond::Response, Problem> {
    let body = body.map_err(|rejection| rejection.status());
    images.upload(&preferences, owner, &head, body).await
}

async fn download(
    State(images): State<Images>,
    Path(id): Path<String>,
    request: HeaderMap,
) -> Result<respond::Response, Problem> {
    images.download(id, &request).await
}

async fn health(State(images): State<Images>) -> respond::Response {
    images.operations().health().await.into_response()
}

/// Puts who asks where [`Owner`] is extracted from.
async fn name_the_client(mut request: Request, next: Next) -> Result<Response, respond::Response> {
    let owner = who_asks(request.headers()).map_err(|problem| {
        let mut refused = problem.into_response();
        // It may stand where a route that negotiates would have answered.
        vary_on_prefer(refused.headers_mut());
        refused
    })?;
    request.extensions_mut().insert(owner);
    Ok(next.run(request).await)
}
