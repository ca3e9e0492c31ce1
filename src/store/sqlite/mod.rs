//! [`SqliteStore`]: operations in a file, with no server.

mod error;
mod open;
mod read;
mod reader;
mod reserve;
mod sql;
mod write;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use self::error::Failure;
use self::open::Settings;
pub use self::open::{SqliteOpenError, SqliteOpenErrorKind};
use self::reader::{Read, Readers};
use self::reserve::Reserve;
use self::sql::Reads;
use self::write::{Accepted, Transaction};
use self::writer::{Call, Message, Writer, lost};
use super::hints::Hub;
use super::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Durability, Hint, Hints, ListQuery, Observed,
    OperationStore, Page, StoreError, StoreErrorKind, Submission, Swap, Swapped,
};
use crate::operation::{OperationId, Outcome, Owner};
use crate::time::{Clock, SystemClock, Timestamp};

/// Keeps operations in an SQLite database: durable, with no server to install.
///
/// - What was acknowledged survives the loss of power ([`Durability::PowerLoss`]), or the death of any
///   process if [less is enough](SqliteStoreBuilder::durability).
/// - One thread writes, and commits at once what waits, so that many writes share one wait for the
///   disk. Others read beside it, and wait for no write.
/// - Several processes of one machine may use the file. Each learns of the others' writes within the
///   [watch interval](SqliteStoreBuilder::watch_interval). The file must be on a local file system.
/// - The clock is the machine's own. If it is put back, leases and delays last longer by as much.
/// - On a full disk new operations are refused ([`StoreErrorKind::OutOfSpace`]); reads go on, and so
///   do writes that end or purge operations, out of a [reserve](SqliteStoreBuilder::reserve_bytes).
/// - The file does not shrink: what is purged makes room for what comes.
///
/// A clone is another handle on the same threads, which end with the last one.
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
}

/// Said of a call for which there is no room.
const TOO_MANY: &str = "too many calls wait for the database";

impl Shared {
    fn tell_writer(&self, message: Message) -> Result<(), StoreError> {
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

/// Sets what an [`SqliteStore`] keeps to, and opens it.
#[derive(Debug, Clone)]
#[must_use]
pub struct SqliteStoreBuilder {
    settings: Settings,
    clock: Arc<dyn Clock>,
    readers: usize,
    queue: usize,
    max_body_bytes: usize,
    reserve_bytes: usize,
    watch_interval: Duration,
}

impl SqliteStore {
    /// How long to wait for another process's transaction if nothing else is said.
    pub const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_millis(1_500);
    /// How much of the database the writer keeps in memory if nothing else is said: 64 MiB.
    pub const DEFAULT_CACHE_BYTES: usize = 64 << 20;
    /// How many threads read if nothing else is said.
    pub const DEFAULT_READERS: usize = 2;
    /// How many writes, and how many reads, may wait if nothing else is said.
    pub const DEFAULT_QUEUE: usize = 10_000;
    /// How large one input or outcome may be if nothing else is said: 64 MiB.
    pub const DEFAULT_MAX_BODY_BYTES: usize = 64 << 20;
    /// How much room is kept back for a full disk if nothing else is said: 8 MiB.
    pub const DEFAULT_RESERVE_BYTES: usize = 8 << 20;
    /// How often other processes' writes are looked for if nothing else is said.
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
        let path: PathBuf = path.as_ref().to_owned();
        SqliteStoreBuilder {
            settings: Settings {
                path,
                durability: Durability::PowerLoss,
                busy_timeout: Self::DEFAULT_BUSY_TIMEOUT,
                cache_bytes: Self::DEFAULT_CACHE_BYTES,
            },
            clock: Arc::new(SystemClock),
            readers: Self::DEFAULT_READERS,
            queue: Self::DEFAULT_QUEUE,
            max_body_bytes: Self::DEFAULT_MAX_BODY_BYTES,
            reserve_bytes: Self::DEFAULT_RESERVE_BYTES,
            watch_interval: Self::DEFAULT_WATCH_INTERVAL,
        }
    }

    /// Has the writer do something, and waits until it is committed.
    async fn write<T, F>(&self, may_use_reserve: bool, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Transaction<'_, '_>) -> Result<T, Failure> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let call = Call { run, value: None, answer: Some(answer), may_use_reserve };
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
            Err(StoreError::new(StoreErrorKind::Unavailable, "the threads that read are gone"))
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

impl SqliteStoreBuilder {
    /// How much is to survive once a write was acknowledged: [`Durability::PowerLoss`] (the default)
    /// waits for the disk with each transaction, [`Durability::ProcessCrash`] leaves that to the
    /// operating system. There is nothing less.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability.max(Durability::ProcessCrash);
        self
    }

    /// Judges time by this clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How long to wait for another process's transaction; after it a write is
    /// [`Unavailable`](StoreErrorKind::Unavailable).
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.settings.busy_timeout = timeout;
        self
    }

