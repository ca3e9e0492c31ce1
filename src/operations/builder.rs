use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::follow_up::FollowUp;
use super::inner::Inner;
use super::job::{Job, Registration};
use super::policy::JobPolicy;
use super::settings::{RetentionBounds, Settings};
use super::telemetry::{RunInfo, RunSpan};
use super::{Operations, sweep, telemetry, worker};
use crate::operation::{IntoOutcome, NewOperation, Operation};
use crate::respond::MonitorUrls;
use crate::store::{Capabilities, OperationStore};
use crate::time::{Clock, SystemClock};

/// Sets what an [`Operations`] may do, and starts it. Each bound has a name and a default.
#[derive(Debug, Clone)]
#[must_use]
pub struct OperationsBuilder {
    store: Arc<dyn OperationStore>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    jobs: Vec<Registration>,
    follow_ups: Vec<FollowUp>,
}

impl OperationsBuilder {
    /// The default of `longest` in [`retention_bounds`](Self::retention_bounds): 30 days.
    pub const DEFAULT_LONGEST_RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    /// The default of [`deadline`](Self::deadline): a day.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);
    /// The default of [`live_limit`](Self::live_limit).
    pub const DEFAULT_LIVE_LIMIT: usize = 1_000_000;
    /// The default of [`poll_interval`](Self::poll_interval).
    pub const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(1);
    /// The default of [`wait_cap`](Self::wait_cap): below the 30 s after which many proxies hang up.
    pub const DEFAULT_WAIT_CAP: Duration = Duration::from_secs(25);
    /// The default of [`waiters`](Self::waiters).
    pub const DEFAULT_WAITERS: usize = 10_000;
    /// The default of [`streams`](Self::streams).
    pub const DEFAULT_STREAMS: usize = 10_000;
    /// The default of [`results_bytes`](Self::results_bytes): 512 MiB.
    pub const DEFAULT_RESULTS_BYTES: usize = 512 << 20;
    /// The default of [`heartbeat`](Self::heartbeat): half of the 30 s after which many proxies hang up.
    pub const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(15);
    /// The default of [`stall_limit`](Self::stall_limit).
    pub const DEFAULT_STALL_LIMIT: Duration = Duration::from_secs(30);
    /// The default of [`stream_lifetime`](Self::stream_lifetime): an hour.
    pub const DEFAULT_STREAM_LIFETIME: Duration = Duration::from_secs(60 * 60);
    /// The default of [`concurrency`](Self::concurrency).
    pub const DEFAULT_CONCURRENCY: usize = 512;
    /// The default of [`queue`](Self::queue).
    pub const DEFAULT_QUEUE: usize = 10_000;
    /// The default of [`lease`](Self::lease).
    pub const DEFAULT_LEASE: Duration = Duration::from_secs(30);
    /// The default of [`cancel_grace`](Self::cancel_grace).
    pub const DEFAULT_CANCEL_GRACE: Duration = Duration::from_secs(10);
    /// The default of [`progress_interval`](Self::progress_interval).
    pub const DEFAULT_PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
    /// The default of [`sweep_interval`](Self::sweep_interval).
    pub const DEFAULT_SWEEP_INTERVAL: Duration = Duration::from_secs(1);
    /// The default of [`store_timeout`](Self::store_timeout).
    pub const DEFAULT_STORE_TIMEOUT: Duration = Duration::from_secs(2);
    /// The default of [`max_outcome_bytes`](Self::max_outcome_bytes): 16 MiB.
    pub const DEFAULT_MAX_OUTCOME_BYTES: usize = 16 << 20;
    /// The default of [`poll_rate`](Self::poll_rate).
    pub const DEFAULT_POLL_RATE: u32 = 1_000;
    /// The default of [`owner_poll_rate`](Self::owner_poll_rate).
    pub const DEFAULT_OWNER_POLL_RATE: u32 = 1_000;

