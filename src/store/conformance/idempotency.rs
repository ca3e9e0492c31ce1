//! One key, one owner, one scope: one operation, as long as that lives.

use super::Fixture;
use super::race::{race, race_two};
use super::samples::{
    LONG, accept_running, answer, created, existing, failed, found, handles, idempotency,
    new_operation, new_running, nothing, owner, problem, succeed,
};
use crate::operation::{IntoOutcome, NewOperation, OperationId, Status};
use crate::store::{
    Acceptance, Full, IdempotencyKey, Limits, OperationStore, OperationStoreExt, StoreErrorKind,
    Submission, Swapped,
};

const SCOPE: &str = "POST /images";

/// A request under that key; `request` stands for all that it says.
fn keyed(new: NewOperation, key: &str, request: u8) -> Submission {
    Submission::new(new).with_idempotency(idempotency(SCOPE, key, request))
}

/// The same request again gives the same operation, as it is by then. Nothing else is stored.
pub async fn c80_the_same_request_gives_the_same_operation<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let first = created(store.accept(keyed(new_running(LONG), "k", 1)).await.unwrap()).operation;
    for store in [&store, &other] {
        let again = keyed(new_operation(), "k", 1).with_input("ignored");
        let id = again.operation.id();
        assert_eq!(existing(store.accept(again).await.unwrap()).operation, first);
        assert_eq!(store.get(id).await.unwrap(), None);
        assert_eq!(store.input(id).await.unwrap(), None);
    }
    let ended = succeed(&*other, &first).await;
    let again = existing(store.accept(keyed(new_operation(), "k", 1)).await.unwrap());
    assert_eq!(again.operation, ended);
}

/// Another request under the same key is refused, before the end and after it, also if it brings
/// the id of the operation. Nothing is stored.
pub async fn c81_another_request_under_the_key_is_refused<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let first = created(store.accept(keyed(new_running(LONG), "k", 1)).await.unwrap()).operation;
    for is_finished in [false, true] {
        let before = if is_finished { succeed(&*store, &first).await } else { first.clone() };
        let new = new_operation();
        let id = new.id();
        for submission in [keyed(new, "k", 2), keyed(NewOperation::new(first.id()), "k", 3)] {
            assert_eq!(other.accept(submission).await.unwrap(), Acceptance::KeyReused);
        }
        assert_eq!(store.get(id).await.unwrap(), None);
        assert_eq!(found(&*store, first.id()).await, before);
    }
}

/// 64 requests under one key at once: one operation, 64 times the same.
pub async fn c82_many_requests_at_once_make_one_operation<F: Fixture>(fixture: &F) {
    let handles = handles(fixture).await;
    for round in 0..F::ROUNDS.div_ceil(10) {
        let key = format!("key {round}");
        let answers = race((0..64).map(|runner| {
            let store = handles[runner % 3].clone();
            let submission = keyed(new_operation(), &key, 1);
            let id = submission.operation.id();
            async move { (id, store.accept(submission).await.unwrap()) }
        }))
        .await;
        let winners: Vec<OperationId> = answers
            .iter()
            .filter(|(_, answer)| matches!(answer, Acceptance::Created(_)))
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(winners.len(), 1, "operations under one key");
        for (id, answer) in answers {
            if id != winners[0] {
                assert_eq!(existing(answer).operation.id(), winners[0]);
                assert_eq!(handles[0].get(id).await.unwrap(), None, "a left-over operation");
            }
        }
    }
}

