use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::cancellations::hear_cancellations;
use super::connection::Amqp;
use super::consumer::{Handler, SIGN_OF_LIFE, Settings, Shared, consume};
use super::publisher::Publisher;
use crate::operation::{IntoOutcome, Kind};
use crate::operations::{Context, Job, RunInfo, RunSpan};
use crate::time::keep_within_reach;

/// Does the jobs that come from the queues of their kinds, until it is dropped.
#[derive(Debug)]
#[must_use = "it works as long as it is kept"]
pub struct Worker {
    shared: Arc<Shared>,
    consumers: JoinSet<()>,
}

/// Sets how a worker takes its jobs. Each bound has a name and a default.
#[must_use]
pub struct WorkerBuilder {
    amqp: Amqp,
    settings: Settings,
    run_span: RunSpan,
    handlers: HashMap<Kind, Handler>,
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.handlers.keys().collect();
        f.debug_struct("WorkerBuilder")
            .field("kinds", &kinds)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl WorkerBuilder {
    /// The default of [`concurrency`](Self::concurrency).
    pub const DEFAULT_CONCURRENCY: u16 = 64;
    /// The default of [`attempt_limit`](Self::attempt_limit).
    pub const DEFAULT_ATTEMPT_LIMIT: u32 = 5;
    /// The default of [`queue_limit`](Self::queue_limit).
    pub const DEFAULT_QUEUE_LIMIT: u32 = 100_000;
    /// The default of [`longest_job`](Self::longest_job): a day.
    pub const DEFAULT_LONGEST_JOB: Duration = Duration::from_secs(24 * 60 * 60);
    /// The default of [`progress_interval`](Self::progress_interval).
    pub const DEFAULT_PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
    /// The default of [`cancel_grace`](Self::cancel_grace).
    pub const DEFAULT_CANCEL_GRACE: Duration = Duration::from_secs(10);

    /// Registers what does the jobs of a kind: the same handler that a service with operations of its own
    /// would register. Here a request that is answered at once has an
    /// [operation id](Context::operation_id) too, made of its message's.
    ///
    /// # Panics
    /// If the kind is no valid [`Kind`], or is registered twice.
    pub fn job<J, H, F>(mut self, handler: H) -> Self
    where
        J: Job,
        H: Fn(J, Context) -> F + Send + Sync + 'static,
        F: Future<Output: IntoOutcome> + Send + 'static,
    {
        let kind = match Kind::new(J::KIND) {
            Ok(kind) => kind,
            Err(error) => panic!("{:?} cannot be a kind of job: {error}", J::KIND),
        };
        let handler: Handler = Box::new(move |input, context| {
            let work = handler(J::decode(input)?, context);
            Ok(Box::pin(async move { work.await.into_outcome() }))
        });
        let before = self.handlers.insert(kind, handler);
        assert!(before.is_none(), "the kind of job {:?} is registered twice", J::KIND);
        self
    }

    /// How many jobs run at once, of all kinds together, at least 1. The broker hands out no more of a kind
    /// before one of them is done. The default is [64](Self::DEFAULT_CONCURRENCY).
    pub fn concurrency(mut self, jobs: u16) -> Self {
        self.settings.concurrency = jobs.max(1);
        self
    }

    /// How often a job is begun at the most, at least once: if its worker dies each time, it fails, and its
    /// message goes to the queue of dead ones. All workers of a queue have to agree on it. The default is
    /// [5](Self::DEFAULT_ATTEMPT_LIMIT).
    pub fn attempt_limit(mut self, attempts: u32) -> Self {
        self.settings.attempt_limit = attempts.max(1);
        self
    }

    /// How many jobs of a kind wait at the broker, at least 1; one more is answered 503. All workers of a queue
    /// have to agree on it. The default is [100,000](Self::DEFAULT_QUEUE_LIMIT).
    pub fn queue_limit(mut self, jobs: u32) -> Self {
        self.settings.queue = jobs.max(1);
        self
    }

    /// How long a job may take, at least a minute, before the broker gives it to another worker, and with it
    /// all that run here of its kind. All workers of a queue have to agree on it.
    ///
    /// The default is [a day](Self::DEFAULT_LONGEST_JOB). Brokers know it from RabbitMQ 3.12 on. Before that it is
    /// the broker's own `consumer_timeout`: 30 minutes, if nothing else is set there.
    pub fn longest_job(mut self, time: Duration) -> Self {
        self.settings.longest_job = time.max(Duration::from_secs(60));
        self
    }

    /// How often one job's progress is told at the most. What is reported in between is merged: the last report
    /// counts. It is at most the time of a [sign of life](Worker::SIGN_OF_LIFE). The default is
    /// [1 s](Self::DEFAULT_PROGRESS_INTERVAL).
    pub fn progress_interval(mut self, interval: Duration) -> Self {
        self.settings.progress_interval = interval.min(SIGN_OF_LIFE);
        self
    }

    /// How long a handler may go on after cancellation was requested, before it is dropped. The default is
    /// [10 s](Self::DEFAULT_CANCEL_GRACE).
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.settings.cancel_grace = grace;
        keep_within_reach([&mut self.settings.cancel_grace]);
        self
    }

