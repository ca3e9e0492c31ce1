//! A store with something of the test's own before and after each call: delays, errors, the end of
//! the process.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use respond_async::store::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Hint, Hints, ListQuery, Observed,
    OperationStore, Page, StoreError, Submission, Swap, Swapped,
};
use respond_async::time::Timestamp;
use respond_async::{OperationId, Outcome, Owner};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Accept,
    Claim,
    Read,
    Swap,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

type Answer = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

#[derive(Clone)]
pub(crate) struct Interposed {
    store: Arc<dyn OperationStore>,
    hook: Arc<dyn Fn(When, Call) -> Answer + Send + Sync>,
    has_hints: bool,
    first_hints_end: Arc<AtomicBool>,
}

/// Hints that give no more.
#[derive(Debug)]
struct Ended;

impl Hints for Ended {
    fn poll_hint(&mut self, _: &mut Context<'_>) -> Poll<Option<Hint>> {
        Poll::Ready(None)
    }
}

impl Interposed {
    pub(crate) fn new<F>(
        store: &(impl OperationStore + Clone),
        hook: impl Fn(When, Call) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let hook = move |when, call| -> Answer { Box::pin(hook(when, call)) };
        Self {
            store: Arc::new(store.clone()),
            hook: Arc::new(hook),
            has_hints: true,
            first_hints_end: Arc::default(),
        }
    }

    /// The store gives no hints.
    #[allow(dead_code, reason = "not every test that has this module wants it")]
    pub(crate) fn without_hints(self) -> Self {
        Self { has_hints: false, ..self }
    }

    /// The first hints that are asked for end at once.
    #[allow(dead_code, reason = "not every test that has this module wants it")]
    pub(crate) fn whose_first_hints_end(self) -> Self {
        self.first_hints_end.store(true, Ordering::SeqCst);
        self
    }

    async fn call<T>(
        &self,
        call: Call,
        made: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        (self.hook)(When::Before, call).await?;
        let answer = made.await?;
        (self.hook)(When::After, call).await?;
        Ok(answer)
    }
}

impl fmt::Debug for Interposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

// A method with a default that is not passed on would have the tests take another way than services do.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl OperationStore for Interposed {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn accept(&self, submission: Submission) -> Result<Acceptance, StoreError> {
        self.call(Call::Accept, self.store.accept(submission)).await
    }

    async fn get(&self, id: OperationId) -> Result<Option<Observed>, StoreError> {
        self.call(Call::Read, self.store.get(id)).await
    }

    async fn input(&self, id: OperationId) -> Result<Option<Bytes>, StoreError> {
        self.call(Call::Read, self.store.input(id)).await
    }

    async fn outcome(&self, id: OperationId) -> Result<Option<Outcome>, StoreError> {
        self.call(Call::Read, self.store.outcome(id)).await
    }

    async fn swap(&self, swap: Swap) -> Result<Swapped, StoreError> {
        self.call(Call::Swap, self.store.swap(swap)).await
    }

    async fn remove(&self, id: OperationId, expected: u64) -> Result<Swapped, StoreError> {
        self.call(Call::Other, self.store.remove(id, expected)).await
    }

    async fn due(&self, query: &DueQuery) -> Result<Vec<Observed>, StoreError> {
        self.call(Call::Other, self.store.due(query)).await
    }

    async fn list(&self, owner: &Owner, query: &ListQuery) -> Result<Page, StoreError> {
        self.call(Call::Read, self.store.list(owner, query)).await
    }

    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        self.call(Call::Other, self.store.purge(limit)).await
    }

    fn now(&self) -> Option<Timestamp> {
        self.store.now()
    }

    fn hints(&self) -> Option<Box<dyn Hints>> {
        if self.first_hints_end.swap(false, Ordering::SeqCst) {
            return Some(Box::new(Ended));
        }
        self.store.hints().filter(|_| self.has_hints)
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Observed>, StoreError> {
        self.call(Call::Claim, self.store.claim(request)).await
    }
}
