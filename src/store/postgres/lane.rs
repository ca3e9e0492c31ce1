//! Connections that are never handed out: each belongs to a task, which takes all calls that wait and
//! makes them at once. A caller that goes away cuts no statement off.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement, Transaction};

use super::clock::ServerClock;
use super::error::Failure;
use super::open::Settings;
use super::sql::{LIMIT, Sql, Text};
use crate::store::{StoreError, StoreErrorKind};

/// How many calls share a statement at the most.
pub(super) const MAX_GROUP: usize = 256;
/// How many statements a connection keeps prepared.
const MAX_PREPARED: usize = 200;
/// How long to wait before a connection is tried again, at first and at the most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const ABANDONED: u8 = 2;

/// Where the answer of a call goes.
#[derive(Debug)]
pub(super) struct Answer<T> {
    sender: oneshot::Sender<Result<T, StoreError>>,
    state: Arc<AtomicU8>,
}

impl<T> Answer<T> {
    /// Whether the call is to be made: whoever waited too long was told that it never was.
    pub(super) fn begin(&self) -> bool {
        let state = &self.state;
        state.compare_exchange(WAITING, BEGUN, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(super) fn send(self, result: Result<T, StoreError>) {
        // Whoever asked may have gone away.
        let _ = self.sender.send(result);
    }
}

/// The queue before some lanes of one sort.
#[derive(Debug)]
pub(super) struct Calls<C> {
    sender: mpsc::Sender<C>,
    /// How many of its lanes are connected.
    connected: Arc<AtomicUsize>,
    call_timeout: Duration,
}

/// What a lane does with the calls that it takes.
pub(super) trait Serve<C>: Send + 'static {
    /// Makes all of them. An error that ends the connection is given back after they are answered.
    fn serve(
        &mut self,
        session: &mut Session,
        calls: Vec<C>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl<C: Send + 'static> Calls<C> {
    /// Starts the lanes, one for each of `servers`.
    pub(super) fn start<S: Serve<C>>(
        shared: &Arc<Line>,
        room: usize,
        servers: impl IntoIterator<Item = S>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(room);
        let receiver = Arc::new(Mutex::new(receiver));
        let connected = Arc::new(AtomicUsize::new(0));
        for server in servers {
            // None has failed yet: calls wait for the first connection.
            connected.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(run(
                Arc::clone(shared),
                Arc::clone(&receiver),
                Arc::clone(&connected),
                server,
            ));
        }
        Self { sender, connected, call_timeout: shared.settings.call_timeout }
    }

    /// Makes a call, and waits for its answer for as long as a call may take.
    pub(super) async fn ask<T>(
        &self,
        writes: bool,
        call: impl FnOnce(Answer<T>) -> C,
    ) -> Result<T, StoreError> {
        let unavailable = |message| StoreError::new(StoreErrorKind::Unavailable, message);
        if self.connected.load(Ordering::SeqCst) == 0 {
            return Err(unavailable("the database cannot be reached"));
        }
        let (sender, receiver) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(WAITING));
        self.sender
            .try_send(call(Answer { sender, state: Arc::clone(&state) }))
            .map_err(|_| unavailable("too many calls wait for the database"))?;
        match timeout(self.call_timeout, receiver).await {
            Ok(Ok(result)) => result,
            late => {
                let waited =
                    state.compare_exchange(WAITING, ABANDONED, Ordering::SeqCst, Ordering::SeqCst);
                Err(if waited.is_err() && writes {
                    let message = "the database gave no answer in time";
                    StoreError::new(StoreErrorKind::Ambiguous, message)
                } else if late.is_ok() {
                    unavailable("the connection to the database was lost")
                } else {
                    unavailable("the database gives no answer in time")
                })
            }
        }
    }
}

/// What all lanes of a store have in common.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) settings: Settings,
    pub(super) sql: Sql,
    pub(super) clock: ServerClock,
}

