//! Operations and changes that cases begin with.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};

use super::Fixture;
use crate::operation::{
    Change, NewOperation, Operation, OperationId, Outcome, Owner, Progress, Status, TransitionError,
};
use crate::problem::{Problem, types};
use crate::store::{
    Acceptance, ApplyError, ClaimRequest, Fingerprint, Idempotency, IdempotencyKey, ListQuery,
    Observed, OperationStore, OperationStoreExt, Submission, Swap, Swapped,
};
use crate::time::{Clock, SystemClock};

/// A time that does not pass during a case, whatever the store's clock is.
pub(super) const LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// Three handles on one place, to be used by many tasks.
pub(super) async fn handles<F: Fixture>(fixture: &F) -> [Arc<F::Store>; 3] {
    [Arc::new(fixture.open().await), Arc::new(fixture.open().await), Arc::new(fixture.open().await)]
}

pub(super) fn new_id() -> OperationId {
    OperationId::generate(SystemClock.now()).expect("the operating system gives random bytes")
}

/// A new operation with all defaults, for whichever worker claims it.
pub(super) fn new_operation() -> NewOperation {
    NewOperation::new(new_id())
}

/// A body of that many bytes that are not all the same.
pub(super) fn bytes_of(length: usize) -> bytes::Bytes {
    let line: Vec<u8> = (0..=255).collect();
    let mut body = line.repeat(length.div_ceil(line.len()));
    body.truncate(length);
    body.into()
}

/// A new operation whose attempt 1 runs already, under a lease of that length.
pub(super) fn new_running(lease: Duration) -> NewOperation {
    new_operation().held(lease, true)
}

pub(super) fn owner(name: &str) -> Owner {
    Owner::new(name).expect("a valid owner")
}

/// Names a request: a key within a scope, and the request's digest.
pub(super) fn idempotency(scope: &str, key: &str, request: u8) -> Idempotency {
    Idempotency {
        scope: scope.into(),
        key: IdempotencyKey::new(key).expect("a valid key"),
        fingerprint: Fingerprint([request; 32]),
    }
}

/// Accepts an operation without input, key or limits, and expects that it is created.
pub(super) async fn accept(store: &impl OperationStore, new: NewOperation) -> Observed {
    created(store.accept(Submission::new(new)).await.unwrap())
}

/// Accepts an operation whose attempt 1 runs already, under a lease that does not pass.
pub(super) async fn accept_running(store: &impl OperationStore) -> Observed {
    accept(store, new_running(LONG)).await
}

#[track_caller]
pub(super) fn created(acceptance: Acceptance) -> Observed {
    match acceptance {
        Acceptance::Created(observed) => observed,
        other => panic!("expected a new operation, not {other:?}"),
    }
}

#[track_caller]
pub(super) fn existing(acceptance: Acceptance) -> Observed {
    match acceptance {
        Acceptance::Existing(observed) => observed,
        other => panic!("expected an operation that existed, not {other:?}"),
    }
}

/// Reads an operation that must be there.
pub(super) async fn found(store: &impl OperationStore, id: OperationId) -> Operation {
    store.get(id).await.unwrap().expect("the operation is there").operation
}

/// All that a store tells of an operation: itself, its input, its outcome.
pub(super) type Whole = (Option<Operation>, Option<bytes::Bytes>, Option<Outcome>);

pub(super) async fn whole(store: &impl OperationStore, id: OperationId) -> Whole {
    (
        store.get(id).await.unwrap().map(|observed| observed.operation),
        store.input(id).await.unwrap(),
        store.outcome(id).await.unwrap(),
    )
}

/// Claims what one worker gets.
pub(super) async fn claim(
    store: &impl OperationStore,
    limit: usize,
    lease: Duration,
) -> Vec<Operation> {
    let claimed = store.claim(&ClaimRequest::new(limit, lease)).await.unwrap();
    assert!(claimed.len() <= limit, "claimed {} of at most {limit}", claimed.len());
    claimed.into_iter().map(|observed| observed.operation).collect()
}

/// Claims the only operation that there is.
pub(super) async fn claim_one(store: &impl OperationStore, lease: Duration) -> Operation {
    let mut claimed = claim(store, 1, lease).await;
    let operation = claimed.pop().expect("there is an operation to claim");
    assert_eq!(operation.status(), Status::Running);
    operation
}

