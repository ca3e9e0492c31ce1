//! What can go wrong on a server that is there.

use respond_async::operation::Kind;
use respond_async::store::{
    ClaimRequest, OperationStoreExt, RedisOpenErrorKind, StoreErrorKind, Submission,
};

use super::on_server::proxy::{Loss, Way};
use super::on_server::{accept_large, new, read_all};
use super::*;

fn kind(name: &str) -> Kind {
    Kind::new(name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Redis: run ./tests/all"]
async fn a_claim_whose_answer_is_lost_is_found_out() {
    let place = InPrefix::<RedisStore>::empty().await;
    let store = place.open().await;
    for number in 0..3 {
        let kind = kind(&format!("tests.lost{number}"));
        let new = new().with_kind(kind.clone()).with_attempt_limit(1);
        let id = new.id();
        store.submit(Submission::new(new)).await.unwrap();
        place.way.lock().unwrap().0.lose(&RedisStore::needle(id), Loss::Answer(0));
        let request = ClaimRequest::new(5, Duration::from_secs(60)).with_kinds(vec![kind]);
        let claimed = store.claim(&request).await.unwrap();
        assert!(place.way.lock().unwrap().0.has_lost());
        let [claimed] = &claimed[..] else { panic!("{claimed:?}") };
        assert_eq!((claimed.operation.id(), claimed.operation.attempt()), (id, 1));
    }
}

#[tokio::test]
#[ignore = "needs Redis: run ./tests/all"]
async fn a_claim_keeps_from_others_no_more_than_it_takes() {
    let place = InPrefix::<RedisStore>::empty().await;
    let store = place.open().await;
    let kinds = [kind("tests.one"), kind("tests.two"), kind("tests.three")];
    for number in 0..12 {
        let new = new().with_kind(kinds[number % 3].clone());
        store.submit(Submission::new(new)).await.unwrap();
    }
    let claim = async |limit| {
        let request = ClaimRequest::new(limit, Duration::from_secs(60));
        store.claim(&request.with_kinds(kinds.to_vec())).await.unwrap().len()
    };
    assert_eq!((claim(4).await, claim(9).await), (4, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Redis: run ./tests/all"]
async fn large_bodies_that_take_too_long_together_are_read_all_the_same() {
    let place = InPrefix::<RedisStore>::empty().await;
    let large = accept_large(&place.open().await, 40, 2 << 20).await;
    let url = place.way.lock().unwrap().1.clone();
    let builder = RedisStore::builder(&url).unwrap().prefix(&place.prefix);
    let store = builder.call_timeout(Duration::from_secs(1)).open().await.unwrap();
    // Three seconds for all of them.
    place.way.lock().unwrap().0.set(Way::Slow(Duration::from_millis(2)));
    read_all(&store, large).await;
}

#[tokio::test]
#[ignore = "needs Redis: run ./tests/all"]
async fn what_is_set_out_of_range_is_brought_into_it() {
    let url = servers::shared("REDIS_URL");
    let builder = RedisStore::builder(&url).unwrap().prefix(unique("range"));
    let long = builder.clone().watch_interval(Duration::MAX).call_timeout(Duration::MAX);
    let store = long.queue(usize::MAX).connections(0).open().await.unwrap();
    store.accept(Submission::new(new())).await.unwrap();
    // No replica has it, which is told before the connection is given up.
    for patience in [Duration::ZERO, Duration::MAX] {
        let store = builder.clone().replicas(1, patience).open().await.unwrap();
        let error = store.accept(Submission::new(new())).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Ambiguous);
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("too few replicas have it in time"));
    }
    for key in keys(&mut client(&url), "range-*") {
        redis::cmd("UNLINK").arg(key).exec(&mut client(&url)).unwrap();
    }
}

#[test]
fn tls_that_is_not_there_is_told_from_a_url_that_is_wrong() {
    let error = RedisStore::builder("rediss://127.0.0.1").unwrap_err();
    assert_eq!(error.kind(), RedisOpenErrorKind::NoTls);
    assert!(error.to_string().contains("tokio-rustls-comp") && !error.is_retryable());
    let error = RedisStore::builder("rediss://127.0.0.1:no-port").unwrap_err();
    assert_eq!(error.kind(), RedisOpenErrorKind::Config);
}
