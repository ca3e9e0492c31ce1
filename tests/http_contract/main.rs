//! What a client sees, row by row of the contract: one handler behind axum and behind actix, on the
//! memory store, with the same answers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

macro_rules! contract {
    ($($case:ident)*) => {
        mod behind_each_framework {
            $(
                #[test]
                fn $case() {
                    crate::front::behind_each(super::$case);
                }
            )*
        }
    };
}

#[path = "../openapi/documented.rs"]
mod documented;
mod front;
mod pages;
mod streams;
mod waiting;

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use respond_async::header::CacheControl;
use respond_async::openapi::{Monitors, Negotiated};
use respond_async::operation::IntoOutcome;
use respond_async::operations::OperationsBuilder;
use respond_async::prefer::Preferences;
use respond_async::problem::types;
use respond_async::respond::{Created, Response};
use respond_async::store::{Idempotency, MemoryStore};
use respond_async::time::{Clock, ManualClock, Timestamp};
use respond_async::{Context, OperationId, Operations, Outcome, Owner, Problem};
use serde_json::Value;
use utoipa::Modify;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem};
use utoipa::openapi::{self, Info, OpenApi, Paths};

use documented::Documented;

/// What the service's document says: no answer may be another.
static DOCUMENTED: LazyLock<Documented> = LazyLock::new(|| {
    let done = || {
        openapi::ResponseBuilder::new()
            .header("Location", openapi::Header::default())
            .header("Content-Location", openapi::Header::default())
            .header("Cache-Control", openapi::Header::default())
            .build()
    };
    let task = OperationBuilder::new().response("200", done()).response("201", done());
    let mut task = task.build();
    Negotiated::new().idempotency_key().strict().apply(&mut task);
    let mut paths = Paths::new();
    paths.paths.insert("/tasks/{what}".to_owned(), PathItem::new(HttpMethod::Post, task));
    let mut document = OpenApi::new(Info::new("Tasks", "1.0.0"), paths);
    Monitors::default().modify(&mut document);
    Documented::new(&document)
});

const HOUR: Duration = Duration::from_secs(3600);

/// A service with one negotiating route, `POST /tasks/{seconds}`, whose clock is in our hands.
struct Service {
    operations: Operations,
    store: MemoryStore,
    clock: Arc<ManualClock>,
    ids: RefCell<Vec<String>>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// What the negotiating route does, behind whichever framework.
async fn task(
    operations: &Operations,
    what: String,
    preferences: Preferences,
    owner: Owner,
    head: &Parts,
    body: &[u8],
) -> Response {
    let named = match Idempotency::from_request(&head.method, &head.uri, &head.headers, body) {
        Ok(named) => named,
        Err(problem) => return problem.into_response(),
    };
    let kick_off = operations.kick_off(&preferences).owner(owner).strict(&["return"]);
    let kick_off = kick_off.idempotency(named);
    let kick_off = if what.starts_with("overdue") { kick_off.accept_overdue() } else { kick_off };
    kick_off.respond_with(move |context| handle(what, context)).await
}

async fn handle(what: String, context: Context) -> Result<Outcome, Problem> {
    let seconds = what.trim_start_matches(char::is_alphabetic).parse().unwrap_or(0);
    context.progress(0.25, "working");
    match what.trim_end_matches(char::is_numeric) {
        "panic" => panic!("secret"),
        "fail" => return Err(Problem::new(types::INTERNAL).with_detail("no luck")),
        "ignore" => std::future::pending().await,
        "stop" => {
            context.canceled().await;
            context.check()?;
        }
        "bytes" => {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            return Ok(Outcome::with_body(
                StatusCode::OK,
                "a/b".parse().unwrap(),
                vec![0, 255, 13, 10],
            ));
        }
        _ => tokio::time::sleep(Duration::from_secs(seconds)).await,
    }
    let keep = CacheControl::private().max_age(HOUR);
    Ok(Created::at("/things/17").json(&["thing"]).cache_control(keep).into_outcome())
}

impl Service {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn with(set: impl FnOnce(OperationsBuilder) -> OperationsBuilder) -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-23T05:54:39Z".parse().unwrap()));
        let store = MemoryStore::builder().clock(Arc::clone(&clock)).build();
        let builder = Operations::builder(store.clone()).clock(Arc::clone(&clock)).retention(HOUR);
        let operations = set(builder).start();
        Self { operations, store, clock, ids: RefCell::default() }
    }

