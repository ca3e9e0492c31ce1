//! Builders of the answers of an asynchronous service, without store or runtime.
//!
//! | answer | builder | when |
//! | --- | --- | --- |
//! | 201 Created | [`Created`] | the result is there |
//! | 202 Accepted | [`Accepted`] | the work goes on; here is its status monitor |
//! | 303 See Other | [`SeeOther`] | the answer is elsewhere |
//! | the monitor's answers, its events and pages | [`OperationView`], [`Event`] | somebody reads, cancels or lists operations |
//!
//! Each gives a [`Response`], an [`http::Response`] whose body is plain bytes, so they fit every
//! framework that speaks the `http` types.
//!
//! ```
//! use std::time::Duration;
//! use respond_async::prefer::Preferences;
//! use respond_async::respond::{Accepted, Created, Response};
//!
//! fn answer(preferences: &Preferences, ready: bool) -> Response {
//!     if ready || !preferences.respond_async() {
//!         return Created::at("/images/17").json(&["china.jpg"]).into_response();
//!     }
//!     Accepted::at("/operations/42")
//!         .retry_after(Duration::from_secs(2))
//!         .applied(preferences)
//!         .json(&["pending"])
//!         .into_response()
//! }
//!
//! let response = answer(&Preferences::parse(b"respond-async")?, false);
//! assert_eq!(response.status(), 202);
//! assert_eq!(response.headers()["content-location"], "/operations/42");
//! assert_eq!(response.headers()["preference-applied"], "respond-async");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accepted;
mod body;
mod check;
mod created;
mod document;
mod event;
mod page;
mod see_other;
mod urls;
mod view;

pub use accepted::Accepted;
pub use body::{Body, Response};
#[cfg(feature = "tokio")]
pub(crate) use check::report;
pub use check::{Violation, violations};
pub use created::Created;
pub use event::Event;
pub use see_other::SeeOther;
pub use urls::MonitorUrls;
pub use view::{ListView, OperationView};
#[cfg(feature = "tokio")]
pub(crate) use view::{no_store, problem_page};
