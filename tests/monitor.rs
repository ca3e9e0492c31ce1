//! The monitor as no framework asks it: changes between its steps.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod interposed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use interposed::{Call, Interposed, When};
use respond_async::monitor::Monitor;
use respond_async::operation::{Change, NewOperation};
use respond_async::store::{MemoryStore, OperationStore, OperationStoreExt, Submission};
use respond_async::time::{Clock, SystemClock};
use respond_async::{OperationId, Operations, Owner, Progress};

const HOUR: Duration = Duration::from_secs(3600);

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
