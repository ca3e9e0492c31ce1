//! What follows from a write, such as a delivery, is accepted with it; from then on it is work like
//! any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::Fixture;
use super::acceptance::LARGEST_SENT;
use super::crash::{Called, after_kill, kill_amid, reopen};
use super::race::race;
use super::samples::{
    LONG, accept, accept_running, answer, claim, created, existing, found, handles, idempotency,
    is_refused, new_operation, new_running, nothing, owner, reported, retried, succeed, succeeded,
    swap_of, whole,
};
use crate::operation::{Kind, NewOperation, Operation, OperationId, Status, TransitionError};
use crate::store::{
    Acceptance, ClaimRequest, Limits, Observed, OperationStore, OperationStoreExt, StoreErrorKind,
    Submission, Swap, Swapped,
};

fn delivery_kind() -> Kind {
    Kind::new("delivery").expect("a valid kind")
}

/// A delivery with input and key, both of that text.
fn delivery(text: &str) -> Submission {
    Submission::new(new_operation().with_kind(delivery_kind()).with_owner(owner("ada")))
        .with_input(Bytes::copy_from_slice(text.as_bytes()))
        .with_idempotency(idempotency("delivery", text, 1))
}

/// The write that makes a running operation succeed, with what follows from it.
fn success(seen: &Observed, outbox: Vec<Submission>) -> Swap {
    let outcome = answer("done");
    let change = succeeded(seen.operation.attempt(), &outcome);
    let swap = swap_of(seen, &change).expect("it runs");
    swap.with_outcome(Some(outcome)).with_outbox(outbox)
}

async fn deliveries(store: &impl OperationStore, limit: usize, lease: Duration) -> Vec<Operation> {
    let request = ClaimRequest::new(limit, lease).with_kinds(vec![delivery_kind()]);
    let claimed = store.claim(&request).await.unwrap();
    claimed.into_iter().map(|claimed| claimed.operation).collect()
}

/// A write and what follows from it take place together or not at all: if the write is made, if
/// somebody else wrote first, if the operation is gone, if something of it is too large, and if all
/// processes die. Whoever sees the write sees what follows.
pub async fn c100_what_follows_comes_with_the_write_or_not_at_all<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let begun = accept_running(&*store).await;
    let id = begun.operation.id();

    // A conflict, something too large, and then it takes place.
    let one = delivery("one");
    let mut stale = success(&begun, vec![one.clone()]);
    stale.expected += 1;
    assert!(matches!(store.swap(stale).await.unwrap(), Swapped::Conflict(_)));
    is_absent(&*other, &one).await;
    let limit = store.capabilities().max_body_bytes;
    if limit <= LARGEST_SENT {
        let mut large = delivery("large");
        large.input = Some(vec![7; limit + 1].into());
        for outbox in [vec![one.clone(), large.clone()], vec![large, one.clone()]] {
            let error = store.swap(success(&begun, outbox)).await.expect_err("it is too large");
            assert_eq!(error.kind(), StoreErrorKind::TooLarge);
            is_absent(&*other, &one).await;
            let expected = (Some(begun.operation.clone()), None, None);
            assert_eq!(whole(&*other, id).await, expected);
        }
    }
    let two = delivery("two").with_limits(Limits::default().with_total(0).with_owner(0));
    let outbox = vec![one.clone(), two.clone()];
    assert_eq!(store.swap(success(&begun, outbox)).await.unwrap(), Swapped::Swapped);
    assert_eq!(found(&*other, id).await.status(), Status::Succeeded);
    for submission in [&one, &two] {
        let delivered = found(&*other, submission.operation.id()).await;
        assert_eq!(delivered, submission.operation.accept(delivered.created()));
        assert_eq!(other.input(delivered.id()).await.unwrap(), submission.input);
        let same_key = Submission {
            operation: new_operation().with_owner(owner("ada")),
            ..submission.clone()
        };
        assert_eq!(existing(other.accept(same_key).await.unwrap()).operation, delivered);
    }
    assert_eq!(deliveries(&*other, 10, LONG).await.len(), 2);

    // What is gone brings nothing.
    let begun = accept_running(&*store).await;
    let removal = store.remove(begun.operation.id(), begun.operation.version()).await.unwrap();
    assert_eq!(removal, Swapped::Swapped);
    let late = delivery("late");
    assert_eq!(store.swap(success(&begun, vec![late.clone()])).await.unwrap(), Swapped::Gone);
    is_absent(&*other, &late).await;

    // What is there already is left as it is, and the write takes place with the rest.
    let begun = accept_running(&*store).await;
    let before = found(&*store, one.operation.id()).await;
    let mut same_id = delivery("another");
    same_id.operation = NewOperation::new(one.operation.id()).with_owner(owner("bob"));
    let mut same_key = one.clone();
    same_key.operation = new_operation().with_owner(owner("ada"));
    let three = delivery("three");
    let outbox = vec![same_id, same_key.clone(), three.clone()];
    assert_eq!(store.swap(success(&begun, outbox)).await.unwrap(), Swapped::Swapped);
    assert_eq!(found(&*other, one.operation.id()).await, before);
    assert_eq!(other.get(same_key.operation.id()).await.unwrap(), None);
    found(&*other, three.operation.id()).await;

    follows_at_once(fixture).await;
    for round in 0..F::ROUNDS.div_ceil(20) {
        follows_through_a_crash(fixture, round).await;
    }
}

