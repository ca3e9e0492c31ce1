//! [`RedisStore`]: operations in Redis, for services on many machines.

mod answers;
mod builder;
mod call;
mod channel;
mod error;
mod lane;
mod open;
mod scripts;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::Client;

pub use self::builder::RedisStoreBuilder;
use self::call::{Accept, Call, Found, observe, value};
use self::lane::Line;
pub use self::open::{RedisOpenError, RedisOpenErrorKind};
use super::ext::next_write_id;
use super::server::{Calls, Wire, names};
use super::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Durability, Hints, ListQuery, Observed,
    OperationStore, Page, StoreError, StoreErrorKind, Submission, Swap, Swapped,
};
use crate::operation::{Change, Due, OperationId, Outcome, Owner};
use crate::time::Timestamp;

/// How many operations one script looks at: the server does nothing else meanwhile.
const MAX_STEP: usize = 200;
/// How many operations a list or a search for what is due looks at before it gives what it found.
const MAX_LOOKED_AT: usize = 2_000;
/// For how long those that a worker is about to claim are kept from the others.
const RESERVED: Duration = Duration::from_millis(100);

/// Keeps operations in Redis (6.2 or later): any replica of a service accepts, runs, answers, and may die.
///
/// - How much survives is the server's to say, and is looked at when the store is opened: with
///   `appendonly yes`, `appendfsync always` and `no-appendfsync-on-rewrite no` all that was acknowledged survives
///   the loss of power ([`Durability::PowerLoss`]), with others of the latter two the death of any process but the
///   loss of a second or more if the machine dies ([`Durability::ProcessCrash`]), without `appendonly` nothing
///   survives the server ([`Durability::Volatile`]), and then the store opens only if that
///   [is enough](RedisStoreBuilder::require).
/// - A server that evicts keys is refused. No key has an expiry of its own: what has expired is purged.
/// - Each call is one step of the server, by a script; calls that wait at the same time go together.
/// - All times are the server's. A caller's clock decides nothing.
/// - Word of changes goes to the other processes by a channel, and may get lost.
/// - While the server is away every call fails within the [call timeout](RedisStoreBuilder::call_timeout);
///   connections come back by themselves.
/// - A failover to a replica may lose what was acknowledged: Redis replicates after it answers.
///   [`replicas`](RedisStoreBuilder::replicas) makes that rarer, not impossible.
///
/// For TLS (`rediss://…`) the crate `redis` must be built with it: depend on it by yourself, in the same
/// version, with one of its features for tokio, such as `tokio-rustls-comp`.
///
/// All keys of a store begin with its [prefix](RedisStoreBuilder::prefix), which is a hash tag: they would lie
/// in one slot of a cluster. Redis Cluster was not tried.
///
/// A clone is another handle on the same connections, which end with the last one.
///
/// ```no_run
/// use respond_async::Operations;
/// use respond_async::store::RedisStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::open("redis://cache.internal").await?;
/// let operations = Operations::builder(store).start();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<Shared>,
}

struct Shared {
    line: Arc<Line>,
    calls: Calls<Call>,
    wire: Wire,
    durability: Durability,
    max_body_bytes: usize,
}

impl RedisStore {
    /// The default of [`prefix`](RedisStoreBuilder::prefix).
    pub const DEFAULT_PREFIX: &str = "respond-async";
    /// The default of [`connect_timeout`](RedisStoreBuilder::connect_timeout).
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
    /// The default of [`call_timeout`](RedisStoreBuilder::call_timeout).
    pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(2);
    /// The default of [`connections`](RedisStoreBuilder::connections).
    pub const DEFAULT_CONNECTIONS: usize = 2;
    /// The default of [`queue`](RedisStoreBuilder::queue).
    pub const DEFAULT_QUEUE: usize = 10_000;
    /// The default of [`max_body_bytes`](RedisStoreBuilder::max_body_bytes): 64 MiB.
    pub const DEFAULT_MAX_BODY_BYTES: usize = 64 << 20;
    /// The default of [`watch_interval`](RedisStoreBuilder::watch_interval).
    pub const DEFAULT_WATCH_INTERVAL: Duration = Duration::from_millis(100);

