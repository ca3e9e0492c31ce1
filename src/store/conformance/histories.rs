//! What many tasks did to one operation has an order, also if answers got lost; and who lost an
//! answer finds out.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::iter::from_fn;
use std::sync::Arc;

use super::Fixture;
use super::lossy::{Dice, Fate, Lossy, cut};
use super::race::race;
use super::recorder::{Record, Recorder};
use super::samples::{
    LONG, accept, accept_running, answer, failed, found, handles, is_refused, new_running, nothing,
    reported, retried, succeed, succeeded, swap_of, whole,
};
use crate::operation::{Change, Kind, Status, TransitionError};
use crate::store::{
    ApplyError, ClaimRequest, Observed, OperationStore, OperationStoreExt, StoreError,
    StoreErrorKind, Swapped,
};

/// Whatever 8 tasks read, write, claim and change through 3 handles has an order that explains
/// every answer: the register is linearizable.
pub async fn c11_reads_and_writes_have_one_order<F: Fixture>(fixture: &F) {
    for round in 0..F::ROUNDS.div_ceil(10) {
        let (answered, lost) = record_and_check(fixture, round, false).await;
        assert_eq!(lost, 0, "calls without an answer");
        assert!(answered > 0);
    }
}

/// The same over lines that lose a third of the calls or of their answers, and with callers that
/// hang up in the middle of a call: each such write took place whole or not at all, and its write
/// id tells which.
pub async fn c12_a_write_without_an_answer_took_place_or_did_not<F: Fixture>(fixture: &F) {
    let (mut answered, mut lost) = (0, 0);
    for round in 0..F::ROUNDS.div_ceil(10) {
        let count = record_and_check(fixture, round, true).await;
        answered += count.0;
        lost += count.1;
    }
    assert!(lost > 0, "no answer was lost");
    assert!(answered * 4 > lost, "{lost} answers of {} were lost", answered + lost);
}

/// Records what 8 tasks do; gives how many calls were answered and how many were not.
async fn record_and_check<F: Fixture>(fixture: &F, round: usize, is_lossy: bool) -> (usize, usize) {
    let named = std::env::var("RA_SEED").ok();
    let named = named.map(|seed| seed.parse().expect("RA_SEED is a number"));
    let seed: u64 = named.unwrap_or_else(|| RandomState::new().hash_one(0));
    let handles = handles(fixture).await;
    // A claim that was cut off may take place in the next round, and finds nothing of its kind there.
    let kind = Kind::new(format!("round-{round}")).unwrap();
    let request = ClaimRequest::new(1, LONG).with_kinds(vec![kind.clone()]);
    let new = new_running(LONG).with_attempt_limit(10_000).with_kind(kind);
    let begun = accept(&*handles[0], new).await;
    let id = begun.operation.id();
    let record = Arc::new(Record::default());
    race((0..8_u64).map(|task| {
        let store = &handles[usize::try_from(task % 3).unwrap()];
        let mut dice = Dice::new(seed ^ task);
        let mut fates = Dice::new(!seed ^ task);
        let fates = from_fn(move || {
            Some(match fates.roll(6) {
                0 if is_lossy => Fate::AnswerLost,
                1 if is_lossy => Fate::NotMade,
                _ => Fate::Answered,
            })
        });
        let store = Recorder::new(Lossy::new(store, fates), id, &record);
        let (mut known, request) = (begun.clone(), request.clone());
        async move {
            for step in 0..40 {
                // Where a call is cut off: often never.
                let polls = match dice.roll(12) {
                    few @ 0..4 if is_lossy => usize::try_from(few).unwrap(),
                    _ => usize::MAX,
                };
                let which = dice.roll(8);
                let write_id = task * 1_000 + step + 1;
                let call = call(&store, &request, known.clone(), which, write_id);
                known = cut(polls, call).await.flatten().unwrap_or(known);
            }
        }
    }))
    .await;
    if let Err(reason) = record.check(&begun) {
        panic!("RA_SEED={seed}: {reason}");
    }
    record.len()
}

/// One call of a task; gives what the task knows of the operation after it, if it learnt anything.
async fn call(
    store: &impl OperationStore,
    request: &ClaimRequest,
    seen: Observed,
    which: u64,
    write_id: u64,
) -> Option<Observed> {
    let id = seen.operation.id();
    let attempt = seen.operation.attempt();
    let report = reported(attempt, &write_id.to_string());
    let direct = match which {
        0..=2 => swap_of(&seen, &report),
        3 => swap_of(&seen, &retried(attempt, std::time::Duration::ZERO)),
        4 => {
            let claimed = store.claim(request).await;
            return lossy(claimed)?.pop();
        }
        5 => {
            return match store.apply(id, report).await {
                Ok(written) => Some(written),
                Err(ApplyError::Refused(_, current)) => Some(current),
                Err(error) => is_unknown(&error),
            };
        }
        6 => {
            // As whoever holds it does, by what it knows.
            return match store.apply_to(seen, report, None, nothing).await {
                Ok(written) => Some(written),
                Err(ApplyError::Refused(_, current)) => Some(current),
                Err(error) => is_unknown(&error),
            };
        }
        _ => None,
    };
    let Some(swap) = direct else {
        return Some(store.get(id).await.unwrap().expect("it is still there"));
    };
    let swap = swap.with_write_id(write_id);
    let written = Observed { operation: swap.next.clone(), now: seen.now, write_id };
    match lossy(store.swap(swap).await)? {
        Swapped::Swapped => Some(written),
        Swapped::Conflict(current) => Some(current),
        Swapped::Gone => panic!("it is still there"),
    }
}

