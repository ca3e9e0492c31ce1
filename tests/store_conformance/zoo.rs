//! Stores that are broken in one way each, and the cases that find them out.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use respond_async::operation::{Change, Due, NewOperation, Operation, OperationId, Owner};
use respond_async::store::conformance::{self, Fixture};
use respond_async::store::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Durability, Fingerprint, Full, ListQuery,
    MemoryStore, Observed, OperationStore, Page, Submission, Swap, Swapped,
};

use super::broken::{Answer, Cage, Defect};

/// A test for each line: the defect is caught by each of the cases that it names.
macro_rules! caught {
    ($($test:ident: $defect:ident by $($case:ident)+;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $test() {
            $({
                let cage = Cage::<$defect>::empty().await;
                let run = tokio::spawn(async move { conformance::$case(&cage).await });
                let name = stringify!($case);
                match tokio::time::timeout(Duration::from_secs(60), run).await {
                    Ok(Err(error)) => assert!(error.is_panic(), "{name} was canceled"),
                    Ok(Ok(())) => panic!("{name} does not see the defect"),
                    Err(_) => panic!("{name} does not end"),
                }
            })+
        }
    )+};
}

caught! {
    // Acceptance.
    input_cut_at_nul: InputCutAtNul by c01_what_was_accepted_is_found_as_it_was_given;
    limit_of_bodies_not_kept: BodyLimitIgnored by c06_a_body_over_the_limit_is_refused;
    id_overwritten: IdOverwritten by c07_an_id_in_use_is_never_overwritten;
    // The register.
    fence_ignored: FenceIgnored by c13_a_write_over_another_version_is_a_conflict
        c15_one_of_several_writes_over_a_version_wins c34_a_stale_worker_is_refused;
    lost_update: CheckThenWrite by c10_no_update_is_lost c11_reads_and_writes_have_one_order
        c15_one_of_several_writes_over_a_version_wins;
    stale_read: StaleRead by c11_reads_and_writes_have_one_order
        c14_a_write_is_seen_through_every_handle;
    write_id_dropped: WriteIdDropped by c12_a_write_without_an_answer_took_place_or_did_not
        c14_a_write_is_seen_through_every_handle;
    removal_unfenced: RemovalUnfenced by c13_a_write_over_another_version_is_a_conflict;
    // What is finished.
    terminal_rewrite: TerminalRewrite by c20_what_is_finished_never_changes
        c21_one_of_several_ends_is_recorded;
    lost_outcome: LostOutcome by c24_an_outcome_is_kept_byte_for_byte;
    // Leases and what is due.
    double_claim: DoubleClaim by c31_one_of_many_claims_gets_an_operation
        c32_many_workers_share_the_work;
    clock_ahead: ClockAhead by c43_delayed_work_is_given_out_in_time
        c45_work_of_a_vanished_worker_is_given_out_again;
    leases_for_ever: LeasesForEver by c34_a_stale_worker_is_refused
        c45_work_of_a_vanished_worker_is_given_out_again;
    kinds_ignored: KindsIgnored by c55_work_is_given_out_by_kind;
    newest_due_first: NewestDueFirst by c56_the_longest_due_comes_first;
    // Progress and cancellation.
    acknowledged_and_not_written: CancelNotWritten by c71_a_running_worker_sees_the_request;
    progress_backwards: ProgressFromCache by c60_readers_never_see_progress_fall;
    // Idempotency keys.
    key_ignores_payload: KeyIgnoresPayload by c81_another_request_under_the_key_is_refused;
    key_not_atomic: KeyNotAtomic by c82_many_requests_at_once_make_one_operation;
    key_before_operation: KeyBeforeOperation by c83_a_key_never_stands_without_its_operation;
    key_across_owners: KeyAcrossOwners by c84_owners_and_scopes_keep_keys_apart;
    key_outlives_operation: KeyOutlivesOperation by c85_a_key_lives_as_long_as_its_operation;
    key_burnt: KeyBurnt by c87_a_refused_request_does_not_use_up_its_key;
    // Retention.
    expired_still_visible: ExpiredVisible by c85_a_key_lives_as_long_as_its_operation
        c90_expired_is_absent;
    purge_of_unfinished: PurgeUnfinished by c91_live_operations_are_never_purged;
    purge_too_much: PurgeUnbounded by c92_an_operation_goes_as_a_whole;
    resurrection: Resurrection by c93_what_is_gone_does_not_come_back;
    // Limits.
    limits_ignored: LimitsIgnored by c96_a_limit_holds_under_a_rush
        c97_an_owners_limit_is_its_own c99_the_end_of_work_makes_room;
    limits_racy: LimitRacy by c96_a_limit_holds_under_a_rush;
    // Owners.
    list_across_owners: ListAcrossOwners by c110_a_foreign_operation_is_an_unknown_one
        c111_lists_do_not_cross_owners;
    pages_repeat: PagesRepeat by c113_pages_hold_everything_once;
}

