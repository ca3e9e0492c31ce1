use std::future::{Future, ready};
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

    /// What is lost when all processes that use the store die is lost now, calls that are under way
    /// included. From then on [`open`](Self::open) gives what survived.
    ///
    /// Handles that were opened before are not used any more, apart from the calls that were under
    /// way: they may fail, wait or go on, but what they write from now on nobody may see. A store
    /// that is [`Volatile`](crate::store::Durability::Volatile) leaves an empty place. A place may
    /// be killed again and again.
    fn kill(&self) -> impl Future<Output = ()> + Send;

    /// Returns once at least that much time has passed by the store's clock. With a manual clock
    /// move it by exactly that much: then the cases see what happens at the very instant.
    ///
    /// As provided it waits for the real time to pass.
    fn advance(&self, by: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(by)
    }

    /// Puts the store's clock back by that much, as an administrator or a failover would, and says
    /// whether it did.
    ///
    /// As provided the clock cannot be put back: the cases that would do so go on with the time as
    /// it is, and assert what then holds.
    fn turn_back(&self, by: Duration) -> impl Future<Output = bool> + Send {
        let _ = by;
        ready(false)
    }

    /// How much room the place takes by now, in whatever unit: rows, or bytes of a file. It need not
    /// shrink when operations are purged, but what they leave must be used again.
    ///
    /// As provided the store cannot tell.
    fn size(&self) -> impl Future<Output = Option<u64>> + Send {
        ready(None)
    }
}