/// What is known after a change of which nothing could be found out. Nothing else goes wrong.
fn is_unknown(error: &ApplyError) -> Option<Observed> {
    let is_lost = |error: &StoreError| error.kind() == StoreErrorKind::Ambiguous;
    match error {
        ApplyError::Contended => None,
        ApplyError::Store(error) if is_lost(error) => None,
        error => panic!("{error:?}"),
    }
}

/// The answer, if it was not lost. Nothing else goes wrong.
fn lossy<T>(answer: Result<T, StoreError>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(error) => {
            assert_eq!(error.kind(), StoreErrorKind::Ambiguous, "{error:?}");
            None
        }
    }
}

/// A change whose answer got lost is found to have taken place by its write id, and is not made a
/// second time; one that did not arrive is made. If somebody has gone on from it meanwhile, the
/// attempt keeps it from being made twice.
pub async fn c16_a_change_without_an_answer_is_made_once<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let done = answer("done");
    let changes = [
        (Change::Renew { attempt: 1, lease: LONG * 2 }, None),
        (reported(1, "half"), None),
        (succeeded(1, &done), Some(done)),
        (failed(1), Some(answer("failed"))),
        (retried(1, LONG), None),
        (Change::Release { attempt: 1 }, None),
        (Change::Cancel, None),
    ];
    for (change, outcome) in changes {
        for fates in [
            vec![Fate::AnswerLost],
            vec![Fate::NotMade],
            vec![Fate::NotMade, Fate::NotMade, Fate::AnswerLost],
        ] {
            let before = accept_running(&*store).await.operation;
            let id = before.id();
            let line = Lossy::new(&store, fates.clone());
            let made = line.apply_with(id, change.clone(), outcome.clone(), nothing).await;
            let made = made.unwrap_or_else(|error| panic!("{change:?}, {fates:?}: {error:?}"));
            let expected = before.apply(&change, made.operation.updated());
            let once = before.version() + 1;
            assert_eq!(made.operation.version(), once, "{change:?}, {fates:?}");
            assert_eq!(expected.unwrap().status(), made.operation.status());
            let (operation, _, kept) = whole(&*other, id).await;
            assert_eq!((operation, kept), (Some(made.operation), outcome.clone()));
            // Whatever is left is nobody's to claim.
            drop(other.apply(id, Change::Cancel).await);
            drop(other.apply(id, Change::ConfirmCancel { attempt: 1 }).await);
        }
    }

    let before = accept_running(&*store).await.operation;
    let line = Lossy::new(&store, [Fate::Overtaken]);
    let answer = line.apply(before.id(), retried(1, std::time::Duration::ZERO)).await;
    assert!(is_refused(&answer, TransitionError::LeaseLost), "{answer:?}");
    let current = found(&*store, before.id()).await;
    assert_eq!((current.status(), current.attempt()), (Status::Running, 2));
    assert_eq!(current.version(), before.version() + 2);
}

/// If an answer got lost and it cannot be found out what became of the change, whoever asked is told
/// just that, and not what the store said later: that it is away, or that there is no such operation.
/// What was to be removed and is gone is removed.
pub async fn c17_what_cannot_be_found_out_stays_in_doubt<F: Fixture>(fixture: &F) {
    let [store, _, _] = handles(fixture).await;
    let is_in_doubt = |answer: Result<Observed, ApplyError>| match answer {
        Err(ApplyError::Store(error)) => error.kind() == StoreErrorKind::Ambiguous,
        _ => false,
    };

    let begun = accept_running(&*store).await.operation;
    let line = Lossy::new(&store, [Fate::AnswerLost]);
    line.fail_after(1);
    assert!(is_in_doubt(line.apply(begun.id(), reported(1, "half")).await), "away after that");
    assert_eq!(found(&*store, begun.id()).await.revision(), begun.revision() + 1);

    let line = Lossy::new(&store, std::iter::repeat(Fate::NotMade));
    assert!(is_in_doubt(line.apply(begun.id(), reported(1, "more")).await), "always lost");

    let line = Lossy::new(&store, [Fate::AnswerLost]);
    let new = new_running(LONG).with_retention(std::time::Duration::ZERO);
    let short = accept(&*store, new).await.operation;
    let done = answer("done");
    let end = line.apply_with(short.id(), succeeded(1, &done), Some(done), nothing).await;
    assert!(is_in_doubt(end), "expired after that");

    for (fate, is_removed) in [(Fate::AnswerLost, true), (Fate::NotMade, false)] {
        let ended = succeed(&*store, &accept_running(&*store).await.operation).await;
        let line = Lossy::new(&store, [fate]);
        match line.forget(ended.owner(), ended.id()).await {
            Ok(()) => assert!(is_removed),
            Err(ApplyError::Store(error)) => {
                assert!(!is_removed);
                assert_eq!(error.kind(), StoreErrorKind::Ambiguous);
            }
            Err(error) => panic!("{error:?}"),
        }
        assert_eq!(store.get(ended.id()).await.unwrap().is_none(), is_removed);
    }
}
