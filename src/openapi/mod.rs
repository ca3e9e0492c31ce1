//! The asynchronous mode in a service's OpenAPI document, for those who make theirs with [utoipa].
//!
//! - [`Monitors`] adds the status monitors' paths, and all components.
//! - [`Negotiated`] turns an operation of yours into one with an asynchronous mode: `Prefer`, the 202, its links
//!   to the monitor, the problems that come with it.
//! - [`AnswerComponent`] and [`Parameter`] are the components, for operations that are described by hand;
//!   [`problem_response`] is for the problems of your own.
//! - With utoipa's macros the types themselves do. [`Problem`], [`Status`], [`Progress`], [`OperationId`],
//!   [`OperationView`] and [`ListView`] are each a `body`; [`Preferences`], [`IdempotencyKey`] and [`ListQuery`] are
//!   `params`; [`Accepted`] is a `response`.
//!
//! The document is OpenAPI 3.1. How your service knows who asks (a cookie, a token) is yours to describe, as
//! the document's `security`: it holds for the monitors too.
//!
//! ```
//! use respond_async::openapi::{Monitors, Negotiated};
//! use respond_async::respond::MonitorUrls;
//! use utoipa::Modify;
//! use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem};
//! use utoipa::openapi::response::Response;
//! use utoipa::openapi::{Info, OpenApi, Paths};
//!
//! let mut upload = OperationBuilder::new()
//!     .operation_id(Some("upload"))
//!     .response("201", Response::new("The image is there."))
//!     .build();
//! Negotiated::new().idempotency_key().apply(&mut upload);
//!
//! let mut paths = Paths::new();
//! paths.paths.insert("/images".to_owned(), PathItem::new(HttpMethod::Post, upload));
//! let mut document = OpenApi::new(Info::new("Images", "1.0.0"), paths);
//! Monitors::new(&MonitorUrls::default()).modify(&mut document);
//!
//! let json = serde_json::to_value(&document)?;
//! let accepted = &json["components"]["responses"]["Accepted"];
//! assert_eq!(json["paths"]["/images"]["post"]["responses"]["202"]["$ref"], "#/components/responses/Accepted");
//! assert_eq!(accepted["links"]["monitor"]["operationId"], "getOperation");
//! assert_eq!(json["paths"]["/operations/{id}"]["get"]["operationId"], "getOperation");
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! [utoipa]: https://docs.rs/utoipa
//! [`Problem`]: crate::Problem
//! [`Status`]: crate::Status
//! [`Progress`]: crate::Progress
//! [`OperationId`]: crate::OperationId
//! [`OperationView`]: crate::respond::OperationView
//! [`Preferences`]: crate::prefer::Preferences
//! [`IdempotencyKey`]: crate::store::IdempotencyKey
//! [`ListQuery`]: crate::store::ListQuery
//! [`Accepted`]: crate::respond::Accepted

mod answer;
mod field;
mod link;
mod monitor;
mod negotiated;
mod parameter;
mod problem;
mod schemas;

use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa::openapi::schema::{Components, ComponentsBuilder};

pub use self::answer::AnswerComponent;
use self::field::Field;
pub use self::monitor::{Monitors, monitor_paths};
pub use self::negotiated::{Negotiated, NoSuchOperation};
pub use self::parameter::Parameter;
pub use self::problem::problem_response;
use crate::header::UriReference;
use crate::respond::{Event, ListView};

/// The components that [`monitor_paths`] and [`Negotiated`] refer to: schemas, parameters, answers and their
/// fields.
pub fn components() -> Components {
    let mut schemas = vec![];
    <ListView<'_> as ToSchema>::schemas(&mut schemas);
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .schema_from::<ListView<'_>>()
        .schema_from::<Event>()
        .schema_from::<UriReference>();
    #[cfg(feature = "webhook")]
    let components = components.schema_from::<crate::operations::Delivery>();
    let components = Parameter::ALL.iter().fold(components, |components, parameter| {
        components.parameter(parameter.name(), parameter.object())
    });
    let components = Field::ALL
        .into_iter()
        .fold(components, |components, field| components.header(field.name(), field.object(false)));
    let components = AnswerComponent::ALL
        .iter()
        .fold(components, |components, answer| components.response(answer.name(), answer.object()));
    components.build()
}

/// Adds the components whose names are not taken.
fn add_components(document: &mut OpenApi) {
    let ours = components();
    let theirs = document.components.get_or_insert_default();
    for (name, schema) in ours.schemas {
        theirs.schemas.entry(name).or_insert(schema);
    }
    for (name, parameter) in ours.parameters {
        theirs.parameters.entry(name).or_insert(parameter);
    }
    for (name, header) in ours.headers {
        theirs.headers.entry(name).or_insert(header);
    }
    for (name, response) in ours.responses {
        theirs.responses.entry(name).or_insert(response);
    }
}
