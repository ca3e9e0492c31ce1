use super::{Operation, Stage};
use crate::time::Timestamp;

/// What can become due by the mere passing of time.
///
/// A store keeps an index for each, over [`Operation::due_at`], and gives out what
/// [`Operation::is_due`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Due {
    /// A worker may claim it: it waits for one, or the lease of its holder has passed.
    Claim,
    /// It must be brought to its end ([`Change::Settle`](super::Change::Settle)): its deadline has
    /// passed, or its holder is gone and no other attempt may follow.
    Settle,
    /// Its retention has passed: it may be purged.
    Expire,
}

impl Due {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Claim, Self::Settle, Self::Expire];
}

impl Operation {
    /// From when on it is due; none if it cannot become so in its present state.
    ///
    /// A live operation in a state that this version knows always has an instant for [`Due::Claim`] or [`Due::Settle`], and a finished
    /// one for [`Due::Expire`]: none can be stuck.
    pub fn due_at(&self, due: Due) -> Option<Timestamp> {
        match (due, &self.0.stage) {
            (Due::Expire, _) => self.expires(),
            (_, Stage::Finished { .. } | Stage::Unknown(_)) => None,
            (Due::Claim, _) => {
                self.may_be_claimed().then(|| self.lease_expires().unwrap_or(self.0.available))
            }
            (Due::Settle, _) => {
                let abandoned = self.lease_expires().filter(|_| !self.may_be_claimed());
                self.0.deadline.into_iter().chain(abandoned).min()
            }
        }
    }

    /// Whether it is due at `now`. Past its deadline it is not due for a claim any more: the claim
    /// would be refused, and may not stand in the way of others.
    pub fn is_due(&self, due: Due, now: Timestamp) -> bool {
        self.due_at(due).is_some_and(|at| at <= now) && (due != Due::Claim || !self.is_overdue(now))
    }

    fn may_be_claimed(&self) -> bool {
        self.0.attempts_left > 0 && !self.0.cancel_requested
    }
}
