//! Tells the time that a client takes for its request from the time that the other service takes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::Request;
use http_body::{Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Since when the other service is waited for; none while the client is.
type Since = Option<Instant>;

/// The content of a request, which says who is waited for.
struct Watched {
    body: Body,
    since: watch::Sender<Since>,
}

/// The way of a request's content to the other service.
#[derive(Debug)]
pub(crate) struct Upload(watch::Receiver<Since>);

/// The same request, and the way of its content.
pub(crate) fn watched(request: Request<Body>) -> (Request<Body>, Upload) {
    let (since, upload) = watch::channel(Some(Instant::now()));
    let request = request.map(|body| Body::new(Watched { body, since }));
    (request, Upload(upload))
}

impl Upload {
    /// Returns when the other service has been waited for that long: for it to take more of the content, or to
    /// begin its answer. How long a client may take is the server's to say.
    pub(crate) async fn stalled(mut self, timeout: Duration) {
        let mut last = Instant::now();
        loop {
            let since = *self.0.borrow_and_update();
            last = since.unwrap_or(last);
            let changed = match since {
                None => self.0.changed().await,
                Some(since) => match timeout_at(since + timeout, self.0.changed()).await {
                    Ok(changed) => changed,
                    Err(_) => return,
                },
            };
            if changed.is_err() {
                // All of it has been taken.
                sleep_until(last + timeout).await;
                return;
            }
        }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.since.send_replace(polled.is_ready().then(Instant::now));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
