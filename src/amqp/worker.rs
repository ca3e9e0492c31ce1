use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Instrument;

use super::connection::{Amqp, Channels, Message, Pauses, PublishError, Publisher};
use super::message::{
    PERSISTENT, TRANSIENT, deliveries_before, outcome_properties, progress_message, read_trace,
    time_left,
};
use super::runs::{Runs, hear_cancellations};
use super::topology;
use crate::operation::{IntoOutcome, Kind, OperationId, Outcome, Progress};
use crate::operations::{
    Context, Job, JobInputError, Run, RunInfo, RunSpan, Signal, Work, without_panic,
};
use crate::problem::{Problem, types};
use crate::time::{Clock, SystemClock};

/// Does the jobs that come from the queues of their kinds, until it is dropped.
#[derive(Debug)]
#[must_use = "it works as long as it is kept"]
pub struct Worker {
    inner: Arc<Inner>,
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

#[derive(Debug, Clone, Copy)]
struct Settings {
    concurrency: u16,
    attempt_limit: u32,
    queue: u32,
    longest_job: Duration,
    progress_interval: Duration,
    cancel_grace: Duration,
}

type Handler = Box<dyn Fn(Bytes, Context) -> Result<Work, JobInputError> + Send + Sync>;

struct Inner {
    settings: Settings,
    run_span: RunSpan,
    handlers: HashMap<Kind, Handler>,
    publisher: Publisher,
    runs: Arc<Runs>,
    /// A permit for each job that may run.
    places: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    /// From how many queues jobs are taken now.
    taking: watch::Sender<usize>,
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

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl WorkerBuilder {
    /// How many jobs run at once if nothing else is said.
    pub const DEFAULT_CONCURRENCY: u16 = 64;
    /// How often a job is begun at the most if nothing else is said.
    pub const DEFAULT_ATTEMPT_LIMIT: u32 = 5;
    /// How many jobs of a kind wait at the broker if nothing else is said.
    pub const DEFAULT_QUEUE: u32 = 100_000;
    /// How long a job may take before the broker gives it to another worker if nothing else is said.
    pub const DEFAULT_LONGEST_JOB: Duration = Duration::from_secs(24 * 60 * 60);
    /// How often one job's progress is told at the most if nothing else is said.
    pub const DEFAULT_PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
    /// How long a handler may go on after cancellation was requested if nothing else is said.
    pub const DEFAULT_CANCEL_GRACE: Duration = Duration::from_secs(10);

    /// Registers what does the jobs of a kind: the same handler that a service with operations of its own
    /// would register.
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

    /// How many jobs run at once, of all kinds together, at least 1. The broker hands out no more of a
    /// kind before one of them is done.
    pub fn concurrency(mut self, jobs: u16) -> Self {
        self.settings.concurrency = jobs.max(1);
        self
    }

    /// How often a job is begun at the most, at least once: if its worker dies each time, it fails, and
    /// its message goes to the queue of dead ones. All workers of a queue have to agree on it.
    pub fn attempt_limit(mut self, attempts: u32) -> Self {
        self.settings.attempt_limit = attempts.max(1);
        self
    }

    /// How many jobs of a kind wait at the broker, at least 1; one more is answered 503. All workers of a
    /// queue have to agree on it.
    pub fn queue_limit(mut self, jobs: u32) -> Self {
        self.settings.queue = jobs.max(1);
        self
    }

    /// How long a job may take, at least a minute, before the broker gives it to another worker, and with it
    /// all that run here of its kind. All workers of a queue have to agree on it.
    ///
    /// Brokers know it from RabbitMQ 3.12 on. Before that it is the broker's own `consumer_timeout`: 30 minutes,
    /// if nothing else is set there.
    pub fn longest_job(mut self, time: Duration) -> Self {
        self.settings.longest_job = time.max(Duration::from_secs(60));
        self
    }

    /// How often one job's progress is told at the most. What is reported in between is merged: the last
    /// report counts.
    pub fn progress_interval(mut self, interval: Duration) -> Self {
        self.settings.progress_interval = interval;
        self
    }

    /// How long a handler may go on after cancellation was requested, before it is dropped.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.settings.cancel_grace = grace;
        self
    }

