use std::future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::run::{Run, Signal};
use crate::operation::{OperationId, Progress, TraceContext};
use crate::problem::{Problem, types};

/// What a handler is given: where to report progress, and where to learn that it should stop.
///
/// The same handler serves the synchronous answer too. There nobody can see its progress or cancel
/// it: reports are dropped, nothing asks it to stop, and only [`trace`](Self::trace) says anything.
/// [`Context::default()`] is such a context, without a trace: a test can call a handler with it.
///
/// A clone is the same context.
#[derive(Debug, Clone, Default)]
pub struct Context {
    run: Option<Arc<Run>>,
    trace: Option<TraceContext>,
}

impl Context {
    pub(crate) fn of(run: &Arc<Run>) -> Self {
        Self { run: Some(Arc::clone(run)), trace: run.trace().cloned() }
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
        self.run.as_ref().map(|run| run.id())
    }

    /// How long until the operation's deadline, after which no success is recorded. None in the synchronous
    /// answer, which has none. Of work that begins before its operation is stored, because its client waits for a
    /// while, it counts from then: the deadline itself may be later by as long.
    pub fn time_left(&self) -> Option<Duration> {
        let deadline = self.run.as_ref()?.deadline()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// The trace that the request belongs to, if it was [told](super::KickOff::trace): for what the work asks of
    /// other services.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.run.as_ref().map_or(1, |run| run.attempt())
    }
}