    async fn send(&self, method: Method, uri: &str, fields: &[(&str, &str)]) -> Answer {
        self.send_content(method, uri, fields, "").await
    }

    async fn send_content(
        &self,
        method: Method,
        uri: &str,
        fields: &[(&str, &str)],
        body: &'static str,
    ) -> Answer {
        let name = format!("{method} {uri} {fields:?} {body}");
        let mut request = Request::builder().method(method.clone()).uri(uri);
        for (name, value) in fields {
            match *name {
                "owner" => request = request.extension(Owner::new(value).unwrap()),
                name => request = request.header(name, *value),
            }
        }
        let request = request.body(body.into()).unwrap();
        let answer = front::send(&self.operations, request).await;
        front::note(&name, &answer, &mut self.ids.borrow_mut());
        let (parts, body) = answer.into_parts();
        DOCUMENTED.allows((&method, uri), parts.status, &parts.headers, &body);
        Answer { status: parts.status, headers: parts.headers, body: body.to_vec() }
    }

    async fn post(&self, what: &str, prefer: &str) -> Answer {
        self.send(Method::POST, &format!("/tasks/{what}"), &[("prefer", prefer)]).await
    }

    async fn get(&self, uri: &str) -> Answer {
        self.send(Method::GET, uri, &[]).await
    }

    async fn delete(&self, uri: &str) -> Answer {
        self.send(Method::DELETE, uri, &[]).await
    }

