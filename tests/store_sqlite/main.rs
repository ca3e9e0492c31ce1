//! The SQLite store keeps what every store has to keep, and what a file has to bear.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]
#![allow(clippy::print_stderr, reason = "what a child said is passed on")]

mod disk;
mod opening;
mod processes;

#[path = "../store_model/mod.rs"]
mod store_model;

use std::fs;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use respond_async::store::conformance::Fixture;
use respond_async::store::{Durability, OperationStore, SqliteStore};
use respond_async::time::ManualClock;
use rusqlite::Connection;
use tempfile::TempDir;

/// A database in a folder of its own, and a clock that stands still. Each handle opens the file anew.
struct InFile<S> {
    folder: TempDir,
    /// How often the place was killed: the database that is used now.
    deaths: Mutex<usize>,
    clock: Arc<ManualClock>,
    form: PhantomData<fn() -> S>,
}

/// What an SQLite store can be made into.
trait Form: OperationStore {
    const DURABILITY: Durability = Durability::ProcessCrash;
    fn of(store: SqliteStore) -> Self;
}

impl<S> InFile<S> {
    fn database(&self) -> PathBuf {
        self.folder.path().join(format!("{}.db", self.deaths.lock().unwrap()))
    }
}

fn beside(database: &Path, end: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

impl<S: Form> Fixture for InFile<S> {
    type Store = S;
    const UNIT: Duration = Duration::from_secs(60);
    const ROUNDS: usize = 30;

    async fn empty() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            deaths: Mutex::new(0),
            clock: Arc::new(ManualClock::default()),
            form: PhantomData,
        }
    }

    async fn open(&self) -> S {
        let builder = SqliteStore::builder(self.database()).clock(Arc::clone(&self.clock));
        let builder = builder.durability(S::DURABILITY).reserve_bytes(0).max_body_bytes(10 << 20);
        // Sixty-four writers that come at once may wait for each other on a slow machine.
        S::of(builder.busy_timeout(Duration::from_secs(20)).open().unwrap())
    }

    /// What the operating system has of the files at one moment is what the death of all processes
    /// leaves. While nobody else may write, that moment lasts as long as it takes to copy them.
    async fn kill(&self) {
        let before = self.database();
        let connection = Connection::open(&before).unwrap();
        connection.busy_timeout(Duration::from_secs(20)).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        *self.deaths.lock().unwrap() += 1;
        let after = self.database();
        for end in ["", "-wal"] {
            if let Err(error) = fs::copy(beside(&before, end), beside(&after, end)) {
                assert!(end == "-wal", "{error}");
            }
        }
        connection.execute_batch("ROLLBACK").unwrap();
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn turn_back(&self, by: Duration) -> bool {
        use respond_async::time::{Clock, Timestamp};
        let back = i64::try_from(by.as_millis()).unwrap();
        self.clock.set(Timestamp::from_unix_millis(self.clock.now().as_unix_millis() - back));
        true
    }

    async fn size(&self) -> Option<u64> {
        Some(["", "-wal"].map(|end| length(&beside(&self.database(), end))).iter().sum())
    }
}

/// With each acknowledgement waiting for the disk.
mod as_it_is {
    use super::*;

    impl Form for SqliteStore {
        const DURABILITY: Durability = Durability::PowerLoss;
        fn of(store: SqliteStore) -> Self {
            store
        }
    }

    respond_async::store_conformance!(InFile<SqliteStore>);
}

mod shared_dyn {
    use super::*;

    impl Form for Arc<dyn OperationStore> {
        fn of(store: SqliteStore) -> Self {
            Arc::new(store)
        }
    }

    respond_async::store_conformance!(InFile<Arc<dyn OperationStore>>);
}

mod boxed_dyn {
    use super::*;

    impl Form for Box<dyn OperationStore> {
        fn of(store: SqliteStore) -> Self {
            Box::new(store)
        }
    }

    respond_async::store_conformance!(InFile<Box<dyn OperationStore>>);
}

#[test]
fn it_answers_like_its_model() {
    let folder = TempDir::new().unwrap();
    let number = std::sync::atomic::AtomicUsize::new(0);
    store_model::answers_like_its_model(
        60,
        |clock| {
            let number = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let builder = SqliteStore::builder(folder.path().join(format!("{number}.db")));
            let builder = builder.clock(clock).durability(Durability::ProcessCrash).readers(1);
            std::future::ready(builder.reserve_bytes(0).open().unwrap())
        },
        |_| None,
    );
}
