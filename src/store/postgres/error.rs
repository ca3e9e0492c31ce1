//! What PostgreSQL's errors mean to callers of the store.

use std::error::Error;

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::operation::RecordError;
use crate::store::{StoreError, StoreErrorKind};

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Driver(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The server gave no answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// Others were faster, each time.
    #[error("too many others at once")]
    Contended,
    /// Nothing was sent: there is no connection.
    #[error("not connected")]
    NotConnected,
}

/// What is left of a statement that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing: the server said so, or it was never asked.
    Nothing,
    /// All or nothing: the answer got lost.
    InDoubt,
}

impl Failure {
    fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Driver(error) => error.code(),
            _ => None,
        }
    }

    /// Whether the connection can be used no more: it is lost, or leads to a server that takes no writes.
    pub(super) fn is_fatal(&self) -> bool {
        match self {
            Self::TimedOut | Self::NotConnected => true,
            Self::Driver(error) => {
                ends_connection(error) || error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
            }
            Self::Record(_) | Self::Contended => false,
        }
    }

    /// The same, if it is fatal, for another call that shared the statement.
    pub(super) fn again(&self) -> Self {
        match self.left() {
            Left::Nothing => Self::NotConnected,
            Left::InDoubt => Self::TimedOut,
        }
    }

    /// Whether the id or the key is in use.
    pub(super) fn is_in_use(&self) -> bool {
        self.code() == Some(&SqlState::UNIQUE_VIOLATION)
    }

    /// Whether the same statement may well succeed at once: others were in the way.
    pub(super) fn is_conflict(&self) -> bool {
        let code = self.code();
        code == Some(&SqlState::T_R_DEADLOCK_DETECTED)
            || code == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
    }

    /// Whether somebody held a row for longer than was waited.
    pub(super) fn is_held_up(&self) -> bool {
        self.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    pub(super) fn left(&self) -> Left {
        match self {
            Self::TimedOut => Left::InDoubt,
            // A server that shuts down says so, perhaps after it has committed.
            Self::Driver(error) if ends_connection(error) => Left::InDoubt,
            _ => Left::Nothing,
        }
    }

    /// The error of a call that reads, or of which nothing was written.
    pub(super) fn to_error(&self) -> StoreError {
        let unavailable = (StoreErrorKind::Unavailable, "the database cannot be used now");
        let (kind, message) = match self {
            Self::NotConnected => (StoreErrorKind::Unavailable, "the database cannot be reached"),
            Self::Contended => unavailable,
            Self::TimedOut => (StoreErrorKind::Unavailable, "the database gives no answer in time"),
            Self::Record(_) => {
                (StoreErrorKind::Corrupt, "what the database holds cannot be understood")
            }
            Self::Driver(error) => match error.code() {
                Some(code) if *code == SqlState::DISK_FULL => {
                    (StoreErrorKind::OutOfSpace, "the disk that the database is on is full")
                }
                Some(code)
                    if *code == SqlState::PROGRAM_LIMIT_EXCEEDED
                        || *code == SqlState::STRING_DATA_RIGHT_TRUNCATION =>
                {
                    (StoreErrorKind::TooLarge, "the body is larger than PostgreSQL takes")
                }
                Some(code)
                    if *code == SqlState::UNDEFINED_TABLE
                        || *code == SqlState::UNDEFINED_COLUMN
                        || *code == SqlState::DATA_CORRUPTED
                        || *code == SqlState::INDEX_CORRUPTED =>
                {
                    (StoreErrorKind::Corrupt, "the tables are not as they should be")
                }
                _ => unavailable,
            },
        };
        StoreError::new(kind, message).with_source(self.said())
    }

    /// What the server said. Its detail is left out: that holds values.
    fn said(&self) -> String {
        let Self::Driver(error) = self else { return self.to_string() };
        match (error.as_db_error(), error.source()) {
            (Some(said), _) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
            (None, Some(cause)) => format!("{error}: {cause}"),
            (None, None) => error.to_string(),
        }
    }

    /// The error of a call that was to write.
    pub(super) fn to_write_error(&self) -> StoreError {
        match self.left() {
            Left::Nothing => self.to_error(),
            Left::InDoubt => StoreError::new(
                StoreErrorKind::Ambiguous,
                "the connection was lost before the database answered",
            )
            .with_source(self.said()),
        }
    }
}

/// Whether nothing more comes over the connection: it is lost, or the server ends it.
fn ends_connection(error: &tokio_postgres::Error) -> bool {
    let shutdown =
        [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW];
    let severity = error.as_db_error().and_then(DbError::parsed_severity);
    error.code().is_none_or(|code| shutdown.contains(code))
        || matches!(severity, Some(Severity::Fatal | Severity::Panic))
}
