//! A purge of much stands in nobody's way, and what it took leaves nothing behind.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Fixture;
use super::race::race;
use super::samples::{
    LONG, accept, bytes_of, claim, claim_one, created, found, handles, idempotency, listed,
    new_operation, new_running, owner, succeed, succeeded, swap_of, whole,
};
use crate::operation::{Due, Operation, OperationId, Outcome, Status};
use crate::store::{DueQuery, Limits, OperationStore, Submission, Swapped};

/// While much is purged in small batches, work is claimed and finished: between any two batches
/// somebody gets work, each operation goes to one worker, and none of it is purged.
pub async fn c94_claims_go_on_during_a_purge<F: Fixture>(fixture: &F) {
    const BATCH: usize = 10;
    const WORKERS: usize = 4;
    let stores = handles(fixture).await;
    let expired = F::ROUNDS * 5;
    for number in 0..expired {
        let new = new_running(LONG).with_retention(Duration::ZERO);
        let store = &stores[number % 3];
        succeed(&**store, &accept(&**store, new).await.operation).await;
    }
    let batches = expired.div_ceil(BATCH);
    let each = F::ROUNDS.div_ceil(2);
    let mut live = HashSet::new();
    for _ in 0..batches + WORKERS * each {
        live.insert(accept(&*stores[0], new_operation()).await.operation.id());
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let worked = race((0..=WORKERS).map(|runner| {
        let (store, is_over) = (stores[runner % 3].clone(), Arc::clone(&is_over));
        async move {
            let mut mine = Vec::new();
            if runner > 0 {
                for _ in 0..each {
                    let operation = one_claim(&*store).await;
                    mine.push(operation.id());
                    succeed(&*store, &operation).await;
                }
                return mine;
            }
            let mut purged = 0;
            while purged < expired {
                let count = store.purge(BATCH).await.unwrap();
                assert!((1..=BATCH).contains(&count), "purged {count} of {BATCH}");
                purged += count;
                // A batch need not be full, so there may be more of them.
                if mine.len() < batches {
                    mine.push(one_claim(&*store).await.id());
                }
            }
            assert_eq!(purged, expired);
            is_over.store(true, Ordering::SeqCst);
            mine
        }
    }))
    .await
    .concat();
    assert!(is_over.load(Ordering::SeqCst));
    let distinct: HashSet<OperationId> = worked.iter().copied().collect();
    assert_eq!(distinct.len(), worked.len(), "one operation went to two");
    assert_eq!(distinct, live);
    assert_eq!(stores[1].purge(BATCH).await.unwrap(), 0);
    for id in live {
        assert_ne!(found(&*stores[2], id).await.status(), Status::Pending);
    }
}

/// Claims until there is something: others may be at the same operations.
async fn one_claim(store: &impl OperationStore) -> Operation {
    for _ in 0..1_000 {
        if let Some(operation) = claim(store, 1, LONG).await.pop() {
            return operation;
        }
    }
    panic!("1,000 claims came away with nothing");
}

/// Many operations come, are done, bring another, expire and are purged, all with input, outcome,
/// key and owner. In the end nothing of them is left, and the place has not grown: the smallest of the last three
/// tenths is no more than a quarter above the largest of the first three ([`Fixture::size`]).
pub async fn c95_a_steady_flow_leaves_nothing<F: Fixture>(fixture: &F) {
    const TENTHS: usize = 10;
    let [store, other, _] = handles(fixture).await;
    let ada = owner("ada");
    let body = bytes_of(store.capabilities().max_body_bytes.min(4 << 10));
    let mut sizes = Vec::new();
    let mut last = None;
    for tenth in 0..TENTHS {
        for cycle in 0..F::ROUNDS.div_ceil(2) {
            let new = || new_operation().with_owner(ada.clone()).with_retention(Duration::ZERO);
            let key = idempotency("POST /images", &format!("{tenth}.{cycle}"), 1);
            let submission =
                Submission::new(new()).with_input(body.clone()).with_idempotency(key.clone());
            created(store.accept(submission).await.unwrap());
            let claimed = claim_one(&*other, LONG).await;
            let seen = store.get(claimed.id()).await.unwrap().expect("it is there");
            let outcome = Outcome { body: body.clone(), ..Outcome::default() };
            let follows = Submission::new(new()).with_input(body.clone());
            let swap = swap_of(&seen, &succeeded(1, &outcome)).expect("it runs");
            let swap = swap.with_outcome(Some(outcome)).with_outbox(vec![follows]);
            assert_eq!(store.swap(swap).await.unwrap(), Swapped::Swapped);
            let followed = claim_one(&*store, LONG).await;
            succeed(&*other, &followed).await;
            last = Some((claimed.id(), followed.id(), key));
            if cycle % 5 == 0 {
                store.purge(100).await.unwrap();
            }
        }
        while other.purge(100).await.unwrap() > 0 {}
        sizes.push(fixture.size().await);
    }

    let (one, two, key) = last.expect("there was a cycle");
    for id in [one, two] {
        assert_eq!(whole(&*other, id).await, (None, None, None));
    }
    assert_eq!(listed(&*store, &ada).await, []);
    for due in Due::ALL {
        assert_eq!(store.due(&DueQuery::new(due, 10)).await.unwrap(), []);
    }
    // A server makes room when it likes, so that what it takes goes up and down.
    let early = sizes[..3].iter().copied().max().flatten();
    let late = sizes[TENTHS - 3..].iter().copied().min().flatten();
    if let (Some(early), Some(late)) = (early, late) {
        assert!(late <= early + early / 4, "it grows: {sizes:?}");
    }
    // Neither key nor place is taken.
    let again = Submission::new(new_operation().with_owner(ada))
        .with_idempotency(key)
        .with_limits(Limits::default().with_total(1).with_owner(1));
    created(store.accept(again).await.unwrap());
}
