//! Opens connections, and brings the tables up to date.

use std::cmp::Ordering;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, GenericClient, NoTls, SimpleQueryMessage, Socket,
};

use super::hosts::{addresses, hosts};
use super::sql::{self, VERSION};
use crate::store::Durability;
use crate::store::server::settable;

/// Why a database could not be opened. What the driver said is its source.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the PostgreSQL store: {kind}")]
pub struct PostgresOpenError {
    kind: PostgresOpenErrorKind,
    #[source]
    source: Option<tokio_postgres::Error>,
}

/// What is in the way of opening a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresOpenErrorKind {
    /// The connection string cannot be understood.
    #[error("the connection string cannot be understood")]
    Config,
    /// Nobody answers there, or not in time; or others were changing the tables all the time.
    #[error("the server cannot be reached")]
    Unreachable,
    /// The server does not let this user in, or the database is not there, or they do not agree how to let the user
    /// in: a password or TLS is wanted that was not given, or not to be had.
    #[error("the server refuses the user, the password or the database")]
    Refused,
    /// The user may not make or use the tables.
    #[error("the user may not make or use the tables")]
    NotAllowed,
    /// The tables are not there, and the store was told not to make them.
    #[error("the tables are not there; run the migrations")]
    NotMigrated,
    /// A newer version of the crate has changed the tables.
    #[error("the tables were made by a newer version")]
    Newer,
    /// The server can only be read: it is a standby, or its sessions are read-only.
    #[error("the server can only be read")]
    ReadOnly,
    /// A pooler in between gives each transaction another session. What is prepared or listened to in one
    /// would be gone in the next: have it pool sessions.
    #[error("a pooler in between gives each transaction another session; have it pool sessions")]
    Pooled,
    /// Anything else; the source tells.
    #[error("the database failed")]
    Failed,
}

impl PostgresOpenError {
    /// What is in the way.
    pub fn kind(&self) -> PostgresOpenErrorKind {
        self.kind
    }

    /// Whether the same may succeed later, without anybody's help.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, PostgresOpenErrorKind::Unreachable | PostgresOpenErrorKind::ReadOnly)
    }

    fn new(kind: PostgresOpenErrorKind) -> Self {
        Self { kind, source: None }
    }

    pub(super) fn config(source: tokio_postgres::Error) -> Self {
        Self { kind: PostgresOpenErrorKind::Config, source: Some(source) }
    }
}

impl From<tokio_postgres::Error> for PostgresOpenError {
    fn from(source: tokio_postgres::Error) -> Self {
        let class = source.code().map(|code| code.code().get(..2).unwrap_or_default().to_owned());
        let cause = of_connection(&source).map(io::Error::kind);
        // How the driver says that a session is not as `target_session_attrs` asks.
        let is_other = cause == Some(io::ErrorKind::PermissionDenied);
        // What came is not as it should be, such as a certificate that nobody trusts.
        let is_odd =
            matches!(cause, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput));
        let is_away = source.is_closed() || cause.is_some() && !is_odd;
        let kind = match (source.code(), class.as_deref()) {
            (None, _) if is_other => PostgresOpenErrorKind::ReadOnly,
            (None, _) if is_away => PostgresOpenErrorKind::Unreachable,
            // Others were at the migration for longer than is waited.
            (Some(code), _) if *code == SqlState::LOCK_NOT_AVAILABLE => {
                PostgresOpenErrorKind::Unreachable
            }
            (Some(code), _) if *code == SqlState::INVALID_CATALOG_NAME => {
                PostgresOpenErrorKind::Refused
            }
            (Some(code), _) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
                PostgresOpenErrorKind::NotAllowed
            }
            (Some(code), _) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => {
                PostgresOpenErrorKind::ReadOnly
            }
            // It says so, or there is no password for it, or no TLS.
            (_, Some("28")) | (None, _) => PostgresOpenErrorKind::Refused,
            // Starting up, shutting down, or too many connections.
            (_, Some("57" | "53")) => PostgresOpenErrorKind::Unreachable,
            _ => PostgresOpenErrorKind::Failed,
        };
        Self { kind, source: Some(source) }
    }
}

