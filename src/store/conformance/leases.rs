//! A claim is one worker's, by its attempt; who lost it changes nothing any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Fixture;
use super::crash::after_kill;
use super::race::race;
use super::samples::{
    LONG, accept, answer, assert_stale, changes_by_worker, claim, claim_one, found, handles,
    is_refused, new_operation, new_running, nothing, reported, retried, succeed, succeeded,
    swap_of, whole,
};
use crate::operation::{Change, Kind, Operation, OperationId, Status, TransitionError};
use crate::store::{ClaimRequest, OperationStore, OperationStoreExt, Swapped};

/// Every claim has an attempt larger than all before it: after a retry, a release, a lease that
/// passed, through a handle that was opened later, and after all processes died.
pub async fn c30_attempts_grow_and_never_repeat<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let id = accept(&*store, new_operation().with_attempt_limit(9)).await.operation.id();
    let mut attempts = vec![claim_one(&*store, LONG).await.attempt()];
    store.apply(id, retried(1, Duration::ZERO)).await.unwrap();
    attempts.push(claim_one(&*other, LONG).await.attempt());
    other.apply(id, Change::Release { attempt: 2 }).await.unwrap();
    attempts.push(claim_one(&*store, F::UNIT).await.attempt());
    fixture.advance(F::UNIT).await;
    attempts.push(claim_one(&fixture.open().await, LONG).await.attempt());
    assert_eq!(attempts, [1, 2, 3, 4]);
    assert_eq!(found(&*store, id).await.attempt(), 4);

    for attempt in 5..=7 {
        let ([store, _, _], survives) = after_kill(fixture).await;
        if !survives {
            assert_eq!(store.get(id).await.unwrap(), None, "nothing has an attempt");
            return;
        }
        let change = if attempt == 6 {
            Change::Release { attempt: attempt - 1 }
        } else {
            retried(attempt - 1, Duration::ZERO)
        };
        store.apply(id, change).await.expect("the attempt before the crash still holds");
        assert_eq!(claim_one(&*store, LONG).await.attempt(), attempt);
        for earlier in 1..attempt {
            let stale = store.apply(id, reported(earlier, "stale")).await;
            assert!(is_refused(&stale, TransitionError::LeaseLost), "{stale:?}");
        }
    }
}

/// One operation, 32 claims at once: one gets it.
pub async fn c31_one_of_many_claims_gets_an_operation<F: Fixture>(fixture: &F) {
    let handles = handles(fixture).await;
    for _ in 0..F::ROUNDS {
        let accepted = accept(&*handles[0], new_operation()).await.operation;
        let claimed = race((0..32).map(|claimer| {
            let store = handles[claimer % 3].clone();
            async move { claim(&*store, 1, LONG).await }
        }))
        .await
        .concat();
        assert_eq!(claimed.len(), 1, "claims of one operation");
        let current = found(&*handles[1], accepted.id()).await;
        assert_eq!(claimed[0], current, "a claim gives the operation as it is after it");
        assert_eq!((current.attempt(), current.status()), (1, Status::Running));
        succeed(&*handles[0], &current).await;
    }
}

/// 1,000 operations, 32 workers: each operation is claimed once, and none is left over.
pub async fn c32_many_workers_share_the_work<F: Fixture>(fixture: &F) {
    const OPERATIONS: usize = 1_000;
    let handles = handles(fixture).await;
    for _ in 0..OPERATIONS {
        accept(&*handles[0], new_operation()).await;
    }
    let total = Arc::new(AtomicUsize::new(0));
    let claimed = race((0..32).map(|worker| {
        let (store, total) = (handles[worker % 3].clone(), Arc::clone(&total));
        async move {
            let (mut mine, mut in_vain) = (Vec::new(), 0);
            // A worker may come away with nothing while others are at the same operations.
            while total.load(Ordering::SeqCst) < OPERATIONS && in_vain < 1_000 {
                let claimed = claim(&*store, 7, LONG).await;
                in_vain = if claimed.is_empty() { in_vain + 1 } else { 0 };
                total.fetch_add(claimed.len(), Ordering::SeqCst);
                mine.extend(claimed);
            }
            mine
        }
    }))
    .await
    .concat();
    let distinct: HashSet<OperationId> = claimed.iter().map(Operation::id).collect();
    assert_eq!((claimed.len(), distinct.len()), (OPERATIONS, OPERATIONS));
    assert!(claimed.iter().all(|operation| operation.attempt() == 1));
}

