//! A store whose answers and hints get lost on the way, one that is away, and calls that are cut off.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::lock::lock;
use crate::operation::{OperationId, Outcome, Owner};
use crate::store::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Hint, Hints, ListQuery, Observed,
    OperationStore, Page, StoreError, StoreErrorKind, Submission, Swap, Swapped,
};
use crate::time::Timestamp;

/// What becomes of a call that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is made and answered.
    Answered,
    /// It is made, and nobody learns of it.
    AnswerLost,
    /// It does not arrive, and nobody learns of that.
    NotMade,
    /// It is made, and before anybody can learn of it somebody claims an operation.
    Overtaken,
}

type Fates = Box<dyn Iterator<Item = Fate> + Send>;

/// What becomes of the store's hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// They come.
    Given,
    /// There are none.
    None,
    /// None comes, although there should be some.
    Lost,
    /// Every other one comes, late, twice, and in another order.
    Garbled,
}

/// A store that is reached over a bad line. Reads pass, and so does what comes after the last fate.
pub(super) struct Lossy<S> {
    store: Arc<S>,
    fates: Mutex<Fates>,
    word: Word,
    /// How many swaps were asked for.
    swaps: AtomicUsize,
    /// How many more swaps reach the store before nothing does.
    left: AtomicUsize,
    /// How many calls failed because nothing reaches the store.
    failed: AtomicUsize,
}

impl<S: OperationStore> Lossy<S> {
    pub(super) fn new(
        store: &Arc<S>,
        fates: impl IntoIterator<Item = Fate, IntoIter: Send + 'static>,
    ) -> Self {
        Self {
            store: Arc::clone(store),
            fates: Mutex::new(Box::new(fates.into_iter())),
            word: Word::Given,
            swaps: AtomicUsize::new(0),
            left: AtomicUsize::new(usize::MAX),
            failed: AtomicUsize::new(0),
        }
    }

    /// Loses hints and nothing else.
    pub(super) fn hearing(store: &Arc<S>, word: Word) -> Self {
        Self { word, ..Self::new(store, []) }
    }

    /// After so many more swaps the store is away.
    pub(super) fn fail_after(&self, swaps: usize) {
        self.left.store(swaps, Ordering::SeqCst);
    }

    pub(super) fn come_back(&self) {
        self.left.store(usize::MAX, Ordering::SeqCst);
    }

    pub(super) fn failed(&self) -> usize {
        self.failed.load(Ordering::SeqCst)
    }

    pub(super) fn swaps(&self) -> usize {
        self.swaps.load(Ordering::SeqCst)
    }

    /// An error if nothing reaches the store.
    fn reach(&self) -> Result<(), StoreError> {
        if self.left.load(Ordering::SeqCst) > 0 {
            return Ok(());
        }
        self.failed.fetch_add(1, Ordering::SeqCst);
        Err(StoreError::new(StoreErrorKind::Unavailable, "the store is away"))
    }

    async fn call<T>(
        &self,
        made: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.reach()?;
        let fate = lock(&self.fates).next();
        match fate {
            None | Some(Fate::Answered) => return made.await,
            Some(Fate::AnswerLost) => drop(made.await?),
            Some(Fate::NotMade) => {}
            Some(Fate::Overtaken) => {
                drop(made.await?);
                let lease = Duration::from_secs(24 * 60 * 60);
                self.store.claim(&ClaimRequest::new(1, lease)).await?;
            }
        }
        Err(StoreError::new(StoreErrorKind::Ambiguous, "the answer got lost"))
    }
}

impl<S: fmt::Debug> fmt::Debug for Lossy<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lossy").field(&self.store).finish()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: OperationStore> OperationStore for Lossy<S> {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn now(&self) -> Option<Timestamp> {
        self.store.now()
    }

    async fn accept(&self, submission: Submission) -> Result<Acceptance, StoreError> {
        self.call(self.store.accept(submission)).await
    }

    async fn get(&self, id: OperationId) -> Result<Option<Observed>, StoreError> {
        self.reach()?;
        self.store.get(id).await
    }

    async fn input(&self, id: OperationId) -> Result<Option<Bytes>, StoreError> {
        self.reach()?;
        self.store.input(id).await
    }

    async fn outcome(&self, id: OperationId) -> Result<Option<Outcome>, StoreError> {
        self.reach()?;
        self.store.outcome(id).await
    }

    async fn swap(&self, swap: Swap) -> Result<Swapped, StoreError> {
        self.swaps.fetch_add(1, Ordering::SeqCst);
        let answer = self.call(self.store.swap(swap)).await;
        let count = |left: usize| (left != usize::MAX).then(|| left.saturating_sub(1));
        let _ = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count);
        answer
    }

    async fn remove(&self, id: OperationId, expected: u64) -> Result<Swapped, StoreError> {
        self.call(self.store.remove(id, expected)).await
    }

    async fn due(&self, query: &DueQuery) -> Result<Vec<Observed>, StoreError> {
        self.reach()?;
        self.store.due(query).await
    }

    async fn list(&self, owner: &Owner, query: &ListQuery) -> Result<Page, StoreError> {
        self.reach()?;
        self.store.list(owner, query).await
    }

    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        self.call(self.store.purge(limit)).await
    }

    fn hints(&self) -> Option<Box<dyn Hints>> {
        let hints = || self.store.hints();
        match self.word {
            Word::Given => hints(),
            Word::None => None,
            Word::Lost => Some(Box::new(Silence)),
            Word::Garbled => {
                Some(Box::new(Garbled { hints: hints()?, held: Vec::new(), late: None }))
            }
        }
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Observed>, StoreError> {
        self.call(self.store.claim(request)).await
    }
}

/// Hints that never come.
#[derive(Debug)]
struct Silence;

impl Hints for Silence {
    fn poll_hint(&mut self, _: &mut Context<'_>) -> Poll<Option<Hint>> {
        Poll::Pending
    }
}

/// Half of the hints, each twice, the last one first, and late.
#[derive(Debug)]
struct Garbled {
    hints: Box<dyn Hints>,
    held: Vec<Hint>,
    late: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Hints for Garbled {
    fn poll_hint(&mut self, cx: &mut Context<'_>) -> Poll<Option<Hint>> {
        let mut is_kept = true;
        while let Poll::Ready(hint) = self.hints.poll_hint(cx) {
            let Some(hint) = hint else { return Poll::Ready(None) };
            if is_kept {
                self.held.extend([hint, hint]);
            }
            is_kept = !is_kept;
        }
        if self.held.is_empty() {
            return Poll::Pending;
        }
        let late = self
            .late
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(30))));
        if late.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let hint = self.held.pop();
        if self.held.is_empty() {
            self.late = None;
        }
        Poll::Ready(hint)
    }
}

/// Polls the call that often at the most, and drops it if it is not ready then.
pub(super) async fn cut<T>(polls: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match call.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Numbers that nobody foresees, from a seed that can be told.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides` (splitmix64).
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }
}
