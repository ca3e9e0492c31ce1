//! The task that passes word of changes on, and hears the others', by a channel of the server's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ear::Heard;
use super::word::Word;
use crate::operation::{Operation, OperationId};
use crate::store::hints::{Hint, Hints, Hub};

/// For how long word is gathered before it is passed on. It bounds how often a process speaks.
const GATHERED: Duration = Duration::from_millis(5);
/// How long a process waits to hear itself.
const ECHO: Duration = Duration::from_secs(2);
/// How often it tries whether it still does.
const PROBE: Duration = Duration::from_secs(5);
/// How long to wait before a connection is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// A channel on which all processes that share a store speak and listen.
#[async_trait]
pub(in crate::store) trait Channel: Send + Sync + 'static {
    type Connection: Connection;

    /// Connects; what is said from then on is heard.
    async fn connect(&self) -> Option<Self::Connection>;
}

/// A connection to a [`Channel`].
#[async_trait]
pub(in crate::store) trait Connection: Send {
    /// What somebody said next, this process included; none once the connection is lost. A call that is
    /// dropped loses nothing.
    async fn hear(&mut self) -> Option<Heard>;

    /// Says it to all who listen; none if the connection is lost.
    async fn say(&mut self, message: &str) -> Option<()>;
}

/// The way to whoever listens, in this process and the others.
#[derive(Debug)]
pub(in crate::store) struct Wire {
    word: Arc<Word>,
    hub: Arc<Hub>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.word.close();
    }
}

impl Wire {
    /// Speaks and listens until it is dropped. No message may take longer to say than `bound`. While this
    /// process does not hear itself, it is told each `watch_interval` that something may have changed.
    pub(in crate::store) fn start(
        channel: impl Channel,
        bound: Duration,
        watch_interval: Duration,
    ) -> Self {
        let wire = Self { word: Arc::new(Word::new()), hub: Arc::default() };
        let (word, hub) = (Arc::clone(&wire.word), Arc::clone(&wire.hub));
        tokio::spawn(Post { word, channel, hub, bound, watch_interval }.run());
        wire
    }

    /// What this process hears, of its own changes and others'.
    pub(in crate::store) fn hints(&self) -> Box<dyn Hints> {
        self.hub.subscribe()
    }

    /// Whether this process hears itself, and so the others.
    pub(in crate::store) fn is_heard(&self) -> bool {
        self.word.is_heard()
    }

    /// Tells that the operation is new or has changed, and that it waits for a worker, if it does.
    pub(in crate::store) fn publish(&self, operation: &Operation) {
        self.hub.publish(operation);
        self.word.tell(operation);
    }

    /// Tells that the operation has changed or is gone.
    pub(in crate::store) fn publish_changed(&self, id: OperationId) {
        self.hub.send(Hint::Changed(id));
        self.word.tell_changed(id);
    }

    /// Tells that there may be work.
    pub(in crate::store) fn publish_claimable(&self) {
        self.hub.send(Hint::Claimable);
        self.word.tell_claimable();
    }
}

struct Post<C> {
    word: Arc<Word>,
    channel: C,
    hub: Arc<Hub>,
    bound: Duration,
    watch_interval: Duration,
}

impl<C: Channel> Post<C> {
    async fn run(self) {
        while !self.word.is_closed() {
            if let Some(connection) = self.channel.connect().await {
                self.serve(connection).await;
            }
            self.word.set_heard(false);
            // What was said meanwhile nobody heard.
            self.hub.send(Hint::Missed);
            let again = Instant::now() + PAUSE;
            while Instant::now() < again && !self.word.is_closed() {
                sleep(self.watch_interval.min(PAUSE)).await;
                self.hub.send(Hint::Missed);
            }
        }
    }

    /// Says and hears until the connection is lost, or carries nothing.
    async fn serve(&self, mut connection: C::Connection) {
        // From here on nothing is missed; what came before was.
        self.hub.send(Hint::Missed);
        let mut probe_at = Instant::now();
        let mut echo_by: Option<Instant> = None;
        let mut watch_at = Instant::now() + self.watch_interval;
        // What was kept while there was no connection, if anything.
        let mut say_at = Some(Instant::now());
        while !self.word.is_closed() {
            let watched = (!self.word.is_heard()).then_some(watch_at);
            let wake_at = [echo_by, say_at, watched].into_iter().flatten().fold(probe_at, Ord::min);
            tokio::select! {
                heard = connection.hear() => {
                    match heard {
                        Some(Heard::Message(message)) => {
                            if self.word.hear(&message, &self.hub) {
                                echo_by = None;
                            }
                        }
                        // Its own word may have been among it.
                        Some(Heard::Missed) => {
                            echo_by = None;
                            self.hub.send(Hint::Missed);
                        }
                        None => return,
                    }
                }
                () = self.word.news.notified() => {
                    say_at.get_or_insert(Instant::now() + GATHERED);
                }
                () = sleep_until(wake_at) => {}
            }
            let now = Instant::now();
            if echo_by.is_some_and(|by| by <= now) {
                return;
            }
            let mut messages = Vec::new();
            if say_at.take_if(|at| *at <= now).is_some() {
                messages = self.word.take();
            }
            if probe_at <= now {
                probe_at = now + PROBE;
                echo_by.get_or_insert(now + ECHO);
                messages.push(self.word.probe());
            }
            if watch_at <= now {
                watch_at = now + self.watch_interval;
                if !self.word.is_heard() {
                    self.hub.send(Hint::Missed);
                }
            }
            for message in messages {
                if !matches!(timeout(self.bound, connection.say(&message)).await, Ok(Some(()))) {
                    // What was taken to be said is gone: the others are to look for themselves.
                    self.word.tell_missed();
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::time::Timestamp;

    /// Says what is said on the connection of that number; the first loses what is no probe.
    struct Told(usize, mpsc::UnboundedSender<(usize, String)>);

    #[async_trait]
    impl Connection for Told {
        async fn hear(&mut self) -> Option<Heard> {
            std::future::pending().await
        }

        async fn say(&mut self, message: &str) -> Option<()> {
            if self.0 == 1 && !message.ends_with('?') {
                return None;
            }
            self.1.send((self.0, message.to_owned())).ok()
        }
    }

    struct Channels(Arc<std::sync::Mutex<usize>>, mpsc::UnboundedSender<(usize, String)>);

    #[async_trait]
    impl Channel for Channels {
        type Connection = Told;

        async fn connect(&self) -> Option<Told> {
            let mut count = self.0.lock().unwrap();
            *count += 1;
            Some(Told(*count, self.1.clone()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn that_word_could_not_be_said_is_said_once_it_can_be() {
        let (said, mut heard) = mpsc::unbounded_channel();
        let channel = Channels(Arc::default(), said);
        // Of the longest interval that can be set nothing is due yet.
        let wire = Wire::start(channel, ECHO, crate::store::server::settable(Duration::MAX));
        let (connection, probe) = heard.recv().await.unwrap();
        assert!(connection == 1 && probe.ends_with('?'), "{probe}");
        wire.publish_changed(OperationId::from_parts(Timestamp::from_unix_millis(7), [7; 10]));
        let (connection, message) = heard.recv().await.unwrap();
        assert!(connection == 2 && message.ends_with('!'), "{message}");
    }
}
