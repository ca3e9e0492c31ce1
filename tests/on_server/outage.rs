//! A server that dies or stands still, and a way to it that is closed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use respond_async::OperationId;
use respond_async::store::{Acceptance, OperationStoreExt, StoreErrorKind, Submission};

use super::proxy::Way;
use super::{Cut, NAME, OnServer, comes_back, new};
use crate::servers::Server;

pub(crate) async fn what_was_acknowledged_survives_the_death_of_the_server<S: OnServer>() {
    let mut server = Server::start(S::SORT);
    let store = S::at(&server.url(), NAME).await;
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
        // However long the server took, its next life sees work too.
        let enough = acknowledged.lock().unwrap().len() + 100;
        while acknowledged.lock().unwrap().len() < enough {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert!(failed.load(Ordering::SeqCst) > 0, "no call was ever cut off");
    for id in &acknowledged {
        assert!(store.get(*id).await.unwrap().is_some(), "{id} is lost");
    }
}

/// A read and a write fail in time, and say that they may be tried again.
async fn fail_in_time<S: OnServer>(store: &S, known: OperationId) {
    let began = Instant::now();
    let (read, written) = tokio::join!(store.get(known), store.accept(Submission::new(new())));
    // Never a made-up "not found".
    assert_eq!(read.unwrap_err().kind(), StoreErrorKind::Unavailable);
    assert!(written.unwrap_err().is_retryable());
    assert!(began.elapsed() < S::BOUND * 2, "{:?}", began.elapsed());
}

pub(crate) async fn a_server_that_stands_still_holds_nobody_up<S: OnServer>() {
    let server = Server::start(S::SORT);
    let store = S::at(&server.url(), NAME).await;
    let Acceptance::Created(known) = store.accept(Submission::new(new())).await.unwrap() else {
        panic!("not accepted")
    };
    server.pause(true);
    for _ in 0..3 {
        fail_in_time(&store, known.operation.id()).await;
    }
    server.pause(false);
    comes_back(&store).await;
    assert!(store.get(known.operation.id()).await.unwrap().is_some());
}

pub(crate) async fn a_way_that_is_closed_silent_or_slow_holds_nobody_up<S: OnServer>() {
    let cut = Cut::start::<S>();
    let store: S = cut.by_proxy().await;
    let Acceptance::Created(known) = store.accept(Submission::new(new())).await.unwrap() else {
        panic!("not accepted")
    };
    for way in [Way::Refused, Way::Silent, Way::Refused] {
        cut.proxy.set(way);
        for _ in 0..3 {
            fail_in_time(&store, known.operation.id()).await;
        }
        if way == Way::Refused {
            // What is known to be away is not waited for.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let began = Instant::now();
            store.get(known.operation.id()).await.unwrap_err();
            assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
        }
        cut.proxy.set(Way::Open);
        comes_back(&store).await;
    }
    cut.proxy.set(Way::Slow(Duration::from_millis(30)));
    for _ in 0..3 {
        store.submit(Submission::new(new())).await.unwrap();
        assert!(store.get(known.operation.id()).await.unwrap().is_some());
    }
}
