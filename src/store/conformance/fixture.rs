use std::future::Future;
use std::time::Duration;

use crate::store::OperationStore;

/// Where the cases get a store from. Each case has a fixture of its own.
///
/// What a fixture holds on to, such as a database of its own, it gives back when it is dropped.
pub trait Fixture: Sized + Send + Sync + 'static {
    /// The store under test.
    type Store: OperationStore;

    /// The length of time that cases reckon in, in whole milliseconds.
    ///
    /// A case expects that its calls between two [`advance`](Self::advance)s take less than this by
    /// the store's clock. So it may be anything where that clock is a manual one. With a real clock
    /// it has to be longer than the slowest call, and every case that waits gets slower with it.
    const UNIT: Duration = Duration::from_millis(500);

    /// How often a race is run. More rounds find rarer faults.
    const ROUNDS: usize = 100;

    /// A place that holds no operation and that nobody else uses.
    fn empty() -> impl Future<Output = Self> + Send;

    /// Another handle on the operations of this place. Where a store can be shared by processes, it
    /// is opened anew, as another process would; otherwise a clone will do.
    fn open(&self) -> impl Future<Output = Self::Store> + Send;

    /// Returns once at least that much time has passed by the store's clock. With a manual clock
    /// move it by exactly that much: then the cases see what happens at the very instant.
    ///
    /// As provided it waits for the real time to pass.
    fn advance(&self, by: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(by)
    }
}
