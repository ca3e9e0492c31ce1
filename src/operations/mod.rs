//! The facade: one handler, answered 201 or 202 as its client prefers.
//!
//! # What a request gets
//! | it prefers | it gets |
//! | --- | --- |
//! | nothing | the handler's answer, run inline: no task, nothing stored |
//! | `respond-async` | 202, once the store has the operation |
//! | `respond-async, wait=5` | the handler's answer if it is there within 5 s (or the [cap]), else 202 |
//! | `wait=5` | as nothing, unless the route [lets it become a 202](KickOff::accept_overdue) |
//!
//! # What holds
//! - A 202 is sent only after the store has the operation. Work that was answered at once leaves
//!   nothing behind, unless its request was [named](KickOff::idempotency), or had a
//!   [callback](KickOff::callback) and was stored before its answer was there: its operation stays
//!   until it expires.
//! - Work that was begun for a `Prefer: respond-async` goes on when its client hangs up. Work that
//!   runs inline ends with its connection, as any handler does.
//! - A request that its client [named](KickOff::idempotency) is stored before anything is done, and
//!   answered from the store: the same request again gets the same answer.
//! - A panic becomes a 500 problem that tells nothing of its cause.
//! - A handler shares its thread with others, here as anywhere. One that computes for long without
//!   an `.await` delays its own 202 and its lease: put such work on `tokio::task::spawn_blocking`.
//! - All that a stranger can make grow has a bound: see [`OperationsBuilder`].
//!
//! # Ephemeral or durable?
//! | | [`respond_with`](Operations::respond_with) a future | [`respond`](Operations::respond) to a [`Job`] |
//! | --- | --- | --- |
//! | the work is | a closure, whatever it captures | a type that can be stored, and a handler for it |
//! | it runs | in this process | in whichever process claims it |
//! | if its process dies | the operation fails ([`INTERRUPTED`]), or is gone with a store in memory | another attempt, up to the job's [limit](JobPolicy::with_attempt_limit) |
//! | if it fails for a while | it has failed | it is tried again |
//! | on [shutdown](Operations::shutdown) | it fails after the grace | it is given back after the grace |
//! | good for | what can be asked for again: a report, a search | what was promised: an order, an upload |
//!
//! A job runs *at least once*: a process that dies after the work and before it was recorded leaves it
//! to another attempt. Let its effects bear that (the [operation's id](Context::operation_id) is the
//! same in all attempts), or say [`never_twice`](JobPolicy::never_twice).
//!
//! [cap]: OperationsBuilder::wait_cap
//! [`INTERRUPTED`]: crate::problem::types::INTERRUPTED
//!
//! ```
//! use respond_async::prefer::Preferences;
//! use respond_async::respond::{Created, Response};
//! use respond_async::store::MemoryStore;
//! use respond_async::{Context, Operations, Problem};
//!
//! async fn upload(operations: &Operations, preferences: &Preferences) -> Response {
//!     operations.respond_with(preferences, enhance).await
//! }
//!
//! async fn enhance(context: Context) -> Result<Created, Problem> {
//!     context.progress(0.4, "sharpening"); // free when nobody can see it
//!     Ok(Created::at("/images/17"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let operations = Operations::builder(MemoryStore::new()).start();
//! assert_eq!(upload(&operations, &Preferences::default()).await.status(), 201);
//! assert_eq!(upload(&operations, &Preferences::parse(b"respond-async")?).await.status(), 202);
//! # Ok(())
//! # }
//! ```

mod admission;
mod attempt;
mod budget;
mod builder;
mod calls;
mod complete;
mod context;
#[cfg(feature = "webhook")]
mod delivery;
mod feed;
mod follow;
mod follow_up;
mod health;
mod hints;
mod idempotency;
mod inner;
mod job;
mod kick_off;
mod moment;
mod negotiate;
mod observe;
mod pace;
mod policy;
mod pulse;
mod results;
mod run;
mod settings;
mod sweep;
mod task;
mod telemetry;
mod watch;
mod worker;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

