//! The OpenAPI document says what is answered, and nothing else. `tests/http_contract` holds each of its
//! answers against it too.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod documented;

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;
use respond_async::header::UriReference;
use respond_async::openapi::{AnswerComponent, Monitors, Negotiated, Parameter};
use respond_async::operation::{
    Change, IntoOutcome, Kind, NewOperation, Operation, OperationId, Progress,
};
use respond_async::operations::Health;
use respond_async::prefer::Preferences;
use respond_async::problem::{Problem, ProblemType, types};
use respond_async::respond::{Accepted, Created, ListView, MonitorUrls, OperationView, Response};
use respond_async::store::{IdempotencyKey, ListQuery, MemoryStore};
use respond_async::{Operations, Timestamp};
use serde_json::{Value, json};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem};
use utoipa::openapi::{Info, OpenApi, Paths};
use utoipa::{Modify, PartialSchema};

use documented::Documented;

fn document() -> OpenApi {
    let mut work = OperationBuilder::new().operation_id(Some("work"));
    work = work.response("201", utoipa::openapi::Response::new("It is done."));
    let mut work = work.build();
    Negotiated::new().idempotency_key().strict().apply(&mut work);
    let mut paths = Paths::new();
    paths.paths.insert("/work".to_owned(), PathItem::new(HttpMethod::Post, work));
    let mut document = OpenApi::new(Info::new("A service", "1.0.0"), paths);
    Monitors::default().modify(&mut document);
    document
}

/// Each value of the document, with its place.
fn everything<'a>(value: &'a Value, place: &str, found: &mut Vec<(String, &'a Value)>) {
    found.push((place.to_owned(), value));
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                everything(member, &format!("{place}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                everything(item, &format!("{place}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn what_the_document_refers_to_is_there() {
    let documented = Documented::new(&document());
    let (mut found, mut ids, mut linked) = (Vec::new(), Vec::new(), Vec::new());
    everything(documented.document(), "", &mut found);
    let mut used = HashSet::new();
    for (place, value) in &found {
        if let Some(reference) = value["$ref"].as_str() {
            documented.resolved(value);
            used.insert(reference.to_owned());
        }
        let Some(id) = value["operationId"].as_str() else { continue };
        if place.contains("/links/") { &mut linked } else { &mut ids }.push(id.to_owned());
    }
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "{ids:?}");
    assert_eq!(ids.len(), 7);
    assert!(linked.len() > 5 && linked.iter().all(|id| ids.contains(id)), "{linked:?}");

    // No component is left over but what only a service can use.
    let for_services = [
        "/headers/Allow",
        "/headers/Content-Location",
        "/parameters/RequiredIdempotencyKey",
        "/responses/MethodNotAllowed",
    ];
    for sort in ["schemas", "parameters", "headers", "responses"] {
        for name in documented.document()["components"][sort].as_object().unwrap().keys() {
            let place = format!("/{sort}/{name}");
            let is_used = used.contains(&format!("#/components{place}"));
            assert_ne!(is_used, for_services.contains(&&*place), "{place}");
        }
    }
}

#[test]
fn each_parameter_of_a_path_is_described() {
    let documented = Documented::new(&document());
    let mut seen = 0;
    for (path, item) in documented.document()["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values().filter(|value| value.is_object()) {
            let parameters = operation["parameters"].as_array().unwrap();
            let of_path: Vec<_> = parameters
                .iter()
                .map(|parameter| documented.resolved(parameter))
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| {
                    (parameter["name"].as_str().unwrap(), parameter["required"] == true)
                })
                .collect();
            let named = if path.contains("{id}") { vec![("id", true)] } else { vec![] };
            assert_eq!(of_path, named, "{path}");
            seen += of_path.len();
        }
    }
    assert_eq!(seen, 5);
}

