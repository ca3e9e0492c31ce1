//! What clients see moves forward, and the revision says when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Fixture;
use super::race::{race, race_two};
use super::samples::{
    LONG, accept, accept_running, answer, claim_one, found, handles, is_refused, new_operation,
    nothing, reported, retried, succeeded,
};
use crate::operation::{Change, Operation, TransitionError};
use crate::store::OperationStoreExt;

/// Progress is read in the order in which it was reported: no reader sees a revision, or what was
/// reported with it, fall.
pub async fn c60_readers_never_see_progress_fall<F: Fixture>(fixture: &F) {
    let handles = handles(fixture).await;
    let id = accept_running(&*handles[0]).await.operation.id();
    let is_over = Arc::new(AtomicBool::new(false));
    race((0..7).map(|runner| {
        let (store, is_over) = (handles[runner % 3].clone(), Arc::clone(&is_over));
        async move {
            if runner == 0 {
                let mut before = 0;
                for step in 0..F::ROUNDS {
                    let change = reported(1, &format!("{step:09}"));
                    let after = store.apply(id, change).await.unwrap().operation.revision();
                    assert!(after > before, "revision {after} after {before}");
                    before = after;
                    // Leaves every reader the time to read between any two steps.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                is_over.store(true, Ordering::SeqCst);
                return;
            }
            let mut before = (0, None);
            while !is_over.load(Ordering::SeqCst) {
                let operation = found(&*store, id).await;
                let message = operation.progress().and_then(|progress| progress.message());
                let read = (operation.revision(), message.map(str::to_owned));
                assert!(read >= before, "{read:?} was read after {before:?}");
                before = read;
                tokio::task::yield_now().await;
            }
        }
    }))
    .await;
}

/// Progress racing the end: the end stands, and progress after it is refused.
pub async fn c61_progress_does_not_undo_an_end<F: Fixture>(fixture: &F) {
    let [store, other, reader] = handles(fixture).await;
    for _ in 0..F::ROUNDS {
        let id = accept_running(&*store).await.operation.id();
        let (store, other) = (store.clone(), other.clone());
        let outcome = answer("done");
        let change = succeeded(1, &outcome);
        let (progress, ended) =
            race_two(async move { store.apply(id, reported(1, "half")).await }, async move {
                other.apply_with(id, change, Some(outcome), nothing).await
            })
            .await;
        let ended = ended.expect("the holder may finish").operation;
        match progress {
            Ok(report) => assert!(report.operation.revision() < ended.revision()),
            refused => assert!(is_refused(&refused, TransitionError::Finished), "{refused:?}"),
        }
        let late = reader.apply(id, reported(1, "late")).await;
        assert!(is_refused(&late, TransitionError::Finished), "{late:?}");
        assert_eq!(found(&*reader, id).await, ended);
    }
}

/// Progress of an earlier attempt is refused, and what it had reported is gone with it.
pub async fn c62_progress_of_an_earlier_attempt_is_refused<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let id = accept(&*store, new_operation()).await.operation.id();
    claim_one(&*store, LONG).await;
    store.apply(id, reported(1, "of the first")).await.unwrap();
    store.apply(id, retried(1, Duration::ZERO)).await.unwrap();
    let between = store.apply(id, reported(1, "between")).await;
    assert!(is_refused(&between, TransitionError::LeaseLost), "{between:?}");

    assert_eq!(claim_one(&*other, LONG).await.progress(), None);
    let stale = store.apply(id, reported(1, "stale")).await;
    assert!(is_refused(&stale, TransitionError::LeaseLost), "{stale:?}");
    let current = other.apply(id, reported(2, "of the second")).await.unwrap().operation;
    assert_eq!(found(&*store, id).await, current);
}

/// Of any two readings of an operation, those of one revision look the same to a client, and the
/// later has no smaller revision. So the revision can be the entity tag.
///
/// The store's part of it is to give each revision back with what it came with; the rules see to
/// the rest. A renewed lease makes a new version and no new revision.
pub async fn c63_one_revision_looks_one_way<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let id = accept(&*store, new_operation().with_attempt_limit(100)).await.operation.id();
    let mut readings = vec![found(&*other, id).await];
    for round in 0..20 {
        let attempt = claim_one(&*store, LONG).await.attempt();
        readings.push(found(&*other, id).await);
        let mut changes = vec![
            Change::Renew { attempt, lease: LONG },
            reported(attempt, &round.to_string()),
            reported(attempt, "the same again"),
            reported(attempt, "the same again"),
            Change::Renew { attempt, lease: LONG * 2 },
        ];
        if round == 19 {
            changes.push(Change::Cancel);
            changes.push(Change::Cancel);
            changes.push(Change::ConfirmCancel { attempt });
        } else {
            changes.push(retried(attempt, Duration::ZERO));
        }
        for change in changes {
            let before = readings.last().expect("there is a first").clone();
            let after = store.apply(id, change.clone()).await.unwrap().operation;
            if matches!(change, Change::Renew { .. }) {
                assert!(after.version() > before.version());
                assert_eq!(after.revision(), before.revision());
            }
            readings.push(found(&*other, id).await);
        }
    }
    assert!(readings.is_sorted_by_key(Operation::revision));
    for one in &readings {
        for another in &readings {
            if one.revision() == another.revision() {
                assert_eq!(visible(one), visible(another), "revision {}", one.revision());
            }
        }
    }
}

/// All that a client may be shown of an operation, as text.
fn visible(operation: &Operation) -> String {
    format!(
        "{:?}",
        (
            (operation.id(), operation.kind(), operation.status(), operation.attempt()),
            (operation.progress(), operation.is_cancel_requested()),
            (operation.created(), operation.updated(), operation.started()),
            (operation.finished(), operation.expires(), operation.deadline()),
            (operation.outcome_head(), operation.error()),
        )
    )
}
