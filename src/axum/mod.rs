//! For [axum]: what a handler takes and returns, and the monitor's routes. No logic is here.
//!
//! - [`Preferences`] is an extractor. It never rejects.
//! - [`Owner`] is an extractor: the one that a middleware of yours put into the request's
//!   extensions, else the anonymous one. Only authenticated names belong there.
//! - [`Head`] is an extractor: the request's head as its client sent it, for all in this crate that
//!   reads one, such as [`Idempotency::from_request`](crate::store::Idempotency::from_request).
//! - [`Problem`], [`Created`], [`SeeOther`], [`Accepted`] and [`Outcome`] are responses;
//!   [`respond::Response`](crate::respond::Response) is one already.
//! - [`monitor`] are the routes to nest at your base path.
//! - For scripts from other origins, let your CORS layer expose [`header::EXPOSED`](crate::header::EXPOSED).
//!
//! ```
//! use axum::routing::post;
//! use axum::{Router, extract::State};
//! use respond_async::prefer::Preferences;
//! use respond_async::respond::{Created, Response};
//! use respond_async::store::MemoryStore;
//! use respond_async::{Context, Operations, Problem};
//!
//! async fn upload(State(operations): State<Operations>, preferences: Preferences) -> Response {
//!     operations.respond_with(&preferences, enhance).await
//! }
//!
//! async fn enhance(context: Context) -> Result<Created, Problem> {
//!     context.progress(0.4, "sharpening");
//!     Ok(Created::at("/images/17"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let operations = Operations::builder(MemoryStore::new()).start();
//! let app: Router = Router::new()
//!     .route("/images", post(upload))
//!     .nest("/operations", respond_async::axum::monitor(&operations))
//!     .with_state(operations);
//! # }
//! ```
//!
//! [axum]: https://docs.rs/axum

use std::convert::Infallible;

use axum::Router;
use axum::extract::{FromRequestParts, OriginalUri, Request};
use axum::response::{IntoResponse, Response as AxumResponse};
use axum::routing::any;
use http::request::Parts;

use crate::monitor::Monitor;
use crate::operation::{Outcome, Owner};
use crate::operations::Operations;
use crate::prefer::Preferences;
use crate::problem::Problem;
use crate::respond::{Accepted, Created, SeeOther};

/// The routes of the status monitors, to be nested where the operations'
/// [base URL](crate::operations::OperationsBuilder::base_url) says. If the router that they are nested in is nested
/// itself, the whole path belongs there: links are made of it.
///
/// Who asks is told by an [`Owner`] in the request's extensions.
pub fn monitor<S: Clone + Send + Sync + 'static>(operations: &Operations) -> Router<S> {
    let monitor = Monitor::new(operations);
    let answer = any(move |owner: Owner, request: Request| {
        let monitor = monitor.clone();
        let request = request.map(drop);
        async move { monitor.answer(&owner, &request).await }
    });
    Router::new().route("/", answer.clone()).route("/{*path}", answer)
}

/// The head of a request as its client sent it. From what axum's own extractors give, a nested router has taken its
/// prefix away.
#[derive(Debug, Clone)]
pub struct Head(pub Parts);

impl<S: Sync> FromRequestParts<S> for Head {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let mut head = parts.clone();
        if let Some(OriginalUri(target)) = parts.extensions.get() {
            head.uri = target.clone();
        }
        Ok(Self(head))
    }
}

impl<S: Sync> FromRequestParts<S> for Preferences {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_headers(&parts.headers))
    }
}

impl<S: Sync> FromRequestParts<S> for Owner {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

macro_rules! into_response {
    ($($answer:ident)*) => {$(
        impl IntoResponse for $answer {
            fn into_response(self) -> AxumResponse {
                // The method of the type itself, which goes before the trait's.
                $answer::into_response(self).map(|body| body.into_bytes().into())
            }
        }
    )*};
}

into_response! { Accepted Created Outcome Problem SeeOther }
