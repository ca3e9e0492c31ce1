//! d. For a service that publishes no events: a cache that obeys it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::State;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use respond_async::client::cache::{Cached, MemoryCache};
use respond_async::client::{Transport, TransportError, TransportErrorKind};
use respond_async::problem::types;
use respond_async::respond::Response;
use respond_async::{Context, Outcome, Problem};

use super::{App, Id, number};
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
        if is_private(response.headers()) {
            // The cache is one for each user, and this one serves all.
            let none = HeaderValue::from_static("no-store");
            response.headers_mut().insert(header::CACHE_CONTROL, none);
        }
        Ok(response)
    }
}

/// Whether an answer is for one user alone
/// ([RFC 9111 §5.2.2.7](https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.7)).
fn is_private(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CACHE_CONTROL).iter();
    let mut directives = lines.filter_map(|line| line.to_str().ok()).flat_map(|it| it.split(','));
    directives.any(|directive| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case("private")
    })
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

pub(super) async fn read(State(app): State<App>, id: Id) -> Result<Response, Problem> {
    app.cached.get(number(id)?).await
}

impl CachedUsers {
    async fn get(&self, id: u64) -> Result<Response, Problem> {
        let request =
            Request::builder().method(Method::GET).uri(format!("http://users/users/{id}"));
        let request = request.body(Bytes::new()).map_err(|_| Problem::new(types::INTERNAL))?;
        let answer = self.0.send(request).await;
        let (head, body) =
            answer.map_err(|_| Problem::new(types::BROKER_UNAVAILABLE))?.into_parts();
        Ok(Outcome { status: head.status, headers: head.headers, body }.into_response())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn what_is_for_one_user_is_not_given_to_the_next() {
        for (control, asked) in
            [("max-age=60", 1), ("max-age=60, Private", 2), ("private=\"x\", max-age=60", 2)]
        {
            let count = Arc::new(AtomicUsize::new(0));
            let counting = Arc::clone(&count);
            let users = CachedUsers::new(move |user, _| {
                counting.fetch_add(1, Ordering::Relaxed);
                let mut outcome = Outcome::json(StatusCode::OK, &user.id);
                let control = HeaderValue::from_static(control);
                outcome.headers.insert(header::CACHE_CONTROL, control);
                Box::pin(async { outcome })
            });
            for _ in 0..2 {
                assert_eq!(users.get(1).await.unwrap().status(), StatusCode::OK);
            }
            assert_eq!(count.load(Ordering::Relaxed), asked, "{control}");
        }
    }
}
