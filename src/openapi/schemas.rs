//! What stands in the documents that clients read, as schemas.
//!
//! The schemas are open: a member that they do not name may come with a later version.

use std::borrow::Cow;

use serde_json::{Value, json};
use utoipa::openapi::schema::{Schema, SchemaFormat, Type};
use utoipa::openapi::{ArrayBuilder, KnownFormat, Object, ObjectBuilder, Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::header::UriReference;
use crate::operation::{Kind, OperationId, Progress, Status};
use crate::problem::Problem;
use crate::respond::{Event, ListView, OperationView};
use crate::time::Timestamp;

/// The ids of operations: UUIDs of version 7 in lower case.
const ID: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$";
/// The letters of a kind.
const KIND: &str = "^[A-Za-z0-9._:/-]{1,128}$";

/// A text, described.
pub(super) fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

fn custom(name: &str) -> SchemaFormat {
    SchemaFormat::Custom(name.to_owned())
}

fn instant(description: &str) -> ObjectBuilder {
    let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
    text(description).format(Some(format))
}

fn uri(description: &str) -> ObjectBuilder {
    text(description).format(Some(custom("uri-reference")))
}

fn integer(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).description(Some(description))
}

fn status_code(description: &str) -> ObjectBuilder {
    integer(description).minimum(Some(100)).maximum(Some(599))
}

/// A reference to the schema of that type.
pub(super) fn reference<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}

macro_rules! schemas {
    ($($type:ty, $name:literal, refers to [$($inner:ty),*], $schema:expr;)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                $name.into()
            }

            #[allow(unused_variables, reason = "most refer to no other")]
            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                $(
                    schemas.push((<$inner>::name().into_owned(), <$inner>::schema()));
                    <$inner>::schemas(schemas);
                )*
            }
        }
    )*};
}

schemas! {
    OperationId, "OperationId", refers to [],
        text("The name of an operation: a UUID of version 7, in lower case.")
            .format(Some(custom("uuid"))).pattern(Some(ID)).examples([example_id()]);
    Kind, "OperationKind", refers to [],
        text("What sort of work it is, such as `images.enhance`.").pattern(Some(KIND));
    Status, "OperationStatus", refers to [],
        text("Where the operation stands. Take a state that you do not know for one that is not finished.")
            .enum_values(Some(Status::ALL.map(Status::as_str)));
    Progress, "OperationProgress", refers to [], progress();
    Timestamp, "Timestamp", refers to [], instant("An instant (RFC 3339), in UTC.");
    UriReference, "UriReference", refers to [],
        uri("A URI, or a reference relative to that of the request.");
    Problem, "Problem", refers to [], problem();
    OperationView<'_>, "Operation", refers to [OperationId, Kind, Status, Progress, Problem], operation();
    ListView<'_>, "OperationList", refers to [OperationView<'_>], list();
    Event, "OperationEvent", refers to [OperationView<'_>], event();
}

fn progress() -> ObjectBuilder {
    let fraction = ObjectBuilder::new()
        .schema_type(Type::Number)
        .description(Some("How much is done."))
        .minimum(Some(0))
        .maximum(Some(1));
    let message = text("What the work is at, in words for people.")
        .max_length(Some(Progress::MAX_MESSAGE_BYTES));
    ObjectBuilder::new()
        .description(Some("What the work last reported. What it does not know is left out."))
        .property("fraction", fraction)
        .property("message", message)
}

fn problem() -> ObjectBuilder {
    ObjectBuilder::new()
        .description(Some("What went wrong (RFC 9457). Other members say more of some types."))
        .property(
            "type",
            uri("Which problem it is; `about:blank` if it is left out. Compare this."),
        )
        .property("title", text("The type's name for people."))
        .property("status", status_code("The status that it was answered with."))
        .property("detail", text("What is special about this occurrence, in words for people."))
        .property("instance", uri("Names this occurrence."))
}

fn operation() -> ObjectBuilder {
    let result = ObjectBuilder::new()
        .description(Some("How it ended: the answer that the plain request would have got."))
        .property("status", status_code("The status of that answer."))
        .property("location", uri("What was created."))
        .property("href", uri("That answer, status, fields and content."))
        .required("status")
        .required("href");
    let links = ObjectBuilder::new()
        .property("self", uri("The status monitor."))
        .property("result", uri("The result, once there is one."))
        .property("callback", uri("The delivery to its callback, if it has one."))
        .required("self");
    let flag = Object::with_type(Type::Boolean);
    let described = [
        ("id", reference::<OperationId>().into()),
        ("kind", reference::<Kind>().into()),
        ("status", reference::<Status>().into()),
        ("created", instant("When it was accepted.").into()),
        ("updated", instant("When it last changed.").into()),
        ("attempt", integer("How often the work was begun.").minimum(Some(0)).into()),
        ("links", RefOr::from(links)),
    ];
    let optional: [(&str, RefOr<Schema>); 7] = [
        ("progress", reference::<Progress>().into()),
        ("cancel_requested", flag.into()),
        ("started", instant("When the work was begun.").into()),
        ("finished", instant("When it ended.").into()),
        ("expires", instant("Until when it can be read; there once it has ended.").into()),
        ("error", reference::<Problem>().into()),
        ("result", result.into()),
    ];
    let object = ObjectBuilder::new().description(Some(
        "A piece of work that goes on, or has ended. What is not known is left out, and never null.",
    ));
    let object = described
        .into_iter()
        .fold(object, |object, (name, schema)| object.property(name, schema).required(name));
    optional.into_iter().fold(object, |object, (name, schema)| object.property(name, schema))
}