/// Neither the delivery is there nor its input, and its key is free.
async fn is_absent(store: &impl OperationStore, submission: &Submission) {
    assert_eq!(whole(store, submission.operation.id()).await, (None, None, None));
    let mut same_key = submission.clone();
    same_key.operation = new_operation().with_owner(submission.operation.owner().clone());
    let probe = created(store.accept(same_key).await.unwrap()).operation;
    store.remove(probe.id(), probe.version()).await.unwrap();
}

/// Readers who see the end see the delivery; of several writers who all bring one, one's is there.
async fn follows_at_once<F: Fixture>(fixture: &F) {
    let stores = handles(fixture).await;
    for _ in 0..F::ROUNDS {
        let begun = accept_running(&*stores[0]).await;
        let id = begun.operation.id();
        let brought: Vec<Submission> =
            (0..3).map(|_| Submission::new(new_operation().with_delay(LONG))).collect();
        let ids: Vec<OperationId> = brought.iter().map(|new| new.operation.id()).collect();
        let answers = race((0..6).map(|runner| {
            let store = stores[runner % 3].clone();
            let swap = brought.get(runner).map(|new| success(&begun, vec![new.clone()]));
            let ids = ids.clone();
            async move {
                if let Some(swap) = swap {
                    return store.swap(swap).await.unwrap() == Swapped::Swapped;
                }
                let ended = found(&*store, id).await.finished().is_some();
                let mut count = 0;
                for id in ids {
                    count += usize::from(store.get(id).await.unwrap().is_some());
                }
                assert!(count <= 1, "{count} deliveries of one end");
                assert!(count == 1 || !ended, "an end without its delivery");
                false
            }
        }))
        .await;
        for (wrote, id) in answers.into_iter().zip(ids) {
            assert_eq!(stores[2].get(id).await.unwrap().is_some(), wrote);
        }
    }
}

async fn follows_through_a_crash<F: Fixture>(fixture: &F, round: usize) {
    let stores = handles(fixture).await;
    let mut begun = Vec::new();
    for number in 0..30 {
        let follows = Submission::new(new_operation().with_delay(LONG)).with_input("input");
        begun.push((accept_running(&*stores[number % 3]).await, follows));
    }
    let calls = begun.iter().enumerate().map(|(number, (seen, follows))| {
        let (store, swap) = (stores[number % 3].clone(), success(seen, vec![follows.clone()]));
        async move { store.swap(swap).await }
    });
    let called = kill_amid(fixture, round * 7, calls.collect::<Vec<_>>()).await;
    let ([store, _, _], survives) = reopen(fixture).await;
    for ((seen, follows), called) in begun.iter().zip(called) {
        let ended = store.get(seen.operation.id()).await.unwrap();
        assert_eq!(ended.is_some(), survives);
        let ended = ended.is_some_and(|ended| ended.operation.finished().is_some());
        match called {
            Called::Before(Ok(answer)) => {
                assert_eq!(answer, Swapped::Swapped);
                assert_eq!(ended, survives, "it was acknowledged");
            }
            ref called => {
                let refused = called.answer().and_then(|answer| answer.as_ref().err());
                let is_unknown =
                    refused.is_none_or(|error| error.kind() == StoreErrorKind::Ambiguous);
                assert!(is_unknown || !ended, "it took place although {refused:?}");
            }
        }
        let (delivered, input, _) = whole(&*store, follows.operation.id()).await;
        assert_eq!(delivered.is_some(), ended, "the end and its delivery");
        assert_eq!(input.is_some(), ended, "the end and what is to be delivered");
        let outcome = store.outcome(seen.operation.id()).await.unwrap();
        assert_eq!(outcome.is_some(), ended, "the end and its outcome");
    }
}