    /// How the span is made that an attempt runs in: see
    /// [`OperationsBuilder::run_span`](crate::operations::OperationsBuilder::run_span). The default is the
    /// same.
    pub fn run_span(
        mut self,
        span: impl Fn(RunInfo<'_>) -> tracing::Span + Send + Sync + 'static,
    ) -> Self {
        self.run_span = RunSpan::new(span);
        self
    }

    /// Begins to take jobs, as soon as there is a broker.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(self) -> Worker {
        let Self { amqp, settings, run_span, handlers } = self;
        let shared = Arc::new(Shared {
            settings,
            run_span,
            publisher: Publisher::new(&amqp),
            cancellations: Arc::default(),
            places: Arc::new(Semaphore::new(settings.concurrency.into())),
            closing: watch::Sender::new(false),
            taking: watch::Sender::new(0),
            handlers,
        });
        let mut consumers = JoinSet::new();
        for kind in shared.handlers.keys() {
            consumers.spawn(consume(amqp.clone(), Arc::clone(&shared), kind.clone()));
        }
        consumers.spawn(hear_cancellations(amqp, Arc::clone(&shared.cancellations)));
        Worker { shared, consumers }
    }
}

impl Worker {
    /// After how long without progress a gateway is told that a job is still worked on, or waits here for its place.
    pub const SIGN_OF_LIFE: Duration = SIGN_OF_LIFE;

    /// Sets up a worker without jobs.
    pub fn builder(amqp: &Amqp) -> WorkerBuilder {
        let settings = Settings {
            concurrency: WorkerBuilder::DEFAULT_CONCURRENCY,
            attempt_limit: WorkerBuilder::DEFAULT_ATTEMPT_LIMIT,
            queue: WorkerBuilder::DEFAULT_QUEUE_LIMIT,
            longest_job: WorkerBuilder::DEFAULT_LONGEST_JOB,
            progress_interval: WorkerBuilder::DEFAULT_PROGRESS_INTERVAL,
            cancel_grace: WorkerBuilder::DEFAULT_CANCEL_GRACE,
        };
        let (amqp, run_span) = (amqp.clone(), RunSpan::default());
        WorkerBuilder { amqp, settings, run_span, handlers: HashMap::new() }
    }

    /// Waits until jobs are taken from the queue of each kind. Before that a gateway may find that there is none.
    pub async fn ready(&self) {
        let all = self.shared.handlers.len();
        let mut taking = self.shared.taking.subscribe();
        // Its sender lives as long as this.
        let _ = taking.wait_for(|taking| *taking == all).await;
    }

    /// Takes no new jobs, and waits up to `grace` for those that run. What runs still then goes back to its
    /// queue. Says whether all had ended.
    pub async fn shutdown(self, grace: Duration) -> bool {
        self.shared.closing.send_replace(true);
        let all = u32::from(self.shared.settings.concurrency);
        let emptied = timeout(grace, self.shared.places.acquire_many(all)).await.is_ok();
        // Their channels close with them, and what was not acknowledged is delivered again.
        drop(self.consumers);
        emptied
    }
}