    /// Polls until the operation has ended.
    async fn ended(&self, monitor: &str) -> Answer {
        for _ in 0..1_000 {
            let answer = self.get(monitor).await;
            let status = answer.json()["status"].clone();
            if status != "pending" && status != "running" {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{monitor} does not end");
    }
}

impl Answer {
    fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn monitor(&self) -> String {
        assert_eq!(self.status, StatusCode::ACCEPTED);
        self.field("content-location").to_owned()
    }

    #[track_caller]
    fn is_problem(&self, status: u16, slug: &str) {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.field("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:problem-type:respond-async:{slug}"));
        assert_eq!(problem["status"], status);
    }
}

async fn without_preference_the_handler_answers_and_nothing_is_stored() {
    let service = Service::new();
    for prefer in ["", "return=minimal", "wait=1", "wait", "respond-sync", "x=\"respond-async\""] {
        let answer = service.post("thing2", prefer).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{prefer}");
        assert_eq!(answer.field("location"), "/things/17");
        assert_eq!(answer.field("content-location"), "/things/17");
        assert_eq!(answer.field("vary"), "Prefer");
        assert_eq!(answer.field("preference-applied"), "");
        assert_eq!(answer.body, br#"["thing"]"#);
    }
    assert!(service.store.is_empty());
}

async fn respond_async_gets_202_with_all_its_fields() {
    let service = Service::new();
    for prefer in ["respond-async", "RESPOND-ASYNC;x=1, wait=0", " , return=minimal,respond-async "]
    {
        let answer = service.post("thing2", prefer).await;
        let monitor = answer.monitor();
        assert!(monitor.starts_with("/operations/"));
        assert_eq!(answer.field("location"), monitor);
        assert_eq!(answer.field("link"), format!("<{monitor}>; rel=\"monitor\""));
        assert_eq!(answer.field("preference-applied"), "respond-async");
        assert_eq!(answer.field("vary"), "Prefer");
        assert_eq!(answer.field("cache-control"), "no-store");
        assert!(answer.field("retry-after").parse::<u32>().unwrap() >= 1);
        assert_eq!(answer.json()["status"], "running");
        assert_eq!(answer.json()["links"]["self"], monitor);
    }
    assert_eq!(service.store.len(), 3);
}

async fn the_body_of_the_202_is_what_the_monitor_says() {
    let service = Service::new();
    let accepted = service.post("silent5", "respond-async").await;
    let (before, after) = (accepted.json(), service.get(&accepted.monitor()).await.json());
    // Whatever the handler has reported since is the only difference there may be.
    for name in ["id", "kind", "status", "created", "started", "attempt", "links"] {
        assert_eq!(before[name], after[name], "{name}");
    }
    assert!(!String::from_utf8_lossy(&accepted.body).contains("null"));
}

async fn wait_gets_the_answer_if_it_is_in_time() {
    let service = Service::new();
    let in_time = service.post("thing2", "respond-async, wait=5").await;
    assert_eq!(in_time.status, StatusCode::CREATED);
    assert_eq!(in_time.field("vary"), "Prefer");
    assert!(service.store.is_empty());

    let start = tokio::time::Instant::now();
    let late = service.post("thing9", "respond-async, wait=5").await;
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(late.field("preference-applied"), "respond-async");
    // What the handler reported meanwhile is there from the beginning.
    assert_eq!(late.json()["progress"]["message"], "working");
    let ended = service.ended(&late.monitor()).await.json();
    assert_eq!(ended["result"]["location"], "/things/17");
    assert_eq!(start.elapsed().as_secs(), 9);
}

async fn wait_is_capped() {
    let service = Service::with(|builder| builder.wait_cap(Duration::from_secs(3)));
    let start = tokio::time::Instant::now();
    let answer = service.post("thing9", "respond-async, wait=99999999999999999999").await;
    assert_eq!((answer.status, start.elapsed().as_secs()), (StatusCode::ACCEPTED, 3));
}

async fn an_overdue_answer_becomes_202_only_where_the_route_lets_it() {
    let service = Service::new();
    assert_eq!(service.post("thing9", "wait=5").await.status, StatusCode::CREATED);
    let overdue = service.post("overdue9", "wait=5").await;
    assert_eq!(overdue.status, StatusCode::ACCEPTED);
    // Nobody asked for it, so nothing was applied.
    assert_eq!(overdue.field("preference-applied"), "");
    assert_eq!(service.post("overdue2", "wait=5").await.status, StatusCode::CREATED);
}

async fn bad_preferences_are_ignored_unless_handling_is_strict() {
    let service = Service::new();
    for prefer in
        ["wait=abc, respond-async", "a=\"b, respond-async\", respond-async", "foo, respond-async"]
    {
        assert_eq!(service.post("thing2", prefer).await.status, StatusCode::ACCEPTED, "{prefer}");
    }
    for prefer in ["foo", "wait=abc", "a b", "wait"] {
        let prefer = format!("handling=strict, {prefer}");
        service.post("thing2", &prefer).await.is_problem(400, "invalid-preference");
        let prefer = prefer.replace("strict", "lenient");
        assert_eq!(service.post("thing2", &prefer).await.status, StatusCode::CREATED);
    }
    let strict = service
        .post("thing2", "handling=strict, wait=3, return=minimal, wait=9, respond-async")
        .await;
    assert_eq!(strict.status, StatusCode::CREATED);
}

async fn too_much_work_is_refused_and_leaves_nothing() {
    let service = Service::with(|builder| builder.concurrency(1).queue(1));
    let running = service.post("thing3", "respond-async").await;
    assert_eq!(running.json()["status"], "running");
    let queued = service.post("thing3", "respond-async").await;
    assert_eq!(queued.json()["status"], "pending");
    assert_eq!(queued.json()["attempt"], 1);
    let refused = service.post("thing3", "respond-async").await;
    refused.is_problem(503, "overloaded");
    assert!(refused.field("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(refused.field("vary"), "Prefer");
    assert_eq!(service.store.len(), 2);

    let ended = service.ended(&queued.monitor()).await.json();
    assert_eq!(ended["status"], "succeeded");
    assert!(service.post("thing3", "respond-async").await.status == StatusCode::ACCEPTED);
}

async fn one_owner_cannot_fill_the_queue() {
    let service = Service::with(|builder| builder.owner_limit(1));
    let ann = [("owner", "ann"), ("prefer", "respond-async")];
    let bob = [("owner", "bob"), ("prefer", "respond-async")];
    let send = |fields| service.send(Method::POST, "/tasks/thing9", fields);
    assert_eq!(send(&ann).await.status, StatusCode::ACCEPTED);
    let refused = send(&ann).await;
    refused.is_problem(429, "too-many-operations");
    assert!(!refused.field("retry-after").is_empty());
    assert_eq!(send(&bob).await.status, StatusCode::ACCEPTED);
}

async fn a_monitor_is_200_in_every_state_and_304_for_a_known_revision() {
    let service = Service::new();
    let monitor = service.post("thing5", "respond-async").await.monitor();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let running = service.get(&monitor).await;
    assert_eq!(
        (running.status, running.field("content-type")),
        (StatusCode::OK, "application/json")
    );
    assert_eq!(running.field("cache-control"), "no-cache, private");
    assert!(!running.field("retry-after").is_empty());
    assert_eq!(running.json()["progress"]["fraction"], 0.25);

    let tag = running.field("etag").to_owned();
    let known = service.send(Method::GET, &monitor, &[("if-none-match", &tag)]).await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    assert_eq!((known.field("etag"), known.body.len()), (&*tag, 0));
    assert_eq!(known.field("cache-control"), "no-cache, private");

    let ended = service.ended(&monitor).await;
    assert_eq!(ended.status, StatusCode::OK);
    assert_ne!(ended.field("etag"), tag);
    assert_eq!(ended.field("retry-after"), "");
    assert_eq!(ended.field("cache-control"), "private, max-age=3600");
    let expires: Timestamp = ended.json()["expires"].as_str().unwrap().parse().unwrap();
    assert_eq!(ended.field("sunset"), expires.to_http_date());
    assert_eq!(ended.json()["result"]["status"], 201);
    assert_eq!(ended.json()["result"]["href"], format!("{monitor}/result"));
    // A poll that carries the preference of the first request begins nothing new.
    let again = service.send(Method::GET, &monitor, &[("prefer", "respond-async")]).await;
    assert_eq!((again.status, again.field("preference-applied")), (StatusCode::OK, ""));
    assert_eq!(service.store.len(), 1);
}

async fn the_result_is_the_outcome_byte_for_byte() {
    let service = Service::new();
    let monitor = service.post("bytes5", "respond-async").await.monitor();
    let early = service.get(&format!("{monitor}/result")).await;
    early.is_problem(404, "result-not-ready");
    assert!(!early.field("retry-after").is_empty());
    assert_eq!(early.field("cache-control"), "no-store");

    service.ended(&monitor).await;
    let result = service.get(&format!("{monitor}/result")).await;
    assert_eq!((result.status, result.field("content-type")), (StatusCode::OK, "a/b"));
    assert_eq!(result.body, [0, 255, 13, 10]);
    assert_eq!(result.field("cache-control"), "private, max-age=3600");
    assert_eq!(result.field("x-content-type-options"), "nosniff");

    let created = service.post("thing0", "respond-async").await.monitor();
    service.ended(&created).await;
    let result = service.get(&format!("{created}/result")).await;
    assert_eq!((result.status, result.field("location")), (StatusCode::CREATED, "/things/17"));
    assert_eq!(result.body, br#"["thing"]"#);
}

async fn errors_that_happen_late_reach_the_client_as_the_same_problem() {
    let service = Service::new();
    for what in ["fail", "panic"] {
        let at_once = service.post(what, "").await;
        assert_eq!(at_once.status, StatusCode::INTERNAL_SERVER_ERROR);
        let monitor = service.post(what, "respond-async").await.monitor();
        let ended = service.ended(&monitor).await;
        assert_eq!(
            (ended.status, &ended.json()["status"]),
            (StatusCode::OK, &Value::from("failed"))
        );
        assert_eq!(ended.json()["error"], at_once.json());
        let result = service.get(&format!("{monitor}/result")).await;
        assert_eq!((result.status, &result.body), (at_once.status, &at_once.body));
        assert!(!String::from_utf8_lossy(&ended.body).contains("secret"));
    }
}

async fn delete_cancels_what_lives_and_forgets_what_has_ended() {
    let service = Service::with(|builder| builder.cancel_grace(Duration::from_secs(2)));
    for what in ["stop", "ignore"] {
        let monitor = service.post(what, "respond-async").await.monitor();
        let canceling = service.delete(&monitor).await;
        assert_eq!(canceling.status, StatusCode::ACCEPTED);
        assert_eq!(canceling.field("content-location"), monitor);
        assert_eq!(canceling.json()["cancel_requested"], true);
        let ended = service.ended(&monitor).await.json();
        assert_eq!(ended["status"], "canceled", "{what}");
        service.get(&format!("{monitor}/result")).await.is_problem(404, "result-not-available");

        assert_eq!(service.delete(&monitor).await.status, StatusCode::NO_CONTENT);
        service.delete(&monitor).await.is_problem(404, "not-found");
        service.get(&monitor).await.is_problem(404, "not-found");
    }
    assert!(service.store.is_empty());
}

async fn conditions_hold_for_each_method() {
    let service = Service::new();
    let monitor = service.post("thing5", "respond-async").await.monitor();
    let tag = service.get(&monitor).await.field("etag").to_owned();
    let cancel = format!("{monitor}/cancel");
    let own = ("sec-fetch-site", "same-origin");
    for (method, uri, fields) in [
        (Method::GET, &monitor, &[("if-match", "\"none\"")][..]),
        (Method::GET, &monitor, &[("if-match", "\"none\""), ("accept", "text/event-stream")]),
        (Method::DELETE, &monitor, &[("if-none-match", "*")]),
        (Method::DELETE, &monitor, &[("if-none-match", &tag)]),
        (Method::POST, &cancel, &[("if-match", "\"none\""), own]),
        (Method::POST, &cancel, &[("if-none-match", "*"), own]),
    ] {
        let answer = service.send(method, uri, fields).await;
        answer.is_problem(412, "precondition-failed");
    }
    let unchanged = service.get(&monitor).await;
    assert_eq!(unchanged.json()["cancel_requested"], Value::Null);
    let seen = [("if-match", &*tag), ("if-none-match", &tag)];
    let answer = service.send(Method::GET, &monitor, &seen).await;
    assert_eq!(answer.status, StatusCode::NOT_MODIFIED);
    let seen = [("if-match", &*tag), ("if-none-match", "\"none\"")];
    let answer = service.send(Method::DELETE, &monitor, &seen).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
}

async fn delete_is_not_done_to_what_has_changed_since() {
    let service = Service::new();
    let monitor = service.post("thing5", "respond-async").await.monitor();
    let live = service.get(&monitor).await;
    let seen = live.field("etag").to_owned();
    service.ended(&monitor).await;
    let delete =
        async |tag: &str| service.send(Method::DELETE, &monitor, &[("if-match", tag)]).await;
    for tag in [&*seen, "\"none\"", "W/\"3\"", ""] {
        delete(tag).await.is_problem(412, "precondition-failed");
    }
    let ended = service.get(&monitor).await;
    assert_eq!(ended.json()["status"], "succeeded", "its result is there still");
    assert_eq!(delete(ended.field("etag")).await.status, StatusCode::NO_CONTENT);
}

async fn a_queued_operation_is_canceled_at_once_and_never_runs() {
    let service = Service::with(|builder| builder.concurrency(1));
    let running = service.post("thing5", "respond-async").await.monitor();
    let queued = service.post("thing5", "respond-async").await.monitor();
    assert_eq!(service.delete(&queued).await.json()["status"], "canceled");
    let ended = service.ended(&running).await.json();
    assert_eq!(ended["status"], "succeeded");
    let canceled = service.get(&queued).await.json();
    assert_eq!(
        (&canceled["status"], &canceled["started"]),
        (&Value::from("canceled"), &Value::Null)
    );
}

async fn what_has_expired_is_410_and_what_never_was_is_404() {
    let service = Service::with(|builder| builder.sweep_interval(Duration::from_secs(60)));
    let monitor = service.post("thing0", "respond-async").await.monitor();
    service.ended(&monitor).await;
    service.clock.advance(Duration::from_millis(3_599_999));
    assert_eq!(service.get(&monitor).await.status, StatusCode::OK);
    service.clock.advance(Duration::from_millis(1));
    // Gone for its readers at once, and for the store with the next sweep.
    for uri in [monitor.clone(), format!("{monitor}/result")] {
        let gone = service.get(&uri).await;
        gone.is_problem(410, "expired");
        assert_eq!(gone.field("cache-control"), "no-store");
    }
    service.delete(&monitor).await.is_problem(410, "expired");
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(service.store.is_empty());
    service.get(&monitor).await.is_problem(410, "expired");

    for id in ["0", "x/y/z", "01932f0e-7a5b-4c3d-9e1f-0123456789ab", "%00", "..%2f"] {
        service.get(&format!("/operations/{id}")).await.is_problem(404, "not-found");
    }
}

async fn another_owners_operation_is_an_unknown_one() {
    let service = Service::new();
    let ann = [("owner", "ann"), ("prefer", "respond-async")];
    let accepted = service.send(Method::POST, "/tasks/thing5", &ann).await;
    let monitor = accepted.monitor();
    let unknown = OperationId::generate(service.clock.now()).unwrap();
    let unknown = format!("/operations/{unknown}");
    for who in [&[][..], &[("owner", "bob")]] {
        for (method, suffix) in [(Method::GET, ""), (Method::GET, "/result"), (Method::DELETE, "")]
        {
            let foreign = service.send(method.clone(), &format!("{monitor}{suffix}"), who).await;
            let absent = service.send(method, &format!("{unknown}{suffix}"), who).await;
            foreign.is_problem(404, "not-found");
            assert_eq!(foreign.headers, absent.headers);
            assert_eq!(foreign.body, absent.body);
        }
    }
    let own = service.send(Method::GET, &monitor, &ann[..1]).await;
    assert_eq!((own.status, &own.json()["status"]), (StatusCode::OK, &Value::from("running")));
}

async fn a_list_holds_its_callers_own_newest_first() {
    let service = Service::new();
    for owner in ["ann", "bob", "ann", "ann"] {
        let fields = [("owner", owner), ("prefer", "respond-async")];
        service.send(Method::POST, "/tasks/thing0", &fields).await.monitor();
        service.clock.advance(Duration::from_millis(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ids = |answer: &Answer| -> Vec<String> {
        let list = answer.json();
        let list = list["operations"].as_array().unwrap();
        list.iter().map(|operation| operation["id"].as_str().unwrap().to_owned()).collect()
    };
    let ann = [("owner", "ann")];
    let all = service.send(Method::GET, "/operations", &ann).await;
    assert_eq!((ids(&all).len(), all.field("link")), (3, ""));
    assert_eq!(all.field("cache-control"), "no-cache, private");
    assert!(ids(&all).is_sorted_by(|newer, older| newer > older));

    let first = service.send(Method::GET, "/operations?limit=2&status=succeeded", &ann).await;
    let next = first.json()["links"]["next"].as_str().unwrap().to_owned();
    assert_eq!(first.field("link"), format!("<{next}>; rel=\"next\""));
    let second = service.send(Method::GET, &next, &ann).await;
    assert_eq!([ids(&first), ids(&second)].concat(), ids(&all));
    assert_eq!(second.json()["links"], serde_json::json!({}));

    assert!(ids(&service.send(Method::GET, "/operations?status=failed", &ann).await).is_empty());
    assert!(ids(&service.send(Method::GET, "/operations?kind=x", &ann).await).is_empty());
    service.send(Method::GET, "/operations?limit=x", &ann).await.is_problem(400, "invalid-query");
    service.get("/operations").await.is_problem(404, "owner-required");
}

async fn methods_that_a_monitor_does_not_know_are_405() {
    let service = Service::new();
    let monitor = service.post("thing5", "respond-async").await.monitor();
    for (uri, allow) in [
        (monitor.clone(), "GET, HEAD, DELETE"),
        (format!("{monitor}/result"), "GET, HEAD"),
        ("/operations".to_owned(), "GET, HEAD"),
    ] {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::from_bytes(b"X").unwrap()]
        {
            let answer = service.send(method, &uri, &[]).await;
            answer.is_problem(405, "method-not-allowed");
            assert_eq!(answer.field("allow"), allow);
        }
    }
    let head = service.send(Method::HEAD, &monitor, &[]).await;
    let get = service.get(&monitor).await;
    assert_eq!((head.status, head.field("etag")), (StatusCode::OK, get.field("etag")));
}

async fn shutdown_answers_what_waits_and_records_what_it_interrupts() {
    let service = Service::new();
    let short = service.post("thing1", "respond-async").await.monitor();
    let long = service.post("ignore", "respond-async").await.monitor();
    let waiting = service.post("ignore", "respond-async, wait=20");
    let shutdown = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        service.operations.shutdown(Duration::from_secs(3)).await
    };
    let refused = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        service.post("thing1", "respond-async").await
    };
    let (waiting, interrupted, refused) = tokio::join!(waiting, shutdown, refused);
    assert_eq!(interrupted, 2);
    for answer in [waiting, refused] {
        answer.is_problem(503, "shutting-down");
        assert!(!answer.field("retry-after").is_empty());
    }
    assert_eq!(service.get(&short).await.json()["status"], "succeeded");
    let ended = service.get(&long).await.json();
    assert_eq!(ended["error"]["type"], types::INTERRUPTED.uri());
    // The plain answer is nothing that could be lost.
    assert_eq!(service.post("thing1", "").await.status, StatusCode::CREATED);
}

async fn an_answer_too_large_to_keep_fails_the_operation() {
    let service = Service::with(|builder| builder.max_outcome_bytes(3));
    let monitor = service.post("bytes0", "respond-async").await.monitor();
    let ended = service.ended(&monitor).await.json();
    assert_eq!(ended["error"]["type"], types::RESULT_TOO_LARGE.uri());
    assert_eq!(service.post("bytes0", "").await.body.len(), 4);
}

async fn absolute_urls_come_from_the_configuration_and_never_from_host() {
    let service = Service::with(|builder| builder.base_url("https://api.example/operations/"));
    let fields =
        [("prefer", "respond-async"), ("host", "evil.example"), ("x-forwarded-host", "evil")];
    let accepted = service.send(Method::POST, "/tasks/thing0", &fields).await;
    let path = accepted.monitor();
    let path = path.strip_prefix("https://api.example").unwrap();
    assert_eq!(service.ended(path).await.json()["links"]["self"], accepted.field("location"));
}

async fn a_request_with_a_key_is_one_operation() {
    let service = Service::new();
    let service = &service;
    let send = |what: &'static str, body, prefer| {
        let fields = [("idempotency-key", "\"k-1\""), ("owner", "ann"), ("prefer", prefer)];
        async move { service.send_content(Method::POST, &format!("/tasks/{what}"), &fields, body).await }
    };
    let first = send("thing5", "a", "respond-async").await;
    let again = send("thing5", "a", "respond-async").await;
    assert_eq!(again.monitor(), first.monitor());
    assert_eq!(again.field("idempotency-replayed"), "true");
    send("thing5", "b", "respond-async").await.is_problem(422, "idempotency-key-reused");

    tokio::time::sleep(Duration::from_secs(6)).await;
    for prefer in ["", "respond-async", "respond-async, wait=1"] {
        let replayed = send("thing5", "a", prefer).await;
        assert_eq!((replayed.status, &*replayed.body), (StatusCode::CREATED, &br#"["thing"]"#[..]));
        assert_eq!(replayed.field("idempotency-replayed"), "true");
        assert_eq!(replayed.field("vary"), "Prefer");
    }
    assert_eq!(service.store.len(), 1);
    let fields = [("idempotency-key", "a b")];
    let bad = service.send(Method::POST, "/tasks/thing0", &fields).await;
    bad.is_problem(400, "invalid-idempotency-key");
}

contract! {
    a_request_with_a_key_is_one_operation
    without_preference_the_handler_answers_and_nothing_is_stored
    respond_async_gets_202_with_all_its_fields
    the_body_of_the_202_is_what_the_monitor_says
    wait_gets_the_answer_if_it_is_in_time
    wait_is_capped
    an_overdue_answer_becomes_202_only_where_the_route_lets_it
    bad_preferences_are_ignored_unless_handling_is_strict
    too_much_work_is_refused_and_leaves_nothing
    one_owner_cannot_fill_the_queue
    a_monitor_is_200_in_every_state_and_304_for_a_known_revision
    the_result_is_the_outcome_byte_for_byte
    errors_that_happen_late_reach_the_client_as_the_same_problem
    delete_cancels_what_lives_and_forgets_what_has_ended
    conditions_hold_for_each_method
    delete_is_not_done_to_what_has_changed_since
    a_queued_operation_is_canceled_at_once_and_never_runs
    what_has_expired_is_410_and_what_never_was_is_404
    another_owners_operation_is_an_unknown_one
    a_list_holds_its_callers_own_newest_first
    methods_that_a_monitor_does_not_know_are_405
    shutdown_answers_what_waits_and_records_what_it_interrupts
    an_answer_too_large_to_keep_fails_the_operation
    absolute_urls_come_from_the_configuration_and_never_from_host
}