/// Of many senders one gets each delivery. One that was too slow is told so, and what its successor
/// records stands.
pub async fn c101_one_of_many_senders_gets_a_delivery<F: Fixture>(fixture: &F) {
    const DELIVERIES: usize = 20;
    let stores = handles(fixture).await;
    let begun = accept(&*stores[0], new_running(LONG)).await;
    let outbox: Vec<Submission> =
        (0..DELIVERIES).map(|number| delivery(&number.to_string())).collect();
    let mut ids: Vec<OperationId> = outbox.iter().map(|new| new.operation.id()).collect();
    ids.sort_unstable();
    let swap = success(&begun, outbox);
    assert_eq!(stores[0].swap(swap).await.unwrap(), Swapped::Swapped);

    // Long enough for all of them to be claimed before the first lease passes.
    let lease = F::UNIT * 4;
    let total = Arc::new(AtomicUsize::new(0));
    let slow = race((0..32).map(|sender| {
        let (store, total) = (stores[sender % 3].clone(), Arc::clone(&total));
        async move {
            let mut mine = Vec::new();
            // Who comes away with nothing may have met others at the same delivery.
            for _ in 0..DELIVERIES {
                let claimed = deliveries(&*store, 1, lease).await;
                let before = total.fetch_add(claimed.len(), Ordering::SeqCst);
                mine.extend(claimed);
                if before >= DELIVERIES {
                    break;
                }
            }
            mine
        }
    }))
    .await
    .concat();
    let mut claimed: Vec<OperationId> = slow.iter().map(Operation::id).collect();
    claimed.sort_unstable();
    assert_eq!(claimed, ids, "each delivery has one sender");

    fixture.advance(lease).await;
    let quick = deliveries(&*stores[1], DELIVERIES, LONG).await;
    assert_eq!(quick.len(), DELIVERIES);
    for operation in &slow {
        let outcome = answer("slow");
        let change = succeeded(operation.attempt(), &outcome);
        let late = stores[0].apply_with(operation.id(), change, Some(outcome), nothing).await;
        assert!(is_refused(&late, TransitionError::LeaseLost), "{late:?}");
    }
    for operation in &quick {
        assert_eq!(operation.attempt(), 2);
        let sent = succeed(&*stores[2], operation).await;
        let expected = (Some(sent), None, Some(answer("done")));
        assert_eq!(whole(&*stores[0], operation.id()).await, expected);
    }
    assert_eq!(deliveries(&*stores[0], DELIVERIES, LONG).await, []);
}

/// A delivery that is tried again has its id and its content over all attempts, also after all
/// processes died; each attempt has a time of its own.
pub async fn c102_a_delivery_keeps_its_id_over_attempts<F: Fixture>(fixture: &F) {
    let [mut store, _, _] = handles(fixture).await;
    let begun = accept(&*store, new_running(LONG)).await;
    let new = delivery("content");
    let id = new.operation.id();
    let swap = success(&begun, vec![new.clone()]);
    assert_eq!(store.swap(swap).await.unwrap(), Swapped::Swapped);
    let mut times = Vec::new();
    for attempt in 1..=4 {
        let claimed = deliveries(&*store, 10, LONG).await;
        assert_eq!(claimed.len(), 1);
        assert_eq!((claimed[0].id(), claimed[0].attempt()), (id, attempt));
        assert_eq!(store.input(id).await.unwrap(), new.input);
        times.push(claimed[0].updated());
        store.apply(id, reported(attempt, "connecting")).await.unwrap();
        store.apply(id, retried(attempt, F::UNIT)).await.unwrap();
        fixture.advance(F::UNIT).await;
        if attempt % 2 == 0 {
            let ([after, _, _], survives) = after_kill(fixture).await;
            store = after;
            if !survives {
                assert_eq!(whole(&*store, id).await, (None, None, None));
                assert_eq!(claim(&*store, 10, LONG).await, []);
                return;
            }
        }
    }
    assert!(times.is_sorted_by(|earlier, later| earlier < later), "{times:?}");
    let mut again = new;
    again.operation = new_operation().with_owner(owner("ada"));
    match store.accept(again).await.unwrap() {
        Acceptance::Existing(same) => assert_eq!(same.operation.id(), id),
        other => panic!("the key gave {other:?}"),
    }
}