/// Whoever is told that a key stands for an operation finds that operation, also while it is just
/// being accepted; and a key goes with its operation, in one step.
pub(super) async fn keys_and_operations_agree<F: Fixture>(fixture: &F) {
    let handles = handles(fixture).await;
    for round in 0..F::ROUNDS {
        let key = format!("key {round}");
        race(handles.iter().map(|store| {
            let (store, submission) = (store.clone(), keyed(new_running(LONG), &key, 1));
            async move {
                let answer = store.accept(submission).await.unwrap();
                let (Acceptance::Created(stands_for) | Acceptance::Existing(stands_for)) = answer
                else {
                    panic!("expected an operation, not {answer:?}");
                };
                found(&*store, stands_for.operation.id()).await;
            }
        }))
        .await;

        let first = existing(handles[0].accept(keyed(new_operation(), &key, 1)).await.unwrap());
        let ended = succeed(&*handles[0], &first.operation).await;
        let (remover, accepter) = (handles[1].clone(), handles[2].clone());
        let submission = keyed(new_operation(), &key, 1);
        let (removal, answer) = race_two(
            async move { remover.remove(ended.id(), ended.version()).await.unwrap() },
            async move { accepter.accept(submission).await.unwrap() },
        )
        .await;
        assert_eq!(removal, Swapped::Swapped);
        match answer {
            Acceptance::Created(second) => {
                let again = handles[0].accept(keyed(new_operation(), &key, 1)).await.unwrap();
                assert_eq!(existing(again).operation, second.operation);
            }
            Acceptance::Existing(last) => {
                assert_eq!(last.operation.id(), first.operation.id());
                created(handles[0].accept(keyed(new_operation(), &key, 2)).await.unwrap());
            }
            other => panic!("expected an operation, not {other:?}"),
        }
    }
}

/// The same key of another owner, or in another scope, names something else, however alike their
/// texts are.
pub async fn c84_owners_and_scopes_keep_keys_apart<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let names = [
        (None, "a", "k"),
        (Some("anonymous"), "a", "k"),
        (Some("a"), "a", "k"),
        (Some("A"), "a", "k"),
        (Some("a"), "A", "k"),
        (Some("a"), "a", "K"),
        (Some("a"), "", "k"),
        (Some("a"), "aa", "k"),
        (Some("aa"), "a", "k"),
        (Some("aa"), "", "k"),
        (Some("a"), "a:k", "k"),
        (Some("a:a"), "k", "k"),
        (Some("a"), "a", "a:k"),
        (Some("a "), "a", "k"),
    ];
    let submission = |(name, scope, key): (Option<&str>, &str, &str)| {
        let owner = name.map(owner).unwrap_or_default();
        Submission::new(new_operation().with_owner(owner))
            .with_idempotency(idempotency(scope, key, 1))
    };
    let mut ids = Vec::new();
    for name in names {
        ids.push(created(store.accept(submission(name)).await.unwrap()).operation.id());
    }
    for (name, id) in names.into_iter().zip(ids) {
        let again = existing(other.accept(submission(name)).await.unwrap());
        assert_eq!(again.operation.id(), id, "{name:?}");
    }
}

/// A key lives exactly as long as its operation: until that expires, whether or not it is purged
/// then, or is removed. The purge of the old operation leaves the key of the new one alone.
pub async fn c85_a_key_lives_as_long_as_its_operation<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let new = new_running(LONG).with_retention(F::UNIT * 2);
    let first = created(store.accept(keyed(new, "k", 1)).await.unwrap()).operation;
    let ended = succeed(&*store, &first).await;
    fixture.advance(F::UNIT).await;
    let still = existing(other.accept(keyed(new_operation(), "k", 1)).await.unwrap());
    assert_eq!(still.operation, ended);
    fixture.advance(F::UNIT).await;

    let second = keyed(new_running(LONG), "k", 2);
    let second = created(other.accept(second).await.unwrap()).operation;
    store.purge(10).await.unwrap();
    assert_eq!(store.get(first.id()).await.unwrap(), None);
    let again = existing(store.accept(keyed(new_operation(), "k", 2)).await.unwrap());
    assert_eq!(again.operation, second);

    let ended = succeed(&*store, &second).await;
    assert_eq!(store.remove(ended.id(), ended.version()).await.unwrap(), Swapped::Swapped);
    created(other.accept(keyed(new_operation(), "k", 3)).await.unwrap());
}

