//! Only the store's clock counts, and not even that has to be right.

use std::time::{Duration, Instant};

use super::Fixture;
use super::samples::{
    LONG, accept, assert_stale, claim, claim_one, found, handles, is_refused, listed,
    new_operation, new_running, owner, reported, succeed,
};
use crate::operation::{Change, Due, NewOperation, OperationId, Status, TransitionError};
use crate::store::{DueQuery, OperationStore, OperationStoreExt};
use crate::time::Timestamp;

/// The clocks of callers play no part: an id that was made a day early or a day late changes
/// neither when work is given out, nor when it is overdue, nor how long it stays.
pub async fn c40_a_callers_clock_decides_nothing<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let now = accept(&*store, new_operation()).await.now;
    let began = Instant::now();
    claim_one(&*store, LONG).await;
    let day = Duration::from_secs(24 * 60 * 60);
    let yesterday = now.as_unix_millis() - i64::try_from(day.as_millis()).unwrap();
    let wrong = [Timestamp::from_unix_millis(yesterday), now + day];
    let new = |at| {
        NewOperation::new(OperationId::generate(at).expect("random bytes"))
            .with_owner(owner("ada"))
            .with_retention(F::UNIT * 2)
    };
    let mut ids: [Vec<OperationId>; 5] = Default::default();
    for at in wrong {
        let news = [
            new(at),
            new(at).with_delay(F::UNIT * 2),
            new(at).held(F::UNIT * 2, true),
            new(at).held(LONG, true).with_deadline(F::UNIT * 2),
            new(at).held(LONG, true),
        ];
        for (new, ids) in news.into_iter().zip(&mut ids) {
            let accepted = accept(&*store, new.clone()).await;
            assert_eq!(accepted.operation, new.accept(accepted.now), "not by the store's clock");
            assert!(accepted.operation.created() >= now);
            assert!(accepted.operation.created() < now + began.elapsed() + F::UNIT);
            ids.push(accepted.operation.id());
        }
    }
    let [at_once, delayed, held, overdue, ended] = ids;
    let later = [delayed, held].concat();
    for id in &ended {
        succeed(&*other, &found(&*store, *id).await).await;
    }

    assert_eq!(claimed(&*other).await, sorted(&at_once));
    fixture.advance(F::UNIT).await;
    assert_eq!(claimed(&*other).await, [], "too early");
    assert_eq!(other.due(&DueQuery::new(Due::Settle, 10)).await.unwrap(), [], "too early");
    assert_eq!(store.purge(10).await.unwrap(), 0, "too early");
    for id in &ended {
        assert_eq!(found(&*other, *id).await.status(), Status::Succeeded);
    }
    fixture.advance(F::UNIT).await;
    assert_eq!(claimed(&*other).await, sorted(&later));
    let due = other.due(&DueQuery::new(Due::Settle, 10)).await.unwrap();
    let due: Vec<OperationId> = due.iter().map(|due| due.operation.id()).collect();
    assert_eq!(sorted(&due), sorted(&overdue));
    assert_eq!(store.purge(10).await.unwrap(), ended.len());
    for id in ended {
        assert_eq!(other.get(id).await.unwrap(), None);
    }
}

/// The ids of what can be claimed, sorted.
async fn claimed(store: &impl OperationStore) -> Vec<OperationId> {
    let claimed = claim(store, 100, LONG).await;
    sorted(&claimed.iter().map(crate::operation::Operation::id).collect::<Vec<_>>())
}

fn sorted(ids: &[OperationId]) -> Vec<OperationId> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}

