use std::error::Error;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{Request, Response};

/// What sends a request and brings back its answer: one exchange, without redirects, retries or cache.
///
/// Implement it for the HTTP client of your choice. It bounds how long an exchange takes and how large an
/// answer is, which nothing above it does: an exchange without a bound is waited for until the
/// [deadline](super::Sending::deadline), if there is one. A request whose future is dropped may have arrived
/// or not.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends a request whose target is absolute.
    ///
    /// # Errors
    /// If there is no whole answer.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError>;

    /// The same, if it can give event streams as they come. Without it, operations are followed by polls.
    fn streaming(&self) -> Option<&dyn StreamTransport> {
        None
    }
}

/// A transport that gives event streams as they come.
#[async_trait]
pub trait StreamTransport: Transport {
    /// Sends a request whose target is absolute, as [`send`](Transport::send) does; but a successful
    /// answer whose content is `text/event-stream` is given as soon as it begins. It has no end that is
    /// known, so no time for the whole of it: the client bounds how long it is silent.
    ///
    /// # Errors
    /// If there is no answer, or no whole one that is no stream.
    async fn open(&self, request: Request<Bytes>) -> Result<Opened, TransportError>;
}

/// A shared or boxed transport is one.
macro_rules! forward {
    ($($pointer:ident)*) => {$(
        #[async_trait]
        impl<T: Transport + ?Sized> Transport for $pointer<T> {
            async fn send(
                &self,
                request: Request<Bytes>,
            ) -> Result<Response<Bytes>, TransportError> {
                (**self).send(request).await
            }

            fn streaming(&self) -> Option<&dyn StreamTransport> {
                (**self).streaming()
            }
        }

        #[async_trait]
        impl<T: StreamTransport + ?Sized> StreamTransport for $pointer<T> {
            async fn open(&self, request: Request<Bytes>) -> Result<Opened, TransportError> {
                (**self).open(request).await
            }
        }
    )*};
}

forward!(Arc Box);

/// Marks an answer that was made up on this side (`Extensions`): nobody was asked for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct MadeUp;

/// An answer as it comes.
pub enum Opened {
    /// All of it.
    Whole(Response<Bytes>),
    /// Its head, and its content piece by piece. An error is the last of them.
    Stream(Response<BoxStream<'static, Result<Bytes, TransportError>>>),
}

/// Without the values of its fields, which may be secret, and without its content.
impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, status, headers) = match self {
            Self::Whole(answer) => ("Whole", answer.status(), answer.headers()),
            Self::Stream(answer) => ("Stream", answer.status(), answer.headers()),
        };
        let fields: Vec<_> = headers.keys().collect();
        f.debug_struct(name)
            .field("status", &status)
            .field("fields", &fields)
            .finish_non_exhaustive()
    }
}

/// A request that got no whole answer.
#[derive(Debug)]
pub struct TransportError {
    kind: TransportErrorKind,
    source: Box<dyn Error + Send + Sync>,
}

/// What is known about a request that got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// It was not sent: there was no connection.
    NotSent,
    /// It may have arrived.
    Ambiguous,
    /// It cannot be sent, now or later.
    Invalid,
    /// Its answer is larger than what is taken.
    TooLarge,
}

impl TransportError {
    /// An error of that kind, with what caused it.
    pub fn new(kind: TransportErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, source: source.into() }
    }

    /// What is known about the request.
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            TransportErrorKind::NotSent => "the server could not be reached",
            TransportErrorKind::Ambiguous => "the server's answer did not arrive",
            TransportErrorKind::Invalid => "the request cannot be sent",
            TransportErrorKind::TooLarge => "the server's answer is larger than what is taken",
        })
    }
}

impl Error for TransportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_shown_without_what_it_holds() {
        let answer = Response::builder().header("set-cookie", "secret").body(Bytes::from("secret"));
        let shown = format!("{:?}", Opened::Whole(answer.unwrap()));
        assert_eq!(shown, r#"Whole { status: 200, fields: ["set-cookie"], .. }"#);
    }
}
