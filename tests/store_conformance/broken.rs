//! A memory store with a defect.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use respond_async::operation::{OperationId, Outcome, Owner};
use respond_async::store::conformance::Fixture;
use respond_async::store::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Durability, Hints, ListQuery, MemoryStore,
    Observed, OperationStore, Page, StoreError, StoreErrorKind, Submission, Swap, Swapped,
};
use respond_async::time::{ManualClock, Timestamp};

use super::{new_store, turn_back};

pub(crate) type Answer<T> = Result<T, StoreError>;

/// What is wrong: each method is one of [`OperationStore`], and right unless it is overridden. All
/// handles have the same defect, so it may remember things.
#[async_trait]
pub(crate) trait Defect: Debug + Default + Send + Sync + 'static {
    fn capabilities(&self, store: &MemoryStore) -> Capabilities {
        Capabilities::new(Durability::ProcessCrash, store.capabilities().max_body_bytes)
    }

    fn now(&self, store: &MemoryStore) -> Option<Timestamp> {
        store.now()
    }

    /// What becomes of the operations when all processes die: as it is, all of them survive.
    async fn kill(&self, _: &MemoryStore) {}

    fn size(&self, store: &MemoryStore) -> usize {
        store.len()
    }

    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        store.accept(submission).await
    }

    async fn get(&self, store: &MemoryStore, id: OperationId) -> Answer<Option<Observed>> {
        store.get(id).await
    }

    async fn input(&self, store: &MemoryStore, id: OperationId) -> Answer<Option<Bytes>> {
        store.input(id).await
    }

    async fn outcome(&self, store: &MemoryStore, id: OperationId) -> Answer<Option<Outcome>> {
        store.outcome(id).await
    }

    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        store.swap(swap).await
    }

    async fn remove(&self, store: &MemoryStore, id: OperationId, expected: u64) -> Answer<Swapped> {
        store.remove(id, expected).await
    }

    async fn due(&self, store: &MemoryStore, query: &DueQuery) -> Answer<Vec<Observed>> {
        store.due(query).await
    }

    async fn list(&self, store: &MemoryStore, owner: &Owner, query: &ListQuery) -> Answer<Page> {
        store.list(owner, query).await
    }

    async fn purge(&self, store: &MemoryStore, limit: usize) -> Answer<usize> {
        store.purge(limit).await
    }

    async fn claim(&self, store: &MemoryStore, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        store.claim(request).await
    }
}

/// A memory store with that defect. It stands for a server that outlives the processes that use it.
#[derive(Debug, Clone)]
pub(crate) struct Broken<D> {
    store: MemoryStore,
    defect: Arc<D>,
    /// Whether the process of this handle is alive.
    alive: Arc<AtomicBool>,
}

/// Where a broken store comes from.
pub(crate) struct Cage<D> {
    store: MemoryStore,
    defect: Arc<D>,
    alive: Mutex<Arc<AtomicBool>>,
    was_killed: AtomicBool,
    clock: Arc<ManualClock>,
}

impl<D: Defect> Fixture for Cage<D> {
    type Store = Broken<D>;
    const UNIT: Duration = Duration::from_secs(60);

    async fn empty() -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = new_store(&clock, 64 << 10);
        let alive = Mutex::new(Arc::new(AtomicBool::new(true)));
        Self { store, defect: Arc::default(), alive, was_killed: false.into(), clock }
    }

    async fn open(&self) -> Broken<D> {
        if self.was_killed.swap(false, Ordering::SeqCst) {
            // For a call that had just been found alive when its process was killed.
            self.defect.kill(&self.store).await;
        }
        let alive = self.alive.lock().unwrap().clone();
        Broken { store: self.store.clone(), defect: self.defect.clone(), alive }
    }

    async fn kill(&self) {
        let killed = std::mem::replace(&mut *self.alive.lock().unwrap(), Arc::new(true.into()));
        killed.store(false, Ordering::SeqCst);
        self.defect.kill(&self.store).await;
        self.was_killed.store(true, Ordering::SeqCst);
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn turn_back(&self, by: Duration) -> bool {
        turn_back(&self.clock, by);
        true
    }

    async fn size(&self) -> Option<u64> {
        u64::try_from(self.defect.size(&self.store)).ok()
    }
}

impl<D> Broken<D> {
    /// The store, for as long as the process lives.
    fn store(&self) -> Answer<&MemoryStore> {
        if self.alive.load(Ordering::SeqCst) {
            Ok(&self.store)
        } else {
            Err(StoreError::new(StoreErrorKind::Unavailable, "the process is dead"))
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<D: Defect> OperationStore for Broken<D> {
    fn capabilities(&self) -> Capabilities {
        self.defect.capabilities(&self.store)
    }

    fn now(&self) -> Option<Timestamp> {
        self.defect.now(&self.store)
    }

    async fn accept(&self, submission: Submission) -> Answer<Acceptance> {
        self.defect.accept(self.store()?, submission).await
    }

    async fn get(&self, id: OperationId) -> Answer<Option<Observed>> {
        self.defect.get(self.store()?, id).await
    }

    async fn input(&self, id: OperationId) -> Answer<Option<Bytes>> {
        self.defect.input(self.store()?, id).await
    }

    async fn outcome(&self, id: OperationId) -> Answer<Option<Outcome>> {
        self.defect.outcome(self.store()?, id).await
    }

    async fn swap(&self, swap: Swap) -> Answer<Swapped> {
        self.defect.swap(self.store()?, swap).await
    }

    async fn remove(&self, id: OperationId, expected: u64) -> Answer<Swapped> {
        self.defect.remove(self.store()?, id, expected).await
    }

    async fn due(&self, query: &DueQuery) -> Answer<Vec<Observed>> {
        self.defect.due(self.store()?, query).await
    }

    async fn list(&self, owner: &Owner, query: &ListQuery) -> Answer<Page> {
        self.defect.list(self.store()?, owner, query).await
    }

    async fn purge(&self, limit: usize) -> Answer<usize> {
        self.defect.purge(self.store()?, limit).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        self.defect.claim(self.store()?, request).await
    }

    /// As a store that gives none.
    fn hints(&self) -> Option<Box<dyn Hints>> {
        None
    }
}