    pub(super) fn new(store: Arc<dyn OperationStore>) -> Self {
        let settings = Settings {
            urls: MonitorUrls::default(),
            retention: NewOperation::DEFAULT_RETENTION,
            retention_bounds: RetentionBounds {
                shortest: Duration::MAX,
                longest: Self::DEFAULT_LONGEST_RETENTION,
            },
            deadline: Self::DEFAULT_DEADLINE,
            live_limit: Self::DEFAULT_LIVE_LIMIT,
            poll_interval: Self::DEFAULT_POLL_INTERVAL,
            wait_cap: Self::DEFAULT_WAIT_CAP,
            waiters: Self::DEFAULT_WAITERS,
            streams: Self::DEFAULT_STREAMS,
            results_bytes: Self::DEFAULT_RESULTS_BYTES,
            heartbeat: Self::DEFAULT_HEARTBEAT,
            stall_limit: Self::DEFAULT_STALL_LIMIT,
            stream_lifetime: Self::DEFAULT_STREAM_LIFETIME,
            concurrency: Self::DEFAULT_CONCURRENCY,
            queue: Self::DEFAULT_QUEUE,
            owner_limit: None,
            lease: Self::DEFAULT_LEASE,
            cancel_grace: Self::DEFAULT_CANCEL_GRACE,
            progress_interval: Self::DEFAULT_PROGRESS_INTERVAL,
            sweep_interval: Self::DEFAULT_SWEEP_INTERVAL,
            store_timeout: Self::DEFAULT_STORE_TIMEOUT,
            max_outcome_bytes: Self::DEFAULT_MAX_OUTCOME_BYTES,
            poll_rate: Self::DEFAULT_POLL_RATE,
            owner_poll_rate: Self::DEFAULT_OWNER_POLL_RATE,
            run_span: RunSpan::default(),
        };
        Self {
            store,
            settings,
            clock: Arc::new(SystemClock),
            jobs: Vec::new(),
            follow_ups: Vec::new(),
        }
    }

    /// Where the monitors are: the path at which you mount them (default `/operations`), or an
    /// absolute URL that ends in it, if the service knows its public address.
    ///
    /// # Panics
    /// If it is neither, has no path (the monitors would take all requests), or has a query or a fragment.
    pub fn base_url(mut self, base: impl AsRef<str>) -> Self {
        self.settings.urls = MonitorUrls::new(base);
        self
    }

