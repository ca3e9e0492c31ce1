//! Stores that keep no bounds: of time, of room, of owners.

use super::*;

/// What has expired is there until it is purged.
#[derive(Debug, Default)]
pub(super) struct ExpiredVisible(Mutex<HashMap<KeyName, OperationId>>);

impl ExpiredVisible {
    async fn look(store: &MemoryStore, id: OperationId) -> Answer<Option<Observed>> {
        let expired = store.due(&DueQuery::new(Due::Expire, usize::MAX)).await?;
        match expired.into_iter().find(|observed| observed.operation.id() == id) {
            None => store.get(id).await,
            observed => Ok(observed),
        }
    }
}

#[async_trait]
impl Defect for ExpiredVisible {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        if let Some(name) = key_name(&submission) {
            let id = submission.operation.id();
            let used_for = *self.0.lock().unwrap().entry(name).or_insert(id);
            if let Some(observed) = Self::look(store, used_for).await? {
                return Ok(Acceptance::Existing(observed));
            }
        }
        store.accept(submission).await
    }

    async fn get(&self, store: &MemoryStore, id: OperationId) -> Answer<Option<Observed>> {
        Self::look(store, id).await
    }
}

/// The purge takes what looks abandoned.
#[derive(Debug, Default)]
pub(super) struct PurgeUnfinished;

#[async_trait]
impl Defect for PurgeUnfinished {
    async fn purge(&self, store: &MemoryStore, limit: usize) -> Answer<usize> {
        let mut purged = store.purge(limit).await?;
        for due in [Due::Claim, Due::Settle] {
            for Observed { operation, .. } in store.due(&DueQuery::new(due, limit)).await? {
                let removal = store.remove(operation.id(), operation.version()).await?;
                purged += usize::from(removal == Swapped::Swapped);
            }
        }
        Ok(purged)
    }
}

/// The purge takes all at once.
#[derive(Debug, Default)]
pub(super) struct PurgeUnbounded;

#[async_trait]
impl Defect for PurgeUnbounded {
    async fn purge(&self, store: &MemoryStore, _: usize) -> Answer<usize> {
        store.purge(usize::MAX).await
    }
}

/// A write inserts what is not there.
#[derive(Debug, Default)]
pub(super) struct Resurrection;

#[async_trait]
impl Defect for Resurrection {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        let id = swap.next.id();
        match store.swap(swap).await? {
            Swapped::Gone => {
                store.accept(Submission::new(NewOperation::new(id))).await?;
                Ok(Swapped::Swapped)
            }
            answer => Ok(answer),
        }
    }
}

/// There is always room.
#[derive(Debug, Default)]
pub(super) struct LimitsIgnored;

#[async_trait]
impl Defect for LimitsIgnored {
    async fn accept(&self, store: &MemoryStore, mut submission: Submission) -> Answer<Acceptance> {
        submission.limits = respond_async::store::Limits::default();
        store.accept(submission).await
    }
}

/// What there is is counted in one step and added to in another.
#[derive(Debug, Default)]
pub(super) struct LimitRacy(AtomicUsize);

#[async_trait]
impl Defect for LimitRacy {
    async fn accept(&self, store: &MemoryStore, mut submission: Submission) -> Answer<Acceptance> {
        let count = self.0.load(Ordering::SeqCst);
        if submission.limits.total.take().is_some_and(|total| count >= total) {
            return Ok(Acceptance::Full(Full::Total));
        }
        gap().await;
        let answer = store.accept(submission).await?;
        if matches!(answer, Acceptance::Created(_)) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Ok(answer)
    }
}

/// A list of everybody's operations.
#[derive(Debug, Default)]
pub(super) struct ListAcrossOwners(Mutex<Vec<Owner>>);

#[async_trait]
impl Defect for ListAcrossOwners {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        self.0.lock().unwrap().push(submission.operation.owner().clone());
        store.accept(submission).await
    }

    async fn list(&self, store: &MemoryStore, _: &Owner, query: &ListQuery) -> Answer<Page> {
        let owners = self.0.lock().unwrap().clone();
        let mut everything = Page::default();
        for owner in owners {
            everything.operations.extend(store.list(&owner, query).await?.operations);
        }
        Ok(everything)
    }
}

/// A page begins with the last operation of the page before.
#[derive(Debug, Default)]
pub(super) struct PagesRepeat;

