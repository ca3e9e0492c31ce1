//! Lists come in pages, and what is written meanwhile does not upset them.

use std::sync::Arc;
use std::time::Duration;

use super::Fixture;
use super::race::race;
use super::samples::{LONG, accept, claim, found, handles, listed, owner, reported, succeed};
use crate::operation::{Kind, NewOperation, Operation, OperationId, Owner, Status};
use crate::store::{ListQuery, OperationStore, OperationStoreExt};
use crate::time::{Clock, SystemClock, Timestamp};

/// Pages give an owner's operations newest first, each once, in any size of page and under any
/// filter; a page is no longer than was asked for, and never longer than the longest.
pub async fn c113_pages_hold_everything_once<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let ada = owner("ada");
    let now = SystemClock.now();
    let mut ids = Vec::new();
    for number in 0..ListQuery::MAX_LIMIT + 10 {
        // Several of one millisecond each, and not accepted in the order of their ids.
        let millis = u64::try_from(number * 7 % 50).unwrap();
        let at = now + Duration::from_millis(millis);
        let id = OperationId::generate(at).expect("the operating system gives random bytes");
        let kind = Kind::new(if number % 3 == 0 { "third" } else { "other" }).unwrap();
        let new = NewOperation::new(id).with_owner(ada.clone()).with_kind(kind.clone());
        accept(&*store, new).await;
        ids.push((id, kind));
    }
    ids.sort_unstable();
    ids.reverse();
    let claimed = claim(&*store, 10, LONG).await.len();

    let by_kind = ListQuery { kind: Some(Kind::new("third").unwrap()), ..ListQuery::default() };
    let running = ListQuery { status: Some(Status::Running), ..ListQuery::default() };
    for (query, count) in
        [(ListQuery::default(), ids.len()), (by_kind, ids.len().div_ceil(3)), (running, claimed)]
    {
        for limit in [0, 1, 7, ListQuery::MAX_LIMIT, usize::MAX] {
            let mut query = ListQuery { limit, ..query.clone() };
            let mut walked = Vec::new();
            loop {
                let page = other.list(&ada, &query).await.unwrap();
                assert!(page.operations.len() <= query.page_size());
                assert!(page.operations.iter().all(|operation| query.selects(operation)));
                walked.extend(page.operations.iter().map(Operation::id));
                let Some(next) = page.next else { break };
                assert!(query.before.is_none_or(|before| next < before), "pages lead back");
                query.before = Some(next);
            }
            assert_eq!(walked.len(), count, "pages of {limit}");
            assert!(walked.is_sorted_by(|newer, older| newer > older));
        }
    }
    let everything: Vec<OperationId> = ids.into_iter().map(|(id, _)| id).collect();
    assert_eq!(listed(&*other, &ada).await, everything);
}

/// While an owner's operations are walked through page by page, newer ones are accepted, others
/// change and some are forgotten. What is there all the time is seen exactly once, and nothing is
/// seen twice.
pub async fn c114_pages_do_not_shift_while_others_write<F: Fixture>(fixture: &F) {
    let stores = handles(fixture).await;
    let ada = owner("ada");
    let now = SystemClock.now();
    // Every third one goes, every third changes.
    let mut ids = Vec::new();
    for number in 0..90 {
        let id = id_at(now, number);
        let new = NewOperation::new(id).with_owner(ada.clone()).held(LONG, true);
        let begun = accept(&*stores[0], new).await.operation;
        if number % 3 == 0 {
            succeed(&*stores[0], &begun).await;
        }
        ids.push(id);
    }
    let stays: Arc<Vec<OperationId>> = Arc::new(
        ids.iter().enumerate().filter(|(number, _)| number % 3 != 0).map(|(_, id)| *id).collect(),
    );
    let goes: Vec<OperationId> = ids.iter().copied().filter(|id| !stays.contains(id)).collect();
    let (first, others) = goes.split_at(10);

    // Once with a write between any two pages.
    let query = ListQuery { limit: 7, ..ListQuery::default() };
    let mut steps = first.iter().enumerate();
    let mut between = async || {
        if let Some((step, goes)) = steps.next() {
            disturb(&*stores[0], &ada, id_at(now, 1_000 + step), *goes, stays[step]).await;
        }
    };
    let mut walked = Vec::new();
    let mut at = query.clone();
    loop {
        let page = stores[1].list(&ada, &at).await.unwrap();
        walked.extend(page.operations.iter().map(Operation::id));
        between().await;
        at.before = page.next;
        if at.before.is_none() {
            break;
        }
    }
    is_every_one_once(&walked, &stays);

    // And with tasks that do not wait for each other.
    let others: Arc<Vec<OperationId>> = Arc::new(others.to_vec());
    race((0..5).map(|task| {
        let (store, ada, query) = (stores[task % 3].clone(), ada.clone(), query.clone());
        let (stays, others) = (Arc::clone(&stays), Arc::clone(&others));
        async move {
            if task == 0 {
                for (step, goes) in others.iter().enumerate() {
                    disturb(&*store, &ada, id_at(now, 2_000 + step), *goes, stays[step]).await;
                    tokio::task::yield_now().await;
                }
                return;
            }
            for _ in 0..F::ROUNDS.div_ceil(10) {
                let (mut at, mut walked) = (query.clone(), Vec::new());
                loop {
                    let page = store.list(&ada, &at).await.unwrap();
                    walked.extend(page.operations.iter().map(Operation::id));
                    at.before = page.next;
                    if at.before.is_none() {
                        break;
                    }
                }
                is_every_one_once(&walked, &stays);
            }
        }
    }))
    .await;
    let left = listed(&*stores[2], &ada).await;
    assert_eq!(left.len(), ids.len(), "as many came as went");
    assert!(goes.iter().all(|id| !left.contains(id)));
}

fn id_at(start: Timestamp, number: usize) -> OperationId {
    let at = start + Duration::from_millis(u64::try_from(number).unwrap());
    OperationId::generate(at).expect("the operating system gives random bytes")
}

/// One operation comes, one goes, one changes.
async fn disturb(
    store: &impl OperationStore,
    owner: &Owner,
    comes: OperationId,
    goes: OperationId,
    changes: OperationId,
) {
    accept(store, NewOperation::new(comes).with_owner(owner.clone())).await;
    store.forget(owner, goes).await.unwrap();
    let attempt = found(store, changes).await.attempt();
    store.apply(changes, reported(attempt, "on")).await.unwrap();
}

#[track_caller]
fn is_every_one_once(walked: &[OperationId], stays: &[OperationId]) {
    assert!(walked.is_sorted_by(|newer, older| newer > older), "{walked:?} is out of order");
    let seen = walked.iter().filter(|id| stays.contains(id)).count();
    assert_eq!(seen, stays.len(), "some were there all the time and not seen");
}
