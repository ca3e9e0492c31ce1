//! What can go wrong on a server that is there: what callers are told, and who has to wait for whom.

use respond_async::operation::{Change, Due, Kind};
use respond_async::store::{
    Acceptance, ClaimRequest, DueQuery, Limits, OperationStoreExt, StoreErrorKind, Submission,
};
use respond_async::time::{Clock, SystemClock};
use respond_async::{Operation, Owner, Status};
use std::error::Error;
use tokio::time::{sleep, timeout};

use super::on_server::proxy::{Loss, Way};
use super::on_server::{accept_large, new, read_all};
use super::*;

/// The processes of the server that the store's connections lead to.
async fn processes(client: &Client, name: &str) -> Vec<i32> {
    let query = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY pid";
    client.query(query, &[&name]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn what_the_server_says_of_one_call_reaches_its_caller() {
    let place = InSchema::<PostgresStore>::at(apart().await);
    let store = place.open().await;
    let client = client(&place.server).await;
    store.accept(Submission::new(new())).await.unwrap();
    while !store.is_listening() {
        sleep(Duration::from_millis(10)).await;
    }
    let before = processes(&client, &place.schema).await;
    client.batch_execute(&format!("DROP TABLE {}.keys", place.schema)).await.unwrap();
    for _ in 0..3 {
        let error = store.accept(Submission::new(new())).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        let said = error.source().unwrap().to_string();
        assert!(said.contains("does not exist") && said.contains("42P01"), "{said}");
    }
    // No connection was given up for it.
    assert_eq!(processes(&client, &place.schema).await, before);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn what_the_server_gives_up_leaves_no_doubt() {
    let place = InSchema::<PostgresStore>::at(apart().await);
    let url = &place.server;
    let builder = PostgresStore::builder(url).unwrap().schema(&place.schema);
    let store = builder.application_name(&place.schema).open().await.unwrap();
    store.accept(Submission::new(new())).await.unwrap();
    while !store.is_listening() {
        sleep(Duration::from_millis(10)).await;
    }
    let mut client = client(url).await;
    let before = processes(&client, &place.schema).await;
    let transaction = client.transaction().await.unwrap();
    let lock = format!("LOCK TABLE {}.inputs IN ACCESS EXCLUSIVE MODE", place.schema);
    transaction.batch_execute(&lock).await.unwrap();
    let error = store.accept(Submission::new(new())).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    transaction.rollback().await.unwrap();
    assert_eq!(processes(&client, &place.schema).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_limit_of_each_owner_is_no_limit_of_all_who_have_no_name() {
    let place = InSchema::<PostgresStore>::at(apart().await);
    let store = place.open().await;
    for limit in [0, 10] {
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let limits = Limits::default().with_owner(limit);
                let (store, call) = (store.clone(), Submission::new(new()).with_limits(limits));
                tokio::spawn(async move { store.accept(call).await.unwrap() })
            })
            .collect();
        for call in calls {
            let accepted = call.await.unwrap();
            assert!(matches!(accepted, Acceptance::Created(_)), "{accepted:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_server_that_takes_no_more_writes_is_left_for_one_that_does() {
    let first = servers::Server::start(Sort::Postgres);
    let place = InSchema::<PostgresStore>::empty().await;
    let url = &place.server;
    let other = url.split_once('@').unwrap().1.split_once('/').unwrap().0;
    let both = format!("postgres://postgres@127.0.0.1:{},{other}/postgres", first.port());
    let open =
        async |url: &str| PostgresStore::builder(url).unwrap().schema(&place.schema).open().await;
    let there = open(url).await.unwrap();
    let store = open(&both).await.unwrap();
    let id = store.submit(Submission::new(new())).await.unwrap();
    let Acceptance::Created(created) = id else { panic!() };
    assert_eq!(there.get(created.operation.id()).await.unwrap(), None);

    // As after a failover, only that it keeps its connections.
    let client = client(&first.url()).await;
    let setting = "ALTER SYSTEM SET default_transaction_read_only = on";
    client.batch_execute(setting).await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let began = std::time::Instant::now();
    loop {
        let new = new();
        let id = new.id();
        match store.accept(Submission::new(new)).await {
            // Until the server has heard of it.
            Ok(_) if there.get(id).await.unwrap().is_none() => {}
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it stays where nothing is written");
        sleep(Duration::from_millis(20)).await;
    }
    // One that can only be read is not opened.
    let error = open(&first.url()).await.unwrap_err();
    assert_eq!(error.kind(), respond_async::store::PostgresOpenErrorKind::ReadOnly);
    assert!(error.is_retryable());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_transaction_that_stays_open_holds_up_its_owner_alone() {
    let place = InSchema::<PostgresStore>::at(apart().await);
    let url = &place.server;
    let mut client = client(url).await;
    let open = || async {
        let builder = PostgresStore::builder(url).unwrap().schema(&place.schema);
        builder.call_timeout(Duration::from_secs(4)).open().await.unwrap()
    };
    let store = open().await;
    let new_of = |name: &str| new().with_owner(Owner::new(name).unwrap());
    let limited = |name: &str, is_limited: bool| {
        let limits = Limits::default().with_total(1_000_000);
        let limits = if is_limited { limits.with_owner(1_000) } else { limits };
        Submission::new(new_of(name)).with_limits(limits)
    };
    // What is there before, to end while the transaction is open.
    let (mut anns, mut bobs) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        for (name, ids) in [("ann", &mut anns), ("bob", &mut bobs)] {
            let new = new_of(name);
            ids.push(new.id());
            store.accept(Submission::new(new)).await.unwrap();
        }
    }
    let transaction = client.transaction().await.unwrap();
    store.accept_in(&transaction, Submission::new(new())).await.unwrap();
    // In whichever parts their connections count.
    for _ in 0..8 {
        let store = open().await;
        let calls = (0..8).map(|_| store.accept(Submission::new(new())));
        let calls: Vec<_> = calls.collect();
        for call in futures_util::future::join_all(calls).await {
            call.unwrap();
        }
    }
    store.accept_in(&transaction, limited("ann", true)).await.unwrap();
    for is_limited in [true, false] {
        // What is ann's goes together with what is bob's, acceptances and ends.
        let mut calls = Vec::new();
        for (ann, bob) in anns.drain(..4).zip(bobs.drain(..4)) {
            let (at, call) = (store.clone(), limited("ann", is_limited));
            calls.push(tokio::spawn(async move {
                let error = at.accept(call).await.unwrap_err();
                assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
                assert!(at.apply(ann, Change::Cancel).await.unwrap_err().is_retryable());
            }));
            let (at, call) = (store.clone(), limited("bob", is_limited));
            calls.push(tokio::spawn(async move {
                let accepted = at.accept(call).await.unwrap();
                assert!(matches!(accepted, Acceptance::Created(_)), "{accepted:?}");
                at.apply(bob, Change::Cancel).await.unwrap();
            }));
        }
        for call in calls {
            call.await.unwrap();
        }
    }
    transaction.commit().await.unwrap();
    store.accept(limited("ann", true)).await.unwrap();
    let counts = format!(
        "SELECT (SELECT count(*) FROM {0}.operations WHERE expire_at_ms IS NULL),
            (SELECT sum(count)::int8 FROM {0}.live WHERE owner = '')",
        place.schema
    );
    let row = client.query_one(&counts, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), row.get::<_, i64>(1));
}

/// The owner of what follows from operations of this crate's own, which only a record can name.
fn owner_of_followers() -> Owner {
    let operation = new().with_owner(Owner::new("somebody").unwrap()).accept(SystemClock.now());
    let record = String::from_utf8(operation.to_record()).unwrap();
    let record = record.replace("\"somebody\"", "\"respond-async:follow-up\"");
    Operation::from_record(record.as_bytes()).unwrap().owner().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn ends_with_followers_that_are_held_up_hold_up_nobody_elses() {
    let place = InSchema::<PostgresStore>::at(apart().await);
    let url = &place.server;
    let mut client = client(url).await;
    let open = || async {
        PostgresStore::builder(url).unwrap().schema(&place.schema).open().await.unwrap()
    };
    let (store, other) = (open().await, open().await);
    let accept = async |name: &str| {
        let new = new().with_owner(Owner::new(name).unwrap()).with_kind(Kind::new(name).unwrap());
        let id = new.id();
        store.accept(Submission::new(new)).await.unwrap();
        id
    };
    let (mut zoes, mut bobs) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        zoes.push(accept("zoe").await);
    }
    for _ in 0..2 {
        bobs.push(accept("bob").await);
        accept("work").await;
    }
    let owner = owner_of_followers();
    let follows = move |_: &_| vec![Submission::new(new().with_owner(owner.clone()))];

    let transaction = client.transaction().await.unwrap();
    let submission = Submission::new(new().with_owner(Owner::new("zoe").unwrap()));
    store.accept_in(&transaction, submission).await.unwrap();
    let held_up: Vec<_> = zoes
        .into_iter()
        .map(|id| {
            let (store, follows) = (store.clone(), follows.clone());
            tokio::spawn(async move { store.apply_with(id, Change::Cancel, None, follows).await })
        })
        .collect();
    sleep(Duration::from_millis(50)).await;
    for (store, bob) in [&store, &other].into_iter().zip(bobs) {
        let began = std::time::Instant::now();
        store.apply_with(bob, Change::Cancel, None, follows.clone()).await.unwrap();
        let request = ClaimRequest::new(1, Duration::from_secs(60));
        let request = request.with_kinds(vec![Kind::new("work").unwrap()]);
        assert_eq!(store.claim(&request).await.unwrap().len(), 1);
        let took = began.elapsed();
        assert!(took < PostgresStore::DEFAULT_CALL_TIMEOUT / 2, "{took:?}");
    }
    for call in held_up {
        assert!(call.await.unwrap().unwrap_err().is_retryable());
    }
    transaction.commit().await.unwrap();
    // Nobody waits for the count of what follows: there is none.
    let counted = format!("SELECT DISTINCT owner FROM {}.live ORDER BY owner", place.schema);
    let rows = client.query(&counted, &[]).await.unwrap();
    let owners: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(owners, ["", "work", "zoe"]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_claim_without_an_end_is_one_like_any_other() {
    let place = InSchema::<PostgresStore>::at(apart().await);
    let store = place.open().await;
    store.submit(Submission::new(new())).await.unwrap();
    let claimed = store.claim(&ClaimRequest::new(1, Duration::MAX)).await.unwrap();
    assert_eq!(claimed.len(), 1);
    // By the same connection.
    assert_eq!(store.purge(10).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn large_bodies_that_take_too_long_together_are_read_all_the_same() {
    let place = InSchema::<PostgresStore>::at(apart().await);
    let large = accept_large(&place.open().await, 40, 512 << 10).await;
    let builder = PostgresStore::builder(&place.url()).unwrap().schema(&place.schema);
    let store = builder.call_timeout(Duration::from_secs(1)).open().await.unwrap();
    // Some seconds for all of them.
    place.way.lock().unwrap().0.set(Way::Slow(Duration::from_millis(2)));
    read_all(&store, large).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_purge_that_takes_long_gets_on_all_the_same() {
    const COUNT: usize = 120;
    let place = InSchema::<PostgresStore>::at(apart().await);
    let builder = PostgresStore::builder(&place.server).unwrap();
    let builder = builder.schema(&place.schema).call_timeout(Duration::from_secs(1));
    let store = builder.open().await.unwrap();
    for _ in 0..COUNT {
        let new = new().with_retention(Duration::ZERO);
        let id = new.id();
        store.submit(Submission::new(new)).await.unwrap();
        store.apply(id, Change::Cancel).await.unwrap();
    }
    // Three seconds for all of them.
    let slow = format!(
        "CREATE FUNCTION {0}.slow() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(0.025); RETURN old; END $$;
        CREATE TRIGGER slow BEFORE DELETE ON {0}.operations FOR EACH ROW EXECUTE FUNCTION {0}.slow()",
        place.schema
    );
    client(&place.server).await.batch_execute(&slow).await.unwrap();
    let (mut purged, began) = (0, std::time::Instant::now());
    while purged < COUNT {
        match store.purge(500).await {
            Ok(count) => purged += count,
            Err(error) => assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{purged} of {COUNT} are purged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_claim_that_nobody_waits_for_is_undone_or_given_back() {
    let place = InSchema::<PostgresStore>::at(apart().await);
    let store = place.open().await;
    let mut client = client(&place.server).await;
    let request = ClaimRequest::new(1, Duration::from_secs(600));
    // It is held up before it has found anything, and after that.
    for (table, attempt) in [("operations", 1), ("outcomes", 2)] {
        let new = new().with_attempt_limit(1);
        let id = new.id();
        store.submit(Submission::new(new)).await.unwrap();
        let transaction = client.transaction().await.unwrap();
        let lock = format!("LOCK TABLE {}.{table} IN ACCESS EXCLUSIVE MODE", place.schema);
        transaction.batch_execute(&lock).await.unwrap();
        let late = timeout(Duration::from_millis(300), store.claim(&request)).await;
        assert!(late.is_err(), "it is not held up");
        transaction.rollback().await.unwrap();
        // What comes next has to wait for it, and is given what it has not kept.
        let claimed = store.claim(&request).await.unwrap();
        let [claimed] = &claimed[..] else { panic!("{claimed:?}") };
        let operation = &claimed.operation;
        assert_eq!((operation.id(), operation.status()), (id, Status::Running));
        assert_eq!(operation.attempt(), attempt);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_claim_whose_answer_is_lost_is_found_out() {
    let place = InSchema::<PostgresStore>::at(apart().await);
    let store = place.open().await;
    for is_awaited in [true, false, true] {
        let mut ids = Vec::new();
        for _ in 0..3 {
            let new = new().with_attempt_limit(1);
            ids.push(new.id());
            store.submit(Submission::new(new)).await.unwrap();
        }
        place.way.lock().unwrap().0.lose(&PostgresStore::needle(ids[1]), Loss::Answer(0));
        let mut attempt = 1;
        if !is_awaited {
            // Whoever asked goes away while nobody knows.
            let store = store.clone();
            let claim = tokio::spawn(async move {
                store.claim(&ClaimRequest::new(5, Duration::from_secs(600))).await
            });
            while !place.way.lock().unwrap().0.has_lost() {
                sleep(Duration::from_millis(1)).await;
            }
            claim.abort();
            attempt = 2;
        }
        let request = ClaimRequest::new(5, Duration::from_secs(600));
        let claimed = store.claim(&request).await.unwrap();
        assert!(place.way.lock().unwrap().0.has_lost());
        let found: Vec<_> = claimed
            .iter()
            .map(|observed| (observed.operation.id(), observed.operation.attempt()))
            .collect();
        assert_eq!(found, ids.iter().map(|id| (*id, attempt)).collect::<Vec<_>>());
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_kind_that_is_named_twice_gives_what_is_due_once() {
    let place = InSchema::<PostgresStore>::at(apart().await);
    let store = place.open().await;
    let kind = Kind::new("tests.twice").unwrap();
    store.submit(Submission::new(new().with_kind(kind.clone()))).await.unwrap();
    let mut query = DueQuery::new(Due::Claim, 9);
    query.kinds = Some(vec![kind.clone(), kind.clone()]);
    assert_eq!(store.due(&query).await.unwrap().len(), 1);
    let request = ClaimRequest::new(9, Duration::from_secs(60));
    let claimed = store.claim(&request.with_kinds(vec![kind.clone(), kind])).await.unwrap();
    assert_eq!(claimed.len(), 1);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn a_host_that_takes_connections_and_says_nothing_is_passed_over() {
    let place = InSchema::<PostgresStore>::at(apart().await);
    let url = &place.server;
    let (first, by_first) = way_to(url);
    let way = by_first.rsplit_once('/').unwrap().0;
    let other = url.split_once('@').unwrap().1;
    let builder = PostgresStore::builder(&format!("{way},{other}")).unwrap();
    let builder = builder.schema(&place.schema).connect_timeout(Duration::from_millis(300));
    let store = builder.clone().open().await.unwrap();
    store.accept(Submission::new(new())).await.unwrap();

    // It stands still, with all connections that lead to it.
    first.set(Way::Silent);
    super::on_server::comes_back(&store).await;
    while !store.is_listening() {
        sleep(Duration::from_millis(10)).await;
    }
    let opened = builder.open().await.unwrap();
    opened.accept(Submission::new(new())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: run ./tests/all"]
async fn what_ends_with_followers_waits_for_nobody_in_a_circle() {
    const COUNT: usize = 300;
    // What the server counts it counts by database.
    let (url, name) = (servers::shared("POSTGRES_URL"), unique("circle"));
    let client = client(&url).await;
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let own = database(&url, &name);
    // Nobody gives up before the server has found the circle, and the others write in all parts.
    let builder = PostgresStore::builder(&own).unwrap().call_timeout(Duration::from_secs(20));
    let (ending, writing) =
        (builder.clone().open().await.unwrap(), builder.writers(16).open().await.unwrap());
    let owned = |name: &str| new().with_owner(Owner::new(name).unwrap());
    let accept = async |store: &PostgresStore, owner: &'static str| {
        let new = owned(owner);
        let id = new.id();
        store.accept(Submission::new(new)).await.unwrap();
        id
    };
    // One of them stays, so that its owner's row does.
    for owner in ["follow-up", "user"] {
        accept(&ending, owner).await;
    }
    let mut ids = Vec::new();
    for _ in 0..COUNT {
        ids.push(accept(&ending, "user").await);
    }
    let end = async || {
        for id in ids {
            let follows = |_: &_| vec![Submission::new(owned("follow-up"))];
            let ended = ending.apply_with(id, Change::Cancel, None, follows).await;
            assert_eq!(ended.unwrap().operation.status(), Status::Canceled);
        }
    };
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let write = async |owners: &[&'static str]| {
        while !is_over.load(Ordering::SeqCst) {
            // They go together if they can.
            let calls = owners.iter().map(|owner| accept(&writing, owner));
            for id in futures_util::future::join_all(calls).await {
                writing.apply(id, Change::Cancel).await.unwrap();
            }
        }
    };
    let both = ["follow-up", "user", "follow-up", "user"];
    tokio::join!(
        async {
            end().await;
            is_over.store(true, Ordering::SeqCst);
        },
        write(&both),
        write(&both),
        write(&both[..1]),
        write(&both[..1]),
    );
    drop((ending, writing));
    // A session tells what it counted when it ends.
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
    while client.query_one(sessions, &[&name]).await.unwrap().get::<_, i64>(0) > 0 {
        sleep(Duration::from_millis(20)).await;
    }
    let counted = "SELECT deadlocks FROM pg_stat_database WHERE datname = $1";
    let deadlocks: i64 = client.query_one(counted, &[&name]).await.unwrap().get(0);
    client.batch_execute(&format!("DROP DATABASE {name}")).await.unwrap();
    assert_eq!(deadlocks, 0);
}
