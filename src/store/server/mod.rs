//! What stores on servers have in common: connections that belong to tasks, the server's clock, and word
//! of changes from process to process.

mod clock;
mod lanes;
mod wire;
mod word;

pub(super) use clock::ServerClock;
pub(super) use lanes::{Answer, Calls, Lane};
pub(super) use wire::{Channel, Connection, Wire};