    /// Opens the store with the defaults.
    ///
    /// # Errors
    /// See [`RedisOpenErrorKind`].
    ///
    /// # Cancel safety
    /// A future that is dropped leaves no connection behind; nothing was written.
    pub async fn open(url: &str) -> Result<Self, RedisOpenError> {
        Self::builder(url)?.open().await
    }

    /// Sets more than the server.
    ///
    /// # Errors
    /// If the URL cannot be understood.
    pub fn builder(url: &str) -> Result<RedisStoreBuilder, RedisOpenError> {
        let client = Client::open(url).map_err(|error| RedisOpenError::config(url, error))?;
        Ok(RedisStoreBuilder::new(client))
    }

    /// Whether word of other processes' changes comes.
    pub fn is_listening(&self) -> bool {
        self.shared.wire.is_heard()
    }

    /// What the server's clock shows. It is asked if it was not heard of a moment ago.
    async fn time(&self) -> Result<Timestamp, StoreError> {
        match self.shared.line.clock.now() {
            Some(now) => Ok(now),
            None => self.shared.calls.ask(false, Call::Now).await,
        }
    }

    async fn read(&self, id: OperationId, decides: bool) -> Result<Option<Observed>, StoreError> {
        self.shared.calls.ask(false, |answer| Call::Get(id, decides, answer)).await
    }

    /// What may be claimed, longest due first; and kept from others for so long.
    async fn to_claim(
        &self,
        query: &DueQuery,
        reserved: Duration,
    ) -> Result<Vec<Observed>, StoreError> {
        let kinds = query.kinds.as_deref().map(names);
        let limit = query.limit.min(MAX_STEP);
        let found = |answer| Call::ToClaim(limit, reserved, kinds, answer);
        let mut due = understood(self.shared.calls.ask(false, found).await?, Due::Claim);
        due.sort_by_cached_key(|Observed { operation, .. }| {
            (operation.due_at(Due::Claim), operation.id())
        });
        due.truncate(limit);
        Ok(due)
    }
}

