//! Word of changes between processes, and work that is accepted in a transaction of the caller's.

use std::future::poll_fn;
use std::time::Instant;

use respond_async::OperationId;
use respond_async::operation::{Change, NewOperation};
use respond_async::store::{
    Acceptance, ClaimRequest, Fingerprint, Hint, Hints, Idempotency, IdempotencyKey,
    OperationStoreExt, Submission,
};
use respond_async::time::{Clock, SystemClock};

use super::*;

fn new() -> NewOperation {
    NewOperation::new(OperationId::generate(SystemClock.now()).unwrap())
}

/// Listens until that hint comes.
async fn hear(hints: &mut Box<dyn Hints>, wanted: Hint) {
    let heard = async { while poll_fn(|cx| hints.poll_hint(cx)).await != Some(wanted) {} };
    let heard = tokio::time::timeout(Duration::from_secs(5), heard).await;
    assert!(heard.is_ok(), "{wanted:?} is not heard");
}

async fn until_heard(store: &PostgresStore) {
    let began = Instant::now();
    while !store.is_listening() {
        assert!(began.elapsed() < Duration::from_secs(10), "it does not hear itself");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn another_process_learns_of_each_change_by_its_id() {
    let place = InSchema::<PostgresStore>::empty().await;
    let (one, other) = (place.open().await, place.open().await);
    let mut hints = other.hints().unwrap();
    until_heard(&one).await;
    until_heard(&other).await;
    let new = new();
    let id = new.id();
    one.accept(Submission::new(new)).await.unwrap();
    hear(&mut hints, Hint::Claimable).await;
    one.apply(id, Change::Cancel).await.unwrap();
    hear(&mut hints, Hint::Changed(id)).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_listener_that_was_cut_off_says_so_and_hears_again() {
    let place = InSchema::<PostgresStore>::empty().await;
    let (one, other) = (place.open().await, place.open().await);
    until_heard(&one).await;
    until_heard(&other).await;
    let mut hints = other.hints().unwrap();
    place.kill().await;
    hear(&mut hints, Hint::Missed).await;
    let began = Instant::now();
    loop {
        let new = new();
        let id = new.id();
        if one.submit(Submission::new(new)).await.is_ok() {
            let heard =
                tokio::time::timeout(Duration::from_secs(1), hear(&mut hints, Hint::Changed(id)));
            if heard.await.is_ok() {
                return;
            }
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it stays deaf");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_service_commits_its_own_rows_and_the_work_together() {
    let place = InSchema::<PostgresStore>::empty().await;
    let store = place.open().await;
    let mut client = client(&servers::shared("POSTGRES_URL")).await;
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

/// The child of the test below: sends two thirds of the keys.
#[tokio::test]
#[ignore = "it is the child of another test"]
async fn sender() {
    let Ok(schema) = std::env::var("SENDER_SCHEMA") else { return };
    let which: usize = std::env::var("SENDER").unwrap().parse().unwrap();
    let url = servers::shared("POSTGRES_URL");
    let store = PostgresStore::builder(&url).unwrap().schema(schema).open().await.unwrap();
    let mut calls = Vec::new();
    for number in (0..10_000_usize).filter(|number| number % 3 != which) {
        let store = store.clone();
        let idempotency = Idempotency {
            scope: "POST /".into(),
            key: IdempotencyKey::new(format!("key {number}")).unwrap(),
            fingerprint: Fingerprint([7; 32]),
        };
        let submission = Submission::new(new()).with_idempotency(idempotency);
        calls.push(tokio::spawn(async move { store.submit(submission).await.unwrap() }));
        if calls.len() == 200 {
            for call in calls.drain(..) {
                call.await.unwrap();
            }
        }
    }
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn three_processes_that_are_sent_each_key_twice_make_one_operation_of_it() {
    let place = InSchema::<PostgresStore>::empty().await;
    let senders: Vec<_> = (0..3)
        .map(|which| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["word::sender", "--exact", "--ignored"])
                .env("SENDER_SCHEMA", &place.schema)
                .env("SENDER", which.to_string())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut sender in senders {
        assert!(sender.wait().unwrap().success());
    }
    let client = client(&servers::shared("POSTGRES_URL")).await;
    for (table, rows) in [("operations", 10_000_i64), ("keys", 10_000)] {
        let count = format!("SELECT count(*) FROM {}.{table}", place.schema);
        assert_eq!(client.query_one(&count, &[]).await.unwrap().get::<_, i64>(0), rows);
    }
}
