//! Opens connections, makes sure that they keep what was promised, and brings the tables up to date.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::sql;
use crate::store::Durability;

/// Why a database could not be opened. What the driver said is its source.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {path}: {kind}", path = path.display())]
pub struct SqliteOpenError {
    path: PathBuf,
    kind: SqliteOpenErrorKind,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What is in the way of opening a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteOpenErrorKind {
    /// The file cannot be opened or made: its folder is missing, or something may not be done there.
    #[error("the file cannot be opened or made")]
    Inaccessible,
    /// The file may not be written.
    #[error("the file may not be written")]
    ReadOnly,
    /// The file is no SQLite database, or a damaged one.
    #[error("the file is no SQLite database, or a damaged one")]
    NotADatabase,
    /// The database is another program's.
    #[error("the database is another program's")]
    Foreign,
    /// A newer version of the crate has changed the tables.
    #[error("the database was written by a newer version")]
    Newer,
    /// SQLite does not keep what was asked of it: the file system has no shared memory, or the library
    /// was built to ignore the setting.
    #[error("it cannot be kept as durably as was asked")]
    Weaker,
    /// Another process kept it locked.
    #[error("another process keeps it locked")]
    Busy,
    /// There is no room.
    #[error("there is no room")]
    OutOfSpace,
    /// Anything else; the source tells.
    #[error("the database failed")]
    Failed,
}

impl SqliteOpenError {
    /// What is in the way.
    pub fn kind(&self) -> SqliteOpenErrorKind {
        self.kind
    }

    pub(super) fn new(path: &Path, kind: SqliteOpenErrorKind) -> Self {
        Self { path: path.to_owned(), kind, source: None }
    }

    pub(super) fn from_driver(path: &Path, source: rusqlite::Error) -> Self {
        let kind = match source.sqlite_error_code() {
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                SqliteOpenErrorKind::Inaccessible
            }
            Some(ErrorCode::ReadOnly) => SqliteOpenErrorKind::ReadOnly,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                SqliteOpenErrorKind::NotADatabase
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SqliteOpenErrorKind::Busy,
            Some(ErrorCode::DiskFull) => SqliteOpenErrorKind::OutOfSpace,
            _ => SqliteOpenErrorKind::Failed,
        };
        Self { path: path.to_owned(), kind, source: Some(Box::new(source)) }
    }

    pub(super) fn not_spawned(path: &Path, source: std::io::Error) -> Self {
        let kind = SqliteOpenErrorKind::Failed;
        Self { path: path.to_owned(), kind, source: Some(Box::new(source)) }
    }
}

/// How long to wait before a lock is tried again: short, so that a process that writes without pause
/// keeps no other out.
pub(super) const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// How much of the database a reader keeps in memory, in KiB.
const READER_CACHE_KIB: i64 = 512;

/// What every connection to one database has in common.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) path: PathBuf,
    pub(super) durability: Durability,
    pub(super) busy_timeout: Duration,
    pub(super) cache_bytes: usize,
}

