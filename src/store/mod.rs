//! Where operations are kept: a compare-and-swap register with an index of what is due.
//!
//! All meaning lives in [`Operation::apply`]; a store keeps what it returns and holds no rules. So a
//! backend has little to get wrong, and the suite of the feature `conformance` finds that little.
//! [`OperationStore`] is the contract for who writes a store; [`OperationStoreExt`] is what callers use on top
//! of it.
//!
//! [`MemoryStore`] keeps everything in this process and loses it with the process. With the feature
//! `sqlite`, `SqliteStore` keeps it in a file, and several processes of one machine may share that. With
//! `postgres`, `PostgresStore`, or with `redis`, `RedisStore` keeps it on a server, for many machines.
//!
//! # The contract
//! - *One register per operation.* Each call takes effect at one instant between its start and its
//!   return. [`swap`](OperationStore::swap) writes only over the version that it was told to expect.
//! - *One step.* What a call writes (operation, input, idempotency key; operation and outcome) is
//!   written whole or not at all.
//! - *The store's clock.* Whether a lease, a delay, a deadline or a retention has passed is judged by
//!   one clock, the store's. Every answer with an operation says what time that clock showed.
//! - *Expired is absent.* An operation whose retention has passed is not found, purged or not.
//! - *Errors tell.* Unless an error is [`StoreErrorKind::Ambiguous`], nothing was written.
//!
//! ```
//! use respond_async::operation::{Change, NewOperation, OperationId, Status};
//! use respond_async::store::{Acceptance, MemoryStore, OperationStore, OperationStoreExt, Submission};
//! use respond_async::time::{Clock, SystemClock};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let store = MemoryStore::new();
//! let id = OperationId::generate(SystemClock.now())?;
//! let accepted = store.accept(Submission::new(NewOperation::new(id))).await?;
//! assert!(matches!(accepted, Acceptance::Created(_)));
//!
//! let canceled = store.apply(id, Change::Cancel).await?;
//! assert_eq!(canceled.operation.status(), Status::Canceled);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod ext;
mod forward;
mod hints;
mod idempotency;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod query;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod server;
#[cfg(feature = "sqlite")]
mod sqlite;
mod submission;

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(feature = "redis")]
pub use self::redis::{RedisOpenError, RedisOpenErrorKind, RedisStore, RedisStoreBuilder};
pub use error::{StoreError, StoreErrorKind};
#[cfg(feature = "tokio")]
pub(crate) use ext::apply_at;
pub use ext::{ApplyError, MAX_SWAP_TRIES, OperationStoreExt};
pub use hints::{Hint, Hints, MAX_PENDING_HINTS};
pub use idempotency::{
    Fingerprint, IDEMPOTENCY_KEY, Idempotency, IdempotencyKey, InvalidIdempotencyKey,
};
pub use memory::{MemoryStore, MemoryStoreBuilder};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOpenError, PostgresOpenErrorKind, PostgresStore, PostgresStoreBuilder};
pub use query::{ClaimRequest, DueQuery, ListQuery, Page};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOpenError, SqliteOpenErrorKind, SqliteStore, SqliteStoreBuilder};
pub use submission::{Acceptance, Full, Limits, Submission};
/// The driver, whose types [`PostgresStore::accept_in`] and [`PostgresStoreBuilder::tls`] take.
#[cfg(feature = "postgres")]
pub use tokio_postgres;

use crate::operation::{Change, Operation, OperationId, Outcome, Owner};
use crate::time::Timestamp;

/// An operation as a store read it.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// The operation.
    pub operation: Operation,
    /// What the store's clock showed.
    pub now: Timestamp,
    /// The [`Swap::write_id`] of the write that made it so; 0 if that was its acceptance. A store may name
    /// the writes of its [`claim`](OperationStore::claim) too, or leave them at 0.
    pub write_id: u64,
}

/// A write that takes place only if nobody else wrote first.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Swap {
    /// The operation as it shall be.
    pub next: Operation,
    /// The version that it must have now.
    pub expected: u64,
    /// Names this write among all that aim at the same version, so that whoever made it can find
    /// out whether it took place when the answer got lost. Kept with the operation.
    pub write_id: u64,
    /// The outcome, with the write that finishes the operation. Never set twice.
    pub outcome: Option<Outcome>,
    /// Operations that are accepted in the same step, if the write takes place: work that follows
    /// from the change, such as to tell somebody of it. Limits are not applied to them, and one whose
    /// id or idempotency key is in use is left out.
    pub outbox: Vec<Submission>,
}

