//! Callers that go away, and work that is accepted in a transaction of the caller's.

use std::future::poll_fn;

use respond_async::operations::{Job, JobPolicy};
use respond_async::prefer::Preferences;
use respond_async::problem::types;
use respond_async::respond::Created;
use respond_async::store::{
    Acceptance, ClaimRequest, Fingerprint, Hint, Hints, Idempotency, IdempotencyKey,
    OperationStoreExt, Submission,
};
use respond_async::{Operations, Owner, Status};
use serde::{Deserialize, Serialize};

use super::on_server::new;
use super::*;

/// Listens until that hint comes.
async fn hear(hints: &mut Box<dyn Hints>, wanted: Hint) {
    let heard = async { while poll_fn(|cx| hints.poll_hint(cx)).await != Some(wanted) {} };
    let heard = tokio::time::timeout(Duration::from_secs(5), heard).await;
    assert!(heard.is_ok(), "{wanted:?} is not heard");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_service_commits_its_own_rows_and_the_work_together() {
    let place = InSchema::<PostgresStore>::at(apart().await);
    let store = place.open().await;
    let mut client = client(&place.server).await;
    let table = format!("{}.users", place.schema);
    client.batch_execute(&format!("CREATE TABLE {table} (name text PRIMARY KEY)")).await.unwrap();
    let insert = format!("INSERT INTO {table} VALUES ('ann')");
    let key = |request| Idempotency {
        scope: "POST /users".into(),
        key: IdempotencyKey::new("k").unwrap(),
        fingerprint: Fingerprint([request; 32]),
    };
    let submission = || Submission::new(new()).with_input("work").with_idempotency(key(1));

    let transaction = client.transaction().await.unwrap();
    transaction.execute(&insert, &[]).await.unwrap();
    let accepted = store.accept_in(&transaction, submission()).await.unwrap();
    let Acceptance::Created(undone) = accepted else { panic!("{accepted:?}") };
    transaction.rollback().await.unwrap();
    assert_eq!(store.get(undone.operation.id()).await.unwrap(), None);

    let transaction = client.transaction().await.unwrap();
    transaction.execute(&insert, &[]).await.unwrap();
    let accepted = store.accept_in(&transaction, submission()).await.unwrap();
    let Acceptance::Created(done) = accepted else { panic!("{accepted:?}") };
    // Nobody sees it before the commit.
    assert_eq!(store.get(done.operation.id()).await.unwrap(), None);
    transaction.commit().await.unwrap();
    let mut hints = store.hints().unwrap();
    store.wake();
    hear(&mut hints, Hint::Claimable).await;
    let claimed = store.claim(&ClaimRequest::new(9, Duration::from_secs(60))).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].operation.id(), done.operation.id());
    assert_eq!(store.input(done.operation.id()).await.unwrap().unwrap(), "work");

    let transaction = client.transaction().await.unwrap();
    let again = store.accept_in(&transaction, submission()).await.unwrap();
    assert!(matches!(again, Acceptance::Existing(it) if it.operation.id() == done.operation.id()));
    let other = Submission::new(new()).with_idempotency(key(2));
    assert_eq!(store.accept_in(&transaction, other).await.unwrap(), Acceptance::KeyReused);
    transaction.commit().await.unwrap();
}

#[derive(Serialize, Deserialize)]
struct Ship {
    order: u32,
}

impl Job for Ship {
    const KIND: &'static str = "orders.ship";
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn what_is_accepted_in_a_transaction_keeps_to_its_policy() {
    const DAY: Duration = Duration::from_secs(86_400);
    let place = InSchema::<PostgresStore>::at(apart().await);
    let store = place.open().await;
    let policy = JobPolicy::new().never_twice().with_deadline(DAY).with_retention(3 * DAY);
    let operations = Operations::builder(store.clone())
        .live_limit(1)
        .poll_interval(DAY)
        .job_with(policy, async |ship: Ship, _| Created::at(format!("/orders/{}", ship.order)))
        .start();
    let none = Preferences::default();
    let ship = || operations.kick_off(&none).submission(&Ship { order: 17 }).unwrap();
    let mut client = client(&place.server).await;
    let transaction = client.transaction().await.unwrap();
    let accepted = store.accept_in(&transaction, ship()).await.unwrap();
    let full = store.accept_in(&transaction, ship()).await.unwrap();
    transaction.commit().await.unwrap();

    let accepted = operations.accepted::<Ship>(accepted).unwrap();
    let operation = &accepted.operation;
    assert_eq!(operation.attempt_limit(), 1);
    assert_eq!(operation.deadline(), Some(operation.created() + DAY));
    let refused = operations.accepted::<Ship>(full).unwrap_err();
    assert!(refused.is(types::OVERLOADED) && refused.retry_after().is_some(), "{refused}");
    // The workers were told, a day before they would look.
    let finished = async {
        loop {
            let now = store.get(operation.id()).await.unwrap().unwrap();
            if now.operation.status().is_finished() {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let now = tokio::time::timeout(Duration::from_secs(20), finished).await.unwrap();
    assert_eq!(now.operation.status(), Status::Succeeded);
    assert_eq!(now.operation.expires(), Some(now.operation.updated() + 3 * DAY));
    let (_, outcome) = operations.outcome(&Owner::anonymous(), operation.id()).await.unwrap();
    assert_eq!(outcome.unwrap().headers["location"], "/orders/17");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_caller_that_goes_away_cuts_nothing_off() {
    let place = InSchema::<PostgresStore>::at(apart().await);
    let store = place.open().await;
    let mut ids = Vec::new();
    for number in 0..200_u64 {
        let new = new();
        ids.push(new.id());
        let accept = store.submit(Submission::new(new));
        // Some before they are sent, some in the middle.
        let patience = Duration::from_micros(number * 5);
        let _ = tokio::time::timeout(patience, accept).await;
    }
    // What each left is all or nothing, and the connections are sound.
    let mut there = 0;
    for id in ids {
        there += usize::from(store.get(id).await.unwrap().is_some());
    }
    assert!(there > 0, "no call came through");
    let client = client(&place.server).await;
    let counts = format!(
        "SELECT (SELECT count(*) FROM {0}.operations), (SELECT sum(count)::int8 FROM {0}.live)",
        place.schema
    );
    let row = client.query_one(&counts, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), row.get::<_, i64>(1));
}
