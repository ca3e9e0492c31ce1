//! Work that begins at once and is stored only when its answer is late, in one task.
//!
//! The task alone decides what the client gets: the answer itself while that is in time, or else,
//! once the store has the operation, a 202. So there is no moment at which both could happen.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::admission::Admitted;
use super::attempt::{Attempt, End, RunGuard};
use super::calls::{store_problem, unavailable, without_panic};
use super::context::{Run, Signal};
use super::job::{Registered, Work};
use super::{Inner, pace, telemetry};
use crate::operation::{Change, IntoOutcome, Outcome};
use crate::problem::{Problem, types};
use crate::store::{Acceptance, Full, Observed, OperationStoreExt, Submission};

/// What the request that began the work is answered with.
pub(super) enum Answer {
    /// The work ended in time; nothing was stored.
    Ready(Outcome),
    /// The store has the operation, and the work goes on.
    Accepted(Box<Observed>),
    /// The request was accepted before, and this is its operation.
    Existing(Box<Observed>),
    /// Nothing was accepted.
    Refused(Problem),
}

/// What whoever comes, or still waits, during a shutdown is told.
pub(super) fn shutting_down() -> Problem {
    Problem::new(types::SHUTTING_DOWN).with_retry_after(pace::MIN)
}

pub(super) struct Task {
    pub(super) inner: Arc<Inner>,
    pub(super) admitted: Admitted,
    pub(super) run: Arc<Run>,
    pub(super) submission: Submission,
    /// What sort of job it is; none if the work is this process's alone.
    pub(super) job: Option<Arc<Registered>>,
    pub(super) wait: Duration,
    pub(super) answer: oneshot::Sender<Answer>,
}

impl Task {
    /// Begins the task. It goes on when nobody waits for its answer.
    pub(super) fn spawn(self, work: Work) {
        // Whatever way the task ends, its entry goes with it.
        let guard = RunGuard::new(&self.inner, &self.run);
        let runtime = self.inner.runtime.clone();
        let span =
            self.inner.settings.run_span.make(self.run.info(self.submission.operation.kind()));
        // Boxed, because the runtime moves a task several times before it stands still.
        let run = Box::pin(self.run(work).instrument(span));
        runtime.spawn(async move {
            run.await;
            drop(guard);
        });
    }

    async fn run(self, mut work: Work) {
        let Self { inner, admitted, run, mut submission, job, wait, answer } = self;
        let mut place = admitted.try_place();
        let mut began = Instant::now();

        if !wait.is_zero() {
            let over = sleep_until(began + wait);
            let in_time = async {
                if place.is_none() {
                    place = Some(admitted.place().await);
                    began = Instant::now();
                }
                without_panic(work.as_mut()).await
            };
            tokio::select! {
                biased;
                // A handler that heard of the shutdown has no answer of its own.
                () = run.interrupted() => {
                    let _ = answer.send(Answer::Refused(shutting_down()));
                    return;
                }
                outcome = in_time => {
                    admitted.ran(began.elapsed());
                    let kind = submission.operation.kind();
                    telemetry::answered_in_time(kind);
                    if outcome.is_err() {
                        telemetry::panicked(kind);
                    }
                    // If nobody waits any more, the answer has no reader.
                    let _ = answer.send(Answer::Ready(outcome.unwrap_or_else(Problem::into_outcome)));
                    return;
                }
                () = over => {}
            }
        }

        // A job that has not begun is left to whoever claims it first. Other work only this process
        // can do, so it keeps it even while it waits for a place.
        let is_held = place.is_some() || job.is_none();
        if is_held {
            let operation = submission.operation.with_progress(run.take_progress());
            submission.operation = operation.held(inner.settings.lease, place.is_some());
        }
        let observed = match accept(&inner, submission).await {
            Ok((observed, true)) => observed,
            Ok((observed, false)) => {
                let _ = answer.send(Answer::Existing(observed));
                return;
            }
            Err(problem) => {
                let _ = answer.send(Answer::Refused(problem));
                return;
            }
        };
        let policy = job.as_ref().map(|job| job.policy);
        let attempt = is_held.then(|| Attempt::new(&inner, &run, &observed, policy));
        // The client may have hung up; what was accepted is done all the same.
        let _ = answer.send(Answer::Accepted(observed));
        let Some(attempt) = attempt else {
            if let Some(job) = job {
                job.wake.notify_one();
            }
            return;
        };

        let mut keep = pin!(attempt.keep());
        let mut end = None;
        if place.is_none() {
            tokio::select! {
                biased;
                kept = keep.as_mut() => end = Some(kept),
                // A queued operation that is canceled has ended already: no work has to stop first.
                () = run.stopped() => end = Some(End::LeaseLost),
                acquired = admitted.place() => place = Some(acquired),
            }
            if end.is_none() {
                began = Instant::now();
                let start = Change::Start { attempt: run.attempt() };
                end = attempt.record(start, None).await.is_err().then_some(End::LeaseLost);
            }
        }
        let end = match end {
            Some(_) if run.signal() == Signal::Interrupt => End::Interrupted,
            Some(end) => end,
            None => attempt.work_on(work, keep).await,
        };
        if place.take().is_some() {
            admitted.ran(began.elapsed());
        }
        attempt.finish(end).await;
    }
}

/// Stores the operation, and says whether it is new.
pub(super) async fn accept(
    inner: &Arc<Inner>,
    submission: Submission,
) -> Result<(Box<Observed>, bool), Problem> {
    let mut limits = submission.limits.with_total(inner.settings.live_limit);
    limits.owner = inner.settings.owner_limit;
    let submission = submission.with_limits(limits);
    let here = Arc::clone(inner);
    let (id, kind_of_work) = (submission.operation.id(), submission.operation.kind().clone());
    let span = telemetry::accept_span(id, &kind_of_work);
    let call = async move {
        let accepted = here.store.submit(submission).await;
        // What comes of it comes also if its client hangs up.
        if let Ok(Acceptance::Created(observed)) = &accepted {
            let operation = &observed.operation;
            telemetry::accepted(operation);
            here.follow_acceptance(operation);
            let is_held = operation.lease_expires().is_some();
            if let Some(job) = here.jobs.get(operation.kind().as_str()).filter(|_| !is_held) {
                job.wake.notify_one();
            }
        }
        accepted
    };
    match inner.detached(Box::pin(call.instrument(span))).await {
        Some(Ok(Acceptance::Created(observed))) => Ok((observed, true)),
        Some(Ok(Acceptance::Existing(observed))) => Ok((observed, false)),
        Some(Ok(Acceptance::Full(full))) => {
            let kind = match full {
                Full::Owner => types::TOO_MANY_OPERATIONS,
                Full::Total => types::OVERLOADED,
            };
            Err(Problem::new(kind).with_retry_after(inner.overloaded(id, &kind_of_work)))
        }
        Some(Ok(Acceptance::KeyReused)) => Err(Problem::new(types::KEY_REUSED)),
        Some(Err(error)) => {
            telemetry::store_failed(None, Some(&error));
            Err(store_problem(&error))
        }
        None => {
            telemetry::store_failed(None, None);
            Err(unavailable())
        }
    }
}