/// A lease that has passed is still its holder's until somebody takes it: the holder may renew it
/// and finish the work.
pub async fn c33_a_passed_lease_that_nobody_took_still_holds<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    accept(&*store, new_operation()).await;
    let held = claim_one(&*store, F::UNIT).await;
    fixture.advance(F::UNIT * 2).await;
    let renewed = store.apply(held.id(), Change::Renew { attempt: 1, lease: F::UNIT * 3 }).await;
    let renewed = renewed.expect("the holder may renew");
    assert_eq!(renewed.operation.lease_expires(), Some(renewed.now + F::UNIT * 3));
    assert_eq!(claim(&*other, 1, LONG).await, [], "a renewed lease is not to be claimed");
    fixture.advance(F::UNIT * 3).await;
    let ended = succeed(&*store, &held).await;
    assert_eq!(ended.status(), Status::Succeeded);
    assert_eq!(claim(&*other, 1, LONG).await, []);
}

/// Once another worker has taken the operation, the one before it is refused whatever it wants, and
/// nothing changes; not even if it writes over what it last saw.
pub async fn c34_a_stale_worker_is_refused<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let id = accept(&*store, new_operation()).await.operation.id();
    claim_one(&*store, F::UNIT).await;
    let seen = store.get(id).await.unwrap().expect("it is there");
    fixture.advance(F::UNIT).await;
    let taken = claim_one(&*other, LONG).await;
    assert_eq!((taken.id(), taken.attempt()), (id, 2));

    let late = Some(answer("stale"));
    for change in changes_by_worker(1) {
        let answer = store.apply_with(id, change.clone(), late.clone(), nothing).await;
        assert!(is_refused(&answer, TransitionError::LeaseLost), "{change:?} was {answer:?}");
        let Some(swap) = swap_of(&seen, &change) else { continue };
        match store.swap(swap.with_outcome(late.clone())).await.unwrap() {
            Swapped::Conflict(current) => assert_eq!(current.operation, taken),
            answer => panic!("{change:?} over what was seen was {answer:?}"),
        }
    }
    assert_eq!(whole(&*other, id).await, (Some(taken.clone()), None, None));
    succeed(&*other, &taken).await;
}

/// A worker that claims an operation again has a new attempt; what it still does under its old one
/// is refused. Who it is plays no part.
pub async fn c35_a_worker_is_known_by_its_attempt_only<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = accept(&store, new_operation()).await.operation.id();
    claim_one(&store, F::UNIT).await;
    let seen = store.get(id).await.unwrap().expect("it is there");
    fixture.advance(F::UNIT).await;
    let again = claim_one(&store, LONG).await;
    assert_eq!(again.attempt(), 2);
    assert_stale(&store, &seen).await;
    assert_eq!(found(&store, id).await, again);
    succeed(&store, &again).await;
}

/// Of a renewal and another worker's claim, after the lease has passed, one takes place.
pub async fn c36_renewal_and_claim_do_not_both_take_place<F: Fixture>(fixture: &F) {
    enum Racer {
        Renewed(Option<OperationId>),
        Claimed(Vec<Operation>),
    }
    let handles = handles(fixture).await;
    let mut held = Vec::new();
    for _ in 0..F::ROUNDS {
        held.push(accept(&*handles[0], new_running(F::UNIT)).await.operation.id());
    }
    fixture.advance(F::UNIT).await;
    let claimers = (0..4).map(|_| None);
    let answers =
        race(held.iter().copied().map(Some).chain(claimers).enumerate().map(|(number, id)| {
            let store = handles[number % 3].clone();
            async move {
                let Some(id) = id else {
                    // A few at a time, so that renewals come in between.
                    let mut claimed = Vec::new();
                    for _ in 0..10 {
                        claimed.extend(claim(&*store, F::ROUNDS.div_ceil(40), LONG).await);
                        tokio::task::yield_now().await;
                    }
                    return Racer::Claimed(claimed);
                };
                match store.apply(id, Change::Renew { attempt: 1, lease: LONG }).await {
                    Ok(_) => Racer::Renewed(Some(id)),
                    refused => {
                        assert!(is_refused(&refused, TransitionError::LeaseLost), "{refused:?}");
                        Racer::Renewed(None)
                    }
                }
            }
        }))
        .await;
    let winners: Vec<(OperationId, u32)> = answers
        .iter()
        .flat_map(|answer| match answer {
            Racer::Renewed(id) => id.iter().map(|id| (*id, 1)).collect::<Vec<_>>(),
            Racer::Claimed(operations) => {
                operations.iter().map(|operation| (operation.id(), operation.attempt())).collect()
            }
        })
        .collect();
    assert_eq!(winners.len(), held.len(), "one winner for each operation");
    for (id, attempt) in winners {
        assert_eq!(found(&*handles[1], id).await.attempt(), attempt);
    }
}

