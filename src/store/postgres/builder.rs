use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, Socket};

use super::channel::Channel;
use super::lane::{Connected, Line};
use super::open::{By, PostgresOpenError, Settings};
use super::read::Reader;
use super::sql::Sql;
use super::step::Stepper;
use super::write::Writer;
use super::{PostgresStore, Shared};
use crate::store::server::{
    Calls, ServerClock, Wire, settable, settable_connections, settable_queue,
};

/// Sets what a [`PostgresStore`] keeps to, and opens it.
#[derive(Debug, Clone)]
#[must_use]
pub struct PostgresStoreBuilder {
    settings: Settings,
    migrate: bool,
    writers: usize,
    readers: usize,
    queue: usize,
    max_body_bytes: usize,
    watch_interval: Duration,
}

impl PostgresStoreBuilder {
    pub(super) fn new(config: Config) -> Self {
        Self {
            settings: Settings {
                config,
                connect: Settings::without_tls(),
                schema: PostgresStore::DEFAULT_SCHEMA.to_owned(),
                connect_timeout: PostgresStore::DEFAULT_CONNECT_TIMEOUT,
                call_timeout: PostgresStore::DEFAULT_CALL_TIMEOUT,
            },
            migrate: true,
            writers: PostgresStore::DEFAULT_WRITERS,
            readers: PostgresStore::DEFAULT_READERS,
            queue: PostgresStore::DEFAULT_QUEUE,
            max_body_bytes: PostgresStore::DEFAULT_MAX_BODY_BYTES,
            watch_interval: PostgresStore::DEFAULT_WATCH_INTERVAL,
        }
    }

    /// Connects by TLS, as this maker of TLS streams does it (default: without TLS). The server's certificate is checked by it
    /// or not at all.
    pub fn tls<T>(mut self, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        self.settings.connect = Arc::new(By(tls));
        self
    }

    /// The schema that holds the tables (default: [`DEFAULT_SCHEMA`](PostgresStore::DEFAULT_SCHEMA)). Each
    /// schema is a store of its own.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.settings.schema = schema.into();
        self
    }

    /// What the connections are called in the server's list of sessions (default: what the connection string
    /// says, else `respond-async`).
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.settings.config.application_name(name);
        self
    }

    /// Whether to make the tables, and to bring them up to date (default: yes). Many replicas may do so at
    /// once: one waits up to a minute for the other.
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// How long to wait for a connection, until the user is let in and the server says that it takes writes;
    /// for each address of each host that is named, and as long for its name to be looked up. From a
    /// millisecond to a day (default: [`DEFAULT_CONNECT_TIMEOUT`](PostgresStore::DEFAULT_CONNECT_TIMEOUT)).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = settable(timeout);
        self
    }

    /// How long a call may take, its wait for its turn included; from a millisecond to a day (default:
    /// [`DEFAULT_CALL_TIMEOUT`](PostgresStore::DEFAULT_CALL_TIMEOUT)). After it a call that reads or was not
    /// begun is [`Unavailable`](crate::store::StoreErrorKind::Unavailable), one that writes
    /// [`Ambiguous`](crate::store::StoreErrorKind::Ambiguous). The server is told to give up after three quarters
    /// of it, so that most are told for certain that nothing was written.
    ///
    /// `accept` is two calls, one after the other, if the server's clock was not heard of for a second.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.settings.call_timeout = settable(timeout);
        self
    }

    /// How many connections write, from 1 to 1,000 (default:
    /// [`DEFAULT_WRITERS`](PostgresStore::DEFAULT_WRITERS)). More than 2 hardly ever help: what waits for
    /// one goes along with its next commit.
    pub fn writers(mut self, connections: usize) -> Self {
        self.writers = settable_connections(connections);
        self
    }

    /// How many connections read, from 1 to 1,000 (default:
    /// [`DEFAULT_READERS`](PostgresStore::DEFAULT_READERS)).
    pub fn readers(mut self, connections: usize) -> Self {
        self.readers = settable_connections(connections);
        self
    }

    /// How many calls of a sort may wait, from 1 to 1,000,000 (default:
    /// [`DEFAULT_QUEUE`](PostgresStore::DEFAULT_QUEUE)). One more is
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable).
    pub fn queue(mut self, calls: usize) -> Self {
        self.queue = settable_queue(calls);
        self
    }

    /// Bounds one input or outcome, in bytes (default:
    /// [`DEFAULT_MAX_BODY_BYTES`](PostgresStore::DEFAULT_MAX_BODY_BYTES)). PostgreSQL itself takes no more
    /// than 1 GB.
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// How long it is from one look for changes to the next where no word of them comes, while anybody
    /// listens; from a millisecond to a day (default:
    /// [`DEFAULT_WATCH_INTERVAL`](PostgresStore::DEFAULT_WATCH_INTERVAL)).
    pub fn watch_interval(mut self, interval: Duration) -> Self {
        self.watch_interval = settable(interval);
        self
    }

    /// Opens the store.
    ///
    /// # Errors
    /// See [`PostgresOpenErrorKind`](crate::store::PostgresOpenErrorKind).
    ///
    /// # Cancel safety
    /// A future that is dropped leaves no connection behind; the tables were made or not, never half.
    pub async fn open(self) -> Result<PostgresStore, PostgresOpenError> {
        let Self { mut settings, queue, max_body_bytes, .. } = self;
        settings.config.connect_timeout(settings.connect_timeout);
        settings.config.keepalives_idle(Duration::from_secs(30));
        let durability = settings.prepare(self.migrate).await?;
        let sql = Sql::of(&settings.schema);
        let line = Arc::new(Line { settings, sql, clock: ServerClock::default() });
        let bound = line.settings.call_timeout;
        let shared = Shared {
            reads: Calls::start(
                (0..self.readers).map(|_| Connected(Arc::clone(&line), Reader::new())),
                queue,
                bound,
                Duration::ZERO,
            ),
            writes: Calls::start(
                (0..self.writers).map(|_| Connected(Arc::clone(&line), Writer::new())),
                queue,
                bound,
                Duration::ZERO,
            ),
            steps: Calls::start(
                [Connected(Arc::clone(&line), Stepper::new())],
                queue,
                bound,
                Duration::ZERO,
            ),
            wire: Wire::start(Channel(Arc::clone(&line)), bound, self.watch_interval),
            line,
            durability,
            max_body_bytes,
        };
        Ok(PostgresStore { shared: Arc::new(shared) })
    }
}
