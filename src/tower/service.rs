use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::mode::AsyncMode;
use super::request::{Kept, Once, Repeatable, is_named};
use crate::header::vary_on_prefer;
use crate::monitor::Monitor;
use crate::operation::TraceContext;
use crate::operations::{Context as OperationContext, Operations};
use crate::prefer::Preferences;
use crate::problem::{Problem, types};
use crate::respond::{self, report};
use crate::store::Idempotency;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service with an asynchronous mode: see [`AsyncLayer`](super::AsyncLayer).
#[derive(Debug, Clone)]
pub struct AsyncService<S> {
    inner: S,
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) mode: AsyncMode,
    pub(super) operations: Operations,
    pub(super) monitor: Monitor,
}

impl<S> AsyncService<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }

    /// The operations that were started, to shut them down.
    pub fn operations(&self) -> &Operations {
        &self.shared.operations
    }
}

impl<S, B, R> Service<Request<B>> for AsyncService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    R: From<Bytes>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = AnswerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.shared.monitor.is_at(request.uri().path()) {
            let shared = Arc::clone(&self.shared);
            let (parts, _) = request.into_parts();
            return AnswerFuture::own(async move {
                let owner = (shared.mode.owner)(&parts);
                shared.monitor.respond(&owner, &Request::from_parts(parts, ())).await
            });
        }
        let (method, path) = (request.method(), request.uri().path());
        let routes = &self.shared.mode.routes;
        let Some(route) = routes.iter().find(|route| route.matches(method, path)) else {
            return AnswerFuture::inner(self.inner.call(request), None);
        };
        let preferences = Preferences::from_headers(request.headers());
        if !preferences.respond_async() && !is_named(request.headers()) {
            // What a handler may look for, so that it need not ask in which mode it runs.
            let trace = TraceContext::from_headers(request.headers());
            let (parts, body) = request.into_parts();
            let owner = (self.shared.mode.owner)(&parts);
            let mut request = Request::from_parts(parts, body);
            request.extensions_mut().insert(owner);
            request.extensions_mut().insert(OperationContext::inline(trace));
            return AnswerFuture::inner(self.inner.call(request), Some(Box::new(preferences)));
        }
        let (shared, repeats) = (Arc::clone(&self.shared), route.repeats(request.headers()));
        AnswerFuture::own(async move {
            let answer = store(&shared, &preferences, repeats, request).await;
            let mut response = answer.unwrap_or_else(Problem::into_response);
            vary_on_prefer(response.headers_mut());
            response
        })
    }
}

/// Answers a request that is, or may have to be, stored.
async fn store<B>(
    Shared { mode, operations, .. }: &Shared,
    preferences: &Preferences,
    repeats: bool,
    request: Request<B>,
) -> Result<respond::Response, Problem>
where
    B: Body<Error: Into<BoxError>>,
{
    let (parts, body) = request.into_parts();
    let body = content(body, mode.max_request_bytes).await?;
    let named = Idempotency::from_request(&parts.method, &parts.uri, &parts.headers, &body)?;
    let owner = (mode.owner)(&parts);
    let kept = Kept::of(&parts, preferences, &mode.kept, owner.clone(), body);
    let trace = TraceContext::from_headers(&parts.headers);
    let kick_off = operations.kick_off(preferences).owner(owner).idempotency(named).trace(trace);
    Ok(if repeats {
        kick_off.respond(Repeatable(kept)).await
    } else {
        kick_off.respond(Once(kept)).await
    })
}

/// The whole content of a request.
async fn content<B>(body: B, most: usize) -> Result<Bytes, Problem>
where
    B: Body<Error: Into<BoxError>>,
{
    let content = Limited::new(body, most).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let detail = format!("A request that is to be stored may have at most {most} bytes.");
            Problem::new(types::REQUEST_TOO_LARGE).with_detail(detail)
        } else {
            let detail = "The request's content could not be read.";
            Problem::from_status(StatusCode::BAD_REQUEST).with_detail(detail)
        }
    })?;
    Ok(content.to_bytes())
}

pin_project! {
    /// An answer that is on its way.
    pub struct AnswerFuture<F> {
        #[pin]
        of: Of<F>,
    }
}

pin_project! {
    #[project = OfProjection]
    enum Of<F> {
        /// The inner service's; of a route that negotiates, if there are preferences.
        Inner { #[pin] future: F, preferences: Option<Box<Preferences>> },
        Own { future: Pin<Box<dyn Future<Output = respond::Response> + Send>> },
    }
}

impl<F> AnswerFuture<F> {
    fn inner(future: F, preferences: Option<Box<Preferences>>) -> Self {
        Self { of: Of::Inner { future, preferences } }
    }

    fn own(future: impl Future<Output = respond::Response> + Send + 'static) -> Self {
        Self { of: Of::Own { future: Box::pin(future) } }
    }
}

impl<F, R, E> Future for AnswerFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: From<Bytes>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(match self.project().of.project() {
            OfProjection::Inner { future, preferences } => {
                let mut response = ready!(future.poll(cx))?;
                if let Some(preferences) = preferences {
                    vary_on_prefer(response.headers_mut());
                    report(preferences, &response);
                }
                response
            }
            OfProjection::Own { future } => {
                ready!(future.as_mut().poll(cx)).map(|body| body.into_bytes().into())
            }
        }))
    }
}

impl<F> std::fmt::Debug for AnswerFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerFuture").finish_non_exhaustive()
    }
}
