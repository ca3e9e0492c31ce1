//! What Redis's errors mean to callers of the store.

use redis::RedisError;

use crate::operation::RecordError;
use crate::store::{StoreError, StoreErrorKind};

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Driver(#[from] RedisError),
    #[error("{0}")]
    Record(String),
    /// Fewer replicas than asked for have it.
    #[error("too few replicas have it in time")]
    TooFewReplicas,
    #[error("an answer of another form than the script's")]
    Unexpected,
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        Self::Record(error.to_string())
    }
}

impl Failure {
    fn code(&self) -> Option<&str> {
        match self {
            Self::Driver(error) => error.code(),
            _ => None,
        }
    }

    /// The server does not know the script, and has done nothing.
    pub(super) fn is_unknown_script(&self) -> bool {
        self.code() == Some("NOSCRIPT")
    }

    /// Whether the connection can be used no more: it is lost, or leads to a server that takes no writes.
    pub(super) fn is_fatal(&self) -> bool {
        match self {
            Self::Driver(error) => {
                error.code().is_none_or(|code| ["READONLY", "MASTERDOWN"].contains(&code))
            }
            _ => false,
        }
    }

    /// The error of a call that reads, or of which nothing was written.
    pub(super) fn to_error(&self) -> StoreError {
        let (kind, message) = match self {
            Self::Record(_) => {
                (StoreErrorKind::Corrupt, "what the server holds cannot be understood")
            }
            Self::Unexpected => (StoreErrorKind::Corrupt, "the server answers something else"),
            Self::TooFewReplicas => (StoreErrorKind::Ambiguous, "too few replicas have it in time"),
            Self::Driver(_) => match self.code() {
                Some("OOM") => (StoreErrorKind::OutOfSpace, "the server's memory is used up"),
                Some("MISCONF") => {
                    (StoreErrorKind::OutOfSpace, "the server cannot write to its disk")
                }
                Some("ERR" | "WRONGTYPE") => {
                    (StoreErrorKind::Corrupt, "the keys are not as they should be")
                }
                Some(_) => (StoreErrorKind::Unavailable, "the server takes no such call now"),
                None => (StoreErrorKind::Unavailable, "the server cannot be reached"),
            },
        };
        StoreError::new(kind, message).with_source(self.to_string())
    }

    /// The error of a call that was to write.
    pub(super) fn to_write_error(&self) -> StoreError {
        match self {
            Self::Driver(error) if error.code().is_none() => StoreError::new(
                StoreErrorKind::Ambiguous,
                "the connection was lost before the server answered",
            )
            .with_source(self.to_string()),
            _ => self.to_error(),
        }
    }
}