    /// How much of the database the writer may keep in memory. Readers keep little.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.settings.cache_bytes = bytes;
        self
    }

    /// How many threads read, at least 1.
    pub fn readers(mut self, threads: usize) -> Self {
        self.readers = threads.max(1);
        self
    }

    /// How many writes, and how many reads, may wait. One more is
    /// [`Unavailable`](StoreErrorKind::Unavailable).
    pub fn queue(mut self, calls: usize) -> Self {
        self.queue = calls.max(1);
        self
    }

    /// Bounds one input or outcome. SQLite itself takes no more than about 1 GB.
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// How much room is kept back in a file beside the database, `-reserve` after its name, so that on
    /// a full disk work can still be ended and purged. It should be twice the log, which is about 4 MiB
    /// unless bodies are larger. With 0 there is none.
    pub fn reserve_bytes(mut self, bytes: usize) -> Self {
        self.reserve_bytes = bytes;
        self
    }

    /// How often to look for what other processes wrote, while anybody listens for
    /// [hints](OperationStore::hints); at least every millisecond.
    pub fn watch_interval(mut self, interval: Duration) -> Self {
        self.watch_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Opens the database, and makes it if it is not there. Blocks while it does.
    ///
    /// # Errors
    /// See [`SqliteOpenErrorKind`].
    pub fn open(self) -> Result<SqliteStore, SqliteOpenError> {
        let Self { settings, clock, max_body_bytes, .. } = self;
        let failed = |error| SqliteOpenError::from_driver(&settings.path, error);
        let not_spawned = |error| SqliteOpenError::not_spawned(&settings.path, error);
        let connection = settings.open_writer()?;
        // What the threads will prepare must be there; a table that is missing is told here.
        Reads::prepare(&connection).map_err(failed)?;
        sql::Writes::prepare(&connection).map_err(failed)?;
        let readers = (0..self.readers).map(|_| settings.open_reader());
        let readers = readers.collect::<Result<Vec<_>, _>>()?;

        let hub = Arc::new(Hub::default());
        let (writes, queue) = sync_channel(self.queue);
        let thread = Writer {
            queue,
            hub: Arc::clone(&hub),
            reserve: Reserve::beside(&settings.path, self.reserve_bytes),
            busy_timeout: settings.busy_timeout,
            watch_interval: self.watch_interval,
        };
        let reads = Arc::new(Readers::new(readers.len(), self.queue));
        // From here on threads that were started end when this is dropped.
        let settings = settings.clone();
        let shared =
            Shared { settings, writes, reads: Arc::clone(&reads), hub, clock, max_body_bytes };
        let store = SqliteStore { shared: Arc::new(shared) };
        thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || thread.run(&connection))
            .map_err(not_spawned)?;
        for (reader, connection) in readers.into_iter().enumerate() {
            let reads = Arc::clone(&reads);
            thread::Builder::new()
                .name("sqlite-reader".to_owned())
                .spawn(move || reads.run(reader, &connection))
                .map_err(not_spawned)?;
        }
        Ok(store)
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
        let acceptance = self.write(false, accept).await?;
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
        let swapped = self.write(true, swap).await?;
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
        let removed = self.write(true, remove).await?;
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
        let nothing = self.due(&DueQuery::new(crate::operation::Due::Expire, 1)).await?.is_empty();
        if nothing {
            return Ok(0);
        }
        let clock = Arc::clone(&self.shared.clock);
        let purge =
            move |transaction: &mut Transaction<'_, '_>| transaction.purge(limit, clock.now());
        self.write(true, purge).await
    }

    fn hints(&self) -> Option<Box<dyn Hints>> {
        let hints = self.shared.hub.subscribe();
        // If it cannot be told now it is busy, and looks when it is done.
        let _ = self.shared.tell_writer(Message::Listened);
        Some(hints)
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Observed>, StoreError> {
        // Whoever looks for work and finds none takes no lock.
        let mut first = request.as_due_query();
        first.limit = first.limit.min(1);
        if self.due(&first).await?.is_empty() {
            return Ok(Vec::new());
        }
        let (request, clock) = (request.clone(), Arc::clone(&self.shared.clock));
        let claim =
            move |transaction: &mut Transaction<'_, '_>| transaction.claim(&request, clock.now());
        let claimed = self.write(false, claim).await?;
        for Observed { operation, .. } in &claimed {
            self.shared.hub.publish(operation);
        }
        Ok(claimed)
    }
}
