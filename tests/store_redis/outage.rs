//! A server that dies, stands still, or cuts connections off. Each test has one of its own.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use respond_async::OperationId;
use respond_async::operation::NewOperation;
use respond_async::store::{Acceptance, OperationStoreExt, StoreErrorKind, Submission};
use respond_async::time::{Clock, SystemClock};
use servers::{Server, Sort};

use super::*;

fn new() -> NewOperation {
    NewOperation::new(OperationId::generate(SystemClock.now()).unwrap())
}

/// Waits until the store answers again, which it does by itself.
async fn comes_back(store: &RedisStore) {
    let began = Instant::now();
    while store.submit(Submission::new(new())).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Redis: run ./tests/all"]
async fn what_was_acknowledged_survives_the_death_of_the_server() {
    let mut server = Server::start(Sort::Redis);
    let store = RedisStore::open(&server.url()).await.unwrap();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let (failed, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (store, acknowledged) = (store.clone(), Arc::clone(&acknowledged));
            let (failed, over) = (Arc::clone(&failed), Arc::clone(&over));
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    let (new, began) = (new(), Instant::now());
                    let id = new.id();
                    match store.submit(Submission::new(new)).await {
                        Ok(_) => acknowledged.lock().unwrap().push(id),
                        Err(error) => {
                            // Whatever it was, the caller is told soon, and that it may try again.
                            assert!(began.elapsed() < Duration::from_secs(5), "{error:?}");
                            assert!(error.is_retryable(), "{error:?}");
                            failed.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    }
                }
            })
        })
        .collect();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::task::block_in_place(|| {
            server.kill();
            std::thread::sleep(Duration::from_millis(300));
            server.start_again();
        });
        comes_back(&store).await;
    }
    over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    let failed = failed.load(Ordering::SeqCst);
    assert!(failed > 0, "no call was ever cut off");
    assert!(acknowledged.len() > 500 && acknowledged.len() * 4 > failed, "{}", acknowledged.len());
    for id in &acknowledged {
        assert!(store.get(*id).await.unwrap().is_some(), "{id} is lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Redis: run ./tests/all"]
async fn a_server_that_stands_still_holds_nobody_up() {
    let server = Server::start(Sort::Redis);
    let store = RedisStore::open(&server.url()).await.unwrap();
    let Acceptance::Created(known) = store.accept(Submission::new(new())).await.unwrap() else {
        panic!("not accepted")
    };
    server.pause(true);
    for _ in 0..3 {
        let began = Instant::now();
        let (read, written) =
            tokio::join!(store.get(known.operation.id()), store.accept(Submission::new(new())),);
        // Never a made-up "not found".
        assert_eq!(read.unwrap_err().kind(), StoreErrorKind::Unavailable);
        assert!(written.unwrap_err().is_retryable());
        let bound = RedisStore::DEFAULT_CALL_TIMEOUT * 2 + Duration::from_millis(500);
        assert!(began.elapsed() < bound, "{:?}", began.elapsed());
    }
    server.pause(false);
    comes_back(&store).await;
    assert!(store.get(known.operation.id()).await.unwrap().is_some());
}
