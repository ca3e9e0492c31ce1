//! The one thread that writes. It takes all that waits and commits it at once, so that many writes
//! share one wait for the disk.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::call::{Message, Purpose, Write};
use super::error::Failure;
use super::open::BUSY_PAUSE;
use super::reserve::Reserve;
use super::sql::{self, Reads, Writes};
use super::write::Transaction;
use crate::store::hints::{Hint, Hub};
use crate::store::{StoreError, StoreErrorKind};

/// How many writes share a transaction at the most.
const MAX_GROUP: usize = 256;

pub(super) struct Writer {
    pub(super) queue: Receiver<Message>,
    pub(super) hub: Arc<Hub>,
    pub(super) reserve: Reserve,
    /// How long a write waits for another process's transaction, from when it was asked for.
    pub(super) busy_timeout: Duration,
    /// How often to look for what other processes wrote.
    pub(super) watch_interval: Duration,
    /// What [`DATA_VERSION`](sql::DATA_VERSION) showed last.
    pub(super) seen: i64,
    /// Whether there will be no more writes.
    pub(super) is_closed: Arc<AtomicBool>,
    pub(super) pace: Pace,
}

/// The connection's statements.
struct Statements<'c> {
    connection: &'c Connection,
    reads: Reads<'c>,
    writes: Writes<'c>,
}

/// How long a write may at least wait for its turn before it is not made any more.
const MIN_PATIENCE: Duration = super::SqliteStore::DEFAULT_BUSY_TIMEOUT;
/// How long a group is waited for at the most.
const MAX_PATIENCE: Duration = Duration::from_micros(200);
/// How many groups are not waited for after one that was waited for in vain.
const GROUPS_OF_DOUBT: usize = 15;

/// How the last commit went, by which the next group is gathered.
#[derive(Default)]
pub(super) struct Pace {
    /// How many writes it answered.
    answered: usize,
    /// How long it took.
    took: Duration,
    /// How many groups are not to be waited for.
    doubt: usize,
    /// How many writes the group that is gathered has if all come again.
    expected: usize,
    /// Once all who came are written: until when the others are waited for, and how many they were.
    wait: Option<(Instant, usize)>,
}

/// Why a group was not committed.
enum Uncommitted {
    /// The transaction did not begin.
    NotBegun(Failure),
    /// One of its writes or its commit failed, and all was undone.
    Undone(Failure),
    /// It would take room that is not for new operations, and all was undone.
    Kept,
    /// Its commit failed, and what it wrote may be in the log whole: after a crash it would come back.
    InDoubt(Failure),
}

