//! An asynchronous mode for any HTTP service, the standard way: a client that sends
//! `Prefer: respond-async` ([RFC 7240]) gets `202 Accepted` with a link to a status monitor; one that
//! does not, or whose answer is ready in time, gets the plain answer from the same handler.
//!
//! This is the reference. The book is in [`guide`]: begin with [its first program](guide::getting_started). On axum, a
//! handler that answers either way, and the monitor, are this (feature `axum`):
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! use axum::Router;
//! use axum::extract::State;
//! use axum::routing::post;
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
//! # #[tokio::main]
//! # async fn main() {
//! let operations = Operations::builder(MemoryStore::new()).start();
//! let app: Router = Router::new()
//!     .route("/images", post(upload))
//!     .nest("/operations", respond_async::axum::monitor(&operations))
//!     .with_state(operations);
//! # }
//! ```
//!
//! # Where things are
//! Each layer imports only those below it.
//!
//! | layer | what it gives | feature |
//! | --- | --- | --- |
//! | `axum`, `actix` | a framework's types in and out | `axum`; `actix` |
//! | `serve` | a server for axum's routers that bounds what a client can hold | `serve` |
//! | `tower` | an asynchronous mode around a service that knows nothing of it | `tower` |
//! | `amqp` | the work in another service, over RabbitMQ | `amqp` |
//! | `webhook` | calls of a client's own URL when its operation ends; the receiver's side | `webhook` |
//! | `client` | the other side: sends, follows, resumes; a private cache | `client`, `client-rustls`, `client-cache` |
//! | `monitor` | status monitors: `http::Request` in, `http::Response` out | `tokio` |
//! | `openapi` | the asynchronous mode in a service's OpenAPI document | `openapi` |
//! | `operations` | the facade: durable jobs and other work, workers, idempotency keys, bounds, shutdown | `tokio` |
//! | [`store`] | [`OperationStore`](store::OperationStore), [`MemoryStore`](store::MemoryStore), `SqliteStore`, `PostgresStore`, `RedisStore`, a conformance suite | none for `MemoryStore`; `sqlite` or `sqlite-bundled`, `postgres`, `redis`; `conformance` |
//! | `read_model` | a local copy of another service's data, fed by its events | `tokio` |
//! | [`event`] | the changes of an operation, as CloudEvents | |
//! | [`respond`] | builders of 201, 202, 303 and the monitor's answers | |
//! | [`operation`] | the [`Operation`] resource, and the one pure function by which it changes | |
//! | [`prefer`], [`problem`], [`header`] | fields and documents of HTTP | |
//! | [`time`] | instants and clocks | |
//!
//! # Which part do I need?
//! - *A service on axum or actix-web*: the feature `axum` or `actix`, and [the steps](guide::adopting) to adopt it.
//! - *A service whose handlers should stay as they are*: the feature `tower`.
//! - *Another framework that speaks `http`*: the feature `tokio`, and [what to wire](guide::other_frameworks).
//! - *Only the headers and documents*, with a job system of your own: no feature, [`prefer`],
//!   [`respond`] and [`problem`].
//! - *A store of your own*: [`store`], the feature `conformance` for its tests, and [the
//!   steps](guide::contributing#add-a-store).
//!
//! [RFC 7240]: https://www.rfc-editor.org/rfc/rfc7240
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "amqp")]
pub mod amqp;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "client")]
pub mod client;
pub mod event;
pub mod header;
mod lock;
#[cfg(feature = "tokio")]
pub mod monitor;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod operation;
#[cfg(feature = "tokio")]
pub mod operations;
pub mod prefer;
pub mod problem;
#[cfg(feature = "tokio")]
pub mod read_model;
pub mod respond;
#[cfg(feature = "serve")]
pub mod serve;
pub mod store;
mod text;
pub mod time;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "webhook")]
pub mod webhook;

pub use operation::{Operation, OperationId, Outcome, Owner, Progress, Status};
#[cfg(feature = "tokio")]
pub use operations::{Context, Operations};
pub use problem::Problem;
pub use time::Timestamp;

/// The README's examples, compiled.
#[cfg(all(doctest, feature = "axum", feature = "postgres", feature = "redis", feature = "sqlite"))]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(any(doc, doctest))]
pub mod guide;
