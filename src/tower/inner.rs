//! The way of stored requests through the inner service.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::watch;
use tower_service::Service;

use super::mode::{AsyncMode, Restore};
use super::request::Kept;
use super::resolve::resolve_locations;
use super::service::BoxError;
use crate::operation::Outcome;
use crate::operations::Context;
use crate::problem::{Problem, types};

/// The service that stored requests are run through, once there is one.
#[derive(Clone)]
pub(super) struct Inner(watch::Sender<Option<Arc<dyn Run>>>);

impl Default for Inner {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Inner {
    /// Gives the service. False if there is one already.
    pub(super) fn set<S, B, R>(&self, service: S, mode: &AsyncMode) -> bool
    where
        S: Service<Request<B>, Response = Response<R>, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: From<Bytes> + Send + 'static,
        R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let restore = Arc::clone(&mode.restore);
        let max_response_bytes = mode.max_response_bytes;
        let through = Through { service, body: PhantomData, restore, max_response_bytes };
        self.0.send_if_modified(|inner| {
            let is_first = inner.is_none();
            inner.get_or_insert_with(|| Arc::new(through));
            is_first
        })
    }

    /// Runs a stored request through the service, and gives its answer.
    pub(super) async fn run(&self, kept: Kept, context: Context) -> Result<Outcome, Problem> {
        let mut service = self.0.subscribe();
        // It cannot be closed: this has the other end too.
        let ready = service.wait_for(Option::is_some).await.ok().and_then(|inner| inner.clone());
        match ready {
            Some(inner) => inner.run(kept, context).await,
            None => Err(Problem::new(types::INTERNAL)),
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Outcome, Problem>> + Send>>;

/// A service whose types are known to itself alone.
trait Run: Send + Sync {
    fn run(&self, kept: Kept, context: Context) -> Answer;
}

struct Through<S, B> {
    service: S,
    body: PhantomData<fn(B)>,
    restore: Restore,
    max_response_bytes: usize,
}

impl<S, B, R> Run for Through<S, B>
where
    S: Service<Request<B>, Response = Response<R>, Future: Send> + Clone + Send + Sync + 'static,
    B: From<Bytes> + Send + 'static,
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn run(&self, kept: Kept, context: Context) -> Answer {
        let mut service = self.service.clone();
        let target = kept.target.path_and_query().cloned();
        let request = request(kept, context, &*self.restore);
        let most = self.max_response_bytes;
        Box::pin(async move {
            let broken = |_| Problem::new(types::INTERNAL);
            std::future::poll_fn(|cx| service.poll_ready(cx)).await.map_err(broken)?;
            let response = service.call(request).await.map_err(broken)?;
            let (mut parts, body) = response.into_parts();
            let body = Limited::new(body, most).collect().await;
            let body = body.map_err(|error| {
                let too_large = error.is::<LengthLimitError>();
                Problem::new(if too_large { types::RESULT_TOO_LARGE } else { types::INTERNAL })
            })?;
            if let Some(target) = target {
                resolve_locations(&mut parts.headers, &target);
            }
            Ok(Outcome { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        })
    }
}

/// The request as the inner service gets it.
fn request<B: From<Bytes>>(
    kept: Kept,
    context: Context,
    restore: &dyn Fn(&mut Parts),
) -> Request<B> {
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri, parts.headers) = (kept.method, kept.target, kept.headers);
    if !kept.body.is_empty() {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(kept.body.len()));
    }
    parts.extensions.insert(kept.owner);
    parts.extensions.insert(context);
    restore(&mut parts);
    Request::from_parts(parts, kept.body.into())
}
