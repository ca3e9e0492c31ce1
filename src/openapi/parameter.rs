//! What a request may carry.

use utoipa::openapi::path::{Parameter as Object, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Required, Schema, Type};
use utoipa::{IntoParams, PartialSchema};

use super::schemas::{reference, text};
use crate::header::EntityTag;
use crate::operation::{Kind, OperationId, Status};
use crate::prefer::Preferences;
use crate::store::{IdempotencyKey, ListQuery};

/// A parameter that is a component of the document.
///
/// With utoipa's macros name the type that reads it: `params(Preferences, IdempotencyKey)`; of
/// [`OperationId`], [`EntityTag`] (`If-None-Match`) and [`ListQuery`] it can be made too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Parameter {
    /// `Prefer`, where work may become an operation.
    Prefer,
    /// `Prefer`, where only `wait` means something: a monitor.
    PreferWait,
    /// `Idempotency-Key`.
    IdempotencyKey,
    /// `Idempotency-Key`, where each request must have one.
    RequiredIdempotencyKey,
    /// `If-Match`.
    IfMatch,
    /// `If-None-Match`.
    IfNoneMatch,
    /// `Last-Event-ID`.
    LastEventId,
    /// The id of an operation, in the path.
    OperationId,
    /// The state of the operations to list.
    ListStatus,
    /// The kind of the operations to list.
    ListKind,
    /// How many operations to list.
    ListLimit,
    /// Where a page of a list begins.
    ListCursor,
}

const PREFER: &str = "What the client would like (RFC 7240): a list of preferences, separated by commas, each a \
    name, or a name and a value (`name=value`). Whatever is unknown or malformed is ignored.

- `respond-async`: rather answer 202 with a link to a status monitor than keep me waiting.
- `wait=N`: wait up to N seconds for the plain answer; with `respond-async`, 202 if it is not there by then. \
    The server has a limit of its own.
- `callback; url=\"https://…\"`: with `respond-async`, call me there when the operation has ended, where the \
    resource heeds this. `Preference-Applied` says if it does.
- `handling=strict`: refuse what would be ignored, where the resource heeds this.";

const PREFER_WAIT: &str = "`wait=N`: hold the answer until there is something new, for up to N seconds \
    (RFC 7240). The answer says by `Preference-Applied: wait` if it was held. Anything else is ignored.";

const IDEMPOTENCY_KEY: &str = "The client's own name for this request, 1 to 255 visible characters or spaces, \
    in quotes or, without comma, semicolon, quote and space, bare. A request that is repeated with its key does \
    nothing again: it is answered as the first one was, or with the same operation.";

/// What `IdempotencyKey::from_headers` takes.
const IDEMPOTENCY_KEYS: &str = concat!(
    r#"^[ \t]*("([ !#-\[\]-~]|\\["\\]){1,255}"[ \t]*"#,
    // Its parameters.
    r#"(;[ ]*[a-z*][a-z0-9_.*-]*(=(%?"([^"\\]|\\.)*"|[!#-+\--:<-~]+))?[ \t]*)*"#,
    r#"|[!#-+\--:<-~]{1,255})[ \t]*$"#,
);

impl Parameter {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Prefer,
        Self::PreferWait,
        Self::IdempotencyKey,
        Self::RequiredIdempotencyKey,
        Self::IfMatch,
        Self::IfNoneMatch,
        Self::LastEventId,
        Self::OperationId,
        Self::ListStatus,
        Self::ListKind,
        Self::ListLimit,
        Self::ListCursor,
    ];

    /// Its name among the components.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prefer => "Prefer",
            Self::PreferWait => "PreferWait",
            Self::IdempotencyKey => "IdempotencyKey",
            Self::RequiredIdempotencyKey => "RequiredIdempotencyKey",
            Self::IfMatch => "IfMatch",
            Self::IfNoneMatch => "IfNoneMatch",
            Self::LastEventId => "LastEventId",
            Self::OperationId => "OperationId",
            Self::ListStatus => "ListStatus",
            Self::ListKind => "ListKind",
            Self::ListLimit => "ListLimit",
            Self::ListCursor => "ListCursor",
        }
    }

    /// A reference to the component.
    pub fn reference(self) -> Ref {
        Ref::new(format!("#/components/parameters/{}", self.name()))
    }

    /// What it is.
    pub fn object(self) -> Object {
        match self {
            Self::Prefer => {
                header("Prefer", PREFER, examples(["respond-async", "respond-async, wait=5"]))
            }
            Self::PreferWait => header("Prefer", PREFER_WAIT, examples(["wait=20"])),
            Self::IdempotencyKey => key(Required::False),
            Self::RequiredIdempotencyKey => key(Required::True),
            Self::IfMatch => header(
                "If-Match",
                "The entity tag of what the client has seen: 412 if the operation has changed since \
                 (RFC 9110 §13.1.1).",
                examples(["\"3\""]),
            ),
            Self::IfNoneMatch => header(
                "If-None-Match",
                "The entity tag of what the client has: while that still holds, a GET is answered 304, and anything \
                 else 412 (RFC 9110 §13.1.2).",
                examples(["\"3\""]),
            ),
            Self::LastEventId => header(
                "Last-Event-ID",
                "The id of the last event that was read, to go on after it. Only for an event stream.",
                examples(["3"]),
            ),
            Self::OperationId => ParameterBuilder::new()
                .name("id")
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some("Which operation."))
                .schema(Some(reference::<OperationId>()))
                .build(),
            Self::ListStatus => {
                query("status", "Only operations in this state.", reference::<Status>())
            }
            Self::ListKind => query("kind", "Only operations of this kind.", reference::<Kind>()),
            Self::ListLimit => query("limit", "How many, at the most.", limit()),
            Self::ListCursor => query(
                "cursor",
                "Where the page begins: as the link to it says.",
                OperationId::schema(),
            ),
        }
    }
}

fn examples<const N: usize>(values: [&str; N]) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).examples(values)
}

fn limit() -> ObjectBuilder {
    let description = format!(
        "{} if nothing is said; more than {} is {1}.",
        ListQuery::DEFAULT_LIMIT,
        ListQuery::MAX_LIMIT
    );
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).description(Some(description))
}

fn key(required: Required) -> Object {
    let schema = text("").description(None::<&str>).pattern(Some(IDEMPOTENCY_KEYS));
    let schema = schema.examples(["\"8e03978e-40d5-43dd-bc93\""]);
    let mut key = header("Idempotency-Key", IDEMPOTENCY_KEY, schema);
    key.required = required;
    key
}

fn header(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Object {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

fn query(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Object {
    let mut parameter = header(name, description, schema);
    parameter.parameter_in = ParameterIn::Query;
    parameter
}

macro_rules! into_params {
    ($($type:ty: $($parameter:ident)*;)*) => {$(
        impl IntoParams for $type {
            /// Each has its place; what the macro proposes is for types that can be anywhere.
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Object> {
                vec![$(Parameter::$parameter.object()),*]
            }
        }
    )*};
}

into_params! {
    Preferences: Prefer;
    IdempotencyKey: IdempotencyKey;
    EntityTag: IfNoneMatch;
    OperationId: OperationId;
    ListQuery: ListStatus ListKind ListLimit ListCursor;
}
