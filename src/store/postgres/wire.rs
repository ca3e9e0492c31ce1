//! Word of changes, from process to process: `NOTIFY` after the commit, gathered for a few
//! milliseconds, and one connection that listens.

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client};
use uuid::Uuid;

use super::lane::Line;
use crate::operation::{Operation, OperationId, Status};
use crate::store::hints::{Hint, Hub};

/// For how long word is gathered before it is passed on. It bounds how often a process notifies.
const GATHERED: Duration = Duration::from_millis(5);
/// How many ids one notification names: its payload may have 8,000 bytes.
const MAX_NAMED: usize = 200;
/// How many ids are kept while they cannot be passed on; beyond it only that some were missed.
const MAX_KEPT: usize = 10_000;
/// How long a listener waits to hear itself.
const ECHO: Duration = Duration::from_secs(2);
/// How often it tries whether it still does.
const PROBE: Duration = Duration::from_secs(30);
/// How long to wait before a connection is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// The way to the other processes.
#[derive(Debug)]
pub(super) struct Wire {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    word: Mutex<Word>,
    /// There is something to pass on, or nobody is left to say anything.
    news: Notify,
    is_heard: AtomicBool,
    is_closed: AtomicBool,
}

/// What is to be passed on.
#[derive(Debug, Default)]
struct Word {
    changed: HashSet<OperationId>,
    claimable: bool,
    missed: bool,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.shared.news.notify_one();
    }
}

impl Wire {
    pub(super) fn start(line: &Arc<Line>, hub: &Arc<Hub>, watch_interval: Duration) -> Self {
        let shared = Arc::new(Shared {
            word: Mutex::default(),
            news: Notify::new(),
            is_heard: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        });
        let post = Post {
            shared: Arc::clone(&shared),
            line: Arc::clone(line),
            hub: Arc::clone(hub),
            own: Uuid::from_u128(rand()).simple().to_string(),
            watch_interval,
        };
        tokio::spawn(post.run());
        Self { shared }
    }

    pub(super) fn is_heard(&self) -> bool {
        self.shared.is_heard.load(Ordering::SeqCst)
    }

    /// Tells that the operation is new or has changed, and that it waits for a worker, if it does.
    pub(super) fn tell(&self, operation: &Operation) {
        let claimable =
            operation.status() == Status::Pending && operation.lease_expires().is_none();
        self.say(Some(operation.id()), claimable);
    }

    pub(super) fn tell_changed(&self, id: OperationId) {
        self.say(Some(id), false);
    }

    pub(super) fn tell_claimable(&self) {
        self.say(None, true);
    }

    fn say(&self, changed: Option<OperationId>, claimable: bool) {
        let mut word = self.shared.word.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = word.is_empty();
        word.changed.extend(changed);
        word.claimable |= claimable;
        if word.changed.len() > MAX_KEPT {
            *word = Word { missed: true, ..Word::default() };
        }
        drop(word);
        if was_empty {
            self.shared.news.notify_one();
        }
    }
}

impl Word {
    fn is_empty(&self) -> bool {
        self.changed.is_empty() && !self.claimable && !self.missed
    }
}

fn rand() -> u128 {
    let mut bytes = [0; 16];
    // Without it a process hears itself, which costs a look and nothing else.
    let _ = getrandom::fill(&mut bytes);
    u128::from_ne_bytes(bytes)
}

/// The task that says and hears.
struct Post {
    shared: Arc<Shared>,
    line: Arc<Line>,
    hub: Arc<Hub>,
    /// Marks this process's own word.
    own: String,
    watch_interval: Duration,
}

impl Post {
    async fn run(self) {
        while !self.is_closed() {
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
            self.shared.is_heard.store(false, Ordering::SeqCst);
            // What was said meanwhile nobody heard.
            self.hub.send(Hint::Missed);
            let again = Instant::now() + PAUSE;
            while Instant::now() < again && !self.is_closed() {
                sleep(self.watch_interval.min(PAUSE)).await;
                self.hub.send(Hint::Missed);
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.shared.is_closed.load(Ordering::SeqCst)
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
        let mut say_at: Option<Instant> = None;
        loop {
            if self.is_closed() {
                return;
            }
            let wake_at = [Some(probe_at), echo_by, say_at, Some(watch_at)];
            let wake_at = wake_at.into_iter().flatten().min().unwrap_or(probe_at);
            tokio::select! {
                heard = hearing.recv() => match heard {
                    Some(payload) => self.hear(&payload, &mut echo_by),
                    None => return,
                },
                () = self.shared.news.notified() => {
                    say_at.get_or_insert(Instant::now() + GATHERED);
                }
                () = sleep_until(wake_at) => {}
            }
            let now = Instant::now();
            let mut say = Vec::new();
            if say_at.take_if(|at| *at <= now).is_some() {
                say = self.words();
            }
            if probe_at <= now {
                probe_at = now + PROBE;
                echo_by.get_or_insert(now + ECHO);
                say.push(format!("{}?", self.own));
            }
            if echo_by.take_if(|by| *by <= now).is_some() {
                self.shared.is_heard.store(false, Ordering::SeqCst);
            }
            if watch_at <= now {
                watch_at = now + self.watch_interval;
                if !self.shared.is_heard.load(Ordering::SeqCst) {
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

    /// What is to be said, in as many payloads as it takes: whose word it is, whether there is work, and
    /// the ids of what changed.
    fn words(&self) -> Vec<String> {
        let mut word = self.shared.word.lock().unwrap_or_else(PoisonError::into_inner);
        let Word { changed, claimable, missed } = std::mem::take(&mut *word);
        drop(word);
        let mut payloads = Vec::new();
        if missed {
            payloads.push(format!("{}!", self.own));
        }
        let changed: Vec<OperationId> = changed.into_iter().collect();
        let mut mark = if claimable { '+' } else { '=' };
        for ids in changed.chunks(MAX_NAMED) {
            let mut payload = format!("{}{mark}", self.own);
            for id in ids {
                payload.push_str(&id.as_uuid().simple().to_string());
            }
            payloads.push(payload);
            mark = '=';
        }
        if mark == '+' {
            payloads.push(format!("{}+", self.own));
        }
        payloads
    }

    fn hear(&self, payload: &str, echo_by: &mut Option<Instant>) {
        // Whoever is this process has told its own already, and knows by its echo that it hears.
        let Some((whose, rest)) = payload.split_at_checked(self.own.len()) else { return };
        let mut marks = rest.chars();
        let mark = marks.next();
        if whose == self.own {
            *echo_by = None;
            self.shared.is_heard.store(true, Ordering::SeqCst);
            return;
        }
        match mark {
            Some('!') => self.hub.send(Hint::Missed),
            Some(mark @ ('+' | '=')) => {
                let ids = marks.as_str().as_bytes().chunks(32);
                for id in ids.filter_map(|id| Uuid::try_parse_ascii(id).ok()) {
                    if let Ok(id) = OperationId::try_from(id) {
                        self.hub.send(Hint::Changed(id));
                    }
                }
                if mark == '+' {
                    self.hub.send(Hint::Claimable);
                }
            }
            _ => {}
        }
    }
}
