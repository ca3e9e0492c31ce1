//! The steps of docs/adopting.md: each is compiled and asked, and the page shows how one becomes the
//! next.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod axum {
    pub(crate) mod before;
    pub(crate) mod durable;
    pub(crate) mod layered;
    pub(crate) mod negotiate;
    pub(crate) mod owned;
    pub(crate) mod stop;
}
mod actix {
    pub(crate) mod before;
    pub(crate) mod durable;
    pub(crate) mod negotiate;
    pub(crate) mod owned;
    pub(crate) mod stop;
}
mod report;
mod testing;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::axum::Router;
use ::axum::body::Body;
use ::axum::extract::State;
use ::axum::routing::post;
use actix_web::web::{self, ServiceConfig};
use http::{Request, StatusCode};
use respond_async::actix::Answer as ActixAnswer;
use respond_async::prefer::Preferences;
use respond_async::respond::Response;
use respond_async::store::MemoryStore;
use respond_async::{Operations, Outcome};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::sleep;
use tower::ServiceExt;

const PAGE: &str = include_str!("../../docs/adopting.md");

/// The page's diffs, put one after another onto the first step, are the other steps.
#[test]
fn the_page_shows_the_steps() {
    let mut shown = 0;
    for section in PAGE.split("\n<!-- ").skip(1) {
        let (names, rest) = section.split_once(" -->\n").unwrap();
        let (before, after) = names.split_once(" to ").unwrap();
        let diff = rest.split("```diff\n").nth(1).unwrap().split("```").next().unwrap();
        assert_eq!(patched(&step(before), diff), step(after), "{names}");
        shown += 1;
    }
    assert_eq!(shown, 7);
}

/// What stands on the page as a whole is what is compiled here.
#[test]
fn the_page_shows_whole_files() {
    for name in ["axum/before", "actix/before", "axum/stop", "actix/stop", "testing"] {
        let shown = format!("\n```rust,ignore\n{}```\n", step(name));
        assert!(PAGE.contains(&shown), "{name}");
    }
}

fn step(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/adopting");
    fs::read_to_string(folder.join(name).with_extension("rs")).unwrap()
}

/// The text after the hunks of a diff, which lines of `@@` part.
fn patched(text: &str, diff: &str) -> String {
    let mut text = format!("\n{text}");
    for hunk in diff.split("@@\n").filter(|hunk| !hunk.is_empty()) {
        let side = |sign: char| -> String {
            let lines = hunk.lines().filter(|line| !line.starts_with(sign));
            lines.fold("\n".to_owned(), |side, line| side + line.get(1..).unwrap_or("") + "\n")
        };
        let (old, new) = (side('+'), side('-'));
        assert_eq!(text.matches(&old).count(), 1, "{old}\nis not once in\n{text}");
        text = text.replace(&old, &new);
    }
    text.split_off(1)
}

struct Answer {
    status: StatusCode,
    location: String,
    body: String,
}

