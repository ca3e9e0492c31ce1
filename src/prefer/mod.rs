//! `Prefer` and `Preference-Applied` (RFC 7240): what a client would like, and what it got.
//!
//! A server reads [`Preferences`] from a request and answers with [`PreferenceApplied`]; a client writes a
//! [`PreferField`] and reads the [`PreferenceApplied`] that comes back. Everything here is a pure function of bytes.
//!
//! # Rules
//!
//! - Several field lines are one list ([RFC 9110 §5.3]). Commas and semicolons inside quotes separate nothing.
//! - The first instance of a preference counts, whether or not its value makes sense; later ones are duplicates
//!   ([RFC 7240 §2]).
//! - Names are case-insensitive, values are case-sensitive; a token and a quoted string of the same content are the
//!   same value, and an empty quoted string is no value ([RFC 7240 §2]). `foo=` is malformed: a word is not empty.
//! - White space around `=` is accepted and never sent ([RFC 9110 §5.6.3]); so are empty list elements
//!   ([RFC 9110 §5.6.1.2]) and a `;` with nothing after it ([RFC 7240 §2]).
//! - Unknown preferences are kept; malformed ones are dropped one by one, as if they were not there, and the others
//!   hold. Nothing that a client writes into `Prefer` is a reason to refuse its request ([RFC 7240 §2]).
//!   [`Preferences::dropped`] says what was dropped, and why.
//! - Reading is linear in the input and bounded by [`MAX_FIELD_BYTES`] and [`MAX_PREFERENCES`]. It allocates nothing
//!   for fields of up to about 80 bytes, and one buffer for longer ones.
//!
//! A quote that is never closed swallows the rest of its field line, since nobody can tell where it should have ended:
//! the preferences before it and those of other lines hold.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use http::HeaderMap;
//! use respond_async::prefer::{PREFER, PREFERENCE_APPLIED, PreferField, PreferenceApplied, Preferences};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The client asks,
//! let mut request = HeaderMap::new();
//! let field = PreferField::new().respond_async().wait(Duration::from_secs(10));
//! request.insert(PREFER, field.to_header_value().ok_or("empty")?);
//! assert_eq!(request["prefer"], "respond-async, wait=10");
//!
//! // the server decides, says so,
//! let preferences = Preferences::from_headers(&request);
//! assert!(preferences.respond_async());
//! assert_eq!(preferences.wait(), Some(Duration::from_secs(10)));
//! let mut response = HeaderMap::new();
//! if let Some(value) = PreferenceApplied::of(&preferences).respond_async().to_header_value() {
//!     response.insert(PREFERENCE_APPLIED, value);
//! }
//! assert_eq!(response["preference-applied"], "respond-async");
//!
//! // and the client sees what it got.
//! assert!(PreferenceApplied::from_headers(&response).contains("respond-async"));
//! # Ok(())
//! # }
//! ```
//!
//! [RFC 7240 §2]: https://www.rfc-editor.org/rfc/rfc7240.html#section-2
//! [RFC 9110 §5.3]: https://www.rfc-editor.org/rfc/rfc9110.html#section-5.3
//! [RFC 9110 §5.6.1.2]: https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.1.2
//! [RFC 9110 §5.6.3]: https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.3

mod applied;
mod error;
mod field;
mod list;
mod parameter;
mod parse;
mod preference;
mod preferences;
mod text;

pub use applied::{PREFERENCE_APPLIED, PreferenceApplied};
pub use error::{PreferError, PreferErrorKind};
pub use field::PreferField;
pub use parameter::{Parameter, Value};
pub use preference::Preference;
#[cfg(feature = "tokio")]
pub(crate) use preferences::CALLBACKS;
pub use preferences::{Handling, PREFER, Preferences, Return};
pub use text::{MAX_FIELD_BYTES, MAX_PREFERENCES};