#[test]
fn what_can_fail_by_a_condition_has_both() {
    let documented = Documented::new(&document());
    let items = documented.document()["paths"].as_object().unwrap().values();
    let operations = items.flat_map(|item| item.as_object().unwrap().values());
    let conditional: Vec<_> =
        operations.filter(|operation| !operation["responses"]["412"].is_null()).collect();
    assert_eq!(conditional.len(), 3);
    for operation in conditional {
        let parameters = operation["parameters"].as_array().unwrap();
        let names: Vec<_> =
            parameters.iter().map(|one| documented.resolved(one)["name"].as_str()).collect();
        for name in ["If-Match", "If-None-Match"] {
            assert!(names.contains(&Some(name)), "{}: {names:?}", operation["operationId"]);
        }
    }
}

#[test]
fn the_examples_are_as_their_schemas_say() {
    let documented = Documented::new(&document());
    let mut found = Vec::new();
    everything(documented.document(), "", &mut found);
    let mut checked = 0;
    for (place, value) in found {
        let examples: Vec<&Value> = match &value["examples"] {
            Value::Array(examples) => examples.iter().collect(),
            Value::Object(examples) => examples.values().map(|example| &example["value"]).collect(),
            _ => continue,
        };
        // The examples of a schema stand in it, those of a content beside it.
        let schema = if value["schema"].is_null() { value } else { &value["schema"] };
        for example in examples {
            documented.check(schema, example).unwrap_or_else(|error| panic!("{place}: {error}"));
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}

/// The types of `src/problem/types.rs`, as they stand there.
fn all_slugs() -> Vec<&'static str> {
    let source = include_str!("../../src/problem/types.rs");
    let lines = source.lines().filter_map(|line| line.trim().split_once(" = \""));
    let slugs = lines.filter_map(|(_, rest)| rest.split_once("\", \""));
    slugs.map(|(slug, _)| slug).collect()
}

#[test]
fn each_type_of_problem_is_documented_with_the_status_that_it_has() {
    let documented: Vec<ProblemType> =
        AnswerComponent::ALL.iter().flat_map(|answer| answer.problems()).copied().collect();
    for answer in AnswerComponent::ALL {
        for problem in answer.problems() {
            assert_eq!(problem.status(), answer.status(), "{}", answer.name());
        }
    }
    let slugs = all_slugs();
    assert!(slugs.len() > 25, "the types were not found");
    // How a delivery ended, which nobody is answered with.
    let of_deliveries = ["callback-failed", "callback-gone"];
    for slug in slugs.into_iter().filter(|slug| !of_deliveries.contains(slug)) {
        let uri = format!("urn:problem-type:respond-async:{slug}");
        assert!(documented.iter().any(|kind| kind.uri() == uri), "{slug} is not documented");
    }
}

#[test]
fn each_type_of_problem_is_as_the_schema_says() {
    let documented = Documented::new(&document());
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    let problems = AnswerComponent::ALL.iter().flat_map(|answer| answer.problems());
    for kind in problems.copied() {
        let problem = Problem::new(kind)
            .with_detail("Why.")
            .with_instance("/here")
            .with_extension("offset", 17);
        documented.check(&schema, &serde_json::to_value(problem).unwrap()).unwrap();
    }
    let bare = Problem::from_status(http::StatusCode::IM_A_TEAPOT);
    documented.check(&schema, &serde_json::to_value(bare).unwrap()).unwrap();
    for wrong in
        [json!([]), json!({ "status": "404" }), json!({ "status": 99 }), json!({ "title": 1 })]
    {
        assert!(documented.check(&schema, &wrong).is_err(), "{wrong}");
    }
}

/// An operation in each state, and with each thing that may be known of it there.
fn operations() -> Vec<(&'static str, Operation)> {
    let accepted: Timestamp = "2026-11-23T05:54:39Z".parse().unwrap();
    let later: Timestamp = "2026-11-23T05:54:41.25Z".parse().unwrap();
    let id = OperationId::generate(accepted).unwrap();
    let kind = Kind::new("images.enhance").unwrap();
    let apply = |operation: &Operation, change| operation.apply(&change, later).unwrap();
    let pending = NewOperation::new(id).with_kind(kind).accept(accepted);
    let running = apply(&pending, Change::Claim { lease: Duration::from_secs(30) });
    let progress = Progress::new(0.4, "sharpening");
    let working = apply(&running, Change::Progress { attempt: 1, progress });
    let asked = apply(&working, Change::Cancel);
    let created = Created::at("/images/17").into_outcome();
    let head = created.head();
    let error = Problem::new(types::INTERNAL).with_detail("No luck.").with_extension("offset", 17);
    vec![
        ("succeeded", apply(&working, Change::Succeed { attempt: 1, head })),
        ("failed", apply(&running, Change::Fail { attempt: 1, error })),
        ("canceled", apply(&asked, Change::ConfirmCancel { attempt: 1 })),
        ("canceled", apply(&pending, Change::Cancel)),
        ("pending", pending),
        ("running", running),
        ("running", working),
        ("running", asked),
    ]
}

fn content(response: &Response) -> Value {
    serde_json::from_slice(response.body().as_bytes()).unwrap()
}

#[test]
fn an_operation_is_as_the_schema_says_in_each_state() {
    let documented = Documented::new(&document());
    let operation = json!({ "$ref": "#/components/schemas/Operation" });
    let list = json!({ "$ref": "#/components/schemas/OperationList" });
    let (urls, preferences) =
        (MonitorUrls::default(), Preferences::parse(b"respond-async").unwrap());
    let mut members = HashSet::new();
    for (status, one) in operations() {
        let view = OperationView::new(&one, one.updated(), &urls);
        let told = view.to_json();
        assert_eq!(told["status"], status);
        documented.check(&operation, &told).unwrap();
        members.extend(told.as_object().unwrap().keys().cloned());

        let path = &*format!("/operations/{}", one.id());
        for (asked, response) in [
            ((&Method::POST, "/work"), view.accepted(&preferences)),
            ((&Method::GET, path), view.monitor(&HeaderMap::new())),
            ((&Method::GET, path), view.page(&HeaderMap::new())),
            ((&Method::DELETE, path), view.cancellation()),
        ] {
            let (mut head, body) = response.into_parts();
            // The monitor adds it to whatever it answers.
            head.headers.entry("vary").or_insert(HeaderValue::from_static("Accept, Prefer"));
            documented.allows(asked, head.status, &head.headers, body.as_bytes());
        }
        let next = UriReference::new("/operations?cursor=x");
        for page in [&[one.clone()][..], &[]] {
            let page = ListView::new(page, &urls).next(Some(next.clone())).into_response();
            documented.check(&list, &content(&page)).unwrap();
        }
    }
    // The states leave out nothing that the schema has.
    let described = &documented.document()["components"]["schemas"]["Operation"]["properties"];
    let described: HashSet<String> = described.as_object().unwrap().keys().cloned().collect();
    assert_eq!(members, described);
}

#[test]
fn what_is_no_operation_is_refused_by_the_schema() {
    let documented = Documented::new(&document());
    let operation = json!({ "$ref": "#/components/schemas/Operation" });
    let urls = MonitorUrls::default();
    let (_, working) = operations().pop().unwrap();
    let told = OperationView::new(&working, working.updated(), &urls).to_json();
    documented.check(&operation, &told).unwrap();
    for (member, wrong) in [
        ("id", json!("17")),
        ("kind", json!("a b")),
        ("status", json!("done")),
        ("progress", json!({ "fraction": 1.5 })),
        ("created", json!("yesterday")),
        ("attempt", json!(-1)),
        ("error", json!(null)),
        ("links", json!({})),
        ("links", json!({ "self": "a b" })),
        ("result", json!({ "status": 201 })),
        ("unheard_of", json!(1)),
    ] {
        let mut told = told.clone();
        told[member] = wrong;
        assert!(documented.check(&operation, &told).is_err(), "{member}");
    }
}

/// A service's own handlers, described by utoipa's macros.
#[allow(dead_code, reason = "only what is said of them is wanted")]
mod described {
    use super::{
        Accepted, IdempotencyKey, ListQuery, ListView, OperationView, Preferences, Problem,
    };

    #[utoipa::path(
        post,
        path = "/work",
        params(Preferences, IdempotencyKey),
        responses(
            (status = 202, response = Accepted),
            (status = 422, body = Problem, content_type = "application/problem+json"),
        )
    )]
    pub(super) fn begin() {}

    #[utoipa::path(
        get,
        path = "/work",
        params(ListQuery),
        responses((status = 200, body = ListView<'static>), (status = 203, body = OperationView<'static>))
    )]
    pub(super) fn list() {}

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(begin, list))]
    pub(super) struct Document;
}

