//! The one place where an operation's status changes.

use std::sync::Arc;
use std::time::Duration;

use super::{Ending, Operation, OutcomeHead, Progress, Stage, State, Status};
use crate::problem::{Problem, ProblemType, types};
use crate::time::Timestamp;

/// What may happen to an operation.
///
/// A change that names an `attempt` comes from the worker that holds that attempt's lease, and is
/// refused from anyone else. All durations count from the `now` that [`Operation::apply`] is given.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// A worker takes the operation for the length of a lease: the next attempt begins.
    Claim {
        /// How long the worker has it to itself, unless it renews.
        lease: Duration,
    },
    /// The process that kept the operation pending in its own queue begins the work.
    Start {
        /// The attempt that it holds.
        attempt: u32,
    },
    /// The holder keeps the operation for longer. No client sees it.
    Renew {
        /// The attempt that it holds.
        attempt: u32,
        /// How long from now on.
        lease: Duration,
    },
    /// The holder says how far it is.
    Progress {
        /// The attempt that it holds.
        attempt: u32,
        /// What it reports.
        progress: Progress,
    },
    /// The holder has an outcome below 400.
    Succeed {
        /// The attempt that it holds.
        attempt: u32,
        /// What the operation tells of the outcome.
        head: OutcomeHead,
    },
    /// The holder has an error, for good.
    Fail {
        /// The attempt that it holds.
        attempt: u32,
        /// What went wrong.
        error: Problem,
    },
    /// The holder has an error that another attempt may not have. Without an attempt left, or
    /// canceled meanwhile, this is the end.
    Retry {
        /// The attempt that it holds.
        attempt: u32,
        /// How long the next attempt has to wait.
        delay: Duration,
        /// What went wrong, in case that there is no next attempt.
        error: Problem,
    },
    /// The holder gives the operation back, so that another can claim it at once. The first time
    /// this does not count as an attempt: so where only one attempt is allowed, the work would run twice. What has not
    /// begun is given back by [`Unclaim`](Self::Unclaim).
    Release {
        /// The attempt that it holds.
        attempt: u32,
    },
    /// The holder gives the operation back, and has not begun: the attempt does not count, however often that happens.
    Unclaim {
        /// The attempt that it holds.
        attempt: u32,
    },
    /// Somebody asks for it to end: a pending operation is canceled, a running one notes the
    /// request for its holder.
    Cancel,
    /// The holder has stopped because cancellation was requested.
    ConfirmCancel {
        /// The attempt that it holds.
        attempt: u32,
    },
    /// The work was done elsewhere, under no lease: its end is recorded whoever holds the operation. The
    /// fence does not hold this off, so it is for those who know.
    Complete {
        /// What the operation tells of an outcome below 400, or what went wrong.
        end: Result<OutcomeHead, Problem>,
    },
    /// Time has passed: what cannot go on is brought to its end (see [`Due::Settle`](super::Due)).
    Settle,
}

impl Change {
    /// The attempt that a worker names; none if the change is nobody's in particular.
    pub fn attempt(&self) -> Option<u32> {
        match self {
            Self::Start { attempt }
            | Self::Renew { attempt, .. }
            | Self::Progress { attempt, .. }
            | Self::Succeed { attempt, .. }
            | Self::Fail { attempt, .. }
            | Self::Retry { attempt, .. }
            | Self::Release { attempt }
            | Self::Unclaim { attempt }
            | Self::ConfirmCancel { attempt } => Some(*attempt),
            Self::Claim { .. } | Self::Cancel | Self::Complete { .. } | Self::Settle => None,
        }
    }
}

