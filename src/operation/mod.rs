//! An operation: the resource that stands for one piece of work
//! ([RFC 9110 §15.3.3](https://www.rfc-editor.org/rfc/rfc9110#section-15.3.3)).
//!
//! - An [`Operation`] begins as a [`NewOperation`] that a store accepts, and changes only by
//!   [`Operation::apply`], one pure function; stores persist what it returns.
//! - The function is total: for every state and every [`Change`] it gives the next operation or a
//!   [`TransitionError`] that says why not. It neither reads a clock nor does I/O.
//! - What a finished operation says never changes. A change by a worker names its attempt, and one
//!   that is not the current attempt is refused.
//! - Two numbers count changes. The [`version`](Operation::version) grows with every write and is the
//!   guard of compare-and-swap; the [`revision`](Operation::revision) grows when what a client sees
//!   has changed and is the entity tag. (Renewing a lease is a write that no client sees.)
//!
//! ```
//! use std::time::Duration;
//! use respond_async::operation::{Change, NewOperation, OperationId, Status};
//! use respond_async::Timestamp;
//!
//! let now = Timestamp::from_unix_millis(1_000);
//! let pending = NewOperation::new(OperationId::generate(now)?).accept(now);
//! let running = pending.apply(&Change::Claim { lease: Duration::from_secs(30) }, now)?;
//! assert_eq!((running.status(), running.attempt()), (Status::Running, 1));
//!
//! // Whoever held an earlier attempt can no longer change anything.
//! let stale = Change::Renew { attempt: 0, lease: Duration::from_secs(30) };
//! assert!(running.apply(&stale, now).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod callback;
mod change;
mod due;
mod id;
mod names;
mod new;
mod outcome;
mod progress;
mod record;
mod status;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

pub use callback::Callback;
pub use change::{Change, TransitionError};
pub use due::Due;
pub use id::{InvalidOperationId, OperationId, RandomSourceError};
pub use names::{InvalidName, Kind, Owner};
pub use new::NewOperation;
pub use outcome::{IntoOutcome, NOT_KEPT, Outcome, OutcomeHead};
pub use progress::Progress;
pub use record::RecordError;
pub use status::{Status, UnknownStatus};
pub use trace::{TRACEPARENT, TRACESTATE, TraceContext};

use crate::problem::Problem;
use crate::time::Timestamp;

/// The state of one piece of work. It holds neither the work's input nor the bytes of its outcome.
///
/// It is immutable, and cloning it copies a pointer.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation(Arc<State>);

#[derive(Debug, Clone, PartialEq)]
struct State {
    id: OperationId,
    kind: Kind,
    owner: Owner,
    version: u64,
    revision: u64,
    stage: Stage,
    progress: Option<Progress>,
    cancel_requested: bool,
    attempt: u32,
    attempt_limit: u32,
    attempts_left: u32,
    /// Whether a lease was given back unused, which is not counted as an attempt, once.
    released: bool,
    created: Timestamp,
    updated: Timestamp,
    started: Option<Timestamp>,
    available: Timestamp,
    deadline: Option<Timestamp>,
    retention: Duration,
    trace: Option<TraceContext>,
    callback: Option<Callback>,
    last_error: Option<Problem>,
    /// Members of its record that another version wrote.
    unknown: Option<Arc<Map<String, Value>>>,
}

/// The status, with what exists in that status only.
#[derive(Debug, Clone, PartialEq)]
enum Stage {
    /// `lease` is there while the process that accepted the operation keeps it for itself.
    Pending {
        lease: Option<Timestamp>,
    },
    Running {
        lease: Timestamp,
    },
    Finished {
        at: Timestamp,
        ending: Ending,
    },
    /// Another version knows what this is: its record, as it was read.
    Unknown(Arc<[u8]>),
}

#[derive(Debug, Clone, PartialEq)]
enum Ending {
    Succeeded(OutcomeHead),
    Failed(OutcomeHead, Problem),
    Canceled,
}

impl Operation {
    /// The operation's name.
    pub fn id(&self) -> OperationId {
        self.0.id
    }

