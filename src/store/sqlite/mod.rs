//! [`SqliteStore`]: operations in a file, with no server.

mod builder;
mod call;
mod error;
mod open;
mod read;
mod reader;
mod reserve;
mod sql;
mod write;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

pub use self::builder::SqliteStoreBuilder;
use self::call::{Call, Message, Purpose, lost};
use self::error::Failure;
use self::open::Settings;
pub use self::open::{SqliteOpenError, SqliteOpenErrorKind};
use self::reader::{Read, Readers};
use self::sql::Reads;
use self::write::{Accepted, Transaction};
use super::hints::Hub;
use super::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Hint, Hints, ListQuery, Observed,
    OperationStore, Page, StoreError, StoreErrorKind, Submission, Swap, Swapped,
};
use crate::operation::{OperationId, Outcome, Owner};
use crate::time::{Clock, Timestamp};

/// Keeps operations in an SQLite database: durable, with no server to install.
///
/// - What was acknowledged survives the loss of power ([`PowerLoss`](super::Durability::PowerLoss)), or the death of any
///   process if [less is enough](SqliteStoreBuilder::durability).
/// - One thread writes, and commits at once what waits, so that many writes share one wait for the
///   disk. Others read beside it, and wait for no write.
/// - Several processes of one machine may use the file. Each learns of the others' writes within the
///   [watch interval](SqliteStoreBuilder::watch_interval). The file must be on a local file system.
/// - The clock is the machine's own. If it is put back, leases and delays last longer by as much.
/// - On a full disk new operations are refused ([`StoreErrorKind::OutOfSpace`]); reads go on, and so
///   do writes that end or purge operations, out of a [reserve](SqliteStoreBuilder::reserve_bytes).
///   Once that is used, new operations are refused until it is there again, or as much is free inside
///   the database.
/// - The file does not shrink: what is purged makes room for what comes.
///
/// A clone is another handle on the same threads, which end some time after the last one;
/// [`close`](Self::close) waits for that.
///
/// ```no_run
/// use respond_async::Operations;
/// use respond_async::store::SqliteStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let operations = Operations::builder(SqliteStore::open("operations.db")?).start();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    writes: SyncSender<Message>,
    reads: Arc<Readers>,
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    max_body_bytes: usize,
    is_closed: Arc<AtomicBool>,
    /// Each thread has a receiver, and lets go of it last.
    threads: watch::Sender<()>,
}

/// Said of a call for which there is no room.
const TOO_MANY: &str = "too many calls wait for the database";

impl Shared {
    fn tell_writer(&self, message: Message) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "the store is closed"));
        }
        self.writes.try_send(message).map_err(|error| {
            let message = match error {
                TrySendError::Full(_) => TOO_MANY,
                TrySendError::Disconnected(_) => "the thread that writes is gone",
            };
            StoreError::new(StoreErrorKind::Unavailable, message)
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reads.close();
    }
}

impl SqliteStore {
    /// The default of [`busy_timeout`](SqliteStoreBuilder::busy_timeout).
    pub const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_millis(1_500);
    /// The default of [`cache_bytes`](SqliteStoreBuilder::cache_bytes): 64 MiB.
    pub const DEFAULT_CACHE_BYTES: usize = 64 << 20;
    /// The default of [`readers`](SqliteStoreBuilder::readers).
    pub const DEFAULT_READERS: usize = 2;
    /// The default of [`queue`](SqliteStoreBuilder::queue).
    pub const DEFAULT_QUEUE: usize = 10_000;
    /// The default of [`max_body_bytes`](SqliteStoreBuilder::max_body_bytes): 64 MiB.
    pub const DEFAULT_MAX_BODY_BYTES: usize = 64 << 20;
    /// The default of [`reserve_bytes`](SqliteStoreBuilder::reserve_bytes): 8 MiB.
    pub const DEFAULT_RESERVE_BYTES: usize = 8 << 20;
    /// The default of [`watch_interval`](SqliteStoreBuilder::watch_interval).
    pub const DEFAULT_WATCH_INTERVAL: Duration = Duration::from_millis(50);

