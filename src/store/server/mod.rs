//! What stores on servers have in common: connections that belong to tasks, the server's clock, and word
//! of changes from process to process.

mod at_once;
mod clock;
mod ear;
mod lanes;
mod wire;
mod word;

use std::time::Duration;

pub(super) use at_once::AtOnce;
pub(super) use clock::ServerClock;
pub(super) use ear::{Ear, Heard, ear};
pub(super) use lanes::{Answer, Calls, Grouped, Lane, READ_BYTES};
pub(super) use wire::{Channel, Connection, Wire};

use crate::operation::Kind;

/// The shortest and the longest time that a store can be set to.
const TIMES: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(24 * 60 * 60)];
/// How many calls can be set to wait at the most.
const MAX_QUEUE: usize = 1_000_000;
/// How many connections of one sort can be set at the most.
const MAX_CONNECTIONS: usize = 1_000;

/// A time as it can be set: what is shorter or longer would be of no use, or more than the servers take.
pub(super) fn settable(time: Duration) -> Duration {
    let [shortest, longest] = TIMES;
    time.clamp(shortest, longest)
}

/// How many calls can wait, as it can be set.
pub(super) fn settable_queue(calls: usize) -> usize {
    calls.clamp(1, MAX_QUEUE)
}

/// How many connections there can be, as it can be set.
pub(super) fn settable_connections(connections: usize) -> usize {
    connections.clamp(1, MAX_CONNECTIONS)
}

/// The kinds as servers are told them, each once.
pub(super) fn names(kinds: &[Kind]) -> Vec<String> {
    let mut names: Vec<String> = kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}
