//! What was accepted is there, whole, and nothing else is.

use bytes::Bytes;
use http::HeaderValue;

use super::Fixture;
use super::race::race;
use super::samples::{
    LONG, accept_running, answer, bytes_of, created, existing, found, handles, idempotency,
    new_operation, owner, succeeded, swap_of, whole,
};
use crate::operation::{Kind, Outcome, Progress};
use crate::store::{Acceptance, OperationStore, StoreErrorKind, Submission, Swap};

/// The largest body that the suite sends.
pub(super) const LARGEST_SENT: usize = 10 << 20;

/// Another handle finds what was accepted, byte for byte, and so does a later one.
///
/// Inputs are empty, hold NUL and bytes that are no text, and have the largest size (or 10 MiB if
/// the store takes more). That there is no input differs from an input of no bytes.
pub async fn c01_what_was_accepted_is_found_as_it_was_given<F: Fixture>(fixture: &F) {
    let [ours, theirs, _] = handles(fixture).await;
    let largest = bytes_of(ours.capabilities().max_body_bytes.min(LARGEST_SENT));
    let all: Vec<u8> = (0..=255).collect();
    let inputs: [Option<&[u8]>; 8] = [
        None,
        Some(b""),
        Some(b"{\"size\": 1.10}"),
        Some(b"\0 between \0 and at the end \0"),
        Some("four bytes: \u{1F600}\u{10FFFF}".as_bytes()),
        Some(&[0x80, 0xFE, 0xFF, 0xC0, 0x00]),
        Some(&all),
        Some(&largest),
    ];
    for input in inputs {
        let new = new_operation()
            .with_kind(Kind::new("images.enhance:v2/x_y-z").unwrap())
            .with_owner(owner("Zoë <zoe@example.com>"))
            .with_progress(Some(Progress::new(0.1, "queued \u{1F600}")))
            .with_attempt_limit(7)
            .with_delay(LONG)
            .with_deadline(LONG * 2)
            .with_retention(LONG * 3);
        let mut submission = Submission::new(new.clone());
        submission.input = input.map(Bytes::copy_from_slice);
        let accepted = created(ours.accept(submission).await.unwrap());
        assert_eq!(accepted.operation, new.accept(accepted.now), "by the store's own clock");
        assert_eq!(accepted.write_id, 0);

        let read = theirs.get(new.id()).await.unwrap().expect("another handle finds it");
        assert_eq!((read.operation, read.write_id), (accepted.operation.clone(), 0));
        assert!(read.now >= accepted.now, "the store's clock goes forward");
        let later = fixture.open().await;
        let expected = (Some(accepted.operation), input.map(Bytes::copy_from_slice), None);
        assert_eq!(whole(&later, new.id()).await, expected);
    }
    for new in [new_operation().held(LONG, false), new_operation().held(LONG, true)] {
        let accepted = created(ours.accept(Submission::new(new.clone())).await.unwrap());
        assert_eq!(accepted.operation, new.accept(accepted.now), "held by its process");
        assert_eq!(found(&*theirs, new.id()).await, accepted.operation);
    }
}

/// A body over the store's limit is refused as such, and so are fields of an outcome over
/// [`Outcome::MAX_FIELD_BYTES`]; nothing of the call is written: no operation, no key, no end of the work.
///
/// A store whose limit of bodies is over 10 MiB takes a body of that size instead.
pub async fn c06_a_body_over_the_limit_is_refused<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let mut wordy = answer("done");
    let value = HeaderValue::from_str(&"x".repeat(Outcome::MAX_FIELD_BYTES / 8)).unwrap();
    for _ in 0..8 {
        wordy.headers.append("x-long", value.clone());
    }
    let begun = accept_running(&*store).await;
    let swap = swap_of(&begun, &succeeded(1, &wordy)).expect("it runs");
    let error = store.swap(swap.with_outcome(Some(wordy))).await.expect_err("the fields are large");
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    let id = begun.operation.id();
    assert_eq!(whole(&*other, id).await, (Some(begun.operation), None, None));

    let limit = store.capabilities().max_body_bytes;
    let too_large = Bytes::from(vec![7; limit.min(LARGEST_SENT) + 1]);
    let mut outcome = answer("");
    outcome.body = too_large.clone();

    let new = new_operation().held(LONG, true);
    let submission = Submission::new(new.clone())
        .with_input(too_large.clone())
        .with_idempotency(idempotency("POST /images", "key", 1));
    if limit > LARGEST_SENT {
        created(store.accept(submission).await.unwrap());
        assert_eq!(other.input(new.id()).await.unwrap(), Some(too_large));
        return;
    }
    let error = store.accept(submission.clone()).await.expect_err("the input is too large");
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    assert!(!error.is_retryable());
    assert_eq!(whole(&*other, new.id()).await, (None, None, None));

    let mut small = submission;
    small.input = Some(Bytes::from_static(b"small"));
    let before = created(store.accept(small).await.unwrap());
    let change = succeeded(1, &outcome);
    let next = before.operation.apply(&change, before.now).unwrap();
    let swap = Swap::new(next, before.operation.version()).with_outcome(Some(outcome));
    let error = store.swap(swap).await.expect_err("the outcome is too large");
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    let expected = (Some(before.operation), Some(Bytes::from_static(b"small")), None);
    assert_eq!(whole(&*other, new.id()).await, expected);
}

/// An id that is in use gives the operation that has it, untouched, also if many ask at once.
/// The key that came with the second request is not used up.
pub async fn c07_an_id_in_use_is_never_overwritten<F: Fixture>(fixture: &F) {
    let handles = handles(fixture).await;
    let new = new_operation().with_owner(owner("ada"));
    let first = Submission::new(new.clone()).with_input("first");
    let accepted = created(handles[0].accept(first).await.unwrap());

    let changed = new.with_kind(Kind::new("other").unwrap()).with_attempt_limit(1);
    let second = Submission::new(changed).with_input("second").with_idempotency(idempotency(
        "POST /images",
        "key",
        1,
    ));
    let answer = existing(handles[1].accept(second.clone()).await.unwrap());
    assert_eq!(answer.operation, accepted.operation);
    let expected = (Some(accepted.operation.clone()), Some(Bytes::from_static(b"first")), None);
    assert_eq!(whole(&*handles[2], accepted.operation.id()).await, expected);
    let mut fresh = second;
    fresh.operation = new_operation().with_owner(owner("ada"));
    created(handles[0].accept(fresh).await.expect("the key is free"));

    let contested = new_operation();
    let answers = race((0..32).map(|runner: usize| {
        let store = handles[runner % 3].clone();
        let input = runner.to_string();
        let submission = Submission::new(contested.clone()).with_input(input.clone());
        async move { (store.accept(submission).await.unwrap(), input) }
    }))
    .await;
    let winners: Vec<&String> = answers
        .iter()
        .filter(|(answer, _)| matches!(answer, Acceptance::Created(_)))
        .map(|(_, input)| input)
        .collect();
    assert_eq!(winners.len(), 1, "one of them created it");
    let input = handles[0].input(contested.id()).await.unwrap();
    assert_eq!(input.as_deref(), Some(winners[0].as_bytes()));
}
