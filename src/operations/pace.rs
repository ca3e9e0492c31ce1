//! When a client should ask again. Pure: no clock, no I/O.

use std::time::Duration;

use super::admission::Load;
use crate::operation::{Operation, Progress, Status};
use crate::time::Timestamp;

/// The shortest time between two polls that a client is asked for.
pub(super) const MIN: Duration = Duration::from_secs(1);
/// The longest that progress or queue alone make a client wait.
pub(super) const MAX: Duration = Duration::from_secs(30);
/// The longest that the poll rate makes a client wait.
pub(super) const MAX_UNDER_LOAD: Duration = Duration::from_secs(600);

/// After how long to ask for a live operation again: about when it should be done, so far as
/// progress, queue and the usual run tell, but so rarely that all clients together keep to
/// `poll_rate` polls a second; a fifth more or less, so that clients do not come in step.
pub(super) fn retry_after(
    operation: &Operation,
    now: Timestamp,
    load: Load,
    poll_rate: u32,
) -> Duration {
    let run_time =
        operation.started().map_or(Duration::ZERO, |started| now.duration_since(started));
    let fraction = operation.progress().and_then(Progress::fraction);
    let left = match (operation.status(), fraction) {
        (Status::Running, Some(done)) if done > 0.0 => {
            run_time.mul_f64(((1.0 - done) / done).min(1e6))
        }
        // Half as long again as it has run, once it has run for longer than usual.
        (Status::Running, _) => load.mean.checked_sub(run_time).unwrap_or(run_time / 2),
        _ => queue(load),
    };
    let tasks = u32::try_from(load.tasks).unwrap_or(u32::MAX);
    let share = Duration::from_secs_f64(f64::from(tasks) / f64::from(poll_rate.max(1)));
    let delay = left.clamp(MIN, MAX).max(share.min(MAX_UNDER_LOAD));
    delay.mul_f64(spread(operation)).max(MIN)
}

/// After how long there may be room again, when there is none.
pub(super) fn overloaded(load: Load) -> Duration {
    queue(load).clamp(MIN, MAX)
}

/// How long a task that comes now waits and runs.
fn queue(load: Load) -> Duration {
    let rounds = load.tasks / load.concurrency.max(1) + 1;
    load.mean.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
}

/// From 0.8 to 1.2: by the operation's random bits and its revision, so the same answer twice.
fn spread(operation: &Operation) -> f64 {
    let (_, random) = operation.id().as_uuid().as_u64_pair();
    let mixed = random.wrapping_add(operation.revision()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let [a, b, c, d, ..] = mixed.to_be_bytes();
    0.8 + 0.4 * f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Change, NewOperation, OperationId};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(seconds * 1_000)
    }

    fn pending(random: u8) -> Operation {
        NewOperation::new(OperationId::from_parts(at(0), [random; 10])).accept(at(0))
    }

    fn running(random: u8, fraction: Option<f64>) -> Operation {
        let lease = Duration::from_secs(60);
        let operation = pending(random).apply(&Change::Claim { lease }, at(0)).unwrap();
        let Some(fraction) = fraction else { return operation };
        let progress = Progress::new(fraction, "");
        operation.apply(&Change::Progress { attempt: 1, progress }, at(0)).unwrap()
    }

    const IDLE: Load = Load { tasks: 1, concurrency: 4, mean: Duration::ZERO };

    /// The delay before it is spread, in seconds.
    #[track_caller]
    fn delays(operation: impl Fn(u8) -> Operation, now: i64, load: Load, seconds: f64) {
        let delays: Vec<f64> = (0..=u8::MAX)
            .map(|random| retry_after(&operation(random), at(now), load, 1_000).as_secs_f64())
            .collect();
        let [least, most] =
            [f64::min, f64::max].map(|pick| delays.iter().copied().reduce(pick).unwrap());
        assert!(least >= (seconds * 0.8).max(1.0) - 1e-6, "{least}");
        assert!(most <= (seconds * 1.2).max(1.0) + 1e-6, "{most}");
        assert!(seconds <= 1.0 || most - least > seconds * 0.3, "all at once: {least} to {most}");
    }

    #[test]
    fn progress_tells_how_long_it_will_take() {
        // A quarter after 5 s: 15 s are left.
        delays(|random| running(random, Some(0.25)), 5, IDLE, 15.0);
        delays(|random| running(random, Some(0.9)), 9, IDLE, 1.0);
        delays(|random| running(random, Some(1.0)), 9, IDLE, 1.0);
        // A hopeless case is asked about now and then all the same.
        delays(|random| running(random, Some(1e-300)), 5, IDLE, 30.0);
        delays(|random| running(random, Some(0.0)), 8, IDLE, 4.0);
    }

    #[test]
    fn without_progress_the_usual_run_tells() {
        let usual = Load { mean: Duration::from_secs(10), ..IDLE };
        delays(|random| running(random, None), 4, usual, 6.0);
        // Longer than usual: ask less and less often.
        delays(|random| running(random, None), 40, usual, 20.0);
        delays(pending, 0, usual, 10.0);
        delays(pending, 0, Load { tasks: 4, ..usual }, 20.0);
        delays(pending, 0, Load { tasks: 4_000, ..usual }, 30.0);
        delays(pending, 0, IDLE, 1.0);
    }

    #[test]
    fn all_clients_together_keep_to_the_poll_rate() {
        let load = Load { tasks: 100_000, concurrency: 100_000, mean: Duration::ZERO };
        let delays = (0..100_000_u32).map(|n| {
            let [a, b, c, d] = n.wrapping_mul(0x9E37_79B9).to_be_bytes();
            let id = OperationId::from_parts(at(0), [a, b, c, d, a, b, c, d, a, b]);
            retry_after(&NewOperation::new(id).accept(at(0)), at(0), load, 1_000).as_secs_f64()
        });
        let polls_per_second: f64 = delays.map(|delay| 1.0 / delay).sum();
        assert!((900.0..1_100.0).contains(&polls_per_second), "{polls_per_second}");
        let load = Load { tasks: usize::MAX, ..load };
        assert!(retry_after(&pending(0), at(0), load, 1) <= MAX_UNDER_LOAD.mul_f64(1.2));
    }

    #[test]
    fn the_same_state_gets_the_same_delay() {
        let delay = || retry_after(&running(7, None), at(3), IDLE, 1_000);
        assert_eq!(delay(), delay());
        assert_eq!(overloaded(IDLE), MIN);
        assert_eq!(overloaded(Load { mean: Duration::MAX, ..IDLE }), MAX);
    }
}