    /// How the span is made that an attempt runs in: see
    /// [`OperationsBuilder::run_span`](crate::operations::OperationsBuilder::run_span).
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
        let inner = Arc::new(Inner {
            settings,
            run_span,
            publisher: Publisher::new(&amqp),
            runs: Arc::default(),
            places: Arc::new(Semaphore::new(settings.concurrency.into())),
            closing: watch::Sender::new(false),
            taking: watch::Sender::new(0),
            handlers,
        });
        let mut consumers = JoinSet::new();
        for kind in inner.handlers.keys() {
            consumers.spawn(consume(amqp.clone(), Arc::clone(&inner), kind.clone()));
        }
        consumers.spawn(hear_cancellations(amqp, Arc::clone(&inner.runs)));
        Worker { inner, consumers }
    }
}

impl Worker {
    /// After how long without progress a gateway is told that a job is still worked on, or waits here for its place.
    pub const SIGN_OF_LIFE: Duration = Duration::from_secs(10 * 60);

    /// Sets up a worker without jobs.
    pub fn builder(amqp: &Amqp) -> WorkerBuilder {
        let settings = Settings {
            concurrency: WorkerBuilder::DEFAULT_CONCURRENCY,
            attempt_limit: WorkerBuilder::DEFAULT_ATTEMPT_LIMIT,
            queue: WorkerBuilder::DEFAULT_QUEUE,
            longest_job: WorkerBuilder::DEFAULT_LONGEST_JOB,
            progress_interval: WorkerBuilder::DEFAULT_PROGRESS_INTERVAL,
            cancel_grace: WorkerBuilder::DEFAULT_CANCEL_GRACE,
        };
        let (amqp, run_span) = (amqp.clone(), RunSpan::default());
        WorkerBuilder { amqp, settings, run_span, handlers: HashMap::new() }
    }

    /// Waits until jobs are taken from the queue of each kind. Before that a gateway may find that there is none.
    pub async fn ready(&self) {
        let all = self.inner.handlers.len();
        let mut taking = self.inner.taking.subscribe();
        // Its sender lives as long as this.
        let _ = taking.wait_for(|taking| *taking == all).await;
    }

    /// Takes no new jobs, and waits up to `grace` for those that run. What runs still then goes back to its
    /// queue. Says whether all had ended.
    pub async fn shutdown(self, grace: Duration) -> bool {
        self.inner.closing.send_replace(true);
        let all = u32::from(self.inner.settings.concurrency);
        let emptied = timeout(grace, self.inner.places.acquire_many(all)).await.is_ok();
        // Their channels close with them, and what was not acknowledged is delivered again.
        drop(self.consumers);
        emptied
    }
}

/// Takes the jobs of a kind, on one channel after another.
async fn consume(amqp: Amqp, inner: Arc<Inner>, kind: Kind) {
    let mut running = JoinSet::new();
    let mut channels = Channels::new(&amqp, "taking jobs");
    loop {
        let channel = channels.next().await;
        let session = session(&channel, &inner, &kind, &mut running);
        if let Err(error) = amqp.until_lost(&channel, session).await {
            channels.ended(&error);
        }
        if *inner.closing.borrow() {
            while running.join_next().await.is_some() {}
            return;
        }
    }
}

