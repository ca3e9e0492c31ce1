//! Whether what many tasks saw of one register has an order that explains it.
//!
//! In general that is hard to find out. Here it is easy, because each successful write makes a
//! version that no other makes: the order of the versions is the only one possible. It explains the
//! history if and only if no call on a version ended before a call on an earlier version began, and
//! none that read a version ended before the write of that version began.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

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

    pub(super) fn kind(&self) -> EventKind {
        self.kind
    }

    fn version(&self) -> u64 {
        self.operation.version()
    }

    /// Whether both are of one state, made by one write.
    fn shows(&self, other: &Self) -> bool {
        (&self.operation, self.write_id) == (&other.operation, other.write_id)
    }
}

/// Checks the history of a register that began with `first`. `claims` says when the claims began
/// that nobody heard of again: each may have made one version, whose attempt is one larger.
///
/// # Errors
/// What cannot be explained, in words.
pub(super) fn check(first: &Observed, events: &[Event], claims: &[u64]) -> Result<(), String> {
    let mut writes: BTreeMap<u64, Event> = BTreeMap::new();
    let initial = Event::new(EventKind::Write, 0, 0, first);
    writes.insert(initial.version(), initial.clone());
    for write in events.iter().filter(|event| event.kind == EventKind::Write) {
        if let Some(other) = writes.insert(write.version(), write.clone()) {
            return Err(format!("one version was written twice: {other:?} and {write:?}"));
        }
    }
    for write in events.iter().filter(|event| event.kind == EventKind::MaybeWrite) {
        if !reads(events).any(|read| read.shows(write)) {
            continue;
        }
        match writes.entry(write.version()) {
            Entry::Vacant(entry) => drop(entry.insert(write.clone())),
            // Another try of the same write, any of which may have made it; if one was answered, it
            // was that one.
            Entry::Occupied(mut entry) if entry.get().shows(write) => {
                if entry.get().kind == EventKind::MaybeWrite {
                    let start = write.start.min(entry.get().start);
                    entry.get_mut().start = start;
                }
            }
            Entry::Occupied(entry) => {
                let other = entry.get();
                return Err(format!("one version was written twice: {other:?} and {write:?}"));
            }
        }
    }
    let newest = reads(events).map(Event::version).chain(writes.keys().copied()).max();
    let mut claimed = 0;
    for version in initial.version() + 1..=newest.unwrap_or_default() {
        if writes.contains_key(&version) {
            continue;
        }
        let seen = reads(events).find(|read| read.version() == version);
        let before = writes.get(&(version - 1)).map_or(0, |before| before.operation.attempt());
        let maker = match seen {
            // Whoever read it knows that none of the writes made it. It can only be a claim.
            Some(seen) if seen.operation.attempt() == before + 1 => {
                claimed += 1;
                let start = claims.iter().min().copied();
                start.map(|start| Event {
                    kind: EventKind::Write,
                    start,
                    end: u64::MAX,
                    ..seen.clone()
                })
            }
            Some(_) => None,
            // Nobody read it, so any write or claim that may have made it will do; the one that
            // began first leaves most room for the others.
            None => {
                let maybe = events.iter().filter(|event| {
                    event.kind == EventKind::MaybeWrite && event.version() == version
                });
                let maker = maybe.min_by_key(|event| event.start).cloned();
                let claim = claims.iter().min().copied();
                match (maker, claim) {
                    (Some(maker), Some(claim)) => {
                        let start = maker.start.min(claim);
                        Some(Event { start, ..maker })
                    }
                    // What it looks like is of no interest, because nobody read it.
                    (None, Some(start)) => Some(Event { start, end: u64::MAX, ..initial.clone() }),
                    (maker, None) => maker,
                }
            }
        };
        let maker = maker.ok_or_else(|| format!("nobody wrote version {version}"))?;
        writes.insert(version, maker);
    }
    if claimed > claims.len() {
        return Err(format!("{claimed} versions for {} claims", claims.len()));
    }

    let mut took_place: Vec<(u64, &Event)> =
        writes.iter().map(|(version, write)| (*version, write)).collect();
    for read in reads(events) {
        let Some(write) = writes.get(&read.version()) else {
            return Err(format!("older than the beginning: {read:?}"));
        };
        if !read.shows(write) {
            return Err(format!("{read:?} is not what was written by {write:?}"));
        }
        if read.end < write.start {
            return Err(format!("{read:?} saw the future {write:?}"));
        }
        took_place.push((read.version(), read));
    }
    for (earlier_version, earlier) in &took_place {
        for (later_version, later) in &took_place {
            if earlier_version < later_version && later.end < earlier.start {
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
    use super::super::samples::{LONG, new_running, reported, retried, swap_of};
    use super::EventKind::{MaybeWrite, Read, Write};
    use super::*;
    use crate::operation::Change;
    use crate::time::Timestamp;

    const NEVER: u64 = u64::MAX;

    /// The states of a register that was written again and again, from its first: reported on,
    /// given back, claimed, reported on.
    fn states() -> Vec<Observed> {
        let now = Timestamp::from_unix_millis(0);
        let first = new_running(LONG).accept(now);
        let mut states = vec![Observed { operation: first, now, write_id: 0 }];
        let claim = Change::Claim { lease: LONG };
        let given_back = retried(1, std::time::Duration::ZERO);
        for (change, write_id) in
            [(reported(1, "on"), 1), (given_back, 2), (claim, 0), (reported(2, "on"), 4)]
        {
            let swap = swap_of(&states[states.len() - 1], &change).unwrap();
            states.push(Observed { operation: swap.next, now, write_id });
        }
        states
    }

    /// Of calls by kind, start, end and number of the state, and of lost claims by their start.
    #[track_caller]
    fn verdict(events: &[(EventKind, u64, u64, usize)], claims: &[u64]) -> Result<(), String> {
        // One list: each call of `states` makes another operation.
        let states = states();
        let events: Vec<Event> = events
            .iter()
            .map(|(kind, start, end, state)| Event::new(*kind, *start, *end, &states[*state]))
            .collect();
        check(&states[0], &events, claims)
    }

    #[test]
    fn what_can_be_ordered_passes() {
        for events in [
            vec![],
            vec![(Write, 1, 2, 1), (Read, 3, 4, 1), (Write, 5, 6, 2)],
            // Two reads during a write: one saw it already, the other not yet.
            vec![(Write, 1, 9, 1), (Read, 2, 5, 1), (Read, 3, 6, 0)],
            vec![(MaybeWrite, 1, NEVER, 1), (Read, 2, 3, 0)],
            vec![(MaybeWrite, 1, NEVER, 1), (Read, 2, 3, 1)],
            vec![(MaybeWrite, 1, NEVER, 1), (Write, 2, 3, 2)],
            // It took place long after it was sent.
            vec![(MaybeWrite, 1, NEVER, 1), (Read, 2, 3, 0), (Read, 4, 5, 1)],
            // A second try of the same write, under the same name.
            vec![(MaybeWrite, 1, NEVER, 1), (Write, 3, 4, 1), (Read, 5, 6, 1)],
            // Of two that aimed at one version, either may have made it.
            vec![(MaybeWrite, 1, NEVER, 1), (MaybeWrite, 2, NEVER, 1), (Write, 3, 4, 2)],
        ] {
            assert_eq!(verdict(&events, &[]), Ok(()), "{events:?}");
        }
    }

    #[test]
    fn a_lost_claim_explains_one_attempt() {
        let up_to_the_claim = [(Write, 1, 2, 1), (Write, 3, 4, 2)];
        let with = |more: &[(EventKind, u64, u64, usize)]| [&up_to_the_claim[..], more].concat();
        assert_eq!(verdict(&with(&[]), &[5]), Ok(()));
        assert_eq!(verdict(&with(&[(Read, 6, 7, 3)]), &[5]), Ok(()));
        assert_eq!(verdict(&with(&[(Write, 6, 7, 4)]), &[5]), Ok(()));
        for (events, claims, reason) in [
            (with(&[(Read, 6, 7, 3)]), &[][..], "nobody wrote"),
            (with(&[(Read, 5, 6, 3)]), &[7], "saw the future"),
            (with(&[(Write, 5, 6, 4)]), &[7], "came after"),
            // A report is no claim.
            (vec![(Read, 2, 3, 1)], &[1], "nobody wrote"),
        ] {
            let found = verdict(&events, claims).unwrap_err();
            assert!(found.contains(reason), "{found}");
        }
    }

    #[test]
    fn what_cannot_be_ordered_is_found() {
        for (name, events, reason) in [
            ("stale read", vec![(Write, 1, 2, 1), (Read, 3, 4, 0)], "came after"),
            (
                "unread write",
                vec![(Write, 1, 9, 1), (Read, 2, 3, 1), (Read, 4, 5, 0)],
                "came after",
            ),
            ("writes out of order", vec![(Write, 1, 2, 2), (Write, 3, 4, 1)], "came after"),
            ("read from the future", vec![(Read, 1, 2, 1), (Write, 3, 4, 1)], "saw the future"),
            (
                "read from a future that may not come",
                vec![(Read, 1, 2, 1), (MaybeWrite, 3, NEVER, 1)],
                "saw the future",
            ),
            ("double win", vec![(Write, 1, 5, 1), (Write, 2, 6, 1)], "written twice"),
            (
                "lost update",
                vec![(Write, 1, 2, 1), (Write, 3, 4, 2), (Read, 5, 6, 1)],
                "came after",
            ),
            ("write over nothing", vec![(Write, 1, 2, 2)], "nobody wrote version 2"),
            ("read of nothing", vec![(Read, 1, 2, 3)], "nobody wrote version 2"),
        ] {
            let found = verdict(&events, &[]).expect_err(name);
            assert!(found.contains(reason), "{name}: {found}");
        }
        let states = states();
        let mut forged = states[1].clone();
        forged.write_id = 9;
        let events = [Event::new(Write, 1, 2, &states[1]), Event::new(Read, 3, 4, &forged)];
        assert!(check(&states[0], &events, &[]).unwrap_err().contains("is not what was written"));
        let [write, read] = events;
        let events = [write, Event::new(MaybeWrite, 2, NEVER, &forged), read];
        assert!(check(&states[0], &events, &[]).unwrap_err().contains("written twice"));
    }
}
