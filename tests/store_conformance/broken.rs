//! A memory store with a defect.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use respond_async::operation::{OperationId, Outcome, Owner};
use respond_async::store::conformance::Fixture;
use respond_async::store::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, ListQuery, MemoryStore, Observed,
    OperationStore, Page, StoreError, Submission, Swap, Swapped,
};
use respond_async::time::ManualClock;

pub(crate) type Answer<T> = Result<T, StoreError>;

/// What is wrong: each method is one of [`OperationStore`], and right unless it is overridden. All
/// handles have the same defect, so it may remember things.
#[async_trait]
pub(crate) trait Defect: Debug + Default + Send + Sync + 'static {
    fn capabilities(&self, store: &MemoryStore) -> Capabilities {
        store.capabilities()
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

/// A memory store with that defect.
#[derive(Debug, Clone)]
pub(crate) struct Broken<D> {
    store: MemoryStore,
    defect: Arc<D>,
}

/// Where a broken store comes from.
pub(crate) struct Cage<D> {
    store: Broken<D>,
    clock: Arc<ManualClock>,
}

impl<D: Defect> Fixture for Cage<D> {
    type Store = Broken<D>;
    const UNIT: Duration = Duration::from_secs(60);

    async fn empty() -> Self {
        let clock = Arc::new(ManualClock::default());
        let builder = MemoryStore::builder().clock(clock.clone()).max_body_bytes(64 << 10);
        Self { store: Broken { store: builder.build(), defect: Arc::default() }, clock }
    }

    async fn open(&self) -> Broken<D> {
        Broken { store: self.store.store.clone(), defect: self.store.defect.clone() }
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

#[async_trait]
impl<D: Defect> OperationStore for Broken<D> {
    fn capabilities(&self) -> Capabilities {
        self.defect.capabilities(&self.store)
    }

    async fn accept(&self, submission: Submission) -> Answer<Acceptance> {
        self.defect.accept(&self.store, submission).await
    }

    async fn get(&self, id: OperationId) -> Answer<Option<Observed>> {
        self.defect.get(&self.store, id).await
    }

    async fn input(&self, id: OperationId) -> Answer<Option<Bytes>> {
        self.defect.input(&self.store, id).await
    }

    async fn outcome(&self, id: OperationId) -> Answer<Option<Outcome>> {
        self.store.outcome(id).await
    }

    async fn swap(&self, swap: Swap) -> Answer<Swapped> {
        self.defect.swap(&self.store, swap).await
    }

    async fn remove(&self, id: OperationId, expected: u64) -> Answer<Swapped> {
        self.defect.remove(&self.store, id, expected).await
    }

    async fn due(&self, query: &DueQuery) -> Answer<Vec<Observed>> {
        self.defect.due(&self.store, query).await
    }

    async fn list(&self, owner: &Owner, query: &ListQuery) -> Answer<Page> {
        self.defect.list(&self.store, owner, query).await
    }

    async fn purge(&self, limit: usize) -> Answer<usize> {
        self.defect.purge(&self.store, limit).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        self.defect.claim(&self.store, request).await
    }
}
