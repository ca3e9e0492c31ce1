//! A store that writes down what it is asked and what it answers.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;

use super::history::{Event, EventKind, check};
use crate::lock::lock;
use crate::operation::{OperationId, Outcome, Owner};
use crate::store::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Hints, ListQuery, Observed, OperationStore,
    Page, StoreError, Submission, Swap, Swapped,
};
use crate::time::Timestamp;

/// What was seen and done of one operation, through all recorders.
#[derive(Debug, Default)]
pub(super) struct Record {
    ticks: AtomicU64,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    events: Vec<Event>,
    /// When the claims began to which there was no answer.
    claims: BTreeSet<u64>,
}

impl Record {
    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        lock(&self.calls)
    }

    /// Whether an order explains it all, from that state on.
    pub(super) fn check(&self, first: &Observed) -> Result<(), String> {
        let calls = self.calls();
        let claims: Vec<u64> = calls.claims.iter().copied().collect();
        check(first, &calls.events, &claims)
    }

    /// How many calls are on record that were answered, and how many that were not.
    pub(super) fn len(&self) -> (usize, usize) {
        let calls = self.calls();
        let lost = calls.events.iter().filter(|event| event.kind() == EventKind::MaybeWrite);
        let lost = lost.count();
        (calls.events.len() - lost, lost + calls.claims.len())
    }
}

/// Records the calls on one operation. A call that is dropped stays on record as one that may have
/// taken place.
pub(super) struct Recorder<S> {
    store: S,
    id: OperationId,
    record: Arc<Record>,
}

impl<S: OperationStore> Recorder<S> {
    pub(super) fn new(store: S, id: OperationId, record: &Arc<Record>) -> Self {
        Self { store, id, record: Arc::clone(record) }
    }
}

impl<S: fmt::Debug> fmt::Debug for Recorder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recorder").field(&self.store).finish()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: OperationStore> OperationStore for Recorder<S> {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn now(&self) -> Option<Timestamp> {
        self.store.now()
    }

    async fn accept(&self, submission: Submission) -> Result<Acceptance, StoreError> {
        self.store.accept(submission).await
    }

    async fn get(&self, id: OperationId) -> Result<Option<Observed>, StoreError> {
        let start = self.record.tick();
        let answer = self.store.get(id).await?;
        if let Some(read) = answer.as_ref().filter(|_| id == self.id) {
            let event = Event::new(EventKind::Read, start, self.record.tick(), read);
            self.record.calls().events.push(event);
        }
        Ok(answer)
    }

    async fn input(&self, id: OperationId) -> Result<Option<Bytes>, StoreError> {
        self.store.input(id).await
    }

    async fn outcome(&self, id: OperationId) -> Result<Option<Outcome>, StoreError> {
        self.store.outcome(id).await
    }

    async fn swap(&self, swap: Swap) -> Result<Swapped, StoreError> {
        assert_eq!(swap.next.id(), self.id, "only one operation is written");
        let Swap { next, expected, write_id, .. } = &swap;
        let start = self.record.tick();
        let written =
            Observed { operation: next.clone(), now: next.updated(), write_id: *write_id };
        let expected = *expected;
        let at = {
            let mut calls = self.record.calls();
            calls.events.push(Event::new(EventKind::MaybeWrite, start, u64::MAX, &written));
            calls.events.len() - 1
        };
        let answer = self.store.swap(swap).await?;
        let end = self.record.tick();
        let event = match &answer {
            Swapped::Swapped => Event::new(EventKind::Write, start, end, &written),
            Swapped::Conflict(current) => {
                assert_ne!(current.operation.version(), expected, "a conflict without a reason");
                Event::new(EventKind::Read, start, end, current)
            }
            Swapped::Gone => panic!("it is still there"),
        };
        self.record.calls().events[at] = event;
        Ok(answer)
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

    fn hints(&self) -> Option<Box<dyn Hints>> {
        self.store.hints()
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Observed>, StoreError> {
        let start = self.record.tick();
        self.record.calls().claims.insert(start);
        let claimed = self.store.claim(request).await?;
        let end = self.record.tick();
        let mut calls = self.record.calls();
        calls.claims.remove(&start);
        for claim in &claimed {
            assert_eq!(claim.operation.id(), self.id, "there is only one operation");
            calls.events.push(Event::new(EventKind::Write, start, end, claim));
        }
        Ok(claimed)
    }
}
