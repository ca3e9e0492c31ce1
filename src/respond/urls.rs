use crate::header::UriReference;
use crate::operation::OperationId;

/// Where the status monitors of a service are.
///
/// ```
/// use respond_async::respond::MonitorUrls;
///
/// let urls = MonitorUrls::new("https://images.example/operations");
/// assert_eq!(urls.list().as_str(), "https://images.example/operations");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorUrls {
    base: UriReference,
}

impl MonitorUrls {
    /// The path at which monitors are if nothing else is said.
    pub const DEFAULT_BASE: &'static str = "/operations";

    /// Monitors are below `base`: a path of this origin (`/operations`), or an absolute URL where the
    /// service knows its own public address. It is never made of a request's `Host`.
    pub fn new(base: impl AsRef<str>) -> Self {
        Self { base: UriReference::new(base.as_ref().trim_end_matches('/')) }
    }

    /// The list of an owner's operations.
    pub fn list(&self) -> UriReference {
        self.base.clone()
    }

    /// The status monitor of an operation.
    pub fn monitor(&self, id: OperationId) -> UriReference {
        UriReference::new(format!("{}/{id}", self.base))
    }

    /// The result of an operation.
    pub fn result(&self, id: OperationId) -> UriReference {
        UriReference::new(format!("{}/{id}/result", self.base))
    }
}

impl Default for MonitorUrls {
    fn default() -> Self {
        Self::new(Self::DEFAULT_BASE)
    }
}
