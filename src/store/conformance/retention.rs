//! What is finished stays for its retention, then it is gone for good; what is live stays.

use std::time::Duration;

use super::Fixture;
use super::race::race;
use super::samples::{
    LONG, accept, accept_running, all_changes, answer, claim_one, created, found, handles, listed,
    new_operation, new_running, owner, succeed, swap_of, whole,
};
use crate::operation::{Change, Due, Kind, Status};
use crate::store::{ApplyError, DueQuery, OperationStore, OperationStoreExt, Submission, Swapped};

/// Until its retention has passed, a finished operation is there and not purged. From then on it is
/// absent from every answer, purged or not, and the purge takes it, once.
pub async fn c90_expired_is_absent<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let ada = owner("ada");
    let new = new_running(LONG).with_owner(ada.clone()).with_retention(F::UNIT * 2);
    let begun = created(store.accept(Submission::new(new).with_input("input")).await.unwrap());
    let id = begun.operation.id();
    let ended = succeed(&*store, &begun.operation).await;
    fixture.advance(F::UNIT).await;
    assert_eq!(store.purge(10).await.unwrap(), 0, "too early");
    assert_eq!(found(&*other, id).await, ended);
    assert_eq!(other.outcome(id).await.unwrap(), Some(answer("done")));
    assert_eq!(listed(&*other, &ada).await, [id]);
    fixture.advance(F::UNIT).await;

    for is_purged in [false, true] {
        if is_purged {
            let due = store.due(&DueQuery::new(Due::Expire, 10)).await.unwrap();
            assert_eq!(due.len(), 1);
            assert_eq!(store.purge(10).await.unwrap(), 1);
            assert_eq!(other.purge(10).await.unwrap(), 0, "it is purged once");
        }
        assert_eq!(whole(&*other, id).await, (None, None, None));
        assert_eq!(listed(&*other, &ada).await, []);
        assert_eq!(other.find(&ada, id).await.unwrap(), None);
        assert_eq!(other.remove(id, ended.version()).await.unwrap(), Swapped::Gone);
        let answer = other.apply(id, Change::Cancel).await;
        assert!(matches!(answer, Err(ApplyError::Gone)), "{answer:?}");
        let answer = other.forget(&ada, id).await;
        assert!(matches!(answer, Err(ApplyError::Gone)), "{answer:?}");
    }
    assert_eq!(store.due(&DueQuery::new(Due::Expire, 10)).await.unwrap(), []);
}

/// What is pending or running is never purged, at any age: not without retention, not with a lease
/// or a deadline that has passed.
pub async fn c91_live_operations_are_never_purged<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let mut live = Vec::new();
    for new in [
        new_operation(),
        new_operation().with_deadline(F::UNIT),
        new_operation().held(F::UNIT, false),
        new_running(F::UNIT),
        new_running(LONG).with_deadline(F::UNIT),
        new_running(F::UNIT).with_attempt_limit(1),
    ] {
        let new = new.with_retention(Duration::ZERO);
        live.push(accept(&store, new).await.operation);
    }
    for _ in 0..4 {
        fixture.advance(F::UNIT).await;
        assert_eq!(store.purge(100).await.unwrap(), 0);
        assert_eq!(store.due(&DueQuery::new(Due::Expire, 100)).await.unwrap(), []);
    }
    for operation in live {
        assert_eq!(found(&store, operation.id()).await, operation);
    }
}

/// Readers racing a removal see the operation whole or not at all, and what was gone once stays so.
/// Purges that race count each operation once.
pub async fn c92_an_operation_goes_as_a_whole<F: Fixture>(fixture: &F) {
    let handles = handles(fixture).await;
    for _ in 0..F::ROUNDS {
        let begun = accept_running(&*handles[0]).await.operation;
        let ended = succeed(&*handles[0], &begun).await;
        race((0..6).map(|runner| {
            let (store, ended) = (handles[runner % 3].clone(), ended.clone());
            async move {
                if runner == 0 {
                    let removed = store.remove(ended.id(), ended.version()).await.unwrap();
                    assert_eq!(removed, Swapped::Swapped);
                    return;
                }
                let before = store.get(ended.id()).await.unwrap();
                let outcome = store.outcome(ended.id()).await.unwrap();
                let after = store.get(ended.id()).await.unwrap();
                for read in [&before, &after].into_iter().flatten() {
                    assert_eq!(read.operation, ended);
                }
                match (before, outcome, after) {
                    (_, Some(outcome), _) => assert_eq!(outcome, answer("done")),
                    (_, None, after) => assert_eq!(after, None, "it is there without its outcome"),
                }
            }
        }))
        .await;
    }

    for _ in 0..F::ROUNDS {
        let new = new_running(LONG).with_retention(Duration::ZERO);
        let begun = accept(&*handles[0], new).await.operation;
        succeed(&*handles[0], &begun).await;
    }
    let purged = race((0..6).map(|runner| {
        let store = handles[runner % 3].clone();
        async move {
            let mut purged = 0;
            loop {
                let count = store.purge(7).await.unwrap();
                assert!(count <= 7, "purged {count} of at most 7");
                purged += count;
                assert!(purged <= F::ROUNDS, "purged what is not there");
                if count == 0 {
                    return purged;
                }
            }
        }
    }))
    .await;
    assert_eq!(purged.iter().sum::<usize>(), F::ROUNDS);
}

