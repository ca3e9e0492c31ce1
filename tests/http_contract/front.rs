//! The same service behind each framework: one negotiating route, `POST /tasks/{what}`, and the
//! monitor's.

use std::cell::{Cell, RefCell};

use actix_web::{App, HttpMessage, web};
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use respond_async::actix::{Answer, Head};
use respond_async::prefer::Preferences;
use respond_async::{Operations, Owner, respond};
use tower::ServiceExt;

thread_local! {
    static FRONT: Cell<Front> = const { Cell::new(Front::Axum) };
    static TRANSCRIPT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Clone, Copy)]
enum Front {
    Axum,
    Actix,
}

/// Runs the case behind each framework, and compares what its client saw.
pub(crate) fn behind_each(case: impl AsyncFn()) {
    let [axum, actix] = [Front::Axum, Front::Actix].map(|front| {
        FRONT.set(front);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap().block_on(case());
        TRANSCRIPT.take()
    });
    assert!(!axum.is_empty());
    for (axum, actix) in axum.iter().zip(&actix) {
        assert_eq!(axum, actix);
    }
    assert_eq!(axum.len(), actix.len());
}

/// Sends a request to the service, through the framework whose turn it is. Who asks is in the
/// request's extensions.
pub(crate) async fn send(operations: &Operations, request: Request<Bytes>) -> Response<Bytes> {
    match FRONT.get() {
        Front::Axum => through_axum(operations, request).await,
        Front::Actix => through_actix(operations, request).await,
    }
}

/// Notes what a client sees. Ids are random, and the same where they should be.
pub(crate) fn note(request: &str, answer: &Response<Bytes>, ids: &mut Vec<String>) {
    let mut fields: Vec<_> = answer.headers().iter().map(field).collect();
    fields.sort();
    let body = String::from_utf8_lossy(answer.body());
    let body: String = body.split_inclusive('\n').map(line).collect();
    // What a client of a list's stream gives back is random too.
    let request = match request.split_once("last-event-id") {
        Some((before, given)) if given.contains('-') => before,
        _ => request,
    };
    let text = format!("{request}\n{}\n{}\n\n{body}", answer.status(), fields.join("\n"));
    let is_id = |word: &str| word.len() == 36 && word.matches('-').count() == 4;
    let mut noted = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_hexdigit() && c != '-') {
        let core = word.trim_end_matches(|c: char| !c.is_ascii_hexdigit() && c != '-');
        if is_id(core) {
            let place = ids.iter().position(|id| id == core).unwrap_or_else(|| {
                ids.push(core.to_owned());
                ids.len() - 1
            });
            noted.push_str(&word.replace(core, &format!("ID{place}")));
        } else {
            noted.push_str(word);
        }
    }
    TRANSCRIPT.with_borrow_mut(|transcript| transcript.push(noted));
}

fn field((name, value): (&HeaderName, &HeaderValue)) -> String {
    // Spread at random, so that clients do not come all at once.
    let value = if name == "retry-after" { "…" } else { value.to_str().unwrap() };
    format!("{name}: {value}")
}

/// A line of content, without what is random in an event stream.
fn line(line: &str) -> &str {
    match line {
        line if line.contains("http-equiv=\"refresh\"") => "refresh …\n",
        line if line.starts_with("retry: ") => "retry: …\n",
        line if line.starts_with("id: ") && line.contains('-') => "id: …\n",
        line => line,
    }
}

async fn through_axum(operations: &Operations, request: Request<Bytes>) -> Response<Bytes> {
    async fn task(
        State(operations): State<Operations>,
        Path(what): Path<String>,
        preferences: Preferences,
        owner: Owner,
        head: Parts,
        body: Bytes,
    ) -> respond::Response {
        super::task(&operations, what, preferences, owner, &head, &body).await
    }
    let app = Router::new()
        .route("/tasks/{what}", post(task))
        .nest("/operations", respond_async::axum::monitor(operations))
        .with_state(operations.clone());
    let (parts, body) =
        app.oneshot(request.map(axum::body::Body::from)).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let mut response = Response::from_parts(parts, body);
    // Both frameworks frame the content when it is sent.
    response.headers_mut().remove("content-length");
    response
}

async fn through_actix(operations: &Operations, request: Request<Bytes>) -> Response<Bytes> {
    async fn task(
        operations: web::Data<Operations>,
        what: web::Path<String>,
        preferences: Preferences,
        owner: Owner,
        head: Head,
        body: Bytes,
    ) -> Answer {
        super::task(&operations, what.into_inner(), preferences, owner, &head.0, &body).await.into()
    }
    let app = App::new()
        .app_data(web::Data::new(operations.clone()))
        .route("/tasks/{what}", web::post().to(task))
        .service(web::scope("/operations").configure(respond_async::actix::monitor(operations)));
    let app = actix_web::test::init_service(app).await;

    let mut sent = actix_web::test::TestRequest::with_uri(&request.uri().to_string())
        .method(actix_web::http::Method::from_bytes(request.method().as_str().as_bytes()).unwrap());
    for (name, value) in request.headers() {
        sent = sent.append_header((name.as_str(), value.as_bytes()));
    }
    let sent = sent.set_payload(request.body().clone()).to_request();
    if let Some(owner) = request.extensions().get::<Owner>() {
        sent.extensions_mut().insert(owner.clone());
    }
    let answer = actix_web::test::call_service(&app, sent).await;
    let mut response = Response::builder().status(answer.status().as_u16());
    for (name, value) in answer.headers() {
        response = response.header(name.as_str(), value.as_bytes());
    }
    let mut body = actix_web::test::read_body(answer).await;
    if request.method() == Method::HEAD {
        // actix leaves it out when it writes the answer to its connection.
        body.clear();
    }
    response.body(body).unwrap()
}
