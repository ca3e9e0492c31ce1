//! How a kind of job is run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use http::StatusCode;

use super::telemetry;
use crate::operation::{Kind, NewOperation};
use crate::problem::{Problem, types};

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
    longest_wait_for_room: Option<Duration>,
    retry_if: fn(&Problem) -> bool,
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
    /// The default of `first` in [`with_backoff`](Self::with_backoff).
    pub const DEFAULT_FIRST_BACKOFF: Duration = Duration::from_secs(1);
    /// The default of `longest` in [`with_backoff`](Self::with_backoff): five minutes.
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
            longest_wait_for_room: None,
            retry_if: Self::is_temporary,
            retention: None,
            deadline: None,
        }
    }

    /// How many stored jobs of this kind run here at once. With 0 this process stores such jobs and leaves them
    /// to others; requests without preference run here all the same. The default is the builder's
    /// [`concurrency`](super::OperationsBuilder::concurrency).
    pub fn with_concurrency(mut self, jobs: usize) -> Self {
        self.concurrency = Some(jobs.min(tokio::sync::Semaphore::MAX_PERMITS));
        self
    }

    /// How often a job is begun at the most, at least once. An attempt counts from the moment at which it is
    /// claimed, so one that takes its process down with it counts too. The default is
    /// [five](NewOperation::DEFAULT_ATTEMPT_LIMIT).
    pub fn with_attempt_limit(mut self, attempts: u32) -> Self {
        self.attempt_limit = attempts.max(1);
        self
    }

    /// The job is begun once. If its process dies or is told to stop, the operation fails
    /// ([`INTERRUPTED`](crate::problem::types::INTERRUPTED)) and is not begun again.
    pub fn never_twice(self) -> Self {
        self.with_attempt_limit(1)
    }

    /// How long to wait before another attempt: a random time of up to `first` before the second, twice that
    /// before the third, and so on, but never more than `longest`. A problem that says [when to try
    /// again](Problem::with_retry_after) is not tried before. The defaults are [1 s](Self::DEFAULT_FIRST_BACKOFF)
    /// and [5 min](Self::DEFAULT_LONGEST_BACKOFF).
    pub fn with_backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = Backoff { first, longest };
        self
    }

    /// Which problems are worth another attempt (default: [`is_temporary`](Self::is_temporary)). A
    /// panic is a problem of the type [`INTERNAL`](crate::problem::types::INTERNAL). If `retry_if` itself panics, there
    /// is no other attempt.
    pub fn with_retry_if(mut self, retry_if: fn(&Problem) -> bool) -> Self {
        self.retry_if = retry_if;
        self
    }

    /// How long a finished operation of this kind stays readable. The default is the builder's
    /// [`retention`](super::OperationsBuilder::retention).
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// How long after its acceptance, or its [delay](super::KickOff::delay), a job must have ended; else it fails. The
    /// default is the builder's [`deadline`](super::OperationsBuilder::deadline).
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// How long to wait at the most before another attempt after one that found no room
    /// ([`OVERLOADED`](crate::problem::types::OVERLOADED)): it says nothing of the other side, and has not failed.
    #[cfg(feature = "webhook")]
    pub(crate) fn with_longest_wait_for_room(mut self, longest: Duration) -> Self {
        self.longest_wait_for_room = Some(longest);
        self
    }

    /// Whether the problem is worth another attempt. A `retry_if` that panics has not said so.
    pub(super) fn retries(&self, kind: &Kind, problem: &Problem) -> bool {
        let said = catch_unwind(AssertUnwindSafe(|| (self.retry_if)(problem)));
        said.unwrap_or_else(|_| {
            telemetry::panicked(kind);
            false
        })
    }

    /// How long to wait after that many attempts, the last of which ended with this problem. `random` is any number:
    /// the same gives the same.
    pub(super) fn pause_after(&self, attempts: u32, error: &Problem, random: u32) -> Duration {
        let pause = self.backoff.after(attempts, random);
        let longest = self.longest_wait_for_room.filter(|_| error.is(types::OVERLOADED));
        pause.min(longest.unwrap_or(Duration::MAX)).max(error.retry_after().unwrap_or_default())
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

    #[cfg(feature = "webhook")]
    #[test]
    fn what_found_no_room_waits_no_longer_for_it_each_time() {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3_600));
        let policy = JobPolicy::new().with_backoff(minute / 12, 6 * hour);
        let policy = policy.with_longest_wait_for_room(minute);
        let (full, broken) =
            (Problem::new(types::OVERLOADED), Problem::new(types::CALLBACK_FAILED));
        assert_eq!(policy.pause_after(1, &full, u32::MAX), minute / 12);
        assert_eq!(policy.pause_after(15, &full, u32::MAX), minute);
        assert_eq!(policy.pause_after(15, &broken, u32::MAX), 6 * hour);
        // Whoever says when to come is not asked before.
        assert_eq!(policy.pause_after(15, &full.with_retry_after(hour), u32::MAX), hour);
    }

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
