//! A connection, and the statements that it has prepared.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement, Transaction};

use super::error::Failure;
use super::open::{Driver, Settings};
use super::sql::{LIMIT, Sql, Text};
use crate::store::StoreError;
use crate::store::server::{Answer, Grouped, Lane, ServerClock};

/// How many statements a connection keeps prepared.
const MAX_PREPARED: usize = 200;

/// What a connection does with the calls that it takes.
pub(super) trait Serve<C>: Send + 'static {
    /// Does what is to be done first on a new connection.
    fn begin(&mut self, _: &mut Session) -> impl Future<Output = Result<(), Failure>> + Send {
        std::future::ready(Ok(()))
    }

    /// Makes all of them. An error that ends the connection is given back after they are answered.
    fn serve(
        &mut self,
        session: &mut Session,
        calls: Vec<C>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A connection of its own for whoever serves.
pub(super) struct Connected<S>(pub(super) Arc<Line>, pub(super) S);

impl<C: Grouped, S: Serve<C>> Lane<C> for Connected<S> {
    type Session = Session;

    async fn connect(&mut self) -> Option<Session> {
        let Self(line, serves) = self;
        let (client, driver) = line.settings.open(|_| ()).await.ok()?;
        let patience = line.settings.longest_wait();
        let line = Arc::clone(line);
        let mut session = Session { line, client, driver, patience, prepared: HashMap::new() };
        serves.begin(&mut session).await.ok()?;
        Some(session)
    }

    async fn lost(session: &mut Session) {
        session.driver.lost().await;
    }

    async fn serve(&mut self, session: &mut Session, calls: Vec<C>) -> bool {
        self.1.serve(session, calls).await.is_ok()
    }
}

/// Gives the result of a call, and the error that ends the connection if it was one.
pub(super) fn give<T>(
    answer: Answer<T>,
    result: Result<T, Failure>,
    to_error: fn(&Failure) -> StoreError,
) -> Result<(), Failure> {
    match result {
        Ok(value) => {
            answer.send(Ok(value));
            Ok(())
        }
        Err(failure) => {
            answer.send(Err(to_error(&failure)));
            if failure.is_fatal() { Err(failure) } else { Ok(()) }
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

/// A connection with the statements that it has prepared.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) line: Arc<Line>,
    pub(super) client: Client,
    driver: Driver,
    /// How long it waits for a row that somebody holds.
    patience: Duration,
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

    /// How long it waits for a row that somebody holds.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Waits so long for a row from now on.
    pub(super) async fn set_patience(&mut self, patience: Duration) -> Result<(), Failure> {
        if self.patience != patience {
            self.say(&wait("SET", patience)).await?;
            self.patience = patience;
        }
        Ok(())
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

/// What sets how long to wait for a row, by `SET` or `SET LOCAL`.
pub(super) fn wait(set: &str, patience: Duration) -> String {
    format!("{set} lock_timeout = {}", patience.as_millis())
}