    /// How long a finished operation stays readable (default
    /// [one day](NewOperation::DEFAULT_RETENTION)); after it, 410.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.settings.retention = retention;
        self
    }

    /// What a single request may [ask for](super::KickOff::retention): no less than `shortest`, by
    /// default the shortest that the builder and the jobs' policies set, and no more than `longest`, by
    /// default [30 days](Self::DEFAULT_LONGEST_RETENTION).
    ///
    /// An operation that is not there, and is older than the shortest, is answered 410, for it may
    /// have expired.
    pub fn retention_bounds(mut self, shortest: Duration, longest: Duration) -> Self {
        self.settings.retention_bounds = RetentionBounds { shortest, longest };
        self
    }

    /// How long after its acceptance an operation must have ended if neither its request nor its job's policy
    /// says otherwise; else it fails. The default is [a day](Self::DEFAULT_DEADLINE).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// Registers what does the jobs of a kind, with the [default policy](JobPolicy::new). The
    /// process then runs what it and others have stored of that kind.
    ///
    /// ```
    /// use respond_async::operations::Job;
    /// use respond_async::respond::Created;
    /// use respond_async::store::MemoryStore;
    /// use respond_async::{Context, Operations, Problem};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Enhance {
    ///     image: String,
    /// }
    ///
    /// impl Job for Enhance {
    ///     const KIND: &'static str = "images.enhance";
    /// }
    ///
    /// async fn enhance(job: Enhance, context: Context) -> Result<Created, Problem> {
    ///     context.progress(0.5, "sharpening");
    ///     Ok(Created::at(job.image))
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let operations = Operations::builder(MemoryStore::new()).job(enhance).start();
    /// # }
    /// ```
    ///
    /// # Panics
    /// [`start`](Self::start) does if the kind is no valid [`Kind`](crate::operation::Kind), or is
    /// registered twice.
    pub fn job<J, H, F>(self, handler: H) -> Self
    where
        J: Job,
        H: Fn(J, Context) -> F + Send + Sync + 'static,
        F: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.job_with(JobPolicy::new(), handler)
    }

    /// Registers what does the jobs of a kind, with a policy of its own.
    ///
    /// # Panics
    /// As [`job`](Self::job).
    pub fn job_with<J, H, F>(mut self, policy: JobPolicy, handler: H) -> Self
    where
        J: Job,
        H: Fn(J, Context) -> F + Send + Sync + 'static,
        F: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.jobs.push(Registration::new(policy, handler));
        self
    }

    /// Has work follow from each change of an operation that a client can see, but for a worker's taking a job
    /// (pending to running): a message to somebody, a count. It is accepted in the step that writes the change, so
    /// it follows if and only if the change took place, and is done at least once, whatever process dies.
    /// Register a [handler](Self::job) for it.
    ///
    /// `job` is given the operation as it becomes, and says what follows, if anything does. It is asked by
    /// whoever changes the operation, so let it be quick. Several jobs may follow from one change, and nothing
    /// follows from those. If it panics, nothing follows. Their order is not kept: tell older from newer by the
    /// [revision](Operation::revision).
    ///
    /// What follows from the acceptance itself is accepted right after it, and lost if the process dies in
    /// between. Whoever must hear of each acceptance tells it again with the end, which always comes.
    ///
    /// ```
    /// use respond_async::operations::Job;
    /// use respond_async::store::MemoryStore;
    /// use respond_async::{Context, Operations, Outcome};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Tell {
    ///     who: String,
    ///     of: respond_async::OperationId,
    /// }
    ///
    /// impl Job for Tell {
    ///     const KIND: &'static str = "tell";
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let operations = Operations::builder(MemoryStore::new())
    ///     .follow_up(|operation| {
    ///         let who = operation.owner().name()?.to_owned();
    ///         operation.status().is_finished().then_some(Tell { who, of: operation.id() })
    ///     })
    ///     .job(async |job: Tell, _: Context| {
    ///         println!("{}: {} has ended", job.who, job.of);
    ///         Outcome::default()
    ///     })
    ///     .start();
    /// # }
    /// ```
    ///
    /// # Panics
    /// [`start`](Self::start) does if no handler is registered for it.
    pub fn follow_up<J: Job>(
        mut self,
        job: impl Fn(&Operation) -> Option<J> + Send + Sync + 'static,
    ) -> Self {
        self.follow_ups.push(FollowUp::new(move |operation, _| job(operation)));
        self
    }

    /// The same for what is told of the operation by its links.
    #[cfg(any(feature = "amqp", feature = "webhook"))]
    pub(crate) fn follow_up_with<J: Job>(
        mut self,
        job: impl Fn(&Operation, &MonitorUrls) -> Option<J> + Send + Sync + 'static,
    ) -> Self {
        self.follow_ups.push(FollowUp::new(job));
        self
    }

    /// The longest that a request is held by `wait`, whatever its client prefers. The default is
    /// [25 s](Self::DEFAULT_WAIT_CAP).
    pub fn wait_cap(mut self, cap: Duration) -> Self {
        self.settings.wait_cap = cap;
        self
    }

    /// How many polls this process holds at once (`Prefer: wait` on a monitor), however many operations they
    /// ask about, and with them requests that wait for work elsewhere or for what was begun before. One more is
    /// answered at once, as if it had no such preference; a request gets 202. The default is
    /// [10,000](Self::DEFAULT_WAITERS).
    pub fn waiters(mut self, polls: usize) -> Self {
        self.settings.waiters = polls.min(tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// How many event streams of monitors and lists this process keeps open at once. One more tells how things
    /// stand, and ends. The default is [10,000](Self::DEFAULT_STREAMS).
    pub fn streams(mut self, streams: usize) -> Self {
        self.settings.streams = streams.min(tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// How many bytes of results this process has on their way to clients at once: those of a monitor's `/result`, and
    /// of requests that are answered from the store. One more is answered 503 with `Retry-After`; a new request, 202.
    /// Results of up to 64 KiB do not count, and one that is larger than all of this is given when no other is on its
    /// way. The default is [512 MiB](Self::DEFAULT_RESULTS_BYTES).
    pub fn results_bytes(mut self, bytes: usize) -> Self {
        self.settings.results_bytes = bytes;
        self
    }

    /// How often an event stream that has nothing to tell sends a comment, so that no proxy takes it for dead;
    /// at least every 10 ms. The default is [15 s](Self::DEFAULT_HEARTBEAT).
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.settings.heartbeat = interval.max(Duration::from_millis(10));
        self
    }

    /// How long the reader of an event stream may leave an event or a heartbeat unread. Then the stream ends;
    /// its client gets what it has missed when it comes again. The default is
    /// [30 s](Self::DEFAULT_STALL_LIMIT).
    pub fn stall_limit(mut self, limit: Duration) -> Self {
        self.settings.stall_limit = limit;
        self
    }

    /// How long an event stream goes on. Then it ends, and its client comes again: so whether it may still read
    /// is asked now and then. The default is [an hour](Self::DEFAULT_STREAM_LIFETIME).
    pub fn stream_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.stream_lifetime = lifetime;
        self
    }

    /// How many unfinished operations there may be, in all processes that use the store together. One more is
    /// answered 503, and nothing of it is stored. The default is [1,000,000](Self::DEFAULT_LIVE_LIMIT).
    pub fn live_limit(mut self, operations: usize) -> Self {
        self.settings.live_limit = operations;
        self
    }

    /// How often work is looked for that nobody told of, at least every 10 ms: jobs whose delay or whose lease
    /// has passed, and all of them where a store gives no hints. Work that this process stored begins at once.
    /// The default is [1 s](Self::DEFAULT_POLL_INTERVAL).
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval.max(Duration::from_millis(10));
        self
    }

    /// How many tasks run at once, at least 1, and how many jobs of each kind whose policy says nothing.
    /// Requests without preference do not count: they run inline, as they would without this crate. The default
    /// is [512](Self::DEFAULT_CONCURRENCY).
    pub fn concurrency(mut self, tasks: usize) -> Self {
        self.settings.concurrency = tasks.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// How many tasks wait for their turn. One more is answered 503, and nothing of it is stored. The default
    /// is [10,000](Self::DEFAULT_QUEUE).
    pub fn queue(mut self, tasks: usize) -> Self {
        self.settings.queue = tasks;
        self
    }

    /// How many unfinished operations one owner may have (default: no bound of its own). One more
    /// is answered 429.
    pub fn owner_limit(mut self, operations: usize) -> Self {
        self.settings.owner_limit = Some(operations);
        self
    }

    /// How long a lease is, at least 1 s: how long after the death of its process an operation is still taken
    /// to be at work. It is renewed at a third of its length. The default is [30 s](Self::DEFAULT_LEASE).
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease.max(Duration::from_secs(1));
        self
    }

    /// How long a handler may go on after cancellation was requested, before it is dropped. The default is
    /// [10 s](Self::DEFAULT_CANCEL_GRACE).
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.settings.cancel_grace = grace;
        self
    }

    /// How often one operation's progress is written at the most. What is reported in between is merged: the
    /// last report counts. The default is [1 s](Self::DEFAULT_PROGRESS_INTERVAL).
    pub fn progress_interval(mut self, interval: Duration) -> Self {
        self.settings.progress_interval = interval;
        self
    }

    /// How often expired and abandoned operations are looked for, at least every 10 ms. The default is
    /// [1 s](Self::DEFAULT_SWEEP_INTERVAL).
    pub fn sweep_interval(mut self, interval: Duration) -> Self {
        self.settings.sweep_interval = interval.max(Duration::from_millis(10));
        self
    }

    /// How long the store may take to answer a request; after it, 503. The default is
    /// [2 s](Self::DEFAULT_STORE_TIMEOUT).
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.settings.store_timeout = timeout;
        self
    }

    /// How large a kept answer may be. The operation of a larger one fails. The default is
    /// [16 MiB](Self::DEFAULT_MAX_OUTCOME_BYTES).
    pub fn max_outcome_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_outcome_bytes = bytes;
        self
    }

    /// How many polls a second all clients of this process together are asked for, at least 1: the more they
    /// ask about, the longer their `Retry-After`. The rate is kept up to 600 × `polls_per_second` operations;
    /// beyond that polls come faster, since no client is told to wait longer than about ten minutes. The
    /// default is [1,000](Self::DEFAULT_POLL_RATE).
    pub fn poll_rate(mut self, polls_per_second: u32) -> Self {
        self.settings.poll_rate = polls_per_second.max(1);
        self
    }

    /// How many requests a second the monitors answer one owner in this process, at least 1. One that has not asked
    /// for a while may ask ten seconds' worth at once; one more is answered 429 with `Retry-After`, before
    /// anything is read. A client without a name has such a budget for each operation. Whoever holds polls asks
    /// again when they end, so let it be no less than the polls that one owner may hold. The default is
    /// [1,000](Self::DEFAULT_OWNER_POLL_RATE).
    pub fn owner_poll_rate(mut self, polls_per_second: u32) -> Self {
        self.settings.owner_poll_rate = polls_per_second.max(1);
        self
    }

    /// How the span is made that an attempt runs in, wherever it runs (default: `operation.run`, at the level
    /// `INFO`, with the operation's id and kind, the attempt and the trace's parent). A tracing system is
    /// told here which trace it belongs to: see [the guide](crate::guide::operating). If the span has a field
    /// `operation.status`, the operation's end is written to it.
    pub fn run_span(
        mut self,
        span: impl Fn(RunInfo<'_>) -> tracing::Span + Send + Sync + 'static,
    ) -> Self {
        self.settings.run_span = RunSpan::new(span);
        self
    }

    /// The clock by which ids are made, and by which an id that is not known is told from one that has
    /// expired (default: the operating system's). All else is judged by the store's clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Starts to take requests, and tasks that run stored jobs and look for expired and abandoned
    /// operations; they end with the last clone of what is returned.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if a [job](Self::job) cannot be registered.
    #[must_use = "its workers end with its last clone"]
    pub fn start(mut self) -> Operations {
        let Capabilities { durability, max_body_bytes: max_body, .. } = self.store.capabilities();
        self.settings.max_outcome_bytes = self.settings.max_outcome_bytes.min(max_body);
        self.settings.keep_within_reach();
        // An id that is not known may be that of an operation that has expired if it is older than this. What
        // follows from other operations is nobody's, so nobody asks for it.
        let follows = |kind| self.follow_ups.iter().any(|follow_up| follow_up.kind == kind);
        let of_jobs = self.jobs.iter().filter(|job| !follows(job.kind()));
        let of_jobs = of_jobs.filter_map(|job| job.policy().retention);
        let bounds = &mut self.settings.retention_bounds;
        bounds.shortest =
            of_jobs.chain([self.settings.retention, bounds.shortest]).min().unwrap_or_default();
        for FollowUp { kind, .. } in &self.follow_ups {
            let is_registered = self.jobs.iter().any(|job| job.kind() == *kind);
            assert!(is_registered, "no handler is registered for {kind:?}, which follows");
        }
        let Self { store, settings, clock, jobs, follow_ups } = self;
        #[cfg(feature = "metrics")]
        telemetry::describe();
        telemetry::started(durability);
        let operations = Operations::of(Inner::new(store, settings, clock, &jobs, follow_ups));
        sweep::spawn(&operations);
        worker::spawn(&operations);
        operations
    }
}