async fn session(
    channel: &Channel,
    inner: &Arc<Inner>,
    kind: &Kind,
    running: &mut JoinSet<()>,
) -> lapin::Result<()> {
    let Settings { attempt_limit, queue, concurrency, longest_job, .. } = inner.settings;
    // The broker gives up one delivery later than the worker, which tells the operation so.
    let limit = attempt_limit.saturating_add(1);
    topology::declare_work(channel, kind.as_str(), limit, queue, longest_job).await?;
    channel.basic_qos(concurrency, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let (name, arguments) = (kind.as_str(), FieldTable::default());
    let mut jobs = channel.basic_consume(name.into(), "".into(), options, arguments).await?;
    let _taken = Taken::new(inner);
    // What waits here for its place when the channel is lost comes again on the next.
    let session = watch::Sender::new(());
    loop {
        // Those that have ended are let go.
        while running.try_join_next().is_some() {}
        let delivery = tokio::select! {
            biased;
            () = inner.closing() => {
                channel.basic_cancel(jobs.tag(), BasicCancelOptions::default()).await?;
                return Ok(());
            }
            delivery = jobs.next() => delivery,
        };
        let Some(delivery) = delivery.transpose()? else { return Ok(()) };
        let (inner, kind, mut session) = (Arc::clone(inner), kind.clone(), session.subscribe());
        // At once, and not when there is a place: what the driver keeps gives no sign of life.
        running.spawn(async move {
            let place = tokio::select! {
                biased;
                _ = session.changed() => return,
                place = inner.place(&delivery) => place,
            };
            let Some(_place) = place else { return };
            inner.run(&kind, delivery).await;
        });
    }
}

/// That jobs are taken from one more queue, as long as this exists.
struct Taken<'a>(&'a Inner);

impl<'a> Taken<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.taking.send_modify(|taking| *taking += 1);
        Self(inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taking.send_modify(|taking| *taking -= 1);
    }
}

/// What becomes of the message when its answer has been told.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    /// It goes to the queue of dead messages, for somebody to look at.
    Dead,
}

impl Inner {
    /// Waits for a place, which the jobs of all kinds share, and tells now and then that the job is not lost. None
    /// if the worker closes before.
    async fn place(&self, delivery: &Delivery) -> Option<OwnedSemaphorePermit> {
        let mut place = pin!(Arc::clone(&self.places).acquire_owned());
        loop {
            tokio::select! {
                biased;
                () = self.closing() => return None,
                place = &mut place => return place.ok(),
                () = sleep(Worker::SIGN_OF_LIFE) => {
                    self.tell(delivery, &Progress::default()).await;
                }
            }
        }
    }

    async fn run(&self, kind: &Kind, delivery: Delivery) {
        let (outcome, end) = self.outcome(kind, &delivery).await;
        self.reply(&delivery, outcome).await;
        // If the channel is gone, the message is delivered again, and what it leads to is recorded once.
        let settled = async {
            match end {
                End::Done => delivery.ack(BasicAckOptions::default()).await,
                End::Dead => delivery.reject(BasicRejectOptions { requeue: false }).await,
            }
        };
        // The driver does not always say that it is gone, and the next job wants the place.
        let _ = timeout(Amqp::CONFIRM_TIMEOUT, settled).await;
    }

    async fn outcome(&self, kind: &Kind, delivery: &Delivery) -> (Outcome, End) {
        let problem = |kind| Problem::new(kind).into_outcome();
        let attempt = deliveries_before(delivery).saturating_add(1);
        if attempt > self.settings.attempt_limit {
            let exhausted = Problem::new(types::ATTEMPTS_EXHAUSTED);
            let exhausted = exhausted.with("attempts", self.settings.attempt_limit);
            return (exhausted.into_outcome(), End::Dead);
        }
        let id = delivery.properties.message_id().as_ref().map(|id| id.as_str().parse());
        let id = match id {
            Some(Ok(id)) => id,
            // A request without operation, or of another make: it is given a name for the time being.
            _ => match OperationId::generate(SystemClock.now()) {
                Ok(id) => id,
                Err(_) => return (problem(types::INTERNAL), End::Done),
            },
        };
        let left = time_left(delivery, SystemClock.now());
        let deadline = left.and_then(|left| Instant::now().checked_add(left));
        let run = Run::new(id, attempt, deadline, read_trace(delivery));
        let input = Bytes::from(delivery.data.clone());
        let Some(handler) = self.handlers.get(kind) else {
            return (problem(types::INTERNAL), End::Dead);
        };
        let _running = self.runs.insert(id, &run);
        if self.runs.is_canceled(id) {
            return (problem(types::CANCELED), End::Done);
        }
        let context = Context::of(&run);
        // What a handler does before its first await can panic too.
        let mut work = Box::pin(async move {
            match handler(input, context) {
                Ok(work) => Some(work.await),
                Err(_) => None,
            }
        });
        let span = self.run_span.make(run.info(kind));
        tokio::select! {
            biased;
            outcome = without_panic(work.as_mut()).instrument(span) => match outcome {
                Ok(Some(outcome)) => (outcome, End::Done),
                Ok(None) => (problem(types::UNREADABLE_INPUT), End::Dead),
                Err(panicked) => (panicked.into_outcome(), End::Dead),
            },
            () = self.keep(&run, delivery) => (problem(types::CANCELED), End::Done),
        }
    }