#[test]
fn the_types_describe_themselves_to_macros() {
    let mut document = <described::Document as utoipa::OpenApi>::openapi();
    Monitors::default().modify(&mut document);
    let documented = Documented::new(&document);
    let work = &documented.document()["paths"]["/work"];
    let names = |method: &str| -> Vec<&str> {
        let parameters = work[method]["parameters"].as_array().unwrap().iter();
        parameters.map(|parameter| parameter["name"].as_str().unwrap()).collect()
    };
    assert_eq!(names("post"), ["Prefer", "Idempotency-Key"]);
    assert_eq!(names("get"), ["status", "kind", "limit", "cursor"]);
    let accepted = documented.resolved(&work["post"]["responses"]["202"]);
    assert_eq!(accepted["links"]["monitor"]["operationId"], "getOperation");
    for (operation, status, media_type, name) in [
        ("post", "422", "application/problem+json", "Problem"),
        ("get", "200", "application/json", "OperationList"),
        ("get", "203", "application/json", "Operation"),
    ] {
        let schema = &work[operation]["responses"][status]["content"][media_type]["schema"];
        assert_eq!(schema["$ref"], format!("#/components/schemas/{name}"));
        documented.resolved(schema);
    }
}

#[tokio::test]
async fn health_is_as_its_schema_says() {
    let operations = Operations::builder(MemoryStore::new()).start();
    let documented = Documented::new(&document());
    let schema = serde_json::to_value(Health::schema()).unwrap();
    let health = content(&operations.health().await.into_response());
    documented.check(&schema, &health).unwrap();
    let described: HashSet<_> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(health.as_object().unwrap().keys().collect::<HashSet<_>>(), described);
}

