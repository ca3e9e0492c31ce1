//! The one thread that writes. It takes all that waits and commits it at once, so that many writes
//! share one wait for the disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::Failure;
use super::open::BUSY_PAUSE;
use super::reserve::Reserve;
use super::sql::{self, Reads, Writes};
use super::write::Transaction;
use crate::store::hints::{Hint, Hub};
use crate::store::{StoreError, StoreErrorKind};

/// How many writes share a transaction at the most.
const MAX_GROUP: usize = 256;

/// A write that waits for its turn. It may be run more than once, until it is committed.
pub(super) trait Write: Send {
    /// # Errors
    /// Then nothing of it is kept.
    fn run(&mut self, transaction: &mut Transaction<'_, '_>) -> Result<(), Failure>;
    /// Tells whoever waits for it.
    fn answer(&mut self, result: Result<(), StoreError>);
    /// Whether it may use the room that is kept back for a full disk.
    fn may_use_reserve(&self) -> bool;
}

/// A call of the store as a [`Write`].
pub(super) struct Call<T, F> {
    pub(super) run: F,
    pub(super) value: Option<T>,
    pub(super) answer: Option<oneshot::Sender<Result<T, StoreError>>>,
    pub(super) may_use_reserve: bool,
}

impl<T, F> Write for Call<T, F>
where
    T: Send,
    F: FnMut(&mut Transaction<'_, '_>) -> Result<T, Failure> + Send,
{
    fn run(&mut self, transaction: &mut Transaction<'_, '_>) -> Result<(), Failure> {
        self.value = Some((self.run)(transaction)?);
        Ok(())
    }

    fn answer(&mut self, result: Result<(), StoreError>) {
        let Some(answer) = self.answer.take() else { return };
        let value = result.and_then(|()| self.value.take().ok_or_else(lost));
        // Whoever asked may have gone away.
        let _ = answer.send(value);
    }

    fn may_use_reserve(&self) -> bool {
        self.may_use_reserve
    }
}

/// What is said to the writer.
pub(super) enum Message {
    Write(Box<dyn Write>),
    /// Somebody listens for hints now.
    Listened,
}

pub(super) struct Writer {
    pub(super) queue: Receiver<Message>,
    pub(super) hub: Arc<Hub>,
    pub(super) reserve: Reserve,
    /// How long to wait for another process's transaction.
    pub(super) busy_timeout: Duration,
    /// How often to look for what other processes wrote.
    pub(super) watch_interval: Duration,
}

/// The connection's statements.
struct Statements<'c> {
    connection: &'c Connection,
    reads: Reads<'c>,
    writes: Writes<'c>,
    busy_timeout: Duration,
}

/// How long a group is waited for at the most.
const MAX_PATIENCE: Duration = Duration::from_micros(200);
/// How many groups are not waited for after one that was waited for in vain.
const GROUPS_OF_DOUBT: usize = 15;

/// How the last commit went, by which the next group is gathered.
#[derive(Default)]
struct Pace {
    /// How many writes it answered.
    answered: usize,
    /// How long it took.
    took: Duration,
    /// How many groups are not to be waited for.
    doubt: usize,
}

/// Why a group was not committed.
enum Uncommitted {
    /// The transaction did not begin.
    NotBegun(Failure),
    /// One of its writes failed, and all were undone.
    Undone(Failure),
    /// Its commit failed.
    InDoubt(Failure),
}

