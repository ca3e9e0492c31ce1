//! What is finished never changes, and its outcome is kept.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};

use super::Fixture;
use super::acceptance::LARGEST_SENT;
use super::crash::{after_kill, surviving};
use super::race::race;
use super::samples::{
    LONG, accept, accept_running, all_changes, answer, bytes_of, completed, failed, handles,
    is_refused, new_running, nothing, problem, retried, succeeded, swap_of, whole,
};
use crate::operation::{Change, IntoOutcome, Outcome, Status, TransitionError};
use crate::store::{ApplyError, OperationStore, OperationStoreExt, Swapped};

/// A finished operation, however it ended, refuses all changes, also those that a worker had made
/// up before the end; it keeps its revision, its times and its outcome.
pub async fn c20_what_is_finished_never_changes<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let error = problem().into_outcome();
    for (change, outcome) in [
        (succeeded(1, &answer("done")), Some(answer("done"))),
        (failed(1), Some(error.clone())),
        (completed(&answer("done")), Some(answer("done"))),
        (Change::Complete { end: Err(problem()) }, Some(error.clone())),
        (Change::ConfirmCancel { attempt: 1 }, None),
    ] {
        let begun = accept_running(&*store).await;
        let id = begun.operation.id();
        let live = match change {
            Change::ConfirmCancel { .. } => store.apply(id, Change::Cancel).await.unwrap(),
            _ => begun,
        };
        let ended = store.apply_with(id, change, outcome.clone(), nothing).await.unwrap().operation;
        let expected = (Some(ended.clone()), None, outcome);
        assert_eq!(whole(&*other, id).await, expected);

        for change in all_changes(1) {
            let late = Some(answer("too late"));
            let answer = other.apply_with(id, change.clone(), late.clone(), nothing).await;
            assert!(is_refused(&answer, TransitionError::Finished), "{change:?} was {answer:?}");
            let Some(swap) = swap_of(&live, &change) else { continue };
            match other.swap(swap.with_outcome(late)).await.unwrap() {
                Swapped::Conflict(current) => assert_eq!(current.operation, ended),
                answer => panic!("{change:?} after the end was {answer:?}"),
            }
        }
        assert_eq!(whole(&*store, id).await, expected);
    }
}

/// Of success, failure and confirmed cancellation by one holder, one is recorded, with its own
/// outcome and no other.
pub async fn c21_one_of_several_ends_is_recorded<F: Fixture>(fixture: &F) {
    let handles = handles(fixture).await;
    for _ in 0..F::ROUNDS {
        let id = accept_running(&*handles[0]).await.operation.id();
        handles[0].apply(id, Change::Cancel).await.unwrap();
        let ends = [
            (Status::Succeeded, succeeded(1, &answer("done")), Some(answer("done"))),
            (Status::Failed, failed(1), Some(problem().into_outcome())),
            (Status::Canceled, Change::ConfirmCancel { attempt: 1 }, None),
        ];
        let answers = race(ends.into_iter().zip(handles.clone()).map(|(end, store)| async move {
            let (status, change, outcome) = end;
            (status, store.apply_with(id, change, outcome.clone(), nothing).await, outcome)
        }))
        .await;

        let mut recorded = None;
        for (status, answer, outcome) in answers {
            match answer {
                Ok(observed) => {
                    assert_eq!(observed.operation.status(), status);
                    let expected = (Some(observed.operation), None, outcome);
                    assert_eq!(recorded.replace(expected), None, "two ends were recorded");
                }
                answer => assert!(is_refused(&answer, TransitionError::Finished), "{answer:?}"),
            }
        }
        assert_eq!(Some(whole(&*handles[1], id).await), recorded);
    }
}

/// The end that a worker makes after its lease has passed, racing whoever settles what is abandoned:
/// one of the two is recorded, with its own outcome or none, and it stays.
pub async fn c22_an_end_and_its_settlement_do_not_both_take_place<F: Fixture>(fixture: &F) {
    let stores = handles(fixture).await;
    let (mut ended, mut settled) = (0, 0);
    for round in 0..F::ROUNDS {
        let new = new_running(Duration::ZERO).with_attempt_limit(1);
        let id = accept(&*stores[0], new).await.operation.id();
        if round % 2 == 1 {
            stores[0].apply(id, Change::Cancel).await.unwrap();
        }
        let late = answer("late");
        let racers = [
            (succeeded(1, &late), Some(late.clone())),
            (Change::Settle, None),
            (Change::Settle, None),
        ];
        let answers = race(racers.into_iter().enumerate().map(|(number, (change, outcome))| {
            let store = stores[(round + number) % 3].clone();
            async move { store.apply_with(id, change, outcome, nothing).await }
        }))
        .await;
        let mut recorded = None;
        for answer in answers {
            match answer {
                Ok(observed) => {
                    let earlier = recorded.replace(observed.operation);
                    assert_eq!(earlier, None, "two ends were recorded");
                }
                answer => assert!(is_refused(&answer, TransitionError::Finished), "{answer:?}"),
            }
        }
        let recorded = recorded.expect("one end was recorded");
        let outcome = match recorded.status() {
            Status::Succeeded => {
                ended += 1;
                Some(late)
            }
            status => {
                settled += 1;
                let expected = if round % 2 == 1 { Status::Canceled } else { Status::Failed };
                assert_eq!(status, expected);
                None
            }
        };
        for store in &stores {
            assert_eq!(whole(&**store, id).await, (Some(recorded.clone()), None, outcome.clone()));
        }
        let again = stores[0].apply(id, Change::Settle).await;
        assert!(is_refused(&again, TransitionError::Finished), "{again:?}");
    }
    assert_eq!(ended + settled, F::ROUNDS);
}