impl Settings {
    /// Opens the connection that writes; makes the file and its tables if they are not there.
    pub(super) fn open_writer(&self) -> Result<Connection, SqliteOpenError> {
        let connection =
            self.open(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        self.migrate(&connection)?;
        // The method that tells is not the same in all versions of the driver.
        connection.busy_timeout(Duration::ZERO).map_err(|error| self.failed(error))?;
        match connection.execute_batch(sql::CHANGE_NOTHING) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
                Err(self.failed(error))
            }
            // It may be written, also if another process just does so.
            _ => Ok(connection),
        }
    }

    /// Opens a connection that only reads, once the tables are there.
    pub(super) fn open_reader(&self) -> Result<Connection, SqliteOpenError> {
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "query_only", true).map_err(|error| self.failed(error))?;
        // What a reader keeps is thrown away whenever anybody has written, page by page: more than a
        // little costs more than it saves.
        connection
            .pragma_update(None, "cache_size", -READER_CACHE_KIB)
            .map_err(|error| self.failed(error))?;
        Ok(connection)
    }

    /// Opens a connection. Of several processes that open a new file at once, all but one find it busy
    /// for a moment, and SQLite does not wait in every such case.
    fn open(&self, flags: OpenFlags) -> Result<Connection, SqliteOpenError> {
        let began = Instant::now();
        loop {
            match self.try_open(flags) {
                Err(error)
                    if error.kind == SqliteOpenErrorKind::Busy
                        && began.elapsed() < self.busy_timeout =>
                {
                    thread::sleep(BUSY_PAUSE);
                }
                opened => return opened,
            }
        }
    }

    fn try_open(&self, flags: OpenFlags) -> Result<Connection, SqliteOpenError> {
        // No connection is used by two threads at once, and no file name is taken for a URI.
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(self.busy_timeout)?;
            Ok(connection)
        };
        let connection = open().map_err(|error| self.failed(error))?;
        self.set_up(&connection)?;
        Ok(connection)
    }

    fn set_up(&self, connection: &Connection) -> Result<(), SqliteOpenError> {
        let failed = |error| self.failed(error);
        self.check_owner(connection)?;
        let mode: String = connection
            .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
            .map_err(failed)?;
        let level = if self.durability == Durability::PowerLoss { 2 } else { 1 };
        connection.pragma_update(None, "synchronous", level).map_err(failed)?;
        let kept: i64 =
            connection.pragma_query_value(None, "synchronous", |row| row.get(0)).map_err(failed)?;
        if mode != "wal" || kept < level {
            return Err(SqliteOpenError::new(&self.path, SqliteOpenErrorKind::Weaker));
        }
        if self.durability == Durability::PowerLoss {
            // Apple's disks keep what `fsync` gave them in a cache of their own. Elsewhere it is no matter.
            connection.pragma_update(None, "fullfsync", true).map_err(failed)?;
            connection.pragma_update(None, "checkpoint_fullfsync", true).map_err(failed)?;
        }
        let kibibytes = i64::try_from(self.cache_bytes / 1_024).unwrap_or(i64::MAX);
        connection.pragma_update(None, "cache_size", -kibibytes).map_err(failed)?;
        // What a burst of writes made of the log is given back with the next checkpoint.
        connection.pragma_update(None, "journal_size_limit", 16 << 20).map_err(failed)?;
        Ok(())
    }

    /// Looks whose database it is, before anything of it is changed.
    fn check_owner(&self, connection: &Connection) -> Result<(), SqliteOpenError> {
        // By one statement, so that it is seen before or after another process makes the tables.
        let read = connection.query_row(sql::WHOSE, [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        let (application_id, version, tables) = read.map_err(|error| self.failed(error))?;
        let refused = |kind| Err(SqliteOpenError::new(&self.path, kind));
        match u32::try_from(version) {
            Ok(version) if application_id == sql::APPLICATION_ID && version <= sql::VERSION => {
                Ok(())
            }
            _ if application_id == sql::APPLICATION_ID => refused(SqliteOpenErrorKind::Newer),
            Ok(0) if application_id == 0 && tables == 0 => Ok(()),
            _ => refused(SqliteOpenErrorKind::Foreign),
        }
    }

    /// Takes the steps that are missing, in one transaction: of several processes that open the file at
    /// once, one takes them, and the others find nothing to do.
    fn migrate(&self, connection: &Connection) -> Result<(), SqliteOpenError> {
        let version = || -> rusqlite::Result<u32> {
            connection.pragma_query_value(None, "user_version", |row| row.get(0))
        };
        let migrate = || {
            if version()? == sql::VERSION {
                return Ok(true);
            }
            connection.execute_batch(sql::BEGIN)?;
            // Another process may have taken them meanwhile, and more.
            let taken = version()?;
            if taken > sql::VERSION {
                connection.execute_batch(sql::ROLLBACK)?;
                return Ok(false);
            }
            for step in sql::MIGRATIONS.iter().skip(taken as usize) {
                connection.execute_batch(step)?;
            }
            connection.pragma_update(None, "application_id", sql::APPLICATION_ID)?;
            connection.pragma_update(None, "user_version", sql::VERSION)?;
            connection.execute_batch(sql::COMMIT)?;
            Ok(true)
        };
        if migrate().map_err(|error| self.failed(error))? {
            Ok(())
        } else {
            Err(SqliteOpenError::new(&self.path, SqliteOpenErrorKind::Newer))
        }
    }

    fn failed(&self, error: rusqlite::Error) -> SqliteOpenError {
        SqliteOpenError::from_driver(&self.path, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &tempfile::TempDir, durability: Durability) -> Settings {
        Settings {
            path: folder.path().join("some.db"),
            durability,
            busy_timeout: Duration::from_secs(1),
            cache_bytes: 1 << 20,
        }
    }

    /// It opened the file just before that, so that only the transaction can see it.
    #[test]
    fn what_a_newer_version_has_made_of_the_tables_stays() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&folder, Durability::PowerLoss);
        let connection = settings.open_writer().unwrap();
        let newer = sql::VERSION + 1;
        connection.pragma_update(None, "user_version", newer).unwrap();
        let error = settings.migrate(&connection).unwrap_err();
        assert_eq!(error.kind(), SqliteOpenErrorKind::Newer);
        let version: u32 =
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, newer);
        assert!(connection.is_autocommit());
    }

    #[test]
    fn apples_disks_are_told_to_write_through_where_power_may_fail() {
        for (durability, expected) in [(Durability::PowerLoss, 1), (Durability::ProcessCrash, 0)] {
            let folder = tempfile::tempdir().unwrap();
            let connection = settings(&folder, durability).open_writer().unwrap();
            for pragma in ["fullfsync", "checkpoint_fullfsync"] {
                let is_on: i64 =
                    connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap();
                assert_eq!(is_on, expected, "{pragma} for {durability}");
            }
        }
    }

    /// Many that pass their deadline together are not read one by one before each claim.
    #[test]
    fn what_is_overdue_is_not_read_to_be_claimed() {
        let folder = tempfile::tempdir().unwrap();
        let connection = settings(&folder, Durability::ProcessCrash).open_writer().unwrap();
        for (id, settle_at) in [(1_u8, Some(5)), (2, Some(50)), (3, None)] {
            connection
                .execute(
                    "INSERT INTO operations (id, kind, status, version, write_id, claim_at_ms,
                        settle_at_ms, record) VALUES (?1, 'k', 'pending', 1, 0, 1, ?2, x'00')",
                    rusqlite::params![[id; 16], settle_at],
                )
                .unwrap();
        }
        let mut reads = sql::Reads::prepare(&connection).unwrap();
        let rows = reads.to_claim.query_map(rusqlite::params![10, "k"], |_| Ok(())).unwrap();
        assert_eq!(rows.count(), 2);
    }
}
