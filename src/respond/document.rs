//! An operation as JSON. Absent is absent, never null.

use serde::Serialize;

use super::MonitorUrls;
use crate::header::UriReference;
use crate::operation::{Operation, OperationId, Progress, Status};
use crate::problem::Problem;
use crate::time::Timestamp;

#[derive(Serialize)]
pub(super) struct OperationDocument<'a> {
    id: OperationId,
    kind: &'a str,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<&'a Progress>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cancel_requested: bool,
    created: Timestamp,
    updated: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Problem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<ResultDocument<'a>>,
    links: LinksDocument,
}

#[derive(Serialize)]
struct ResultDocument<'a> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a UriReference>,
    href: UriReference,
}

#[derive(Serialize)]
struct LinksDocument {
    #[serde(rename = "self")]
    monitor: UriReference,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<UriReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback: Option<UriReference>,
}

#[derive(Serialize)]
pub(super) struct ListDocument<'a> {
    operations: Vec<OperationDocument<'a>>,
    links: ListLinks,
}

#[derive(Serialize)]
struct ListLinks {
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<UriReference>,
}

impl<'a> OperationDocument<'a> {
    pub(super) fn new(operation: &'a Operation, urls: &MonitorUrls) -> Self {
        Self::at(urls.monitor(operation.id()), operation, urls)
    }

    /// The same with the monitor's URL at hand.
    pub(super) fn at(monitor: UriReference, operation: &'a Operation, urls: &MonitorUrls) -> Self {
        let id = operation.id();
        let result = operation.outcome_head().map(|head| ResultDocument {
            status: head.status().as_u16(),
            location: head.location(),
            href: urls.result(id),
        });
        Self {
            id,
            kind: operation.kind().as_str(),
            status: operation.status(),
            progress: operation.progress(),
            cancel_requested: operation.is_cancel_requested(),
            created: operation.created(),
            updated: operation.updated(),
            started: operation.started(),
            finished: operation.finished(),
            expires: operation.expires(),
            attempt: operation.attempt(),
            error: operation.error(),
            links: LinksDocument {
                monitor,
                result: result.as_ref().map(|result| result.href.clone()),
                callback: operation.callback().map(|_| urls.callback(id)),
            },
            result,
        }
    }
}

impl<'a> ListDocument<'a> {
    pub(super) fn new(
        operations: &'a [Operation],
        next: Option<UriReference>,
        urls: &MonitorUrls,
    ) -> Self {
        let operations =
            operations.iter().map(|operation| OperationDocument::new(operation, urls)).collect();
        Self { operations, links: ListLinks { next } }
    }
}
