//! Work that begins at once and is stored only when its answer is late, in one task.
//!
//! The task alone decides what the client gets: the answer itself while that is in time, or else,
//! once the store has the operation, a 202. So there is no moment at which both could happen.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::admission::Admitted;
use super::attempt::{Attempt, End};
use super::calls::{Detached, store_problem, unavailable};
use super::job::{Registered, Work, without_panic};
use super::run::{Run, Signal};
use super::{Inner, pace, telemetry};
use crate::operation::{Change, IntoOutcome, Kind, Operation, OperationId, Outcome};
use crate::problem::{Problem, types};
use crate::store::{
    self, Full, Observed, OperationStore, OperationStoreExt, StoreError, StoreErrorKind, Submission,
};

/// How long to wait at the most before an acceptance in doubt is looked for again.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// What the request that began the work is answered with.
pub(super) enum Answer {
    /// The work ended in time; nothing was stored.
    Ready(Outcome),
    /// The store has the operation, and the work goes on.
    Accepted(Observed),
    /// The request was accepted before, and this is its operation.
    Existing(Observed),
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
        let running = self.inner.runs.enter(&self.run);
        let runtime = self.inner.runtime.clone();
        let span =
            self.inner.settings.run_span.make(self.run.info(self.submission.operation.kind()));
        // Boxed, because the runtime moves a task several times before it stands still; and each for itself, because
        // the work may take long, and what came before it needs much more room.
        let begin = Box::pin(self.begin(work));
        let run = async move {
            if let Some(accepted) = begin.await {
                Box::pin(accepted.run()).await;
            }
            drop(running);
        };
        runtime.spawn(run.instrument(span));
    }

    /// Drives the work until it is answered, or accepted and still this task's to do.
    async fn begin(self, mut work: Work) -> Option<Accepted> {
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
                    return None;
                }
                outcome = in_time => {
                    admitted.ran(began.elapsed());
                    let kind = submission.operation.kind();
                    telemetry::answered_in_time(kind);
                    // If nobody waits any more, the answer has no reader.
                    let _ = answer.send(ready(kind, outcome));
                    return None;
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
        let mut client = Client(Some(answer));
        let has_begun = place.is_some() && !wait.is_zero();
        let kind = submission.operation.kind().clone();
        let asked = Instant::now();
        let observed = match stored(&inner, submission, &mut client).await {
            Stored::New(observed) => observed,
            // There is no room for what has begun: its client gets its answer, late as it is.
            Stored::Not(_) if has_begun => {
                tokio::select! {
                    biased;
                    () = run.interrupted() => client.tell(Answer::Refused(shutting_down())),
                    outcome = without_panic(work.as_mut()) => {
                        admitted.ran(began.elapsed());
                        client.tell(ready(&kind, outcome));
                    }
                }
                return None;
            }
            Stored::Not(problem) => {
                client.tell(Answer::Refused(problem));
                return None;
            }
            Stored::Over => return None,
        };
        let policy = job.as_ref().map(|job| job.policy);
        let attempt = is_held.then(|| Attempt::new(&inner, &run, &observed, policy));
        client.tell(Answer::Accepted(observed));
        Some(Accepted { attempt: attempt?, admitted, place, began, work, asked })
    }
}

/// Work that is accepted, and that this process does.
struct Accepted {
    attempt: Attempt,
    admitted: Admitted,
    place: Option<OwnedSemaphorePermit>,
    /// When the work began, if it has a place.
    began: Instant,
    work: Work,
    /// When the store was asked to take it.
    asked: Instant,
}

impl Accepted {
    /// Drives the work to its recorded end.
    #[allow(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice")]
    fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            let attempt = &self.attempt;
            let run = &attempt.run;
            if !attempt.holds_still(self.asked).await {
                return;
            }
            let end = {
                let mut keep = pin!(attempt.keep());
                let mut ended = None;
                if self.place.is_none() {
                    match turn(attempt, &self.admitted, keep.as_mut()).await {
                        Ok(turn) => self.place = Some(turn),
                        Err(end) => ended = Some(end),
                    }
                    self.began = Instant::now();
                }
                match ended {
                    Some(_) if run.signal() == Signal::Interrupt => End::Interrupted,
                    Some(end) => end,
                    None => attempt.work_on(self.work, keep).await,
                }
            };
            if self.place.take().is_some() {
                self.admitted.ran(self.began.elapsed());
            }
            attempt.finish(end).await;
        }
    }
}

/// Whoever waits for the answer. It is told once; it may have hung up, and what was accepted is done all the same.
struct Client(Option<oneshot::Sender<Answer>>);

impl Client {
    fn tell(&mut self, answer: Answer) {
        if let Some(client) = self.0.take() {
            let _ = client.send(answer);
        }
    }
}

/// The answer of work that nothing was stored of.
fn ready(kind: &Kind, outcome: Result<Outcome, Problem>) -> Answer {
    if outcome.is_err() {
        telemetry::panicked(kind);
    }
    Answer::Ready(outcome.unwrap_or_else(Problem::into_outcome))
}

/// What became of work that was to be stored.
enum Stored {
    /// Its operation is new. If that was late, its client has been told something else.
    New(Observed),
    /// The store does not take it.
    Not(Problem),
    /// It is not this process's to do, and its client has been told.
    Over,
}

