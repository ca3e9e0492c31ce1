use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

use super::idle::Activity;

/// What an HTTP/2 connection begins with. Until it is told apart from HTTP/1, no other timeout runs.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that fails if its peer does not begin, or takes nothing of what is written.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    /// Until its first bytes tell what it is, and how many of them have come.
    begins: Option<(Pin<Box<Sleep>>, usize)>,
    write_timeout: Duration,
    /// Since when nothing could be written.
    stalls: Option<Pin<Box<Sleep>>>,
    is_stalled: bool,
    activity: Arc<Activity>,
    /// Among all connections; what is upgraded keeps it.
    _place: OwnedSemaphorePermit,
}

impl<S> Guarded<S> {
    pub(super) fn new(
        stream: S,
        begin_timeout: Duration,
        write_timeout: Duration,
        activity: Arc<Activity>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let begins = Some((Box::pin(sleep(begin_timeout)), 0));
        let (stalls, is_stalled) = (None, false);
        Self { stream, begins, write_timeout, stalls, is_stalled, activity, _place: place }
    }

    fn wrote(&mut self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        self.is_stalled = false;
        self.activity.wrote(*written.as_ref().unwrap_or(&0));
        Poll::Ready(written)
    }

    /// Fails a write that waits for too long.
    fn stall<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let until = Instant::now() + self.write_timeout;
        let timeout = self.write_timeout;
        let stalls = self.stalls.get_or_insert_with(|| Box::pin(sleep(timeout)));
        if !self.is_stalled {
            self.is_stalled = true;
            stalls.as_mut().reset(until);
        }
        ready!(stalls.as_mut().poll(cx));
        Poll::Ready(Err(timed_out("the peer takes nothing")))
    }
}

fn timed_out(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let Some((over, seen)) = &mut this.begins else { return read };
        if read.is_pending() {
            ready!(over.as_mut().poll(cx));
            return Poll::Ready(Err(timed_out("the peer does not begin")));
        }
        let new = &buf.filled()[before..];
        let is_open = PREFACE[*seen..].starts_with(new);
        *seen += new.len();
        if !is_open || *seen >= PREFACE.len() {
            this.begins = None;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(written) = Pin::new(&mut this.stream).poll_write(cx, buf) {
            return this.wrote(written);
        }
        this.stall(cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(written) = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs) {
            return this.wrote(written);
        }
        this.stall(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
