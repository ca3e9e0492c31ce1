//! Whose rows somebody holds, in a transaction that stays open. Whoever wants them waits; the others must not.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::error::Failure;
use crate::operation::Owner;

/// The owners that were waited for in vain a moment ago. What is theirs is tried apart from the others, and
/// not for long.
#[derive(Debug, Default)]
pub(super) struct HeldUp(HashMap<String, Instant>);

impl HeldUp {
    pub(super) fn contains(&self, owner: &Owner) -> bool {
        let until = owner.name().and_then(|name| self.0.get(name));
        until.is_some_and(|until| Instant::now() < *until)
    }

    /// Notes whether a call of that owner's alone was held up. It counts for so long.
    pub(super) fn note(&mut self, owner: &Owner, failure: Option<&Failure>, for_long: Duration) {
        // Those without a name have no row in common.
        let Some(name) = owner.name() else { return };
        if failure.is_some_and(Failure::is_held_up) {
            self.forget();
            self.0.insert(name.to_owned(), Instant::now() + for_long);
        } else {
            self.0.remove(name);
        }
    }

    fn forget(&mut self) {
        let now = Instant::now();
        self.0.retain(|_, until| now < *until);
    }
}
