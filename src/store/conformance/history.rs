//! Whether what many tasks saw of one register has an order that explains it.
//!
//! In general that is hard to find out. Here it is easy, because each successful write makes a
//! version that no other makes: the order of the versions is the only one possible. It explains the
//! history if and only if no call on a version ended before a call on an earlier version began, and
//! none that read a version ended before the write of that version began.

use std::collections::BTreeMap;

use crate::operation::Operation;
use crate::store::Observed;

/// A call: when it began and ended, and the state of the register that it saw or made.
#[derive(Debug, Clone)]
pub(super) struct Event {
    kind: EventKind,
    start: u64,
    end: u64,
    operation: Operation,
    write_id: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventKind {
    /// It saw the state.
    Read,
    /// It made the state.
    Write,
    /// It was to make the state, and nobody told whether it did.
    MaybeWrite,
}

impl Event {
    pub(super) fn new(kind: EventKind, start: u64, end: u64, state: &Observed) -> Self {
        let Observed { operation, write_id, .. } = state.clone();
        Self { kind, start, end, operation, write_id }
    }

    fn version(&self) -> u64 {
        self.operation.version()
    }
}

/// Checks the history of a register that began with `first`.
///
/// # Errors
/// What cannot be explained, in words.
pub(super) fn check(first: &Observed, events: &[Event]) -> Result<(), String> {
    let mut writes: BTreeMap<u64, &Event> = BTreeMap::new();
    let initial = Event::new(EventKind::Write, 0, 0, first);
    writes.insert(initial.version(), &initial);
    let definite = events.iter().filter(|event| event.kind == EventKind::Write);
    let proven = events.iter().filter(|event| {
        event.kind == EventKind::MaybeWrite
            && reads(events)
                .any(|read| (read.version(), read.write_id) == (event.version(), event.write_id))
    });
    for write in definite.chain(proven) {
        if let Some(other) = writes.insert(write.version(), write) {
            return Err(format!("one version was written twice: {other:?} and {write:?}"));
        }
    }
    let newest = reads(events).map(Event::version).chain(writes.keys().copied()).max();
    for version in initial.version()..=newest.unwrap_or_default() {
        if writes.contains_key(&version) {
            continue;
        }
        // Nobody read it, so any write that may have made it will do; the one that began first
        // leaves most room for the others.
        let maker = events
            .iter()
            .filter(|event| event.kind == EventKind::MaybeWrite && event.version() == version)
            .min_by_key(|event| event.start)
            .ok_or_else(|| format!("nobody wrote version {version}"))?;
        writes.insert(version, maker);
    }

    let mut took_place: Vec<&Event> = writes.values().copied().collect();
    for read in reads(events) {
        let Some(write) = writes.get(&read.version()) else {
            return Err(format!("older than the beginning: {read:?}"));
        };
        if (&write.operation, write.write_id) != (&read.operation, read.write_id) {
            return Err(format!("{read:?} is not what was written by {write:?}"));
        }
        if read.end < write.start {
            return Err(format!("{read:?} saw the future {write:?}"));
        }
        took_place.push(read);
    }
    for earlier in &took_place {
        for later in &took_place {
            if earlier.version() < later.version() && later.end < earlier.start {
                return Err(format!("{earlier:?} came after {later:?} had ended"));
            }
        }
    }
    Ok(())
}

fn reads(events: &[Event]) -> impl Iterator<Item = &Event> {
    events.iter().filter(|event| event.kind == EventKind::Read)
}

#[cfg(test)]
mod tests {
    use super::super::samples::{LONG, new_running, reported, swap_of};
    use super::EventKind::{MaybeWrite, Read, Write};
    use super::*;
    use crate::time::Timestamp;

    /// The states of a register that was written again and again, from its first.
    fn states() -> Vec<Observed> {
        let now = Timestamp::from_unix_millis(0);
        let first = new_running(LONG).accept(now);
        let mut states = vec![Observed { operation: first, now, write_id: 0 }];
        for write_id in 1..=3 {
            let swap = swap_of(&states[states.len() - 1], &reported(1, "on")).unwrap();
            states.push(Observed { operation: swap.next, now, write_id });
        }
        states
    }

    #[track_caller]
    fn verdict(events: &[(EventKind, u64, u64, usize)]) -> Result<(), String> {
        let states = states();
        // Not a closure: each call of `states` makes another operation.
        let events: Vec<Event> = events
            .iter()
            .map(|(kind, start, end, state)| Event::new(*kind, *start, *end, &states[*state]))
            .collect();
        check(&states[0], &events)
    }

    #[test]
    fn what_can_be_ordered_passes() {
        assert_eq!(verdict(&[]), Ok(()));
        assert_eq!(verdict(&[(Write, 1, 2, 1), (Read, 3, 4, 1), (Write, 5, 6, 2)]), Ok(()));
        // Two reads during a write: one saw it already, the other not yet.
        assert_eq!(verdict(&[(Write, 1, 9, 1), (Read, 2, 5, 1), (Read, 3, 6, 0)]), Ok(()));
        assert_eq!(verdict(&[(MaybeWrite, 1, u64::MAX, 1), (Read, 2, 3, 0)]), Ok(()));
        assert_eq!(verdict(&[(MaybeWrite, 1, u64::MAX, 1), (Read, 2, 3, 1)]), Ok(()));
        assert_eq!(verdict(&[(MaybeWrite, 1, u64::MAX, 1), (Write, 2, 3, 2)]), Ok(()));
    }

    #[test]
    fn what_cannot_be_ordered_is_found() {
        for (events, reason) in [
            (vec![(Write, 1, 2, 1), (Read, 3, 4, 0)], "came after"),
            (vec![(Write, 1, 9, 1), (Read, 2, 3, 1), (Read, 4, 5, 0)], "came after"),
            (vec![(Write, 1, 2, 2), (Write, 3, 4, 1)], "came after"),
            (vec![(Read, 1, 2, 1), (Write, 3, 4, 1)], "saw the future"),
            (vec![(Read, 1, 2, 1), (MaybeWrite, 3, u64::MAX, 1)], "saw the future"),
            (vec![(Write, 1, 5, 1), (Write, 2, 6, 1)], "written twice"),
            (vec![(Write, 1, 2, 2)], "nobody wrote version 2"),
            (vec![(Read, 1, 2, 3)], "nobody wrote version 2"),
        ] {
            let found = verdict(&events).unwrap_err();
            assert!(found.contains(reason), "{found}");
        }
        let states = states();
        let mut forged = states[1].clone();
        forged.write_id = 9;
        let events = [Event::new(Write, 1, 2, &states[1]), Event::new(Read, 3, 4, &forged)];
        assert!(check(&states[0], &events).unwrap_err().contains("is not what was written"));
    }
}
