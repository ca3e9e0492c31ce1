//! Each operation is one register with compare-and-swap, through any number of handles.

use super::Fixture;
use super::race::race;
use super::samples::{
    accept_running, answer, changes_by_worker, found, handles, new_id, reported, succeeded,
    swap_of, whole,
};
use crate::store::{OperationStore, Swapped};

/// 16 tasks that add 50 changes each lose none of them.
pub async fn c10_no_update_is_lost<F: Fixture>(fixture: &F) {
    const TASKS: usize = 16;
    const CHANGES: usize = 50;
    let handles = handles(fixture).await;
    let begun = accept_running(&*handles[0]).await;
    race((0..TASKS).map(|task| {
        let (store, mut seen) = (handles[task % 3].clone(), begun.clone());
        async move {
            for change in 0..CHANGES {
                // Somebody gets on whenever a swap fails, so this ends.
                loop {
                    let change = reported(1, &format!("{task}.{change}"));
                    let swap = swap_of(&seen, &change).expect("it still runs");
                    let next = swap.next.clone();
                    match store.swap(swap).await.unwrap() {
                        Swapped::Swapped => {
                            seen.operation = next;
                            break;
                        }
                        Swapped::Conflict(current) => seen = current,
                        Swapped::Gone => panic!("it is still there"),
                    }
                }
            }
        }
    }))
    .await;
    let last = found(&*handles[1], begun.operation.id()).await;
    let changes = u64::try_from(TASKS * CHANGES).unwrap();
    assert_eq!(last.version(), begun.operation.version() + changes);
    assert_eq!(last.revision(), begun.operation.revision() + changes);
}

/// A write over a version that is not the present one is refused and gets the operation as it is;
/// so is a removal. What is not there is gone.
pub async fn c13_a_write_over_another_version_is_a_conflict<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let first = accept_running(&*store).await;
    let id = first.operation.id();
    let swap = swap_of(&first, &reported(1, "one")).unwrap().with_write_id(11);
    assert_eq!(store.swap(swap).await.unwrap(), Swapped::Swapped);
    let second = store.get(id).await.unwrap().expect("it is there");
    assert_eq!(second.write_id, 11);

    for expected in [0, first.operation.version(), second.operation.version() + 1, u64::MAX] {
        for change in changes_by_worker(1) {
            let Some(mut swap) = swap_of(&second, &change) else { continue };
            swap.expected = expected;
            let swap = swap.with_write_id(22).with_outcome(Some(answer("wrong")));
            match other.swap(swap).await.unwrap() {
                Swapped::Conflict(current) => {
                    assert_eq!(current.operation, second.operation);
                    assert_eq!(current.write_id, 11);
                }
                answer => panic!("{change:?} over version {expected} was {answer:?}"),
            }
        }
        let removal = other.remove(id, expected).await.unwrap();
        assert!(matches!(removal, Swapped::Conflict(_)), "removed version {expected}");
    }
    assert_eq!(whole(&*store, id).await, (Some(second.operation), None, None));

    let unknown = new_id();
    let mut nowhere = accept_running(&*store).await;
    assert_eq!(
        store.remove(nowhere.operation.id(), nowhere.operation.version()).await.unwrap(),
        Swapped::Swapped
    );
    nowhere.now = second.now;
    let swap = swap_of(&nowhere, &reported(1, "late")).unwrap();
    assert_eq!(store.swap(swap).await.unwrap(), Swapped::Gone);
    assert_eq!(store.remove(unknown, 1).await.unwrap(), Swapped::Gone);
}

/// Whoever knows that a write took place reads it, through whichever handle.
pub async fn c14_a_write_is_seen_through_every_handle<F: Fixture>(fixture: &F) {
    let handles = handles(fixture).await;
    let mut seen = accept_running(&*handles[0]).await;
    let id = seen.operation.id();
    for round in 0..F::ROUNDS {
        let swap = swap_of(&seen, &reported(1, &round.to_string())).unwrap();
        let write_id = u64::try_from(round).unwrap() + 1;
        let next = swap.next.clone();
        let answer = handles[round % 3].swap(swap.with_write_id(write_id)).await.unwrap();
        assert_eq!(answer, Swapped::Swapped);
        for store in &handles {
            let read = store.get(id).await.unwrap().expect("it is there");
            assert_eq!((&read.operation, read.write_id), (&next, write_id));
            assert!(read.now >= seen.now, "the store's clock goes forward");
            seen = read;
        }
    }
    let outcome = answer("done");
    let swap = swap_of(&seen, &succeeded(1, &outcome)).unwrap().with_outcome(Some(outcome.clone()));
    let next = swap.next.clone();
    assert_eq!(handles[0].swap(swap).await.unwrap(), Swapped::Swapped);
    for store in &handles {
        assert_eq!(found(&**store, id).await, next);
        assert_eq!(store.outcome(id).await.unwrap(), Some(outcome.clone()));
    }
}

/// Of several writes over the same version one takes place, and the others are told of it.
pub async fn c15_one_of_several_writes_over_a_version_wins<F: Fixture>(fixture: &F) {
    let handles = handles(fixture).await;
    let mut seen = accept_running(&*handles[0]).await;
    for round in 0..F::ROUNDS {
        let answers = race((0..3).map(|task| {
            let store = handles[task].clone();
            let swap = swap_of(&seen, &reported(1, &format!("{round}.{task}"))).unwrap();
            let next = swap.next.clone();
            async move { (store.swap(swap).await.unwrap(), next) }
        }))
        .await;
        let (won, lost): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(answer, _)| *answer == Swapped::Swapped);
        assert_eq!(won.len(), 1, "writes that took place over one version");
        for (answer, _) in lost {
            match answer {
                Swapped::Conflict(current) => assert_eq!(current.operation, won[0].1),
                other => panic!("expected a conflict, not {other:?}"),
            }
        }
        seen = handles[0].get(seen.operation.id()).await.unwrap().expect("it is there");
        assert_eq!(seen.operation, won[0].1);
    }
}