pub use builder::OperationsBuilder;
pub use context::Context;
#[cfg(feature = "webhook")]
pub use delivery::{Delivery, DeliveryStatus};
pub(crate) use feed::{Feed, before};
pub(crate) use follow::Held;
#[cfg(feature = "webhook")]
pub(crate) use follow_up::WEBHOOK;
pub use health::{Health, HealthStatus, WorkerHealth};
pub use job::{Job, JobInput, JobInputError};
pub use kick_off::KickOff;
pub(crate) use observe::{Observer, StreamBounds};
pub use policy::JobPolicy;
pub use telemetry::RunInfo;
pub(crate) use telemetry::polled;

#[cfg(feature = "amqp")]
pub(crate) use job::{Work, without_panic};
#[cfg(feature = "amqp")]
pub(crate) use run::{Run, Running, Runs};
#[cfg(feature = "amqp")]
pub(crate) use telemetry::RunSpan;

use self::calls::{store_problem, unavailable};
use self::inner::Inner;
pub(crate) use self::run::Signal;
use crate::lock::lock;
use crate::operation::{Change, IntoOutcome, OperationId, Outcome, Owner, TransitionError};
use crate::prefer::Preferences;
use crate::problem::{Problem, types};
use crate::respond::{MonitorUrls, Response};
use crate::store::{
    Acceptance, ApplyError, ListQuery, Observed, OperationStore, OperationStoreExt, Page,
    StoreError,
};

/// How long after its grace a shutdown waits for interrupted work to be recorded.
const SHUTDOWN_RECORDING: Duration = Duration::from_secs(5);

/// The operations of a service. A clone is the same.
#[derive(Debug, Clone)]
pub struct Operations {
    handle: Arc<Handle>,
}