/// Nothing is wrong: what the others have in common passes.
mod sound {
    use super::*;

    #[derive(Debug, Default)]
    struct NoDefect;

    impl Defect for NoDefect {}

    respond_async::store_conformance!(Cage<NoDefect>);
}

/// What lies between two steps that should be one: long enough that, in a race, others get there.
async fn gap() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// Writes whatever the version is.
async fn write_over(store: &MemoryStore, mut swap: Swap) -> Answer<Swapped> {
    loop {
        let Some(current) = store.get(swap.next.id()).await? else { return Ok(Swapped::Gone) };
        swap.expected = current.operation.version();
        match store.swap(swap.clone()).await? {
            Swapped::Conflict(_) => {}
            answer => return Ok(answer),
        }
    }
}

/// What a key is unique in: owner, scope and key.
type KeyName = (Owner, String, String);

fn key_name(submission: &Submission) -> Option<KeyName> {
    let idempotency = submission.idempotency.as_ref()?;
    let key = idempotency.key.as_str().to_owned();
    Some((submission.operation.owner().clone(), idempotency.scope.to_string(), key))
}

/// A text that ends at its first NUL.
#[derive(Debug, Default)]
struct InputCutAtNul;

#[async_trait]
impl Defect for InputCutAtNul {
    async fn input(&self, store: &MemoryStore, id: OperationId) -> Answer<Option<Bytes>> {
        let input = store.input(id).await?;
        Ok(input.map(|input| {
            let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
            input.slice(..end)
        }))
    }
}

/// It takes more than it says.
#[derive(Debug, Default)]
struct BodyLimitIgnored;

#[async_trait]
impl Defect for BodyLimitIgnored {
    fn capabilities(&self, _: &MemoryStore) -> Capabilities {
        Capabilities::new(Durability::Volatile, 1 << 10)
    }
}

/// An insert that replaces.
#[derive(Debug, Default)]
struct IdOverwritten;

#[async_trait]
impl Defect for IdOverwritten {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        let id = submission.operation.id();
        if let Some(current) = store.get(id).await? {
            store.remove(id, current.operation.version()).await?;
        }
        store.accept(submission).await
    }
}

/// An update by id alone.
#[derive(Debug, Default)]
struct FenceIgnored;

#[async_trait]
impl Defect for FenceIgnored {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        write_over(store, swap).await
    }
}

/// The version is compared in one step and written over in another.
#[derive(Debug, Default)]
struct CheckThenWrite;

#[async_trait]
impl Defect for CheckThenWrite {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        match store.get(swap.next.id()).await? {
            None => Ok(Swapped::Gone),
            Some(current) if current.operation.version() != swap.expected => {
                Ok(Swapped::Conflict(Box::new(current)))
            }
            Some(_) => {
                gap().await;
                write_over(store, swap).await
            }
        }
    }
}

/// A replica that is one read behind.
#[derive(Debug, Default)]
struct StaleRead(Mutex<HashMap<OperationId, Observed>>);

