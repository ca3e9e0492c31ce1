//! Whether a connection has a request.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::routing::future::RouteFuture;
use http_body::{Frame, SizeHint};
use hyper::body::Bytes;
use pin_project_lite::pin_project;
use tokio::time::{Instant, sleep_until};

/// The requests of a connection that are not answered to the end.
///
/// A request writes down that it comes and that it goes, and wakes nobody: whoever waits looks again when
/// the connection could be idle at the earliest.
#[derive(Debug)]
pub(super) struct Activity {
    requests: AtomicUsize,
    opened: Instant,
    /// When the last one ended, in milliseconds since then.
    ended: AtomicU64,
    /// How many bytes the kernel has taken.
    written: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            requests: AtomicUsize::new(0),
            opened: Instant::now(),
            ended: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    /// A request has come, and is not answered before what this gives is gone.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Acquire) == 0
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How many bytes the kernel has taken for its peer.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until there has been no request for that long.
    pub(super) async fn idles(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let until = if self.is_idle() {
                // Written before its request is no longer counted.
                self.opened + Duration::from_millis(self.ended.load(Ordering::Acquire)) + limit
            } else {
                now + limit
            };
            if until <= now {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// A request that is not answered to the end.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        let ended = self.0.opened.elapsed().as_millis();
        self.0.ended.store(u64::try_from(ended).unwrap_or(u64::MAX), Ordering::Release);
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

pin_project! {
    /// A request's way to its answer.
    pub(super) struct Answering {
        #[pin]
        answer: RouteFuture<Infallible>,
        busy: Option<Busy>,
    }
}

impl Answering {
    pub(super) fn new(answer: RouteFuture<Infallible>, busy: Busy) -> Self {
        Self { answer, busy: Some(busy) }
    }
}

impl Future for Answering {
    type Output = Result<http::Response<Sent>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(answer) = ready!(this.answer.poll(cx));
        Poll::Ready(Ok(answer.map(|body| Sent { body, _busy: this.busy.take() })))
    }
}

/// An answer's content, with which its request ends.
#[derive(Debug)]
pub(super) struct Sent {
    body: Body,
    _busy: Option<Busy>,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
