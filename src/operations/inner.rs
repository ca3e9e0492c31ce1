//! What the clones of an [`Operations`](super::Operations) and its tasks share.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::admission::{Admission, Load};
use super::budget::Budget;
use super::calls::{Call, detached, store_problem, unavailable};
use super::feed::Feeds;
use super::follow_up::FollowUp;
use super::health::Probe;
use super::job::{Jobs, Registration};
use super::moment::Moment;
use super::pace::Agenda;
use super::pulse::Pulse;
use super::results::Results;
use super::run::Runs;
use super::settings::Settings;
use super::watch::Watches;
use super::{pace, telemetry};
use crate::lock::lock;
use crate::operation::{Change, Kind, OperationId, Outcome};
use crate::problem::Problem;
use crate::store::{ApplyError, Observed, OperationStore, OperationStoreExt, StoreError, apply_at};
use crate::time::Clock;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) store: Arc<dyn OperationStore>,
    pub(super) settings: Settings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) admission: Arc<Admission>,
    pub(super) jobs: Jobs,
    pub(super) follow_ups: Vec<FollowUp>,
    pub(super) runs: Arc<Runs>,
    /// The polls that clients were asked for, by the seconds since then.
    pub(super) agenda: Mutex<Agenda>,
    /// What clients have spent of their polls.
    pub(super) budget: Mutex<Budget>,
    pub(super) began: Instant,
    pub(super) watches: Watches,
    pub(super) feeds: Feeds,
    /// The polls that may still be held.
    pub(super) waiters: Semaphore,
    /// The streams that may still be opened.
    pub(super) streams: Arc<Semaphore>,
    pub(super) results: Results,
    pub(super) sweeper: Pulse,
    pub(super) probe: Probe,
    pub(super) closing: Moment,
    /// Whether what still runs has been told to end.
    pub(super) grace_over: Moment,
    /// Where they were started. What goes on when its client hangs up runs there: the runtime that a
    /// request came in on may end before (actix has one for each of its threads).
    pub(super) runtime: tokio::runtime::Handle,
}

