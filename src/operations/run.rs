//! What runs in this process, and what it is told from outside.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::telemetry::RunInfo;
use crate::lock::lock;
use crate::operation::{Kind, OperationId, Progress, TraceContext};

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

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
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

    pub(super) fn report(&self, progress: Progress) {
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
pub(crate) struct Runs(Mutex<HashMap<OperationId, Arc<Run>>>);

impl Runs {
    /// Has a task told what is sent to its operation, as long as what this gives is kept.
    pub(crate) fn enter(self: &Arc<Self>, run: &Arc<Run>) -> Running {
        lock(&self.0).insert(run.id, Arc::clone(run));
        Running { runs: Arc::clone(self), run: Arc::clone(run) }
    }

    /// Tells the task of that operation, if it runs here.
    pub(crate) fn send(&self, id: OperationId, signal: Signal) {
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

/// A task that can be told things as long as this exists.
#[derive(Debug)]
pub(crate) struct Running {
    runs: Arc<Runs>,
    run: Arc<Run>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut runs = lock(&self.runs.0);
        // A later attempt may have its place: this process can lose a lease, or a broker's channel, and be given
        // the same again.
        if runs.get(&self.run.id).is_some_and(|held| Arc::ptr_eq(held, &self.run)) {
            runs.remove(&self.run.id);
        }
        if runs.len() < runs.capacity() / 8 {
            runs.shrink_to(1_024);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn a_run_that_ends_leaves_its_successor() {
        let id = OperationId::from_parts(Timestamp::from_unix_millis(1), [7; 10]);
        let (runs, first) = (Arc::new(Runs::default()), Run::new(id, 1, None, None));
        let second = Run::new(id, 2, None, None);
        let one = runs.enter(&first);
        let other = runs.enter(&second);
        drop(one);
        runs.send(id, Signal::Cancel);
        assert_eq!((first.signal(), second.signal()), (Signal::GoOn, Signal::Cancel));
        drop(other);
        assert!(lock(&runs.0).is_empty());
    }
}
