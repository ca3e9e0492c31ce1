//! What SQLite's errors mean to callers of the store.

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_WRITE;

use crate::operation::RecordError;
use crate::store::{StoreError, StoreErrorKind};

/// Why a read or a write failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Driver(#[from] rusqlite::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
    /// What the store was given to use, such as its clock, panicked.
    #[error("the call panicked")]
    Panicked,
}

impl Failure {
    /// Whether the disk is full, or takes no more for another reason: of a quota that is used up SQLite says only
    /// that it could not write.
    pub(super) fn is_out_of_space(&self) -> bool {
        let Self::Driver(error) = self else { return false };
        error.sqlite_error_code() == Some(ErrorCode::DiskFull)
            || error.sqlite_error().is_some_and(|it| it.extended_code == SQLITE_IOERR_WRITE)
    }

    /// Whether another process has the lock.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }

    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Driver(error) => error.sqlite_error_code(),
            Self::Record(_) | Self::Panicked => None,
        }
    }

    /// The error of a call of which nothing was written.
    pub(super) fn into_error(self) -> StoreError {
        let (kind, message) = match self.code() {
            _ if matches!(self, Self::Panicked) => {
                (StoreErrorKind::Unavailable, "the call panicked, and nothing of it was kept")
            }
            _ if self.is_out_of_space() => {
                (StoreErrorKind::OutOfSpace, "the disk that the database is on takes no more")
            }
            Some(ErrorCode::TooBig) => {
                (StoreErrorKind::TooLarge, "the body is larger than SQLite takes")
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                (StoreErrorKind::Corrupt, "the database is damaged")
            }
            Some(_) => (StoreErrorKind::Unavailable, "the database cannot be used now"),
            None => (StoreErrorKind::Corrupt, "what the database holds cannot be understood"),
        };
        StoreError::new(kind, message).with_source(self)
    }

    /// Whether a commit that failed so has left nothing that could come back. What makes a transaction one is the
    /// last that is written of it to the log, with a sum over all before: if a write of it failed, that is not there
    /// whole, whoever reads the log after a crash. (Of a wait for the disk that failed nobody knows.)
    pub(super) fn leaves_nothing(&self) -> bool {
        self.is_out_of_space() || self.is_busy()
    }

    /// The error of a call whose transaction may have been committed or not.
    pub(super) fn to_doubt(&self) -> StoreError {
        StoreError::new(StoreErrorKind::Ambiguous, "the commit of a transaction failed")
            .with_source(self.to_string())
    }
}
