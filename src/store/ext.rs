use std::collections::hash_map::RandomState;
use std::future::{Future, poll_fn};
use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use super::{
    Acceptance, Hint, Observed, OperationStore, StoreError, StoreErrorKind, Submission, Swap,
    Swapped,
};
use crate::operation::{Change, Operation, OperationId, Outcome, Owner, TransitionError};

/// How often a change is tried again because somebody else wrote first. Each time somebody else made
/// progress, so that many in a row mean a crowd on one operation.
pub const MAX_SWAP_TRIES: usize = 64;

/// Why a change did not take place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The rules refuse it; this is the operation as it stands.
    #[error("the change was refused")]
    Refused(#[source] TransitionError, Observed),
    /// There is no such operation, or it has expired.
    #[error("there is no such operation")]
    Gone,
    /// It has not finished, so it cannot be forgotten.
    #[error("the operation is not finished")]
    NotFinished,
    /// Others kept writing first ([`MAX_SWAP_TRIES`]); try again.
    #[error("too many others change the operation")]
    Contended,
    /// The store could not do it.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl ApplyError {
    /// Whether the same change may succeed later, without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Contended => true,
            Self::Refused(..) | Self::Gone | Self::NotFinished => false,
        }
    }
}

/// What callers do with a store, whichever it is.
///
/// # Cancel safety
/// A future that is dropped may have written or not. Where a client's hanging up could drop it, run
/// it in a task of its own, as the facade does.
pub trait OperationStoreExt: OperationStore {
    /// Reads an operation of that owner. Somebody else's is not there, exactly as an unknown one.
    ///
    /// # Errors
    /// The store's troubles.
    fn find(
        &self,
        owner: &Owner,
        id: OperationId,
    ) -> impl Future<Output = Result<Option<Observed>, StoreError>> + Send {
        async move {
            let observed = self.get(id).await?;
            Ok(observed.filter(|observed| observed.operation.owner() == owner))
        }
    }

    /// Gives a new operation to the store, and finds out what became of it when the answer got lost.
    ///
    /// # Errors
    /// The store's troubles. An ambiguous one is left if the operation is not there to be read, for it
    /// may still come, or its key be another's; ask again, under the same id or key.
    fn submit(
        &self,
        submission: Submission,
    ) -> impl Future<Output = Result<Acceptance, StoreError>> + Send {
        async move {
            let id = submission.operation.id();
            match self.accept(submission).await {
                Err(error) if error.kind() == StoreErrorKind::Ambiguous => {
                    // The id is nobody else's: if it is there, this acceptance took place.
                    match self.get(id).await {
                        Ok(Some(observed)) => Ok(Acceptance::Created(observed)),
                        _ => Err(error),
                    }
                }
                answer => answer,
            }
        }
    }

    /// Brings a change about: reads, decides by [`Operation::apply`](crate::Operation::apply),
    /// writes, and begins again if somebody else wrote first. Gives the operation after it.
    ///
    /// # Errors
    /// [`ApplyError`]. If the answer to a try got lost and it cannot be found out whether it took place,
    /// that ambiguous error of the store; with all other errors nothing was written. What is refused is
    /// refused by how the operation stands, also if an earlier try of the same change led there.
    fn apply(
        &self,
        id: OperationId,
        change: Change,
    ) -> impl Future<Output = Result<Observed, ApplyError>> + Send {
        self.apply_with(id, change, None, |_| Vec::new())
    }