impl Inner {
    pub(super) fn new(
        store: Arc<dyn OperationStore>,
        settings: Settings,
        clock: Arc<dyn Clock>,
        jobs: &[Registration],
        follow_ups: Vec<FollowUp>,
    ) -> Self {
        let admission = Admission::new(settings.concurrency, settings.queue);
        let jobs = Jobs::new(jobs, settings.concurrency, settings.queue);
        let waiters = Semaphore::new(settings.waiters);
        let streams = Arc::new(Semaphore::new(settings.streams));
        let results = Results::new(settings.results_bytes);
        Self {
            store,
            settings,
            clock,
            admission,
            jobs,
            follow_ups,
            runs: Arc::default(),
            agenda: Mutex::default(),
            budget: Mutex::default(),
            began: Instant::now(),
            watches: Watches::default(),
            feeds: Feeds::default(),
            waiters,
            streams,
            results,
            sweeper: Pulse::default(),
            probe: Probe::default(),
            closing: Moment::default(),
            grace_over: Moment::default(),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// Takes no new work, and holds no poll and no stream any longer.
    pub(super) fn close(&self) {
        self.closing.comes();
        for job in self.jobs.iter() {
            job.wake.notify_one();
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.has_come()
    }

    /// Waits until no new work is taken.
    pub(super) async fn closed(&self) {
        self.closing.come().await;
    }

    /// What counts the tasks of this process: that of work that is its own, and one for each kind of
    /// job.
    pub(super) fn admissions(&self) -> impl Iterator<Item = &Arc<Admission>> {
        self.jobs.iter().map(|job| &job.admission).chain([&self.admission])
    }

    /// Waits until there is no task.
    pub(super) async fn emptied(&self) {
        for admission in self.admissions() {
            admission.emptied().await;
        }
    }

    /// Makes a call of the store that no client can cut short: see [`detached`].
    pub(super) async fn detached<T: Send + 'static>(&self, call: Call<T>) -> Option<T> {
        detached(&self.runtime, call, self.settings.store_timeout).await
    }

    /// The same for a call whose failure a client is told of.
    pub(super) fn call<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> impl Future<Output = Result<T, Problem>> + Send {
        // Boxed before anything waits, so that no request has room for it.
        let call: Call<_> = Box::pin(call);
        async move {
            let answer = self.detached(call).await;
            if let None | Some(Err(_)) = answer {
                let error = answer.as_ref().and_then(|answer| answer.as_ref().err());
                telemetry::store_failed(None, error);
            }
            answer.map_or_else(|| Err(unavailable()), |it| it.map_err(|e| store_problem(&e)))
        }
    }

    /// Makes a change, and has follow what follows from it.
    pub(super) async fn apply(
        &self,
        id: OperationId,
        change: Change,
        outcome: Option<Outcome>,
    ) -> Result<Observed, ApplyError> {
        let follow_ups = |next: &_| self.follow_ups(next);
        counted(self.store.apply_with(id, change, outcome, follow_ups).await)
    }

    /// The same without an outcome: if a revision is given, only while the operation has that one.
    pub(super) async fn apply_at(
        &self,
        id: OperationId,
        revision: Option<u64>,
        change: Change,
    ) -> Result<Observed, ApplyError> {
        let follow_ups = |next: &_| self.follow_ups(next);
        counted(apply_at(&self.store, id, revision, change, follow_ups).await)
    }

    /// The same to an operation that is known already.
    pub(super) async fn apply_to(
        &self,
        known: Observed,
        change: Change,
        outcome: Option<Outcome>,
    ) -> Result<Observed, ApplyError> {
        let follow_ups = |next: &_| self.follow_ups(next);
        counted(self.store.apply_to(known, change, outcome, follow_ups).await)
    }

    /// After how long to ask for the operation again; it is planned that this happens.
    pub(super) fn retry_after(&self, observed: &Observed) -> Duration {
        let operation = &observed.operation;
        if operation.status().is_finished() {
            return pace::MIN;
        }
        let delay = self.usual_delay(observed);
        let mut agenda = lock(&self.agenda);
        let second = self.began.elapsed().as_secs();
        agenda.plan(operation, second, delay, self.settings.poll_rate)
    }

    /// The same of a client that will not wait so long: it asks again at once, to be held.
    pub(super) fn usual_delay(&self, Observed { operation, now, .. }: &Observed) -> Duration {
        pace::retry_after(operation, *now, self.load(operation.kind()))
    }

    /// After how long there may be room again for work of that kind.
    pub(super) fn overloaded(&self, id: OperationId, kind: &Kind) -> Duration {
        pace::overloaded(id, self.load(kind))
    }

    /// Tells the recorder how much there is at this moment.
    #[cfg(feature = "metrics")]
    pub(super) fn gauge(&self) {
        let own = Kind::default();
        let jobs = self.jobs.iter().map(|job| (&job.kind, &job.admission));
        for (kind, admission) in jobs.chain([(&own, &self.admission)]) {
            let running = admission.running();
            let waiting = admission.load().tasks.saturating_sub(running);
            telemetry::gauge_of("respond_async_running", kind, running);
            telemetry::gauge_of("respond_async_waiting", kind, waiting);
        }
        let held = self.settings.waiters - self.waiters.available_permits();
        telemetry::gauge("respond_async_held_polls", held);
        let open = self.settings.streams - self.streams.available_permits();
        telemetry::gauge("respond_async_open_streams", open);
    }

    fn load(&self, kind: &Kind) -> Load {
        let job = self.jobs.get(kind.as_str());
        job.map_or(&self.admission, |job| &job.admission).load()
    }
}

fn counted(applied: Result<Observed, ApplyError>) -> Result<Observed, ApplyError> {
    if let Ok(Observed { operation, .. }) = &applied {
        if operation.status().is_finished() {
            telemetry::finished(operation);
        }
    }
    applied
}
