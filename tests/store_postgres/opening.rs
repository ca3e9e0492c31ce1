//! What a server can be like when a store is opened.

use std::io::{Read, Write};

use respond_async::operation::{Change, NewOperation};
use respond_async::store::{
    Acceptance, ClaimRequest, Durability, Fingerprint, Idempotency, IdempotencyKey, Limits,
    OperationStoreExt, PostgresOpenError, PostgresOpenErrorKind, Submission,
};
use respond_async::time::{Clock, SystemClock};
use respond_async::{OperationId, Outcome, Owner};

use super::*;
use servers::Server;

fn kind<T: std::fmt::Debug>(opened: Result<T, PostgresOpenError>) -> PostgresOpenErrorKind {
    opened.unwrap_err().kind()
}

async fn open_in(schema: &str) -> Result<PostgresStore, PostgresOpenError> {
    let url = servers::shared("POSTGRES_URL");
    PostgresStore::builder(&url).unwrap().schema(schema).open().await
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn many_replicas_make_the_tables_at_once() {
    let place = InSchema::<PostgresStore>::empty().await;
    let openers: Vec<_> = (0..12)
        .map(|_| {
            let schema = place.schema.clone();
            tokio::spawn(async move { open_in(&schema).await })
        })
        .collect();
    for opener in openers {
        opener.await.unwrap().unwrap();
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn tables_of_a_newer_version_are_left_alone() {
    let place = InSchema::<PostgresStore>::empty().await;
    drop(place.open().await);
    let client = client(&servers::shared("POSTGRES_URL")).await;
    let newer = format!("UPDATE {}.schema_version SET version = 99", place.schema);
    client.batch_execute(&newer).await.unwrap();
    let error = open_in(&place.schema).await.unwrap_err();
    assert_eq!(error.kind(), PostgresOpenErrorKind::Newer);
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_pooler_that_would_make_it_deaf_is_refused() {
    let server = Server::start(Sort::Postgres);
    let port = server.port().to_string();
    for (mode, refused) in [("transaction", Some(PostgresOpenErrorKind::Pooled)), ("session", None)]
    {
        let pooler = Server::start_with(Sort::PgBouncer, &[&port, mode]);
        let opened = PostgresStore::open(&pooler.url()).await;
        assert_eq!(opened.as_ref().err().map(PostgresOpenError::kind), refused);
        let Ok(store) = opened else { continue };
        // Through sessions of its own it hears.
        is_heard(&store).await;
        let id = OperationId::generate(SystemClock.now()).unwrap();
        store.accept(Submission::new(NewOperation::new(id))).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn migrations_can_be_run_by_hand() {
    let server = Server::start(Sort::Postgres);
    let ours = client(&server.url()).await;
    ours.batch_execute("CREATE ROLE service LOGIN").await.unwrap();
    let url = server.url().replace("postgres@", "service@");
    let builder = PostgresStore::builder(&url).unwrap().migrate(false);
    assert_eq!(kind(builder.clone().open().await), PostgresOpenErrorKind::NotMigrated);
    ours.batch_execute(&PostgresStore::migrations("respond_async", 0)).await.unwrap();
    let version = ours.query_one("SELECT version FROM respond_async.schema_version", &[]).await;
    let version = usize::try_from(version.unwrap().get::<_, i32>(0)).unwrap();
    assert_eq!(PostgresStore::migrations("respond_async", version), "");
    assert_eq!(kind(builder.clone().open().await), PostgresOpenErrorKind::NotAllowed);

    // The rights that the page names are enough for all that becomes of an operation.
    let page = include_str!("../../docs/stores.md");
    let (_, grants) = page.split_once("```sql\n").unwrap();
    ours.batch_execute(grants.split_once("```").unwrap().0).await.unwrap();
    let store = builder.open().await.unwrap();
    is_heard(&store).await;
    let submission = || {
        let new = super::on_server::new().with_owner(Owner::new("ann").unwrap());
        Submission::new(new.with_retention(Duration::ZERO))
            .with_input("work")
            .with_limits(Limits::default().with_total(5).with_owner(5))
            .with_idempotency(Idempotency {
                scope: "POST /".into(),
                key: IdempotencyKey::new("k").unwrap(),
                fingerprint: Fingerprint([1; 32]),
            })
    };
    let accepted = store.submit(submission()).await.unwrap();
    assert!(matches!(accepted, Acceptance::Created(_)), "{accepted:?}");
    let again = store.submit(submission()).await.unwrap();
    assert!(matches!(again, Acceptance::Existing(_)), "{again:?}");
    let claimed = store.claim(&ClaimRequest::new(9, Duration::from_secs(60))).await.unwrap();
    let id = claimed[0].operation.id();
    assert_eq!(store.input(id).await.unwrap().unwrap(), "work");
    let outcome = Outcome::default();
    let end = Change::Succeed { attempt: 1, head: outcome.head() };
    store
        .apply_with(id, end, Some(outcome), |_| vec![Submission::new(super::on_server::new())])
        .await
        .unwrap();
    store.outcome(id).await.unwrap();
    while store.purge(9).await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whatever the role or the database is set to, an acknowledgement waits for the disk; whether that itself waits is the
/// server's setting, and told.
#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn what_a_commit_waits_for_is_seen_to_and_told() {
    let server = Server::start(Sort::Postgres);
    let ours = client(&server.url()).await;
    ours.batch_execute("ALTER ROLE postgres SET synchronous_commit = off").await.unwrap();
    let store = PostgresStore::open(&server.url()).await.unwrap();
    assert_eq!(store.capabilities().durability, Durability::PowerLoss);
    ours.batch_execute(
        "CREATE TABLE waits (for_what text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO waits VALUES (current_setting('synchronous_commit')); RETURN NULL; END$$;
        CREATE TRIGGER note AFTER INSERT OR UPDATE ON respond_async.operations
            FOR EACH ROW EXECUTE FUNCTION note()",
    )
    .await
    .unwrap();
    store.accept(Submission::new(super::on_server::new())).await.unwrap();
    store.claim(&ClaimRequest::new(1, Duration::from_secs(60))).await.unwrap();
    let waits = ours.query("SELECT for_what FROM waits", &[]).await.unwrap();
    assert_eq!(waits.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["on", "on"]);

    ours.batch_execute("ALTER SYSTEM SET fsync = off").await.unwrap();
    ours.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    while ours.query_one("SHOW fsync", &[]).await.unwrap().get::<_, &str>(0) == "on" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let store = PostgresStore::open(&server.url()).await.unwrap();
    assert_eq!(store.capabilities().durability, Durability::ProcessCrash);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn the_name_of_a_schema_is_never_a_statement() {
    let schema = format!("a \"b\"; DROP {}", unique("odd"));
    let store = open_in(&schema).await.unwrap();
    let id = OperationId::generate(SystemClock.now()).unwrap();
    store.accept(Submission::new(NewOperation::new(id))).await.unwrap();
    assert!(store.get(id).await.unwrap().is_some());
    drop(store);
    let drop = format!("DROP SCHEMA \"{}\" CASCADE", schema.replace('"', "\"\""));
    client(&servers::shared("POSTGRES_URL")).await.batch_execute(&drop).await.unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn whatever_a_schema_is_called_its_limits_hold_and_word_of_it_is_heard() {
    let url = servers::shared("POSTGRES_URL");
    for schema in [unique("it's"), unique(&"名".repeat(18))] {
        let store = open_in(&schema).await.unwrap();
        let limits = Limits::default().with_total(1);
        let limited = || Submission::new(super::on_server::new()).with_limits(limits);
        let first = store.accept(limited()).await.unwrap();
        assert!(matches!(first, Acceptance::Created(_)), "{first:?}");
        let second = store.accept(limited()).await.unwrap();
        assert!(matches!(second, Acceptance::Full(_)), "{second:?}");
        is_heard(&store).await;
        drop(store);
        let drop = format!("DROP SCHEMA \"{schema}\" CASCADE");
        client(&url).await.batch_execute(&drop).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn limits_hold_whatever_isolation_is_the_default() {
    const LIMIT: usize = 5;
    let place = InSchema::<PostgresStore>::empty().await;
    let strict = "options=-c%20default_transaction_isolation%3Drepeatable%5C%20read";
    let url = format!("{}?{strict}", servers::shared("POSTGRES_URL"));
    let mut calls = Vec::new();
    for _ in 0..4 {
        let builder = PostgresStore::builder(&url).unwrap().schema(&place.schema);
        let store = builder.open().await.unwrap();
        calls.extend((0..16).map(|_| {
            let limits = Limits::default().with_total(LIMIT);
            let submission = Submission::new(super::on_server::new()).with_limits(limits);
            let store = store.clone();
            async move { store.accept(submission).await.unwrap() }
        }));
    }
    let calls = calls.into_iter().map(tokio::spawn).collect::<Vec<_>>();
    let mut accepted = 0;
    for call in calls {
        accepted += usize::from(matches!(call.await.unwrap(), Acceptance::Created(_)));
    }
    assert_eq!(accepted, LIMIT);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn what_is_set_out_of_range_is_brought_into_it() {
    let url = servers::shared("POSTGRES_URL");
    for time in [Duration::ZERO, Duration::MAX] {
        let place = InSchema::<PostgresStore>::empty().await;
        let builder = PostgresStore::builder(&url).unwrap().schema(&place.schema);
        let builder = builder.watch_interval(time).queue(usize::MAX).readers(0).writers(0);
        let builder = if time.is_zero() { builder } else { builder.call_timeout(time) };
        let store = builder.application_name(&place.schema).open().await.unwrap();
        store.accept(Submission::new(super::on_server::new())).await.unwrap();
        is_heard(&store).await;
    }
}

async fn is_heard(store: &PostgresStore) {
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if store.is_listening() {
            return;
        }
    }
    panic!("it hears nothing");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_wrong_database_and_a_wrong_user_are_refused() {
    let url = servers::shared("POSTGRES_URL");
    let (server, _) = url.rsplit_once('/').unwrap();
    let opened = PostgresStore::open(&format!("{server}/no_such_database")).await;
    assert_eq!(kind(opened), PostgresOpenErrorKind::Refused);
    let (_, host) = server.rsplit_once('@').unwrap();
    let opened = PostgresStore::open(&format!("postgres://nobody@{host}/postgres")).await;
    assert_eq!(kind(opened), PostgresOpenErrorKind::Refused);
}

#[tokio::test]
async fn a_password_that_is_missing_is_no_matter_of_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut start_up = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 4];
        stream.read_exact(&mut start_up).unwrap();
        // It wants a password in clear text, and waits for it.
        stream.write_all(b"R\0\0\0\x08\0\0\0\x03").unwrap();
        let _ = stream.read(&mut length);
    });
    let error = PostgresStore::open(&format!("postgres://x@127.0.0.1:{port}/x")).await.unwrap_err();
    assert_eq!(error.kind(), PostgresOpenErrorKind::Refused, "{error:?}");
    assert!(!error.is_retryable());
    server.join().unwrap();
}

#[tokio::test]
async fn nobody_there_is_told_in_time() {
    let port = servers::free_port();
    let began = std::time::Instant::now();
    let opened = PostgresStore::open(&format!("postgres://x@127.0.0.1:{port}/x")).await;
    assert_eq!(kind(opened), PostgresOpenErrorKind::Unreachable);
    // One that takes connections and says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let opened = PostgresStore::open(&format!("postgres://x@127.0.0.1:{port}/x")).await;
    assert_eq!(kind(opened), PostgresOpenErrorKind::Unreachable);
    assert!(began.elapsed() < PostgresStore::DEFAULT_CONNECT_TIMEOUT * 4);
    let error = PostgresStore::builder("postgres://x@127.0.0.1/x?bogus=1").unwrap_err();
    assert_eq!(error.kind(), PostgresOpenErrorKind::Config);
}
