//! The conformance suite on the memory store: as it is, behind pointers, and with nothing but what
//! the trait provides. And the suite itself: it finds what is wrong with stores that are broken.

#![allow(clippy::unwrap_used, reason = "to panic is how a test fails")]

mod broken;
mod zoo;

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use respond_async::operation::{NewOperation, OperationId, Outcome, Owner};
use respond_async::store::conformance::Fixture;
use respond_async::store::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, ListQuery, MemoryStore, Observed,
    OperationStore, Page, StoreError, StoreErrorKind, Submission, Swap, Swapped,
};
use respond_async::time::{Clock, ManualClock, SystemClock, Timestamp};

/// A memory store in one form or another, and a clock that stands still: nothing that a case does
/// not ask for depends on the time.
struct InMemory<S> {
    store: Mutex<MemoryStore>,
    clock: Arc<ManualClock>,
    form: PhantomData<fn() -> S>,
}

/// What a memory store can be made into.
trait Form: OperationStore {
    fn of(store: MemoryStore) -> Self;
}

impl<S: Form> Fixture for InMemory<S> {
    type Store = S;
    const UNIT: Duration = Duration::from_secs(60);

    async fn empty() -> Self {
        let clock = Arc::new(ManualClock::default());
        Self { store: Mutex::new(new_store(&clock, 10 << 20)), clock, form: PhantomData }
    }

    async fn open(&self) -> S {
        S::of(self.store.lock().unwrap().clone())
    }

    async fn kill(&self) {
        *self.store.lock().unwrap() = new_store(&self.clock, 10 << 20);
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn turn_back(&self, by: Duration) -> bool {
        turn_back(&self.clock, by);
        true
    }

    async fn size(&self) -> Option<u64> {
        u64::try_from(self.store.lock().unwrap().len()).ok()
    }
}

/// An empty store that goes by that clock and takes bodies of that size.
fn new_store(clock: &Arc<ManualClock>, max_body_bytes: usize) -> MemoryStore {
    MemoryStore::builder().clock(clock.clone()).max_body_bytes(max_body_bytes).build()
}

fn turn_back(clock: &ManualClock, by: Duration) {
    let millis = i64::try_from(by.as_millis()).unwrap();
    clock.set(Timestamp::from_unix_millis(clock.now().as_unix_millis() - millis));
}

mod as_it_is {
    use super::*;

    impl Form for MemoryStore {
        fn of(store: MemoryStore) -> Self {
            store
        }
    }

    respond_async::store_conformance!(InMemory<MemoryStore>);
}

mod shared {
    use super::*;

    impl Form for Arc<MemoryStore> {
        fn of(store: MemoryStore) -> Self {
            Arc::new(store)
        }
    }

    respond_async::store_conformance!(InMemory<Arc<MemoryStore>>);
}

mod shared_dyn {
    use super::*;

    impl Form for Arc<dyn OperationStore> {
        fn of(store: MemoryStore) -> Self {
            Arc::new(store)
        }
    }

    respond_async::store_conformance!(InMemory<Arc<dyn OperationStore>>);
}

mod boxed_dyn {
    use super::*;

    impl Form for Box<dyn OperationStore> {
        fn of(store: MemoryStore) -> Self {
            Box::new(store)
        }
    }

    respond_async::store_conformance!(InMemory<Box<dyn OperationStore>>);
}

/// A store that leaves to the trait what the trait provides.
mod as_provided {
    use super::*;

    #[derive(Debug)]
    struct Minimal {
        store: MemoryStore,
        /// How many more swaps there are before the store is away.
        swaps: AtomicUsize,
    }

    impl Form for Minimal {
        fn of(store: MemoryStore) -> Self {
            Self { store, swaps: AtomicUsize::new(usize::MAX) }
        }
    }

    #[async_trait]
    impl OperationStore for Minimal {
        fn capabilities(&self) -> Capabilities {
            self.store.capabilities()
        }

        async fn accept(&self, submission: Submission) -> Result<Acceptance, StoreError> {
            self.store.accept(submission).await
        }

        async fn get(&self, id: OperationId) -> Result<Option<Observed>, StoreError> {
            self.store.get(id).await
        }

        async fn input(&self, id: OperationId) -> Result<Option<Bytes>, StoreError> {
            self.store.input(id).await
        }

        async fn outcome(&self, id: OperationId) -> Result<Option<Outcome>, StoreError> {
            self.store.outcome(id).await
        }

        async fn swap(&self, swap: Swap) -> Result<Swapped, StoreError> {
            let left = self.swaps.load(Ordering::SeqCst);
            if left == 0 {
                return Err(StoreError::new(StoreErrorKind::Unavailable, "the store is away"));
            }
            self.swaps.store(left - 1, Ordering::SeqCst);
            self.store.swap(swap).await
        }

        async fn remove(&self, id: OperationId, expected: u64) -> Result<Swapped, StoreError> {
            self.store.remove(id, expected).await
        }

        async fn due(&self, query: &DueQuery) -> Result<Vec<Observed>, StoreError> {
            self.store.due(query).await
        }

        async fn list(&self, owner: &Owner, query: &ListQuery) -> Result<Page, StoreError> {
            self.store.list(owner, query).await
        }

        async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
            self.store.purge(limit).await
        }
    }

    respond_async::store_conformance!(InMemory<Minimal>);

    /// Nobody else would ever hear of the leases that a claim got before the store was away.
    #[tokio::test]
    async fn a_claim_that_is_cut_short_gives_what_it_has_claimed() {
        let store = Minimal::of(MemoryStore::new());
        for _ in 0..5 {
            let id = OperationId::generate(SystemClock.now()).unwrap();
            store.accept(Submission::new(NewOperation::new(id))).await.unwrap();
        }
        store.swaps.store(3, Ordering::SeqCst);
        let request = ClaimRequest::new(10, Duration::from_secs(60));
        assert_eq!(store.claim(&request).await.unwrap().len(), 3);
        let error = store.claim(&request).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        store.swaps.store(usize::MAX, Ordering::SeqCst);
        assert_eq!(store.claim(&request).await.unwrap().len(), 2);
    }
}