#[async_trait]
impl Defect for StaleRead {
    async fn get(&self, store: &MemoryStore, id: OperationId) -> Answer<Option<Observed>> {
        let Some(current) = store.get(id).await? else { return Ok(None) };
        let before = self.0.lock().unwrap().insert(id, current.clone());
        Ok(Some(before.unwrap_or(current)))
    }
}

/// Nobody can tell whose write it was.
#[derive(Debug, Default)]
struct WriteIdDropped;

#[async_trait]
impl Defect for WriteIdDropped {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        store.swap(swap.with_write_id(0)).await
    }
}

/// A removal by id alone.
#[derive(Debug, Default)]
struct RemovalUnfenced;

#[async_trait]
impl Defect for RemovalUnfenced {
    async fn remove(&self, store: &MemoryStore, id: OperationId, _: u64) -> Answer<Swapped> {
        match store.get(id).await? {
            None => Ok(Swapped::Gone),
            Some(current) => store.remove(id, current.operation.version()).await,
        }
    }
}

/// The last end wins.
#[derive(Debug, Default)]
struct TerminalRewrite;

#[async_trait]
impl Defect for TerminalRewrite {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        if swap.next.status().is_finished() {
            gap().await;
            return write_over(store, swap).await;
        }
        store.swap(swap).await
    }
}

/// The operation ends and its outcome is nowhere.
#[derive(Debug, Default)]
struct LostOutcome;

#[async_trait]
impl Defect for LostOutcome {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        store.swap(swap.with_outcome(None)).await
    }
}

/// What is due is read in one step and claimed in another, by id.
#[derive(Debug, Default)]
struct DoubleClaim;