impl Swap {
    /// The write of `next` over `expected`.
    pub fn new(next: Operation, expected: u64) -> Self {
        Self { next, expected, write_id: 0, outcome: None, outbox: Vec::new() }
    }

    /// Names the write.
    #[must_use]
    pub fn with_write_id(mut self, write_id: u64) -> Self {
        self.write_id = write_id;
        self
    }

    /// Keeps the outcome with it.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Option<Outcome>) -> Self {
        self.outcome = outcome;
        self
    }

    /// Accepts these operations with it.
    #[must_use]
    pub fn with_outbox(mut self, outbox: Vec<Submission>) -> Self {
        self.outbox = outbox;
        self
    }

    /// What a store looks at before it writes.
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`] if the outcome's body or an input is over `max_body_bytes`, or the
    /// outcome's fields are over [`Outcome::MAX_FIELD_BYTES`].
    pub fn check_size(&self, max_body_bytes: usize) -> Result<(), StoreError> {
        if let Some(outcome) = &self.outcome {
            check_outcome_size(outcome, max_body_bytes)?;
        }
        self.outbox.iter().try_for_each(|submission| submission.check_size(max_body_bytes))
    }
}

/// Looks whether a store that takes bodies of up to `max_body_bytes`
/// ([`Capabilities::max_body_bytes`]) takes this outcome: what [`Swap::check_size`] asks of it, for who
/// has to know before there is a write.
///
/// # Errors
/// [`StoreErrorKind::TooLarge`] if the body is over that, or the fields are over [`Outcome::MAX_FIELD_BYTES`].
pub(crate) fn check_outcome_size(
    outcome: &Outcome,
    max_body_bytes: usize,
) -> Result<(), StoreError> {
    submission::check_size(Some(&outcome.body), max_body_bytes)?;
    if field_bytes(outcome) > Outcome::MAX_FIELD_BYTES {
        let message = "the fields of the outcome are larger than a store takes";
        return Err(StoreError::new(StoreErrorKind::TooLarge, message));
    }
    Ok(())
}

/// How many bytes the names and values of an outcome's fields have together.
fn field_bytes(outcome: &Outcome) -> usize {
    outcome.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// What became of a [`Swap`] or a removal.
#[derive(Debug, Clone, PartialEq)]
pub enum Swapped {
    /// It took place.
    Swapped,
    /// Somebody wrote first; this is the operation now.
    Conflict(Observed),
    /// There is no such operation, or it has expired.
    Gone,
}

/// How much survives once a write was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing survives the process.
    Volatile,
    /// It survives the death of any process, not that of the machine.
    ProcessCrash,
    /// It survives the loss of power.
    PowerLoss,
}

impl Durability {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Volatile => "volatile",
            Self::ProcessCrash => "process_crash",
            Self::PowerLoss => "power_loss",
        }
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// How much survives once a write was acknowledged.
    pub durability: Durability,
    /// Whether several processes can use the same operations.
    pub shared: bool,
    /// The largest input or outcome body, in bytes.
    pub max_body_bytes: usize,
}

impl Capabilities {
    /// The capabilities of a store that only one process can use.
    pub const fn new(durability: Durability, max_body_bytes: usize) -> Self {
        Self { durability, shared: false, max_body_bytes }
    }

    /// Several processes can use the same operations.
    #[must_use]
    pub const fn with_shared(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }
}

/// A place that keeps operations. See the [module](self) for the contract as a whole.
///
/// Callers want [`OperationStoreExt`].
#[async_trait]
pub trait OperationStore: std::fmt::Debug + Send + Sync + 'static {
    /// What the store can do. Does not change while it is open.
    fn capabilities(&self) -> Capabilities;

    /// What the store's clock shows, if that is known without asking anybody. It may be behind by no more than
    /// the time that an answer takes, and never ahead.
    fn now(&self) -> Option<Timestamp> {
        None
    }

    /// Takes in a new operation, together with its input and idempotency key, in one step.
    ///
    /// In this order: an idempotency key that is in use decides by itself; an id that is in use
    /// gives the operation that has it; limits are checked, the total first; else it is created by
    /// the store's clock ([`NewOperation::accept`](crate::operation::NewOperation::accept)).
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`] if the input is over [`Capabilities::max_body_bytes`]; else the
    /// store's troubles.
    async fn accept(&self, submission: Submission) -> Result<Acceptance, StoreError>;

    /// Reads an operation.
    ///
    /// # Errors
    /// The store's troubles. That an operation is not there is no error.
    async fn get(&self, id: OperationId) -> Result<Option<Observed>, StoreError>;

    /// Reads the input of a live operation. A store may drop it once the operation has finished.
    ///
    /// # Errors
    /// The store's troubles.
    async fn input(&self, id: OperationId) -> Result<Option<Bytes>, StoreError>;

    /// Reads the outcome, as it was given with the write that finished the operation.
    ///
    /// # Errors
    /// The store's troubles.
    async fn outcome(&self, id: OperationId) -> Result<Option<Outcome>, StoreError>;

    /// Writes an operation if it still has the expected version, together with its outcome and the
    /// operations that follow from it, in one step.
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`] if the outcome's body or an input is over
    /// [`Capabilities::max_body_bytes`], or the outcome's fields are over [`Outcome::MAX_FIELD_BYTES`]
    /// ([`Swap::check_size`]); else the store's troubles.
    async fn swap(&self, swap: Swap) -> Result<Swapped, StoreError>;

    /// Removes an operation with all that belongs to it (input, outcome, idempotency key) if it
    /// still has the expected version. Callers make sure that it is finished.
    ///
    /// # Errors
    /// The store's troubles.
    async fn remove(&self, id: OperationId, expected: u64) -> Result<Swapped, StoreError>;

    /// What [is due](Operation::is_due) now by the store's clock, longest due first; of what became
    /// due at the same time, the smaller id.
    ///
    /// # Errors
    /// The store's troubles.
    async fn due(&self, query: &DueQuery) -> Result<Vec<Observed>, StoreError>;

    /// A page of an owner's operations, newest (largest id) first. The anonymous owner has no list:
    /// the page is empty. A page may be shorter than asked for although more follow.
    ///
    /// # Errors
    /// The store's troubles.
    async fn list(&self, owner: &Owner, query: &ListQuery) -> Result<Page, StoreError>;

    /// Removes up to `limit` operations whose retention has passed, longest expired first, and says
    /// how many there were.
    ///
    /// # Errors
    /// The store's troubles. What was removed before an error stays removed.
    async fn purge(&self, limit: usize) -> Result<usize, StoreError>;

    /// Hints at what changes from now on; none if the store gives none. Hints are only hints: whoever
    /// relies on a change looks for it now and then all the same.
    fn hints(&self) -> Option<Box<dyn Hints>> {
        None
    }

    /// Claims operations for a worker: those that are due for it get a lease and their next attempt
    /// ([`Change::Claim`]). No two callers get the same attempt.
    ///
    /// # Errors
    /// The store's troubles, if nothing had been claimed before them: what was is given.
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Observed>, StoreError> {
        let due = self.due(&request.to_due_query()).await?;
        let mut claimed = Vec::with_capacity(due.len());
        for Observed { operation, now, .. } in due {
            let change = Change::Claim { lease: request.lease() };
            let Ok(next) = operation.apply(&change, now) else { continue };
            let swap = Swap::new(next.clone(), operation.version());
            match self.swap(swap).await {
                Ok(Swapped::Swapped) => {
                    claimed.push(Observed { operation: next, now, write_id: 0 });
                }
                Ok(Swapped::Conflict(_) | Swapped::Gone) => {}
                // Nobody else would ever hear of the leases that it has got.
                Err(_) if !claimed.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(claimed)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

    use super::*;

    #[test]
    fn an_outcome_is_too_large_by_its_body_or_by_its_fields() {
        let name = HeaderName::from_static("x-large");
        let outcome = |body: usize, fields: usize| {
            let value = HeaderValue::from_str(&"x".repeat(fields - name.as_str().len())).unwrap();
            let headers = HeaderMap::from_iter([(name.clone(), value)]);
            Outcome { status: StatusCode::OK, headers, body: vec![7; body].into() }
        };
        let largest = outcome(10, Outcome::MAX_FIELD_BYTES);
        assert!(check_outcome_size(&largest, 10).is_ok());
        for large in
            [outcome(11, Outcome::MAX_FIELD_BYTES), outcome(10, Outcome::MAX_FIELD_BYTES + 1)]
        {
            let error = check_outcome_size(&large, 10).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::TooLarge);
        }
    }
}
