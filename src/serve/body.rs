use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

pin_project! {
    /// A request's content, which fails if it comes too slowly.
    #[derive(Debug)]
    pub(super) struct Paced {
        #[pin]
        body: Incoming,
        #[pin]
        over: Option<Sleep>,
        began: Option<Instant>,
        grace: Duration,
        rate: u32,
        bytes: u64,
    }
}

impl Paced {
    pub(super) fn new(body: Incoming, grace: Duration, rate: u32) -> Self {
        Self { body, over: None, began: None, grace, rate, bytes: 0 }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let mut this = self.project();
        if let Poll::Ready(frame) = this.body.as_mut().poll_frame(cx) {
            if let Some(Ok(frame)) = &frame {
                *this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        // What comes at once needs no timer. It counts from when the content is first asked for: a
        // handler that takes its time is not its client's fault.
        let began = *this.began.get_or_insert_with(Instant::now);
        let earned =
            Duration::from_millis(this.bytes.saturating_mul(1_000) / u64::from(*this.rate));
        let until = began + *this.grace + earned;
        match this.over.as_mut().as_pin_mut() {
            Some(over) if over.deadline() == until => {}
            Some(over) => over.reset(until),
            None => this.over.set(Some(sleep_until(until))),
        }
        match this.over.as_pin_mut().map(|over| over.poll(cx)) {
            Some(Poll::Ready(())) => {
                let slow = io::Error::new(io::ErrorKind::TimedOut, "the content comes too slowly");
                Poll::Ready(Some(Err(slow.into())))
            }
            _ => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
