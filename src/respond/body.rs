use bytes::Bytes;

use crate::operation::{IntoOutcome, Outcome};
use crate::problem::Problem;

/// The content of a [`Response`]: bytes that are all there.
///
/// With the feature `http-body` it is an `http_body::Body`, so a response goes into hyper, tower and
/// axum as it is; elsewhere, take the bytes out with [`into_bytes`](Self::into_bytes).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body(Bytes);

/// The answer of a service: an [`http::Response`] with a body of bytes.
pub type Response = http::Response<Body>;

impl Body {
    /// The bytes, shared and not copied.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

macro_rules! from_bytes {
    ($($source:ty)*) => {$(
        impl From<$source> for Body {
            fn from(bytes: $source) -> Self {
                Self(bytes.into())
            }
        }
    )*};
}

from_bytes! { Bytes Vec<u8> String &'static [u8] &'static str }

impl From<Body> for Bytes {
    fn from(body: Body) -> Self {
        body.0
    }
}

#[cfg(feature = "http-body")]
impl http_body::Body for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let bytes = std::mem::take(&mut self.0);
        std::task::Poll::Ready((!bytes.is_empty()).then(|| Ok(http_body::Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.len() as u64)
    }
}

impl Outcome {
    /// The outcome as the response that it describes.
    pub fn into_response(self) -> Response {
        let mut response = Response::new(Body(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

impl Problem {
    /// The problem as a response of its status, with `Content-Type: application/problem+json`, and
    /// `Retry-After` if it says when to try again.
    pub fn into_response(self) -> Response {
        self.into_outcome().into_response()
    }
}
