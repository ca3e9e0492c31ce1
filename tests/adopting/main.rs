//! The steps of docs/adopting.md: each is compiled and asked, and the page shows how one becomes the
//! next.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod axum {
    pub(crate) mod before;
    pub(crate) mod durable;
    pub(crate) mod layered;
    pub(crate) mod negotiate;
    pub(crate) mod owned;
}
mod actix {
    pub(crate) mod before;
    pub(crate) mod durable;
    pub(crate) mod negotiate;
    pub(crate) mod owned;
}
mod report;

use std::fs;
use std::path::Path;
use std::time::Duration;

use ::axum::Router;
use ::axum::body::Body;
use actix_web::web::ServiceConfig;
use http::{Request, StatusCode};
use respond_async::Owner;
use serde_json::Value;
use tower::ServiceExt;

const PAGE: &str = include_str!("../../docs/adopting.md");

/// The page's diffs, put one after another onto the first step, are the other steps.
#[test]
fn the_page_shows_the_steps() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/adopting");
    let step = |name: &str| fs::read_to_string(folder.join(name).with_extension("rs")).unwrap();
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
            request = match *name {
                "owner" => request.extension(Owner::new(value).unwrap()),
                name => request.header(name, *value),
            };
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
        use actix_web::HttpMessage;
        let app = actix_web::App::new().configure(self.0.clone());
        let app = actix_web::test::init_service(app).await;
        let mut request =
            actix_web::test::TestRequest::with_uri(target).method(method.parse().unwrap());
        for (name, value) in fields.iter().filter(|(name, _)| *name != "owner") {
            request = request.append_header((*name, *value));
        }
        let request = request.to_request();
        for (_, value) in fields.iter().filter(|(name, _)| *name == "owner") {
            request.extensions_mut().insert(Owner::new(value).unwrap());
        }
        let answer = actix_web::test::call_service(&app, request).await;
        let location = answer.headers().get("location").map_or("", |value| value.to_str().unwrap());
        Answer {
            status: StatusCode::from_u16(answer.status().as_u16()).unwrap(),
            location: location.to_owned(),
            body: String::from_utf8(actix_web::test::read_body(answer).await.to_vec()).unwrap(),
        }
    }
}

async fn plain(service: &impl Service) {
    let answer = service.send("POST", "/reports/2026", &[("prefer", "wait=9")]).await;
    assert_eq!((answer.status, &*answer.location), (StatusCode::CREATED, "/reports/2026"));
    assert_eq!(answer.body, r#"{"year":2026,"text":"All was well."}"#);
}

async fn asynchronous(service: &impl Service, more: &[(&str, &str)]) {
    plain(service).await;
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
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stranger = service.send("GET", &accepted.location, &[]).await;
    assert_eq!(stranger.status == StatusCode::OK, more.is_empty());
}

#[tokio::test]
async fn each_step_does_what_the_page_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name| folder.path().join(name);
    let named = [("owner", "ann"), ("idempotency-key", "k-1")];

    plain(&axum::before::app()).await;
    asynchronous(&axum::negotiate::app(), &[]).await;
    asynchronous(&axum::durable::app(&file("a.db")).unwrap(), &[]).await;
    asynchronous(&axum::owned::app(&file("b.db")).unwrap(), &named).await;
    asynchronous(&axum::layered::app(), &[]).await;

    plain(&Actix(actix::before::app())).await;
    asynchronous(&Actix(actix::negotiate::app()), &[]).await;
    asynchronous(&Actix(actix::durable::app(&file("c.db")).unwrap()), &[]).await;
    asynchronous(&Actix(actix::owned::app(&file("d.db")).unwrap()), &named).await;
}
