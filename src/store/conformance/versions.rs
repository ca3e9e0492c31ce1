//! Two versions of this crate at work on one store.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Fixture;
use super::race::race;
use super::samples::{
    LONG, accept, answer, claim, created, found, handles, is_refused, listed, new_operation,
    new_running, owner, reported, succeed,
};
use crate::operation::{Change, Due, Operation, Status, TransitionError};
use crate::store::{
    Acceptance, ApplyError, ClaimRequest, DueQuery, Full, Limits, ListQuery, OperationStore,
    OperationStoreExt, Submission, Swap, Swapped,
};

/// What a version to come writes next: a member that this one does not know, and if it is said a status
/// that this one may not know either.
fn by_newer(operation: &Operation, status: Option<&str>) -> Operation {
    let mut record: Map<String, Value> =
        serde_json::from_slice(&operation.to_record()).expect("a record is a JSON object");
    let status = status.map(|status| ("status", status.into()));
    let members = [
        ("version", (operation.version() + 1).into()),
        ("revision", (operation.revision() + 1).into()),
        ("zone", json!({ "name": "\u{0} \"é\"", "racks": [1, null] })),
    ];
    record.extend(members.into_iter().chain(status).map(|(name, value)| (name.into(), value)));
    let record = serde_json::to_vec(&record).expect("it was one");
    Operation::from_record(&record).expect("it is the record of an operation")
}

async fn write(store: &impl OperationStore, next: &Operation) {
    let swap = Swap::new(next.clone(), next.version() - 1);
    assert_eq!(store.swap(swap).await.unwrap(), Swapped::Swapped);
}

#[track_caller]
fn assert_zone(operation: &Operation) {
    let record: Value = serde_json::from_slice(&operation.to_record()).unwrap();
    assert_eq!(record["zone"], json!({ "name": "\u{0} \"é\"", "racks": [1, null] }));
}

/// A member of a record that only a newer version knows is there after whatever an older one does.
pub async fn c106_members_of_a_newer_version_are_kept<F: Fixture>(fixture: &F) {
    let [newer, older, _] = handles(fixture).await;
    let ada = owner("ada");
    let accepted = accept(&*newer, new_operation().with_owner(ada.clone())).await.operation;
    let id = accepted.id();
    write(&*newer, &by_newer(&accepted, None)).await;
    let claimed = claim(&*older, 1, LONG).await;
    assert_zone(claimed.first().expect("it can be claimed"));
    for change in [reported(1, "half"), Change::Renew { attempt: 1, lease: LONG }] {
        let changed = older.apply(id, change).await.unwrap().operation;
        assert_zone(&changed);
        assert_eq!(found(&*newer, id).await, changed);
    }
    assert_zone(&succeed(&*older, &claimed[0]).await);
    assert_zone(&found(&*newer, id).await);
    let page = newer.list(&ada, &ListQuery::default()).await.unwrap();
    assert_zone(&page.operations[0]);
}

