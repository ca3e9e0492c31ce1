//! The image service of `examples/images` on actix-web. What it is told by the environment is in
//! `images::Settings`.

use std::error::Error;
use std::net::TcpListener;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{self, HeaderValue};
use actix_web::middleware::{DefaultHeaders, Next, from_fn};
use actix_web::web::{self, Bytes, Data, Path, PayloadConfig};
use actix_web::{App, HttpMessage, HttpServer, ResponseError};
use http::StatusCode;
use images::{Images, MAX_UPLOAD_BYTES, Role, Settings, who_asks};
use respond_async::actix::{Answer, Head};
use respond_async::prefer::Preferences;
use respond_async::{Owner, Problem};

// All cores, for what goes on after a 202; actix's own threads serve the requests.
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
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
    let server = server.disable_signals().listen(listener)?;
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
    body: Result<Bytes, actix_web::Error>,
) -> Result<Answer, Problem> {
    let body = body.map_err(|error| {
        let status = error.as_response_error().status_code().as_u16();
        StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST)
    });
    images.upload(&preferences, owner, &head, body).await.map(Answer)
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