/// The connection's trouble that is behind an error, if any is.
fn of_connection(error: &tokio_postgres::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

/// The half of a connection that does the talking, whatever it goes over.
pub(super) trait Drive: Send {
    fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<AsyncMessage, tokio_postgres::Error>>>;
}

impl<S, T> Drive for Connection<S, T>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
{
    fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<AsyncMessage, tokio_postgres::Error>>> {
        Connection::poll_message(self, cx)
    }
}

/// The task that drives a connection. It ends with whoever has it: by itself it would wait for an answer
/// that nobody waits for any more.
#[derive(Debug)]
pub(super) struct Driver(JoinHandle<()>);

impl Driver {
    /// Returns when the connection is lost.
    pub(super) async fn lost(&mut self) {
        let _ = (&mut self.0).await;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Connected = Result<(Client, Box<dyn Drive>), tokio_postgres::Error>;

/// How connections are made: by TLS or without.
pub(super) trait Connect: Send + Sync {
    fn connect<'a>(
        &'a self,
        config: &'a Config,
    ) -> Pin<Box<dyn Future<Output = Connected> + Send + 'a>>;
}

/// Connects by this maker of TLS streams.
pub(super) struct By<T>(pub(super) T);

impl<T> Connect for By<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect<'a>(
        &'a self,
        config: &'a Config,
    ) -> Pin<Box<dyn Future<Output = Connected> + Send + 'a>> {
        Box::pin(async move {
            let (client, connection) = config.connect(self.0.clone()).await?;
            Ok((client, Box::new(connection) as Box<dyn Drive>))
        })
    }
}