/// An operation in a state that only a newer version knows is shown as running. Nothing is done to it:
/// it is not claimed, settled, canceled, forgotten or purged, and holds its place. The newer version goes
/// on with it.
pub async fn c107_an_unknown_state_is_left_alone<F: Fixture>(fixture: &F) {
    let [newer, older, _] = handles(fixture).await;
    let ada = owner("ada");
    let limits = Limits::default().with_total(3);
    let submission = |new| Submission::new(new).with_limits(limits);
    let mut suspended = Vec::new();
    for new in [
        new_operation().with_deadline(F::UNIT),
        new_running(F::UNIT).with_attempt_limit(1),
        new_running(F::UNIT),
    ] {
        let accepted = newer.accept(submission(new.with_owner(ada.clone()))).await.unwrap();
        let next = by_newer(&created(accepted).operation, Some("suspended"));
        write(&*newer, &next).await;
        suspended.push(next);
    }
    fixture.advance(F::UNIT * 10).await;

    assert_eq!(claim(&*older, 10, LONG).await, []);
    for due in Due::ALL {
        assert_eq!(older.due(&DueQuery::new(due, 10)).await.unwrap(), [], "{due:?}");
    }
    assert_eq!(older.purge(10).await.unwrap(), 0);
    for operation in &suspended {
        let id = operation.id();
        for change in [Change::Cancel, Change::Settle, reported(1, "half")] {
            let answer = older.apply(id, change).await;
            assert!(is_refused(&answer, TransitionError::UnknownState), "{answer:?}");
        }
        let answer = older.forget(&ada, id).await;
        assert!(matches!(answer, Err(ApplyError::NotFinished)), "{answer:?}");
        let shown = found(&*older, id).await;
        assert_eq!((shown.status(), &shown), (Status::Running, operation));
        assert_eq!(shown.to_record(), operation.to_record());
    }
    assert_eq!(listed(&*older, &ada).await.len(), 3);
    for (status, count) in [(Status::Running, 3), (Status::Pending, 0), (Status::Failed, 0)] {
        let query = ListQuery::default().with_status(status);
        let page = older.list(&ada, &query).await.unwrap();
        assert_eq!(page.operations.len(), count, "{status:?}");
    }
    let one_more = older.accept(submission(new_operation())).await.unwrap();
    assert_eq!(one_more, Acceptance::Full(Full::Total));

    for (operation, status) in suspended.iter().zip(["pending", "running", "running"]) {
        write(&*newer, &by_newer(operation, Some(status))).await;
    }
    // The deadline of one has passed, and no other attempt may follow that of the next.
    for operation in &suspended[..2] {
        let settled = older.apply(operation.id(), Change::Settle).await.unwrap().operation;
        assert_eq!(settled.status(), Status::Failed);
        assert_zone(&settled);
    }
    assert_eq!(claim(&*older, 10, LONG).await.len(), 1);
    created(older.accept(submission(new_operation())).await.unwrap());
}

/// Workers of two versions share a thousand operations, which go to and fro between them and between
/// states of which the older one knows nothing. All of them end, once, and nothing of them is lost.
pub async fn c108_two_versions_share_the_work<F: Fixture>(fixture: &F) {
    const OPERATIONS: usize = 1_000;
    const WORKERS: usize = 3;
    let [newer, older, other] = handles(fixture).await;
    race((0..10).map(|_| {
        let store = Arc::clone(&other);
        async move {
            for _ in 0..OPERATIONS / 10 {
                accept(&*store, new_operation()).await;
            }
        }
    }))
    .await;
    let by_both = Arc::new(Mutex::new(HashSet::new()));
    let ended = Arc::new(Mutex::new(Vec::new()));
    race((0..WORKERS * 2).map(|worker| {
        let is_newer = worker % 2 == 0;
        let store = Arc::clone(if is_newer { &newer } else { &older });
        let (by_both, ended) = (Arc::clone(&by_both), Arc::clone(&ended));
        async move {
            let request = ClaimRequest::new(7, LONG);
            // One thread may be quick enough to do all alone: the newer ones have to be heard of first.
            while !is_newer && by_both.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            while ended.lock().unwrap().len() < OPERATIONS {
                let claimed = store.claim(&request).await.unwrap();
                if claimed.is_empty() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                for observed in claimed {
                    let mut operation = observed.operation;
                    let (id, attempt) = (operation.id(), operation.attempt());
                    if is_newer && attempt == 1 {
                        for status in ["suspended", "running"] {
                            operation = by_newer(&operation, Some(status));
                            write(&*store, &operation).await;
                        }
                        by_both.lock().unwrap().insert(id);
                        store.apply(id, Change::Release { attempt }).await.unwrap();
                        continue;
                    }
                    let is_by_both = by_both.lock().unwrap().contains(&id);
                    let last = succeed(&*store, &operation).await;
                    if is_by_both {
                        assert_zone(&last);
                    }
                    ended.lock().unwrap().push(last);
                }
            }
        }
    }))
    .await;
    let ended = std::mem::take(&mut *ended.lock().unwrap());
    assert_eq!(ended.len(), OPERATIONS);
    assert_eq!(ended.iter().map(Operation::id).collect::<HashSet<_>>().len(), OPERATIONS);
    assert!(!by_both.lock().unwrap().is_empty());
    for last in &ended {
        assert_eq!(found(&*other, last.id()).await, *last);
        assert_eq!(other.outcome(last.id()).await.unwrap(), Some(answer("done")));
    }
}
