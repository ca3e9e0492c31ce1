use std::collections::HashMap;
use std::future;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::telemetry::RunInfo;
use crate::lock::lock;
use crate::operation::{Kind, OperationId, Progress, TraceContext};
use crate::problem::{Problem, types};

/// What a handler is given: where to report progress, and where to learn that it should stop.
///
/// The same handler serves the synchronous answer too. There nobody can see its progress or cancel
/// it, and every method of the context does nothing, at no cost.
///
/// A clone is the same context.
#[derive(Debug, Clone, Default)]
pub struct Context {
    run: Option<Arc<Run>>,
    trace: Option<TraceContext>,
}

impl Context {
    pub(crate) fn of(run: &Arc<Run>) -> Self {
        Self { run: Some(Arc::clone(run)), trace: run.trace.clone() }
    }

    /// That of the synchronous answer to a request.
    pub(crate) fn inline(trace: Option<TraceContext>) -> Self {
        Self { run: None, trace }
    }

    /// Says how much is done, from 0 to 1 (`None` if that is not known), and what the work is at. Never waits:
    /// it is written soon, and a later report may replace it before.
    pub fn progress(&self, fraction: impl Into<Option<f64>>, message: impl AsRef<str>) {
        if let Some(run) = &self.run {
            run.report(Progress::new(fraction, message));
        }
    }

    /// Whether the work should stop: its cancellation was requested, another worker has it, or the service shuts
    /// down and its [grace](super::Operations::shutdown) is over.
    pub fn is_canceled(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.signal() != Signal::GoOn)
    }

    /// Gives an error if the work should stop, so that a handler can say `context.check()?` between
    /// two steps.
    ///
    /// # Errors
    /// A problem of the type [`CANCELED`](types::CANCELED). Returned from the handler, it makes the
    /// operation canceled, not failed.
    pub fn check(&self) -> Result<(), Problem> {
        if self.is_canceled() { Err(Problem::new(types::CANCELED)) } else { Ok(()) }
    }

    /// Waits until the work should stop; for ever if that never comes.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn canceled(&self) {
        match &self.run {
            Some(run) => run.stopped().await,
            None => future::pending().await,
        }
    }

    /// Whether somebody asked for the operation to end, and nothing stronger holds: a lease that is lost leaves it
    /// to a successor.
    #[cfg(feature = "amqp")]
    pub(crate) fn is_cancel_requested(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.signal() == Signal::Cancel)
    }

    /// The operation that the work belongs to: a name for its side effects that stays the same over
    /// all attempts. None in the synchronous answer.
    pub fn operation_id(&self) -> Option<OperationId> {
        self.run.as_ref().map(|run| run.id)
    }

    /// How long until the operation's deadline, after which no success is recorded. None in the synchronous
    /// answer, which has none.
    pub fn time_left(&self) -> Option<Duration> {
        let deadline = self.run.as_ref()?.deadline?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// The trace that the request belongs to, if it was [told](super::KickOff::trace): for what the work asks of
    /// other services.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.run.as_ref().map_or(1, |run| run.attempt)
    }
}

/// What a running task is told from outside. Each is stronger than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Signal {
    GoOn,
    /// Cancellation was requested.
    Cancel,
    /// The lease is lost: whatever it ends with will not be recorded.
    LeaseLost,
    /// The service shuts down and its grace is over.
    Interrupt,
}

/// A task that runs in this process.
#[derive(Debug)]
pub(crate) struct Run {
    id: OperationId,
    attempt: u32,
    deadline: Option<Instant>,
    trace: Option<TraceContext>,
    signal: AtomicU8,
    cancel_requested: AtomicBool,
    progress: Mutex<Option<Progress>>,
    /// Wakes the handler.
    stop: Notify,
    /// Wakes the task around the handler.
    news: Notify,
}

impl Run {
    pub(crate) fn new(
        id: OperationId,
        attempt: u32,
        deadline: Option<Instant>,
        trace: Option<TraceContext>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            attempt,
            deadline,
            trace,
            signal: AtomicU8::new(Signal::GoOn as u8),
            cancel_requested: AtomicBool::new(false),
            progress: Mutex::default(),
            stop: Notify::new(),
            news: Notify::new(),
        })
    }

    pub(super) fn id(&self) -> OperationId {
        self.id
    }

    pub(crate) fn info<'a>(&'a self, kind: &'a Kind) -> RunInfo<'a> {
        RunInfo { id: self.id, kind, attempt: self.attempt, trace: self.trace.as_ref() }
    }

    pub(super) fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(crate) fn send(&self, signal: Signal) {
        if signal == Signal::Cancel {
            self.cancel_requested.store(true, Ordering::Release);
        }
        self.signal.fetch_max(signal as u8, Ordering::AcqRel);
        self.stop.notify_waiters();
        self.news.notify_one();
    }

    pub(crate) fn signal(&self) -> Signal {
        match self.signal.load(Ordering::Acquire) {
            0 => Signal::GoOn,
            1 => Signal::Cancel,
            2 => Signal::LeaseLost,
            _ => Signal::Interrupt,
        }
    }

    /// Waits until the service shuts down and its grace is over.
    pub(super) async fn interrupted(&self) {
        while self.signal() != Signal::Interrupt {
            self.news().await;
        }
    }

    /// Waits for a signal or a report that came since the last call.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Takes the last report that was not taken yet.
    pub(crate) fn take_progress(&self) -> Option<Progress> {
        lock(&self.progress).take()
    }

    fn report(&self, progress: Progress) {
        *lock(&self.progress) = Some(progress);
        self.news.notify_one();
    }

    /// Waits until the work should stop, for a reason other than a shutdown: that ends the work itself.
    pub(super) async fn stopped(&self) {
        loop {
            // Made before the look at the signal, so that none is missed in between.
            let notified = self.stop.notified();
            if !matches!(self.signal(), Signal::GoOn | Signal::Interrupt) {
                return;
            }
            notified.await;
        }
    }

    /// Whether its cancellation was requested, whatever else it was told since.
    pub(crate) fn is_cancel_requested(&self) -> bool {
        self.cancel_requested.load(Ordering::Acquire)
    }
}

/// The tasks that run in this process, by operation.
#[derive(Debug, Default)]
pub(super) struct Runs(Mutex<HashMap<OperationId, Arc<Run>>>);

impl Runs {
    pub(super) fn insert(&self, run: &Arc<Run>) {
        lock(&self.0).insert(run.id, Arc::clone(run));
    }

    pub(super) fn remove(&self, run: &Arc<Run>) {
        let mut runs = lock(&self.0);
        // A later attempt may have its place: this process can lose a lease and get it again.
        if runs.get(&run.id).is_some_and(|held| Arc::ptr_eq(held, run)) {
            runs.remove(&run.id);
        }
        if runs.len() < runs.capacity() / 8 {
            runs.shrink_to(1_024);
        }
    }

    /// Tells the task of that operation, if it runs here.
    pub(super) fn send(&self, id: OperationId, signal: Signal) {
        let run = lock(&self.0).get(&id).cloned();
        if let Some(run) = run {
            run.send(signal);
        }
    }

    pub(super) fn send_all(&self, signal: Signal) {
        let runs: Vec<_> = lock(&self.0).values().cloned().collect();
        for run in runs {
            run.send(signal);
        }
    }
}
