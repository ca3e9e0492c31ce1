//! Those who wait: what they cost the store, and that none of them misses anything.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "../interposed/mod.rs"]
mod interposed;
mod polls;
mod reader;
mod stalled;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use interposed::{Call, Interposed, When};
use respond_async::monitor::{Content, Monitor};
use respond_async::operation::{Change, NewOperation};
use respond_async::operations::OperationsBuilder;
use respond_async::respond::Response;
use respond_async::store::{MemoryStore, OperationStore, OperationStoreExt, Submission};
use respond_async::time::{Clock, SystemClock};
use respond_async::{OperationId, Operations, Owner, Progress};

/// Operations on a store whose reads are counted. Nothing is at work: the tests change them.
struct Service {
    monitor: Monitor,
    store: MemoryStore,
    reads: Arc<AtomicUsize>,
}

impl Service {
    fn new() -> Self {
        Self::with(|store| store, |builder| builder)
    }

    fn with(
        store_with: impl FnOnce(Interposed) -> Interposed,
        set: impl FnOnce(OperationsBuilder) -> OperationsBuilder,
    ) -> Self {
        let store = MemoryStore::new();
        let reads = Arc::<AtomicUsize>::default();
        let counted = {
            let reads = Arc::clone(&reads);
            Interposed::new(&store, move |when, call| {
                if (when, call) == (When::Before, Call::Read) {
                    reads.fetch_add(1, Ordering::Relaxed);
                }
                async { Ok(()) }
            })
        };
        let monitor = Monitor::new(&set(Operations::builder(store_with(counted))).start());
        Self { monitor, store, reads }
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// An operation that is at work for an hour.
    async fn begun(&self) -> OperationId {
        let id = OperationId::generate(SystemClock.now()).unwrap();
        let new = NewOperation::new(id).with_owner(ann());
        self.store.accept(Submission::new(new)).await.unwrap();
        self.store
            .apply(id, Change::Claim { lease: std::time::Duration::from_secs(3600) })
            .await
            .unwrap();
        id
    }

    async fn progress(&self, id: OperationId, message: &str) {
        let progress = Progress::new(0.5, message);
        self.store.apply(id, Change::Progress { attempt: 1, progress }).await.unwrap();
    }

    async fn poll(&self, id: OperationId, fields: &[(&str, &str)]) -> Response {
        let mut request = Request::get(format!("/operations/{id}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.monitor.respond(&ann(), &request.body(()).unwrap()).await
    }
}

fn monitor_of(operations: &Operations) -> Monitor {
    Monitor::new(operations)
}

/// The event stream of that resource, for a client that has seen so much of it.
async fn stream_of(monitor: &Monitor, uri: &str, last: Option<&str>) -> Content {
    let mut request = Request::get(uri).header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let answer = monitor.answer(&ann(), &request.body(()).unwrap()).await;
    assert_eq!(answer.status(), 200);
    answer.into_body()
}

fn ann() -> Owner {
    Owner::new("ann").unwrap()
}