/// The key of an operation that succeeded, failed or was canceled still gives that operation, and
/// its outcome.
pub async fn c86_the_key_of_a_finished_operation_still_counts<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let error = problem().into_outcome();
    for status in [Status::Succeeded, Status::Failed, Status::Canceled] {
        let first = keyed(new_running(LONG), status.as_str(), 1);
        let first = created(store.accept(first).await.unwrap()).operation;
        let (id, canceled) = (first.id(), crate::operation::Change::Cancel);
        let outcome = match status {
            Status::Succeeded => {
                succeed(&*store, &first).await;
                Some(answer("done"))
            }
            Status::Failed => {
                let outcome = Some(error.clone());
                store.apply_with(id, failed(1), outcome.clone(), nothing).await.unwrap();
                outcome
            }
            _ => {
                store.apply(id, canceled).await.unwrap();
                let confirmed = crate::operation::Change::ConfirmCancel { attempt: 1 };
                store.apply(id, confirmed).await.unwrap();
                None
            }
        };
        let again = keyed(new_operation(), status.as_str(), 1);
        let again = existing(other.accept(again).await.unwrap()).operation;
        assert_eq!((again.id(), again.status()), (id, status));
        assert_eq!(other.outcome(id).await.unwrap(), outcome);
    }
}

/// A request that is refused, for want of room or for its size, does not use up its key.
pub async fn c87_a_refused_request_does_not_use_up_its_key<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let busy = new_running(LONG).with_owner(owner("ada"));
    created(store.accept(Submission::new(busy)).await.unwrap());
    let by_ada = |request| keyed(new_operation().with_owner(owner("ada")), "k", request);
    for (limits, full) in [
        (Limits::default().with_total(1), Full::Total),
        (Limits::default().with_owner(1), Full::Owner),
    ] {
        let refused = store.accept(by_ada(1).with_limits(limits)).await.unwrap();
        assert_eq!(refused, Acceptance::Full(full));
    }
    let largest = store.capabilities().max_body_bytes;
    if largest < 1 << 24 {
        let refused = store.accept(by_ada(2).with_input(vec![7; largest + 1])).await;
        assert_eq!(refused.expect_err("too large").kind(), StoreErrorKind::TooLarge);
    }
    let taken = created(other.accept(by_ada(3)).await.unwrap());
    assert_eq!(existing(store.accept(by_ada(3)).await.unwrap()).operation, taken.operation);
}

/// Every valid key is told from every other: of one byte and of the most bytes, in either case, with
/// spaces around it, and with each character that it may have. What is no key cannot be made one.
pub async fn c88_every_valid_key_is_its_own<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let longest = "k".repeat(IdempotencyKey::MAX_BYTES);
    let mut keys: Vec<String> = (b' '..=b'~').map(|byte| char::from(byte).to_string()).collect();
    keys.extend([" k", "k ", "k  ", "%k", "k%", "k_", "k*", "k'--", "k\\", "kK"].map(String::from));
    keys.extend([longest[1..].to_owned(), format!("K{}", &longest[1..]), longest.clone()]);
    let mut ids = Vec::new();
    for key in &keys {
        let accepted = store.accept(keyed(new_operation(), key, 1)).await.unwrap();
        ids.push(created(accepted).operation.id());
    }
    for (key, id) in keys.iter().zip(ids) {
        let again = store.accept(keyed(new_operation(), key, 1)).await.unwrap();
        assert_eq!(existing(again).operation.id(), id, "{key:?}");
    }
    accept_running(&store).await;
    let too_long = format!("{longest}k");
    for wrong in ["", "\0", "k\n", "\x7F", "é", &too_long] {
        assert!(IdempotencyKey::new(wrong).is_err(), "{wrong:?}");
    }
}
