//! The other side: sends one request, and adapts to whichever server it meets.
//!
//! | the server | what a client sees |
//! | --- | --- |
//! | has never heard of preferences, or is done in time | [`Answer::Answered`]: the answer |
//! | answers 202 with a status monitor, or what [other standards](Client::send) have in its place | [`Answer::Accepted`]: a [`Poller`] |
//! | loses its connection, is started again, has too much to do | the same, later |
//!
//! A monitor is found by `Link: rel="monitor"`, `Operation-Location`, `Content-Location` or `Location`, relative
//! or absolute, and may be one of this crate's, or of OData, FHIR, OGC API Processes or Azure; a Google one is
//! understood, but its URL is [yours to say](Client::follow). It is asked when it says (`Retry-After` in both forms, within bounds), cheaply (`If-None-Match`), and may
//! hold the poll (`Prefer: wait`), or tell of each change as it comes (`text/event-stream`, taken up again by
//! `Last-Event-ID`). That a poll failed and that the operation failed are two things: a
//! [`ClientError`], and a [`Finished::Failed`].
//!
//! - Credentials stay with their origin: a monitor or a result of another one is not followed unless
//!   [that is allowed](Client::allow_origin).
//! - A request is [named](Client::idempotency_keys), and sent again when it is not known whether it arrived,
//!   if the server is [trusted to know such names](Client::trust_idempotency_keys).
//! - What is followed can be [kept](Poller::state), and taken up by another process tomorrow.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use http::Request;
//! use respond_async::client::{Answer, Client, Update};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new()?;
//! let request = Request::post("http://127.0.0.1:3000/images").header("content-type", "image/jpeg");
//! let request = request.body(std::fs::read("photo.jpg")?)?;
//! match client.send(request).respond_async().wait(Duration::from_secs(2)).await? {
//!     Answer::Answered(response) => println!("{}", response.status()),
//!     Answer::Accepted(mut poller) => {
//!         while let Some(update) = poller.next().await {
//!             match update? {
//!                 Update::Progress(snapshot) => println!("{}", snapshot.status()),
//!                 Update::Finished(finished) => println!("{finished:?}"),
//!             }
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "client-cache")]
pub mod cache;
mod error;
mod events;
mod finished;
mod follow;
mod listen;
mod origin;
mod policy;
mod poller;
mod reqwest;
mod send;
mod shared;
mod snapshot;
mod transport;

pub use error::{ClientError, ClientErrorKind};
pub use finished::Finished;
pub use policy::PollPolicy;
pub use poller::{Poller, PollerState, Update};
pub use reqwest::ReqwestTransport;
pub use send::{Answer, Client, Sending};
pub use snapshot::Snapshot;
pub use transport::{Opened, StreamTransport, Transport, TransportError, TransportErrorKind};
