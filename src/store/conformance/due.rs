//! What the passing of time makes due, by the store's clock: nothing early, and nothing stuck.

use std::time::Duration;

use super::Fixture;
use super::crash::after_kill;
use super::samples::{
    LONG, accept, answer, claim, claim_one, found, handles, is_refused, new_id, new_operation,
    new_running, retried, succeeded,
};
use crate::operation::{Change, Due, Kind, NewOperation, OperationId, Status, TransitionError};
use crate::problem::types;
use crate::store::{ClaimRequest, DueQuery, Observed, OperationStore, OperationStoreExt};

async fn due(store: &impl OperationStore, due: Due) -> Vec<OperationId> {
    let found = store.due(&DueQuery::new(due, 100)).await.unwrap();
    assert!(found.iter().all(|observed| observed.operation.is_due(due, observed.now)));
    let in_order = found
        .is_sorted_by_key(|Observed { operation, .. }| (operation.due_at(due), operation.id()));
    assert!(in_order, "the longest due comes first, and then the smaller id: {found:?}");
    found.into_iter().map(|observed| observed.operation.id()).collect()
}

/// Work that is to wait, from the beginning or before its next attempt, is not given out before its
/// time, and is given out then.
pub async fn c43_delayed_work_is_given_out_in_time<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let id = accept(&*store, new_operation().with_delay(F::UNIT * 2)).await.operation.id();
    fixture.advance(F::UNIT).await;
    assert_eq!(claim(&*other, 1, LONG).await, [], "too early for the first attempt");
    fixture.advance(F::UNIT).await;
    assert_eq!(claim_one(&*other, LONG).await.attempt(), 1);

    other.apply(id, retried(1, F::UNIT * 2)).await.unwrap();
    fixture.advance(F::UNIT).await;
    assert_eq!(claim(&*store, 1, LONG).await, [], "too early for the second attempt");
    assert_eq!(due(&*store, Due::Claim).await, []);
    fixture.advance(F::UNIT).await;
    assert_eq!(due(&*store, Due::Claim).await, [id]);
    assert_eq!(claim_one(&*store, LONG).await.attempt(), 2);
}

/// Whose deadline has passed is due to be settled, pending or running, and fails; success comes too
/// late, and nobody claims it.
pub async fn c44_a_passed_deadline_ends_the_work<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let deadline = F::UNIT * 2;
    let pending = new_operation().with_deadline(deadline);
    let running = new_running(LONG).with_deadline(deadline);
    let ids = [
        accept(&*store, pending).await.operation.id(),
        accept(&*store, running).await.operation.id(),
    ];
    fixture.advance(F::UNIT).await;
    assert_eq!(due(&*other, Due::Settle).await, [], "too early");
    fixture.advance(F::UNIT).await;

    assert_eq!(due(&*other, Due::Claim).await, [], "the deadline has passed");
    assert_eq!(claim(&*other, 2, LONG).await, [], "the deadline has passed");
    let behind = accept(&*store, new_operation()).await.operation.id();
    let claimed = claim(&*other, 1, LONG).await;
    assert_eq!(claimed.len(), 1, "what is overdue stands in the way");
    assert_eq!(claimed[0].id(), behind);
    let late = store.apply(ids[1], succeeded(1, &answer("late"))).await;
    assert!(is_refused(&late, TransitionError::DeadlinePassed), "{late:?}");
    let mut settled = due(&*other, Due::Settle).await;
    settled.sort_unstable();
    let mut expected = ids;
    expected.sort_unstable();
    assert_eq!(settled, expected);
    for id in ids {
        let ended = other.apply(id, Change::Settle).await.unwrap().operation;
        assert!(ended.error().is_some_and(|error| error.is(types::DEADLINE_PASSED)));
        assert_eq!(found(&*store, id).await, ended);
    }
    assert_eq!(due(&*other, Due::Settle).await, []);
}

/// Work whose worker vanished can be claimed as soon as the lease has passed, and not before.
/// So can work that a process had kept in its own queue.
pub async fn c45_work_of_a_vanished_worker_is_given_out_again<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    for new in [new_operation().held(F::UNIT * 2, false), new_running(F::UNIT * 2)] {
        let id = accept(&*store, new).await.operation.id();
        fixture.advance(F::UNIT).await;
        assert_eq!(claim(&*other, 1, LONG).await, [], "the lease has not passed");
        fixture.advance(F::UNIT).await;
        let claimed = claim_one(&*other, LONG).await;
        assert_eq!((claimed.id(), claimed.attempt()), (id, 2));
    }
}

/// Work whose attempts are used up, each by a worker that vanished, is not given out again but due
/// to be settled, and fails.
pub async fn c50_used_up_attempts_end_the_work<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let id = accept(&*store, new_operation().with_attempt_limit(3)).await.operation.id();
    for attempt in 1..=3 {
        assert_eq!(claim_one(&*store, F::UNIT).await.attempt(), attempt);
        assert_eq!(due(&*other, Due::Settle).await, [], "attempt {attempt} goes on");
        fixture.advance(F::UNIT).await;
    }
    assert_eq!(claim(&*other, 1, LONG).await, [], "never a fourth attempt");
    assert_eq!(due(&*other, Due::Settle).await, [id]);
    let ended = other.apply(id, Change::Settle).await.unwrap().operation;
    assert!(ended.error().is_some_and(|error| error.is(types::ATTEMPTS_EXHAUSTED)));
    assert_eq!(found(&*store, id).await, ended);
    assert_eq!(due(&*other, Due::Settle).await, []);
}

