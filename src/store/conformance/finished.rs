//! What is finished never changes, and its outcome is kept.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};

use super::Fixture;
use super::race::race;
use super::samples::{
    LONG, accept, accept_running, all_changes, answer, failed, handles, is_refused, new_running,
    problem, retried, succeeded, swap_of, whole,
};
use crate::operation::{Change, IntoOutcome, Outcome, Status, TransitionError};
use crate::store::{OperationStore, OperationStoreExt, Swapped};

/// A finished operation, however it ended, refuses all changes, also those that a worker had made
/// up before the end; it keeps its revision, its times and its outcome.
pub async fn c20_what_is_finished_never_changes<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let error = problem().into_outcome();
    for (change, outcome) in [
        (succeeded(1, &answer("done")), Some(answer("done"))),
        (failed(1), Some(error.clone())),
        (Change::ConfirmCancel { attempt: 1 }, None),
    ] {
        let begun = accept_running(&*store).await;
        let id = begun.operation.id();
        let live = match change {
            Change::ConfirmCancel { .. } => store.apply(id, Change::Cancel).await.unwrap(),
            _ => begun,
        };
        let ended = store.apply_with_outcome(id, change, outcome.clone()).await.unwrap().operation;
        let expected = (Some(ended.clone()), None, outcome);
        assert_eq!(whole(&*other, id).await, expected);

        for change in all_changes(1) {
            let late = Some(answer("too late"));
            let answer = other.apply_with_outcome(id, change.clone(), late.clone()).await;
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
            (status, store.apply_with_outcome(id, change, outcome.clone()).await, outcome)
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

/// An outcome is kept byte for byte: its status, all its fields in their order, also those whose
/// values are no text, and a body of any bytes up to the largest size (or 1 MiB). An end without an
/// outcome has none; work that goes on has none either.
pub async fn c24_an_outcome_is_kept_byte_for_byte<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let largest = store.capabilities().max_body_bytes.min(1 << 20);
    let mut fields = Outcome::new(StatusCode::MULTI_STATUS);
    for value in ["<a>; rel=\"next\"", "<b>", "", "<a>; rel=\"next\""] {
        fields.headers.append(header::LINK, HeaderValue::from_static(value));
    }
    let opaque = HeaderValue::from_bytes(b"caf\xE9 \xFF\t\x80").unwrap();
    fields.headers.insert("x-opaque", opaque);
    fields.headers.insert("a-first", HeaderValue::from_static("last, but first by name"));
    for (status, body) in [
        (StatusCode::OK, Vec::new()),
        (StatusCode::NO_CONTENT, b"\0".to_vec()),
        (StatusCode::CREATED, (0..=255).collect()),
        (StatusCode::from_u16(299).unwrap(), "\u{1F600}\r\n\u{FEFF}".into()),
        (StatusCode::SEE_OTHER, vec![0xFF; largest]),
    ] {
        let outcome = Outcome { status, body: body.into(), ..fields.clone() };
        let begun = accept_running(&*store).await.operation;
        assert_eq!(store.outcome(begun.id()).await.unwrap(), None, "work that goes on");
        let change = succeeded(1, &outcome);
        let ended = store.apply_with_outcome(begun.id(), change, Some(outcome.clone())).await;
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
