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
        let (origin, path) = split(base);
        let is_path = path.starts_with('/') && !path.contains(['?', '#']);
        let is_host = origin.is_empty() && path.starts_with("//");
        assert!(
            is_path && !is_host && !path.trim_matches('/').is_empty(),
            "the base of the monitors is {base:?}, not a path such as /operations or a URL with one"
        );
        Self { base: UriReference::new(base.trim_end_matches('/')) }
    }

    /// Scheme and authority of an absolute URL; of a path, nothing.
    #[cfg(any(feature = "openapi", feature = "tokio"))]
    pub(crate) fn origin(&self) -> &str {
        split(self.base.as_str()).0
    }

    /// The path that the monitors are below, without a slash at its end.
    #[cfg(any(feature = "openapi", feature = "tokio"))]
    pub(crate) fn path(&self) -> &str {
        split(self.base.as_str()).1
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

/// The origin of an absolute URL, or nothing, and the path.
fn split(url: &str) -> (&str, &str) {
    let path = url.find("://").map_or(0, |colon| {
        let authority = colon + 3;
        url[authority..].find('/').map_or(url.len(), |slash| authority + slash)
    });
    url.split_at(path)
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

    #[cfg(any(feature = "openapi", feature = "tokio"))]
    #[test]
    fn a_base_is_an_origin_and_a_path() {
        for (base, origin, path) in [
            ("/operations", "", "/operations"),
            ("/a/b/", "", "/a/b"),
            ("https://api.example/v1/operations/", "https://api.example", "/v1/operations"),
            ("http://[::1]:3000//x", "http://[::1]:3000", "//x"),
        ] {
            let urls = MonitorUrls::new(base);
            assert_eq!((urls.origin(), urls.path()), (origin, path));
        }
    }
}