impl Writer {
    /// Writes until the last handle is gone and what waits is written.
    ///
    /// # Errors
    /// If the statements cannot be prepared.
    pub(super) fn run(mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statements = Statements {
            connection,
            reads: Reads::prepare(connection)?,
            writes: Writes::prepare(connection)?,
            busy_timeout: self.busy_timeout,
        };
        connection.busy_timeout(Duration::ZERO)?;
        let mut looked = Instant::now();
        let mut seen = statements.data_version();
        let mut group = Vec::new();
        let mut pace = Pace::default();
        loop {
            let is_listened_to = self.hub.is_listened_to();
            self.take_waiting(&mut group);
            let expected = group.len() + pace.answered;
            if group.is_empty() {
                let message = if is_listened_to {
                    self.queue.recv_timeout(self.watch_interval)
                } else {
                    self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
                };
                match message {
                    Ok(Message::Write(write)) => group.push(write),
                    Ok(Message::Listened) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
            if !group.is_empty() {
                self.gather(&mut group, expected, &mut pace);
                let began = Instant::now();
                self.commit(&mut statements, &mut group);
                pace.took = began.elapsed();
                pace.answered = group.len();
                group.clear();
                self.reserve.restore();
            }
            if is_listened_to && looked.elapsed() >= self.watch_interval {
                looked = Instant::now();
                // It changes with the commits of other connections, not with our own.
                let version = statements.data_version();
                if version != seen {
                    seen = version;
                    self.hub.send(Hint::Missed);
                }
            }
        }
    }

    /// Takes what waits already.
    fn take_waiting(&self, group: &mut Vec<Box<dyn Write>>) {
        while group.len() < MAX_GROUP {
            match self.queue.try_recv() {
                Ok(Message::Write(write)) => group.push(write),
                Ok(Message::Listened) => {}
                Err(_) => break,
            }
        }
    }

    /// Waits a moment for those that the last commit answered. If they are about to write again, one
    /// commit for them and for who waits already costs less than two; if not, nobody waits in vain for
    /// long. Whoever is alone is never waited for.
    fn gather(&self, group: &mut Vec<Box<dyn Write>>, expected: usize, pace: &mut Pace) {
        if pace.doubt > 0 {
            pace.doubt -= 1;
            return;
        }
        let missing = expected.min(MAX_GROUP).saturating_sub(group.len());
        let (began, patience) = (Instant::now(), MAX_PATIENCE.min(pace.took / 2));
        let enough = group.len() + missing;
        while group.len() < enough && began.elapsed() < patience {
            thread::yield_now();
            self.take_waiting(group);
        }
        if enough.saturating_sub(group.len()) * 2 > missing {
            pace.doubt = GROUPS_OF_DOUBT;
        }
    }

    /// Commits all together; or each alone, if one of them fails, so that it fails no other.
    fn commit(&mut self, statements: &mut Statements<'_>, group: &mut [Box<dyn Write>]) {
        match statements.commit(group) {
            Ok(()) => group.iter_mut().for_each(|write| write.answer(Ok(()))),
            Err(Uncommitted::NotBegun(failure)) if group.len() > 1 && failure.is_busy() => {
                // Each alone would wait as long again.
                for write in group {
                    let kind = StoreErrorKind::Unavailable;
                    write.answer(Err(StoreError::new(kind, "another process keeps the database")));
                }
            }
            Err(_) if group.len() > 1 => {
                for write in group.chunks_mut(1) {
                    self.commit(statements, write);
                }
            }
            Err(failed) => {
                let Some(write) = group.first_mut() else { return };
                if failed.failure().is_out_of_space() && write.may_use_reserve() {
                    return self.commit_on_full_disk(statements, group, failed);
                }
                write.answer(Err(failed.into_error()));
            }
        }
    }

    /// Makes room for a write that ends work or purges it: what the log holds may have a place in the
    /// database already, and then there is the reserve.
    fn commit_on_full_disk(
        &mut self,
        statements: &mut Statements<'_>,
        group: &mut [Box<dyn Write>],
        mut failed: Uncommitted,
    ) {
        for gives_up in [false, true] {
            if gives_up && !self.reserve.give_up() {
                break;
            }
            statements.empty_log();
            match statements.commit(group) {
                Ok(()) => return group.iter_mut().for_each(|write| write.answer(Ok(()))),
                Err(again) => failed = again,
            }
        }
        if let Some(write) = group.first_mut() {
            write.answer(Err(failed.into_error()));
        }
    }
}

impl Uncommitted {
    fn failure(&self) -> &Failure {
        let (Self::NotBegun(failure) | Self::Undone(failure) | Self::InDoubt(failure)) = self;
        failure
    }

    fn into_error(self) -> StoreError {
        match self {
            Self::InDoubt(failure) => failure.into_doubt(),
            Self::NotBegun(failure) | Self::Undone(failure) => failure.into_error(),
        }
    }
}

impl Statements<'_> {
    fn commit(&mut self, group: &mut [Box<dyn Write>]) -> Result<(), Uncommitted> {
        self.begin().map_err(Uncommitted::NotBegun)?;
        let mut transaction =
            Transaction { reads: &mut self.reads, writes: &mut self.writes, live: HashMap::new() };
        let mut run = || {
            group.iter_mut().try_for_each(|write| write.run(&mut transaction))?;
            transaction.write_counts()
        };
        if let Err(failure) = run() {
            self.roll_back();
            return Err(Uncommitted::Undone(failure));
        }
        self.connection.execute_batch(sql::COMMIT).map_err(|error| {
            self.roll_back();
            Uncommitted::InDoubt(error.into())
        })
    }

    /// Takes the lock. SQLite's own waiting sleeps for so long between two looks that a process which
    /// writes without pause would keep all others out.
    fn begin(&self) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            match self.connection.execute_batch(sql::BEGIN).map_err(Failure::from) {
                Err(failure) if failure.is_busy() && began.elapsed() < self.busy_timeout => {
                    thread::sleep(BUSY_PAUSE);
                }
                result => return result,
            }
        }
    }

    /// Moves what the log holds into the database, so that the log's room can be used again.
    fn empty_log(&self) {
        // If it cannot be now, the write fails as it did before.
        let _ = self.connection.query_row(sql::EMPTY_LOG, [], |_| Ok(()));
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            // A full disk has rolled it back already. If it cannot be, the next transaction cannot
            // begin, and says so.
            let _ = self.connection.execute_batch(sql::ROLLBACK);
        }
    }

    /// Counts what other connections committed; 0 if that cannot be read now.
    fn data_version(&mut self) -> i64 {
        self.writes.data_version.query_row([], |row| row.get(0)).unwrap_or(0)
    }
}

/// The thread that should have answered is gone.
pub(super) fn lost() -> StoreError {
    StoreError::new(StoreErrorKind::Ambiguous, "the thread that uses the database is gone")
}
