//! The paths of the status monitors.

use utoipa::Modify;
#[cfg(feature = "webhook")]
use utoipa::openapi::Content;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, PathItem, PathItemBuilder};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::server::Server;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{OpenApi, Paths};

use super::field::Field;
use super::link::{CANCEL, DELETE, LIST, READ, RESULT};
use super::{AnswerComponent, Parameter, add_components};
#[cfg(feature = "webhook")]
use super::{link::CALLBACK, schemas::reference};
#[cfg(feature = "webhook")]
use crate::operations::Delivery;
use crate::respond::MonitorUrls;

/// Under which the monitor's operations are listed.
const TAG: &str = "Operations";

/// Adds the status monitors to a document: their paths, and the components that these are made of.
///
/// It is a [`Modify`]: with utoipa's macros, for what `openapi()` gives. What the document has already,
/// under the same name, stays.
///
/// ```
/// use respond_async::openapi::Monitors;
/// use respond_async::respond::MonitorUrls;
/// use utoipa::Modify;
/// use utoipa::openapi::{Info, OpenApi, Paths};
///
/// let mut document = OpenApi::new(Info::new("Images", "1.0.0"), Paths::new());
/// Monitors::new(&MonitorUrls::new("/jobs")).modify(&mut document);
/// assert!(document.paths.paths.contains_key("/jobs/{id}"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Monitors {
    urls: MonitorUrls,
}

impl Monitors {
    /// The monitors at these URLs: [`Operations::urls`](crate::operations::Operations::urls).
    pub fn new(urls: &MonitorUrls) -> Self {
        Self { urls: urls.clone() }
    }
}

impl Modify for Monitors {
    fn modify(&self, document: &mut OpenApi) {
        add_components(document);
        document.paths.merge(monitor_paths(&self.urls));
        let tag = TagBuilder::new()
            .name(TAG)
            .description(Some("Work that goes on, or has ended: status, result, cancellation."))
            .build();
        let tags = document.tags.get_or_insert_default();
        if !tags.iter().any(|known| known.name == tag.name) {
            tags.push(tag);
        }
    }
}

/// The paths of the monitors at these URLs. They refer to [`components`](super::components).
///
/// Where the URLs are absolute, the paths name their origin as their server.
pub fn monitor_paths(urls: &MonitorUrls) -> Paths {
    let (origin, base) = (urls.origin(), urls.path());
    let servers = || (!origin.is_empty()).then(|| vec![Server::new(origin)]);
    let item = |operations: Vec<(HttpMethod, Operation)>| -> PathItem {
        let item = PathItemBuilder::new().servers(servers());
        operations
            .into_iter()
            .fold(item, |item, (method, operation)| item.operation(method, operation))
            .build()
    };
    let mut paths = Paths::new();
    let list = item(vec![(HttpMethod::Get, list_operation())]);
    paths.paths.insert(base.to_owned(), list);
    paths.paths.insert(
        format!("{base}/{{id}}"),
        item(vec![(HttpMethod::Get, read_operation()), (HttpMethod::Delete, delete_operation())]),
    );
    let result = item(vec![(HttpMethod::Get, result_operation())]);
    paths.paths.insert(format!("{base}/{{id}}/result"), result);
    #[cfg(feature = "webhook")]
    {
        let callback = item(vec![(HttpMethod::Get, callback_operation())]);
        paths.paths.insert(format!("{base}/{{id}}/callback"), callback);
    }
    let cancel = item(vec![(HttpMethod::Post, cancel_operation())]);
    paths.paths.insert(format!("{base}/{{id}}/cancel"), cancel);
    paths
}

fn described(
    id: &str,
    summary: &str,
    parameters: &[Parameter],
    answers: &[AnswerComponent],
) -> OperationBuilder {
    let operation = OperationBuilder::new().tag(TAG).operation_id(Some(id)).summary(Some(summary));
    let operation = parameters
        .iter()
        .fold(operation, |operation, parameter| operation.parameter_ref(parameter.reference()));
    answers.iter().fold(operation, |operation, answer| {
        operation.response(answer.status().as_str(), answer.reference())
    })
}

fn list_operation() -> Operation {
    let parameters = [
        Parameter::ListStatus,
        Parameter::ListKind,
        Parameter::ListLimit,
        Parameter::ListCursor,
        Parameter::LastEventId,
    ];
    let answers = [
        AnswerComponent::List,
        AnswerComponent::BadQuery,
        AnswerComponent::NoList,
        AnswerComponent::TooManyPolls,
        AnswerComponent::StoreUnavailable,
    ];
    described(LIST, "The caller's own operations, newest first", &parameters, &answers).build()
}