/// Why a change was refused. The operation is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransitionError {
    /// It has ended, and what has ended never changes.
    #[error("the operation is finished")]
    Finished,
    /// Another version of the crate brought it into a state that this one does not know: leave it to
    /// that.
    #[error("the operation's state is not known to this version")]
    UnknownState,
    /// Whoever names that attempt no longer holds the operation: stop the work.
    #[error("the lease was lost")]
    LeaseLost,
    /// Somebody holds it, or its delay has not passed: try another, or later.
    #[error("the operation is not to be claimed yet")]
    NotClaimable,
    /// It may not be claimed again: cancellation was requested, its attempts are used up, or its
    /// deadline has passed.
    #[error("the operation may not be claimed again")]
    Unclaimable,
    /// Its deadline has passed, so that no success can be recorded.
    #[error("the deadline has passed")]
    DeadlinePassed,
    /// The work has not begun.
    #[error("the operation is not running")]
    NotRunning,
    /// The work has begun already.
    #[error("the operation is running")]
    AlreadyRunning,
    /// Nobody asked for its cancellation.
    #[error("cancellation was not requested")]
    CancelNotRequested,
    /// There is nothing to settle yet.
    #[error("nothing is due")]
    NothingDue,
}

impl Operation {
    /// The operation as it is after a change at `now`, which is a time of the store's clock.
    ///
    /// A change that has already happened (a second [`Change::Cancel`]) gives the same operation
    /// with the same version; there is nothing to write then.
    ///
    /// # Errors
    /// [`TransitionError`], by the first rule that is broken.
    pub fn apply(&self, change: &Change, now: Timestamp) -> Result<Self, TransitionError> {
        if self.finished().is_some() {
            return Err(TransitionError::Finished);
        }
        if matches!(self.0.stage, Stage::Unknown(_)) {
            return Err(TransitionError::UnknownState);
        }
        if let Some(attempt) = change.attempt() {
            // The fence is the attempt, not the clock: a lease past its time is still its holder's
            // until somebody takes it.
            if attempt != self.0.attempt || self.lease_expires().is_none() {
                return Err(TransitionError::LeaseLost);
            }
        }
        let next = match change {
            Change::Claim { lease } => self.claim(*lease, now),
            Change::Start { .. } => self.start(now),
            Change::Renew { lease, .. } => Ok(self.renew(*lease, now)),
            Change::Progress { progress, .. } => self.report(progress.clone(), now),
            Change::Succeed { head, .. } => self.succeed(head.clone(), now),
            Change::Fail { error, .. } | Change::Complete { end: Err(error) } => {
                Ok(self.fail(error.clone(), now))
            }
            Change::Retry { delay, error, .. } => Ok(self.retry(*delay, error, now)),
            Change::Release { .. } => Ok(self.release(!self.0.released, true, now)),
            Change::Unclaim { .. } => Ok(self.release(true, self.0.released, now)),
            Change::Cancel => Ok(self.cancel(now)),
            Change::ConfirmCancel { .. } if self.0.cancel_requested => {
                Ok(self.end(Ending::Canceled, now))
            }
            Change::ConfirmCancel { .. } => Err(TransitionError::CancelNotRequested),
            Change::Complete { end: Ok(_) } if self.is_overdue(now) => {
                Err(TransitionError::DeadlinePassed)
            }
            Change::Complete { end: Ok(head) } => Ok(self.completed(head.clone(), now)),
            Change::Settle => self.settle(now),
        };
        next.map(|state| Self(Arc::new(state)))
    }

    fn claim(&self, lease: Duration, now: Timestamp) -> Result<State, TransitionError> {
        if self.is_overdue(now) {
            return Err(TransitionError::Unclaimable);
        }
        match self.due_at(super::Due::Claim) {
            None => Err(TransitionError::Unclaimable),
            Some(at) if now < at => Err(TransitionError::NotClaimable),
            Some(_) => Ok(State {
                stage: Stage::Running { lease: now + lease },
                attempt: self.0.attempt + 1,
                attempts_left: self.0.attempts_left - 1,
                progress: None,
                started: self.0.started.or(Some(now)),
                ..self.revised(now)
            }),
        }
    }

    fn start(&self, now: Timestamp) -> Result<State, TransitionError> {
        let Stage::Pending { lease: Some(lease) } = self.0.stage else {
            return Err(TransitionError::AlreadyRunning);
        };
        if self.is_overdue(now) {
            return Err(TransitionError::DeadlinePassed);
        }
        Ok(State { stage: Stage::Running { lease }, started: Some(now), ..self.revised(now) })
    }

