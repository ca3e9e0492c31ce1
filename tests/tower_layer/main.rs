//! The layer for tower around a service that knows nothing of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod reports;
mod warnings;

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use http::{HeaderName, Request, Response, StatusCode};
use reports::{Counts, Tenant};
use respond_async::operations::{JobPolicy, OperationsBuilder};
use respond_async::store::MemoryStore;
use respond_async::tower::{AsyncMode, AsyncService, Route};
use respond_async::{Operations, Owner};
use serde_json::Value;
use tower::{Layer, ServiceExt};

const ORDER: &str = r#"{"title":"Sales"}"#;
const PREFER: (&str, &str) = ("prefer", "respond-async");

fn mode() -> AsyncMode {
    AsyncMode::new([Route::post("/reports/{year}"), Route::put("/{*any}")])
}

struct Service {
    app: AsyncService<Router>,
    store: MemoryStore,
    counts: Counts,
}

impl Service {
    fn new() -> Self {
        Self::with(mode(), |builder| builder)
    }

    fn with(mode: AsyncMode, set: impl FnOnce(OperationsBuilder) -> OperationsBuilder) -> Self {
        Self::on(MemoryStore::new(), mode, set)
    }

    /// One process of the service.
    fn on(
        store: MemoryStore,
        mode: AsyncMode,
        set: impl FnOnce(OperationsBuilder) -> OperationsBuilder,
    ) -> Self {
        let counts = Counts::default();
        let layer = mode.start::<Body>(set(Operations::builder(store.clone())));
        Self { app: layer.layer(reports::app(counts.clone())), store, counts }
    }