async fn stored(inner: &Arc<Inner>, submission: Submission, client: &mut Client) -> Stored {
    let mut accepting = Accepting::begin(inner, submission).await;
    let mut accepted = accepting.answer(inner, inner.settings.store_timeout).await;
    let is_late = accepted.is_none();
    if is_late {
        // It can wait no longer, but the store may have the operation yet.
        client.tell(Answer::Refused(unavailable()));
        accepted = accepting.answer(inner, inner.settings.lease).await;
    }
    match accepted {
        Some(Ok((observed, true))) => Stored::New(observed),
        Some(Ok((observed, false))) => {
            client.tell(Answer::Existing(observed));
            Stored::Over
        }
        Some(Err(Refusal { problem, is_away: false })) if !is_late => Stored::Not(problem),
        Some(Err(Refusal { problem, .. })) => {
            client.tell(Answer::Refused(problem));
            Stored::Over
        }
        None => Stored::Over,
    }
}

/// Waits for a place for work whose operation is stored, and begins. The error is how that ended before.
async fn turn(
    attempt: &Attempt,
    admitted: &Admitted,
    keep: Pin<&mut impl Future<Output = End>>,
) -> Result<OwnedSemaphorePermit, End> {
    let run = &attempt.run;
    let place = tokio::select! {
        biased;
        end = keep => return Err(end),
        // A queued operation that is canceled has ended already: no work has to stop first.
        () = run.stopped() => return Err(End::LeaseLost),
        place = admitted.place() => place,
    };
    let start = Change::Start { attempt: run.attempt() };
    let began = Box::pin(attempt.record(start, None)).await;
    began.map(|()| place).map_err(|_| End::LeaseLost)
}

/// Stores the operation, and says whether it is new.
pub(super) async fn accept(
    inner: &Arc<Inner>,
    submission: Submission,
) -> Result<(Observed, bool), Problem> {
    let mut accepting = Accepting::begin(inner, submission).await;
    match accepting.answer(inner, inner.settings.store_timeout).await {
        Some(accepted) => accepted.map_err(|refusal| refusal.problem),
        None => Err(unavailable()),
    }
}

/// Why the store has not taken an operation, and whether that is for it is away. Then it may have it all the same, and
/// its client is told soon.
struct Refusal {
    problem: Problem,
    is_away: bool,
}

impl Inner {
    /// Tells of a new operation, as it was accepted, and wakes who may do it. `asked` is for those who follow it.
    pub(super) fn accepted(&self, operation: &Operation, asked: Option<&Operation>) {
        telemetry::accepted(operation);
        if let Some(asked) = asked {
            self.follow_acceptance(asked);
        }
        let is_held = operation.lease_expires().is_some();
        if let Some(job) = self.jobs.get(operation.kind().as_str()).filter(|_| !is_held) {
            job.wake.notify_one();
        }
    }

    /// The operation that the store has for what was submitted with that id and kind, and whether it is new.
    pub(super) fn became(
        &self,
        acceptance: store::Acceptance,
        id: OperationId,
        kind: &Kind,
    ) -> Result<(Observed, bool), Problem> {
        let full = match acceptance {
            store::Acceptance::Created(observed) => return Ok((observed, true)),
            store::Acceptance::Existing(observed) => return Ok((observed, false)),
            store::Acceptance::KeyReused => return Err(Problem::new(types::KEY_REUSED)),
            store::Acceptance::Full(Full::Owner) => types::TOO_MANY_OPERATIONS,
            store::Acceptance::Full(Full::Total) => types::OVERLOADED,
        };
        Err(Problem::new(full).with_retry_after(self.overloaded(id, kind)))
    }

    /// Looks for an operation whose acceptance got no clear answer, less and less often, for as long as a lease: the
    /// store may have it, and then it is this process's to do.
    async fn find_doubtful(&self, id: OperationId) -> Option<Observed> {
        let lease = self.settings.lease;
        let over = Instant::now() + lease;
        let mut pause = pace::MIN.min(lease / 4);
        while Instant::now() < over {
            sleep_until(over.min(Instant::now() + pause)).await;
            if let Ok(Some(observed)) = self.store.get(id).await {
                return Some(observed);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        None
    }
}

/// An operation on its way into the store.
struct Accepting {
    id: OperationId,
    kind: Kind,
    call: Detached<Result<store::Acceptance, StoreError>>,
}

impl Accepting {
    async fn begin(inner: &Arc<Inner>, submission: Submission) -> Self {
        let here = Arc::clone(inner);
        let (id, kind) = (submission.operation.id(), submission.operation.kind().clone());
        let asked = (!inner.follow_ups.is_empty()).then(|| submission.operation.clone());
        let span = telemetry::accept_span(id, &kind);
        let call = async move {
            let accepted = match here.store.submit(submission).await {
                Err(error) if error.kind() == StoreErrorKind::Ambiguous => {
                    let found = here.find_doubtful(id).await;
                    found.map(store::Acceptance::Created).ok_or(error)
                }
                accepted => accepted,
            };
            // What comes of it comes also if its client hangs up.
            if let Ok(store::Acceptance::Created(observed)) = &accepted {
                // If its answer got lost, it may be further by now.
                let asked = asked.map(|asked| asked.accept(observed.operation.created()));
                here.accepted(&observed.operation, asked.as_ref());
            }
            accepted
        };
        let call = Detached::begin(&inner.runtime, Box::pin(call.instrument(span))).await;
        Self { id, kind, call }
    }

    /// The operation, and whether it is new; none if the store does not say in time.
    async fn answer(
        &mut self,
        inner: &Inner,
        timeout: Duration,
    ) -> Option<Result<(Observed, bool), Refusal>> {
        let Some(answer) = self.call.answer(timeout).await else {
            telemetry::store_failed(None, None);
            return None;
        };
        Some(match answer {
            Ok(acceptance) => inner
                .became(acceptance, self.id, &self.kind)
                .map_err(|problem| Refusal { problem, is_away: false }),
            Err(error) => {
                telemetry::store_failed(None, Some(&error));
                let is_away = error.is_retryable();
                Err(Refusal { problem: store_problem(&error), is_away })
            }
        })
    }
}
