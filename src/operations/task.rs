//! One piece of ephemeral work, from its start to its recorded end, in one task.
//!
//! The task alone decides what the client gets: the answer itself while that is in time, or else,
//! once the store has the operation, a 202. So there is no moment at which both could happen.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::Inner;
use super::admission::Admitted;
use super::calls::{detached, is_passing, store_problem, unavailable, without_panic};
use super::context::{Run, Signal};
use crate::operation::{Change, IntoOutcome, NewOperation, Outcome, TransitionError};
use crate::problem::{Problem, types};
use crate::store::{Acceptance, ApplyError, Full, Limits, Observed, OperationStoreExt, Submission};

/// The work of a handler, its answer being whatever a synchronous caller would get.
pub(super) type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What the request that began the work is answered with.
pub(super) enum Answer {
    /// The work ended in time; nothing was stored.
    Ready(Outcome),
    /// The store has the operation, and the work goes on.
    Accepted(Box<Observed>),
    /// Nothing was accepted.
    Refused(Problem),
}

pub(super) struct Task {
    pub(super) inner: Arc<Inner>,
    pub(super) admitted: Admitted,
    pub(super) run: Arc<Run>,
    pub(super) operation: NewOperation,
    pub(super) wait: Duration,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// How the work ended.
enum End {
    Outcome(Outcome),
    /// It went on for too long after its cancellation was requested.
    Canceled,
    /// Somebody else decides about the operation now.
    LeaseLost,
    /// The service shuts down.
    Interrupted,
}

impl Task {
    /// Begins the task. It goes on when nobody waits for its answer.
    pub(super) fn spawn(self, work: Work) {
        self.inner.runs.insert(&self.run);
        // Whatever way the task ends, its entry goes with it.
        let registered = Registered { inner: Arc::clone(&self.inner), run: Arc::clone(&self.run) };
        // Boxed, because the runtime moves a task several times before it stands still.
        let run = Box::pin(self.run(work));
        tokio::spawn(async move {
            run.await;
            drop(registered);
        });
    }

    async fn run(self, mut work: Work) {
        let Self { inner, admitted, run, operation, wait, answer } = self;
        let lease = inner.settings.lease;
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
                outcome = in_time => {
                    admitted.ran(began.elapsed());
                    // If nobody waits any more, the answer has no reader.
                    let _ = answer.send(Answer::Ready(outcome.unwrap_or_else(Problem::into_outcome)));
                    return;
                }
                () = run.interrupted() => {
                    let _ = answer.send(Answer::Refused(Problem::new(types::SHUTTING_DOWN)));
                    return;
                }
                () = over => {}
            }
        }

        let operation = operation.with_progress(run.take_progress()).held(lease, place.is_some());
        match accept(&inner, operation).await {
            Ok(observed) => {
                // The client may have hung up; what was accepted is done all the same.
                let _ = answer.send(Answer::Accepted(observed));
            }
            Err(problem) => {
                let _ = answer.send(Answer::Refused(problem));
                return;
            }
        }

        let mut keep = pin!(keep(&inner, &run));
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
                end = record(&inner, &run, start, None).await.is_err().then_some(End::LeaseLost);
            }
        }
        let end = match end {
            Some(_) if run.signal() == Signal::Interrupt => End::Interrupted,
            Some(end) => end,
            None => work_on(work, keep).await,
        };
        if place.take().is_some() {
            admitted.ran(began.elapsed());
        }
        finish(&inner, &run, end).await;
    }
}

/// Drives the work and, beside it, what keeps the operation. Dropping the work ends it.
async fn work_on(mut work: Work, mut keep: Pin<&mut impl Future<Output = End>>) -> End {
    tokio::select! {
        biased;
        outcome = without_panic(work.as_mut()) => {
            End::Outcome(outcome.unwrap_or_else(Problem::into_outcome))
        }
        end = keep.as_mut() => end,
    }
}

