use http::{StatusCode, header};

use super::Response;
use crate::header::UriReference;
use crate::operation::{IntoOutcome, Outcome};

/// 303 See Other: the answer to the request is to be had with GET elsewhere
/// ([RFC 9110 §15.4.4](https://www.rfc-editor.org/rfc/rfc9110#section-15.4.4)).
///
/// Clients follow it by themselves and many send their credentials along, so keep it on your own
/// origin.
///
/// ```
/// use respond_async::respond::SeeOther;
///
/// let response = SeeOther::to("/images/17").into_response();
/// assert_eq!((response.status().as_u16(), &response.headers()["location"]), (303, &"/images/17".parse()?));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct SeeOther(UriReference);

impl SeeOther {
    /// The answer is at `location`: an absolute URL, or a path that begins with `/`, as for
    /// [`Created::at`](super::Created::at).
    pub fn to(location: impl Into<UriReference>) -> Self {
        Self(location.into())
    }

    /// The answer as a response.
    pub fn into_response(self) -> Response {
        self.into_outcome().into_response()
    }
}

impl IntoOutcome for SeeOther {
    fn into_outcome(self) -> Outcome {
        let mut outcome = Outcome::new(StatusCode::SEE_OTHER);
        outcome.headers.insert(header::LOCATION, self.0.to_header_value());
        outcome
    }
}