/// A service, whichever framework serves it.
trait Service {
    async fn send(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer;
}

impl Service for Router {
    async fn send(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = self.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let location = parts.headers.get("location").map_or("", |value| value.to_str().unwrap());
        let body = ::axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            location: location.to_owned(),
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }
}

struct Actix<F>(F);

impl<F: FnOnce(&mut ServiceConfig) + Clone> Service for Actix<F> {
    async fn send(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
        let app = actix_web::App::new().configure(self.0.clone());
        let app = actix_web::test::init_service(app).await;
        let mut request =
            actix_web::test::TestRequest::with_uri(target).method(method.parse().unwrap());
        for (name, value) in fields {
            request = request.append_header((*name, *value));
        }
        let answer = match actix_web::test::try_call_service(&app, request.to_request()).await {
            Ok(answer) => answer.map_into_boxed_body().into(),
            Err(error) => error.error_response(),
        };
        let location = answer.headers().get("location").map_or("", |value| value.to_str().unwrap());
        let (status, location) = (answer.status().as_u16(), location.to_owned());
        let body = actix_web::body::to_bytes(answer.into_body()).await.unwrap();
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            location,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }
}

async fn plain(service: &impl Service, who: &[(&str, &str)]) {
    let fields = [&[("prefer", "wait=9")], who].concat();
    let answer = service.send("POST", "/reports/2026", &fields).await;
    assert_eq!((answer.status, &*answer.location), (StatusCode::CREATED, "/reports/2026"));
    assert_eq!(answer.body, r#"{"year":2026,"text":"All was well."}"#);
}

/// `more` is who asks, and a key, for a service that knows both.
async fn asynchronous(service: &impl Service, more: &[(&str, &str)]) {
    plain(service, &more[..more.len().min(1)]).await;
    let fields = [&[("prefer", "respond-async")], more].concat();
    let accepted = service.send("POST", "/reports/2026", &fields).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    let again = service.send("POST", "/reports/2026", &fields).await;
    assert_eq!(again.location == accepted.location, !more.is_empty());
    loop {
        let operation = service.send("GET", &accepted.location, more).await;
        assert_eq!(operation.status, StatusCode::OK);
        let operation: Value = serde_json::from_str(&operation.body).unwrap();
        if operation["status"] == "succeeded" {
            assert_eq!(operation["result"]["location"], "/reports/2026");
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    let stranger = service.send("GET", &accepted.location, &[("x-user", "bob")]).await;
    let nobody = service.send("GET", &accepted.location, &[]).await;
    let seen = if more.is_empty() {
        [StatusCode::OK; 2]
    } else {
        [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN]
    };
    assert_eq!([stranger.status, nobody.status], seen);
}

#[tokio::test]
async fn each_step_does_what_the_page_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name| folder.path().join(name);
    let named = [("x-user", "ann"), ("idempotency-key", "k-1")];

    plain(&axum::before::app(), &[]).await;
    asynchronous(&axum::negotiate::app(), &[]).await;
    asynchronous(&axum::durable::app(&file("a.db")).unwrap(), &[]).await;
    asynchronous(&axum::owned::app(&file("b.db")).unwrap(), &named).await;
    asynchronous(&axum::layered::app(), &[]).await;

    plain(&Actix(actix::before::app()), &[]).await;
    asynchronous(&Actix(actix::negotiate::app()), &[]).await;
    asynchronous(&Actix(actix::durable::app(&file("c.db")).unwrap()), &[]).await;
    asynchronous(&Actix(actix::owned::app(&file("d.db")).unwrap()), &named).await;
}

/// What a service answers with while it is told to stop.
#[derive(Clone)]
struct Slow {
    operations: Operations,
    begun: Arc<Notify>,
}

impl Slow {
    fn new() -> Self {
        Self { operations: Operations::builder(MemoryStore::new()).start(), begun: Arc::default() }
    }

    async fn answer(&self, prefer: &Preferences) -> Response {
        let begun = Arc::clone(&self.begun);
        let work = move |_| async move {
            begun.notify_one();
            sleep(Duration::from_millis(200)).await;
            Outcome::default()
        };
        self.operations.respond_with(prefer, work).await
    }
}

/// A client that waits when the service is told to stop gets its answer, and then the service ends.
#[tokio::test]
async fn who_waits_is_answered_before_the_stop() {
    async fn with_axum(State(slow): State<Slow>, prefer: Preferences) -> Response {
        slow.answer(&prefer).await
    }
    async fn with_actix(slow: web::Data<Slow>, prefer: Preferences) -> ActixAnswer {
        slow.answer(&prefer).await.into()
    }

    for is_axum in [true, false] {
        let (slow, stop) = (Slow::new(), Arc::new(Notify::new()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (state, told) = (slow.clone(), Arc::clone(&stop));
        let told = async move { told.notified().await };
        let operations = slow.operations.clone();
        let served = if is_axum {
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let app = Router::new().route("/slow", post(with_axum)).with_state(state);
            tokio::spawn(axum::stop::serve(listener, app, operations, told))
        } else {
            let app = |app: &mut ServiceConfig| {
                app.app_data(web::Data::new(state)).route("/slow", web::post().to(with_actix));
            };
            tokio::spawn(actix::stop::serve(listener, app, operations, told))
        };

        let mut client = TcpStream::connect(address).await.unwrap();
        let request = "POST /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                       content-length: 0\r\nprefer: respond-async, wait=9\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(9), slow.begun.notified()).await.unwrap();
        stop.notify_one();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        served.await.unwrap().unwrap();
    }
}