/// Stores the operation.
async fn accept(inner: &Arc<Inner>, operation: NewOperation) -> Result<Box<Observed>, Problem> {
    let limits = match inner.settings.owner_limit {
        Some(most) => Limits::default().with_owner(most),
        None => Limits::default(),
    };
    let submission = Submission::new(operation).with_limits(limits);
    let store = Arc::clone(&inner.store);
    let call = Box::pin(async move { store.submit(submission).await });
    match detached(call, inner.settings.store_timeout).await {
        Some(Ok(Acceptance::Created(observed) | Acceptance::Existing(observed))) => Ok(observed),
        Some(Ok(Acceptance::Full(full))) => {
            let kind = match full {
                Full::Owner => types::TOO_MANY_OPERATIONS,
                Full::Total => types::OVERLOADED,
            };
            Err(Problem::new(kind).retry_after(inner.overloaded()))
        }
        Some(Ok(Acceptance::KeyReused)) => Err(Problem::new(types::KEY_REUSED)),
        Some(Err(error)) => Err(store_problem(&error)),
        None => Err(unavailable()),
    }
}

/// Renews the lease, writes progress, and gives the work time to stop when it should. Ends only if
/// the work must end.
async fn keep(inner: &Arc<Inner>, run: &Arc<Run>) -> End {
    let settings = &inner.settings;
    let attempt = run.attempt();
    let mut renew_at = Instant::now() + settings.lease / 3;
    let mut report_at = Instant::now();
    let mut progress = None;
    let mut stop_at: Option<Instant> = None;
    loop {
        let report = progress.as_ref().map(|_| report_at);
        let wake_at = [Some(renew_at), report, stop_at].into_iter().flatten().min();
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
                    return if signal == Signal::Cancel { End::Canceled } else { End::LeaseLost };
                }
            }
        }
        progress = run.take_progress().or(progress);
        let change = if now >= renew_at {
            renew_at = now + settings.lease / 3;
            Change::Renew { attempt, lease: settings.lease }
        } else if let Some(progress) = progress.take_if(|_| now >= report_at) {
            report_at = now + settings.progress_interval;
            Change::Progress { attempt, progress }
        } else {
            continue;
        };
        match apply(inner, run, change, None).await {
            Some(Ok(observed)) if observed.operation.is_cancel_requested() => {
                run.send(Signal::Cancel);
            }
            Some(Err(error)) if !is_passing(&error) => run.send(Signal::LeaseLost),
            // While the store is away the lease is the holder's until somebody takes it.
            _ => {}
        }
    }
}

/// Records how the work ended.
async fn finish(inner: &Arc<Inner>, run: &Arc<Run>, end: End) {
    let attempt = run.attempt();
    let (change, outcome) = match end {
        End::LeaseLost => return,
        End::Canceled => (Change::ConfirmCancel { attempt }, None),
        End::Interrupted => {
            (Change::Fail { attempt, error: Problem::new(types::INTERRUPTED) }, None)
        }
        End::Outcome(outcome) if outcome.body.len() > inner.settings.max_outcome_bytes => {
            (Change::Fail { attempt, error: Problem::new(types::RESULT_TOO_LARGE) }, None)
        }
        End::Outcome(outcome) => {
            let outcome = outcome.without_connection_fields();
            match outcome.problem() {
                None => (Change::Succeed { attempt, head: outcome.head() }, Some(outcome)),
                Some(error) if error.is(types::CANCELED) && run.signal() == Signal::Cancel => {
                    (Change::ConfirmCancel { attempt }, None)
                }
                Some(error) => (Change::Fail { attempt, error }, Some(outcome)),
            }
        }
    };
    // A refusal means that the operation has been decided about already.
    let _ = record(inner, run, change, outcome).await;
}

/// Makes a change, however long the store is away.
async fn record(
    inner: &Arc<Inner>,
    run: &Arc<Run>,
    change: Change,
    outcome: Option<Outcome>,
) -> Result<(), TransitionError> {
    const SHORTEST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(5);
    let mut pause = SHORTEST;
    loop {
        match apply(inner, run, change.clone(), outcome.clone()).await {
            // Already running: an earlier try took place after all, for only the holder can begin.
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
    inner: &Arc<Inner>,
    run: &Arc<Run>,
    change: Change,
    outcome: Option<Outcome>,
) -> Option<Result<Observed, ApplyError>> {
    let (store, id) = (Arc::clone(&inner.store), run.id());
    let call = Box::pin(async move { store.apply_with_outcome(id, change, outcome).await });
    detached(call, inner.settings.store_timeout).await
}

struct Registered {
    inner: Arc<Inner>,
    run: Arc<Run>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.inner.runs.remove(self.run.id());
    }
}