    /// What sort of work it is.
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// Who may see it.
    pub fn owner(&self) -> &Owner {
        &self.0.owner
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        match &self.0.stage {
            Stage::Pending { .. } => Status::Pending,
            // Whatever it is, it is accepted and not known to have finished.
            Stage::Running { .. } | Stage::Unknown(_) => Status::Running,
            Stage::Finished { ending: Ending::Succeeded(_), .. } => Status::Succeeded,
            Stage::Finished { ending: Ending::Failed(..), .. } => Status::Failed,
            Stage::Finished { ending: Ending::Canceled, .. } => Status::Canceled,
        }
    }

    /// Counts the writes, from 1: the guard of compare-and-swap.
    pub fn version(&self) -> u64 {
        self.0.version
    }

    /// Counts the changes that a client can see, from 1: the entity tag.
    pub fn revision(&self) -> u64 {
        self.0.revision
    }

    /// Counts the leases that were given: the fencing token of whoever holds the last one.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// How many attempts may begin in all. With 1 it never runs twice.
    pub fn attempt_limit(&self) -> u32 {
        self.0.attempt_limit
    }

    /// How many attempts may still begin.
    pub fn attempts_left(&self) -> u32 {
        self.0.attempts_left
    }

    /// What the current attempt last reported, or how far it came before it failed. None once it has
    /// succeeded.
    pub fn progress(&self) -> Option<&Progress> {
        self.0.progress.as_ref()
    }

    /// Whether it is live and its cancellation was asked for.
    pub fn is_cancel_requested(&self) -> bool {
        self.0.cancel_requested
    }

    /// From when on it could be worked on: when it was accepted, was to be tried again or was given back,
    /// and its delay.
    #[cfg(feature = "tokio")]
    pub(crate) fn available(&self) -> Timestamp {
        self.0.available
    }

    /// When it was accepted, by the store's clock, as all its times.
    pub fn created(&self) -> Timestamp {
        self.0.created
    }

    /// When it last changed in a way that a client can see.
    pub fn updated(&self) -> Timestamp {
        self.0.updated
    }

    /// When its first attempt began.
    pub fn started(&self) -> Option<Timestamp> {
        self.0.started
    }

    /// When it ended.
    pub fn finished(&self) -> Option<Timestamp> {
        match self.0.stage {
            Stage::Finished { at, .. } => Some(at),
            _ => None,
        }
    }

    /// Until when it can be read: its end plus its retention. None while it is live.
    pub fn expires(&self) -> Option<Timestamp> {
        self.finished().map(|finished| finished + self.0.retention)
    }

    /// Until when its current holder has it to itself.
    pub fn lease_expires(&self) -> Option<Timestamp> {
        match self.0.stage {
            Stage::Pending { lease } => lease,
            Stage::Running { lease } => Some(lease),
            Stage::Finished { .. } | Stage::Unknown(_) => None,
        }
    }

    /// By when it must have ended.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.0.deadline
    }

    /// What it tells of its outcome; none while it is live, or if it was canceled.
    pub fn outcome_head(&self) -> Option<&OutcomeHead> {
        match &self.0.stage {
            Stage::Finished {
                ending: Ending::Succeeded(head) | Ending::Failed(head, _), ..
            } => Some(head),
            _ => None,
        }
    }

    /// Why it failed.
    pub fn error(&self) -> Option<&Problem> {
        match &self.0.stage {
            Stage::Finished { ending: Ending::Failed(_, problem), .. } => Some(problem),
            _ => None,
        }
    }

    /// The trace that its request belongs to.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.0.trace.as_ref()
    }

    /// Where it is told besides its monitor.
    pub fn callback(&self) -> Option<&Callback> {
        self.0.callback.as_ref()
    }

    /// Why the last attempt failed that another was to follow.
    pub fn last_error(&self) -> Option<&Problem> {
        self.0.last_error.as_ref()
    }

    /// Whether its retention has passed at `now`, so that nobody may see it any more.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires().is_some_and(|expires| expires <= now)
    }
}

#[cfg(test)]
mod tests;
