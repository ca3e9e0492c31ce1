//! The asynchronous mode as one writes it by hand with axum: a concurrent map, a spawned task, and
//! the fields and documents that this crate sends.
//!
//! It has no owners, bounds, cancellation, progress, leases, timeouts or shutdown, forgets what a
//! panic leaves behind, and keeps nothing elsewhere than in memory. It does remove what has expired.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use dashmap::DashMap;
use http::header::{self, HeaderName};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

const SUNSET: HeaderName = HeaderName::from_static("sunset");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

type Operations = Arc<DashMap<Uuid, Operation>>;

/// The routes, which run `work` and keep what has finished for `retention`.
pub(crate) fn routes<F>(work: fn() -> F, retention: Duration) -> Router
where
    F: Future<Output = http::Response<String>> + Send + 'static,
{
    let operations = Operations::default();
    let expiring = Arc::clone(&operations);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = Timestamp::now();
            expiring.retain(|_, operation| operation.expires().is_none_or(|at| now < at));
        }
    });
    let create = move |State(operations): State<Operations>, headers: HeaderMap| async move {
        if prefers_async(&headers) {
            accept(&operations, work, retention)
        } else {
            ([(header::VARY, "Prefer")], work().await).into_response()
        }
    };
    Router::new()
        .route("/things", post(create))
        .route("/operations/{id}", get(monitor))
        .route("/operations/{id}/result", get(result))
        .with_state(operations)
}

struct Operation {
    status: Status,
    revision: u64,
    created: Timestamp,
    updated: Timestamp,
    finished: Option<Timestamp>,
    retention: Duration,
    outcome: Option<Outcome>,
}

#[derive(Clone)]
struct Outcome {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Running,
    Succeeded,
    Failed,
}

#[derive(Serialize)]
struct Document<'a> {
    id: Uuid,
    kind: &'static str,
    status: Status,
    created: String,
    updated: String,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<ResultDocument<'a>>,
    links: Links,
}

#[derive(Serialize)]
struct ResultDocument<'a> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
    href: String,
}

#[derive(Serialize)]
struct Links {
    #[serde(rename = "self")]
    monitor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
}

impl Operation {
    fn begin(now: Timestamp, retention: Duration) -> Self {
        Self {
            status: Status::Running,
            revision: 1,
            created: now,
            updated: now,
            finished: None,
            retention,
            outcome: None,
        }
    }

    fn finish(&mut self, response: http::Response<String>) {
        let now = Timestamp::now();
        let (parts, body) = response.into_parts();
        self.status = if parts.status.as_u16() < 400 { Status::Succeeded } else { Status::Failed };
        self.revision += 1;
        self.updated = now;
        self.finished = Some(now);
        let (status, headers, body) = (parts.status, parts.headers, body.into());
        self.outcome = Some(Outcome { status, headers, body });
    }

    fn expires(&self) -> Option<Timestamp> {
        Some(self.finished? + self.retention)
    }

    fn document(&self, id: Uuid) -> Document<'_> {
        let text = |time: Timestamp| format!("{time:.3}");
        let href = format!("/operations/{id}/result");
        Document {
            id,
            kind: "task",
            status: self.status,
            created: text(self.created),
            updated: text(self.updated),
            started: text(self.created),
            finished: self.finished.map(text),
            expires: self.expires().map(text),
            attempt: 1,
            links: Links {
                monitor: format!("/operations/{id}"),
                result: self.outcome.is_some().then(|| href.clone()),
            },
            result: self.outcome.as_ref().map(|outcome| ResultDocument {
                status: outcome.status.as_u16(),
                location: outcome.headers.get(header::LOCATION).and_then(|it| it.to_str().ok()),
                href,
            }),
        }
    }
}

fn prefers_async(headers: &HeaderMap) -> bool {
    headers.get_all("prefer").iter().filter_map(|line| line.to_str().ok()).any(|line| {
        line.split(',').any(|preference| preference.trim().eq_ignore_ascii_case("respond-async"))
    })
}

fn accept<F>(operations: &Operations, work: fn() -> F, retention: Duration) -> Response
where
    F: Future<Output = http::Response<String>> + Send + 'static,
{
    let id = Uuid::new_v4();
    let operation = Operation::begin(Timestamp::now(), retention);
    let document = Json(operation.document(id)).into_response();
    operations.insert(id, operation);

    let operations = Arc::clone(operations);
    tokio::spawn(async move {
        let response = work().await;
        if let Some(mut operation) = operations.get_mut(&id) {
            operation.finish(response);
        }
    });

    let monitor = format!("/operations/{id}");
    let fields = [
        (header::LINK, format!("<{monitor}>; rel=\"monitor\"")),
        (header::LOCATION, monitor.clone()),
        (header::CONTENT_LOCATION, monitor),
    ];
    let constant = [
        (header::RETRY_AFTER, "1"),
        (header::CACHE_CONTROL, "no-store"),
        (PREFERENCE_APPLIED, "respond-async"),
        (header::VARY, "Prefer"),
    ];
    (StatusCode::ACCEPTED, fields, constant, document).into_response()
}

async fn monitor(
    State(operations): State<Operations>,
    Path(id): Path<Uuid>,
    request: HeaderMap,
) -> Response {
    let Some(operation) = operations.get(&id) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let tag = format!("\"{}\"", operation.revision);
    let known =
        request.get(header::IF_NONE_MATCH).is_some_and(|tags| tags.as_bytes() == tag.as_bytes());
    let content = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(operation.document(id)).into_response()
    };
    let always = [(header::ETAG, tag), (header::VARY, "Accept, Prefer".to_owned())];
    match operation.expires() {
        None => {
            let fields = [(header::CACHE_CONTROL, "no-cache, private"), (header::RETRY_AFTER, "1")];
            (always, fields, content).into_response()
        }
        Some(expires) => (always, keep_until(expires), content).into_response(),
    }
}

async fn result(State(operations): State<Operations>, Path(id): Path<Uuid>) -> Response {
    let Some(operation) = operations.get(&id) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (Some(outcome), Some(expires)) = (operation.outcome.clone(), operation.expires()) else {
        return (StatusCode::NOT_FOUND, [(header::RETRY_AFTER, "1")]).into_response();
    };
    let Outcome { status, headers, body } = outcome;
    let secure = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, keep_until(expires), secure, body).into_response()
}

fn keep_until(expires: Timestamp) -> [(HeaderName, String); 2] {
    let age = expires.duration_since(Timestamp::now()).as_secs().max(0);
    let sunset = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&expires);
    [
        (header::CACHE_CONTROL, format!("private, max-age={age}")),
        (SUNSET, sunset.unwrap_or_default()),
    ]
}