/// What every connection to one database has in common.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) connect: Arc<dyn Connect>,
    pub(super) schema: String,
    pub(super) connect_timeout: Duration,
    pub(super) call_timeout: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Settings {
    pub(super) fn without_tls() -> Arc<dyn Connect> {
        Arc::new(By(NoTls))
    }

    /// How long the server may be at a statement, or wait for somebody: nobody waits for its answer for
    /// longer than a call may take, and it gives up somewhat earlier, so that what it says comes in time.
    pub(super) fn longest_wait(&self) -> Duration {
        settable(self.call_timeout * 3 / 4)
    }

    /// How long a group waits for a row that somebody holds.
    pub(super) fn wait_together(&self) -> Duration {
        settable(self.call_timeout / 4)
    }

    /// How long a call waits for it that is tried alone, with others behind it.
    pub(super) fn wait_alone(&self) -> Duration {
        settable(self.call_timeout / 20)
    }

    /// Opens a connection to the first address of the first host that lets the user in, in time, and takes
    /// writes if it has to. What the server says unasked is told to `hear`.
    pub(super) async fn open(
        &self,
        hear: impl FnMut(AsyncMessage) + Clone + Send + 'static,
    ) -> Result<(Client, Driver), PostgresOpenError> {
        let mut error = PostgresOpenError::new(PostgresOpenErrorKind::Unreachable);
        for host in hosts(&self.config) {
            let found = timeout(self.connect_timeout, addresses(&host)).await;
            for address in found.into_iter().flatten() {
                match within(self.connect_timeout, self.open_at(&address, hear.clone())).await {
                    Ok(opened) => return Ok(opened),
                    Err(failed) => error = failed,
                }
            }
        }
        Err(error)
    }

    /// Opens a connection that drives itself, and sets its bounds.
    async fn open_at(
        &self,
        address: &Config,
        mut hear: impl FnMut(AsyncMessage) + Send + 'static,
    ) -> Result<(Client, Driver), tokio_postgres::Error> {
        let (client, mut connection) = self.connect.connect(address).await?;
        let driver = Driver(tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                hear(message);
            }
        }));
        // What the server gives up leaves no doubt. What was acknowledged is on its disk. Whoever waits for
        // others sees what they did. And each statement is planned once, perhaps while the tables are empty,
        // so that it must not take them for small ever after.
        let millis = self.longest_wait().as_millis();
        client
            .batch_execute(&format!(
                "SET statement_timeout = {millis}; SET lock_timeout = {millis};
                SET idle_in_transaction_session_timeout = {idle};
                SET default_transaction_isolation = 'read committed';
                SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;
                SELECT set_config('synchronous_commit', 'on', false)
                    WHERE current_setting('synchronous_commit') = 'off'",
                idle = (self.call_timeout * 2).as_millis(),
            ))
            .await?;
        Ok((client, driver))
    }

    /// Looks whether a connection is a session of its own: it keeps its process on the server while
    /// another connection is in a transaction.
    async fn check_session(&self, client: &Client) -> Result<(), PostgresOpenError> {
        let pooled = || PostgresOpenError::new(PostgresOpenErrorKind::Pooled);
        let look = async || client.simple_query("SELECT pg_backend_pid()").await.map(process);
        let before = within(self.call_timeout, look()).await?;
        let (other, _driver) = self.open(|_| ()).await?;
        within(self.call_timeout, other.batch_execute("BEGIN")).await?;
        // A pool of one session has none left now.
        let after = timeout(self.call_timeout, look()).await.map_err(|_| pooled())??;
        within(self.call_timeout, other.batch_execute("ROLLBACK")).await?;
        if before == after { Ok(()) } else { Err(pooled()) }
    }

    /// Makes the tables, or sees that they are there; says how durably the server keeps what it
    /// acknowledges.
    pub(super) async fn prepare(&self, migrate: bool) -> Result<Durability, PostgresOpenError> {
        let (mut client, _driver) = self.open(|_| ()).await?;
        self.check_session(&client).await?;
        let recovers = client.query_one("SELECT pg_is_in_recovery()", &[]);
        if within(self.call_timeout, recovers).await?.get(0) {
            return Err(PostgresOpenError::new(PostgresOpenErrorKind::ReadOnly));
        }
        let mut version = within(self.call_timeout, self.version(&client)).await?;
        if version < VERSION && migrate {
            version = self.migrate(&mut client).await?;
        }
        match version.cmp(&VERSION) {
            Ordering::Less => Err(PostgresOpenError::new(PostgresOpenErrorKind::NotMigrated)),
            Ordering::Greater => Err(PostgresOpenError::new(PostgresOpenErrorKind::Newer)),
            Ordering::Equal => {
                let fsync = within(self.call_timeout, client.query_one("SHOW fsync", &[])).await?;
                let is_on = fsync.get::<_, &str>(0) == "on";
                Ok(if is_on { Durability::PowerLoss } else { Durability::ProcessCrash })
            }
        }
    }

    /// Brings the tables up to date, and says which version they have then. Others may be at it, for whom it
    /// waits up to a minute. There may be much to change, for which there is no bound.
    async fn migrate(&self, client: &mut Client) -> Result<usize, PostgresOpenError> {
        client.batch_execute("SET statement_timeout = 0; SET lock_timeout = '60s'").await?;
        let transaction = client.transaction().await?;
        let lock = format!("respond-async {}", self.schema);
        transaction
            .execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", &[&lock])
            .await?;
        let version = self.version(&transaction).await?;
        for step in sql::migrations(&self.schema, version) {
            transaction.batch_execute(&step).await?;
        }
        transaction.commit().await?;
        Ok(version.max(VERSION))
    }

    /// The version of the tables; 0 if there are none.
    async fn version(
        &self,
        client: &(impl GenericClient + Sync),
    ) -> Result<usize, tokio_postgres::Error> {
        // What other sessions have made since is seen by a query at once, by `to_regclass` perhaps not.
        let there = "SELECT EXISTS (SELECT FROM pg_tables
            WHERE schemaname = $1::text::name AND tablename = 'schema_version')";
        if !client.query_one(there, &[&self.schema]).await?.get::<_, bool>(0) {
            return Ok(0);
        }
        let table = format!("{}.schema_version", sql::quoted(&self.schema));
        let row = client.query_one(&format!("SELECT version FROM {table}"), &[]).await?;
        Ok(usize::try_from(row.get::<_, i32>(0)).unwrap_or(usize::MAX))
    }
}

/// Does it in time, or the server counts as one that cannot be reached.
async fn within<T, E: Into<PostgresOpenError>>(
    bound: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, PostgresOpenError> {
    match timeout(bound, call).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(PostgresOpenError::new(PostgresOpenErrorKind::Unreachable)),
    }
}

/// The number of a process that a simple query gave.
fn process(messages: Vec<SimpleQueryMessage>) -> Option<String> {
    messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}
