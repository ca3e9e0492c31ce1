//! Hands events to a stream's reader for as long as it reads.
//!
//! A server does not ask a stream for more while its connection takes nothing, so a stream cannot notice by
//! itself that its reader stalls. The pump is a task beside it: what it hands on has to be taken
//! within a time, or it ends. Between the two there is room for one event.

use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::content::Content;
use crate::operations::{Observer, StreamBounds};
use crate::respond::Event;

#[derive(Debug)]
pub(super) struct Pump {
    events: mpsc::Sender<Bytes>,
    bounds: StreamBounds,
    spoke: Instant,
}

impl Pump {
    /// Starts a stream with an event, and what goes on telling: until that or its reader has ended, the
    /// process shuts down, or its lifetime is over.
    pub(super) fn start<T>(
        observer: &Observer,
        place: OwnedSemaphorePermit,
        first: Event,
        tell: impl FnOnce(Observer, Self) -> T,
    ) -> Content
    where
        T: Future<Output = Option<()>> + Send + 'static,
    {
        let (events, receiver) = mpsc::channel(1);
        // There is room for it.
        let _ = events.try_send(first.into_bytes());
        let bounds = observer.stream_bounds();
        let reader = events.clone();
        let told = tell(observer.clone(), Self { events, bounds, spoke: Instant::now() });
        let observer = observer.clone();
        observer.clone().spawn(async move {
            // Free as soon as the stream has ended, whether or not its reader takes what is left.
            let _place = place;
            tokio::select! {
                biased;
                () = observer.closed() => {}
                () = reader.closed() => {}
                () = sleep(bounds.lifetime) => {}
                _ = told => {}
            }
        });
        Content::events(receiver)
    }

    /// Waits for something, and says now and then that there is nothing yet. None if the reader has gone
    /// or stalls.
    pub(super) async fn beating<T>(&mut self, wait: impl Future<Output = T>) -> Option<T> {
        let mut wait = pin!(wait);
        loop {
            tokio::select! {
                biased;
                answer = &mut wait => return Some(answer),
                () = sleep_until(self.spoke + self.bounds.heartbeat) => {}
            }
            self.send(|| Event::comment("")).await?;
        }
    }

    /// Waits until the reader has room, and hands on the event as it then is. None if it has gone or
    /// stalls.
    pub(super) async fn send(&mut self, event: impl FnOnce() -> Event) -> Option<()> {
        let room = timeout(self.bounds.stall_limit, self.events.reserve()).await.ok()?.ok()?;
        room.send(event().into_bytes());
        self.spoke = Instant::now();
        Some(())
    }
}
