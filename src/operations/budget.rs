//! How often each client may ask. Pure: the time is passed in.

use std::collections::HashMap;
use std::time::Duration;

use crate::operation::{OperationId, Owner};

/// For how long a client that does not ask saves up what it may.
const SAVED: Duration = Duration::from_secs(10);
/// How many clients are known at once. If more ask in [`SAVED`], all of them begin anew.
const MAX_CLIENTS: usize = 100_000;

/// Whose budget it is: a client without a name has one for each operation that it asks about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Client {
    Owner(Owner),
    Operation(OperationId),
}

/// What each client has spent: the time at which it will have spent nothing.
#[derive(Debug, Default)]
pub(super) struct Budget(HashMap<Client, Duration>);

impl Budget {
    /// Spends one request of this client, at a time since any moment.
    ///
    /// # Errors
    /// After how long it may ask again.
    pub(super) fn spend(
        &mut self,
        owner: &Owner,
        id: Option<OperationId>,
        rate: u32,
        now: Duration,
    ) -> Result<(), Duration> {
        let client = match (owner.name(), id) {
            (None, Some(id)) => Client::Operation(id),
            // A list of nobody's is refused without the store.
            (None, None) => return Ok(()),
            (Some(_), _) => Client::Owner(owner.clone()),
        };
        self.make_room(now);
        let free = self.0.entry(client).or_default();
        let spent = (*free).max(now) + Duration::from_secs(1) / rate.max(1);
        match spent.checked_sub(now + SAVED) {
            Some(over) if !over.is_zero() => Err(over),
            _ => {
                *free = spent;
                Ok(())
            }
        }
    }

    fn make_room(&mut self, now: Duration) {
        if self.0.len() >= MAX_CLIENTS {
            self.0.retain(|_, free| *free > now);
            // Else the next ones would look through all of them again.
            if self.0.len() > MAX_CLIENTS / 2 {
                self.0.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn id(number: u8) -> OperationId {
        OperationId::from_parts(Timestamp::from_unix_millis(1), [number; 10])
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn who_asks_too_often_is_told_when_to_come_again() {
        let (ann, bob) = (Owner::new("ann").unwrap(), Owner::new("bob").unwrap());
        let mut budget = Budget::default();
        let mut spend =
            |owner: &Owner, number, now| budget.spend(owner, Some(id(number)), 2, at(now));
        for number in 0..20 {
            assert_eq!(spend(&ann, number, 5_000), Ok(()));
        }
        assert_eq!(spend(&ann, 0, 5_000), Err(at(500)));
        // Being refused costs nothing.
        assert_eq!(spend(&ann, 0, 5_400), Err(at(100)));
        assert_eq!(spend(&ann, 0, 5_500), Ok(()));
        assert_eq!(spend(&ann, 0, 5_501), Err(at(499)));
        assert_eq!(spend(&bob, 0, 5_501), Ok(()));
        // It saves up no more than for ten seconds.
        for _ in 0..20 {
            assert_eq!(spend(&ann, 0, 1_000_000), Ok(()));
        }
        assert!(spend(&ann, 0, 1_000_000).is_err());
    }

    #[test]
    fn who_has_no_name_has_a_budget_for_each_operation() {
        let nobody = Owner::anonymous();
        let mut budget = Budget::default();
        let mut spend = |id| budget.spend(&nobody, id, 1, at(0));
        for _ in 0..10 {
            assert_eq!(spend(Some(id(1))), Ok(()));
        }
        assert_eq!(spend(Some(id(1))), Err(at(1_000)));
        assert_eq!(spend(Some(id(2))), Ok(()));
        assert_eq!(spend(None), Ok(()));
    }

    #[test]
    fn it_is_bounded() {
        let mut budget = Budget::default();
        for number in 0..MAX_CLIENTS * 2 {
            let owner = Owner::new(format!("{number}")).unwrap();
            // Those of long ago make room for the others.
            let now = Duration::from_millis(number as u64);
            assert_eq!(budget.spend(&owner, None, 1_000, now), Ok(()));
            assert!(budget.0.len() <= MAX_CLIENTS);
        }
        assert!(budget.0.len() > 1_000);
    }
}
