use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use http::request::Parts;

use super::route::Route;
use crate::operation::Owner;
use crate::operations::{JobPolicy, OperationsBuilder};
use crate::respond::MonitorUrls;

pub(super) type Restore = Arc<dyn Fn(&mut Parts) + Send + Sync>;

/// Which routes of a service have an asynchronous mode, and what is kept of their requests.
///
/// [Start](Self::start) it on operations, and you have the [layer](super::AsyncLayer).
#[derive(Clone)]
#[must_use]
pub struct AsyncMode {
    pub(super) routes: Vec<Route>,
    pub(super) kept: Vec<HeaderName>,
    pub(super) max_request_bytes: usize,
    pub(super) max_response_bytes: usize,
    pub(super) owner: Arc<dyn Fn(&Parts) -> Owner + Send + Sync>,
    pub(super) restore: Restore,
    pub(super) policy: JobPolicy,
    pub(super) monitors: Option<String>,
}

impl AsyncMode {
    /// The default of [`max_request_bytes`](Self::max_request_bytes): 2 MiB.
    pub const DEFAULT_MAX_REQUEST_BYTES: usize = 2 << 20;

    /// These routes opt in. Of several that match a request, the first counts.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        Self {
            routes: routes.into_iter().collect(),
            kept: Vec::new(),
            max_request_bytes: Self::DEFAULT_MAX_REQUEST_BYTES,
            max_response_bytes: OperationsBuilder::DEFAULT_MAX_OUTCOME_BYTES,
            owner: Arc::new(|parts| parts.extensions.get().cloned().unwrap_or_default()),
            restore: Arc::new(|_| ()),
            policy: JobPolicy::new(),
            monitors: None,
        }
    }

    /// Keeps that field of a request too, besides [`KEPT`](super::KEPT). Credentials that you name
    /// lie in the store until the operation has expired.
    pub fn keep(mut self, name: HeaderName) -> Self {
        self.kept.push(name);
        self
    }

    /// How large the content of a request may be that is to be stored; a larger one is answered 413.
    /// The default is [2 MiB](Self::DEFAULT_MAX_REQUEST_BYTES).
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.max_request_bytes = bytes;
        self
    }

    /// How large the content of an answer may be that is to be stored (default
    /// [16 MiB](OperationsBuilder::DEFAULT_MAX_OUTCOME_BYTES)); the operation of a larger one fails.
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.max_response_bytes = bytes;
        self
    }

    /// Says who asks (default: the [`Owner`] in the request's extensions, else the anonymous one). Ask
    /// only what is authenticated.
    pub fn owner(mut self, owner: impl Fn(&Parts) -> Owner + Send + Sync + 'static) -> Self {
        self.owner = Arc::new(owner);
        self
    }

    /// Makes again what the inner service needs in a request's extensions, before it gets a request
    /// that was stored. Its [`Owner`] and a
    /// [`Context`](crate::operations::Context) are there already.
    pub fn restore(mut self, restore: impl Fn(&mut Parts) + Send + Sync + 'static) -> Self {
        self.restore = Arc::new(restore);
        self
    }

    /// At which path the service sees the requests for monitors (default: that of the
    /// [base URL](OperationsBuilder::base_url)): for one behind a proxy that takes something away from it. Of an absolute URL
    /// it is the path.
    ///
    /// # Panics
    /// As [`MonitorUrls::new`].
    pub fn monitors_at(mut self, path: impl AsRef<str>) -> Self {
        self.monitors = Some(MonitorUrls::new(path).path().to_owned());
        self
    }

    /// How stored requests are run: how many at once, how often, for how long. Those that may not be
    /// begun again are begun [once](JobPolicy::never_twice) all the same.
    pub fn policy(mut self, policy: JobPolicy) -> Self {
        self.policy = policy;
        self
    }
}

impl fmt::Debug for AsyncMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncMode").field("routes", &self.routes).finish_non_exhaustive()
    }
}