fn read_operation() -> Operation {
    let parameters = [
        Parameter::OperationId,
        Parameter::PreferWait,
        Parameter::IfMatch,
        Parameter::IfNoneMatch,
        Parameter::LastEventId,
    ];
    let answers = [
        AnswerComponent::State,
        AnswerComponent::NoMoreEvents,
        AnswerComponent::NotModified,
        AnswerComponent::Changed,
        AnswerComponent::NotFound,
        AnswerComponent::Expired,
        AnswerComponent::TooManyPolls,
        AnswerComponent::StoreUnavailable,
    ];
    described(READ, "The status monitor: how an operation stands", &parameters, &answers).build()
}

fn delete_operation() -> Operation {
    let answers = [
        AnswerComponent::CancelRequested,
        AnswerComponent::Forgotten,
        AnswerComponent::Changed,
        AnswerComponent::NotFound,
        AnswerComponent::Expired,
        AnswerComponent::TooManyPolls,
        AnswerComponent::StoreUnavailable,
    ];
    let summary = "Requests an operation's cancellation, or forgets it once it has ended";
    let parameters = [Parameter::OperationId, Parameter::IfMatch, Parameter::IfNoneMatch];
    described(DELETE, summary, &parameters, &answers).build()
}

fn result_operation() -> Operation {
    let answers = [
        AnswerComponent::NoResult,
        AnswerComponent::Expired,
        AnswerComponent::TooManyPolls,
        AnswerComponent::ResultUnavailable,
    ];
    let outcome = ResponseBuilder::new()
        .description(
            "The answer that the plain request would have got: its status, its fields, its content.",
        )
        .header_ref(Field::CacheControl.name(), Field::CacheControl.reference())
        .header_ref(Field::Location.name(), Field::Location.reference())
        .header_ref(Field::Sunset.name(), Field::Sunset.reference())
        .build();
    described(RESULT, "What an operation ended with", &[Parameter::OperationId], &answers)
        .response("default", outcome)
        .build()
}

fn cancel_operation() -> Operation {
    let answers = [
        AnswerComponent::BackToPage,
        AnswerComponent::CrossSite,
        AnswerComponent::Changed,
        AnswerComponent::NotFound,
        AnswerComponent::Expired,
        AnswerComponent::TooManyPolls,
        AnswerComponent::StoreUnavailable,
    ];
    let parameters = [Parameter::OperationId, Parameter::IfMatch, Parameter::IfNoneMatch];
    described(CANCEL, "What the button of a page asks", &parameters, &answers)
        .description(Some(
            "Requests the operation's cancellation, for a page of the same origin, as the browser says by \
             `Sec-Fetch-Site` or `Origin`. Other clients use DELETE.",
        ))
        .build()
}

#[cfg(feature = "webhook")]
fn callback_operation() -> Operation {
    let answers = [
        AnswerComponent::NotFound,
        AnswerComponent::Expired,
        AnswerComponent::TooManyPolls,
        AnswerComponent::StoreUnavailable,
    ];
    let delivery = ResponseBuilder::new()
        .description("The state of the delivery of its last change to its callback.")
        .header_ref(Field::CacheControl.name(), Field::CacheControl.reference())
        .header_ref(Field::Vary.name(), Field::Vary.reference())
        .content("application/json", Content::new(Some(reference::<Delivery>())))
        .build();
    described(
        CALLBACK,
        "The delivery to an operation's callback",
        &[Parameter::OperationId],
        &answers,
    )
    .response("200", delivery)
    .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_where_the_monitors_are() {
        for (base, server, list) in [
            ("/operations", None, "/operations"),
            ("https://api.example/v1/jobs/", Some("https://api.example"), "/v1/jobs"),
        ] {
            let paths = monitor_paths(&MonitorUrls::new(base)).paths;
            let item = &paths[list];
            let servers = item.servers.iter().flatten().map(|server| &*server.url);
            assert_eq!(servers.collect::<Vec<_>>(), Vec::from_iter(server), "{base}");
            assert!(paths[&format!("{list}/{{id}}/result")].get.is_some(), "{base}");
            assert_eq!(paths.len(), 4 + usize::from(cfg!(feature = "webhook")), "{base}");
        }
    }
}
