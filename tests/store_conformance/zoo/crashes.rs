//! Stores of which a crash leaves too little, too much, or half.

use respond_async::store::{Limits, StoreError, StoreErrorKind};

use super::*;

/// The gap between two steps that should be one, of another length each time: whenever a crowd is
/// cut short, some of it is within.
#[derive(Debug, Default)]
struct Gaps(AtomicUsize);

impl Gaps {
    async fn next(&self) {
        let number = self.0.fetch_add(1, Ordering::SeqCst) % 50;
        tokio::time::sleep(Duration::from_millis(u64::try_from(number).unwrap())).await;
    }
}

/// Puts an operation back to what it was, whatever it is now.
async fn put_back(store: &MemoryStore, id: OperationId, before: Option<Operation>) {
    let Some(current) = store.get(id).await.unwrap() else { return };
    let version = current.operation.version();
    match before {
        None => drop(store.remove(id, version).await.unwrap()),
        Some(before) => drop(store.swap(Swap::new(before, version)).await.unwrap()),
    }
}

/// Writes are acknowledged at once, and reach the disk sixteen at a time.
#[derive(Debug, Default)]
pub(super) struct AckBeforeCommit(Mutex<Vec<(OperationId, Option<Operation>)>>);

impl AckBeforeCommit {
    fn note(&self, id: OperationId, before: Option<Operation>) {
        let mut unwritten = self.0.lock().unwrap();
        unwritten.push((id, before));
        if unwritten.len() == 16 {
            unwritten.clear();
        }
    }
}

#[async_trait]
impl Defect for AckBeforeCommit {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        let id = submission.operation.id();
        let answer = store.accept(submission).await?;
        if matches!(answer, Acceptance::Created(_)) {
            self.note(id, None);
        }
        Ok(answer)
    }

    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        let id = swap.next.id();
        let before = store.get(id).await?.map(|before| before.operation);
        let answer = store.swap(swap).await?;
        if answer == Swapped::Swapped {
            self.note(id, before);
        }
        Ok(answer)
    }

    async fn kill(&self, store: &MemoryStore) {
        let unwritten = std::mem::take(&mut *self.0.lock().unwrap());
        for (id, before) in unwritten.into_iter().rev() {
            put_back(store, id, before).await;
        }
    }
}

/// What is written and not answered in time is told to have failed.
#[derive(Debug, Default)]
pub(super) struct AmbiguousAsFailure(AtomicUsize);

#[async_trait]
impl Defect for AmbiguousAsFailure {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        let answer = store.accept(submission).await?;
        if self.0.fetch_add(1, Ordering::SeqCst) % 3 == 2 {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "no answer within 2 s"));
        }
        Ok(answer)
    }
}

/// The operation is there first, and its key comes later.
#[derive(Debug, Default)]
pub(super) struct KeyAfterOperation(Mutex<HashMap<KeyName, OperationId>>, Gaps);

#[async_trait]
impl Defect for KeyAfterOperation {
    async fn accept(&self, store: &MemoryStore, mut submission: Submission) -> Answer<Acceptance> {
        let Some(name) = key_name(&submission) else { return store.accept(submission).await };
        let known = self.0.lock().unwrap().get(&name).copied();
        if let Some(id) = known {
            if let Some(current) = store.get(id).await? {
                return Ok(Acceptance::Existing(current));
            }
        }
        submission.idempotency = None;
        let id = submission.operation.id();
        let answer = store.accept(submission).await?;
        self.1.next().await;
        self.0.lock().unwrap().insert(name, id);
        Ok(answer)
    }
}

/// The operation is there first, and its input comes later.
#[derive(Debug, Default)]
pub(super) struct InputAfterOperation(Mutex<HashMap<OperationId, Bytes>>, Gaps);

#[async_trait]
impl Defect for InputAfterOperation {
    async fn accept(&self, store: &MemoryStore, mut submission: Submission) -> Answer<Acceptance> {
        let (id, input) = (submission.operation.id(), submission.input.take());
        let answer = store.accept(submission).await?;
        if let Some(input) = input {
            self.1.next().await;
            self.0.lock().unwrap().insert(id, input);
        }
        Ok(answer)
    }

    async fn input(&self, _: &MemoryStore, id: OperationId) -> Answer<Option<Bytes>> {
        Ok(self.0.lock().unwrap().get(&id).cloned())
    }
}

/// Attempts are counted in memory: after a crash they begin anew.
#[derive(Debug, Default)]
pub(super) struct ReusedEpoch(Mutex<Vec<Operation>>);

#[async_trait]
impl Defect for ReusedEpoch {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        let answer = store.accept(submission).await?;
        if let Acceptance::Created(created) = &answer {
            self.0.lock().unwrap().push(created.operation.clone());
        }
        Ok(answer)
    }

    async fn kill(&self, store: &MemoryStore) {
        let accepted = self.0.lock().unwrap().clone();
        for before in accepted {
            put_back(store, before.id(), Some(before)).await;
        }
    }
}

