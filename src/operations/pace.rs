//! When a client should ask again. Pure: no clock, no I/O.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::admission::Load;
use crate::operation::{Operation, OperationId, Progress, Status};
use crate::time::Timestamp;

/// The shortest time between two polls that a client is asked for.
pub(super) const MIN: Duration = Duration::from_secs(1);
/// The longest that progress or queue alone make a client wait.
pub(super) const MAX: Duration = Duration::from_secs(30);
/// The longest that the poll rate makes a client wait, give or take a fifth.
pub(super) const MAX_UNDER_LOAD: Duration = Duration::from_secs(600);

/// Of how many operations it is known at least which second they have: of those that were asked about last.
const REMEMBERED: usize = 4_096;

/// How many polls clients were asked for, second by second: each answer that asks for another takes the next
/// second that has room. So their rate keeps to its ceiling however many operations are open, and
/// wherever they run. An operation that is asked about again and again has one second at a time.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// The second that the first number is of.
    first: u64,
    asked: VecDeque<u32>,
    /// The seconds that the operations have that were asked about last, and before these.
    booked: [HashMap<OperationId, u64>; 2],
}

impl Agenda {
    /// Plans a poll of the operation, after `delay` or as soon as fewer than `poll_rate` are planned for a
    /// second, and gives after how long that is, in whole seconds. `now` counts the seconds since any
    /// moment.
    pub(super) fn plan(
        &mut self,
        operation: &Operation,
        now: u64,
        delay: Duration,
        poll_rate: u32,
    ) -> Duration {
        let past = usize::try_from(now.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.asked.drain(..past.min(self.asked.len()));
        self.first = self.first.max(now);
        self.release(operation.id());
        let wanted = usize::try_from(delay.as_millis().div_ceil(1_000)).unwrap_or(usize::MAX);
        let mut planned_for = self.asked.iter().skip(wanted);
        let with_room = planned_for.position(|asked| *asked < poll_rate);
        let at = with_room.map_or(wanted.max(self.asked.len()), |passed| wanted + passed);
        let planned = Duration::from_secs(at as u64);
        if planned >= MAX_UNDER_LOAD {
            // More than can be planned for. Nobody is to be asked to wait for longer.
            return MAX_UNDER_LOAD.mul_f64(spread(operation));
        }
        if self.asked.len() <= at {
            self.asked.resize(at + 1, 0);
        }
        self.asked[at] += 1;
        let [last, before] = &mut self.booked;
        if last.len() >= REMEMBERED {
            std::mem::swap(last, before);
            last.clear();
        }
        last.insert(operation.id(), self.first.saturating_add(at as u64));
        planned
    }

    /// Gives back the second that the operation has, if that is known and still to come.
    fn release(&mut self, id: OperationId) {
        let booked = self.booked.iter_mut().find_map(|booked| booked.remove(&id));
        let ahead = booked.and_then(|second| second.checked_sub(self.first));
        let at = ahead.and_then(|ahead| usize::try_from(ahead).ok());
        if let Some(asked) = at.and_then(|at| self.asked.get_mut(at)) {
            *asked -= 1;
        }
    }
}

/// After how long to ask for a live operation again: about when it should be done, so far as
/// progress, queue and the usual run tell; a fifth more or less, so that clients do not come in step.
pub(super) fn retry_after(operation: &Operation, now: Timestamp, load: Load) -> Duration {
    let run_time =
        operation.started().map_or(Duration::ZERO, |started| now.duration_since(started));
    let fraction = operation.progress().and_then(Progress::fraction);
    let left = match (operation.status(), fraction) {
        (Status::Running, Some(done)) if done > 0.0 => {
            run_time.mul_f64(((1.0 - done) / done).min(1e6))
        }
        // Half as long again as it has run, once it has run for longer than usual.
        (Status::Running, _) => load.mean.checked_sub(run_time).unwrap_or(run_time / 2),
        // It may have been put off, by its request or after a failure.
        _ => operation.available().duration_since(now).saturating_add(queue(load)),
    };
    left.clamp(MIN, MAX).mul_f64(spread(operation)).max(MIN)
}

/// After how long there may be room again, when there is none for that operation.
pub(super) fn overloaded(id: OperationId, load: Load) -> Duration {
    queue(load).clamp(MIN, MAX).mul_f64(spread_of(id, 0)).max(MIN)
}

/// After how long the client of a stream should come again when it ends, with so many open: when all end
/// at once, as they do with their process, they come no faster than polls may.
pub(super) fn reconnect(streams: usize, poll_rate: u32, random: u64) -> Duration {
    let streams = u32::try_from(streams).unwrap_or(u32::MAX);
    let all = Duration::from_secs(1).mul_f64(f64::from(streams) / f64::from(poll_rate.max(1)));
    MIN + all.min(MAX_UNDER_LOAD).mul_f64(part(random))
}

/// How long a task that comes now waits and runs.
fn queue(load: Load) -> Duration {
    let rounds = load.tasks / load.concurrency.max(1) + 1;
    load.mean.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
}

/// From 0.8 to 1.2: by the operation's random bits and its revision, so the same answer twice.
fn spread(operation: &Operation) -> f64 {
    spread_of(operation.id(), operation.revision())
}

fn spread_of(id: OperationId, revision: u64) -> f64 {
    let (_, random) = id.as_uuid().as_u64_pair();
    let mixed = random.wrapping_add(revision).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    0.8 + 0.4 * part(mixed)
}

/// From 0 to 1, by the upper half of the bits.
fn part(random: u64) -> f64 {
    let [a, b, c, d, ..] = random.to_be_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
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

    /// One of many, each of which has another id.
    fn numbered(number: u32) -> Operation {
        let [a, b, c, d] = number.wrapping_mul(0x9E37_79B9).to_be_bytes();
        let id = OperationId::from_parts(at(0), [a, b, c, d, a, b, c, d, a, b]);
        NewOperation::new(id).accept(at(0))
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
            .map(|random| retry_after(&operation(random), at(now), load).as_secs_f64())
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
    fn one_that_is_asked_about_often_keeps_no_other_waiting() {
        let (mut agenda, second) = (Agenda::default(), Duration::from_secs(1));
        for now in 0..100 {
            for _ in 0..1_000 {
                agenda.plan(&pending(1), now, second, 2);
                agenda.plan(&pending(2), now, second, 2);
            }
            let other = pending(u8::try_from(3 + now).unwrap());
            assert!(agenda.plan(&other, now, second, 2) <= 2 * second, "at {now} s");
        }
        // All are remembered for a while, and none for ever.
        for n in 0..20_000 {
            agenda.plan(&numbered(n), 100, second, 2);
            assert!(agenda.booked.iter().all(|booked| booked.len() <= REMEMBERED));
        }
    }

    /// A hundred thousand operations that all begin within a second, and clients that do as they are told
    /// for half an hour; most of the work ends after twenty minutes.
    #[test]
    fn all_clients_together_keep_to_the_poll_rate() {
        const OPEN: u32 = 100_000;
        const RATE: u32 = 1_000;
        let operations: Vec<Operation> = (0..OPEN).map(numbered).collect();
        let mut agenda = Agenda::default();
        let mut ask = |n: usize, now: u64| {
            let delay = retry_after(&operations[n], at(now.try_into().unwrap()), IDLE);
            agenda.plan(&operations[n], now, delay, RATE).as_secs()
        };
        let mut polls: Vec<Vec<usize>> = vec![Vec::new(); 4_000];
        for n in 0..operations.len() {
            polls[usize::try_from(ask(n, 0)).unwrap()].push(n);
        }
        for now in 1..1_800_u64 {
            let asked = std::mem::take(&mut polls[usize::try_from(now).unwrap()]);
            assert!(asked.len() <= RATE as usize, "{} in second {now}", asked.len());
            for n in asked {
                if now > 1_200 && n >= 500 {
                    continue;
                }
                let delay = ask(n, now);
                assert!(delay <= 120, "{delay} s, while a round takes 100 s");
                assert!(now < 1_400 || delay <= 2, "{delay} s, though there is room again");
                polls[usize::try_from(now + delay).unwrap()].push(n);
            }
        }
    }

    #[test]
    fn what_cannot_be_planned_for_waits_no_longer_than_the_longest() {
        let mut agenda = Agenda::default();
        let mut asked = 0;
        let mut plan = |now| {
            asked += 1;
            agenda.plan(&numbered(asked), now, MIN, 1)
        };
        for second in 1..600 {
            assert_eq!(plan(0).as_secs(), second);
        }
        for now in [0, 0, 1] {
            let planned = plan(now).as_secs();
            assert!((480..=720).contains(&planned), "{planned} s");
        }
        // A clock that stands still or goes back harms nothing, nor does one that jumps.
        assert!(plan(0).as_secs() >= 480);
        assert_eq!(plan(u64::MAX).as_secs(), 1);
        assert_eq!(plan(u64::MAX).as_secs(), 2);
    }

    #[test]
    fn streams_that_end_together_come_again_no_faster_than_polls() {
        let second = Duration::from_secs(1);
        assert_eq!(reconnect(0, 1_000, u64::MAX), second);
        assert_eq!(reconnect(10_000, 1_000, 0), second);
        assert_eq!(reconnect(10_000, 1_000, u64::MAX), 11 * second);
        assert_eq!(reconnect(10_000, 0, u64::MAX), second + MAX_UNDER_LOAD);
        assert_eq!(reconnect(usize::MAX, u32::MAX, u64::MAX), 2 * second);
        let mut each_second = [0; 12];
        for n in 0..10_000_u64 {
            let after = reconnect(10_000, 1_000, n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            each_second[usize::try_from(after.as_secs()).unwrap()] += 1;
        }
        assert!(each_second.iter().all(|count| *count <= 1_100), "{each_second:?}");
    }

    #[test]
    fn the_same_state_gets_the_same_delay() {
        let delay = || retry_after(&running(7, None), at(3), IDLE);
        assert_eq!(delay(), delay());
        let id = pending(7).id();
        assert!(overloaded(id, IDLE) < MIN.mul_f64(1.2));
        assert!(overloaded(id, Load { mean: Duration::MAX, ..IDLE }) >= MAX.mul_f64(0.8));
    }
}
