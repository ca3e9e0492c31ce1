//! Stores that give out work in a broken way, or tell of it what is not so.

use super::*;

/// What is due is read in one step and claimed in another, by id.
#[derive(Debug, Default)]
pub(super) struct DoubleClaim;

#[async_trait]
impl Defect for DoubleClaim {
    async fn claim(&self, store: &MemoryStore, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        let mut claimed = store.due(&request.to_due_query()).await?;
        gap().await;
        for observed in &mut claimed {
            let change = Change::Claim { lease: request.lease() };
            let Ok(next) = observed.operation.apply(&change, observed.now) else { continue };
            write_over(store, Swap::new(next.clone(), 0)).await?;
            observed.operation = next;
        }
        Ok(claimed)
    }
}

/// Claims are judged by the clock of a caller, which is a year ahead.
#[derive(Debug, Default)]
pub(super) struct ClockAhead(Mutex<Vec<OperationId>>);

#[async_trait]
impl Defect for ClockAhead {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        self.0.lock().unwrap().push(submission.operation.id());
        store.accept(submission).await
    }

    async fn claim(&self, store: &MemoryStore, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        let accepted = self.0.lock().unwrap().clone();
        let mut claimed = Vec::new();
        for id in accepted {
            let Some(Observed { operation, now, write_id }) = store.get(id).await? else {
                continue;
            };
            let now = now + Duration::from_secs(365 * 24 * 60 * 60);
            let change = Change::Claim { lease: request.lease() };
            let Ok(next) = operation.apply(&change, now) else { continue };
            store.swap(Swap::new(next.clone(), operation.version())).await?;
            claimed.push(Observed { operation: next, now, write_id });
        }
        Ok(claimed)
    }
}

/// What somebody has claimed once is never found again.
#[derive(Debug, Default)]
pub(super) struct LeasesForEver;

#[async_trait]
impl Defect for LeasesForEver {
    async fn claim(&self, store: &MemoryStore, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        let is_free = |operation: &Operation| operation.lease_expires().is_none();
        let due = store.due(&request.to_due_query()).await?;
        if due.iter().all(|observed| is_free(&observed.operation)) {
            return store.claim(request).await;
        }
        Ok(Vec::new())
    }
}

/// Whoever asks for some kinds of work gets any.
#[derive(Debug, Default)]
pub(super) struct KindsIgnored;

#[async_trait]
impl Defect for KindsIgnored {
    async fn due(&self, store: &MemoryStore, query: &DueQuery) -> Answer<Vec<Observed>> {
        store.due(&DueQuery::new(query.due, query.limit)).await
    }

    async fn claim(&self, store: &MemoryStore, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        let limit = request.to_due_query().limit;
        store.claim(&ClaimRequest::new(limit, request.lease())).await
    }
}

/// What waits longest waits longer.
#[derive(Debug, Default)]
pub(super) struct NewestDueFirst;

#[async_trait]
impl Defect for NewestDueFirst {
    async fn due(&self, store: &MemoryStore, query: &DueQuery) -> Answer<Vec<Observed>> {
        let mut due = store.due(query).await?;
        due.reverse();
        Ok(due)
    }
}

/// A request for cancellation is acknowledged and then told to nobody.
#[derive(Debug, Default)]
pub(super) struct CancelNotWritten;

#[async_trait]
impl Defect for CancelNotWritten {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        if swap.next.is_cancel_requested() {
            return Ok(Swapped::Swapped);
        }
        store.swap(swap).await
    }
}

/// Every third read is answered from a cache that is filled by every seventh.
#[derive(Debug, Default)]
pub(super) struct ProgressFromCache {
    reads: AtomicUsize,
    cache: Mutex<HashMap<OperationId, Observed>>,
}

#[async_trait]
impl Defect for ProgressFromCache {
    async fn get(&self, store: &MemoryStore, id: OperationId) -> Answer<Option<Observed>> {
        let read = self.reads.fetch_add(1, Ordering::Relaxed);
        let current = store.get(id).await?;
        let mut cache = self.cache.lock().unwrap();
        if let (0, Some(current)) = (read % 7, &current) {
            cache.insert(id, current.clone());
        }
        Ok(cache.get(&id).filter(|_| read % 3 == 0).cloned().or(current))
    }
}

/// Every operation that was accepted, as it is now.
async fn all(store: &MemoryStore, accepted: &Mutex<Vec<OperationId>>) -> Answer<Vec<Observed>> {
    let accepted = accepted.lock().unwrap().clone();
    let mut all = Vec::new();
    for id in accepted {
        all.extend(store.get(id).await?);
    }
    Ok(all)
}