fn list() -> ObjectBuilder {
    let operations = ArrayBuilder::new().items(reference::<OperationView<'_>>());
    let links = ObjectBuilder::new().property("next", uri("The next page, if there is one."));
    ObjectBuilder::new()
        .description(Some("A page of the caller's own operations, newest first."))
        .property("operations", operations)
        .property("links", links)
        .required("operations")
        .required("links")
}

/// OpenAPI 3.1 does not say how a stream is described. This is one event of it, as tools take it.
fn event() -> ObjectBuilder {
    let data = text("The operation as JSON.")
        .content_media_type("application/json")
        .content_schema(Some(reference::<OperationView<'_>>()));
    ObjectBuilder::new()
        .description(Some("An event of a stream: how an operation stands."))
        .property("event", text("Its name.").enum_values(Some(["operation"])))
        .property("id", text("What to send as `Last-Event-ID`, to go on after it."))
        .property("data", data)
        .property("retry", integer("After how many milliseconds to come again.").minimum(Some(0)))
}

#[cfg(feature = "tokio")]
mod health {
    use super::{
        ArrayBuilder, Cow, Object, ObjectBuilder, PartialSchema, RefOr, Schema, ToSchema, Type,
        integer, text,
    };
    use crate::operations::Health;

    schemas! {
        Health, "Health", refers to [], health();
    }

    fn well(description: &str) -> ObjectBuilder {
        text(description).enum_values(Some(["pass", "fail"]))
    }

    fn health() -> ObjectBuilder {
        let worker = ["kind", "status", "running", "concurrency"].into_iter().fold(
            ObjectBuilder::new()
                .property("kind", text("What it does."))
                .property("status", well("Whether it could claim work when it last tried."))
                .property("running", integer("How many of its jobs run here.").minimum(Some(0)))
                .property("concurrency", integer("How many may.").minimum(Some(0))),
            ObjectBuilder::required,
        );
        ["status", "store", "sweeper", "shutting_down", "workers"].into_iter().fold(
            ObjectBuilder::new()
                .description(Some("How this process and its store are doing."))
                .property("status", well("Whether all of it is well, and work is taken."))
                .property("store", well("Whether the store answers."))
                .property("sweeper", well("Whether what nobody ends is looked for."))
                .property("shutting_down", Object::with_type(Type::Boolean))
                .property("workers", ArrayBuilder::new().items(worker)),
            ObjectBuilder::required,
        )
    }
}

#[cfg(feature = "webhook")]
schemas! {
    crate::operations::Delivery, "OperationCallback", refers to [OperationId, Problem], delivery();
}

#[cfg(feature = "webhook")]
fn delivery() -> ObjectBuilder {
    let described = [
        ("id", reference::<OperationId>().into()),
        (
            "status",
            text("Where it stands.").enum_values(Some(["pending", "delivered", "dead"])).into(),
        ),
        ("attempts", integer("How often it was tried.").minimum(Some(0)).into()),
        ("updated", RefOr::from(instant("When this became so."))),
    ];
    let object = ObjectBuilder::new()
        .description(Some(
            "The state of the delivery of an operation's last change to its callback.",
        ))
        .property("last_error", reference::<Problem>())
        .property("next_attempt", instant("When it is tried again."));
    described
        .into_iter()
        .fold(object, |object, (name, schema)| object.property(name, schema).required(name))
}

pub(super) fn example_id() -> &'static str {
    "01a20742-d025-76a1-be07-8ec421a0010c"
}

/// Operations as their monitor tells of them, for those who read the document.
pub(super) fn examples() -> [(&'static str, Value); 3] {
    let monitor = "/operations/01a20742-d025-76a1-be07-8ec421a0010c";
    let result = "/operations/01a20742-d025-76a1-be07-8ec421a0010c/result";
    let operation = |status: &str, more: Value| {
        let mut operation = json!({
            "id": example_id(),
            "kind": "images.enhance",
            "status": status,
            "created": "2026-11-23T07:15:48.901Z",
            "updated": "2026-11-23T07:15:50.94Z",
            "started": "2026-11-23T07:15:48.95Z",
            "attempt": 1,
            "links": { "self": monitor },
        });
        if let (Value::Object(operation), Value::Object(more)) = (&mut operation, more) {
            operation.extend(more);
        }
        operation
    };
    let ended = json!({
        "finished": "2026-11-23T07:15:50.94Z",
        "expires": "2026-11-24T07:15:50.94Z",
        "links": { "self": monitor, "result": result },
    });
    let with = |more: Value| match (ended.clone(), more) {
        (Value::Object(mut ended), Value::Object(more)) => {
            ended.extend(more);
            Value::Object(ended)
        }
        (ended, _) => ended,
    };
    let succeeded = with(json!({
        "result": { "status": 201, "location": "/images/17", "href": result },
    }));
    let failed = with(json!({
        "error": Problem::new(crate::problem::types::DEADLINE_PASSED),
        "result": { "status": 504, "href": result },
    }));
    let running = json!({ "progress": { "fraction": 0.4, "message": "sharpening" } });
    [
        ("running", operation("running", running)),
        ("succeeded", operation("succeeded", succeeded)),
        ("failed", operation("failed", failed)),
    ]
}
