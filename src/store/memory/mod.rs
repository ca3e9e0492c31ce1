mod state;

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use self::state::State;
use super::hints::Hub;
use super::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Durability, Hint, Hints, ListQuery, Observed,
    OperationStore, Page, StoreError, Submission, Swap, Swapped,
};
use crate::lock::lock;
use crate::operation::{OperationId, Outcome, Owner};
use crate::time::{Clock, SystemClock, Timestamp};

/// Keeps operations in this process, and loses them with it ([`Durability::Volatile`]).
///
/// It is bounded: an operation beyond [`max_operations`](MemoryStoreBuilder::max_operations), or one
/// that comes while inputs and outcomes take more than [`max_bytes`](MemoryStoreBuilder::max_bytes),
/// is [`Full`](super::Full). What was accepted is kept until it expires, whatever it grows to.
///
/// A clone is another handle on the same operations.
///
/// One lock guards it all. A call holds it for a few look-ups in maps and never across an `.await`,
/// which is a small part of what the same request spends on its connection.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    hub: Hub,
    clock: Box<dyn Clock>,
    max_operations: usize,
    max_bytes: usize,
    max_body_bytes: usize,
}

/// Sets the bounds and the clock of a [`MemoryStore`].
#[derive(Debug)]
#[must_use]
pub struct MemoryStoreBuilder {
    clock: Box<dyn Clock>,
    max_operations: usize,
    max_bytes: usize,
    max_body_bytes: usize,
}

impl MemoryStore {
    /// The default of [`max_operations`](MemoryStoreBuilder::max_operations).
    pub const DEFAULT_MAX_OPERATIONS: usize = 1_000_000;
    /// The default of [`max_bytes`](MemoryStoreBuilder::max_bytes): 1 GiB.
    pub const DEFAULT_MAX_BYTES: usize = 1 << 30;
    /// The default of [`max_body_bytes`](MemoryStoreBuilder::max_body_bytes): 64 MiB.
    pub const DEFAULT_MAX_BODY_BYTES: usize = 64 << 20;

    /// An empty store with the default bounds and the operating system's clock.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Sets bounds and clock.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder {
            clock: Box::new(SystemClock),
            max_operations: Self::DEFAULT_MAX_OPERATIONS,
            max_bytes: Self::DEFAULT_MAX_BYTES,
            max_body_bytes: Self::DEFAULT_MAX_BODY_BYTES,
        }
    }

    /// How many operations it holds, expired ones that were not purged included.
    pub fn len(&self) -> usize {
        lock(&self.shared.state).len()
    }

    /// Whether it holds no operation.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl MemoryStoreBuilder {
    /// Judges time by this clock. The default is the operating system's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// Bounds how many operations there may be, finished ones included. The default is
    /// [1,000,000](MemoryStore::DEFAULT_MAX_OPERATIONS).
    pub fn max_operations(mut self, count: usize) -> Self {
        self.max_operations = count;
        self
    }

    /// Bounds the bytes of all inputs and outcomes. The default is [1 GiB](MemoryStore::DEFAULT_MAX_BYTES).
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Bounds one input or outcome. The default is [64 MiB](MemoryStore::DEFAULT_MAX_BODY_BYTES).
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// The store.
    pub fn build(self) -> MemoryStore {
        let shared = Shared {
            state: Mutex::default(),
            hub: Hub::default(),
            clock: self.clock,
            max_operations: self.max_operations,
            max_bytes: self.max_bytes,
            max_body_bytes: self.max_body_bytes,
        };
        MemoryStore { shared: Arc::new(shared) }
    }
}

#[async_trait]
impl OperationStore for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Durability::Volatile, self.shared.max_body_bytes)
    }

    fn now(&self) -> Option<Timestamp> {
        Some(self.shared.clock.now())
    }

    async fn accept(&self, submission: Submission) -> Result<Acceptance, StoreError> {
        submission.check_size(self.shared.max_body_bytes)?;
        let Shared { max_operations, max_bytes, .. } = *self.shared;
        let acceptance = {
            let mut state = lock(&self.shared.state);
            let now = self.shared.clock.now();
            state.accept(submission, now, max_operations, max_bytes)
        };
        if let Acceptance::Created(created) = &acceptance {
            self.shared.hub.publish(&created.operation);
        }
        Ok(acceptance)
    }

    async fn get(&self, id: OperationId) -> Result<Option<Observed>, StoreError> {
        let state = lock(&self.shared.state);
        Ok(state.get(id, self.shared.clock.now()))
    }

    async fn input(&self, id: OperationId) -> Result<Option<Bytes>, StoreError> {
        let state = lock(&self.shared.state);
        Ok(state.input(id, self.shared.clock.now()))
    }

    async fn outcome(&self, id: OperationId) -> Result<Option<Outcome>, StoreError> {
        let state = lock(&self.shared.state);
        Ok(state.outcome(id, self.shared.clock.now()))
    }

    async fn swap(&self, swap: Swap) -> Result<Swapped, StoreError> {
        swap.check_size(self.shared.max_body_bytes)?;
        let next = swap.next.clone();
        let follows = !swap.outbox.is_empty();
        let swapped = {
            let mut state = lock(&self.shared.state);
            let now = self.shared.clock.now();
            state.swap(swap, now)
        };
        if swapped == Swapped::Swapped {
            self.shared.hub.publish(&next);
            if follows {
                self.shared.hub.send(Hint::Claimable);
            }
        }
        Ok(swapped)
    }

    async fn remove(&self, id: OperationId, expected: u64) -> Result<Swapped, StoreError> {
        let removed = {
            let mut state = lock(&self.shared.state);
            let now = self.shared.clock.now();
            state.remove(id, expected, now)
        };
        if removed == Swapped::Swapped {
            self.shared.hub.send(Hint::Changed(id));
        }
        Ok(removed)
    }

    async fn due(&self, query: &DueQuery) -> Result<Vec<Observed>, StoreError> {
        let state = lock(&self.shared.state);
        Ok(state.due(query, self.shared.clock.now()))
    }

    async fn list(&self, owner: &Owner, query: &ListQuery) -> Result<Page, StoreError> {
        let state = lock(&self.shared.state);
        Ok(state.list(owner, query, self.shared.clock.now()))
    }

    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        let mut state = lock(&self.shared.state);
        let now = self.shared.clock.now();
        Ok(state.purge(limit, now))
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Observed>, StoreError> {
        let claimed = {
            let mut state = lock(&self.shared.state);
            let now = self.shared.clock.now();
            state.claim(request, now)
        };
        for Observed { operation, .. } in &claimed {
            self.shared.hub.publish(operation);
        }
        Ok(claimed)
    }

    fn hints(&self) -> Option<Box<dyn Hints>> {
        Some(self.shared.hub.subscribe())
    }
}