#[async_trait]
impl Defect for PagesRepeat {
    async fn list(&self, store: &MemoryStore, owner: &Owner, query: &ListQuery) -> Answer<Page> {
        let mut page = store.list(owner, query).await?;
        if let Some(Observed { operation, .. }) = match query.before {
            Some(before) => store.get(before).await?,
            None => None,
        } {
            page.operations.insert(0, operation);
            page.operations.truncate(query.page_size());
        }
        Ok(page)
    }
}

/// While there is something to purge, nothing is given out.
#[derive(Debug, Default)]
pub(super) struct PurgeHoldsClaims(AtomicBool);

#[async_trait]
impl Defect for PurgeHoldsClaims {
    async fn purge(&self, store: &MemoryStore, limit: usize) -> Answer<usize> {
        let purged = store.purge(limit).await?;
        self.0.store(purged > 0, Ordering::SeqCst);
        Ok(purged)
    }

    async fn claim(&self, store: &MemoryStore, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        if self.0.load(Ordering::SeqCst) {
            return Ok(Vec::new());
        }
        store.claim(request).await
    }
}

/// Something of each operation stays for ever.
#[derive(Debug, Default)]
pub(super) struct TombstonesForEver(AtomicUsize);

#[async_trait]
impl Defect for TombstonesForEver {
    async fn purge(&self, store: &MemoryStore, limit: usize) -> Answer<usize> {
        let purged = store.purge(limit).await?;
        self.0.fetch_add(purged, Ordering::SeqCst);
        Ok(purged)
    }

    fn size(&self, store: &MemoryStore) -> usize {
        store.len() + self.0.load(Ordering::SeqCst)
    }
}

/// Whether there is room is asked before whether the request is known.
#[derive(Debug, Default)]
pub(super) struct FullBeforeKey;

#[async_trait]
impl Defect for FullBeforeKey {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        if submission.limits.total == Some(0) {
            return Ok(Acceptance::Full(Full::Total));
        }
        store.accept(submission).await
    }
}

/// A page begins after as many operations as there were before it.
#[derive(Debug, Default)]
pub(super) struct PagesByOffset(Mutex<HashMap<OperationId, usize>>);

#[async_trait]
impl Defect for PagesByOffset {
    async fn list(&self, store: &MemoryStore, owner: &Owner, query: &ListQuery) -> Answer<Page> {
        let mut everything = ListQuery::default();
        everything.limit = ListQuery::MAX_LIMIT;
        let all = store.list(owner, &everything).await?.operations;
        let mut offsets = self.0.lock().unwrap();
        let skipped = query.before.and_then(|before| offsets.get(&before).copied()).unwrap_or(0);
        let end = all.len().min(skipped + query.page_size());
        let operations = all.get(skipped..end).unwrap_or_default().to_vec();
        let next = operations.last().map(Operation::id).filter(|_| end < all.len());
        offsets.extend(next.map(|next| (next, end)));
        Ok(Page { operations, next })
    }
}

/// The anonymous owner is taken for one client.
#[derive(Debug, Default)]
pub(super) struct AnonymousLimited(AtomicUsize);

#[async_trait]
impl Defect for AnonymousLimited {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        if submission.operation.owner().name().is_none() {
            let others = self.0.fetch_add(1, Ordering::SeqCst);
            // As long as they come one by one nobody sees it.
            if submission.limits.owner.is_some_and(|most| most < 2 && others > most + 8) {
                return Ok(Acceptance::Full(Full::Owner));
            }
        }
        store.accept(submission).await
    }
}

/// The owner's limit is looked at before that of all.
#[derive(Debug, Default)]
pub(super) struct OwnerBeforeTotal;

#[async_trait]
impl Defect for OwnerBeforeTotal {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        let mut of_owner = submission.clone();
        of_owner.limits.total = None;
        match store.accept(submission).await? {
            full @ Acceptance::Full(Full::Total) => match store.accept(of_owner).await? {
                Acceptance::Full(Full::Owner) => Ok(Acceptance::Full(Full::Owner)),
                Acceptance::Created(created) => {
                    let Observed { operation, .. } = created;
                    store.remove(operation.id(), operation.version()).await?;
                    Ok(full)
                }
                _ => Ok(full),
            },
            answer => Ok(answer),
        }
    }
}
