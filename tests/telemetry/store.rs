//! A store that is away when it is told to be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use respond_async::operation::Change;
use respond_async::store::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Hints, ListQuery, MemoryStore, Observed,
    OperationStore, OperationStoreExt, Page, StoreError, StoreErrorKind, Submission, Swap, Swapped,
};
use respond_async::time::{Clock, Timestamp};
use respond_async::{OperationId, Outcome, Owner};
use tokio::time::Instant;

/// The time of tokio's clock, which the tests stop.
#[derive(Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(1_700_000_000_000) + self.0.elapsed()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Flaky {
    store: MemoryStore,
    is_away: Arc<AtomicBool>,
    gets: Arc<AtomicUsize>,
}

impl Flaky {
    /// Inside the runtime whose time it keeps, and before a test has anything told.
    pub(crate) fn new() -> Self {
        crate::spans::listen_everywhere();
        let store = MemoryStore::builder().clock(TokioClock(Instant::now())).build();
        Self { store, is_away: Arc::default(), gets: Arc::default() }
    }

    pub(crate) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    /// How often an operation was read.
    pub(crate) fn gets(&self) -> usize {
        self.gets.load(Ordering::Relaxed)
    }

    /// Ends an operation, as another process may.
    pub(crate) async fn end(&self, id: OperationId) {
        let outcome = Outcome::default();
        let end = Change::Complete { end: Ok(outcome.head()) };
        self.store.apply_with(id, end, Some(outcome), |_| Vec::new()).await.unwrap();
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.is_away.load(Ordering::Relaxed) {
            let away = StoreError::new(StoreErrorKind::Unavailable, "cannot reach the store");
            return Err(away.with_source("on purpose"));
        }
        Ok(())
    }
}

// A method with a default that is not passed on would have the tests take another way than services do.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl OperationStore for Flaky {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn accept(&self, submission: Submission) -> Result<Acceptance, StoreError> {
        self.check()?;
        self.store.accept(submission).await
    }

    async fn get(&self, id: OperationId) -> Result<Option<Observed>, StoreError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.check()?;
        self.store.get(id).await
    }

    async fn input(&self, id: OperationId) -> Result<Option<Bytes>, StoreError> {
        self.check()?;
        self.store.input(id).await
    }

    async fn outcome(&self, id: OperationId) -> Result<Option<Outcome>, StoreError> {
        self.check()?;
        self.store.outcome(id).await
    }

    async fn swap(&self, swap: Swap) -> Result<Swapped, StoreError> {
        self.check()?;
        self.store.swap(swap).await
    }

    async fn remove(&self, id: OperationId, expected: u64) -> Result<Swapped, StoreError> {
        self.check()?;
        self.store.remove(id, expected).await
    }

    async fn due(&self, query: &DueQuery) -> Result<Vec<Observed>, StoreError> {
        self.check()?;
        self.store.due(query).await
    }

    async fn list(&self, owner: &Owner, query: &ListQuery) -> Result<Page, StoreError> {
        self.check()?;
        self.store.list(owner, query).await
    }

    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        self.check()?;
        self.store.purge(limit).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Observed>, StoreError> {
        self.check()?;
        self.store.claim(request).await
    }

    fn now(&self) -> Option<Timestamp> {
        self.store.now()
    }

    fn hints(&self) -> Option<Box<dyn Hints>> {
        self.store.hints()
    }
}
