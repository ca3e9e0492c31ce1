use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::watch;

use super::open::{Settings, SqliteOpenError};
use super::reader::Readers;
use super::reserve::Reserve;
use super::sql::{self, Reads};
use super::writer::{Pace, Writer};
use super::{Shared, SqliteStore};
use crate::lock::lock;
use crate::store::Durability;
use crate::store::hints::Hub;
use crate::time::{Clock, SystemClock};

/// The longest queue: its room is taken at once.
const MAX_QUEUE: usize = 1 << 20;
/// The longest time that SQLite waits: it counts milliseconds in an `int`.
const MAX_BUSY_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

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

impl SqliteStoreBuilder {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            settings: Settings {
                path: path.to_owned(),
                durability: Durability::PowerLoss,
                busy_timeout: SqliteStore::DEFAULT_BUSY_TIMEOUT,
                cache_bytes: SqliteStore::DEFAULT_CACHE_BYTES,
            },
            clock: Arc::new(SystemClock),
            readers: SqliteStore::DEFAULT_READERS,
            queue: SqliteStore::DEFAULT_QUEUE,
            max_body_bytes: SqliteStore::DEFAULT_MAX_BODY_BYTES,
            reserve_bytes: SqliteStore::DEFAULT_RESERVE_BYTES,
            watch_interval: SqliteStore::DEFAULT_WATCH_INTERVAL,
        }
    }

    /// How much is to survive once a write was acknowledged: [`Durability::PowerLoss`] (the default)
    /// waits for the disk with each transaction, [`Durability::ProcessCrash`] leaves that to the
    /// operating system. There is nothing less.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability.max(Durability::ProcessCrash);
        self
    }

    /// Judges time by this clock. The default is the operating system's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How long a write may wait for another process's transaction, from the call on, up to some 24
    /// days; after it the write is [`Unavailable`](crate::store::StoreErrorKind::Unavailable). So is one that has
    /// waited as long for its turn, and no less than the
    /// [default, 1.5 s](SqliteStore::DEFAULT_BUSY_TIMEOUT): it is not made, for whoever asked may have asked
    /// again.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.settings.busy_timeout = timeout.min(MAX_BUSY_TIMEOUT);
        self
    }

    /// How much of the database the writer may keep in memory. Readers keep little. The default is
    /// [64 MiB](SqliteStore::DEFAULT_CACHE_BYTES).
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.settings.cache_bytes = bytes;
        self
    }

    /// How many threads read, at least 1. The default is [2](SqliteStore::DEFAULT_READERS).
    pub fn readers(mut self, threads: usize) -> Self {
        self.readers = threads.max(1);
        self
    }

    /// How many writes, and how many reads, may wait, from 1 to 1,048,576. One more is
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable). The default is
    /// [10,000](SqliteStore::DEFAULT_QUEUE).
    pub fn queue(mut self, calls: usize) -> Self {
        self.queue = calls.clamp(1, MAX_QUEUE);
        self
    }

    /// Bounds one input or outcome. SQLite itself takes no more than about 1 GB. The default is
    /// [64 MiB](SqliteStore::DEFAULT_MAX_BODY_BYTES).
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// How much room is kept back in a file beside the database, `-reserve` after its name, so that on a full
    /// disk work can still be ended and purged. It should be twice the log, which is about 4 MiB unless bodies
    /// are larger. With 0 there is none; a file that another handle made stays. The default is
    /// [8 MiB](SqliteStore::DEFAULT_RESERVE_BYTES).
    pub fn reserve_bytes(mut self, bytes: usize) -> Self {
        self.reserve_bytes = bytes;
        self
    }

    /// How often to look for what other processes wrote, while anybody listens for
    /// [hints](crate::store::OperationStore::hints); at least every millisecond. The default is
    /// [50 ms](SqliteStore::DEFAULT_WATCH_INTERVAL).
    pub fn watch_interval(mut self, interval: Duration) -> Self {
        self.watch_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Opens the database, and makes it if it is not there. Blocks while it does.
    ///
    /// # Errors
    /// See [`SqliteOpenErrorKind`](super::SqliteOpenErrorKind).
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

        // Before anybody can listen, so that whoever does hears of all that is written from then on.
        let seen = connection
            .pragma_query_value(None, sql::DATA_VERSION, |row| row.get(0))
            .map_err(failed)?;

        // Where SQLite found it: the path may lead through links, or from a folder that the process leaves.
        let file = connection.path().map_or(settings.path.as_path(), Path::new);

        let hub = Arc::new(Hub::default());
        let is_closed = Arc::new(AtomicBool::new(false));
        let (threads, thread_lives) = watch::channel(());
        let (writes, queue) = sync_channel(self.queue);
        let thread = Writer {
            queue,
            hub: Arc::clone(&hub),
            reserve: Reserve::beside(file, self.reserve_bytes),
            busy_timeout: settings.busy_timeout,
            watch_interval: self.watch_interval,
            seen,
            is_closed: Arc::clone(&is_closed),
            pace: Pace::default(),
        };
        let reads = Arc::new(Readers::new(readers.len(), self.queue));
        // From here on threads that were started end when this is dropped.
        let settings = settings.clone();
        let shared = Shared {
            settings,
            writes,
            reads: Arc::clone(&reads),
            hub,
            clock,
            max_body_bytes,
            is_closed,
            threads,
        };
        let store = SqliteStore { shared: Arc::new(shared) };
        let lives = Life { _life: thread_lives, turn: Arc::default() };
        let life = lives.clone();
        thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || {
                let ended = thread.run(&connection);
                life.end(connection);
                ended
            })
            .map_err(not_spawned)?;
        for (reader, connection) in readers.into_iter().enumerate() {
            let (reads, life) = (Arc::clone(&reads), lives.clone());
            thread::Builder::new()
                .name("sqlite-reader".to_owned())
                .spawn(move || {
                    let ended = reads.run(reader, &connection);
                    life.end(connection);
                    ended
                })
                .map_err(not_spawned)?;
        }
        Ok(store)
    }
}

/// What a thread holds while it uses the database.
#[derive(Clone)]
struct Life {
    _life: watch::Receiver<()>,
    turn: Arc<Mutex<()>>,
}

impl Life {
    /// Closes the connection. The last of a file moves what the log holds into the database; of two that
    /// close at once neither does, since each sees the other. So they take turns.
    fn end(self, connection: Connection) {
        let _turn = lock(&self.turn);
        drop(connection);
    }
}
