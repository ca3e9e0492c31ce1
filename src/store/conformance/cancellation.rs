//! A cancellation tells the truth, and what was canceled does not run again.

use super::Fixture;
use super::crash::after_kill;
use super::race::race_two;
use super::samples::{
    LONG, accept, accept_running, answer, claim, claim_one, found, handles, is_refused, new_id,
    new_operation, new_running, nothing, owner, retried, succeed, succeeded,
};
use crate::operation::{Change, Due, Status, TransitionError};
use crate::store::{ApplyError, DueQuery, OperationStore, OperationStoreExt};

/// A pending operation is canceled at once, and nobody ever claims it.
pub async fn c70_canceled_while_pending_it_never_runs<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    for new in
        [new_operation(), new_operation().with_delay(F::UNIT), new_operation().held(F::UNIT, false)]
    {
        let id = accept(&*store, new).await.operation.id();
        let canceled = store.apply(id, Change::Cancel).await.unwrap().operation;
        assert_eq!(canceled.status(), Status::Canceled);
        assert_eq!(found(&*other, id).await, canceled);
    }
    fixture.advance(F::UNIT).await;
    assert_eq!(claim(&*other, 10, LONG).await, []);
    assert_eq!(other.due(&DueQuery::new(Due::Settle, 10)).await.unwrap(), []);
}

/// A running operation notes the request; its worker sees that at its next renewal at the latest,
/// and may confirm it.
pub async fn c71_a_running_worker_sees_the_request<F: Fixture>(fixture: &F) {
    let [client, worker, _] = handles(fixture).await;
    let id = accept_running(&*client).await.operation.id();
    let early = worker.apply(id, Change::ConfirmCancel { attempt: 1 }).await;
    assert!(is_refused(&early, TransitionError::CancelNotRequested), "{early:?}");
    let asked = client.apply(id, Change::Cancel).await.unwrap().operation;
    assert!(asked.is_cancel_requested());
    assert_eq!(asked.status(), Status::Running);

    let renewed = worker.apply(id, Change::Renew { attempt: 1, lease: LONG }).await.unwrap();
    assert!(renewed.operation.is_cancel_requested());
    let ended = worker.apply(id, Change::ConfirmCancel { attempt: 1 }).await.unwrap().operation;
    assert_eq!(ended.status(), Status::Canceled);
    assert_eq!(found(&*client, id).await, ended);
}

/// Cancellation racing a claim: it is canceled and nobody has it, or somebody has it and the
/// request is noted.
pub async fn c72_cancellation_and_claim_agree<F: Fixture>(fixture: &F) {
    let [client, worker, reader] = handles(fixture).await;
    for _ in 0..F::ROUNDS {
        let id = accept(&*client, new_operation()).await.operation.id();
        let (client, worker) = (client.clone(), worker.clone());
        let (canceled, claimed) = race_two(
            async move { client.apply(id, Change::Cancel).await.unwrap().operation },
            async move { claim(&*worker, 1, LONG).await },
        )
        .await;
        let current = found(&*reader, id).await;
        assert_eq!(canceled, current, "the answer is what is read after it");
        if claimed.is_empty() {
            assert_eq!((current.status(), current.attempt()), (Status::Canceled, 0));
        } else {
            assert_eq!((current.status(), current.attempt()), (Status::Running, 1));
            assert!(current.is_cancel_requested());
            reader.apply(id, Change::ConfirmCancel { attempt: 1 }).await.unwrap();
        }
    }
}

