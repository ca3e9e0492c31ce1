//! What a server can be like when a store is opened.

use respond_async::Operations;
use respond_async::operation::{Change, Outcome};
use respond_async::prefer::Preferences;
use respond_async::respond::Created;
use respond_async::store::{
    Acceptance, Durability, Fingerprint, Idempotency, IdempotencyKey, OperationStoreExt,
    RedisOpenError, RedisOpenErrorKind, StoreErrorKind, Submission,
};
use servers::Server;

use super::on_server::new;
use super::*;

fn kind<T: std::fmt::Debug>(opened: Result<T, RedisOpenError>) -> RedisOpenErrorKind {
    opened.unwrap_err().kind()
}

fn with_replica() -> (Server, Server) {
    let (primary, replica) = (Server::start(Sort::Redis), Server::start(Sort::Redis));
    let mut client = client(&replica.url());
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(primary.port()).exec(&mut client).unwrap();
    (primary, replica)
}

#[tokio::test]
#[ignore = "needs Redis: run ./tests/all"]
async fn a_server_that_would_lose_what_it_acknowledged_is_refused() {
    let server = Server::start_with(Sort::Redis, &["--appendonly", "no"]);
    assert_eq!(kind(RedisStore::open(&server.url()).await), RedisOpenErrorKind::Weaker);
    let builder = RedisStore::builder(&server.url()).unwrap().require(Durability::Volatile);
    assert_eq!(builder.open().await.unwrap().capabilities().durability, Durability::Volatile);

    let evicting = ["--maxmemory-policy", "allkeys-lru"];
    let server = Server::start_with(Sort::Redis, &evicting);
    let error = RedisStore::open(&server.url()).await.unwrap_err();
    assert_eq!(error.kind(), RedisOpenErrorKind::Evicts);
    assert!(error.to_string().contains("noeviction"), "{error}");

    let not_while_rewriting = "--no-appendfsync-on-rewrite";
    for (settings, durability) in [
        (["--appendfsync", "always"], Durability::PowerLoss),
        (["--appendfsync", "everysec"], Durability::ProcessCrash),
        ([not_while_rewriting, "yes"], Durability::ProcessCrash),
    ] {
        let server = Server::start_with(Sort::Redis, &settings);
        let store = RedisStore::open(&server.url()).await.unwrap();
        assert_eq!(store.capabilities().durability, durability);
    }
}

#[tokio::test]
#[ignore = "needs Redis: run ./tests/all"]
async fn a_server_that_begins_to_forget_accepts_nothing_more() {
    let server = Server::start(Sort::Redis);
    let store = RedisStore::open(&server.url()).await.unwrap();
    let set = |name: &str, value: &str| {
        redis::cmd("CONFIG")
            .arg("SET")
            .arg(name)
            .arg(value)
            .exec(&mut client(&server.url()))
            .unwrap();
    };
    for (name, weak, sound) in
        [("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendonly", "no", "yes")]
    {
        let before = new();
        let id = before.id();
        store.accept(Submission::new(before)).await.unwrap();
        set(name, weak);
        let error = loop {
            match store.accept(Submission::new(new())).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
        // What was accepted goes on.
        store.apply(id, Change::Cancel).await.unwrap();
        assert!(store.get(id).await.unwrap().is_some());
        set(name, sound);
        let accepted = store.accept(Submission::new(new())).await.unwrap();
        assert!(matches!(accepted, Acceptance::Created(_)), "{name}");
    }
}

#[tokio::test]
#[ignore = "needs Redis: run ./tests/all"]
async fn a_replica_and_a_stranger_are_refused() {
    let primary = Server::start(Sort::Redis);
    let replica = Server::start(Sort::Redis);
    let mut client = client(&replica.url());
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(primary.port()).exec(&mut client).unwrap();
    assert_eq!(kind(RedisStore::open(&replica.url()).await), RedisOpenErrorKind::Replica);

    redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("secret").exec(&mut client).unwrap();
    let opened = RedisStore::open(&replica.url()).await;
    assert_eq!(kind(opened), RedisOpenErrorKind::Refused);

    // With `WAIT` a write is acknowledged once the replica has it; without one it is in doubt.
    let builder = RedisStore::builder(&primary.url()).unwrap();
    let store = builder.replicas(2, Duration::from_millis(100)).open().await.unwrap();
    let error = store.accept(Submission::new(new())).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Ambiguous);
}

