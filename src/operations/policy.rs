//! How a kind of job is run. Pure.

use std::time::Duration;

use http::StatusCode;

use crate::operation::NewOperation;
use crate::problem::Problem;

/// How jobs of one kind are run: how many at once, how often, for how long.
///
/// ```
/// use std::time::Duration;
/// use respond_async::operations::JobPolicy;
///
/// // Two at a time, tried three times within an hour.
/// let convert = JobPolicy::new()
///     .with_concurrency(2)
///     .with_attempt_limit(3)
///     .with_deadline(Duration::from_secs(3_600));
/// // What must not happen twice is not tried twice.
/// let charge = JobPolicy::new().never_twice();
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct JobPolicy {
    pub(super) concurrency: Option<usize>,
    pub(super) attempt_limit: u32,
    pub(super) backoff: Backoff,
    pub(super) retry_if: fn(&Problem) -> bool,
    pub(super) retention: Option<Duration>,
    pub(super) deadline: Option<Duration>,
}

/// How long to wait before another attempt: twice as long each time, up to a cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
}

impl JobPolicy {
    /// The longest pause before the second attempt if nothing else is said.
    pub const DEFAULT_FIRST_BACKOFF: Duration = Duration::from_secs(1);
    /// The longest pause before any attempt if nothing else is said.
    pub const DEFAULT_LONGEST_BACKOFF: Duration = Duration::from_secs(300);

    /// Up to [five attempts](NewOperation::DEFAULT_ATTEMPT_LIMIT), as many at once as the builder's
    /// [`concurrency`](super::OperationsBuilder::concurrency) says, retried if
    /// [temporary](Self::is_temporary).
    pub fn new() -> Self {
        Self {
            concurrency: None,
            attempt_limit: NewOperation::DEFAULT_ATTEMPT_LIMIT,
            backoff: Backoff {
                first: Self::DEFAULT_FIRST_BACKOFF,
                longest: Self::DEFAULT_LONGEST_BACKOFF,
            },
            retry_if: Self::is_temporary,
            retention: None,
            deadline: None,
        }
    }

    /// How many stored jobs of this kind run here at once. With 0 this process stores such jobs
    /// and leaves them to others; requests without preference run here all the same.
    pub fn with_concurrency(mut self, jobs: usize) -> Self {
        self.concurrency = Some(jobs.min(tokio::sync::Semaphore::MAX_PERMITS));
        self
    }

    /// How often a job is begun at the most, at least once. An attempt counts from the moment at
    /// which it is claimed, so one that takes its process down with it counts too.
    pub fn with_attempt_limit(mut self, attempts: u32) -> Self {
        self.attempt_limit = attempts.max(1);
        self
    }

    /// The job is begun once. If its process dies or is told to stop, the operation fails
    /// ([`INTERRUPTED`](crate::problem::types::INTERRUPTED)) and is not begun again.
    pub fn never_twice(self) -> Self {
        self.with_attempt_limit(1)
    }

    /// How long to wait before another attempt: a random time of up to `first` before the second,
    /// twice that before the third, and so on, but never more than `longest`. A problem that says
    /// [when to try again](Problem::with_retry_after) is not tried before.
    pub fn with_backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = Backoff { first, longest };
        self
    }

    /// Which problems are worth another attempt (default: [`is_temporary`](Self::is_temporary)). A
    /// panic is a problem of the type [`INTERNAL`](crate::problem::types::INTERNAL).
    pub fn with_retry_if(mut self, retry_if: fn(&Problem) -> bool) -> Self {
        self.retry_if = retry_if;
        self
    }

    /// How long a finished operation of this kind stays readable, in place of the builder's
    /// [`retention`](super::OperationsBuilder::retention).
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// How long after its acceptance, or its [delay](super::KickOff::delay), a job must have ended, in place of the builder's
    /// [`deadline`](super::OperationsBuilder::deadline); else it fails.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Whether a problem says that the same may succeed later: 408, 425, 429, 502, 503 or 504.
    pub fn is_temporary(problem: &Problem) -> bool {
        matches!(
            problem.status(),
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_EARLY
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        )
    }
}

impl Default for JobPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl Backoff {
    /// How long to wait after that many attempts. `random` is any number: the same gives the same.
    pub(super) fn after(self, attempts: u32, random: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(31);
        // Longer than a century is for ever, and can be reckoned with.
        let ever = Duration::from_secs(u64::from(u32::MAX));
        let most = self.first.saturating_mul(1 << doublings).min(self.longest).min(ever);
        most.mul_f64(f64::from(random) / f64::from(u32::MAX)).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::types;

    #[test]
    fn pauses_double_up_to_the_cap() {
        let seconds = Duration::from_secs;
        let backoff = Backoff { first: seconds(1), longest: seconds(300) };
        for (attempts, most) in [(0, 1), (1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (99, 300)] {
            assert_eq!(backoff.after(attempts, u32::MAX), seconds(most), "{attempts}");
            assert_eq!(backoff.after(attempts, 0), Duration::ZERO);
            assert!(backoff.after(attempts, u32::MAX / 2) <= seconds(most) / 2);
        }
        let endless = Backoff { first: Duration::MAX, longest: Duration::MAX };
        assert_eq!(endless.after(u32::MAX, u32::MAX), seconds(u64::from(u32::MAX)));
    }

    #[test]
    fn temporary_is_what_may_pass() {
        for (problem, temporary) in [
            (Problem::new(types::OVERLOADED), true),
            (Problem::new(types::DEADLINE_PASSED), true),
            (Problem::new(types::INTERNAL), false),
            (Problem::from_status(StatusCode::UNPROCESSABLE_ENTITY), false),
        ] {
            assert_eq!(JobPolicy::is_temporary(&problem), temporary, "{problem}");
        }
    }
}
