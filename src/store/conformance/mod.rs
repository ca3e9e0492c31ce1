//! The suite that every store has to pass: one list of cases, and a backend takes it whole.
//!
//! Whoever writes a store implements [`Fixture`] for it and calls one macro, which makes a test of
//! each case:
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use respond_async::store::MemoryStore;
//! use respond_async::store::conformance::Fixture;
//! use respond_async::time::ManualClock;
//!
//! struct InMemory {
//!     store: Mutex<MemoryStore>,
//!     clock: Arc<ManualClock>,
//! }
//!
//! fn new_store(clock: &Arc<ManualClock>) -> MemoryStore {
//!     MemoryStore::builder().clock(clock.clone()).build()
//! }
//!
//! impl Fixture for InMemory {
//!     type Store = MemoryStore;
//!
//!     async fn empty() -> Self {
//!         let clock = Arc::new(ManualClock::default());
//!         Self { store: Mutex::new(new_store(&clock)), clock }
//!     }
//!
//!     async fn open(&self) -> MemoryStore {
//!         self.store.lock().unwrap().clone()
//!     }
//!
//!     async fn kill(&self) {
//!         *self.store.lock().unwrap() = new_store(&self.clock);
//!     }
//!
//!     async fn advance(&self, by: Duration) {
//!         self.clock.advance(by);
//!     }
//! }
//!
//! respond_async::store_conformance!(InMemory);
//! # fn main() {}
//! ```
//!
//! The crate that calls [`store_conformance!`](crate::store_conformance) needs `tokio` among its
//! dev-dependencies, with the features `macros` and `rt-multi-thread`.
//!
//! # The cases
//! - Each is a function of this module and says which promise it proves. The number in its name
//!   stays with it for ever, and a number without a case is free.
//! - None is skipped. Where a store can do less than another, as its
//!   [`Capabilities`](super::Capabilities) tell, the case asserts what it does instead.
//! - A case that races does so with real tasks on several threads, over [`Fixture::ROUNDS`] rounds
//!   or in one large crowd. That it passes once proves little; that it never fails is the point.
//! - A case that crashes asks for it with [`Fixture::kill`]. What it expects afterwards is what the
//!   store's [`Durability`](super::Durability) promises: everything that was acknowledged, or nothing
//!   at all, and never half of anything.
//! - A case that needs time to pass asks for it in multiples or halves of [`Fixture::UNIT`].
//! - They use what [`OperationStore`](super::OperationStore) and
//!   [`OperationStoreExt`](super::OperationStoreExt) offer and nothing else, so that they hold for a
//!   store that others wrote. Those of workers run the crate's own [`Operations`](crate::Operations) on it.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "each function here is a test: to panic is how it says what is wrong"
)]

mod acceptance;
mod cancellation;
mod cases;
mod clocks;
mod crash;
mod crashes;
mod due;
mod finished;
mod fixture;
mod histories;
mod history;
mod idempotency;
mod leases;
mod limits;
mod lossy;
mod outbox;
mod owners;
mod pages;
mod progress;
mod purging;
mod race;
mod recorder;
mod register;
mod retention;
mod samples;
mod versions;
mod workers;

pub use fixture::Fixture;

/// Makes the cases of the list functions of this module. One that the list lacks is dead code, which
/// the compiler reports.
macro_rules! publish {
    ([] $($subject:ident { $($case:ident)* })*) => { $(pub use $subject::{$($case),*};)* };
}

crate::store_conformance_cases!(publish);