/// What of it is due. One that cannot be understood stands in nobody's way.
fn understood((now, values): Found, due: Due) -> Vec<Observed> {
    let observed = values.iter().filter_map(|value| observe(value, now).ok());
    observed.filter(|observed| observed.operation.is_due(due, now)).collect()
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.shared.line.prefix)
            .field("durability", &self.shared.durability)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl OperationStore for RedisStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(self.shared.durability, self.shared.max_body_bytes).with_shared(true)
    }

    fn now(&self) -> Option<Timestamp> {
        self.shared.line.clock.now()
    }

    async fn accept(&self, submission: Submission) -> Result<Acceptance, StoreError> {
        submission.check_size(self.shared.max_body_bytes)?;
        let accept = Box::new(Accept::new(submission, self.time().await?));
        let acceptance = self.shared.calls.ask(true, |answer| Call::Accept(accept, answer)).await?;
        if let Acceptance::Created(created) = &acceptance {
            self.shared.wire.publish(&created.operation);
        }
        Ok(acceptance)
    }

    async fn get(&self, id: OperationId) -> Result<Option<Observed>, StoreError> {
        self.read(id, true).await
    }

    async fn input(&self, id: OperationId) -> Result<Option<Bytes>, StoreError> {
        self.shared.calls.ask(false, |answer| Call::Input(id, answer)).await
    }

    async fn outcome(&self, id: OperationId) -> Result<Option<Outcome>, StoreError> {
        self.shared.calls.ask(false, |answer| Call::Outcome(id, answer)).await
    }

    async fn swap(&self, swap: Swap) -> Result<Swapped, StoreError> {
        swap.check_size(self.shared.max_body_bytes)?;
        let mut follows = Vec::with_capacity(swap.outbox.len());
        if !swap.outbox.is_empty() {
            let now = self.time().await?;
            follows.extend(swap.outbox.iter().map(|new| Accept::new(new.clone(), now)));
        }
        let (next, has_followers) = (swap.next.clone(), !follows.is_empty());
        let (value, swap) = (value(&next, swap.write_id), Box::new(swap));
        let call = |answer| Call::Swap(swap, value, follows, answer);
        let swapped = self.shared.calls.ask(true, call).await?;
        if swapped == Swapped::Swapped {
            self.shared.wire.publish(&next);
            if has_followers {
                self.shared.wire.publish_claimable();
            }
        }
        Ok(swapped)
    }

    async fn remove(&self, id: OperationId, expected: u64) -> Result<Swapped, StoreError> {
        let call = |answer| Call::Remove(id, expected, answer);
        let removed = self.shared.calls.ask(true, call).await?;
        if removed == Swapped::Swapped {
            self.shared.wire.publish_changed(id);
        }
        Ok(removed)
    }

    async fn due(&self, query: &DueQuery) -> Result<Vec<Observed>, StoreError> {
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        if query.due == Due::Claim {
            return self.to_claim(query, Duration::ZERO).await;
        }
        let (mut due, mut passed) = (Vec::new(), 0);
        while due.len() < query.limit && passed < MAX_LOOKED_AT {
            let call = |answer| Call::Due(query.due, MAX_STEP, passed, answer);
            let found = self.shared.calls.ask(false, call).await?;
            let count = found.1.len();
            passed += count;
            let found = understood(found, query.due);
            due.extend(found.into_iter().filter(|observed| query.selects(&observed.operation)));
            if count < MAX_STEP {
                break;
            }
        }
        due.truncate(query.limit);
        Ok(due)
    }

    async fn list(&self, owner: &Owner, query: &ListQuery) -> Result<Page, StoreError> {
        let Some(name) = owner.name() else { return Ok(Page::default()) };
        let size = query.page_size();
        let mut page = Page { next: query.before, ..Page::default() };
        let mut looked_at = 0;
        loop {
            let (before, limit) = (page.next, if looked_at == 0 { size + 1 } else { MAX_STEP });
            let call = |answer| Call::List(name.to_owned(), before, limit, answer);
            let (now, found) = self.shared.calls.ask(false, call).await?;
            for pair in found.chunks_exact(2) {
                if page.operations.len() == size || looked_at == MAX_LOOKED_AT {
                    // There is one more: the page before it ends at the last one that was looked at.
                    return Ok(page);
                }
                looked_at += 1;
                let id = uuid::Uuid::try_parse_ascii(&pair[0]).ok();
                page.next = id.and_then(|id| id.try_into().ok()).or(page.next);
                let Ok(Observed { operation, .. }) = observe(&pair[1], now) else { continue };
                if !operation.is_expired(now) && query.selects(&operation) {
                    page.operations.push(operation);
                }
            }
            if found.len() < limit * 2 {
                return Ok(Page { next: None, ..page });
            }
        }
    }

    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        let mut purged = 0;
        while purged < limit {
            let step = (limit - purged).min(MAX_STEP);
            let count = self.shared.calls.ask(true, |answer| Call::Purge(step, answer)).await?;
            purged += count;
            if count < step {
                break;
            }
        }
        Ok(purged)
    }

    fn hints(&self) -> Option<Box<dyn Hints>> {
        Some(self.shared.wire.hints())
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Observed>, StoreError> {
        let query = request.to_due_query();
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        let change = Change::Claim { lease: request.lease() };
        let due = self.to_claim(&query, RESERVED).await?;
        let claims = due.into_iter().filter_map(|Observed { operation, now, .. }| {
            // What is due may be claimed: the two are one rule of the operation's.
            let next = operation.apply(&change, now).ok()?;
            let write_id = next_write_id();
            let swap = Swap::new(next.clone(), operation.version()).with_write_id(write_id);
            Some(async move {
                let swapped = match self.swap(swap).await {
                    // An attempt that nobody knows of would never take place.
                    Err(error) if error.kind() == StoreErrorKind::Ambiguous => {
                        match self.read(next.id(), false).await {
                            Ok(Some(found)) if found.write_id == write_id => Ok(Swapped::Swapped),
                            _ => Err(error),
                        }
                    }
                    swapped => swapped,
                };
                (swapped, Observed { operation: next, now, write_id })
            })
        });
        let mut claimed = Vec::new();
        let mut failed = None;
        for (swapped, observed) in futures_util::future::join_all(claims).await {
            match swapped {
                Ok(Swapped::Swapped) => claimed.push(observed),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            // What was claimed is to be worked on, whatever became of the others.
            Some(error) if claimed.is_empty() => Err(error),
            _ => Ok(claimed),
        }
    }
}