/// The store's clock is put back: nothing is given out, overdue or expired early, the holder goes on
/// as before, and nothing waits for longer than its time and the jump together.
///
/// Where the clock cannot be put back the jump is nothing, and all of it holds for the time itself.
pub async fn c41_a_clock_that_is_put_back_makes_nothing_immortal<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let ada = owner("ada");
    let of_ada = |new: NewOperation| new.with_owner(ada.clone());
    let held = accept(&*store, of_ada(new_running(F::UNIT * 2))).await.operation.id();
    let renewed = accept(&*store, of_ada(new_running(F::UNIT * 2))).await.operation.id();
    let delayed = accept(&*store, of_ada(new_operation().with_delay(F::UNIT * 2))).await;
    let delayed = delayed.operation.id();
    let overdue = accept(&*store, new_running(LONG).with_deadline(F::UNIT * 2)).await;
    let overdue = overdue.operation.id();
    let new = of_ada(new_running(LONG).with_retention(F::UNIT * 2));
    let ended = succeed(&*store, &accept(&*store, new).await.operation).await;

    let jump = if fixture.turn_back(F::UNIT * 4).await { F::UNIT * 4 } else { Duration::ZERO };
    let change = Change::Renew { attempt: 1, lease: F::UNIT * 2 };
    store.apply(renewed, change).await.expect("the holder goes on");
    for is_later in [false, true] {
        if is_later {
            fixture.advance(F::UNIT).await;
        }
        assert_eq!(claim(&*other, 10, LONG).await, [], "too early");
        assert_eq!(other.due(&DueQuery::new(Due::Settle, 10)).await.unwrap(), [], "too early");
        assert_eq!(other.purge(10).await.unwrap(), 0, "too early");
        assert_eq!(found(&*other, ended.id()).await, ended);
    }
    let report = reported(1, "on");
    let before = found(&*store, held).await;
    let on = store.apply(held, report).await.expect("the holder goes on").operation;
    assert!(on.revision() > before.revision());

    fixture.advance(F::UNIT + jump).await;
    let mut expected = [held, renewed, delayed];
    expected.sort_unstable();
    assert_eq!(claimed(&*other).await, expected, "the time and the jump have passed");
    let due = other.due(&DueQuery::new(Due::Settle, 10)).await.unwrap();
    assert_eq!(due.iter().map(|due| due.operation.id()).collect::<Vec<_>>(), [overdue]);
    assert_eq!(other.get(ended.id()).await.unwrap(), None);
    assert_eq!(other.purge(10).await.unwrap(), 1);
    let stale = store.apply(held, Change::Renew { attempt: 1, lease: LONG }).await;
    assert!(is_refused(&stale, TransitionError::LeaseLost), "{stale:?}");
    assert_eq!(listed(&*other, &ada).await.len(), 3);
    assert_eq!(claim(&*other, 10, LONG).await, []);
}

/// The store's clock runs ahead, and may be put right again: what looks abandoned is given out, its
/// former holder changes nothing any more, and the new one keeps it and finishes.
pub async fn c42_a_clock_that_runs_ahead_breaks_no_fence<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let id = accept(&*store, new_running(F::UNIT * 2)).await.operation.id();
    let seen = store.get(id).await.unwrap().expect("it is there");
    fixture.advance(F::UNIT * 8).await;
    let taken = claim_one(&*other, F::UNIT * 2).await;
    assert_eq!((taken.id(), taken.attempt()), (id, 2));
    for is_right in [false, true] {
        if is_right && !fixture.turn_back(F::UNIT * 8).await {
            break;
        }
        assert_eq!(claim(&*store, 1, LONG).await, [], "it is held");
        assert_stale(&*store, &seen).await;
        assert_eq!(found(&*store, id).await, taken);
    }
    let ended = succeed(&*other, &taken).await;
    assert_eq!((ended.status(), ended.attempt()), (Status::Succeeded, 2));
    assert_eq!(found(&*store, id).await, ended);
}

/// What the store knows of its clock without asking ([`OperationStore::now`]) is never ahead of what
/// its answers then show, and not behind what they showed by more than a call takes.
pub async fn c39_the_time_that_is_known_is_never_ahead<F: Fixture>(fixture: &F) {
    let stores = handles(fixture).await;
    let id = accept(&*stores[0], new_operation()).await.operation.id();
    for round in 0..F::ROUNDS {
        let store = &stores[round % 3];
        let shown = store.get(id).await.unwrap().expect("it is there").now;
        let Some(known) = store.now() else { continue };
        assert!(known + F::UNIT > shown, "{known:?} is known when {shown:?} was shown");
        let shown = stores[(round + 1) % 3].get(id).await.unwrap().expect("it is there").now;
        assert!(known <= shown, "{known:?} is known before {shown:?} is shown");
        if round % 30 == 10 {
            fixture.advance(F::UNIT).await;
        }
    }
}
