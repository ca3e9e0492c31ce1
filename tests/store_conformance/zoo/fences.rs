//! Stores that write over what they should not, each for a reason of its own.

use super::*;

/// Whoever settles what looks abandoned names it by its id.
#[derive(Debug, Default)]
pub(super) struct ReaperById;

#[async_trait]
impl Defect for ReaperById {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        if swap.next.finished().is_some() && swap.outcome.is_none() {
            gap().await;
            return write_over(store, swap).await;
        }
        store.swap(swap).await
    }
}

/// A renewal names the operation and not what it saw of it. It is told from other writes by this:
/// it alone leaves the revision as it was.
#[derive(Debug, Default)]
pub(super) struct RenewUnfenced(Mutex<HashMap<(OperationId, u64), u64>>);

#[async_trait]
impl Defect for RenewUnfenced {
    async fn get(&self, store: &MemoryStore, id: OperationId) -> Answer<Option<Observed>> {
        let observed = store.get(id).await?;
        if let Some(Observed { operation, .. }) = &observed {
            let seen = (id, operation.version());
            self.0.lock().unwrap().insert(seen, operation.revision());
        }
        Ok(observed)
    }

    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        let seen = self.0.lock().unwrap().get(&(swap.next.id(), swap.expected)).copied();
        if seen == Some(swap.next.revision()) {
            gap().await;
            return write_over(store, swap).await;
        }
        store.swap(swap).await
    }
}

/// A worker is known by its name, and all workers of a host have the same.
#[derive(Debug, Default)]
pub(super) struct FenceByWorkerName;

#[async_trait]
impl Defect for FenceByWorkerName {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        match store.swap(swap.clone()).await? {
            Swapped::Conflict(current) if current.operation.status() == Status::Running => {
                write_over(store, swap).await
            }
            answer => Ok(answer),
        }
    }
}

/// Whether a pending operation can be canceled is decided by what was read, and written whatever it
/// is by then.
#[derive(Debug, Default)]
pub(super) struct CancelFromSnapshot;

#[async_trait]
impl Defect for CancelFromSnapshot {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        if swap.next.status() == Status::Canceled && swap.next.attempt() == 0 {
            gap().await;
            return write_over(store, swap).await;
        }
        store.swap(swap).await
    }
}

/// A request for cancellation is noted on whatever there is, finished or not.
#[derive(Debug, Default)]
pub(super) struct CancelBlind;

#[async_trait]
impl Defect for CancelBlind {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        if swap.next.is_cancel_requested() {
            gap().await;
            return write_over(store, swap).await;
        }
        store.swap(swap).await
    }
}
