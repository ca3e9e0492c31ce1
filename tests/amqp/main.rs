//! Gateways and workers on a RabbitMQ, which is killed at times.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]
#![allow(dead_code, reason = "parts are kept for what they do while they live")]

#[path = "../servers/mod.rs"]
mod servers;

mod broker;
mod copies;
mod exchange;
mod foreign;
mod lost;
mod raw;
mod told;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use respond_async::amqp::{Amqp, Recorder, Requests, RequestsBuilder, Worker, WorkerBuilder};
use respond_async::operations::{Job, JobPolicy};
use respond_async::prefer::Preferences;
use respond_async::respond::{Body, Created};
use respond_async::store::{MemoryStore, Observed};
use respond_async::{Context, OperationId, Operations, Owner, Problem, Status};
use serde::{Deserialize, Serialize};

/// Each test has its own kind of job by its own type: queues are named by kinds.
macro_rules! work {
    ($name:ident, $kind:literal) => {
        #[derive(Debug, Serialize, Deserialize)]
        struct $name {
            say: String,
        }

        impl crate::Job for $name {
            const KIND: &'static str = $kind;
        }

        #[allow(dead_code, reason = "not every test wants it")]
        impl $name {
            fn new(say: &str) -> Self {
                Self { say: say.to_owned() }
            }
        }
    };
}
pub(crate) use work;

/// A gateway without HTTP: what a route would call.
struct Gateway {
    operations: Operations,
    requests: Requests,
    recorder: Recorder,
}

impl Gateway {
    fn start<J: Job>(amqp: &Amqp, name: &str, store: &MemoryStore) -> Self {
        Self::start_with::<J>(store, Requests::builder(amqp, name))
    }

    fn start_with<J: Job>(store: &MemoryStore, builder: RequestsBuilder) -> Self {
        let requests = builder.start();
        let policy = JobPolicy::new()
            .with_attempt_limit(50)
            .with_backoff(Duration::from_millis(20), Duration::from_millis(200));
        let operations = Operations::builder(store.clone())
            .lease(Duration::from_secs(1))
            .progress_interval(Duration::ZERO)
            .sweep_interval(Duration::from_millis(50))
            .job_with(policy, requests.handler::<J>())
            .start();
        let recorder = requests.record(&operations);
        Self { operations, requests, recorder }
    }

    async fn send<J: Job>(&self, prefer: &str, job: J) -> Answer {
        let preferences = Preferences::parse(prefer.as_bytes()).unwrap();
        Answer::of(self.operations.respond(&preferences, job).await)
    }

    /// Sends it to be done later, and gives its operation.
    async fn submit<J: Job>(&self, job: J) -> OperationId {
        let answer = self.send("respond-async", job).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        answer.json()["id"].as_str().unwrap().parse().unwrap()
    }

    async fn get(&self, id: OperationId) -> Observed {
        self.operations.get(&Owner::anonymous(), id).await.unwrap()
    }

    async fn finished(&self, id: OperationId) -> Observed {
        self.until(id, |observed| observed.operation.status().is_finished()).await
    }

    async fn until(&self, id: OperationId, is_so: impl Fn(&Observed) -> bool) -> Observed {
        eventually(async || Some(self.get(id).await).filter(&is_so)).await
    }

    async fn result(&self, id: OperationId) -> Bytes {
        let (_, outcome) = self.operations.outcome(&Owner::anonymous(), id).await.unwrap();
        outcome.unwrap().body
    }
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    text: String,
}

impl Answer {
    fn of(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let text = String::from_utf8(body.into_bytes().to_vec()).unwrap();
        Self { status: head.status, headers: head.headers, text }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap()
    }

    #[track_caller]
    fn is_problem(&self, kind: &str) {
        let uri = self.json()["type"].as_str().unwrap_or_default().to_owned();
        assert!(uri.ends_with(&format!(":{kind}")), "{} {}", self.status, self.text);
    }
}

const LONG: Duration = Duration::from_secs(60);

/// Has a broker of the test's own write down which queues it has, so that these survive its being killed.
async fn restart(mut server: servers::Server) -> servers::Server {
    let restarting = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    restarting.await.unwrap()
}

/// Asks until there is an answer.
async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not come to be");
}

/// Connects to the broker that all tests share, where nothing of that kind is left of another run.
async fn connect(kind: &str) -> Amqp {
    let url = servers::shared("AMQP_URL");
    let raw = raw::Raw::connect(&url).await;
    raw.remove(kind).await;
    raw.remove(&format!("{kind}.dead")).await;
    raw.remove(&format!("{}.replies", kind.replace('.', "-"))).await;
    connect_to(&url).await
}

async fn connect_to(url: &str) -> Amqp {
    let amqp = Amqp::connect(url).unwrap();
    amqp.ready().await;
    amqp
}

fn worker(amqp: &Amqp) -> WorkerBuilder {
    Worker::builder(amqp).progress_interval(Duration::ZERO).cancel_grace(Duration::from_millis(300))
}

/// What workers were given of late, so that no two tests have the same.
fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