async fn run<C: Send + 'static, S: Serve<C>>(
    line: Arc<Line>,
    receiver: Arc<Mutex<mpsc::Receiver<C>>>,
    connected: Arc<AtomicUsize>,
    mut server: S,
) {
    let is_counted = AtomicBool::new(true);
    let [first, most] = PAUSES;
    let mut pause = first;
    loop {
        let opened = timeout(line.settings.connect_timeout, line.settings.open()).await;
        let Ok(Ok((client, lost))) = opened else {
            if is_counted.swap(false, Ordering::SeqCst) {
                connected.fetch_sub(1, Ordering::SeqCst);
            }
            if !wait(&receiver, pause).await {
                return;
            }
            pause = (pause * 2).min(most).mul_f64(0.75 + 0.25 * jitter());
            continue;
        };
        pause = first;
        if !is_counted.swap(true, Ordering::SeqCst) {
            connected.fetch_add(1, Ordering::SeqCst);
        }
        let mut session =
            Session { line: Arc::clone(&line), client, lost, prepared: HashMap::new() };
        loop {
            let mut calls = Vec::new();
            let taken = tokio::select! {
                taken = take(&receiver, &mut calls) => taken,
                _ = &mut session.lost => break,
            };
            if taken == 0 {
                return;
            }
            if server.serve(&mut session, calls).await.is_err() {
                break;
            }
        }
    }
}

async fn take<C>(receiver: &Mutex<mpsc::Receiver<C>>, calls: &mut Vec<C>) -> usize {
    receiver.lock().await.recv_many(calls, MAX_GROUP).await
}

/// Waits before the next try; false once nobody can ask any more.
async fn wait<C>(receiver: &Mutex<mpsc::Receiver<C>>, pause: Duration) -> bool {
    sleep(pause).await;
    // Whoever waits for calls holds the lock, and will see the end of it.
    !receiver.try_lock().is_ok_and(|receiver| receiver.is_closed() && receiver.is_empty())
}

/// A number from 0 to 1 that differs between processes, so that they do not come back in step.
fn jitter() -> f64 {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}

/// A connection with the statements that it has prepared.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) line: Arc<Line>,
    pub(super) client: Client,
    /// Resolves when the connection is lost.
    lost: oneshot::Receiver<()>,
    /// By their name, and how many rows they are for.
    prepared: HashMap<(&'static str, usize), Statement>,
}

/// Where a statement is run: on a connection of the store's, or in somebody's transaction.
pub(super) trait Run: Send {
    fn query(
        &mut self,
        pick: impl Fn(&Sql) -> &Text + Send,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Vec<Row>, Failure>> + Send;
}

impl Run for Session {
    async fn query(
        &mut self,
        pick: impl Fn(&Sql) -> &Text + Send,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let statement = self.prepare(pick).await?;
        self.run(&statement, params).await
    }
}

/// A transaction that is not the store's.
pub(super) struct Foreign<'a, 'c> {
    pub(super) transaction: &'a Transaction<'c>,
    pub(super) sql: &'a Sql,
}

impl Run for Foreign<'_, '_> {
    async fn query(
        &mut self,
        pick: impl Fn(&Sql) -> &Text + Send,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let text = pick(self.sql);
        let typed: Vec<(&(dyn ToSql + Sync), Type)> =
            params.iter().copied().zip(text.types.iter().cloned()).collect();
        Ok(self.transaction.query_typed(&text.sql, &typed).await?)
    }
}

impl Session {
    /// The statement, prepared.
    pub(super) async fn prepare(
        &mut self,
        pick: impl Fn(&Sql) -> &Text,
    ) -> Result<Statement, Failure> {
        self.prepare_for(pick, 0).await
    }

    /// The statement for up to so many rows, prepared.
    pub(super) async fn prepare_for(
        &mut self,
        pick: impl Fn(&Sql) -> &Text,
        limit: usize,
    ) -> Result<Statement, Failure> {
        let text = pick(&self.line.sql);
        if let Some(statement) = self.prepared.get(&(text.name, limit)) {
            return Ok(statement.clone());
        }
        let sql = text.sql.replace(LIMIT, &limit.to_string());
        let statement = self.in_time(self.client.prepare_typed(&sql, text.types)).await?;
        let name = text.name;
        if self.prepared.len() >= MAX_PREPARED {
            self.prepared.clear();
        }
        self.prepared.insert((name, limit), statement.clone());
        Ok(statement)
    }

    /// Runs a prepared statement.
    pub(super) async fn run(
        &self,
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        self.in_time(self.client.query(statement, params)).await
    }

    /// `BEGIN`, `COMMIT` or `ROLLBACK`.
    pub(super) async fn say(&self, word: &str) -> Result<(), Failure> {
        self.in_time(self.client.batch_execute(word)).await
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        if self.client.is_closed() {
            return Err(Failure::NotConnected);
        }
        match timeout(self.line.settings.call_timeout, call).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Failure::TimedOut),
        }
    }
}