    /// The same for a change that may finish the operation, with the outcome that is kept with it if it
    /// does so with an answer; and with what is accepted in the same step if the change is one that a
    /// client can see: `follow_ups` is given the operation as it becomes. It is asked again when
    /// somebody else wrote first.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    fn apply_with(
        &self,
        id: OperationId,
        change: Change,
        outcome: Option<Outcome>,
        follow_ups: impl Fn(&Operation) -> Vec<Submission> + Send + Sync,
    ) -> impl Future<Output = Result<Observed, ApplyError>> + Send {
        apply_from(self, None, None, id, change, outcome, follow_ups)
    }

    /// The same for whoever knows the operation already: if it is still as it was, and the store
    /// [knows the time](OperationStore::now), it is not read again.
    ///
    /// # Errors
    /// As [`apply`](Self::apply). What is refused is refused by what the store says, not by what was known.
    fn apply_to(
        &self,
        known: Observed,
        change: Change,
        outcome: Option<Outcome>,
        follow_ups: impl Fn(&Operation) -> Vec<Submission> + Send + Sync,
    ) -> impl Future<Output = Result<Observed, ApplyError>> + Send {
        let id = known.operation.id();
        let known = self.now().map(|now| Observed { now, ..known });
        apply_from(self, known, None, id, change, outcome, follow_ups)
    }

    /// Waits until the operation has another revision than `seen`, or is gone, or `until` is over, and
    /// gives it as it then stands.
    ///
    /// It listens to the store's [hints](OperationStore::hints). A hint can be lost, and a store need
    /// not give any, so let `until` be over after a while and call again.
    ///
    /// # Errors
    /// The store's troubles.
    fn changed(
        &self,
        id: OperationId,
        seen: u64,
        until: impl Future<Output = ()> + Send,
    ) -> impl Future<Output = Result<Option<Observed>, StoreError>> + Send {
        async move {
            // Subscribed before the first look, so that no change falls in between.
            let mut hints = self.hints();
            let mut until = pin!(until);
            loop {
                let observed = self.get(id).await?;
                if observed.as_ref().is_none_or(|observed| observed.operation.revision() != seen) {
                    return Ok(observed);
                }
                let over = poll_fn(|cx| {
                    loop {
                        match hints.as_mut().map(|hints| hints.poll_hint(cx)) {
                            Some(Poll::Ready(Some(Hint::Claimable))) => {}
                            Some(Poll::Ready(Some(Hint::Changed(other)))) if other != id => {}
                            Some(Poll::Ready(Some(_))) => return Poll::Ready(false),
                            Some(Poll::Ready(None)) => hints = None,
                            Some(Poll::Pending) | None => {
                                return until.as_mut().poll(cx).map(|()| true);
                            }
                        }
                    }
                });
                if over.await {
                    return self.get(id).await;
                }
            }
        }
    }

    /// Removes a finished operation of that owner with all that belongs to it.
    ///
    /// # Errors
    /// [`ApplyError::Gone`] if the owner has no such operation, [`ApplyError::NotFinished`], or the
    /// store's troubles.
    fn forget(
        &self,
        owner: &Owner,
        id: OperationId,
    ) -> impl Future<Output = Result<(), ApplyError>> + Send {
        async move {
            let found = self.find(owner, id).await?.ok_or(ApplyError::Gone)?;
            if !found.operation.status().is_finished() {
                return Err(ApplyError::NotFinished);
            }
            // What is finished never changes, so its version is still the same, or it is gone.
            match self.remove(id, found.operation.version()).await {
                Ok(Swapped::Swapped) => Ok(()),
                Ok(Swapped::Gone) => Err(ApplyError::Gone),
                Ok(Swapped::Conflict(_)) => Err(ApplyError::Contended),
                Err(error) if error.kind() == StoreErrorKind::Ambiguous => {
                    // What is gone by now is forgotten, as was asked.
                    match self.get(id).await {
                        Ok(None) => Ok(()),
                        _ => Err(error.into()),
                    }
                }
                Err(error) => Err(error.into()),
            }
        }
    }
}

impl<S: OperationStore + ?Sized> OperationStoreExt for S {}

/// Makes a change. If a revision is given, it is made only while the operation has that one; else it is
/// [`Contended`](ApplyError::Contended).
#[cfg(feature = "tokio")]
pub(crate) async fn apply_at<S: OperationStore + ?Sized>(
    store: &S,
    id: OperationId,
    revision: Option<u64>,
    change: Change,
    follow_ups: impl Fn(&Operation) -> Vec<Submission> + Send + Sync,
) -> Result<Observed, ApplyError> {
    apply_from(store, None, revision, id, change, None, follow_ups).await
}

