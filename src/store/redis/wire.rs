//! Word of changes, by the server's channels: one connection that speaks, one that listens.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSubStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::lane::Line;
use crate::store::hints::{Hint, Hub};
use crate::store::server::{GATHERED, Word};

/// How long a listener waits to hear itself.
const ECHO: Duration = Duration::from_secs(2);
/// How often it tries whether it still does.
const PROBE: Duration = Duration::from_secs(5);
/// How long to wait before a connection is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// The way to the other processes.
#[derive(Debug)]
pub(super) struct Wire(Arc<Word>);

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
    pub(super) fn start(line: &Arc<Line>, hub: &Arc<Hub>) -> Self {
        let word = Arc::new(Word::new());
        let (line, hub) = (Arc::clone(line), Arc::clone(hub));
        tokio::spawn(Post { word: Arc::clone(&word), line, hub }.run());
        Self(word)
    }
}

/// The task that says and hears.
struct Post {
    word: Arc<Word>,
    line: Arc<Line>,
    hub: Arc<Hub>,
}

impl Post {
    async fn run(self) {
        while !self.word.is_closed() {
            if let Some((speaker, listener)) = self.connect().await {
                self.serve(speaker, listener).await;
            }
            self.word.set_heard(false);
            // What was said meanwhile nobody heard.
            self.hub.send(Hint::Missed);
            let again = Instant::now() + PAUSE;
            while Instant::now() < again && !self.word.is_closed() {
                sleep(PAUSE / 5).await;
                self.hub.send(Hint::Missed);
            }
        }
    }

    fn channel(&self) -> String {
        format!("{}word", self.line.prefix)
    }

    async fn connect(&self) -> Option<(MultiplexedConnection, PubSubStream)> {
        let settings = &self.line.settings;
        let speaker = settings.open().await.ok()?;
        let listen = async {
            let (mut sink, stream) = settings.client.get_async_pubsub().await.ok()?.split();
            sink.subscribe(self.channel()).await.ok()?;
            Some(stream)
        };
        Some((speaker, timeout(settings.connect_timeout, listen).await.ok()??))
    }

    /// Says and hears until a connection is lost.
    async fn serve(&self, mut speaker: MultiplexedConnection, mut listener: PubSubStream) {
        // From here on nothing is missed; what came before was.
        self.hub.send(Hint::Missed);
        let channel = self.channel();
        let mut probe_at = Instant::now();
        let mut echo_by: Option<Instant> = None;
        // What was kept while there was no connection, if anything.
        let mut say_at = Some(Instant::now());
        while !self.word.is_closed() {
            let wake_at = [Some(probe_at), echo_by, say_at].into_iter().flatten().min();
            tokio::select! {
                heard = listener.next() => {
                    let Some(message) = heard else { return };
                    let text: String = message.get_payload().unwrap_or_default();
                    if self.word.hear(&text, &self.hub) {
                        echo_by = None;
                    }
                }
                () = self.word.news.notified() => {
                    say_at.get_or_insert(Instant::now() + GATHERED);
                }
                () = sleep_until(wake_at.unwrap_or(probe_at)) => {}
            }
            let now = Instant::now();
            let mut say = Vec::new();
            if say_at.take_if(|at| *at <= now).is_some() {
                say = self.word.take();
            }
            if probe_at <= now {
                probe_at = now + PROBE;
                echo_by.get_or_insert(now + ECHO);
                say.push(self.word.probe());
            }
            if echo_by.is_some_and(|by| by <= now) {
                // A connection that carries nothing.
                return;
            }
            for message in say {
                let mut publish = redis::cmd("PUBLISH");
                publish.arg(&channel).arg(message);
                if publish.query_async::<()>(&mut speaker).await.is_err() {
                    return;
                }
            }
        }
    }
}