/// Claims those of some operations that the rules give out at that time.
async fn claim_of(
    store: &MemoryStore,
    candidates: impl IntoIterator<Item = (Observed, Timestamp)>,
    request: &ClaimRequest,
) -> Answer<Vec<Observed>> {
    let mut claimed = Vec::new();
    for (Observed { operation, now, .. }, at) in candidates {
        let change = Change::Claim { lease: request.lease() };
        let Ok(next) = operation.apply(&change, at) else { continue };
        if store.swap(Swap::new(next.clone(), operation.version())).await? == Swapped::Swapped {
            claimed.push(Observed { operation: next, now, write_id: 0 });
        }
    }
    Ok(claimed)
}

/// What cannot be claimed, but looks as if, stands before what can.
#[derive(Debug, Default)]
pub(super) struct PoisonRowBlocksSweep(Mutex<Vec<OperationId>>);

#[async_trait]
impl Defect for PoisonRowBlocksSweep {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        self.0.lock().unwrap().push(submission.operation.id());
        store.accept(submission).await
    }

    async fn claim(&self, store: &MemoryStore, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        let at = |observed: &Observed| observed.operation.due_at(Due::Claim);
        let mut all = all(store, &self.0).await?;
        all.retain(|observed| at(observed).is_some_and(|at| at <= observed.now));
        all.sort_by_key(at);
        all.truncate(request.to_due_query().limit);
        claim_of(store, all.into_iter().map(|found| (found.clone(), found.now)), request).await
    }
}

/// Workers look only at what they were told of, and they are told once.
#[derive(Debug, Default)]
pub(super) struct HintRequired(Mutex<Vec<OperationId>>);

#[async_trait]
impl Defect for HintRequired {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        self.0.lock().unwrap().push(submission.operation.id());
        store.accept(submission).await
    }

    async fn claim(&self, store: &MemoryStore, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        let told = all(store, &self.0).await?;
        self.0.lock().unwrap().clear();
        claim_of(store, told.into_iter().map(|found| (found.clone(), found.now)), request).await
    }
}

/// Times are those of the caller, who made the id.
#[derive(Debug, Default)]
pub(super) struct CallerClock;

#[async_trait]
impl Defect for CallerClock {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        let new = submission.operation.clone();
        let answer = store.accept(submission).await?;
        let Acceptance::Created(mut created) = answer else { return Ok(answer) };
        let operation = new.accept(new.id().timestamp());
        store.swap(Swap::new(operation.clone(), created.operation.version())).await?;
        created.operation = operation;
        Ok(Acceptance::Created(created))
    }
}

/// If the clock goes back, no lease is believed any more.
#[derive(Debug, Default)]
pub(super) struct ClockBackEndsLeases(Mutex<Vec<OperationId>>, Mutex<Option<Timestamp>>);

#[async_trait]
impl Defect for ClockBackEndsLeases {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        self.0.lock().unwrap().push(submission.operation.id());
        let answer = store.accept(submission).await?;
        if let Acceptance::Created(created) = &answer {
            self.1.lock().unwrap().replace(created.now);
        }
        Ok(answer)
    }

    async fn claim(&self, store: &MemoryStore, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        let all = all(store, &self.0).await?;
        let last = *self.1.lock().unwrap();
        let at = |observed: &Observed| {
            let went_back = last.is_some_and(|last| observed.now < last);
            observed.operation.lease_expires().filter(|_| went_back).unwrap_or(observed.now)
        };
        let candidates = all.into_iter().map(|found| (found.clone(), at(&found)));
        claim_of(store, candidates, request).await
    }
}

/// Of what became due at the same time, what came last comes first.
#[derive(Debug, Default)]
pub(super) struct TiesBackwards;

#[async_trait]
impl Defect for TiesBackwards {
    async fn due(&self, store: &MemoryStore, query: &DueQuery) -> Answer<Vec<Observed>> {
        let mut due = store.due(query).await?;
        due.sort_by_key(|Observed { operation, .. }| {
            (operation.due_at(query.due), std::cmp::Reverse(operation.id()))
        });
        Ok(due)
    }
}

/// What the store knows of its clock is a second ahead of it.
#[derive(Debug, Default)]
pub(super) struct KnownAhead;

#[async_trait]
impl Defect for KnownAhead {
    fn now(&self, store: &MemoryStore) -> Option<Timestamp> {
        store.now().map(|now| now + Duration::from_secs(1))
    }
}