/// What its holder gives back can be claimed at once. The first time that does not count as an
/// attempt.
pub async fn c37_what_is_released_can_be_claimed_at_once<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let id = accept(&*store, new_operation().with_attempt_limit(2)).await.operation.id();
    let mut attempts_left = Vec::new();
    for attempt in 1..=3 {
        attempts_left.push(claim_one(&*other, LONG).await.attempts_left());
        if attempt < 3 {
            store.apply(id, Change::Release { attempt }).await.unwrap();
        }
    }
    assert_eq!(attempts_left, [1, 1, 0]);
    let last = store.apply(id, Change::Release { attempt: 3 }).await.unwrap().operation;
    assert_eq!(last.status(), Status::Failed, "no attempt is left");
    assert_eq!(claim(&*other, 1, LONG).await, []);

    // Nor was it one for whoever accepted it and held it, without another to be claimed for; it is found by
    // a claim of any kind, the first of its own.
    let kind = Kind::new("conformance.held").expect("it is a kind");
    let held = new_operation().with_kind(kind).with_attempt_limit(1).held(LONG, true);
    let id = accept(&*store, held).await.operation.id();
    store.apply(id, Change::Release { attempt: 1 }).await.unwrap();
    let taken = claim_one(&*other, LONG).await;
    assert_eq!((taken.id(), taken.attempt()), (id, 2));
}

/// A worker that was paused for longer than its lease, and goes on while its successor works, is
/// told so at its next call and records nothing.
pub async fn c38_a_worker_that_was_paused_is_told<F: Fixture>(fixture: &F) {
    const WORKERS: usize = 20;
    let handles = handles(fixture).await;
    for _ in 0..WORKERS {
        accept(&*handles[0], new_operation()).await;
    }
    let request = ClaimRequest::new(WORKERS, F::UNIT);
    let paused = handles[0].claim(&request).await.unwrap();
    fixture.advance(F::UNIT).await;
    let taken = claim(&*handles[1], WORKERS, LONG).await;
    assert_eq!((paused.len(), taken.len()), (WORKERS, WORKERS));

    let resumed = paused.into_iter().map(|observed| (observed.operation, "stale"));
    let successors = taken.into_iter().map(|operation| (operation, "successor"));
    race(resumed.chain(successors).enumerate().map(|(number, (operation, body))| {
        let store = handles[number % 3].clone();
        async move {
            let (id, attempt) = (operation.id(), operation.attempt());
            let progress = store.apply(id, reported(attempt, body)).await;
            let outcome = answer(body);
            let change = succeeded(attempt, &outcome);
            let end = store.apply_with(id, change, Some(outcome), nothing).await;
            if attempt == 2 {
                progress.expect("the successor reports");
                end.expect("the successor finishes");
                return;
            }
            for answer in [progress, end] {
                let is_told = is_refused(&answer, TransitionError::LeaseLost)
                    || is_refused(&answer, TransitionError::Finished);
                assert!(is_told, "{answer:?}");
            }
        }
    }))
    .await;
    let ended = handles[2].due(&crate::store::DueQuery::new(crate::operation::Due::Claim, 1)).await;
    assert_eq!(ended.unwrap(), []);
}
