use std::sync::Arc;
use std::time::Duration;

use redis::Client;

use super::channel::Channel;
use super::lane::{Connected, Doubtful, Line};
use super::open::{RedisOpenError, Settings};
use super::scripts::Scripts;
use super::{RedisStore, Shared};
use crate::store::Durability;
use crate::store::server::{
    Calls, ServerClock, Wire, settable, settable_connections, settable_queue,
};

/// For how long one connection that is at work keeps the others from it: calls that go together cost less
/// than calls that go at once, and no large body holds up the others for longer.
const STAGGER: Duration = Duration::from_millis(10);

/// Sets what a [`RedisStore`] keeps to, and opens it.
#[derive(Debug, Clone)]
#[must_use]
pub struct RedisStoreBuilder {
    settings: Settings,
    prefix: String,
    replicas: Option<(usize, Duration)>,
    connections: usize,
    queue: usize,
    max_body_bytes: usize,
    watch_interval: Duration,
}

impl RedisStoreBuilder {
    pub(super) fn new(client: Client) -> Self {
        Self {
            settings: Settings {
                client,
                client_name: "respond-async".to_owned(),
                connect_timeout: RedisStore::DEFAULT_CONNECT_TIMEOUT,
                call_timeout: RedisStore::DEFAULT_CALL_TIMEOUT,
                least: Durability::ProcessCrash,
                assumed: None,
            },
            prefix: RedisStore::DEFAULT_PREFIX.to_owned(),
            replicas: None,
            connections: RedisStore::DEFAULT_CONNECTIONS,
            queue: RedisStore::DEFAULT_QUEUE,
            max_body_bytes: RedisStore::DEFAULT_MAX_BODY_BYTES,
            watch_interval: RedisStore::DEFAULT_WATCH_INTERVAL,
        }
    }

    /// What all keys begin with (default: [`DEFAULT_PREFIX`](RedisStore::DEFAULT_PREFIX)). Each prefix is a
    /// store of its own.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What the connections are called in the server's list of clients (default: `respond-async`), all but the
    /// one that listens, which the driver gives no name.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.settings.client_name = name.into();
        self
    }

    /// The least that the server must keep (default: [`Durability::ProcessCrash`]); otherwise the store is
    /// not opened. Whoever sets the server anew, or puts another in its place, is found out within seconds: while the
    /// server keeps less, or evicts keys, nothing is accepted
    /// ([`Unavailable`](crate::store::StoreErrorKind::Unavailable)), and what was accepted goes on.
    pub fn require(mut self, least: Durability) -> Self {
        self.settings.least = least;
        self
    }

    /// What the server keeps, where it does not tell (`CONFIG GET` is forbidden). It is not looked at then,
    /// nor whether the server evicts keys. By default the server is asked.
    pub fn assume(mut self, durability: Durability) -> Self {
        self.settings.assumed = Some(durability);
        self
    }

    /// Waits after each write until so many replicas have it (`WAIT`). If they have not in that time, the
    /// call is [`Ambiguous`](crate::store::StoreErrorKind::Ambiguous).
    ///
    /// An acceptance is then refused, unless they have it by the time it is asked for
    /// ([`submit`](crate::store::OperationStoreExt::submit) does so at once, and waits as long again), and so is
    /// another under its idempotency key. The primary keeps it all the same, and it may be done: once anybody has
    /// changed it, what the primary has is told. All other changes are only delayed, since what the
    /// primary has decides them: to refuse a claim, a renewal or an end would cost attempts and leases. This is
    /// no guarantee: a replica that has not got a write may still be made the primary.
    ///
    /// The patience is at least a millisecond and at most three quarters of the
    /// [call timeout](Self::call_timeout). By default, and for 0 replicas, nothing is waited for.
    pub fn replicas(mut self, replicas: usize, patience: Duration) -> Self {
        self.replicas = (replicas > 0).then_some((replicas, patience));
        self
    }

    /// How long to wait for a connection, from a millisecond to a day (default:
    /// [`DEFAULT_CONNECT_TIMEOUT`](RedisStore::DEFAULT_CONNECT_TIMEOUT)).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = settable(timeout);
        self
    }

    /// How long one call of the server may take, its wait for its turn included; from a millisecond to a day
    /// (default: [`DEFAULT_CALL_TIMEOUT`](RedisStore::DEFAULT_CALL_TIMEOUT)). After it a call that reads or
    /// was not begun is [`Unavailable`](crate::store::StoreErrorKind::Unavailable), one that writes
    /// [`Ambiguous`](crate::store::StoreErrorKind::Ambiguous).
    ///
    /// A method of the store may be several, one after the other: `accept` asks for the time if it was not
    /// heard of for a second, `claim` looks, writes, and may look again, and `list`, `due` and `purge` go
    /// step by step.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.settings.call_timeout = settable(timeout);
        self
    }

    /// How many connections there are for calls, from 1 to 1,000 (default:
    /// [`DEFAULT_CONNECTIONS`](RedisStore::DEFAULT_CONNECTIONS)); two more speak and listen.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = settable_connections(connections);
        self
    }

    /// How many calls may wait, from 1 to 1,000,000 (default: [`DEFAULT_QUEUE`](RedisStore::DEFAULT_QUEUE)).
    /// One more is [`Unavailable`](crate::store::StoreErrorKind::Unavailable).
    pub fn queue(mut self, calls: usize) -> Self {
        self.queue = settable_queue(calls);
        self
    }

    /// Bounds one input or outcome, in bytes (default:
    /// [`DEFAULT_MAX_BODY_BYTES`](RedisStore::DEFAULT_MAX_BODY_BYTES)). Redis itself takes no more than
    /// `proto-max-bulk-len`, 512 MiB.
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// How long it is from one look for changes to the next where no word of them comes, while anybody
    /// listens; from a millisecond to a day (default:
    /// [`DEFAULT_WATCH_INTERVAL`](RedisStore::DEFAULT_WATCH_INTERVAL)).
    pub fn watch_interval(mut self, interval: Duration) -> Self {
        self.watch_interval = settable(interval);
        self
    }

    /// Opens the store.
    ///
    /// # Errors
    /// See [`RedisOpenErrorKind`](crate::store::RedisOpenErrorKind).
    ///
    /// # Cancel safety
    /// A future that is dropped leaves no connection behind; nothing was written.
    pub async fn open(self) -> Result<RedisStore, RedisOpenError> {
        let Self { settings, queue, max_body_bytes, .. } = self;
        let (durability, has_flags) = settings.check().await?;
        let bound = settings.call_timeout;
        let line = Arc::new(Line {
            settings,
            prefix: format!("{{{}}}:", self.prefix),
            scripts: Scripts::new(has_flags),
            clock: ServerClock::default(),
            // The server waits no longer than the connection does, and never without an end, which it takes
            // 0 ms for.
            replicas: self
                .replicas
                .map(|(replicas, patience)| (replicas, settable(patience.min(bound * 3 / 4)))),
            doubtful: Doubtful::default(),
        });
        let lanes = (0..self.connections).map(|_| Connected::new(Arc::clone(&line)));
        let shared = Shared {
            calls: Calls::start(lanes, queue, bound, STAGGER),
            wire: Wire::start(Channel(Arc::clone(&line)), bound, self.watch_interval),
            line,
            durability,
            max_body_bytes,
        };
        Ok(RedisStore { shared: Arc::new(shared) })
    }
}