/// Cancellation racing the end of the work: its answer agrees with what is read afterwards. A noted
/// request does not undo the success that follows.
pub async fn c73_cancellation_and_completion_agree<F: Fixture>(fixture: &F) {
    let [client, worker, reader] = handles(fixture).await;
    for _ in 0..F::ROUNDS {
        let id = accept_running(&*client).await.operation.id();
        let (client, worker) = (client.clone(), worker.clone());
        let outcome = answer("done");
        let change = succeeded(1, &outcome);
        let (canceled, ended) =
            race_two(async move { client.apply(id, Change::Cancel).await }, async move {
                worker.apply_with(id, change, Some(outcome), nothing).await
            })
            .await;
        let ended = ended.expect("the holder may finish").operation;
        assert_eq!(found(&*reader, id).await, ended);
        assert_eq!(ended.status(), Status::Succeeded);
        match canceled {
            Ok(noted) => {
                assert_eq!(noted.operation.status(), Status::Running);
                assert!(noted.operation.is_cancel_requested());
                assert!(noted.operation.revision() < ended.revision());
            }
            Err(ApplyError::Refused(TransitionError::Finished, current)) => {
                assert_eq!(current.operation, ended);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// If the worker vanishes after the request, alone or with all processes, the operation is canceled,
/// and the work does not run again.
pub async fn c74_a_vanished_worker_ends_a_requested_cancellation<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let id = accept(&*store, new_running(F::UNIT)).await.operation.id();
    store.apply(id, Change::Cancel).await.unwrap();
    fixture.advance(F::UNIT).await;
    assert_eq!(claim(&*other, 1, LONG).await, [], "it may not run again");
    let due = other.due(&DueQuery::new(Due::Settle, 10)).await.unwrap();
    assert_eq!(due.len(), 1);
    let ended = other.apply(id, Change::Settle).await.unwrap().operation;
    assert_eq!(ended.status(), Status::Canceled);
    assert_eq!(found(&*store, id).await, ended);

    // Everybody vanishes: the one that asked, the worker, and whoever would settle it.
    let id = accept(&*store, new_running(F::UNIT)).await.operation.id();
    let asked = store.apply(id, Change::Cancel).await.unwrap().operation;
    let ([store, other, _], survives) = after_kill(fixture).await;
    if !survives {
        assert_eq!(store.get(id).await.unwrap(), None);
        return;
    }
    assert_eq!(found(&*store, id).await, asked);
    fixture.advance(F::UNIT).await;
    assert_eq!(claim(&*other, 1, LONG).await, [], "it may not run again");
    let ended = other.apply(id, Change::Settle).await.unwrap().operation;
    assert_eq!(ended.status(), Status::Canceled);
    assert_eq!(found(&*store, id).await, ended);
}

/// If the worker wants another attempt after the request, or gives the work back, the operation is
/// canceled. So it is if it wants that at the very moment of the request.
pub async fn c75_no_attempt_follows_a_request<F: Fixture>(fixture: &F) {
    let [client, worker, reader] = handles(fixture).await;
    for change in [retried(1, std::time::Duration::ZERO), Change::Release { attempt: 1 }] {
        let id = accept_running(&*client).await.operation.id();
        client.apply(id, Change::Cancel).await.unwrap();
        let ended = worker.apply(id, change.clone()).await.unwrap().operation;
        assert_eq!(ended.status(), Status::Canceled);
        assert_eq!(found(&*reader, id).await, ended);

        for _ in 0..F::ROUNDS.div_ceil(2) {
            let id = accept_running(&*client).await.operation.id();
            let (client, worker, change) = (client.clone(), worker.clone(), change.clone());
            let (canceled, given_back) =
                race_two(async move { client.apply(id, Change::Cancel).await }, async move {
                    worker.apply(id, change).await
                })
                .await;
            canceled.expect("it is live until the request");
            given_back.expect("the worker holds it");
            assert_eq!(found(&*reader, id).await.status(), Status::Canceled);
        }
    }
    assert_eq!(claim(&*reader, 10, LONG).await, []);
}

/// What is finished, expired or unknown is not canceled, and the answer says which. Somebody else's
/// is as unknown. Asking twice is asking once.
pub async fn c76_there_is_nothing_to_cancel<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let unknown = store.apply(new_id(), Change::Cancel).await;
    assert!(matches!(unknown, Err(ApplyError::Gone)), "{unknown:?}");

    let new = new_running(LONG).with_owner(owner("ada")).with_retention(F::UNIT);
    let begun = accept(&*store, new).await.operation;
    let id = begun.id();
    let foreign = store.find(&owner("bob"), id).await.unwrap();
    assert_eq!(foreign, None, "there is nothing that bob could cancel");
    let once = store.apply(id, Change::Cancel).await.unwrap().operation;
    let twice = other.apply(id, Change::Cancel).await.unwrap().operation;
    assert_eq!(once, twice);
    assert_eq!(found(&*store, id).await, once);

    let ended = succeed(&*store, &begun).await;
    let late = other.apply(id, Change::Cancel).await;
    assert!(is_refused(&late, TransitionError::Finished), "{late:?}");
    assert_eq!(found(&*store, id).await, ended);
    fixture.advance(F::UNIT).await;
    let expired = other.apply(id, Change::Cancel).await;
    assert!(matches!(expired, Err(ApplyError::Gone)), "{expired:?}");

    accept(&*store, new_operation()).await;
    let next = claim_one(&*store, LONG).await;
    assert_ne!(next.id(), id);
}
