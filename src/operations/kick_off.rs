use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use bytes::Bytes;
use http::HeaderValue;

use super::admission::Admitted;
use super::calls::unavailable;
use super::context::Context;
use super::job::{Job, Registered, Work, without_panic};
use super::negotiate::{Begun, Mode, Next, mode, next, refusal};
use super::run::Run;
use super::task::{Answer, Task, accept, shutting_down};
use super::{Operations, telemetry};
use crate::header::{IDEMPOTENCY_REPLAYED, vary_on_prefer};
use crate::operation::{
    Callback, IntoOutcome, Kind, NewOperation, Operation, OperationId, Owner, TraceContext,
};
use crate::prefer::{PREFERENCE_APPLIED, PreferenceApplied, Preferences};
use crate::problem::{Problem, types};
use crate::respond::{OperationView, Response, report};
use crate::store::{Idempotency, Observed, Submission};

/// After how long an operation that is to leave no trace is removed again, if it could not be.
const LEAVE_AGAIN: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(16)];

/// One request that is about to begin work: who asks, and how the route wants it answered.
///
/// Made by [`Operations::kick_off`].
#[derive(Debug, Clone)]
#[must_use]
pub struct KickOff<'a> {
    operations: &'a Operations,
    preferences: &'a Preferences,
    owner: Owner,
    kind: Option<Kind>,
    deadline: Option<Duration>,
    delay: Duration,
    retention: Option<Duration>,
    idempotency: Option<Idempotency>,
    requires_key: bool,
    accepts_overdue: bool,
    strict: Option<&'a [&'a str]>,
    trace: Option<TraceContext>,
    callback: Option<Callback>,
}

impl<'a> KickOff<'a> {
    pub(super) fn new(operations: &'a Operations, preferences: &'a Preferences) -> Self {
        Self {
            operations,
            preferences,
            owner: Owner::anonymous(),
            kind: None,
            deadline: None,
            delay: Duration::ZERO,
            retention: None,
            idempotency: None,
            requires_key: false,
            accepts_overdue: false,
            strict: None,
            trace: None,
            callback: None,
        }
    }

