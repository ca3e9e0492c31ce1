//! What the synchronous answer costs beyond its handler: nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use allocation_counter::measure;
use http::{HeaderMap, HeaderValue, StatusCode};
use respond_async::operation::IntoOutcome;
use respond_async::prefer::Preferences;
use respond_async::store::MemoryStore;
use respond_async::{Context, Operations, Outcome};

async fn handler(context: Context) -> Outcome {
    context.progress(0.5, "half");
    context.check().unwrap();
    let json = HeaderValue::from_static("application/json");
    Outcome::with_body(StatusCode::OK, json, &b"[1,2,3]"[..])
}

/// Runs on this thread to its end, which comes without waiting.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_answer_without_preference_allocates_what_its_handler_does() {
    let operations = Operations::builder(MemoryStore::new()).start();
    let mut request = HeaderMap::new();
    for prefer in [None, Some("return=minimal"), Some("wait=10")] {
        if let Some(prefer) = prefer {
            request.insert("prefer", HeaderValue::from_static(prefer));
        }
        let bare = measure(|| {
            let answer = now_or_never(handler(Context::default())).into_outcome().into_response();
            assert_eq!(answer.status(), StatusCode::OK);
        });
        let ours = measure(|| {
            let preferences = Preferences::from_headers(&request);
            let answer = now_or_never(operations.respond_with(&preferences, handler));
            assert_eq!(answer.headers()["vary"], "Prefer");
        });
        assert!(bare.count_total > 0, "the counter does not count");
        assert_eq!(ours.count_total, bare.count_total, "with {prefer:?}");
        assert_eq!(ours.bytes_total, bare.bytes_total, "with {prefer:?}");
    }
}
