//! The image service of `examples/images` on actix-web. What it is told by the environment is in
//! `images::Settings`.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::TcpListener;
use std::pin::Pin;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{self, HeaderValue};
use actix_web::middleware::{DefaultHeaders, Next, from_fn};
use actix_web::web::{self, Bytes, Data, Path, PayloadConfig};
use actix_web::{App, FromRequest, HttpMessage, HttpRequest, HttpServer, ResponseError};
use http::StatusCode;
use images::{Images, MAX_UPLOAD_BYTES, Role, Settings, who_asks};
use respond_async::actix::{Answer, Head};
use respond_async::prefer::Preferences;
use respond_async::{Owner, Problem};
use tokio::time::timeout;

/// How long the server waits for open requests when the operations have stopped.
const SHUTDOWN_SECONDS: u64 = 10;
/// How long a client may take to send an image.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);

// All cores, for what goes on after a 202; actix's own threads serve the requests.
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    images::log()?;
    let settings = Settings::from_env()?;
    if settings.role == Role::Worker {
        let images = Images::start(&settings).await?;
        images.say_what_to_try(None);
        images.stopped().await;
        return Ok(());
    }
    // First, so that a service that cannot listen takes up no work.
    let listener = TcpListener::bind(&settings.listen)?;
    let images = Images::start(&settings).await?;
    let of_thread = images.clone();
    let server = HttpServer::new(move || {
        App::new().configure(|app| routes(app, &of_thread)).wrap(from_fn(name_the_client))
    });
    // Signals go to the operations first, and then to the server.
    let server = server.disable_signals().shutdown_timeout(SHUTDOWN_SECONDS).listen(listener)?;
    images.say_what_to_try(server.addrs().first().copied());
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(async move {
        images.stopped().await;
        handle.stop(true).await;
    });
    Ok(server.await?)
}

fn routes(app: &mut web::ServiceConfig, images: &Images) {
    let upload = web::resource("/images")
        // Each answer of a route that negotiates names `Prefer`, a 413 or 405 too.
        .wrap(DefaultHeaders::new().add(("vary", "Prefer")))
        .app_data(PayloadConfig::new(MAX_UPLOAD_BYTES))
        .route(web::post().to(upload))
        .default_service(web::to(async || not_allowed("POST")));
    let download = web::resource("/images/{id}")
        .route(web::get().to(download))
        .route(web::head().to(download))
        .default_service(web::to(async || not_allowed("GET,HEAD")));
    let monitor = respond_async::actix::monitor(images.operations());
    app.app_data(Data::new(images.clone()))
        .service(upload)
        .service(download)
        .service(web::scope("/operations").configure(monitor))
        .service(
            web::resource("/health")
                .route(web::get().to(health))
                .route(web::head().to(health))
                .default_service(web::to(async || not_allowed("GET,HEAD"))),
        )
        .service(
            web::resource("/openapi.json")
                .route(web::get().to(document))
                .route(web::head().to(document))
                .default_service(web::to(async || not_allowed("GET,HEAD"))),
        )
        .default_service(web::to(async || Problem::from_status(StatusCode::NOT_FOUND)));
}

async fn upload(
    images: Data<Images>,
    preferences: Preferences,
    owner: Owner,
    Head(head): Head,
    Upload(body): Upload,
) -> Result<Answer, Problem> {
    images.upload(&preferences, owner, &head, body).await.map(Answer)
}

/// A body that is whole, not too large, and there in time, for which actix itself has no bound.
struct Upload(Result<Bytes, StatusCode>);

impl FromRequest for Upload {
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Infallible>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = Bytes::from_request(request, payload);
        let status = |error: actix_web::Error| {
            let status = error.as_response_error().status_code().as_u16();
            StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST)
        };
        Box::pin(async move {
            let in_time = timeout(UPLOAD_TIMEOUT, body).await;
            let body =
                in_time.map_or(Err(StatusCode::REQUEST_TIMEOUT), |body| body.map_err(status));
            Ok(Self(body))
        })
    }
}

async fn download(images: Data<Images>, id: Path<String>, head: Head) -> Result<Answer, Problem> {
    images.download(id.into_inner(), &head.0.headers).await.map(Answer)
}

async fn health(images: Data<Images>) -> Answer {
    Answer(images.operations().health().await.into_response())
}

async fn document() -> Answer {
    Answer(images::document())
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut response = Problem::from_status(StatusCode::METHOD_NOT_ALLOWED).into_response();
    response.headers_mut().insert(http::header::ALLOW, http::HeaderValue::from_static(methods));
    Answer(response)
}

/// Puts who asks where [`Owner`] is extracted from.
async fn name_the_client(
    mut request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let Head(head) = request.extract::<Head>().await?;
    let owner = who_asks(&head.headers).map_err(|problem| {
        let mut refused = problem.error_response();
        // It may stand where a route that negotiates would have answered.
        refused.headers_mut().insert(header::VARY, HeaderValue::from_static("Prefer"));
        InternalError::from_response(problem, refused)
    })?;
    request.extensions_mut().insert(owner);
    next.call(request).await
}
