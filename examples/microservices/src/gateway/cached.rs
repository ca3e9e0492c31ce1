//! d. For a service that publishes no events: a cache that obeys it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Path as Segment, State};
use bytes::Bytes;
use http::{Method, Request, header};
use respond_async::client::cache::{Cached, MemoryCache};
use respond_async::client::{Transport, TransportError, TransportErrorKind};
use respond_async::problem::types;
use respond_async::respond::Response;
use respond_async::{Context, Outcome, Problem};

use super::{App, number};
use crate::messages::GetUser;

/// How the service is asked for something.
type Ask<J> =
    Arc<dyn Fn(J, Context) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// The service of users, as if it spoke HTTP: so that an HTTP cache can stand before it.
struct Messages(Ask<GetUser>);

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Messages")
    }
}

#[async_trait]
impl Transport for Messages {
    async fn send(&self, request: Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let id = request.uri().path().rsplit('/').next().and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| TransportError::new(TransportErrorKind::Invalid, "no user"))?;
        let tags = request.headers().get(header::IF_NONE_MATCH);
        let if_none_match = tags.and_then(|tags| tags.to_str().ok()).map(str::to_owned);
        let outcome = (self.0)(GetUser { id, if_none_match }, Context::default()).await;
        let mut response = http::Response::new(outcome.body);
        *response.status_mut() = outcome.status;
        *response.headers_mut() = outcome.headers;
        Ok(response)
    }
}

/// Users, as long as the service lets them be kept.
#[derive(Debug, Clone)]
pub(super) struct CachedUsers(Arc<Cached<Messages>>);

impl CachedUsers {
    pub(super) fn new(
        ask: impl Fn(GetUser, Context) -> Pin<Box<dyn Future<Output = Outcome> + Send>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self(Arc::new(Cached::new(Messages(Arc::new(ask)), MemoryCache::new())))
    }
}

pub(super) async fn read(
    State(app): State<App>,
    Segment(id): Segment<String>,
) -> Result<Response, Problem> {
    let id = number(&id)?;
    let request = Request::builder().method(Method::GET).uri(format!("http://users/users/{id}"));
    let request = request.body(Bytes::new()).map_err(|_| Problem::new(types::INTERNAL))?;
    let answer = app.cached.0.send(request).await;
    let (head, body) = answer.map_err(|_| Problem::new(types::BROKER_UNAVAILABLE))?.into_parts();
    Ok(Outcome { status: head.status, headers: head.headers, body }.into_response())
}
