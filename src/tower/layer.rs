use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::inner::Inner;
use super::mode::AsyncMode;
use super::request::{Kept, Once, Repeatable};
use super::service::{AsyncService, BoxError, Shared};
use crate::monitor::Monitor;
use crate::operations::{Context, Operations, OperationsBuilder};

/// Puts an asynchronous mode around a service.
///
/// `B` is the body of its requests. It and the body of its answers can be made of bytes, as
/// `axum::body::Body` and `http_body_util::Full<Bytes>` can; map others.
///
/// It goes around a whole service, once: what was stored finds its way through that service again. So
/// it cannot be cloned, and `Router::layer`, which would put it around each route, does not take it;
/// say `Router::new().fallback_service(layer.layer(app))`.
///
/// ```compile_fail
/// # use respond_async::{Operations, store::MemoryStore, tower::{AsyncMode, Route}};
/// # let layer = AsyncMode::new([Route::post("/")]).start::<axum::body::Body>(Operations::builder(MemoryStore::new()));
/// let app: axum::Router = axum::Router::new().layer(layer);
/// ```
#[must_use]
pub struct AsyncLayer<B> {
    shared: Arc<Shared>,
    inner: Inner,
    body: PhantomData<fn(B)>,
}

impl AsyncMode {
    /// Starts the operations, for a service whose requests have a body of the type `B`. What was stored
    /// before waits until the layer is put around its service.
    ///
    /// # Panics
    /// As [`OperationsBuilder::start`].
    pub fn start<B>(self, operations: OperationsBuilder) -> AsyncLayer<B> {
        let inner = Inner::default();
        let run = {
            let inner = inner.clone();
            move |kept: Kept, context: Context| {
                let inner = inner.clone();
                async move { inner.run(kept, context).await }
            }
        };
        let once = run.clone();
        let operations = operations
            .job_with(self.policy, move |Repeatable(kept), context| run(kept, context))
            .job_with(self.policy.never_twice(), move |Once(kept), context| once(kept, context))
            .start();
        let monitor = match &self.monitors {
            Some(path) => Monitor::new(&operations).seen_at(path),
            None => Monitor::new(&operations),
        };
        let shared = Arc::new(Shared { mode: self, operations, monitor });
        AsyncLayer { shared, inner, body: PhantomData }
    }
}

impl<B> AsyncLayer<B> {
    /// The operations that were started, to shut them down.
    pub fn operations(&self) -> &Operations {
        &self.shared.operations
    }
}

impl<S, B, R> Layer<S> for AsyncLayer<B>
where
    S: Service<Request<B>, Response = Response<R>, Future: Send> + Clone + Send + Sync + 'static,
    B: From<Bytes> + Send + 'static,
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Service = AsyncService<S>;

    /// The service with an asynchronous mode.
    ///
    /// # Panics
    /// If it is called again.
    fn layer(&self, service: S) -> AsyncService<S> {
        let is_first = self.inner.set(service.clone(), &self.shared.mode);
        assert!(is_first, "an AsyncLayer goes around a whole service, once");
        AsyncService::new(service, Arc::clone(&self.shared))
    }
}

impl<B> fmt::Debug for AsyncLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncLayer").field("mode", &self.shared.mode).finish_non_exhaustive()
    }
}