#[tokio::test]
#[ignore = "needs Redis: run ./tests/all"]
async fn an_acceptance_that_too_few_replicas_have_is_refused() {
    let (primary, replica) = with_replica();
    let builder = RedisStore::builder(&primary.url()).unwrap();
    let store = builder.replicas(1, Duration::from_millis(300)).open().await.unwrap();
    // It answers `WAIT` once it has all that was there before.
    while store.submit(Submission::new(new())).await.is_err() {}
    let known = loop {
        let running = new().held(Duration::from_secs(600), true);
        let id = running.id();
        if store.submit(Submission::new(running)).await.is_ok() {
            break id;
        }
    };

    replica.pause(true);
    let mut refused = Vec::new();
    for _ in 0..4 {
        let new = new();
        let id = new.id();
        refused.push(id);
        let error = store.submit(Submission::new(new)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Ambiguous);
        // However often it is asked for.
        for _ in 0..2 {
            let error = store.get(id).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        }
    }
    let operations = Operations::builder(store.clone()).start();
    let preferences = Preferences::parse("respond-async").unwrap();
    let work = |_| async { Created::at("/made") };
    let answer = operations.kick_off(&preferences).respond_with(work).await;
    assert_eq!(answer.status(), http::StatusCode::SERVICE_UNAVAILABLE);
    // Other changes take longer, and take place; so costs no claim an attempt in vain.
    let head = Outcome::new(http::StatusCode::OK).head();
    let change = respond_async::operation::Change::Succeed { attempt: 1, head };
    store.apply(known, change).await.unwrap();
    let request = respond_async::store::ClaimRequest::new(1, Duration::from_secs(60));
    assert_eq!(store.claim(&request).await.unwrap().len(), 1);

    // One that comes back in time is asked in time; on a busy machine not the first time.
    loop {
        let late = tokio::spawn({
            let store = store.clone();
            async move { store.submit(Submission::new(new())).await }
        });
        tokio::time::sleep(Duration::from_millis(400)).await;
        replica.pause(false);
        if late.await.unwrap().is_ok() {
            break;
        }
        replica.pause(true);
    }
    // They are there, as whoever asks now sees once the replica has them.
    for id in refused {
        let found = loop {
            if let Ok(found) = store.get(id).await {
                break found;
            }
        };
        assert!(found.is_some());
    }
}

#[tokio::test]
#[ignore = "needs Redis: run ./tests/all"]
async fn a_key_whose_operation_too_few_replicas_have_is_refused() {
    let (primary, replica) = with_replica();
    let open = || async {
        let builder = RedisStore::builder(&primary.url()).unwrap().connections(1);
        builder.replicas(1, Duration::from_millis(300)).open().await.unwrap()
    };
    // Neither knows what the other has been told.
    let (one, other) = (open().await, open().await);
    for store in [&one, &other] {
        while store.submit(Submission::new(new())).await.is_err() {}
    }
    let submission = || {
        Submission::new(new()).with_idempotency(Idempotency {
            scope: "scope".into(),
            key: IdempotencyKey::new("key").unwrap(),
            fingerprint: Fingerprint([0; 32]),
        })
    };
    replica.pause(true);
    for store in [&one, &other] {
        let error = store.submit(submission()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Ambiguous);
    }
    replica.pause(false);
    let accepted = loop {
        if let Ok(accepted) = other.submit(submission()).await {
            break accepted;
        }
    };
    assert!(matches!(accepted, Acceptance::Existing(_)), "{accepted:?}");
}

#[tokio::test]
#[ignore = "needs Redis: run ./tests/all"]
async fn a_primary_that_becomes_a_replica_is_not_read() {
    let server = Server::start(Sort::Redis);
    let store = RedisStore::open(&server.url()).await.unwrap();
    let unknown = new().id();
    assert_eq!(store.get(unknown).await.unwrap(), None);
    // As after a failover.
    let mut client = client(&server.url());
    let port = servers::free_port();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(port).exec(&mut client).unwrap();
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec(&mut client).unwrap();
    for _ in 0..20 {
        let error = store.get(unknown).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec(&mut super::client(&server.url())).unwrap();
    super::on_server::comes_back(&store).await;
}

#[tokio::test]
#[ignore = "needs Redis: run ./tests/all"]
async fn a_server_that_has_no_connection_left_may_have_one_later() {
    let server = Server::start(Sort::Redis);
    let mut client = client(&server.url());
    redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).exec(&mut client).unwrap();
    let error = RedisStore::open(&server.url()).await.unwrap_err();
    assert_eq!(error.kind(), RedisOpenErrorKind::Unreachable, "{error:?}");
    assert!(error.is_retryable());
}

