//! Word of changes, from process to process: `NOTIFY` after the commit, gathered for a few
//! milliseconds, and one connection that listens.

use std::future::poll_fn;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client};

use super::lane::Line;
use crate::store::hints::{Hint, Hub};
use crate::store::server::{GATHERED, Word};

/// How long a listener waits to hear itself.
const ECHO: Duration = Duration::from_secs(2);
/// How often it tries whether it still does.
const PROBE: Duration = Duration::from_secs(30);
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
    pub(super) fn start(line: &Arc<Line>, hub: &Arc<Hub>, watch_interval: Duration) -> Self {
        let word = Arc::new(Word::new());
        let (line, hub) = (Arc::clone(line), Arc::clone(hub));
        tokio::spawn(Post { word: Arc::clone(&word), line, hub, watch_interval }.run());
        Self(word)
    }
}

/// The task that says and hears.
struct Post {
    word: Arc<Word>,
    line: Arc<Line>,
    hub: Arc<Hub>,
    watch_interval: Duration,
}

impl Post {
    async fn run(self) {
        while !self.word.is_closed() {
            if let Ok(Ok((client, mut connection))) =
                timeout(self.line.settings.connect_timeout, self.line.settings.connect()).await
            {
                let (heard, hearing) = mpsc::channel(1_024);
                let listener = tokio::spawn(async move {
                    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                        if let AsyncMessage::Notification(notification) = message {
                            if heard.send(notification.payload().to_owned()).await.is_err() {
                                return;
                            }
                        }
                    }
                });
                self.serve(&client, hearing).await;
                listener.abort();
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

    /// The channel of all processes that share the tables.
    fn channel(&self) -> String {
        // A name may have 63 bytes.
        let schema: String = self.line.settings.schema.chars().take(40).collect();
        format!("ra_{schema}")
    }

    /// Says and hears until the connection is lost.
    async fn serve(&self, client: &Client, mut hearing: mpsc::Receiver<String>) {
        let channel = self.channel();
        let listen = format!("LISTEN {}", super::sql::quoted(&channel));
        let bound = self.line.settings.call_timeout;
        if !matches!(timeout(bound, client.batch_execute(&listen)).await, Ok(Ok(()))) {
            return;
        }
        // From here on nothing is missed; what came before was.
        self.hub.send(Hint::Missed);
        let mut probe_at = Instant::now();
        let mut echo_by: Option<Instant> = None;
        let mut watch_at = Instant::now() + self.watch_interval;
        // What was kept while there was no connection, if anything.
        let mut say_at = Some(Instant::now());
        loop {
            if self.word.is_closed() {
                return;
            }
            let wake_at = [Some(probe_at), echo_by, say_at, Some(watch_at)];
            let wake_at = wake_at.into_iter().flatten().min().unwrap_or(probe_at);
            tokio::select! {
                heard = hearing.recv() => match heard {
                    Some(payload) => {
                        if self.word.hear(&payload, &self.hub) {
                            echo_by = None;
                        }
                    }
                    None => return,
                },
                () = self.word.news.notified() => {
                    say_at.get_or_insert(Instant::now() + GATHERED);
                }
                () = sleep_until(wake_at) => {}
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
            if echo_by.take_if(|by| *by <= now).is_some() {
                self.word.set_heard(false);
            }
            if watch_at <= now {
                watch_at = now + self.watch_interval;
                if !self.word.is_heard() {
                    self.hub.send(Hint::Missed);
                }
            }
            for payload in say {
                let params: [&(dyn ToSql + Sync); 2] = [&channel, &payload];
                let notify = client.execute("SELECT pg_notify($1, $2)", &params);
                if !matches!(timeout(bound, notify).await, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}
