//! What the server's clock shows, without asking it each time.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;
use crate::time::Timestamp;

/// For how long an answer of the server tells what its clock shows.
const FRESH: Duration = Duration::from_secs(1);
/// A server's clock that falls behind by more than this, however long its answer was on its way, was put
/// back.
const PUT_BACK: Duration = Duration::from_millis(100);

/// The server's clock as its last answers told it. The caller's own clock does not count.
///
/// The server's clock shows at least what its answer says when the answer comes. So of all answers
/// the one that leads to the latest time is the nearest to the truth, and none leads beyond it.
#[derive(Debug, Default)]
pub(in crate::store) struct ServerClock(Mutex<Option<(Instant, Timestamp)>>);

impl ServerClock {
    /// Learns from an answer that has just come to what was `asked` then.
    pub(in crate::store) fn learn(&self, now: Timestamp, asked: Instant) {
        let at = Instant::now();
        // What it shows at the most, if it answered at once and the answer was on its way ever since.
        let latest = now + (at - asked);
        let mut heard = lock(&self.0);
        let is_nearer = heard.is_none_or(|(heard_at, told)| {
            let reckoned = told + (at - heard_at);
            at - heard_at > FRESH || now >= reckoned || latest + PUT_BACK < reckoned
        });
        if is_nearer {
            *heard = Some((at, now));
        }
    }

    /// What it shows, if it was heard of a moment ago.
    pub(in crate::store) fn now(&self) -> Option<Timestamp> {
        let heard = *lock(&self.0);
        let (at, told) = heard.filter(|(at, _)| at.elapsed() <= FRESH)?;
        Some(told + at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    #[test]
    fn the_latest_of_its_answers_counts_unless_it_was_put_back() {
        let clock = ServerClock::default();
        assert_eq!(clock.now(), None);
        let asked = Instant::now();
        clock.learn(at(5_000), asked);
        // An answer that took long on its way.
        clock.learn(at(4_990), asked);
        assert!(clock.now().unwrap() >= at(5_000));
        clock.learn(at(4_200), asked.checked_sub(Duration::from_millis(800)).unwrap());
        assert!(clock.now().unwrap() >= at(5_000));
        clock.learn(at(9_000), asked);
        assert!(clock.now().unwrap() >= at(9_000));
        clock.learn(at(1_000), asked);
        assert!(clock.now().unwrap() < at(2_000));
    }
}