#[tokio::test]
#[ignore = "needs Redis: run ./tests/all"]
async fn where_nobody_may_look_the_caller_says_what_is_kept() {
    let server = Server::start(Sort::Redis);
    let mut client = client(&server.url());
    let acl = ["SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-config"];
    redis::cmd("ACL").arg(&acl[..]).exec(&mut client).unwrap();
    let url = server.url().replace("//", "//app:secret@");
    assert_eq!(kind(RedisStore::open(&url).await), RedisOpenErrorKind::Untold);
    let builder = RedisStore::builder(&url).unwrap().assume(Durability::ProcessCrash);
    let store = builder.open().await.unwrap();
    store.accept(Submission::new(new())).await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_told_in_time() {
    let began = std::time::Instant::now();
    let opened = RedisStore::open(&format!("redis://127.0.0.1:{}", servers::free_port())).await;
    assert_eq!(kind(opened), RedisOpenErrorKind::Unreachable);
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let opened = RedisStore::open(&format!("redis://127.0.0.1:{port}")).await;
    assert_eq!(kind(opened), RedisOpenErrorKind::Unreachable);
    assert!(began.elapsed() < RedisStore::DEFAULT_CALL_TIMEOUT * 4);
    assert_eq!(kind(RedisStore::builder("not a URL")), RedisOpenErrorKind::Config);
}

#[tokio::test]
#[ignore = "needs Redis: run ./tests/all"]
async fn a_server_that_has_forgotten_the_scripts_is_told_them_again() {
    let server = Server::start(Sort::Redis);
    let store = RedisStore::open(&server.url()).await.unwrap();
    for _ in 0..3 {
        let mut client = client(&server.url());
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut client).unwrap();
        let accepted = store.accept(Submission::new(new())).await.unwrap();
        assert!(matches!(accepted, Acceptance::Created(_)));
    }
}

#[tokio::test]
#[ignore = "needs Redis: run ./tests/all"]
async fn while_the_memory_is_used_up_work_ends_and_is_purged() {
    let server = Server::start(Sort::Redis);
    let store = RedisStore::open(&server.url()).await.unwrap();
    let body = vec![b'x'; 100_000];
    let mut running = Vec::new();
    for _ in 0..20 {
        let new = new().held(Duration::from_secs(600), true).with_retention(Duration::ZERO);
        running.push(new.id());
        store.accept(Submission::new(new).with_input(body.clone())).await.unwrap();
    }
    let mut client = client(&server.url());
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1mb").exec(&mut client).unwrap();
    let refused = store.accept(Submission::new(new())).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::OutOfSpace);
    for id in &running {
        let head = Outcome::new(http::StatusCode::OK).head();
        let change = respond_async::operation::Change::Succeed { attempt: 1, head };
        store.apply(*id, change).await.unwrap();
    }
    assert_eq!(store.purge(100).await.unwrap(), running.len());
}

#[tokio::test]
#[ignore = "needs Redis: run ./tests/all"]
async fn a_value_that_cannot_be_understood_stands_in_nobodys_way() {
    let server = Server::start(Sort::Redis);
    let store = RedisStore::open(&server.url()).await.unwrap();
    let mut client = client(&server.url());
    // One that the scripts take for sound, and one that they do not.
    for value in ["1 0 - - task \nnot a record", "1 0 - task \nnot a record"] {
        let poisoned = new();
        let bad = poisoned.id();
        store.accept(Submission::new(poisoned)).await.unwrap();
        let key = format!("{{respond-async}}:o:{}", bad.as_uuid().simple());
        redis::cmd("SET").arg(key).arg(value).exec(&mut client).unwrap();
        assert_eq!(store.get(bad).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    }
    let sound = new();
    let good = sound.id();
    store.accept(Submission::new(sound)).await.unwrap();
    let request = respond_async::store::ClaimRequest::new(1, Duration::from_secs(60));
    let began = std::time::Instant::now();
    loop {
        let claimed = store.claim(&request).await.unwrap();
        if claimed.iter().any(|observed| observed.operation.id() == good) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "it is never claimed");
    }
}