/// An attempt counts from its claim on: if all processes die before its worker has said anything
/// more, it is used up. Its lease is what it was.
pub async fn c52_a_claim_is_counted_before_a_crash<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let only_once = accept(&*store, new_operation().with_attempt_limit(1)).await.operation.id();
    let claimed = claim_one(&*other, F::UNIT).await;
    let twice = accept(&*store, new_operation().with_attempt_limit(2)).await.operation.id();
    let also_claimed = claim_one(&*other, F::UNIT).await;

    let ([store, other, _], survives) = after_kill(fixture).await;
    if !survives {
        for id in [only_once, twice] {
            assert_eq!(store.get(id).await.unwrap(), None);
        }
        assert_eq!(claim(&*store, 10, LONG).await, []);
        return;
    }
    assert_eq!(found(&*store, only_once).await, claimed);
    assert_eq!(found(&*store, twice).await, also_claimed);
    let mut early = claim(&*other, 10, LONG).await;
    let next = if early.is_empty() {
        fixture.advance(F::UNIT).await;
        claim_one(&*other, LONG).await
    } else {
        early.remove(0)
    };
    // To kill the processes may have taken longer than that.
    assert!(Some(next.updated()) >= also_claimed.lease_expires(), "the leases have not passed");
    assert_eq!(early, [], "no more than one has an attempt left");
    assert_eq!((next.id(), next.attempt(), next.attempts_left()), (twice, 2, 0));
    assert_eq!(claim(&*store, 10, LONG).await, [], "no attempt is left");
    assert_eq!(due(&*store, Due::Settle).await, [only_once]);
    let ended = other.apply(only_once, Change::Settle).await.unwrap().operation;
    assert!(ended.error().is_some_and(|error| error.is(types::INTERRUPTED)));
}

/// Whoever asks for some kinds of work gets no other, and one that asks for none by name gets all.
pub async fn c55_work_is_given_out_by_kind<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let kinds = ["a_b", "a-b", "a.b", "A_B", "a_b_"].map(|kind| Kind::new(kind).unwrap());
    for kind in kinds.iter().cycle().take(15) {
        accept(&store, new_operation().with_kind(kind.clone())).await;
    }
    let [wanted, also_wanted, ..] = &kinds;
    let mut query = DueQuery::new(Due::Claim, 100);
    query.kinds = Some(vec![wanted.clone(), also_wanted.clone()]);
    assert_eq!(store.due(&query).await.unwrap().len(), 6);
    query.kinds = Some(Vec::new());
    assert_eq!(store.due(&query).await.unwrap(), [], "no kind at all");

    let request = ClaimRequest::new(100, LONG).with_kinds(vec![wanted.clone()]);
    let claimed = store.claim(&request).await.unwrap();
    assert_eq!(claimed.len(), 3);
    assert!(claimed.iter().all(|observed| observed.operation.kind() == wanted));
    assert_eq!(store.claim(&request).await.unwrap(), []);
    assert_eq!(claim(&store, 100, LONG).await.len(), 12, "all that is left");
}

/// What is due is found longest due first, of what became due at the same time the smaller id, and no
/// more of it than was asked for.
pub async fn c56_the_longest_due_comes_first<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let (mut delayed, mut accepted) = (Vec::new(), Vec::new());
    for units in [3, 1, 4, 2, 5] {
        let new = new_operation().with_delay(F::UNIT * units);
        delayed.push((units, accept(&store, new).await.operation.id()));
        let new = new_operation().with_deadline(F::UNIT * units).with_retention(Duration::ZERO);
        accepted.push((units, accept(&store, new).await.operation.id()));
    }
    fixture.advance(F::UNIT * 5).await;
    let [claimable, in_order] = [delayed, accepted].map(|mut ids| {
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect::<Vec<OperationId>>()
    });
    assert_eq!(due(&store, Due::Claim).await, claimable);
    for id in claimable {
        store.apply(id, Change::Cancel).await.unwrap();
    }
    assert_eq!(due(&store, Due::Settle).await, in_order);
    for limit in [0, 1, 3] {
        let some = store.due(&DueQuery::new(Due::Settle, limit)).await.unwrap();
        let some: Vec<OperationId> = some.iter().map(|observed| observed.operation.id()).collect();
        assert_eq!(some, in_order[..limit]);
    }

    for id in &in_order {
        let ended = store.apply(*id, Change::Settle).await.unwrap().operation;
        assert_eq!(ended.status(), Status::Failed);
    }
    assert_eq!(due(&store, Due::Claim).await, []);
    let mut expired = due(&store, Due::Expire).await;
    expired.sort_unstable();
    let mut all = in_order;
    all.sort_unstable();
    assert_eq!(expired, all);

    // Larger ids come first, and two kinds. By a clock that stands still they become due at once.
    let mut ids: Vec<OperationId> = (0..8).map(|_| new_id()).collect();
    ids.sort_unstable();
    for (number, id) in ids.iter().enumerate().rev() {
        let kind = Kind::new(if number % 2 == 0 { "even" } else { "odd" }).unwrap();
        accept(&store, NewOperation::new(*id).with_kind(kind).with_deadline(F::UNIT)).await;
    }
    assert_eq!(due(&store, Due::Claim).await.len(), ids.len());
    let claimed = store.due(&DueQuery::new(Due::Claim, 3)).await.unwrap();
    let all_due = store.due(&DueQuery::new(Due::Claim, 100)).await.unwrap();
    let ids = |due: &[Observed]| due.iter().map(|due| due.operation.id()).collect::<Vec<_>>();
    assert_eq!(ids(&claimed), ids(&all_due)[..3]);
    fixture.advance(F::UNIT).await;
    assert_eq!(due(&store, Due::Settle).await.len(), all_due.len());
}