    async fn send(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = match *name {
                "owner" => request.extension(Owner::new(value).unwrap()),
                name => request.header(name, *value),
            };
        }
        let request = request.body(body.into()).unwrap();
        let (parts, body) = self.app.clone().oneshot(request).await.unwrap().into_parts();
        Response::from_parts(parts, axum::body::to_bytes(body, usize::MAX).await.unwrap())
    }

    async fn order(&self, method: &str, target: &str, more: &[(&str, &str)]) -> Response<Bytes> {
        let fields = [more, &[("content-type", "application/json")]].concat();
        self.send(method, target, &fields, ORDER).await
    }

    async fn ended(&self, monitor: &str, fields: &[(&str, &str)]) -> Value {
        loop {
            let answer = self.send("GET", monitor, fields, "").await;
            assert_eq!(answer.status(), 200, "{answer:?}");
            let operation: Value = serde_json::from_slice(answer.body()).unwrap();
            if operation.get("finished").is_some() {
                return operation;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn result(&self, monitor: &str) -> Response<Bytes> {
        self.send("GET", &format!("{monitor}/result"), &[], "").await
    }
}

#[track_caller]
fn monitor(accepted: &Response<Bytes>) -> String {
    assert_eq!(accepted.status(), StatusCode::ACCEPTED, "{accepted:?}");
    assert_eq!(accepted.headers()["preference-applied"], "respond-async");
    assert_eq!(accepted.headers()["vary"], "Prefer");
    accepted.headers()["content-location"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_did_not_opt_in_passes_untouched() {
    let service = Service::new();
    let bare = reports::app(Counts::default());
    for (method, target, status) in [
        ("GET", "/echo", 200),
        ("POST", "/echo", 200),
        ("DELETE", "/echo", 405),
        ("GET", "/nothing", 404),
        ("POST", "/reports/2026/more", 404),
        ("GET", "/operationsX", 404),
    ] {
        let ours = service.send(method, target, &[PREFER], "hello").await;
        let request = Request::builder().method(method).uri(target).header("prefer", "x");
        let theirs =
            bare.clone().oneshot(request.body(Body::from("hello")).unwrap()).await.unwrap();
        assert_eq!(
            (ours.status(), theirs.status().as_u16()),
            (theirs.status(), status),
            "{target}"
        );
        assert_eq!(ours.headers(), theirs.headers(), "{method} {target}");
        let theirs = axum::body::to_bytes(theirs.into_body(), usize::MAX).await.unwrap();
        assert_eq!(*ours.body(), theirs);
    }
    assert!(service.store.is_empty());
}

#[tokio::test]
async fn a_body_is_not_held_up() {
    let service = Service::new();
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let request = Request::post("/echo").body(Body::from_stream(stream)).unwrap();
    let mut body = service.app.clone().oneshot(request).await.unwrap().into_body();
    for piece in ["one", "two"] {
        sender.send(Ok(piece.into())).await.unwrap();
        // It comes out before the next has gone in.
        let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
}

#[tokio::test]
async fn without_preference_the_service_answers_itself() {
    let service = Service::new();
    for prefer in ["", "return=minimal", "wait=1", "respond-async=1"] {
        let answer =
            service.order("POST", "/reports/2026", &[("prefer", prefer), ("x-tenant", "a")]).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert_eq!(answer.headers()["vary"], "Prefer");
        assert_eq!(answer.headers()["location"], "/reports/2026/1");
        // What the layer does not keep is there all the same.
        assert_eq!(answer.body(), r#"{"year":2026,"title":"Sales","tenant":"a"}"#);
    }
    assert!(service.store.is_empty());
    // As large as the service itself lets it be.
    let large = service.send("PUT", "/large", &[], vec![0; 3 << 20]).await;
    assert_eq!(large.status(), StatusCode::OK);
}

#[tokio::test]
async fn with_it_the_result_is_the_same_response() {
    let service = Service::new();
    for (method, target) in [("POST", "/reports/2026"), ("PUT", "/reports/2025?sleep_ms=20")] {
        let plain = service.order(method, target, &[]).await;
        let accepted = service.order(method, target, &[PREFER]).await;
        let monitor = monitor(&accepted);
        let ended = service.ended(&monitor, &[]).await;
        assert_eq!(ended["status"], "succeeded");
        assert_eq!(ended["result"]["location"], plain.headers()["location"].to_str().unwrap());
        let result = service.result(&monitor).await;
        assert_eq!((result.status(), result.body()), (plain.status(), plain.body()));
        for (name, value) in plain.headers() {
            if !["content-length", "vary"].contains(&name.as_str()) {
                assert_eq!(result.headers().get(name), Some(value), "{name}");
            }
        }
    }
    assert_eq!(service.counts.0.load(Ordering::SeqCst), 4);
}

/// `17` at `/reports/` is `/reports/17`, wherever it is read.
#[tokio::test]
async fn what_an_answer_names_is_the_same_wherever_it_is_read() {
    let service = Service::new();
    let accepted = service.order("PUT", "/drafts/new?as=ann", &[PREFER]).await;
    let monitor = monitor(&accepted);
    let ended = service.ended(&monitor, &[]).await;
    assert_eq!(ended["result"]["location"], "/drafts/17");
    let key = ("idempotency-key", "k-1");
    service.order("PUT", "/drafts/new", &[key]).await;
    for answer in
        [service.result(&monitor).await, service.order("PUT", "/drafts/new", &[key]).await]
    {
        assert_eq!(answer.headers()["location"], "/drafts/17");
        assert_eq!(answer.headers()["content-location"], "/drafts/17?version=1");
    }
    // What is not kept is the service's own.
    let plain = service.order("PUT", "/drafts/new", &[]).await;
    assert_eq!(plain.headers()["location"], "17");
}

#[tokio::test]
async fn an_answer_in_time_is_the_plain_one() {
    let service = Service::new();
    let wait = [("prefer", "respond-async, wait=20")];
    let answer = service.order("POST", "/reports/2026?sleep_ms=20", &wait).await;
    assert_eq!(
        (answer.status(), &answer.headers()["vary"]),
        (StatusCode::CREATED, &"Prefer".parse().unwrap())
    );
    assert!(service.store.is_empty());
}

#[tokio::test]
async fn a_key_names_one_run_in_either_mode() {
    let service = Service::new();
    let key = ("idempotency-key", "k-1");
    let first = service.order("POST", "/reports/2026", &[key]).await;
    let again = service.order("POST", "/reports/2026", &[key, PREFER]).await;
    assert_eq!((first.status(), again.status()), (StatusCode::CREATED, StatusCode::CREATED));
    assert_eq!(first.body(), again.body());
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(service.counts.0.load(Ordering::SeqCst), 1);
    let bad = service.order("POST", "/reports/2026", &[("idempotency-key", "a b")]).await;
    assert_eq!(bad.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn operations_are_their_owners() {
    let service = Service::new();
    let ann = ("owner", "ann");
    let accepted = service.order("POST", "/reports/2026", &[PREFER, ann]).await;
    let monitor = monitor(&accepted);
    service.ended(&monitor, &[ann]).await;
    for other in [&[][..], &[("owner", "bob")]] {
        let answer = service.send("GET", &monitor, other, "").await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    let list = service.send("GET", "/operations?kind=http.request.once", &[ann], "").await;
    assert!(String::from_utf8_lossy(list.body()).contains(&monitor));
    // Or by a header that something in front of the service has checked.
    let by_header = mode().owner(|parts| {
        let name = parts.headers.get("x-user").and_then(|name| name.to_str().ok());
        name.and_then(|name| Owner::new(name).ok()).unwrap_or_default()
    });
    let service = Service::with(by_header, |builder| builder);
    let ann = ("x-user", "ann");
    let monitor = self::monitor(&service.order("POST", "/reports/2026", &[PREFER, ann]).await);
    assert_eq!(service.send("GET", &monitor, &[ann], "").await.status(), StatusCode::OK);
    assert_eq!(service.send("GET", &monitor, &[], "").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_service_sees_what_was_kept() {
    let fields = [
        ("cookie", "session=1"),
        ("authorization", "Bearer secret"),
        ("accept", "text/plain"),
        ("accept-encoding", "gzip"),
        ("if-match", "\"1\""),
        ("x-mine", "1"),
        ("prefer", "respond-async, return=minimal"),
        ("idempotency-key", "k"),
        ("connection", "close"),
        ("owner", "ann"),
    ];
    let kept = [
        "accept: text/plain",
        "content-length: 4",
        "idempotency-key: k",
        "if-match: \"1\"",
        "prefer: return=minimal",
    ];
    let named = mode().keep(HeaderName::from_static("x-mine"));
    for (mode, more) in [(mode(), None), (named, Some("x-mine: 1"))] {
        let service = Service::with(mode, |builder| builder);
        let accepted = service.send("PUT", "/headers", &fields, "body").await;
        let monitor = monitor(&accepted);
        service.ended(&monitor, &fields[9..]).await;
        let result = service.send("GET", &format!("{monitor}/result"), &fields[9..], "").await;
        let seen = String::from_utf8(result.body().to_vec()).unwrap();
        let expected: Vec<_> = kept.into_iter().chain(more).collect();
        assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn extensions_are_made_again() {
    let restored = mode().restore(|parts| {
        let owner = parts.extensions.get::<Owner>().and_then(Owner::name).unwrap_or("nobody");
        let tenant = Tenant(format!("the tenant of {owner}"));
        parts.extensions.insert(tenant);
    });
    let service = Service::with(restored, |builder| builder);
    let fields = [PREFER, ("owner", "ann"), ("x-tenant", "a")];
    let monitor = monitor(&service.order("POST", "/reports/2026", &fields).await);
    service.ended(&monitor, &fields[1..]).await;
    let result = service.send("GET", &format!("{monitor}/result"), &fields[1..], "").await;
    assert!(String::from_utf8_lossy(result.body()).contains("the tenant of ann"));
}

#[tokio::test]
async fn errors_are_failed_operations() {
    let once = JobPolicy::new().with_attempt_limit(2).with_backoff(Duration::ZERO, Duration::ZERO);
    let service = Service::with(mode().policy(once), |builder| builder);
    let failed = async |target: &str| {
        let monitor = monitor(&service.send("PUT", target, &[PREFER], "").await);
        let ended = service.ended(&monitor, &[]).await;
        assert_eq!(ended["status"], "failed");
        (ended["error"].clone(), service.result(&monitor).await)
    };
    let (error, result) = failed("/fail/409").await;
    assert_eq!((error["title"].as_str(), result.status().as_u16()), (Some("No report"), 409));
    assert!(result.body().ends_with(b"\"lines\":[1.10,2]}"));
    assert!(!result.headers().contains_key("set-cookie"));
    let (error, result) = failed("/panic").await;
    assert_eq!(result.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!error.to_string().contains("secret"));
    // What may pass is tried again.
    let (error, _) = failed("/fail/503").await;
    assert_eq!(
        (error["attempts"].as_u64(), &error["last_error"]["status"]),
        (Some(2), &503.into())
    );
}

#[tokio::test]
async fn contents_have_bounds() {
    let bounded = mode().max_request_bytes(100).max_response_bytes(4_999);
    let service = Service::with(bounded, |builder| builder);
    let refused = service.send("PUT", "/large", &[PREFER], vec![0; 101]).await;
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert_eq!(refused.headers()["vary"], "Prefer");
    assert!(service.store.is_empty());
    let monitor = monitor(&service.send("PUT", "/large", &[PREFER], vec![0; 100]).await);
    let error = &service.ended(&monitor, &[]).await["error"];
    assert_eq!(error["type"], "urn:problem-type:respond-async:result-too-large");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_operation() {
    let service = Service::new();
    let broken = futures_util::stream::iter([Ok("half"), Err(std::io::Error::other("gone"))]);
    let refused = service.send("PUT", "/large", &[PREFER], Body::from_stream(broken)).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(service.store.is_empty());
}

#[tokio::test]
async fn what_is_stored_waits_for_the_service() {
    let store = MemoryStore::new();
    let gateway = JobPolicy::new().with_concurrency(0);
    let accepting = Service::on(store.clone(), mode().policy(gateway), |builder| builder);
    let monitor = monitor(&accepting.order("POST", "/reports/2026", &[PREFER]).await);
    // Another process: its operations are started, and its service comes later.
    let layer = mode().start::<Body>(Operations::builder(store));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let _service = layer.layer(reports::app(Counts::default()));
    assert_eq!(accepting.ended(&monitor, &[]).await["status"], "succeeded");
    assert_eq!(accepting.counts.0.load(Ordering::SeqCst), 0);
}

#[tokio::test]
#[should_panic(expected = "once")]
async fn the_layer_goes_around_one_service() {
    let layer = mode().start::<Body>(Operations::builder(MemoryStore::new()));
    let _first = layer.layer(Router::new());
    let _second = layer.layer(Router::new());
}

/// The process that works dies: a request that may be begun again is, by another process, and one that
/// may not has failed.
#[test]
fn another_process_begins_again_what_it_may() {
    let store = MemoryStore::new();
    let process = |store: &MemoryStore| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let service = {
            let _entered = runtime.enter();
            let often = Duration::from_millis(20);
            Service::on(store.clone(), mode(), |builder| {
                builder.lease(Duration::from_secs(1)).sweep_interval(often).poll_interval(often)
            })
        };
        (runtime, service)
    };
    let (dying, service) = process(&store);
    let begun = [("PUT", "succeeded"), ("POST", "failed")].map(|(method, end)| {
        let target = "/reports/2026?sleep_ms=2000";
        let fields = [PREFER, ("owner", "ann")];
        (monitor(&dying.block_on(service.order(method, target, &fields))), end)
    });
    while service.counts.0.load(Ordering::SeqCst) < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    dying.shutdown_background();

    let (living, service) = process(&store);
    for (monitor, end) in begun {
        let ended = living.block_on(service.ended(&monitor, &[("owner", "ann")]));
        assert_eq!(ended["status"], end, "{ended}");
    }
    assert_eq!(service.counts.0.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_sees_the_same_whether_its_request_was_stored_or_not() {
    // It is a path, but what is taken for it may be more.
    for monitors in ["/monitors", "https://api.example/monitors/"] {
        sees_the_same(monitors).await;
    }
}

async fn sees_the_same(monitors: &str) {
    use std::sync::Mutex;
    let seen: std::sync::Arc<Mutex<Vec<_>>> = std::sync::Arc::default();
    let handler = {
        let seen = seen.clone();
        async move |request: axum::extract::Request| {
            let owner = request.extensions().get::<Owner>().and_then(Owner::name);
            let context = request.extensions().get::<respond_async::Context>().unwrap();
            let range = request.headers().get("content-range").cloned();
            let trace = context.trace().map(|trace| trace.parent().to_owned());
            seen.lock().unwrap().push((owner.map(str::to_owned), range, trace));
            StatusCode::CREATED
        }
    };
    let mode = AsyncMode::new([Route::put("/files/{name}")]).monitors_at(monitors).owner(|parts| {
        let name = parts.headers.get("x-user").and_then(|name| name.to_str().ok());
        name.and_then(|name| Owner::new(name).ok()).unwrap_or_default()
    });
    let operations =
        Operations::builder(MemoryStore::new()).base_url("https://api.example/v1/monitors");
    let app = mode
        .start::<Body>(operations)
        .layer(Router::new().route("/files/{name}", axum::routing::put(handler)));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for prefer in ["", "respond-async"] {
        let request = Request::put("/files/x")
            .header("x-user", "ann")
            .header("content-range", "bytes 1-2/9")
            .header("traceparent", trace)
            .header("prefer", prefer)
            .body(Body::from("ab"))
            .unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        if prefer.is_empty() {
            continue;
        }
        // A proxy in front takes `/v1` away.
        let monitor = answer.headers()["location"].to_str().unwrap();
        let monitor = monitor.strip_prefix("https://api.example/v1").unwrap();
        let request = Request::get(monitor).header("x-user", "ann").body(Body::empty()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let seen = seen.lock().unwrap();
    let expected =
        (Some("ann".to_owned()), Some("bytes 1-2/9".parse().unwrap()), Some(trace.to_owned()));
    assert_eq!(*seen, [expected.clone(), expected]);
}