/// What had ended before all processes died is the same afterwards: status, times, revision,
/// outcome, until its retention has passed; and no change is accepted.
pub async fn c23_an_end_survives_a_crash<F: Fixture>(fixture: &F) {
    let stores = handles(fixture).await;
    let error = problem().into_outcome();
    let mut ended = Vec::new();
    for (changes, outcome) in [
        (vec![succeeded(1, &answer("done"))], Some(answer("done"))),
        (vec![failed(1)], Some(error)),
        (vec![failed(1)], None),
        (vec![completed(&answer("done"))], Some(answer("done"))),
        (vec![Change::Cancel, Change::ConfirmCancel { attempt: 1 }], None),
        (vec![Change::Settle], None),
    ] {
        let lease = if changes == [Change::Settle] { Duration::ZERO } else { LONG };
        let new = new_running(lease).with_attempt_limit(1).with_retention(F::UNIT * 10);
        let id = accept(&*stores[0], new).await.operation.id();
        let last = changes.len() - 1;
        for (number, change) in changes.into_iter().enumerate() {
            let outcome = outcome.clone().filter(|_| number == last);
            stores[number].apply_with(id, change, outcome, nothing).await.unwrap();
        }
        let before = whole(&*stores[2], id).await;
        assert!(before.0.as_ref().is_some_and(|operation| operation.finished().is_some()));
        ended.push((id, before));
    }
    fixture.advance(F::UNIT).await;

    let ([store, other, _], survives) = after_kill(fixture).await;
    for (id, before) in &ended {
        let expected = surviving(before.clone(), survives);
        assert_eq!(whole(&*store, *id).await, expected);
        for change in all_changes(1) {
            let answer = other.apply_with(*id, change, Some(answer("late")), nothing).await;
            let is_right = match &answer {
                Err(ApplyError::Gone) => !survives,
                answer => survives && is_refused(answer, TransitionError::Finished),
            };
            assert!(is_right, "{answer:?}");
        }
        assert_eq!(whole(&*store, *id).await, expected);
    }
    assert_eq!(store.purge(10).await.unwrap(), 0, "too early");
    fixture.advance(F::UNIT * 9).await;
    for (id, _) in &ended {
        assert_eq!(whole(&*other, *id).await, (None, None, None));
    }
    assert_eq!(store.purge(10).await.unwrap(), if survives { ended.len() } else { 0 });
}

/// An outcome is kept byte for byte: its status, all its fields in their order, also those whose
/// values are no text, each byte that a value may have, and a body of any bytes up to the largest
/// size (or 10 MiB). An end without an
/// outcome has none; work that goes on has none either.
pub async fn c24_an_outcome_is_kept_byte_for_byte<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let largest = bytes_of(store.capabilities().max_body_bytes.min(LARGEST_SENT));
    let mut fields = Outcome::new(StatusCode::MULTI_STATUS);
    for value in ["<a>; rel=\"next\"", "<b>", "", "<a>; rel=\"next\""] {
        fields.headers.append(header::LINK, HeaderValue::from_static(value));
    }
    let opaque = HeaderValue::from_bytes(b"caf\xE9 \xFF\t\x80").unwrap();
    fields.headers.insert("x-opaque", opaque);
    let is_allowed = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7F);
    let all: Vec<u8> = (0..=255).filter(is_allowed).collect();
    for values in [all.chunks(256), all.chunks(1)] {
        for value in values {
            fields.headers.append("x-bytes", HeaderValue::from_bytes(value).unwrap());
        }
    }
    fields.headers.insert("a-first", HeaderValue::from_static("last, but first by name"));
    for (status, body) in [
        (StatusCode::OK, Vec::new()),
        (StatusCode::NO_CONTENT, b"\0".to_vec()),
        (StatusCode::CREATED, (0..=255).collect()),
        (StatusCode::from_u16(299).unwrap(), "\u{1F600}\r\n\u{FEFF}".into()),
        (StatusCode::SEE_OTHER, vec![0xFF; 1_000]),
        (StatusCode::OK, largest.into()),
    ] {
        let outcome = Outcome { status, body: body.into(), ..fields.clone() };
        let begun = accept_running(&*store).await.operation;
        assert_eq!(store.outcome(begun.id()).await.unwrap(), None, "work that goes on");
        let change = succeeded(1, &outcome);
        let ended = store.apply_with(begun.id(), change, Some(outcome.clone()), nothing).await;
        let expected = (Some(ended.unwrap().operation), None, Some(outcome));
        assert_eq!(whole(&*other, begun.id()).await, expected);
    }

    for change in [failed(1), retried(1, Duration::ZERO)] {
        let only_once = new_running(LONG).with_attempt_limit(1);
        let begun = accept(&*store, only_once).await.operation;
        let ended = store.apply(begun.id(), change).await.unwrap().operation;
        assert_eq!(ended.status(), Status::Failed);
        assert_eq!(whole(&*other, begun.id()).await, (Some(ended), None, None));
    }
}
