//! Whether the store and the workers are well.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use super::job::Registered;
use super::{Inner, Operations};
use crate::operation::{Kind, OperationId, Outcome};
use crate::respond::{Response, no_store};
use crate::store::OperationStore;
use crate::time::Timestamp;

/// For how long the store's last answer counts: however often health is asked for, the store is not.
const FRESH: Duration = Duration::from_secs(1);

/// How this process and its store are doing: see [`Operations::health`].
///
/// As JSON it is `{"status":"pass","store":"pass","sweeper":"pass","shutting_down":false,"workers":[{"kind":
/// "images.enhance","status":"pass","running":3,"concurrency":8}]}`, with `fail` for what is not well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Whether all of it is well, and the process takes work.
    pub status: HealthStatus,
    /// Whether the store answers.
    pub store: HealthStatus,
    /// Whether what nobody brings to its end is looked for.
    pub sweeper: HealthStatus,
    /// Whether the process has been told to [shut down](Operations::shutdown).
    pub shutting_down: bool,
    /// The kinds of job that this process does, by their names.
    pub workers: Vec<WorkerHealth>,
}

/// Whether something is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// It is.
    Pass,
    /// It is not.
    Fail,
}

/// How the worker of a kind of job is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WorkerHealth {
    /// What it does.
    #[serde(serialize_with = "as_text")]
    pub kind: Kind,
    /// Whether it could claim work when it last tried.
    pub status: HealthStatus,
    /// How many of its jobs run here.
    pub running: usize,
    /// How many may. When as many run, it is busy, and well.
    pub concurrency: usize,
}

fn as_text<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

impl HealthStatus {
    fn of(is_well: bool) -> Self {
        if is_well { Self::Pass } else { Self::Fail }
    }
}

impl Health {
    /// Whether all of it is well, and the process takes work.
    pub fn is_well(&self) -> bool {
        self.status == HealthStatus::Pass
    }

    /// The answer to whoever decides where requests go: 200 if it is well, 503 if it is not; it is not kept.
    pub fn into_response(self) -> Response {
        let status = if self.is_well() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        no_store(Outcome::json(status, &self).into_response())
    }
}

/// What the store answered when it was last asked whether it is there.
#[derive(Debug, Default)]
pub(super) struct Probe(tokio::sync::Mutex<Option<(Instant, bool)>>);

impl Inner {
    /// Whether the store answers. Who asks while another does waits for the same answer.
    async fn is_store_well(self: &Arc<Self>) -> bool {
        let mut last = self.probe.0.lock().await;
        if let Some((at, is_well)) = *last {
            if at.elapsed() < FRESH {
                return is_well;
            }
        }
        let store = Arc::clone(&self.store);
        let nobody = OperationId::from_parts(Timestamp::from_unix_millis(0), [0; 10]);
        let is_well = self.call(async move { store.get(nobody).await }).await.is_ok();
        *last = Some((Instant::now(), is_well));
        is_well
    }
}

impl Operations {
    /// How this process and its store are doing, for whoever decides where requests go. Do not restart a process
    /// by it: that brings no store back. It reads from the store, once a second at the most.
    ///
    /// ```
    /// use respond_async::Operations;
    /// use respond_async::store::MemoryStore;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let operations = Operations::builder(MemoryStore::new()).start();
    /// let answer = operations.health().await.into_response(); // to GET /health
    /// assert_eq!(answer.status(), 200);
    /// # }
    /// ```
    pub async fn health(&self) -> Health {
        let inner = self.inner();
        let store = HealthStatus::of(inner.is_store_well().await);
        let sweeper = HealthStatus::of(inner.sweeper.is_well());
        let shutting_down = inner.is_closing();
        let works = |job: &&Arc<Registered>| job.admission.concurrency() > 0;
        let worker = |job: &Arc<Registered>| WorkerHealth {
            kind: job.kind.clone(),
            status: HealthStatus::of(job.pulse.is_well()),
            running: job.admission.running(),
            concurrency: job.admission.concurrency(),
        };
        let mut workers: Vec<_> = inner.jobs.iter().filter(works).map(worker).collect();
        workers.sort_by(|one, other| one.kind.as_str().cmp(other.kind.as_str()));
        let all = workers.iter().map(|worker| worker.status).chain([store, sweeper]);
        let is_well = !shutting_down && all.into_iter().all(|one| one == HealthStatus::Pass);
        Health { status: HealthStatus::of(is_well), store, sweeper, shutting_down, workers }
    }
}
