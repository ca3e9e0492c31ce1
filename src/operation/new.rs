use std::sync::Arc;
use std::time::Duration;

use super::{Callback, Kind, Operation, OperationId, Owner, Progress, Stage, State, TraceContext};
use crate::time::Timestamp;

/// What a store is asked to accept. It becomes an [`Operation`] by the store's own clock.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct NewOperation {
    id: OperationId,
    kind: Kind,
    owner: Owner,
    attempt_limit: u32,
    retention: Duration,
    delay: Duration,
    deadline: Option<Duration>,
    progress: Option<Progress>,
    held: Option<Held>,
    trace: Option<TraceContext>,
    callback: Option<Callback>,
}

#[derive(Debug, Clone, PartialEq)]
struct Held {
    lease: Duration,
    running: bool,
}

impl NewOperation {
    /// The default of [`with_retention`](Self::with_retention): a day.
    pub const DEFAULT_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
    /// The default of [`with_attempt_limit`](Self::with_attempt_limit).
    pub const DEFAULT_ATTEMPT_LIMIT: u32 = 5;

    /// An operation of that id, to be run by whichever worker claims it, with the defaults: kind
    /// `task`, the anonymous owner, at once, without deadline.
    pub fn new(id: OperationId) -> Self {
        Self {
            id,
            kind: Kind::default(),
            owner: Owner::anonymous(),
            attempt_limit: Self::DEFAULT_ATTEMPT_LIMIT,
            retention: Self::DEFAULT_RETENTION,
            delay: Duration::ZERO,
            deadline: None,
            progress: None,
            held: None,
            trace: None,
            callback: None,
        }
    }

    /// Says what sort of work it is.
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Says who may see it.
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = owner;
        self
    }

    /// Says how often the work is begun at the most, at least once. With 1 it never runs twice.
    pub fn with_attempt_limit(mut self, limit: u32) -> Self {
        self.attempt_limit = limit.clamp(1, u32::MAX - 1);
        self
    }

    /// Says how long the operation stays readable after its end.
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Says how long after its acceptance the work may begin.
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Says how long after its acceptance the work must have ended; else it fails.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Gives it progress to begin with.
    pub fn with_progress(mut self, progress: Option<Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// The accepting process keeps the work for itself as attempt 1, under a lease of that length:
    /// already begun, or (`running` false) still waiting in the process's own queue.
    pub fn held(mut self, lease: Duration, running: bool) -> Self {
        self.held = Some(Held { lease, running });
        self
    }

    /// The trace that its request belongs to.
    pub fn with_trace(mut self, trace: Option<TraceContext>) -> Self {
        self.trace = trace;
        self
    }

    /// Where it is told besides its monitor.
    pub fn with_callback(mut self, callback: Option<Callback>) -> Self {
        self.callback = callback;
        self
    }

    /// The operation's name.
    pub fn id(&self) -> OperationId {
        self.id
    }

    /// Who may see it.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What sort of work it is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// How long after its acceptance it must have ended, if that is bounded.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// The operation as it is at the instant of its acceptance. Called by the store with the time
    /// of its own clock.
    pub fn accept(&self, now: Timestamp) -> Operation {
        let running = self.held.as_ref().is_some_and(|held| held.running);
        let lease = self.held.as_ref().map(|held| now + held.lease);
        let attempt = u32::from(lease.is_some());
        Operation(Arc::new(State {
            id: self.id,
            kind: self.kind.clone(),
            owner: self.owner.clone(),
            version: 1,
            revision: 1,
            stage: match lease {
                Some(lease) if running => Stage::Running { lease },
                lease => Stage::Pending { lease },
            },
            progress: self.progress.clone(),
            cancel_requested: false,
            attempt,
            attempt_limit: self.attempt_limit,
            attempts_left: self.attempt_limit - attempt,
            released: false,
            created: now,
            updated: now,
            started: running.then_some(now),
            available: now + self.delay,
            deadline: self.deadline.map(|deadline| now + deadline),
            retention: self.retention,
            trace: self.trace.clone(),
            callback: self.callback.clone(),
            last_error: None,
            unknown: None,
        }))
    }
}