/// What the clones share, and the tasks do not: the workers stop with the last clone, although what
/// runs then goes on to its end.
#[derive(Debug)]
struct Handle(Arc<Inner>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Operations {
    /// Sets up operations that are kept in `store`. [`start`](OperationsBuilder::start) them.
    pub fn builder(store: impl OperationStore) -> OperationsBuilder {
        OperationsBuilder::new(Arc::new(store))
    }

    fn of(inner: Inner) -> Self {
        Self { handle: Arc::new(Handle(Arc::new(inner))) }
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.handle.0
    }

    /// Runs the work and answers as the client prefers: with the work's answer, or with 202 Accepted
    /// while the work goes on. `Vary: Prefer` is on every answer.
    ///
    /// For a request that says more (an owner, a deadline), see [`kick_off`](Self::kick_off).
    ///
    /// # Cancel safety
    /// With `respond-async` the work is a task of its own: dropping this future (as a server does
    /// when the client hangs up) neither stops it nor loses an operation. Without, the work is part
    /// of this future and ends with it.
    pub async fn respond_with<W, F>(&self, preferences: &Preferences, work: W) -> Response
    where
        W: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.kick_off(preferences).respond_with(work).await
    }

    /// Runs the job and answers as the client prefers.
    ///
    /// Without preference it runs here and now, and nothing is stored. With `respond-async` it is
    /// stored, and answered 202; whichever process claims it runs it, after a crash of this one
    /// another. With `respond-async, wait=5` it begins here at once and is stored only when it
    /// becomes a 202.
    ///
    /// # Cancel safety
    /// As [`respond_with`](Self::respond_with).
    pub async fn respond<J: Job>(&self, preferences: &Preferences, job: J) -> Response {
        self.kick_off(preferences).respond(job).await
    }

    /// Begins to answer a request that says more than its preferences.
    pub fn kick_off<'a>(&'a self, preferences: &'a Preferences) -> KickOff<'a> {
        KickOff::new(self, preferences)
    }

    /// Takes note of what became of a [submission](KickOff::submission) of such a job that a store took in a transaction
    /// of the caller's. Call it after the commit, also if nothing was accepted: it wakes the workers of this process,
    /// tells who follows acceptances, and gives the operation, be it new or of an earlier request.
    ///
    /// # Errors
    /// The problem that a client would be answered with:
    /// [`KEY_REUSED`](types::KEY_REUSED), [`TOO_MANY_OPERATIONS`](types::TOO_MANY_OPERATIONS) or
    /// [`OVERLOADED`](types::OVERLOADED).
    pub fn accepted<J: Job>(&self, acceptance: Acceptance) -> Result<Observed, Problem> {
        let inner = self.inner();
        if let Acceptance::Created(observed) = &acceptance {
            inner.accepted(&observed.operation, Some(&observed.operation));
        }
        // Whoever was refused comes again at a time of its own.
        let id = OperationId::generate(inner.clock.now()).map_err(|_| unavailable())?;
        let kind = inner.jobs.get(J::KIND).map(|job| job.kind.clone()).unwrap_or_default();
        inner.became(acceptance, id, &kind).map(|(observed, _)| observed)
    }

    /// Reads an operation of that owner.
    ///
    /// # Errors
    /// A problem of the type [`NOT_FOUND`](types::NOT_FOUND), [`EXPIRED`](types::EXPIRED) or
    /// [`STORE_UNAVAILABLE`](types::STORE_UNAVAILABLE).
    pub async fn get(&self, owner: &Owner, id: OperationId) -> Result<Observed, Problem> {
        let (store, who) = (self.store(), owner.clone());
        let found = self.call(async move { store.find(&who, id).await }).await?;
        found.ok_or_else(|| self.absent(id))
    }

    /// Reads an operation of that owner with its outcome, if it has one.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn outcome(
        &self,
        owner: &Owner,
        id: OperationId,
    ) -> Result<(Observed, Option<Outcome>), Problem> {
        let observed = self.get(owner, id).await?;
        if observed.operation.outcome_head().is_none() {
            return Ok((observed, None));
        }
        let store = self.store();
        match self.call(async move { store.outcome(id).await }).await? {
            // It may have gone since.
            None => Ok((self.get(owner, id).await?, None)),
            outcome => Ok((observed, outcome)),
        }
    }

    /// Requests the cancellation of an operation of that owner, and gives it as it then stands:
    /// canceled if it was pending; still running, with the request noted, if it was running; as it
    /// was if it had finished.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn cancel(&self, owner: &Owner, id: OperationId) -> Result<Observed, Problem> {
        self.get(owner, id).await?;
        self.cancel_at(id, None).await
    }

    /// The same of an operation that is known to be its owner's; if a revision is given, only while it has that one.
    pub(crate) async fn cancel_at(
        &self,
        id: OperationId,
        revision: Option<u64>,
    ) -> Result<Observed, Problem> {
        let inner = Arc::clone(self.inner());
        // The work here is told also if its client hangs up.
        let call = async move {
            let canceled = inner.apply_at(id, revision, Change::Cancel).await;
            if canceled.is_ok() {
                inner.runs.send(id, Signal::Cancel);
            }
            Ok(canceled)
        };
        match self.call(call).await? {
            Ok(observed) => Ok(observed),
            Err(ApplyError::Refused(TransitionError::Finished, finished)) => Ok(finished),
            Err(ApplyError::Contended) if revision.is_some() => {
                Err(Problem::new(types::PRECONDITION_FAILED))
            }
            Err(error) => Err(self.apply_problem(&error, id)),
        }
    }

    /// Removes a finished operation of that owner, with its outcome and the delivery of its end to its
    /// [callback](crate::operation::Callback): who was not told by then is not told any more.
    ///
    /// # Errors
    /// As [`get`](Self::get), and a 409 if the operation has not finished.
    pub async fn forget(&self, owner: &Owner, id: OperationId) -> Result<(), Problem> {
        let (inner, who) = (Arc::clone(self.inner()), owner.clone());
        let call = async move {
            #[cfg(feature = "webhook")]
            inner.forget_delivery(&who, id).await?;
            Ok(inner.store.forget(&who, id).await)
        };
        self.call(call).await?.map_err(|error| self.apply_problem(&error, id))
    }

    /// A page of that owner's operations, newest first.
    ///
    /// # Errors
    /// A problem of the type [`STORE_UNAVAILABLE`](types::STORE_UNAVAILABLE).
    pub async fn list(&self, owner: &Owner, query: ListQuery) -> Result<Page, Problem> {
        self.inner().list(owner.clone(), query).await
    }

    /// After how long a client should ask for that operation again, by its progress, by how loaded this
    /// process is, and so that all clients of this process together keep to its
    /// [poll rate](OperationsBuilder::poll_rate): each call about a live operation plans one poll.
    pub fn retry_after(&self, observed: &Observed) -> Duration {
        self.inner().retry_after(observed)
    }

    /// The same for an answer to a poll. A client that was held comes again at once, so no poll is planned for it.
    pub(crate) fn delay(&self, observed: &Observed, was_held: bool) -> Duration {
        if was_held { self.inner().usual_delay(observed) } else { self.retry_after(observed) }
    }

    /// Counts a request of that owner about an operation or its list, before anything is read for it.
    ///
    /// # Errors
    /// A problem of the type [`TOO_MANY_POLLS`](types::TOO_MANY_POLLS), if it asks more often than
    /// [it may](OperationsBuilder::owner_poll_rate).
    pub(crate) fn spend(&self, owner: &Owner, id: Option<OperationId>) -> Result<(), Problem> {
        let inner = self.inner();
        let rate = inner.settings.owner_poll_rate;
        let mut budget = lock(&inner.budget);
        let spent = budget.spend(owner, id, rate, inner.began.elapsed());
        spent.map_err(|delay| Problem::new(types::TOO_MANY_POLLS).with_retry_after(delay))
    }

    /// Where the monitors are.
    pub fn urls(&self) -> &MonitorUrls {
        &self.inner().settings.urls
    }

    /// Takes no new work, waits up to `grace` for what runs, then interrupts the rest and gives the
    /// number of what was interrupted. A job is given back, so that another process can claim it at
    /// once; what may not begin again is recorded as failed.
    ///
    /// Call it when your server has been told to stop, while it still answers: waiting requests
    /// then get their answer. It returns within `grace` and 5 s.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.inner().close();
        if tokio::time::timeout(grace, self.inner().emptied()).await.is_ok() {
            // Some may still wait for what others do.
            self.inner().grace_over.comes();
            return 0;
        }
        self.inner().grace_over.comes();
        let interrupted = self.inner().admissions().map(|admission| admission.tasks()).sum();
        self.inner().runs.send_all(Signal::Interrupt);
        // What cannot be recorded in time ends by its lease.
        let _ = tokio::time::timeout(SHUTDOWN_RECORDING, self.inner().emptied()).await;
        interrupted
    }

    fn store(&self) -> Arc<dyn OperationStore> {
        Arc::clone(&self.inner().store)
    }

    fn call<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> impl Future<Output = Result<T, Problem>> + Send {
        self.inner().call(call)
    }

    fn apply_problem(&self, error: &ApplyError, id: OperationId) -> Problem {
        match error {
            ApplyError::Gone => self.absent(id),
            ApplyError::Store(error) => store_problem(error),
            ApplyError::NotFinished => {
                let detail = "The operation has not finished.";
                Problem::from_status(StatusCode::CONFLICT).with_detail(detail)
            }
            // Somebody is at it just now: the same again may be answered otherwise.
            ApplyError::Contended | ApplyError::Refused(..) => unavailable(),
        }
    }

    /// What to say of an operation that is not there, or is somebody else's: the id's own time tells
    /// whether it may once have been. No trace of expired operations is kept for this.
    fn absent(&self, id: OperationId) -> Problem {
        let shortest = self.inner().settings.retention_bounds.shortest;
        if id.timestamp() + shortest <= self.inner().clock.now() {
            Problem::new(types::EXPIRED)
        } else {
            Problem::new(types::NOT_FOUND)
        }
    }
}