#[async_trait]
impl Defect for DoubleClaim {
    async fn claim(&self, store: &MemoryStore, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        let mut claimed = store.due(&request.as_due_query()).await?;
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
struct ClockAhead(Mutex<Vec<OperationId>>);

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
struct LeasesForEver;

#[async_trait]
impl Defect for LeasesForEver {
    async fn claim(&self, store: &MemoryStore, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        let is_free = |operation: &Operation| operation.lease_expires().is_none();
        let due = store.due(&request.as_due_query()).await?;
        if due.iter().all(|observed| is_free(&observed.operation)) {
            return store.claim(request).await;
        }
        Ok(Vec::new())
    }
}

/// Whoever asks for some kinds of work gets any.
#[derive(Debug, Default)]
struct KindsIgnored;

#[async_trait]
impl Defect for KindsIgnored {
    async fn due(&self, store: &MemoryStore, query: &DueQuery) -> Answer<Vec<Observed>> {
        store.due(&DueQuery::new(query.due, query.limit)).await
    }

    async fn claim(&self, store: &MemoryStore, request: &ClaimRequest) -> Answer<Vec<Observed>> {
        let limit = request.as_due_query().limit;
        store.claim(&ClaimRequest::new(limit, request.lease())).await
    }
}

/// What waits longest waits longer.
#[derive(Debug, Default)]
struct NewestDueFirst;

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
struct CancelNotWritten;

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
struct ProgressFromCache {
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

/// A key stands for whatever comes with it.
#[derive(Debug, Default)]
struct KeyIgnoresPayload;

#[async_trait]
impl Defect for KeyIgnoresPayload {
    async fn accept(&self, store: &MemoryStore, mut submission: Submission) -> Answer<Acceptance> {
        if let Some(idempotency) = &mut submission.idempotency {
            idempotency.fingerprint = Fingerprint([0; 32]);
        }
        store.accept(submission).await
    }
}

/// The key is looked up in one step and taken in another.
#[derive(Debug, Default)]
struct KeyNotAtomic(Mutex<HashMap<KeyName, OperationId>>);

#[async_trait]
impl Defect for KeyNotAtomic {
    async fn accept(&self, store: &MemoryStore, mut submission: Submission) -> Answer<Acceptance> {
        let Some(name) = key_name(&submission) else { return store.accept(submission).await };
        let known = self.0.lock().unwrap().get(&name).copied();
        if let Some(id) = known {
            if let Some(current) = store.get(id).await? {
                return Ok(Acceptance::Existing(Box::new(current)));
            }
        }
        gap().await;
        self.0.lock().unwrap().insert(name, submission.operation.id());
        submission.idempotency = None;
        store.accept(submission).await
    }
}

/// The key is there first, and its operation comes a moment later.
#[derive(Debug, Default)]
struct KeyBeforeOperation(Mutex<HashMap<KeyName, Observed>>);

#[async_trait]
impl Defect for KeyBeforeOperation {
    async fn accept(&self, store: &MemoryStore, mut submission: Submission) -> Answer<Acceptance> {
        let Some(name) = key_name(&submission) else { return store.accept(submission).await };
        let known = self.0.lock().unwrap().get(&name).cloned();
        if let Some(observed) = known {
            return Ok(Acceptance::Existing(Box::new(observed)));
        }
        let now = submission.operation.id().timestamp();
        let operation = submission.operation.accept(now);
        self.0.lock().unwrap().insert(name, Observed { operation, now, write_id: 0 });
        gap().await;
        submission.idempotency = None;
        store.accept(submission).await
    }
}

/// A key is everybody's.
#[derive(Debug, Default)]
struct KeyAcrossOwners(Mutex<HashMap<(String, String), OperationId>>);

#[async_trait]
impl Defect for KeyAcrossOwners {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        let Some((_, scope, key)) = key_name(&submission) else {
            return store.accept(submission).await;
        };
        let id = submission.operation.id();
        let used_for = *self.0.lock().unwrap().entry((scope, key)).or_insert(id);
        match store.get(used_for).await? {
            Some(current) => Ok(Acceptance::Existing(Box::new(current))),
            None => store.accept(submission).await,
        }
    }
}

/// A key stays when its operation goes.
#[derive(Debug, Default)]
struct KeyOutlivesOperation(Mutex<HashMap<KeyName, OperationId>>);

#[async_trait]
impl Defect for KeyOutlivesOperation {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        if let Some(name) = key_name(&submission) {
            let id = submission.operation.id();
            let used_for = *self.0.lock().unwrap().entry(name).or_insert(id);
            if used_for != id && store.get(used_for).await?.is_none() {
                return Ok(Acceptance::KeyReused);
            }
        }
        store.accept(submission).await
    }
}

/// A key is taken before it is known whether there is room.
#[derive(Debug, Default)]
struct KeyBurnt(Mutex<HashSet<KeyName>>);

#[async_trait]
impl Defect for KeyBurnt {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        let name = key_name(&submission);
        if name.as_ref().is_some_and(|name| self.0.lock().unwrap().contains(name)) {
            return Ok(Acceptance::KeyReused);
        }
        let answer = store.accept(submission).await?;
        if matches!(answer, Acceptance::Full(_)) {
            self.0.lock().unwrap().extend(name);
        }
        Ok(answer)
    }
}

/// What has expired is there until it is purged.
#[derive(Debug, Default)]
struct ExpiredVisible(Mutex<HashMap<KeyName, OperationId>>);

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
                return Ok(Acceptance::Existing(Box::new(observed)));
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
struct PurgeUnfinished;

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
struct PurgeUnbounded;

#[async_trait]
impl Defect for PurgeUnbounded {
    async fn purge(&self, store: &MemoryStore, _: usize) -> Answer<usize> {
        store.purge(usize::MAX).await
    }
}

/// A write inserts what is not there.
#[derive(Debug, Default)]
struct Resurrection;

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
struct LimitsIgnored;

#[async_trait]
impl Defect for LimitsIgnored {
    async fn accept(&self, store: &MemoryStore, mut submission: Submission) -> Answer<Acceptance> {
        submission.limits = respond_async::store::Limits::default();
        store.accept(submission).await
    }
}

/// What there is is counted in one step and added to in another.
#[derive(Debug, Default)]
struct LimitRacy(AtomicUsize);

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
struct ListAcrossOwners(Mutex<Vec<Owner>>);

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
struct PagesRepeat;

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
