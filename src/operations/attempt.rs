//! One attempt at an operation: from when this process holds its lease to its recorded end.
//!
//! The lease is renewed by the same task that drives the work, so it cannot outlive it, and the work
//! cannot outlive the lease unnoticed.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::Instrument;

use super::calls::is_passing;
use super::job::{Work, without_panic};
use super::policy::JobPolicy;
use super::run::{Run, Signal};
use super::{Inner, telemetry};
use crate::lock::lock;
use crate::operation::{Change, IntoOutcome, Kind, Outcome, TransitionError};
use crate::problem::{Problem, types};
use crate::store::{ApplyError, Observed};

/// After how long a renewal is tried again that the store did not take.
const AGAIN: Duration = Duration::from_secs(1);
/// Later than any work that has to stop.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// After how long at the least to ask again whether the deadline has passed by the store's clock, when it had by
/// ours.
const DEADLINE_AGAIN: Duration = Duration::from_millis(100);

pub(super) struct Attempt {
    pub(super) inner: Arc<Inner>,
    pub(super) run: Arc<Run>,
    policy: Option<JobPolicy>,
    /// How many attempts there may be in all, and after this one.
    limit: u32,
    left: u32,
    deadline: Option<Instant>,
    kind: Kind,
    /// How long it could have been worked on when this was made.
    waited: Duration,
    made: Instant,
    /// The operation as this attempt saw it last. Nobody else changes much while it has the lease.
    known: Mutex<Observed>,
}

/// How the work ended.
pub(super) enum End {
    Outcome(Outcome),
    /// It went on for too long after its cancellation was requested.
    Canceled,
    /// Somebody else decides about the operation now.
    LeaseLost,
    /// The service shuts down, and its grace is over.
    Interrupted,
    /// The service shuts down, and it has not begun.
    NotBegun,
}

impl Attempt {
    /// The attempt at an operation whose lease this process has just got. Without a policy the work
    /// is this process's alone, and no other attempt can follow.
    pub(super) fn new(
        inner: &Arc<Inner>,
        run: &Arc<Run>,
        observed: &Observed,
        policy: Option<JobPolicy>,
    ) -> Self {
        let Observed { operation, now, .. } = observed;
        let in_time = |deadline: crate::time::Timestamp| deadline.duration_since(*now);
        Self {
            inner: Arc::clone(inner),
            run: Arc::clone(run),
            policy,
            limit: operation.attempt_limit(),
            left: operation.attempts_left(),
            deadline: operation.deadline().and_then(|at| Instant::now().checked_add(in_time(at))),
            kind: operation.kind().clone(),
            waited: now.duration_since(operation.available()),
            made: Instant::now(),
            known: Mutex::new(observed.clone()),
        }
    }

    /// Drives the work and, beside it, what keeps the operation. Dropping the work ends it.
    pub(super) async fn work_on(
        &self,
        mut work: Work,
        mut keep: Pin<&mut impl Future<Output = End>>,
    ) -> End {
        let began = Instant::now();
        telemetry::begun(&self.kind, self.waited + (began - self.made));
        let end = tokio::select! {
            biased;
            outcome = without_panic(work.as_mut()) => End::Outcome(outcome.unwrap_or_else(|problem| {
                telemetry::panicked(&self.kind);
                problem.into_outcome()
            })),
            end = keep.as_mut() => end,
        };
        telemetry::ended(&self.kind, began.elapsed());
        end
    }

    /// Whether this process has the lease still, which the store was asked for at that time. If that was long ago,
    /// somebody may have taken it since, so it is renewed first.
    pub(super) async fn holds_still(&self, asked: Instant) -> bool {
        let lease = self.inner.settings.lease;
        if asked.elapsed() < lease / 3 {
            return true;
        }
        let renew = Change::Renew { attempt: self.run.attempt(), lease };
        Box::pin(self.record(renew, None)).await.is_ok()
    }

