//! The task that passes word of changes on, and hears the others', by a channel of the server's.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::word::Word;
use crate::store::hints::{Hint, Hub};

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
    async fn hear(&mut self) -> Option<String>;

    /// Says it to all who listen; none if the connection is lost.
    async fn say(&mut self, message: &str) -> Option<()>;
}

/// The way to the other processes.
#[derive(Debug)]
pub(in crate::store) struct Wire(Arc<Word>);

impl Drop for Wire {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Deref for Wire {
    type Target = Word;

    fn deref(&self) -> &Word {
        &self.0
    }
}

impl Wire {
    /// Speaks and listens until it is dropped. No message may take longer to say than `bound`. While this
    /// process does not hear itself, `hub` is told each `watch_interval` that something may have changed.
    pub(in crate::store) fn start(
        channel: impl Channel,
        hub: &Arc<Hub>,
        bound: Duration,
        watch_interval: Duration,
    ) -> Self {
        let word = Arc::new(Word::new());
        let hub = Arc::clone(hub);
        tokio::spawn(Post { word: Arc::clone(&word), channel, hub, bound, watch_interval }.run());
        Self(word)
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
                    let Some(message) = heard else { return };
                    if self.word.hear(&message, &self.hub) {
                        echo_by = None;
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
                    return;
                }
            }
        }
    }
}