/// A worker that comes back after the purge is told that its operation is gone, and does not bring
/// it back; so is one that comes after the removal.
pub async fn c93_what_is_gone_does_not_come_back<F: Fixture>(fixture: &F) {
    let [store, worker, _] = handles(fixture).await;
    let ada = owner("ada");
    for is_removed in [true, false] {
        let new = new_running(LONG).with_owner(ada.clone()).with_retention(F::UNIT);
        let seen = accept(&*store, new).await;
        let id = seen.operation.id();
        let ended = succeed(&*store, &seen.operation).await;
        if is_removed {
            assert_eq!(store.remove(id, ended.version()).await.unwrap(), Swapped::Swapped);
        } else {
            fixture.advance(F::UNIT).await;
            assert_eq!(store.purge(10).await.unwrap(), 1);
        }
        for change in all_changes(1) {
            let answer = worker.apply(id, change.clone()).await;
            assert!(matches!(answer, Err(ApplyError::Gone)), "{change:?} was {answer:?}");
            let Some(swap) = swap_of(&seen, &change) else { continue };
            let swap = swap.with_outcome(Some(answer_of_the_late()));
            assert_eq!(worker.swap(swap).await.unwrap(), Swapped::Gone, "{change:?}");
        }
        assert_eq!(whole(&*store, id).await, (None, None, None));
        assert_eq!(listed(&*store, &ada).await, []);
        for due in Due::ALL {
            assert_eq!(store.due(&DueQuery::new(due, 10)).await.unwrap(), []);
        }
    }
}

fn answer_of_the_late() -> crate::operation::Outcome {
    answer("late")
}

/// What its owner forgets is gone with all that belongs to it. A live operation is not forgotten.
pub async fn c89_what_is_forgotten_is_gone<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let ada = owner("ada");
    let new = new_operation().with_owner(ada.clone());
    let id = created(store.accept(Submission::new(new).with_input("input")).await.unwrap())
        .operation
        .id();
    let pending = store.forget(&ada, id).await;
    assert!(matches!(pending, Err(ApplyError::NotFinished)), "{pending:?}");
    let claimed = claim_one(&*store, LONG).await;
    let running = store.forget(&ada, id).await;
    assert!(matches!(running, Err(ApplyError::NotFinished)), "{running:?}");
    assert_eq!(found(&*other, id).await, claimed);

    let ended = succeed(&*store, &claimed).await;
    assert_eq!(ended.status(), Status::Succeeded);
    store.forget(&ada, id).await.expect("it is finished");
    assert_eq!(whole(&*other, id).await, (None, None, None));
    assert_eq!(listed(&*other, &ada).await, []);
    let again = store.forget(&ada, id).await;
    assert!(matches!(again, Err(ApplyError::Gone)), "{again:?}");
}

/// A purge takes what expired first, whatever kind it is of.
pub async fn c57_the_longest_expired_is_purged_first<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let mut ended = Vec::new();
    for kind in ["b", "a", "c", "a"] {
        let new = new_running(LONG).with_kind(Kind::new(kind).unwrap());
        let new = new.with_retention(F::UNIT * 8);
        ended.push(succeed(&store, &accept(&store, new).await.operation).await.id());
        fixture.advance(F::UNIT).await;
    }
    fixture.advance(F::UNIT * 8).await;
    while !ended.is_empty() {
        let due = store.due(&DueQuery::new(Due::Expire, 10)).await.unwrap();
        assert_eq!(due.iter().map(|due| due.operation.id()).collect::<Vec<_>>(), ended);
        assert_eq!(store.purge(1).await.unwrap(), 1);
        ended.remove(0);
    }
}
