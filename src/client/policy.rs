use std::time::Duration;

/// How a client asks: how soon, how often, how long it bears trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct PollPolicy {
    pub(super) shortest: Duration,
    pub(super) longest: Duration,
    pub(super) wait: Duration,
    pub(super) events: bool,
    pub(super) failure_limit: u32,
}

impl PollPolicy {
    /// The default of `shortest` in [`with_pauses`](Self::with_pauses).
    pub const DEFAULT_SHORTEST_PAUSE: Duration = Duration::from_millis(500);
    /// The default of `longest` in [`with_pauses`](Self::with_pauses): five minutes.
    pub const DEFAULT_LONGEST_PAUSE: Duration = Duration::from_secs(300);
    /// The default of [`with_wait`](Self::with_wait).
    pub const DEFAULT_WAIT: Duration = Duration::from_secs(20);
    /// The default of [`with_failure_limit`](Self::with_failure_limit): about seven minutes.
    pub const DEFAULT_FAILURE_LIMIT: u32 = 20;
    /// The pause that grows where a server asks for none: from one second to thirty.
    const FIRST: Duration = Duration::from_secs(1);
    const GROWN: Duration = Duration::from_secs(30);
    /// No pause is longer: a year, which every clock can be set forward by.
    const LONGEST_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    /// The defaults.
    pub fn new() -> Self {
        Self {
            shortest: Self::DEFAULT_SHORTEST_PAUSE,
            longest: Self::DEFAULT_LONGEST_PAUSE,
            wait: Self::DEFAULT_WAIT,
            events: true,
            failure_limit: Self::DEFAULT_FAILURE_LIMIT,
        }
    }

    /// The pauses are no shorter and no longer than that, whatever the server's `Retry-After` says. More than a
    /// year counts as a year. The defaults are [half a second](Self::DEFAULT_SHORTEST_PAUSE) and
    /// [five minutes](Self::DEFAULT_LONGEST_PAUSE).
    pub fn with_pauses(mut self, shortest: Duration, longest: Duration) -> Self {
        self.shortest = shortest.min(Self::LONGEST_EVER);
        self.longest = longest.min(Self::LONGEST_EVER).max(self.shortest);
        self
    }

    /// How long a server that can may hold a poll until something changes (`Prefer: wait`); zero asks none to.
    /// Keep it below your transport's timeout. The default is [20 s](Self::DEFAULT_WAIT).
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Whether a server that can may tell of changes by an event stream, in place of polls (default: yes).
    /// Over HTTP/1.1 each operation that is followed so has a connection of its own.
    pub fn with_events(mut self, are_taken: bool) -> Self {
        self.events = are_taken;
        self
    }

    /// How many polls in a row may fail before it is given up, at least 1. The default is
    /// [20](Self::DEFAULT_FAILURE_LIMIT).
    pub fn with_failure_limit(mut self, polls: u32) -> Self {
        self.failure_limit = polls.max(1);
        self
    }

    /// The pause that the server asked for. It is kept to, and a little is added, so that clients that were
    /// told the same do not come at the same time. `random` is any number.
    pub(super) fn asked(&self, pause: Duration, random: u32) -> Duration {
        let pause = pause.clamp(self.shortest, self.longest);
        (pause + pause.mul_f64(fraction(random) / 10.0)).min(self.longest)
    }

    /// The pause after so many polls that were told none: half as long again each time.
    pub(super) fn unasked(&self, polls: u32, random: u32) -> Duration {
        let growth = 1.5_f64.powi(i32::try_from(polls.min(20)).unwrap_or(20));
        let pause = Self::FIRST.mul_f64(growth).min(Self::GROWN);
        pause.mul_f64(0.75 + fraction(random) / 2.0).clamp(self.shortest, self.longest)
    }
}

impl Default for PollPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// A part of the whole, by any number.
pub(super) fn fraction(random: u32) -> f64 {
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn no_pause_is_longer_than_clocks_can_bear() {
        let policy = PollPolicy::new().with_pauses(Duration::ZERO, Duration::MAX);
        for policy in [policy, PollPolicy::new().with_pauses(Duration::MAX, Duration::ZERO)] {
            let pause = policy.asked(Duration::MAX, u32::MAX);
            assert_eq!(pause, PollPolicy::LONGEST_EVER);
            assert!(Instant::now().checked_add(pause).is_some());
            assert!(policy.unasked(u32::MAX, u32::MAX) <= PollPolicy::LONGEST_EVER);
        }
    }
}