    /// Who asks: nobody else will see the operation.
    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = owner;
        self
    }

    /// What sort of work it is; clients can list by it. A job has a kind already.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// How long after a 202 the work must have ended, in place of what its policy or the
    /// [builder](super::OperationsBuilder::deadline) says; else the operation fails.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// How long after its acceptance a job may begin. It is stored and answered 202 then, whatever
    /// its client prefers, unless that is to `wait` for longer than this. Work that is no job begins at once all the
    /// same.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// How long the finished operation stays readable, in place of what its policy or the builder
    /// says; kept within the builder's [bounds](super::OperationsBuilder::retention_bounds).
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// What the client calls the request, if it gave it a name
    /// ([`Idempotency::from_request`]).
    ///
    /// The operation is stored before anything is done, also if the client prefers a plain answer,
    /// and stands for the key until it expires: the same request again gets the same 202 while the
    /// work goes on, and the first answer, byte for byte, once it is there; another payload under
    /// the same key gets 422. What is repeated is marked `Idempotency-Replayed: true`.
    ///
    /// A key is its owner's. Clients without a name are one owner, so one of them gets another's answer
    /// to the same key and payload: give them an [`owner`](Self::owner) where that matters.
    pub fn idempotency(mut self, named: Option<Idempotency>) -> Self {
        self.idempotency = named;
        self
    }

    /// The trace that the request belongs to ([`TraceContext::from_headers`]). It is kept with the operation,
    /// given to the handler on whichever replica, and passed on with messages.
    pub fn trace(mut self, trace: Option<TraceContext>) -> Self {
        self.trace = trace;
        self
    }

    /// Where the operation's end is told besides its monitor, if an operation is stored: an answer in time is told to
    /// nobody else, unless it was stored all the same (for its idempotency key, or since another process did the work).
    /// `Preference-Applied: callback` says so. The feature `webhook` makes one of what the client prefers, and calls it.
    pub fn callback(mut self, callback: Option<Callback>) -> Self {
        self.callback = callback;
        self
    }

    /// Refuses a request that has no idempotency key: 400.
    pub fn require_idempotency_key(mut self) -> Self {
        self.requires_key = true;
        self
    }

    /// Lets `wait=N` without `respond-async` become a 202 when it is over
    /// ([RFC 7240 §4.3](https://www.rfc-editor.org/rfc/rfc7240#section-4.3) leaves that to the
    /// server). Otherwise such a request waits for its answer as one without preference does.
    pub fn accept_overdue(mut self) -> Self {
        self.accepts_overdue = true;
        self
    }

    /// Refuses a request with `handling=strict` whose other preferences are malformed or unknown
    /// ([RFC 7240 §4.4](https://www.rfc-editor.org/rfc/rfc7240#section-4.4)): 400. Known are
    /// `respond-async`, `wait`, `handling` and the names in `also`.
    pub fn strict(mut self, also: &'a [&'a str]) -> Self {
        self.strict = Some(also);
        self
    }

    /// Runs the work and answers as the client prefers: see [`Operations::respond_with`].
    ///
    /// # Cancel safety
    /// As [`Operations::respond_with`].
    pub async fn respond_with<W, F>(self, work: W) -> Response
    where
        W: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output: IntoOutcome> + Send + 'static,
    {
        let preferences = self.preferences;
        let mut response = match self.mode() {
            Err(problem) => rejected(problem),
            Ok(Mode::Inline) if self.idempotency.is_none() => {
                let context = Context::inline(self.trace);
                let mut work =
                    pin!(async move { work(context).await.into_outcome().into_response() });
                let kind = self.kind;
                let panicked = |problem: Problem| {
                    telemetry::panicked(&kind.unwrap_or_default());
                    problem.into_response()
                };
                without_panic(work.as_mut()).await.unwrap_or_else(panicked)
            }
            Ok(mode) => {
                let work = |context| -> Work {
                    Box::pin(async move { work(context).await.into_outcome() })
                };
                self.begin(mode, None, work).await.unwrap_or_else(rejected)
            }
        };
        vary_on_prefer(response.headers_mut());
        report(preferences, &response);
        response
    }

    /// Runs the job and answers as the client prefers: see [`Operations::respond`].
    ///
    /// # Cancel safety
    /// As [`Operations::respond_with`].
    pub async fn respond<J: Job>(self, job: J) -> Response {
        let preferences = self.preferences;
        let mut response = self.respond_job(job).await.unwrap_or_else(rejected);
        vary_on_prefer(response.headers_mut());
        report(preferences, &response);
        response
    }

    /// Stores the job, to be run by whichever worker claims it, and gives its operation: for a
    /// service that answers in a way of its own, or begins work that no client asked for.
    ///
    /// # Errors
    /// The problem that a client would be answered with.
    ///
    /// # Cancel safety
    /// If it is dropped, the job may have been stored or not.
    pub async fn submit<J: Job>(self, job: J) -> Result<Observed, Problem> {
        let inner = self.operations.inner();
        let accepted = accept(inner, self.submission(&job)?).await;
        accepted.map(|(observed, _)| observed).inspect_err(telemetry::rejected)
    }

    /// What [`submit`](Self::submit) stores, with the limits, the deadline and the attempts that the job's policy and the
    /// builder give it: for a store that accepts it together with what is yours, as
    /// [`PostgresStore::accept_in`](crate::store::PostgresStore::accept_in) does. What becomes of it there,
    /// [`Operations::accepted`] is told.
    ///
    /// # Errors
    /// The problem that a client would be answered with.
    pub fn submission<J: Job>(mut self, job: &J) -> Result<Submission, Problem> {
        self.mode()?;
        let registered = self.registered::<J>()?;
        let input = encode(job)?;
        let id = self.new_id()?;
        Ok(self.describe(id, Some((&registered, input))))
    }

    async fn respond_job<J: Job>(self, job: J) -> Result<Response, Problem> {
        let mode = self.mode()?;
        let registered = self.registered::<J>()?;
        let run = |registered: Arc<Registered>, job, context| async move {
            match registered.run(job, context) {
                Some(work) => work.await,
                // Another type's kind: see `Job::KIND`.
                None => Problem::new(types::INTERNAL).into_outcome(),
            }
        };
        if mode == Mode::Inline && self.idempotency.is_none() && self.delay.is_zero() {
            let kind = registered.kind.clone();
            let mut work = pin!(run(registered, job, Context::inline(self.trace)));
            let outcome = without_panic(work.as_mut()).await.unwrap_or_else(|problem| {
                telemetry::panicked(&kind);
                problem.into_outcome()
            });
            return Ok(outcome.into_response());
        }
        let input = encode(&job)?;
        let here = Arc::clone(&registered);
        let work = move |context| -> Work { Box::pin(run(here, job, context)) };
        self.begin(mode, Some((registered, input)), work).await
    }

    fn registered<J: Job>(&self) -> Result<Arc<Registered>, Problem> {
        let registered = self.operations.inner().jobs.get(J::KIND);
        // A mistake in the program, which its first request shall tell whoever wrote it.
        let unknown = || {
            Problem::new(types::INTERNAL).with_detail(format!(
                "No handler is registered for jobs of the kind {:?}.",
                J::KIND
            ))
        };
        registered.cloned().ok_or_else(unknown)
    }

    /// How the request is to be answered, if it may be.
    fn mode(&self) -> Result<Mode, Problem> {
        if let Some(also) = self.strict {
            if let Some(detail) = refusal(self.preferences, also, self.callback.is_some()) {
                return Err(Problem::new(types::INVALID_PREFERENCE).with_detail(detail));
            }
        }
        if self.requires_key && self.idempotency.is_none() {
            return Err(Problem::new(types::KEY_REQUIRED));
        }
        let cap = self.operations.inner().settings.wait_cap;
        Ok(mode(self.preferences, self.accepts_overdue, cap))
    }

    /// Begins work that is, or may have to be, stored.
    async fn begin(
        mut self,
        mode: Mode,
        job: Option<(Arc<Registered>, Bytes)>,
        work: impl FnOnce(Context) -> Work,
    ) -> Result<Response, Problem> {
        if job.is_none() {
            self.delay = Duration::ZERO;
        }
        let is_named = self.idempotency.is_some();
        let id = self.new_id()?;
        let trace = self.trace.clone();
        let submission = self.describe(id, job.as_ref().map(|(job, input)| (job, input.clone())));
        let job = job.map(|(job, _)| job);
        let admitted = self.admit(mode, job.as_deref(), &submission);
        // Another process may be done with it in time as well.
        let is_elsewhere = !matches!(admitted, Ok(Some(_)));
        let answer = match admitted {
            Ok(None) => {
                // What its client sent is with the store.
                drop(work);
                self.store(submission).await
            }
            Ok(Some(admitted)) => {
                let deadline = submission.operation.deadline();
                let deadline = deadline.and_then(|left| Instant::now().checked_add(left));
                let run = Run::new(id, 1, deadline, trace);
                let work = work(Context::of(&run));
                let wait = match mode {
                    Mode::Within(wait) if !is_named => wait,
                    _ => Duration::ZERO,
                };
                let (answer, answered) = oneshot::channel();
                let inner = Arc::clone(self.operations.inner());
                Task { inner, admitted, run, submission, job, wait, answer }.spawn(work);
                // None if the runtime is being shut down and dropped the task.
                answered.await.unwrap_or_else(|_| Answer::Refused(shutting_down()))
            }
            // What was begun before is answered, however much there is to do: it needs no room.
            Err(_) if is_named => {
                drop(work);
                let limits = submission.limits.with_total(0);
                self.store(submission.with_limits(limits)).await
            }
            Err(problem) => return Err(problem),
        };
        let begun = Begun { is_named, is_elsewhere, delay: self.delay };
        let (accepted, is_new, wait) = match next(answer, mode, begun) {
            Next::Answer(outcome) => return Ok(outcome.into_response()),
            Next::Refuse(problem) => return Err(problem),
            Next::Follow { observed, is_new, wait } => (observed, is_new, wait),
        };
        let answer = async {
            let observed =
                self.operations.follow(accepted.clone(), wait, !is_new || is_elsewhere).await?;
            let answer = self.answer(&observed).await?;
            // Who is called is told of links.
            let is_told = observed.operation.callback().is_some();
            if is_new && !is_named && !is_told && observed.operation.status().is_finished() {
                self.leave_nothing(&observed);
            }
            Ok::<_, Problem>(answer)
        };
        let mut response = match answer.await {
            // Whoever has an operation is told where it is, whatever happens later.
            Err(_) if is_new => self.pending(&accepted),
            // Its key is free again: the same request begins anew.
            Err(problem) if problem.is(types::NOT_FOUND) || problem.is(types::EXPIRED) => {
                return Err(unavailable());
            }
            answer => answer?,
        };
        if !is_new {
            response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        }
        Ok(response)
    }

    /// A place for the work in this process, or among those that wait for one. None if it is left to the workers.
    fn admit(
        &self,
        mode: Mode,
        job: Option<&Registered>,
        submission: &Submission,
    ) -> Result<Option<Admitted>, Problem> {
        let inner = self.operations.inner();
        let Some(job) = job else {
            return inner.admission.admit().map(Some).ok_or_else(|| {
                let operation = &submission.operation;
                let delay = inner.overloaded(operation.id(), operation.kind());
                Problem::new(types::OVERLOADED).with_retry_after(delay)
            });
        };
        // What nobody waits for is left to them, and so is what cannot begin here.
        let is_waited_for = mode != Mode::Within(Duration::ZERO) && self.delay.is_zero();
        let may_begin = is_waited_for && job.admission.concurrency() > 0;
        Ok(may_begin.then(|| job.admission.admit()).flatten())
    }

    /// The answer that the store has for the request: its outcome, or 202 while there is none.
    async fn answer(&self, observed: &Observed) -> Result<Response, Problem> {
        let operation = &observed.operation;
        if !operation.status().is_finished() {
            return Ok(self.pending(observed));
        }
        let (_, outcome) = self.operations.outcome(&self.owner, operation.id()).await?;
        let outcome = outcome.map(|outcome| self.operations.admit_result(outcome)).transpose()?;
        let view = OperationView::new(operation, observed.now, self.operations.urls());
        let mut response = view.replay(outcome);
        if self.has_callback_of(operation) {
            let applied = PreferenceApplied::of(self.preferences).callback();
            if let Some(applied) = applied.to_header_value() {
                response.headers_mut().insert(PREFERENCE_APPLIED, applied);
            }
        }
        Ok(response)
    }

    /// Whether the operation tells whom this request would have told: an earlier request may have named another.
    fn has_callback_of(&self, operation: &Operation) -> bool {
        self.callback.is_some() && operation.callback() == self.callback.as_ref()
    }

    /// The 202.
    fn pending(&self, observed: &Observed) -> Response {
        OperationView::new(&observed.operation, observed.now, self.operations.urls())
            .retry_after(self.operations.retry_after(observed))
            .accepted_with(self.preferences, self.has_callback_of(&observed.operation))
    }

    /// Removes an operation whose client has its answer, and has not been told of it. Nobody waits for that; if
    /// it fails again and again, or the process ends, the operation goes when it expires.
    fn leave_nothing(&self, observed: &Observed) {
        let store = Arc::clone(&self.operations.inner().store);
        let (id, version) = (observed.operation.id(), observed.operation.version());
        self.operations.inner().runtime.spawn(async move {
            for pause in LEAVE_AGAIN {
                if store.remove(id, version).await.is_ok() {
                    return;
                }
                sleep(pause).await;
            }
            let _ = store.remove(id, version).await;
        });
    }

    fn new_id(&self) -> Result<OperationId, Problem> {
        let inner = self.operations.inner();
        if inner.is_closing() {
            return Err(shutting_down());
        }
        OperationId::generate(inner.clock.now()).map_err(|_| unavailable())
    }

    fn describe(&mut self, id: OperationId, job: Option<(&Arc<Registered>, Bytes)>) -> Submission {
        let settings = &self.operations.inner().settings;
        let policy = job.as_ref().map(|(job, _)| job.policy);
        let bounded = |wanted: Duration| settings.retention_bounds.bound(wanted);
        let retention = self.retention.map(bounded).or(policy.and_then(|policy| policy.retention));
        let usual = policy.and_then(|policy| policy.deadline).unwrap_or(settings.deadline);
        let deadline = self.deadline.unwrap_or(usual.saturating_add(self.delay));
        let kind = match &job {
            Some((job, _)) => job.kind.clone(),
            None => self.kind.take().unwrap_or_default(),
        };
        let operation = NewOperation::new(id)
            .with_kind(kind)
            .with_owner(self.owner.clone())
            .with_attempt_limit(policy.map_or(1, |policy| policy.attempt_limit))
            .with_retention(retention.unwrap_or(settings.retention))
            .with_delay(self.delay)
            .with_trace(self.trace.take())
            .with_callback(self.callback.clone())
            .with_deadline(deadline);
        let mut submission = Submission::new(operation);
        submission.input = job.map(|(_, input)| input);
        submission.idempotency = self.idempotency.take();
        submission.limits.total = Some(settings.live_limit);
        submission.limits.owner = settings.owner_limit;
        submission
    }

    /// Leaves a job to whichever worker claims it.
    async fn store(&self, submission: Submission) -> Answer {
        match accept(self.operations.inner(), submission).await {
            Ok((observed, true)) => Answer::Accepted(observed),
            Ok((observed, false)) => Answer::Existing(observed),
            Err(problem) => Answer::Refused(problem),
        }
    }
}

fn rejected(problem: Problem) -> Response {
    telemetry::rejected(&problem);
    problem.into_response()
}

fn encode<J: Job>(job: &J) -> Result<Bytes, Problem> {
    // Whatever the reason, it is not the client's.
    job.encode().map_err(|_| Problem::new(types::INTERNAL))
}
