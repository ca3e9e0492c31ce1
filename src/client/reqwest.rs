use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{StreamExt, unfold};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use reqwest::redirect::Policy;

use super::transport::{Opened, StreamTransport, Transport, TransportError, TransportErrorKind};
use crate::respond::Event;

/// Sends by [reqwest]. One of [its own](Self::new) takes [10 seconds](Self::CONNECT_TIMEOUT) to connect and
/// stands still for [60](Self::READ_TIMEOUT) at most; there is no bound for the whole of an exchange, which
/// a slow but steady answer may need. Every one takes [64 MiB](Self::DEFAULT_MAX_RESPONSE_BYTES) of an answer.
///
/// [reqwest]: https://docs.rs/reqwest
#[derive(Debug, Clone)]
pub struct ReqwestTransport {
    client: reqwest::Client,
    max_response_bytes: usize,
    /// Whether the client is one of ours, of which it is known what it can do.
    is_own: bool,
}

impl ReqwestTransport {
    /// The default of [`with_max_response_bytes`](Self::with_max_response_bytes): 64 MiB.
    pub const DEFAULT_MAX_RESPONSE_BYTES: usize = 64 << 20;
    /// How long a connection may take to be made.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// How long an exchange may stand still: longer than a server holds a long poll.
    pub const READ_TIMEOUT: Duration = Duration::from_secs(60);

    /// A client with this crate's timeouts. `https` needs the feature `client-rustls`.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new() -> Result<Self, TransportError> {
        let client = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(Self::CONNECT_TIMEOUT)
            .read_timeout(Self::READ_TIMEOUT)
            .build()
            .map_err(|error| TransportError::new(TransportErrorKind::Invalid, error))?;
        Ok(Self { is_own: true, ..Self::with(client) })
    }

    /// A client of your own. Give it timeouts, and a redirect policy of `none`: a redirect that it follows
    /// takes your credentials along unseen. A timeout for the whole of an exchange cuts event streams off; they
    /// are taken up again.
    pub fn with(client: reqwest::Client) -> Self {
        Self { client, max_response_bytes: Self::DEFAULT_MAX_RESPONSE_BYTES, is_own: false }
    }

    /// How large an answer may be, in bytes after its transfer coding
    /// (default: [`DEFAULT_MAX_RESPONSE_BYTES`](Self::DEFAULT_MAX_RESPONSE_BYTES)). A larger one is
    /// [`TooLarge`](TransportErrorKind::TooLarge).
    #[must_use]
    pub fn with_max_response_bytes(mut self, bytes: usize) -> Self {
        self.max_response_bytes = bytes;
        self
    }

    async fn execute(
        &self,
        request: Request<Bytes>,
    ) -> Result<(Response<()>, reqwest::Response), TransportError> {
        let is_https = request.uri().scheme_str() == Some("https");
        if is_https && self.is_own && cfg!(not(feature = "client-rustls")) {
            let why = "https needs the feature client-rustls, or a client of your own";
            return Err(TransportError::new(TransportErrorKind::Invalid, why));
        }
        let request = reqwest::Request::try_from(request)
            .map_err(|error| TransportError::new(TransportErrorKind::Invalid, error))?;
        let mut answer = self.client.execute(request).await.map_err(failed)?;

        let mut response = Response::new(());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok((response, answer))
    }

    async fn whole(&self, mut answer: reqwest::Response) -> Result<Bytes, TransportError> {
        let mut body = BytesMut::new();
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            if body.len() + piece.len() > self.max_response_bytes {
                let most = format!("more than {} bytes", self.max_response_bytes);
                return Err(TransportError::new(TransportErrorKind::TooLarge, most));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }
}

#[async_trait]
impl Transport for ReqwestTransport {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let (response, answer) = self.execute(request).await?;
        let body = self.whole(answer).await?;
        Ok(response.map(|()| body))
    }

    fn streaming(&self) -> Option<&dyn StreamTransport> {
        Some(self)
    }
}

#[async_trait]
impl StreamTransport for ReqwestTransport {
    async fn open(&self, request: Request<Bytes>) -> Result<Opened, TransportError> {
        let (response, answer) = self.execute(request).await?;
        if !response.status().is_success() || !is_event_stream(response.headers()) {
            let body = self.whole(answer).await?;
            return Ok(Opened::Whole(response.map(|()| body)));
        }
        let pieces = unfold(Some(answer), |answer| async {
            let mut answer = answer?;
            match answer.chunk().await.transpose()? {
                Ok(piece) => Some((Ok(piece), Some(answer))),
                Err(error) => Some((Err(failed(error)), None)),
            }
        });
        Ok(Opened::Stream(response.map(|()| pieces.boxed())))
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type
        .and_then(|value| value.split(|&byte| byte == b';').next())
        .is_some_and(|value| value.trim_ascii().eq_ignore_ascii_case(Event::MEDIA_TYPE.as_bytes()))
}

fn failed(error: reqwest::Error) -> TransportError {
    let kind = if error.is_builder() {
        TransportErrorKind::Invalid
    } else if error.is_connect() {
        TransportErrorKind::NotSent
    } else {
        TransportErrorKind::Ambiguous
    };
    TransportError::new(kind, error)
}