async fn apply_from<S: OperationStore + ?Sized>(
    store: &S,
    mut before: Option<Observed>,
    revision: Option<u64>,
    id: OperationId,
    change: Change,
    outcome: Option<Outcome>,
    follow_ups: impl Fn(&Operation) -> Vec<Submission> + Send + Sync,
) -> Result<Observed, ApplyError> {
    let write_id = next_write_id();
    // Whether it is what the store has just said.
    let mut is_read = false;
    // The first answer that got lost: from then on nobody can say that nothing was written.
    let mut doubt: Option<StoreError> = None;
    for _ in 0..MAX_SWAP_TRIES {
        let from = if let Some(from) = before.take() {
            from
        } else {
            is_read = true;
            match store.get(id).await {
                Ok(Some(from)) => from,
                Ok(None) => return Err(doubt.map_or(ApplyError::Gone, ApplyError::Store)),
                Err(error) => return Err(doubt.unwrap_or(error).into()),
            }
        };
        if from.write_id == write_id {
            // An earlier try took place after all; only its answer got lost.
            return Ok(from);
        }
        let Observed { operation, now, .. } = &from;
        if revision.is_some_and(|revision| revision != operation.revision()) {
            break;
        }
        let next = match operation.apply(&change, *now) {
            Ok(next) if next.version() != operation.version() => next,
            _ if !is_read => continue,
            Ok(_) => return Ok(from),
            Err(error) => return Err(ApplyError::Refused(error, from)),
        };
        let is_seen = next.revision() != operation.revision();
        let outbox = if is_seen { follow_ups(&next) } else { Vec::new() };
        let swap = Swap::new(next.clone(), operation.version())
            .with_outbox(outbox)
            .with_write_id(write_id)
            .with_outcome(outcome.clone().filter(|_| next.outcome_head().is_some()));
        match store.swap(swap).await {
            Ok(Swapped::Swapped) => {
                return Ok(Observed { operation: next, now: *now, write_id });
            }
            Ok(Swapped::Conflict(current)) => {
                is_read = true;
                before = Some(current);
            }
            Ok(Swapped::Gone) => return Err(doubt.map_or(ApplyError::Gone, ApplyError::Store)),
            Err(error) if error.kind() == StoreErrorKind::Ambiguous => {
                doubt.get_or_insert(error);
            }
            Err(error) => return Err(doubt.unwrap_or(error).into()),
        }
    }
    Err(doubt.map_or(ApplyError::Contended, ApplyError::Store))
}

/// A number that no other write has: a random start for each process, then a counter. Never 0.
pub(super) fn next_write_id() -> u64 {
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(std::process::id())));
    NEXT.fetch_add(1, Ordering::Relaxed).max(1)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use super::*;
    use crate::operation::{NewOperation, Status};
    use crate::store::{MemoryStore, Submission};
    use crate::time::{Clock, SystemClock};

    async fn accepted(store: &MemoryStore) -> OperationId {
        let id = OperationId::generate(SystemClock.now()).unwrap();
        store.accept(Submission::new(NewOperation::new(id))).await.unwrap();
        id
    }

    #[tokio::test]
    async fn what_is_known_is_read_again_only_if_it_has_changed() {
        let store = MemoryStore::new();
        let id = accepted(&store).await;
        let known = store.get(id).await.unwrap().unwrap();
        let nothing = |_: &Operation| Vec::new();
        let claim = Change::Claim { lease: Duration::from_secs(9) };
        let claimed = store.apply_to(known.clone(), claim.clone(), None, nothing).await.unwrap();
        assert_eq!(claimed.operation.attempt(), 1);
        assert!(claimed.now >= known.now);

        // As it was known it could be claimed.
        let refused = store.apply_to(known.clone(), claim, None, nothing).await.unwrap_err();
        let ApplyError::Refused(_, current) = refused else { panic!("{refused:?}") };
        assert_eq!(current.operation, claimed.operation);
        // As it was known no attempt could end it.
        let end = Change::ConfirmCancel { attempt: 1 };
        store.apply(id, Change::Cancel).await.unwrap();
        let canceled = store.apply_to(known.clone(), end, None, nothing).await.unwrap();
        assert_eq!(canceled.operation.status(), Status::Canceled);

        store.forget(&Owner::anonymous(), id).await.unwrap();
        let gone = store.apply_to(known, Change::Cancel, None, nothing).await.unwrap_err();
        assert!(matches!(gone, ApplyError::Gone), "{gone:?}");
    }

    #[tokio::test]
    async fn a_change_ends_the_wait() {
        let store = MemoryStore::new();
        let (id, other) = (accepted(&store).await, accepted(&store).await);
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.changed(id, 1, pending()).await.unwrap().unwrap() }
        });
        tokio::task::yield_now().await;
        store.apply(other, Change::Cancel).await.unwrap();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        store.apply(id, Change::Cancel).await.unwrap();
        assert_eq!(waiting.await.unwrap().operation.status(), Status::Canceled);
    }

    #[tokio::test]
    async fn what_has_changed_already_is_given_at_once() {
        let store = MemoryStore::new();
        let id = accepted(&store).await;
        assert!(store.changed(id, 0, pending()).await.unwrap().is_some());
        store.apply(id, Change::Cancel).await.unwrap();
        let now = SystemClock.now() + Duration::from_secs(1);
        let unknown = OperationId::generate(now).unwrap();
        assert_eq!(store.changed(unknown, 1, pending()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_end_of_the_wait_gives_what_is_there() {
        let store = MemoryStore::new();
        let id = accepted(&store).await;
        let observed = store.changed(id, 1, ready(())).await.unwrap().unwrap();
        assert_eq!(observed.operation.revision(), 1);
    }
}
