//! The monitor as no framework asks it: answers that nobody takes, and changes between its steps.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod interposed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use interposed::{Call, Interposed, When};
use respond_async::monitor::Monitor;
use respond_async::operation::{Change, NewOperation};
use respond_async::operations::OperationsBuilder;
use respond_async::prefer::Preferences;
use respond_async::problem::types;
use respond_async::respond::Response;
use respond_async::store::{
    Idempotency, MemoryStore, OperationStore, OperationStoreExt, Submission,
};
use respond_async::time::{Clock, SystemClock};
use respond_async::{OperationId, Operations, Outcome, Owner, Progress};

const KIB: usize = 1 << 10;
const HOUR: Duration = Duration::from_secs(3600);

/// Operations whose results are as long as that.
struct Results(Operations);

impl Results {
    fn new(set: impl FnOnce(OperationsBuilder) -> OperationsBuilder) -> Self {
        Self(set(Operations::builder(MemoryStore::new())).start())
    }

    /// The same request each time for the same length.
    async fn post(&self, prefer: &str, bytes: usize) -> Response {
        let request = Request::post(format!("/{bytes}")).header("idempotency-key", "k");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let named = Idempotency::from_request(&head.method, &head.uri, &head.headers, b"").unwrap();
        let preferences = Preferences::parse(prefer).unwrap();
        let kick_off = self.0.kick_off(&preferences).idempotency(named);
        kick_off
            .respond_with(move |_| async move {
                Outcome::with_body(StatusCode::OK, "a/b".parse().unwrap(), vec![b'x'; bytes])
            })
            .await
    }

    /// Where the result of an operation that has ended is.
    async fn made(&self, bytes: usize) -> String {
        let accepted = self.post("respond-async", bytes).await;
        let monitor = accepted.headers()["location"].to_str().unwrap().to_owned();
        // It has ended by then.
        assert_eq!(self.post("respond-async, wait=20", bytes).await.status(), StatusCode::OK);
        format!("{monitor}/result")
    }

    async fn ask(&self, method: Method, result: &str) -> Response {
        let request = Request::builder().method(method).uri(result).body(()).unwrap();
        Monitor::new(&self.0).respond(&Owner::anonymous(), &request).await
    }

    async fn get(&self, result: &str) -> Response {
        self.ask(Method::GET, result).await
    }
}

#[track_caller]
fn is_refused(response: &Response) {
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    let problem: serde_json::Value = serde_json::from_slice(response.body().as_bytes()).unwrap();
    assert_eq!(problem["type"], types::OVERLOADED.uri());
}

#[tokio::test]
async fn results_on_their_way_have_a_bound() {
    let results = Results::new(|builder| builder.results_bytes(300 * KIB));
    let (large, small) = (results.made(100 * KIB).await, results.made(64 * KIB).await);
    let mut held = Vec::new();
    for _ in 0..3 {
        let answer = results.get(&large).await;
        assert_eq!((answer.status(), answer.body().as_bytes().len()), (StatusCode::OK, 100 * KIB));
        // Whatever becomes of the answer, its bytes are what counts, to the last of them.
        held.push(answer.into_body().into_bytes().slice(..1));
    }
    let refused = results.get(&large).await;
    is_refused(&refused);
    assert_eq!(refused.headers()["cache-control"], "no-store");
    is_refused(&results.post("respond-async", 100 * KIB).await);
    // What takes no room needs none.
    assert_eq!(results.ask(Method::HEAD, &large).await.status(), StatusCode::OK);
    assert_eq!(results.get(&small).await.status(), StatusCode::OK);
    // A new request is told where its answer is.
    assert_eq!(results.post("", 200 * KIB).await.status(), StatusCode::ACCEPTED);

    held.pop();
    let answer = results.get(&large).await;
    assert_eq!(answer.status(), StatusCode::OK);
    is_refused(&results.get(&large).await);
    drop(answer);
    let replayed = results.post("respond-async", 100 * KIB).await;
    assert_eq!(replayed.status(), StatusCode::OK);
    is_refused(&results.get(&large).await);
}

#[tokio::test]
async fn a_result_larger_than_the_bound_goes_alone() {
    let results = Results::new(|builder| builder.results_bytes(1));
    let (one, other) = (results.made(65 * KIB).await, results.made(200 * KIB).await);
    for result in [&one, &other, &one] {
        let answer = results.get(result).await;
        assert_eq!(answer.status(), StatusCode::OK);
        is_refused(&results.get(&other).await);
    }
}

#[tokio::test]
async fn a_condition_holds_until_what_was_asked_is_done() {
    for method in [Method::DELETE, Method::POST] {
        let store = MemoryStore::new();
        let id = OperationId::generate(SystemClock.now()).unwrap();
        store.accept(Submission::new(NewOperation::new(id))).await.unwrap();
        let begun = store.apply(id, Change::Claim { lease: HOUR }).await.unwrap().operation;
        let has_changed = Arc::<AtomicBool>::default();
        let changing = {
            let (store, has_changed) = (store.clone(), Arc::clone(&has_changed));
            Interposed::new(&store.clone(), move |when, call| {
                let store = store.clone();
                let is_now = (when, call) == (When::Before, Call::Swap)
                    && !has_changed.swap(true, Ordering::SeqCst);
                async move {
                    if is_now {
                        let progress = Progress::new(0.5, "half");
                        let change = Change::Progress { attempt: 1, progress };
                        store.apply(id, change).await.unwrap();
                    }
                    Ok(())
                }
            })
        };
        let operations = Operations::builder(changing).start();
        let path = if method == Method::POST { "/cancel" } else { "" };
        let request = Request::builder()
            .method(method)
            .uri(format!("/operations/{id}{path}"))
            .header("sec-fetch-site", "same-origin")
            .header("if-none-match", format!("\"{}\"", begun.revision() + 1))
            .body(())
            .unwrap();
        let answer = Monitor::new(&operations).respond(&Owner::anonymous(), &request).await;
        assert!(has_changed.load(Ordering::SeqCst));
        assert_eq!(answer.status(), StatusCode::PRECONDITION_FAILED, "{path}");
        let found = store.get(id).await.unwrap().unwrap().operation;
        assert_eq!(found.revision(), begun.revision() + 1);
        assert!(!found.is_cancel_requested());
    }
}
