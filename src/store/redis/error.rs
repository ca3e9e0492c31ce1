//! What Redis's errors mean to callers of the store.

use redis::RedisError;

use super::open::RedisOpenErrorKind;
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
    /// The server keeps less than was asked for, by now.
    #[error("{0}")]
    Weaker(RedisOpenErrorKind),
    #[error("an answer of another form than the script's")]
    Unexpected,
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        Self::Record(error.to_string())
    }
}

impl Failure {
    /// What the server calls the error. Before Redis 7.0 all that fails within a script is `ERR`, and has its
    /// own code in its text.
    fn code(&self) -> Option<&str> {
        let Self::Driver(error) = self else { return None };
        let code = error.code()?;
        let text = error.detail().filter(|text| text.starts_with("Error running script"));
        let own = text.and_then(|text| text.split_once(": -")?.1.split(' ').next());
        let is_code = |word: &&str| word.bytes().all(|byte| byte.is_ascii_uppercase());
        own.filter(is_code).filter(|_| code == "ERR").or(Some(code))
    }

    /// The server does not know the script, and has done nothing.
    pub(super) fn is_unknown_script(&self) -> bool {
        self.code() == Some("NOSCRIPT")
    }

    /// Whether the connection can be used no more: it is lost, or leads to a server that takes no writes.
    pub(super) fn is_fatal(&self) -> bool {
        let is_driver = matches!(self, Self::Driver(_));
        is_driver && self.code().is_none_or(|code| ["READONLY", "MASTERDOWN"].contains(&code))
    }

    /// The error of a call that reads, or of which nothing was written.
    pub(super) fn to_error(&self) -> StoreError {
        let (kind, message) = match self {
            Self::Record(_) => {
                (StoreErrorKind::Corrupt, "what the server holds cannot be understood")
            }
            Self::Unexpected => (StoreErrorKind::Corrupt, "the server answers something else"),
            Self::TooFewReplicas => {
                (StoreErrorKind::Unavailable, "too few replicas have it in time")
            }
            Self::Weaker(_) => {
                (StoreErrorKind::Unavailable, "the server is not to be relied on now")
            }
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
        let message = match self {
            Self::Driver(_) if self.code().is_none() => {
                "the connection was lost before the server answered"
            }
            Self::TooFewReplicas => "too few replicas have it in time",
            // It says not even that nothing was written.
            Self::Unexpected => "the server answers something else",
            _ => return self.to_error(),
        };
        StoreError::new(StoreErrorKind::Ambiguous, message).with_source(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of a line that the server answers: the kind, and whether the connection goes.
    #[track_caller]
    fn check(line: &str, kind: StoreErrorKind, is_fatal: bool) {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let redis::Value::ServerError(error) = value else { panic!("{line}") };
        let failure = Failure::from(RedisError::from(error));
        assert_eq!(failure.to_write_error().kind(), kind, "{line}");
        assert_eq!(failure.is_fatal(), is_fatal, "{line}");
    }

    #[test]
    fn an_error_is_the_same_whether_a_script_passes_its_code_on_or_hides_it() {
        // Redis 6.2 names the script and the line, the latter once or twice.
        let hidden = "ERR Error running script (call to f_2bab3b661081db58bd2341920e0ba7cf5dc77b25): \
            @user_script:39: ";
        let hidden_twice = format!("{hidden}@user_script: 39: -");
        let (oom, misconf) = (
            "OOM command not allowed when used memory > 'maxmemory'.",
            "MISCONF \
            Errors writing to the AOF file: No space left on device",
        );
        let readonly = "READONLY You can't write against a read only replica.";
        for start in ["", &format!("{hidden}-"), &hidden_twice] {
            check(&format!("{start}{oom}"), StoreErrorKind::OutOfSpace, false);
            check(&format!("{start}{misconf}"), StoreErrorKind::OutOfSpace, false);
            check(&format!("{start}{readonly}"), StoreErrorKind::Unavailable, true);
        }
        for line in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "ERR value is not an integer or out of range script: 2bab3b66, on @user_script:39.",
            "ERR no such thing: -OOM",
            &format!("{hidden}WRONGTYPE Operation against a key holding the wrong kind of value"),
            &format!("{hidden}bad argument #1 to 'unpack': -nil expected"),
        ] {
            check(line, StoreErrorKind::Corrupt, false);
        }
        check("NOREPLICAS Not enough good replicas to write.", StoreErrorKind::Unavailable, false);
    }
}