    fn renew(&self, lease: Duration, now: Timestamp) -> State {
        let lease = now + lease;
        let stage = match self.0.stage {
            Stage::Pending { .. } => Stage::Pending { lease: Some(lease) },
            _ => Stage::Running { lease },
        };
        State { version: self.0.version + 1, stage, ..State::clone(&self.0) }
    }

    fn report(&self, progress: Progress, now: Timestamp) -> Result<State, TransitionError> {
        if self.status() != Status::Running {
            return Err(TransitionError::NotRunning);
        }
        Ok(State { progress: Some(progress), ..self.revised(now) })
    }

    fn succeed(&self, head: OutcomeHead, now: Timestamp) -> Result<State, TransitionError> {
        if self.status() != Status::Running {
            return Err(TransitionError::NotRunning);
        }
        if self.is_overdue(now) {
            return Err(TransitionError::DeadlinePassed);
        }
        Ok(self.completed(head, now))
    }

    fn completed(&self, head: OutcomeHead, now: Timestamp) -> State {
        // What is done is not half done: only a failure keeps how far it came.
        State { progress: None, ..self.end(Ending::Succeeded(head), now) }
    }

    fn fail(&self, error: Problem, now: Timestamp) -> State {
        let head = OutcomeHead::new(error.status(), None);
        self.end(Ending::Failed(head, error), now)
    }

    fn retry(&self, delay: Duration, error: &Problem, now: Timestamp) -> State {
        if self.0.cancel_requested {
            self.end(Ending::Canceled, now)
        } else if self.0.attempts_left == 0 {
            self.fail(error.clone(), now)
        } else {
            State {
                stage: Stage::Pending { lease: None },
                available: now + delay,
                progress: None,
                last_error: Some(error.clone().without_retry_after()),
                ..self.revised(now)
            }
        }
    }

    /// Gives it back, maybe with the attempt, and notes whether one was given back to who had begun.
    fn release(&self, gives_back: bool, released: bool, now: Timestamp) -> State {
        let attempts_left = self.0.attempts_left + u32::from(gives_back);
        if self.0.cancel_requested {
            self.end(Ending::Canceled, now)
        } else if attempts_left == 0 {
            self.fail(self.abandoned(), now)
        } else {
            State {
                stage: Stage::Pending { lease: None },
                available: now,
                attempts_left,
                released,
                progress: None,
                ..self.revised(now)
            }
        }
    }

    fn cancel(&self, now: Timestamp) -> State {
        match self.0.stage {
            Stage::Running { .. } if self.0.cancel_requested => State::clone(&self.0),
            Stage::Running { .. } => State { cancel_requested: true, ..self.revised(now) },
            _ => self.end(Ending::Canceled, now),
        }
    }

    fn settle(&self, now: Timestamp) -> Result<State, TransitionError> {
        if !self.is_due(super::Due::Settle, now) {
            Err(TransitionError::NothingDue)
        } else if self.0.cancel_requested {
            Ok(self.end(Ending::Canceled, now))
        } else if self.is_overdue(now) {
            Ok(self.fail(Problem::new(types::DEADLINE_PASSED), now))
        } else {
            Ok(self.fail(self.abandoned(), now))
        }
    }

    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        self.0.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// What to say of work whose last attempt ended without an answer.
    fn abandoned(&self) -> Problem {
        let kind: ProblemType =
            if self.0.attempt_limit == 1 { types::INTERRUPTED } else { types::ATTEMPTS_EXHAUSTED };
        Problem::new(kind)
    }

    fn end(&self, ending: Ending, now: Timestamp) -> State {
        State {
            stage: Stage::Finished { at: now, ending },
            cancel_requested: false,
            ..self.revised(now)
        }
    }

    /// The same with both counters grown: a change that a client can see.
    fn revised(&self, now: Timestamp) -> State {
        State {
            version: self.0.version + 1,
            revision: self.0.revision + 1,
            updated: now,
            ..State::clone(&self.0)
        }
    }
}
