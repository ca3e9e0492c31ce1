//! Where answers lead, by the names that the document has for the monitor's operations.

use utoipa::openapi::link::{Link, LinkBuilder};

pub(super) const LIST: &str = "listOperations";
pub(super) const READ: &str = "getOperation";
pub(super) const DELETE: &str = "deleteOperation";
pub(super) const RESULT: &str = "getOperationResult";
pub(super) const CANCEL: &str = "cancelOperation";
#[cfg(feature = "webhook")]
pub(super) const CALLBACK: &str = "getOperationCallback";

/// A link to one of these; `id` is where the operation's id stands.
pub(super) fn link(operation: &str, id: &str, description: &str) -> Link {
    let link = LinkBuilder::new().operation_id(operation).parameter("id", id);
    link.description(description).build()
}
