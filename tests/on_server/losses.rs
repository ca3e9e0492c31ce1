//! A request or an answer that does not arrive, or not as a whole: nobody knows whether the write took place,
//! until somebody asks.

use std::time::{Duration, Instant};

use http::StatusCode;
use respond_async::operation::{Change, Kind};
use respond_async::store::{
    Acceptance, ClaimRequest, Limits, OperationStoreExt, StoreErrorKind, Submission, Swap, Swapped,
};
use respond_async::{Outcome, Status};

use super::proxy::Loss;
use super::{Cut, OnServer, comes_back, new};

pub(crate) async fn an_answer_that_is_lost_is_found_out<S: OnServer>() {
    let cut = Cut::start::<S>();
    let (store, direct): (S, S) = (cut.by_proxy().await, cut.direct().await);
    let lose = |id| cut.proxy.lose(&S::needle(id), Loss::Answer(0));
    for _ in 0..3 {
        // Who asks plainly is told that it is not known, and it is there.
        let unsure = new();
        let id = unsure.id();
        lose(id);
        let answer = store.accept(Submission::new(unsure).with_input("input")).await;
        assert_eq!(answer.unwrap_err().kind(), StoreErrorKind::Ambiguous);
        assert!(cut.proxy.has_lost());
        assert_eq!(direct.input(id).await.unwrap().unwrap(), "input");
        comes_back(&store).await;

        // Who wants to know is told what became of it.
        let sure = new().held(Duration::from_secs(60), true);
        let id = sure.id();
        lose(id);
        let answer = loop {
            match store.submit(Submission::new(sure.clone())).await {
                Ok(answer) => break answer,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let (Acceptance::Created(it) | Acceptance::Existing(it)) = answer else { panic!() };
        assert_eq!((it.operation.id(), it.operation.version()), (id, 1));
        assert!(cut.proxy.has_lost());

        // Nothing is written twice.
        let outcome = Outcome::json(StatusCode::OK, &"done");
        let change = || Change::Succeed { attempt: 1, head: outcome.head() };
        let before = direct.get(id).await.unwrap().unwrap();
        lose(id);
        let swap = Swap::new(
            before.operation.apply(&change(), before.now).unwrap(),
            before.operation.version(),
        );
        let swap = swap.with_write_id(7).with_outcome(Some(outcome.clone()));
        let error = store.swap(swap).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Ambiguous);
        assert!(cut.proxy.has_lost());
        let after = direct.get(id).await.unwrap().unwrap();
        assert_eq!((after.operation.status(), after.write_id), (Status::Succeeded, 7));
        assert_eq!(after.operation.version(), before.operation.version() + 1);
        assert_eq!(direct.outcome(id).await.unwrap(), Some(outcome.clone()));
        comes_back(&store).await;

        lose(id);
        let error = store.remove(id, after.operation.version()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Ambiguous);
        assert_eq!(direct.remove(id, after.operation.version()).await.unwrap(), Swapped::Gone);
        comes_back(&store).await;
    }
}

pub(crate) async fn a_request_that_is_torn_leaves_all_or_nothing<S: OnServer>() {
    let cut = Cut::start::<S>();
    let (store, direct): (S, S) = (cut.by_proxy().await, cut.direct().await);
    let mut absent = 0;
    for bytes in [0, 1, 5, 20, 60, 150, 300, 450, 600, 750, 900, 1_100, 1_400, 2_000, 5_000] {
        let new = new();
        let id = new.id();
        let submission = || Submission::new(new.clone()).with_input(vec![b'x'; 500]);
        cut.proxy.lose(&S::needle(id), Loss::Request(bytes));
        let error = store.accept(submission()).await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        assert!(cut.proxy.has_lost());
        let (there, input) = (direct.get(id).await.unwrap(), direct.input(id).await.unwrap());
        assert_eq!(there.is_some(), input.is_some(), "half of it, after {bytes} bytes");
        absent += usize::from(there.is_none());
        comes_back(&store).await;
        // Sent again it is there, once, and what counts it counts it once.
        let again = store.submit(submission()).await.unwrap();
        assert!(matches!(again, Acceptance::Created(_) | Acceptance::Existing(_)), "{again:?}");
        assert_eq!(direct.input(id).await.unwrap().unwrap().len(), 500);
        let full = Submission::new(super::new()).with_limits(Limits::default().with_total(1));
        assert!(matches!(direct.accept(full).await.unwrap(), Acceptance::Full(_)));
        direct.remove(id, 1).await.unwrap();
    }
    assert!(absent > 3, "nothing was torn");
}

pub(crate) async fn an_answer_that_is_torn_is_no_answer<S: OnServer>() {
    let cut = Cut::start::<S>();
    let (store, direct): (S, S) = (cut.by_proxy().await, cut.direct().await);
    for bytes in [1, 4, 5, 6, 9, 13, 20] {
        let new = new();
        let id = new.id();
        cut.proxy.lose(&S::needle(id), Loss::Answer(bytes));
        let error = store.accept(Submission::new(new)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Ambiguous, "after {bytes} bytes");
        assert!(direct.get(id).await.unwrap().is_some());
        comes_back(&store).await;
        cut.proxy.lose(&S::needle(id), Loss::Answer(bytes));
        let error = store.get(id).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "after {bytes} bytes");
        comes_back(&store).await;
    }
}

pub(crate) async fn what_was_claimed_by_a_lost_answer_comes_back_after_its_lease<S: OnServer>() {
    const LEASE: Duration = Duration::from_secs(2);
    let cut = Cut::start::<S>();
    let (store, direct): (S, S) = (cut.by_proxy().await, cut.direct().await);
    let kind = Kind::new("tests.claimed").unwrap();
    let new = new().with_kind(kind.clone());
    let id = new.id();
    direct.submit(Submission::new(new)).await.unwrap();
    let request = ClaimRequest::new(5, LEASE).with_kinds(vec![kind.clone()]);
    cut.proxy.lose(kind.as_str().as_bytes(), Loss::Answer(0));
    let began = Instant::now();
    store.claim(&request).await.unwrap_err();
    let lost = direct.get(id).await.unwrap().unwrap().operation;
    // Whether it was claimed before the answer was lost is the store's affair; that it comes back is not.
    let claimed = loop {
        let claimed = direct.claim(&request).await.unwrap();
        if let [claimed] = &claimed[..] {
            break claimed.operation.clone();
        }
        assert!(began.elapsed() < LEASE * 5, "it is stuck");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((claimed.id(), claimed.attempt()), (id, lost.attempt() + 1));
    if lost.attempt() == 1 {
        let waited = began.elapsed() + Duration::from_millis(100);
        assert!(waited >= LEASE, "{waited:?}");
    }
}
