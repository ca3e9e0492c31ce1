//! For any [tower] service: an asynchronous mode for routes whose handlers know nothing of it.
//!
//! A request whose route opted in, and that prefers `respond-async`, becomes a durable job: its input
//! is the request itself and its outcome is the response. It is stored, answered 202, and run through
//! the inner service by any replica that has the same layer, after a crash of this one by another.
//! All other requests pass, bodies and all, as they came.
//! [RFC 7240 §2](https://www.rfc-editor.org/rfc/rfc7240#section-2) has an intermediary do so.
//!
//! | request | answer |
//! | --- | --- |
//! | on a route that did not opt in | the inner service's, untouched |
//! | on one that did, without preference | the inner service's, with `Vary: Prefer` |
//! | the same with `respond-async`, or an `Idempotency-Key` | as [`Operations::respond`] answers a job |
//! | at the operations' base URL and below | the [monitor](crate::monitor)'s |
//!
//! ```
//! use axum::Router;
//! use axum::body::Body;
//! use axum::routing::post;
//! use respond_async::Operations;
//! use respond_async::store::MemoryStore;
//! use respond_async::tower::{AsyncMode, Route};
//! use tower::{Layer, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // What is there already, and stays as it is.
//! let reports: Router = Router::new().route("/reports/{year}", post(async || "a long report"));
//!
//! let layer = AsyncMode::new([Route::post("/reports/{year}")])
//!     .start::<Body>(Operations::builder(MemoryStore::new()));
//! let app = layer.layer(reports);
//!
//! let request = http::Request::post("/reports/2026").header("prefer", "respond-async");
//! let response = app.oneshot(request.body(Body::empty())?).await?;
//! assert_eq!(response.status(), 202);
//! # Ok(())
//! # }
//! ```
//!
//! It goes around the outermost router: within a nested one, whose prefix axum leaves out of the target, neither routes
//! nor monitors nor keys are what they seem.
//!
//! # What is kept of a request
//! - Its method, its target and its content, up to [`max_request_bytes`](AsyncMode::max_request_bytes).
//! - The fields of [`KEPT`] and those that you [name](AsyncMode::keep): no cookies and no credentials
//!   unless you say so, for they would lie in the store. Of `Prefer`, what is left without
//!   `respond-async` and `wait`.
//! - Its [`Owner`]: the one in its extensions, or what [`owner`](AsyncMode::owner) says.
//!
//! The inner service gets just that, at once as after a crash, so that there is no difference that only
//! a crash would show. In the request's extensions are the [`Owner`] and a [`Context`](crate::Context), by
//! which a handler that likes to can report progress and see that it should stop; what else it needs
//! there, [`restore`](AsyncMode::restore) puts in. Authentication belongs around the layer: below it
//! would see requests without credentials.
//!
//! What it answers is read at other URLs than the request's, so a `Location` or `Content-Location` that is relative to the
//! request's target is made a path (`17` at `/reports/` becomes `/reports/17`), as the service sees it.
//!
//! # What may run twice
//! A request is begun again after a crash, or after a [temporary](crate::operations::JobPolicy::is_temporary)
//! error, if its method is idempotent ([RFC 9110 §9.2.2](https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2))
//! or its route is [repeatable](Route::repeatable). Any other is begun once; if its process dies, its
//! operation fails ([`INTERRUPTED`](crate::problem::types::INTERRUPTED)). So is a `PUT` or `DELETE` with a condition:
//! what it did itself would fail it the second time.
//!
//! [`Operations::respond`]: crate::Operations::respond
//! [tower]: https://docs.rs/tower

mod inner;
mod layer;
mod mode;
mod request;
mod resolve;
mod route;
mod service;

pub use layer::AsyncLayer;
pub use mode::AsyncMode;
pub use request::KEPT;
pub use route::Route;
pub use service::{AnswerFuture, AsyncService};

#[doc(no_inline)]
pub use crate::operation::Owner;