impl Writer {
    /// Writes until the store is closed or the last handle is gone, and what waits is written.
    ///
    /// # Errors
    /// If the statements cannot be prepared.
    pub(super) fn run(mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statements = Statements {
            connection,
            reads: Reads::prepare(connection)?,
            writes: Writes::prepare(connection)?,
        };
        connection.busy_timeout(Duration::ZERO)?;
        let mut looked = Instant::now();
        let mut group = Vec::new();
        loop {
            self.take_waiting(&mut group);
            // Only then: whoever said so by a message that was just taken is heard of here.
            let is_listened_to = self.hub.is_listened_to();
            self.pace.expected = MAX_GROUP.min(group.len() + self.pace.answered);
            if group.is_empty() {
                if self.is_closed.load(Ordering::SeqCst) {
                    return Ok(());
                }
                let message = if is_listened_to {
                    self.queue.recv_timeout(self.watch_interval)
                } else {
                    self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
                };
                match message {
                    Ok(Message::Write(write)) => group.push(write),
                    Ok(Message::Look) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
            if !group.is_empty() {
                let began = Instant::now();
                self.pace.wait = None;
                self.commit(&mut statements, &mut group, true);
                self.pace.took = began.elapsed();
                self.pace.answered = group.len();
                group.clear();
                self.reserve.restore();
            }
            if is_listened_to && looked.elapsed() >= self.watch_interval {
                looked = Instant::now();
                // It changes with the commits of other connections, not with our own.
                let version = statements.data_version(self.seen);
                if version != self.seen {
                    self.seen = version;
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
                Ok(Message::Look) => {}
                Err(_) => break,
            }
        }
    }

    /// Takes those that came while the others were written. If there are none, it waits a moment for those that the
    /// last commit answered: if they are about to write again, one commit for them and for who is in the group already
    /// costs less than two; if not, nobody waits in vain for long. Whoever is alone is never waited for.
    fn gather(&mut self, group: &mut Vec<Box<dyn Write>>) {
        let had = group.len();
        self.take_waiting(group);
        if group.len() > had {
            return;
        }
        if self.pace.doubt > 0 {
            self.pace.doubt -= 1;
            return;
        }
        let missing = self.pace.expected.saturating_sub(had);
        if missing == 0 {
            return;
        }
        let patience = MAX_PATIENCE.min(self.pace.took / 2);
        let (until, of) =
            *self.pace.wait.get_or_insert_with(|| (Instant::now() + patience, missing));
        while group.len() == had && Instant::now() < until {
            thread::yield_now();
            self.take_waiting(group);
        }
        if group.len() == had && missing * 2 > of {
            self.pace.doubt = GROUPS_OF_DOUBT;
        }
    }

    /// Commits all together, and if it `grows`, with those that come before the commit; or each alone, if one of them
    /// fails, so that it fails no other.
    fn commit(
        &mut self,
        statements: &mut Statements<'_>,
        group: &mut Vec<Box<dyn Write>>,
        grows: bool,
    ) {
        // Whoever asked for these has gone away by now, and may have asked again.
        answer_late(group, self.busy_timeout.max(MIN_PATIENCE));
        while let Some(first) = group.first() {
            let until = first.asked() + self.busy_timeout;
            let kept_bytes = self.reserve.lacking_bytes();
            let more = |group: &mut Vec<_>| {
                if grows {
                    self.gather(group);
                }
            };
            match statements.commit(group, until, kept_bytes, more) {
                Ok(()) => return group.iter_mut().for_each(|write| write.answer(Ok(()))),
                Err(Uncommitted::NotBegun(failure)) if failure.is_busy() => {
                    // Those who came later may wait on.
                    answer_late(group, self.busy_timeout);
                }
                // Run again, one could be told that nothing was written.
                Err(Uncommitted::InDoubt(failure)) => {
                    for write in group {
                        write.answer(Err(failure.to_doubt()));
                    }
                    return;
                }
                Err(_) if group.len() > 1 => {
                    for write in group.drain(..) {
                        self.commit(statements, &mut vec![write], false);
                    }
                }
                Err(failed) => return self.commit_on_full_disk(statements, group, failed),
            }
        }
    }

    /// Makes room for a write that may have it: what the log holds may have a place in the database
    /// already, and then there is the reserve.
    fn commit_on_full_disk(
        &mut self,
        statements: &mut Statements<'_>,
        group: &mut Vec<Box<dyn Write>>,
        mut failed: Uncommitted,
    ) {
        let Some(write) = group.first() else { return };
        let rooms: &[bool] = match write.purpose() {
            _ if !failed.is_out_of_space() => &[],
            Purpose::Accept => &[],
            Purpose::GoOn => &[false],
            Purpose::End => &[false, true],
        };
        let until = Instant::now() + self.busy_timeout;
        for gives_up in rooms {
            if *gives_up && !self.reserve.give_up() {
                break;
            }
            statements.empty_log();
            match statements.commit(group, until, 0, |_| ()) {
                Ok(()) => return group.iter_mut().for_each(|write| write.answer(Ok(()))),
                Err(again) => failed = again,
            }
            if matches!(failed, Uncommitted::InDoubt(_)) {
                break;
            }
        }
        if let Some(write) = group.first_mut() {
            write.answer(Err(failed.into_error()));
        }
    }
}

/// Tells those who have waited for so long that they waited in vain, and leaves the others.
fn answer_late(group: &mut Vec<Box<dyn Write>>, patience: Duration) {
    // They come in the order in which they were asked for.
    let late = group.partition_point(|write| write.asked().elapsed() >= patience);
    for mut write in group.drain(..late) {
        let message = "another process keeps the database, or too many calls wait for it";
        write.answer(Err(StoreError::new(StoreErrorKind::Unavailable, message)));
    }
}

impl Uncommitted {
    fn is_out_of_space(&self) -> bool {
        match self {
            Self::NotBegun(failure) | Self::Undone(failure) => failure.is_out_of_space(),
            Self::Kept => true,
            Self::InDoubt(_) => false,
        }
    }

    fn into_error(self) -> StoreError {
        match self {
            Self::InDoubt(failure) => failure.to_doubt(),
            Self::NotBegun(failure) | Self::Undone(failure) => failure.into_error(),
            Self::Kept => StoreError::new(
                StoreErrorKind::OutOfSpace,
                "what room is left is kept for the end of what was accepted",
            ),
        }
    }
}

impl Statements<'_> {
    /// Waits for the lock until then at the most. If the group takes in new operations, it has to leave
    /// `kept_bytes` free inside the database. Whoever `more` adds to it while it is written is written too.
    fn commit(
        &mut self,
        group: &mut Vec<Box<dyn Write>>,
        until: Instant,
        kept_bytes: usize,
        mut more: impl FnMut(&mut Vec<Box<dyn Write>>),
    ) -> Result<(), Uncommitted> {
        self.begin(until).map_err(Uncommitted::NotBegun)?;
        let mut transaction =
            Transaction { reads: &mut self.reads, writes: &mut self.writes, live: HashMap::new() };
        let mut run = || {
            let mut written = 0;
            while written < group.len() {
                group[written..].iter_mut().try_for_each(|write| write.run(&mut transaction))?;
                written = group.len();
                more(group);
            }
            transaction.write_counts()?;
            let accepts = group.iter().any(|write| write.purpose() == Purpose::Accept);
            Ok(accepts && kept_bytes > 0 && transaction.free_bytes()? < kept_bytes)
        };
        // A clock is somebody else's code; what it panics in is undone like what fails.
        match catch_unwind(AssertUnwindSafe(&mut run)).unwrap_or(Err(Failure::Panicked)) {
            Ok(false) => {}
            Ok(true) => {
                self.roll_back();
                return Err(Uncommitted::Kept);
            }
            Err(failure) => {
                self.roll_back();
                return Err(Uncommitted::Undone(failure));
            }
        }
        self.connection.execute_batch(sql::COMMIT).map_err(|error| {
            self.roll_back();
            let failure = Failure::from(error);
            if failure.leaves_nothing() {
                Uncommitted::Undone(failure)
            } else {
                Uncommitted::InDoubt(failure)
            }
        })
    }

    /// Takes the lock. SQLite's own waiting sleeps for so long between two looks that a process which
    /// writes without pause would keep all others out.
    fn begin(&self, until: Instant) -> Result<(), Failure> {
        // One that could not be rolled back would be in the way for ever.
        self.roll_back();
        loop {
            match self.connection.execute_batch(sql::BEGIN).map_err(Failure::from) {
                Err(failure) if failure.is_busy() && Instant::now() < until => {
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
            // A full disk has rolled it back already. If it cannot be now, it is tried again before the
            // next transaction begins.
            let _ = self.connection.execute_batch(sql::ROLLBACK);
        }
    }

    /// Counts what other connections committed; `seen` if that cannot be read now.
    fn data_version(&mut self, seen: i64) -> i64 {
        self.writes.data_version.query_row([], |row| row.get(0)).unwrap_or(seen)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::{SyncSender, sync_channel};

    use tokio::sync::oneshot;

    use super::*;
    use crate::store::Durability;
    use crate::store::sqlite::call::Call;
    use crate::store::sqlite::open::Settings;

    fn database(folder: &tempfile::TempDir) -> (Settings, Connection) {
        let settings = Settings {
            path: folder.path().join("some.db"),
            durability: Durability::PowerLoss,
            busy_timeout: Duration::from_secs(1),
            cache_bytes: 1 << 20,
        };
        let connection = settings.open_writer().unwrap();
        (settings, connection)
    }

    fn writer(settings: &Settings, queue: Receiver<Message>) -> Writer {
        Writer {
            queue,
            hub: Arc::default(),
            reserve: Reserve::beside(&settings.path, 0),
            busy_timeout: settings.busy_timeout,
            watch_interval: Duration::from_secs(1),
            seen: 0,
            is_closed: Arc::default(),
            pace: Pace::default(),
        }
    }

    type Answered = oneshot::Receiver<Result<&'static str, StoreError>>;

    /// A call that was asked for then, and where its answer comes.
    fn call(
        asked: Instant,
        run: impl FnMut(&mut Transaction<'_, '_>) -> Result<&'static str, Failure> + Send + 'static,
    ) -> (Message, Answered) {
        let (answer, answered) = oneshot::channel();
        let purpose = Purpose::Accept;
        let call = Call { run, value: None, answer: Some(answer), purpose, asked };
        (Message::Write(Box::new(call)), answered)
    }

    #[test]
    fn a_call_that_waited_too_long_for_its_turn_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let (settings, connection) = database(&folder);
        let (calls, queue) = sync_channel(10);
        let now = Instant::now();
        let [late, in_time] =
            [now.checked_sub(Duration::from_secs(2)).unwrap(), now].map(|asked| {
                let (call, answered) = call(asked, |_| Ok("made"));
                calls.send(call).unwrap();
                answered
            });
        drop(calls);
        writer(&settings, queue).run(&connection).unwrap();
        let error = late.blocking_recv().unwrap().unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert_eq!(in_time.blocking_recv().unwrap().unwrap(), "made");
    }

    #[test]
    fn what_a_failed_commit_has_left_is_in_doubt_for_all_who_shared_it_and_is_not_run_again() {
        let folder = tempfile::tempdir().unwrap();
        let (settings, connection) = database(&folder);
        // It is counted, which this database takes until the commit.
        let fails_at_commit = "PRAGMA foreign_keys = on;
            CREATE TABLE parents (row INTEGER PRIMARY KEY);
            CREATE TABLE children (row INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
            CREATE TRIGGER counted AFTER INSERT ON live WHEN new.owner = 'orphan'
                BEGIN INSERT INTO children VALUES (1); END;";
        connection.execute_batch(fails_at_commit).unwrap();
        let (calls, queue) = sync_channel(10);
        let runs = Arc::new(AtomicUsize::new(0));
        // Counts for that owner, and sends what comes while it is run.
        let counted = |owner: &'static str, mut next: Option<(SyncSender<Message>, Message)>| {
            let runs = Arc::clone(&runs);
            call(Instant::now(), move |transaction| {
                runs.fetch_add(1, Ordering::SeqCst);
                transaction.live.insert(owner.to_owned(), 1);
                if let Some((calls, next)) = next.take() {
                    calls.send(next).unwrap();
                }
                Ok("made")
            })
        };
        let (late, late_answered) = counted("orphan", None);
        let (first, first_answered) = counted("one", Some((calls.clone(), late)));
        let (second, second_answered) = counted("two", None);
        for call in [first, second] {
            calls.send(call).unwrap();
        }
        drop(calls);
        writer(&settings, queue).run(&connection).unwrap();
        for answered in [first_answered, second_answered, late_answered] {
            let error = answered.blocking_recv().unwrap().unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Ambiguous);
        }
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_transaction_that_was_left_open_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let (_, connection) = database(&folder);
        connection.execute_batch(sql::BEGIN).unwrap();
        let statements = Statements {
            connection: &connection,
            reads: Reads::prepare(&connection).unwrap(),
            writes: Writes::prepare(&connection).unwrap(),
        };
        statements.begin(Instant::now()).unwrap();
    }
}