    /// Tells progress, and now and then that there is none. Ends when the work has gone on for too long after its cancellation was requested.
    async fn keep(&self, run: &Run, delivery: &Delivery) {
        let mut report_at = Instant::now();
        let mut life_at = report_at + Worker::SIGN_OF_LIFE;
        let mut progress = None;
        let mut stop_at: Option<Instant> = None;
        loop {
            let report = if progress.is_some() { report_at } else { life_at };
            let wake_at = stop_at.map_or(report, |stop_at| stop_at.min(report));
            tokio::select! {
                () = run.news() => {}
                () = sleep_until(wake_at) => {}
            }
            let now = Instant::now();
            if run.signal() != Signal::GoOn
                && now >= *stop_at.get_or_insert(now + self.settings.cancel_grace)
            {
                return;
            }
            progress = run.take_progress().or(progress);
            if now >= life_at {
                progress = progress.or_else(|| Some(Progress::default()));
            }
            if let Some(told) = progress.take_if(|_| now >= report_at) {
                report_at = now + self.settings.progress_interval;
                life_at = now + Worker::SIGN_OF_LIFE;
                self.tell(delivery, &told).await;
            }
        }
    }

    async fn tell(&self, delivery: &Delivery, progress: &Progress) {
        let (properties, body) = progress_message(progress);
        if let Some(message) = answer(delivery, properties, body.into()) {
            // The next report tells more than this one could.
            let _ = self.publisher.publish(message).await;
        }
    }

    /// Tells the answer, until the broker has it or it can reach nobody.
    async fn reply(&self, delivery: &Delivery, outcome: Outcome) {
        let properties = outcome_properties(&outcome);
        let Some(mut message) = answer(delivery, properties, outcome.body) else { return };
        let mut pauses = Pauses::default();
        loop {
            match self.publisher.publish_persistently(message.clone()).await {
                Err(PublishError::TooLarge) => break,
                Err(PublishError::Refused | PublishError::Unavailable) => pauses.pause().await,
                Ok(()) => return,
                // A queue that its gateway left alone for too long is gone, and the work is done.
                Err(PublishError::Unroutable) => match shared_replies(delivery) {
                    Some(shared) if shared != message.routing_key => message.routing_key = shared,
                    _ => return,
                },
            }
        }
        let too_large = Problem::new(types::RESULT_TOO_LARGE).into_outcome();
        Box::pin(self.reply(delivery, too_large)).await;
    }

    async fn closing(&self) {
        let mut closing = self.closing.subscribe();
        while !*closing.borrow_and_update() {
            // Its sender is this.
            let _ = closing.changed().await;
        }
    }
}

/// The queue from which all replicas of who asked record replies to operations.
fn shared_replies(request: &Delivery) -> Option<String> {
    let asked = &request.properties;
    let name = asked.app_id().as_ref().filter(|_| *asked.delivery_mode() == Some(PERSISTENT))?;
    Some(topology::shared_replies(name.as_str()))
}

/// A reply to a request; none if it wants none.
fn answer(request: &Delivery, properties: BasicProperties, body: Bytes) -> Option<Message> {
    let asked = &request.properties;
    let to = asked.reply_to().as_ref()?;
    // Without a correlation id the message's own name stands for it, as is the custom.
    let correlation = asked.correlation_id().as_ref().or(asked.message_id().as_ref());
    let mut properties = properties.with_delivery_mode(asked.delivery_mode().unwrap_or(TRANSIENT));
    if let Some(correlation) = correlation {
        properties = properties.with_correlation_id(correlation.clone());
    }
    Some(Message {
        exchange: "",
        routing_key: to.as_str().to_owned(),
        properties,
        body,
        mandatory: true,
    })
}