    /// Renews the lease, writes progress, ends the operation at its deadline, and gives the work
    /// time to stop when it should. Ends only if the work must end.
    pub(super) async fn keep(&self) -> End {
        let (run, settings) = (&self.run, &self.inner.settings);
        let attempt = run.attempt();
        let mut renew_at = Instant::now() + settings.lease / 3;
        let mut report_at = Instant::now();
        let mut progress = None;
        let mut deadline = self.deadline;
        let mut stop_at: Option<Instant> = None;
        loop {
            let report = progress.as_ref().map(|_| report_at);
            let wake_at = [Some(renew_at), report, deadline, stop_at].into_iter().flatten().min();
            tokio::select! {
                () = run.news() => {}
                () = sleep_until(wake_at.unwrap_or(renew_at)) => {}
            }
            let now = Instant::now();
            match run.signal() {
                Signal::GoOn => {}
                Signal::Interrupt => return End::Interrupted,
                signal => {
                    if now >= *stop_at.get_or_insert(now + settings.cancel_grace) {
                        let is_cancel = signal == Signal::Cancel;
                        return if is_cancel { End::Canceled } else { End::LeaseLost };
                    }
                    if signal == Signal::LeaseLost {
                        // There is nothing left to keep: only the work's own time to stop.
                        (renew_at, report_at, deadline) = (now + FAR, now + FAR, None);
                        continue;
                    }
                }
            }
            progress = run.take_progress().or(progress);
            let change = if deadline.take_if(|deadline| now >= *deadline).is_some() {
                Change::Settle
            } else if now >= renew_at {
                renew_at = now + settings.lease / 3;
                Change::Renew { attempt, lease: settings.lease }
            } else if let Some(progress) = progress.take_if(|_| now >= report_at) {
                report_at = now + settings.progress_interval;
                Change::Progress { attempt, progress }
            } else {
                continue;
            };
            let is_settle = change == Change::Settle;
            // Boxed as it is seldom: the task waits here for as long as the work takes, and should be small.
            let applied = Box::pin(self.apply(change.clone(), None)).await;
            // It may have taken long.
            let now = Instant::now();
            match applied {
                Some(Ok(_)) if is_settle => run.send(Signal::LeaseLost),
                Some(Ok(observed)) if observed.operation.is_cancel_requested() => {
                    run.send(Signal::Cancel);
                }
                Some(Ok(_)) => {}
                // By the store's clock it is not over yet: ask again when it is.
                Some(Err(ApplyError::Refused(TransitionError::NothingDue, seen))) if is_settle => {
                    let left = seen.operation.deadline().map(|at| at.duration_since(seen.now));
                    deadline = now.checked_add(left.unwrap_or_default().max(DEADLINE_AGAIN));
                }
                Some(Err(error)) if !is_passing(&error) => {
                    telemetry::lease_lost(&self.kind);
                    run.send(Signal::LeaseLost);
                }
                // While the store is away the lease is the holder's until somebody takes it. The store may be
                // back long before it would be the turn again; it is not pressed either.
                Some(Err(_)) | None => {
                    let again = now + AGAIN;
                    report_at = report_at.max(again);
                    renew_at = match &change {
                        Change::Renew { .. } => renew_at.min(again),
                        _ => renew_at.max(again),
                    };
                    match change {
                        Change::Settle => deadline = Some(again),
                        Change::Progress { progress: told, .. } => {
                            progress = progress.or(Some(told));
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// Records how the work ended. Boxed, as [`keep`](Self::keep) boxes what it does.
    pub(super) fn finish(&self, end: End) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.record_end(end))
    }

    async fn record_end(&self, end: End) {
        let attempt = self.run.attempt();
        let fail = |kind| (Change::Fail { attempt, error: Problem::new(kind) }, None);
        let (change, outcome) = match end {
            End::LeaseLost => return,
            End::Interrupted if self.run.is_cancel_requested() => {
                (Change::ConfirmCancel { attempt }, None)
            }
            End::Canceled => (Change::ConfirmCancel { attempt }, None),
            // What may not run twice does not begin again, for it may have done its work.
            End::Interrupted if self.limit == 1 => fail(types::INTERRUPTED),
            End::Interrupted => (Change::Release { attempt }, None),
            End::NotBegun => (Change::Unclaim { attempt }, None),
            End::Outcome(outcome) if !self.inner.settings.takes(&outcome) => {
                fail(types::RESULT_TOO_LARGE)
            }
            End::Outcome(outcome) => {
                let outcome = outcome.without_connection_fields();
                match outcome.problem() {
                    None => (Change::Succeed { attempt, head: outcome.head() }, Some(outcome)),
                    Some(error) if error.is(types::CANCELED) => match self.run.signal() {
                        // It says so without having been asked.
                        Signal::GoOn => self.failure(error, outcome),
                        Signal::LeaseLost => return,
                        _ if self.run.is_cancel_requested() => {
                            (Change::ConfirmCancel { attempt }, None)
                        }
                        _ => return self.finish(End::Interrupted).await,
                    },
                    Some(error) => self.failure(error, outcome),
                }
            }
        };
        let is_told = self.run.signal() >= Signal::LeaseLost;
        // A refusal means that the operation has been decided about already.
        if let Err(TransitionError::LeaseLost) = self.record(change, outcome).await {
            if !is_told {
                telemetry::lease_lost(&self.kind);
            }
        }
    }

    /// What follows from an error: another attempt, or the end.
    fn failure(&self, error: Problem, outcome: Outcome) -> (Change, Option<Outcome>) {
        let attempt = self.run.attempt();
        let policy = self.policy.filter(|policy| policy.retries(&self.kind, &error));
        match policy.filter(|_| self.limit > 1) {
            None => (Change::Fail { attempt, error }, Some(outcome)),
            Some(_) if self.left == 0 => {
                let error = Problem::new(types::ATTEMPTS_EXHAUSTED)
                    .with_extension("attempts", self.limit)
                    .with_extension("last_error", &error);
                let outcome = error.clone().into_outcome();
                (Change::Fail { attempt, error }, Some(outcome))
            }
            Some(policy) => {
                // Without a random number the pause is the longest that it may be.
                let random = getrandom::u32().unwrap_or(u32::MAX);
                let delay = policy.pause_after(attempt, &error, random);
                telemetry::retried(&self.kind, &error, delay);
                (Change::Retry { attempt, delay, error }, Some(outcome))
            }
        }
    }

    /// Makes a change, however long the store is away.
    pub(super) async fn record(
        &self,
        change: Change,
        outcome: Option<Outcome>,
    ) -> Result<(), TransitionError> {
        const SHORTEST: Duration = Duration::from_millis(50);
        const LONGEST: Duration = Duration::from_secs(5);
        let mut pause = SHORTEST;
        loop {
            match self.apply(change.clone(), outcome.clone()).await {
                // Already running: an earlier try took place after all, for only the holder can
                // begin.
                Some(Ok(_) | Err(ApplyError::Refused(TransitionError::AlreadyRunning, _))) => {
                    return Ok(());
                }
                Some(Err(ApplyError::Refused(error, _))) => return Err(error),
                Some(Err(error)) if !is_passing(&error) => return Err(TransitionError::Finished),
                _ => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
    }

    /// Tries to make a change; none if the store does not answer in time.
    async fn apply(
        &self,
        change: Change,
        outcome: Option<Outcome>,
    ) -> Option<Result<Observed, ApplyError>> {
        let inner = Arc::clone(&self.inner);
        let known = lock(&self.known).clone();
        let call = async move { inner.apply_to(known, change, outcome).await };
        let applied = self.inner.detached(Box::pin(call.in_current_span())).await;
        match &applied {
            Some(Ok(observed)) => {
                *lock(&self.known) = observed.clone();
            }
            Some(Err(ApplyError::Store(error))) => {
                telemetry::store_failed(Some("attempt"), Some(error));
            }
            None => telemetry::store_failed(Some("attempt"), None),
            Some(Err(_)) => {}
        }
        applied
    }
}