/// The ids of what an owner's list holds, on pages of the usual length.
pub(super) async fn listed(store: &impl OperationStore, owner: &Owner) -> Vec<OperationId> {
    let mut query = ListQuery::default();
    let mut ids = Vec::new();
    loop {
        let page = store.list(owner, &query).await.unwrap();
        ids.extend(page.operations.iter().map(Operation::id));
        match page.next {
            Some(next) => {
                assert!(query.before.is_none_or(|before| next < before), "pages lead back");
                query.before = Some(next);
            }
            None => return ids,
        }
    }
}

/// The write of what a worker makes of its own, maybe old, view of an operation. None if the rules
/// refuse it on that view.
pub(super) fn swap_of(seen: &Observed, change: &Change) -> Option<Swap> {
    let next = seen.operation.apply(change, seen.now).ok()?;
    Some(Swap::new(next, seen.operation.version()))
}

/// Makes a running operation succeed, with the outcome of [`answer`].
pub(super) async fn succeed(store: &impl OperationStore, operation: &Operation) -> Operation {
    let outcome = answer("done");
    let change = succeeded(operation.attempt(), &outcome);
    store.apply_with(operation.id(), change, Some(outcome), nothing).await.unwrap().operation
}

/// An outcome that makes work succeed.
pub(super) fn answer(body: &'static str) -> Outcome {
    let media_type = HeaderValue::from_static("text/plain");
    let mut outcome = Outcome::with_body(StatusCode::CREATED, media_type, body);
    outcome.headers.insert(header::LOCATION, HeaderValue::from_static("/images/17"));
    outcome
}

pub(super) fn problem() -> Problem {
    Problem::new(types::INTERNAL)
}

pub(super) fn succeeded(attempt: u32, outcome: &Outcome) -> Change {
    Change::Succeed { attempt, head: outcome.head() }
}

pub(super) fn failed(attempt: u32) -> Change {
    Change::Fail { attempt, error: problem() }
}

pub(super) fn retried(attempt: u32, delay: Duration) -> Change {
    Change::Retry { attempt, delay, error: problem() }
}

pub(super) fn reported(attempt: u32, message: &str) -> Change {
    Change::Progress { attempt, progress: Progress::new(0.5, message) }
}

/// Every change by the worker that has that attempt.
pub(super) fn changes_by_worker(attempt: u32) -> [Change; 9] {
    [
        Change::Start { attempt },
        Change::Renew { attempt, lease: LONG },
        reported(attempt, "half"),
        succeeded(attempt, &answer("late")),
        failed(attempt),
        retried(attempt, Duration::ZERO),
        Change::Release { attempt },
        Change::Unclaim { attempt },
        Change::ConfirmCancel { attempt },
    ]
}

/// The end of work that was done elsewhere, under no lease.
pub(super) fn completed(outcome: &Outcome) -> Change {
    Change::Complete { end: Ok(outcome.head()) }
}

/// Every change that there is.
pub(super) fn all_changes(attempt: u32) -> Vec<Change> {
    let by_nobody = [
        Change::Claim { lease: LONG },
        Change::Cancel,
        completed(&answer("late")),
        Change::Complete { end: Err(problem()) },
        Change::Settle,
    ];
    changes_by_worker(attempt).into_iter().chain(by_nobody).collect()
}

/// What follows from a change of which nothing follows.
pub(super) fn nothing(_: &Operation) -> Vec<Submission> {
    Vec::new()
}

/// Whether a change was refused for that reason.
pub(super) fn is_refused<T>(answer: &Result<T, ApplyError>, reason: TransitionError) -> bool {
    matches!(answer, Err(ApplyError::Refused(why, _)) if *why == reason)
}

/// Whoever has the first attempt, and last saw it so, can change nothing any more, in any way.
pub(super) async fn assert_stale(store: &impl OperationStore, seen: &Observed) {
    for change in changes_by_worker(1) {
        let answer = store.apply(seen.operation.id(), change.clone()).await;
        assert!(is_refused(&answer, TransitionError::LeaseLost), "{change:?} was {answer:?}");
        let Some(swap) = swap_of(seen, &change) else { continue };
        let answer = store.swap(swap).await.unwrap();
        assert!(matches!(answer, Swapped::Conflict(_)), "{change:?} was {answer:?}");
    }
}
