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
    /// The default base, the path at which monitors are.
    pub const DEFAULT_BASE: &'static str = "/operations";

    /// Monitors are below `base`: a path of this origin (`/operations`), or an absolute URL where the
    /// service knows its own public address. It is never made of a request's `Host`.
    ///
    /// # Panics
    /// If `base` is neither, has no path but `/` (the monitors would take all of the service's requests),
    /// or has a query or a fragment. It is a setting of the program, not something that a client says.
    pub fn new(base: impl AsRef<str>) -> Self {
        let base = base.as_ref();
        let path = match base.split_once("://") {
            Some((_, rest)) => rest.find('/').map(|at| &rest[at..]),
            None => Some(base).filter(|path| !path.starts_with("//")),
        };
        let path = path.filter(|path| path.starts_with('/') && !path.trim_matches('/').is_empty());
        assert!(
            path.is_some_and(|path| !path.contains(['?', '#'])),
            "the base of the monitors is {base:?}, not a path such as /operations or a URL with one"
        );
        Self { base: UriReference::new(base.trim_end_matches('/')) }
    }

    /// The list of an owner's operations.
    pub fn list(&self) -> UriReference {
        self.base.clone()
    }

    /// The status monitor of an operation.
    pub fn monitor(&self, id: OperationId) -> UriReference {
        self.below(id, "")
    }

    /// The result of an operation.
    pub fn result(&self, id: OperationId) -> UriReference {
        self.below(id, "/result")
    }

    /// Where a page's button sends the request for an operation's cancellation.
    pub(crate) fn cancel(&self, id: OperationId) -> UriReference {
        self.below(id, "/cancel")
    }

    /// The state of the delivery of an operation's last change to its callback.
    pub(crate) fn callback(&self, id: OperationId) -> UriReference {
        self.below(id, "/callback")
    }

    fn below(&self, id: OperationId, rest: &str) -> UriReference {
        let mut buffer = uuid::Uuid::encode_buffer();
        let id: &str = id.as_uuid().hyphenated().encode_lower(&mut buffer);
        UriReference::from_valid([self.base.as_str(), "/", id, rest].concat())
    }
}

impl Default for MonitorUrls {
    fn default() -> Self {
        Self::new(Self::DEFAULT_BASE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_has_a_path_of_its_own() {
        for base in ["/operations", "/a/b/", "https://api.example/v1/operations", "/ä"] {
            MonitorUrls::new(base);
        }
        let wrong = [
            "",
            "/",
            "//",
            "//host/x",
            "operations",
            "https://api.example",
            "http://a/",
            "/x?y",
            "/x#y",
        ];
        for base in wrong {
            std::panic::catch_unwind(|| MonitorUrls::new(base)).unwrap_err();
        }
    }
}
