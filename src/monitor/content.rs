use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::respond::Body;

/// The content of a monitor's answer: bytes that are all there, or those of an event stream as they
/// come.
///
/// With the feature `http-body` it is an `http_body::Body`, with the feature `actix` a body of that;
/// elsewhere, take it with [`poll_bytes`](Self::poll_bytes). Dropping it ends its stream.
pub struct Content(Kind);

enum Kind {
    Whole(Body),
    Events(mpsc::Receiver<Bytes>),
}

impl Content {
    pub(super) fn events(events: mpsc::Receiver<Bytes>) -> Self {
        Self(Kind::Events(events))
    }

    /// Whether it is a stream, which may never end by itself.
    pub fn is_stream(&self) -> bool {
        matches!(self.0, Kind::Events(_))
    }

    /// The bytes that are all there; none of a stream.
    pub fn into_body(self) -> Body {
        match self.0 {
            Kind::Whole(body) => body,
            Kind::Events(_) => Body::default(),
        }
    }

    /// The next bytes; none after the last.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.0 {
            Kind::Whole(body) => {
                let bytes = std::mem::take(body).into_bytes();
                Poll::Ready((!bytes.is_empty()).then_some(bytes))
            }
            Kind::Events(events) => events.poll_recv(cx),
        }
    }

    /// How many bytes there are still; none if that is not known.
    pub fn len(&self) -> Option<usize> {
        match &self.0 {
            Kind::Whole(body) => Some(body.as_bytes().len()),
            Kind::Events(_) => None,
        }
    }

    /// Whether it is known that there are no more bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl From<Body> for Content {
    fn from(body: Body) -> Self {
        Self(Kind::Whole(body))
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Whole(body) => body.fmt(f),
            Kind::Events(_) => f.write_str("Events"),
        }
    }
}

#[cfg(feature = "http-body")]
impl http_body::Body for Content {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.poll_bytes(cx).map(|bytes| bytes.map(|bytes| Ok(http_body::Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.len().map_or_else(http_body::SizeHint::default, |len| {
            http_body::SizeHint::with_exact(len as u64)
        })
    }
}