/// An attempt is written down when its worker says something, not when it begins.
#[derive(Debug, Default)]
pub(super) struct AttemptOnFailure(Mutex<HashMap<OperationId, Operation>>);

#[async_trait]
impl Defect for AttemptOnFailure {
    async fn claim(&self, store: &MemoryStore, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        let due = store.due(&request.to_due_query()).await?;
        let claimed = store.claim(request).await?;
        let mut unwritten = self.0.lock().unwrap();
        for before in due {
            unwritten.insert(before.operation.id(), before.operation);
        }
        Ok(claimed)
    }

    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        self.0.lock().unwrap().remove(&swap.next.id());
        store.swap(swap).await
    }

    async fn kill(&self, store: &MemoryStore) {
        let unwritten = std::mem::take(&mut *self.0.lock().unwrap());
        for (id, before) in unwritten {
            put_back(store, id, Some(before)).await;
        }
    }
}

/// A request for cancellation is passed on to the worker and kept nowhere.
#[derive(Debug, Default)]
pub(super) struct CancelNotDurable(Mutex<Vec<Operation>>);

#[async_trait]
impl Defect for CancelNotDurable {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        if swap.next.is_cancel_requested() {
            let before = store.get(swap.next.id()).await?;
            self.0.lock().unwrap().extend(before.map(|before| before.operation));
        }
        store.swap(swap).await
    }

    async fn kill(&self, store: &MemoryStore) {
        let asked = std::mem::take(&mut *self.0.lock().unwrap());
        for before in asked {
            put_back(store, before.id(), Some(before)).await;
        }
    }
}

/// The end is written in one step, and what follows from it in another.
#[derive(Debug, Default)]
pub(super) struct OutboxSeparate;

#[async_trait]
impl Defect for OutboxSeparate {
    async fn swap(&self, store: &MemoryStore, mut swap: Swap) -> Answer<Swapped> {
        let outbox = std::mem::take(&mut swap.outbox);
        let largest = store.capabilities().max_body_bytes;
        if outbox.iter().flat_map(|new| &new.input).any(|input| input.len() > largest) {
            return Err(StoreError::new(StoreErrorKind::TooLarge, "the input is too large"));
        }
        let answer = store.swap(swap).await?;
        if answer == Swapped::Swapped && !outbox.is_empty() {
            gap().await;
            for submission in outbox {
                store.accept(submission.with_limits(Limits::default())).await?;
            }
        }
        Ok(answer)
    }
}

/// What follows is kept in memory until somebody takes it.
#[derive(Debug, Default)]
pub(super) struct OutboxVolatile(Mutex<Vec<OperationId>>);

#[async_trait]
impl Defect for OutboxVolatile {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        let ids: Vec<OperationId> = swap.outbox.iter().map(|new| new.operation.id()).collect();
        let answer = store.swap(swap).await?;
        if answer == Swapped::Swapped {
            self.0.lock().unwrap().extend(ids);
        }
        Ok(answer)
    }

    async fn kill(&self, store: &MemoryStore) {
        let unwritten = std::mem::take(&mut *self.0.lock().unwrap());
        for id in unwritten {
            put_back(store, id, None).await;
        }
    }
}

/// What follows is there even if its end was not written.
#[derive(Debug, Default)]
pub(super) struct OutboxFirst;

#[async_trait]
impl Defect for OutboxFirst {
    async fn swap(&self, store: &MemoryStore, mut swap: Swap) -> Answer<Swapped> {
        for submission in std::mem::take(&mut swap.outbox) {
            store.accept(submission).await?;
        }
        store.swap(swap).await
    }
}

/// Part of the write failed; the rest stays, and all is said to be well.
#[derive(Debug, Default)]
pub(super) struct RollbackSwallowed;

#[async_trait]
impl Defect for RollbackSwallowed {
    async fn swap(&self, store: &MemoryStore, mut swap: Swap) -> Answer<Swapped> {
        match store.swap(swap.clone()).await {
            Err(error) if error.kind() == StoreErrorKind::TooLarge => {
                swap.outbox.clear();
                store.swap(swap).await
            }
            answer => answer,
        }
    }
}

/// Each try of a piece of work is an operation of its own.
#[derive(Debug, Default)]
pub(super) struct RenamedByRetry;

#[async_trait]
impl Defect for RenamedByRetry {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        let next = &swap.next;
        if next.attempt() == 0 || next.status() != Status::Pending {
            return store.swap(swap).await;
        }
        let id = OperationId::generate(next.updated()).unwrap();
        let again = NewOperation::new(id).with_kind(next.kind().clone());
        let answer = store.remove(next.id(), swap.expected).await?;
        store.accept(Submission::new(again)).await?;
        Ok(answer)
    }
}