    /// Opens the database in that file with the defaults, and makes it if it is not there. Blocks while
    /// it does.
    ///
    /// # Errors
    /// See [`SqliteOpenErrorKind`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SqliteOpenError> {
        Self::builder(path).open()
    }

    /// Sets more than the file.
    pub fn builder(path: impl AsRef<Path>) -> SqliteStoreBuilder {
        SqliteStoreBuilder::new(path.as_ref())
    }

    /// Ends all threads, those of clones too, and returns when the file is let go of. What waits is
    /// written and read before; calls that come later are [`Unavailable`](StoreErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// The threads end all the same.
    pub async fn close(&self) {
        let Shared { writes, reads, is_closed, threads, .. } = &*self.shared;
        is_closed.store(true, Ordering::SeqCst);
        // If its queue is full it is awake, and looks when it is done.
        let _ = writes.try_send(Message::Look);
        reads.close();
        threads.closed().await;
    }

    /// Has the writer do something, and waits until it is committed.
    async fn write<T, F>(&self, purpose: Purpose, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Transaction<'_, '_>) -> Result<T, Failure> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let asked = Instant::now();
        let call = Call { run, value: None, answer: Some(answer), purpose, asked };
        self.shared.tell_writer(Message::Write(Box::new(call)))?;
        answered.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Has a reader do something.
    async fn read<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Reads<'_>, Timestamp) -> Result<T, Failure> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let clock = Arc::clone(&self.shared.clock);
        let read: Read = Box::new(move |reads| {
            // Whoever asked may have gone away.
            let _ = answer.send(run(reads, clock.now()).map_err(Failure::into_error));
        });
        self.shared.reads.ask(read)?;
        answered.await.unwrap_or_else(|_| {
            Err(StoreError::new(StoreErrorKind::Unavailable, "the thread that read gave it up"))
        })
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.shared.settings.path)
            .field("durability", &self.shared.settings.durability)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl OperationStore for SqliteStore {
    fn capabilities(&self) -> Capabilities {
        let Shared { settings, max_body_bytes, .. } = &*self.shared;
        Capabilities::new(settings.durability, *max_body_bytes).with_shared(true)
    }

    fn now(&self) -> Option<Timestamp> {
        Some(self.shared.clock.now())
    }

    async fn accept(&self, submission: Submission) -> Result<Acceptance, StoreError> {
        submission.check_size(self.shared.max_body_bytes)?;
        let clock = Arc::clone(&self.shared.clock);
        let accepted = Accepted::new(&submission, clock.now());
        let accept = move |transaction: &mut Transaction<'_, '_>| {
            transaction.accept(&submission, &accepted, submission.limits, clock.now())
        };
        let acceptance = self.write(Purpose::Accept, accept).await?;
        if let Acceptance::Created(created) = &acceptance {
            self.shared.hub.publish(&created.operation);
        }
        Ok(acceptance)
    }

    async fn get(&self, id: OperationId) -> Result<Option<Observed>, StoreError> {
        self.read(move |reads, now| reads.get(id, now)).await
    }

    async fn input(&self, id: OperationId) -> Result<Option<Bytes>, StoreError> {
        self.read(move |reads, now| reads.input(id, now)).await
    }

    async fn outcome(&self, id: OperationId) -> Result<Option<Outcome>, StoreError> {
        self.read(move |reads, now| reads.outcome(id, now)).await
    }

    async fn swap(&self, swap: Swap) -> Result<Swapped, StoreError> {
        swap.check_size(self.shared.max_body_bytes)?;
        let (next, follows) = (swap.next.clone(), !swap.outbox.is_empty());
        let clock = Arc::clone(&self.shared.clock);
        let record = next.to_record();
        let swap = move |transaction: &mut Transaction<'_, '_>| {
            transaction.swap(&swap, &record, clock.now())
        };
        let purpose = if next.status().is_finished() { Purpose::End } else { Purpose::GoOn };
        let swapped = self.write(purpose, swap).await?;
        if swapped == Swapped::Swapped {
            self.shared.hub.publish(&next);
            if follows {
                self.shared.hub.send(Hint::Claimable);
            }
        }
        Ok(swapped)
    }

    async fn remove(&self, id: OperationId, expected: u64) -> Result<Swapped, StoreError> {
        let clock = Arc::clone(&self.shared.clock);
        let remove = move |transaction: &mut Transaction<'_, '_>| {
            transaction.remove(id, expected, clock.now())
        };
        let removed = self.write(Purpose::End, remove).await?;
        if removed == Swapped::Swapped {
            self.shared.hub.send(Hint::Changed(id));
        }
        Ok(removed)
    }

    async fn due(&self, query: &DueQuery) -> Result<Vec<Observed>, StoreError> {
        let query = query.clone();
        self.read(move |reads, now| reads.due(&query, now)).await
    }

    async fn list(&self, owner: &Owner, query: &ListQuery) -> Result<Page, StoreError> {
        let (owner, query) = (owner.clone(), query.clone());
        self.read(move |reads, now| reads.list(&owner, &query, now)).await
    }

    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        if self.read(|reads, now| Ok(!reads.any_expired(now)?)).await? {
            return Ok(0);
        }
        let clock = Arc::clone(&self.shared.clock);
        let purge =
            move |transaction: &mut Transaction<'_, '_>| transaction.purge(limit, clock.now());
        self.write(Purpose::End, purge).await
    }

    fn hints(&self) -> Option<Box<dyn Hints>> {
        let hints = self.shared.hub.subscribe();
        // If it cannot be told now it is busy, and looks when it is done.
        let _ = self.shared.tell_writer(Message::Look);
        Some(hints)
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Observed>, StoreError> {
        // Whoever looks for work and finds none takes no lock.
        let mut first = request.to_due_query();
        first.limit = first.limit.min(1);
        if self.due(&first).await?.is_empty() {
            return Ok(Vec::new());
        }
        let (request, clock) = (request.clone(), Arc::clone(&self.shared.clock));
        let claim =
            move |transaction: &mut Transaction<'_, '_>| transaction.claim(&request, clock.now());
        let claimed = self.write(Purpose::GoOn, claim).await?;
        for Observed { operation, .. } in &claimed {
            self.shared.hub.publish(operation);
        }
        Ok(claimed)
    }
}