fn is_key(field: &str) -> bool {
    let mut headers = HeaderMap::new();
    let Ok(value) = HeaderValue::from_str(field) else { return false };
    headers.insert("idempotency-key", value);
    IdempotencyKey::from_headers(&headers).is_ok()
}

static DOCUMENTED: LazyLock<Documented> = LazyLock::new(|| Documented::new(&document()));

proptest! {
    #[test]
    fn the_pattern_of_a_key_is_what_is_taken_for_one(
        field in r#"[ \t]{0,2}"?[ -~]{0,6}(\\["\\])?"?[ ;,a]{0,3}([;=%a1* \t"\\]{0,9})"#,
    ) {
        let schema = Parameter::IdempotencyKey.object().schema;
        let schema = serde_json::to_value(schema).unwrap();
        let checked = DOCUMENTED.check(&schema, &json!(field));
        prop_assert_eq!(checked.is_ok(), is_key(&field), "{:?}", field);
    }
}

#[test]
fn the_longest_key_is_taken_and_no_longer_one() {
    let documented = Documented::new(&document());
    let schema = serde_json::to_value(Parameter::IdempotencyKey.object().schema).unwrap();
    for (field, expected) in [
        ("k".repeat(255), true),
        ("k".repeat(256), false),
        (format!("\"{}\"", "k".repeat(256)), false),
    ] {
        assert_eq!(is_key(&field), expected, "{field}");
        assert_eq!(documented.check(&schema, &json!(field)).is_ok(), expected, "{field}");
    }
}
