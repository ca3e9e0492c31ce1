//! The real transition function under every interleaving of two workers, a client that cancels, a
//! reaper and a purge, over a compare-and-swap register.
//!
//! Each actor reads the operation, decides by `Operation::apply`, and writes what came out if nobody
//! wrote in between; all other actors and the clock may step in between. A weakened variant lets one
//! of them skip one check, and must give a counterexample: so the properties bite.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::hash::{Hash, Hasher};
use std::time::Duration;

use http::StatusCode;
use respond_async::operation::{Change, Due, NewOperation, OutcomeHead};
use respond_async::problem::types;
use respond_async::{Operation, OperationId, Problem, Status, Timestamp};
use stateright::{Checker, Model, Property};

const LEASE: Duration = Duration::from_secs(2);
const RETENTION: Duration = Duration::from_secs(1);
const LAST_SECOND: u8 = 4;
const MOST_VERSIONS: u64 = 6;
const WORKERS: usize = 2;

/// Which check is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weakness {
    None,
    /// A worker's change names whatever attempt is current.
    NoAttemptCheck,
    /// The reaper writes by id, whatever the version is now.
    ReaperById,
    /// A cancellation decides from what was read and writes whatever the version is now.
    CancelFromStaleRead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Actor {
    Worker(usize),
    Client,
    Reaper,
}

#[derive(Debug, Clone, PartialEq)]
struct State {
    second: u8,
    /// None once it was purged.
    stored: Option<Operation>,
    /// The attempt that each worker believes to hold.
    held: [Option<u32>; WORKERS],
    /// What an actor has read, and what it is about to do.
    intents: Vec<(Actor, Operation, Change)>,
    /// How the operation ended first.
    end: Option<Operation>,
    /// What the client was told when it canceled.
    canceled: Option<Status>,
    /// A worker wrote that no longer held the operation.
    stale_write: bool,
    purged: bool,
}

impl Eq for State {}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Progress holds a float, so an operation has no hash of its own.
        format!("{self:?}").hash(state);
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Tick,
    Read(Actor, Change),
    Write(Actor),
    Purge,
}

struct Register(Weakness);

impl State {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(i64::from(self.second) * 1_000)
    }

    fn ended(&self, status: Status) -> bool {
        self.end.as_ref().is_some_and(|end| end.status() == status)
    }

    fn may_do(&self, actor: Actor) -> Vec<Change> {
        match actor {
            Actor::Client if self.canceled.is_none() => vec![Change::Cancel],
            Actor::Client => vec![],
            Actor::Reaper => vec![Change::Settle],
            Actor::Worker(worker) => match self.held[worker] {
                None => vec![Change::Claim { lease: LEASE }],
                Some(attempt) => vec![
                    Change::Renew { attempt, lease: LEASE },
                    Change::Succeed { attempt, head: OutcomeHead::new(StatusCode::OK, None) },
                    Change::Retry {
                        attempt,
                        delay: Duration::ZERO,
                        error: Problem::new(types::INTERNAL),
                    },
                    Change::Release { attempt },
                    Change::ConfirmCancel { attempt },
                ],
            },
        }
    }
}

impl Register {
    /// What the write of an actor makes of the stored operation; none if it is not written.
    fn written(
        &self,
        state: &State,
        actor: Actor,
        read: &Operation,
        change: &Change,
    ) -> Option<Operation> {
        let by_id = matches!(
            (self.0, actor),
            (Weakness::ReaperById, Actor::Reaper) | (Weakness::CancelFromStaleRead, Actor::Client)
        );
        let current =
            state.stored.as_ref().is_some_and(|stored| stored.version() == read.version());
        let change = match (self.0, change.attempt()) {
            (Weakness::NoAttemptCheck, Some(_)) => with_attempt(change, read.attempt()),
            _ => change.clone(),
        };
        (current || by_id).then(|| read.apply(&change, state.now()).ok()).flatten()
    }
}

fn with_attempt(change: &Change, attempt: u32) -> Change {
    match change.clone() {
        Change::Renew { lease, .. } => Change::Renew { attempt, lease },
        Change::Succeed { head, .. } => Change::Succeed { attempt, head },
        Change::Retry { delay, error, .. } => Change::Retry { attempt, delay, error },
        Change::Release { .. } => Change::Release { attempt },
        Change::ConfirmCancel { .. } => Change::ConfirmCancel { attempt },
        other => other,
    }
}

impl Model for Register {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let start = Timestamp::from_unix_millis(0);
        let operation = NewOperation::new(OperationId::from_parts(start, [7; 10]))
            .with_attempt_limit(2)
            .with_retention(RETENTION)
            .with_deadline(Duration::from_secs(3))
            .accept(start);
        vec![State {
            second: 0,
            stored: Some(operation),
            held: [None; WORKERS],
            intents: vec![],
            end: None,
            canceled: None,
            stale_write: false,
            purged: false,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.second < LAST_SECOND {
            steps.push(Step::Tick);
        }
        let Some(stored) = &state.stored else {
            steps.extend(state.intents.iter().map(|(actor, ..)| Step::Write(*actor)));
            return;
        };
        let actors = (0..WORKERS).map(Actor::Worker).chain([Actor::Client, Actor::Reaper]);
        for actor in actors {
            if state.intents.iter().any(|(who, ..)| *who == actor) {
                steps.push(Step::Write(actor));
            } else {
                steps.extend(
                    state.may_do(actor).into_iter().map(|change| Step::Read(actor, change)),
                );
            }
        }
        if stored.is_due(Due::Expire, state.now()) {
            steps.push(Step::Purge);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Tick => next.second += 1,
            Step::Purge => {
                next.stored = None;
                next.purged = true;
            }
            Step::Read(actor, change) => {
                let read = state.stored.clone()?;
                // What would be refused at once is not worth a step.
                let tried = match (self.0, change.attempt()) {
                    (Weakness::NoAttemptCheck, Some(_)) => with_attempt(&change, read.attempt()),
                    _ => change.clone(),
                };
                if read.apply(&tried, state.now()).is_err() {
                    // The worker learns that it lost the operation and stops.
                    let Actor::Worker(worker) = actor else { return None };
                    change.attempt()?;
                    next.held[worker] = None;
                    return Some(next);
                }
                next.intents.push((actor, read, change));
            }
            Step::Write(actor) => {
                let at = state.intents.iter().position(|(who, ..)| *who == actor)?;
                let (_, read, change) = next.intents.remove(at);
                let Some(written) = self.written(state, actor, &read, &change) else {
                    return Some(next);
                };
                if let (Actor::Worker(worker), Some(stored)) = (actor, &state.stored) {
                    let claims = change.attempt().is_none();
                    next.stale_write |= !claims && state.held[worker] != Some(stored.attempt());
                    let keeps = matches!(written.status(), Status::Running);
                    next.held[worker] = if claims {
                        Some(written.attempt())
                    } else {
                        state.held[worker].filter(|_| keeps)
                    };
                }
                if actor == Actor::Client {
                    next.canceled = Some(written.status());
                }
                if next.end.is_none() && written.status().is_finished() {
                    next.end = Some(written.clone());
                }
                next.stored = Some(written);
            }
        }
        Some(next)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.stored.as_ref().is_none_or(|stored| stored.version() <= MOST_VERSIONS)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what has ended never changes", |_, state: &State| {
                match (&state.end, &state.stored) {
                    (Some(end), Some(stored)) => end == stored,
                    _ => true,
                }
            }),
            Property::always("a stale worker changes nothing", |_, state: &State| {
                !state.stale_write
            }),
            Property::always("what was purged stays away", |_, state: &State| {
                !state.purged || state.stored.is_none()
            }),
            Property::always("who was told canceled reads canceled", |_, state: &State| {
                state.canceled != Some(Status::Canceled)
                    || state
                        .stored
                        .as_ref()
                        .is_none_or(|stored| stored.status() == Status::Canceled)
            }),
            Property::sometimes("succeeds", |_, state: &State| state.ended(Status::Succeeded)),
            Property::sometimes("fails", |_, state: &State| state.ended(Status::Failed)),
            Property::sometimes("is canceled while running", |_, state: &State| {
                state.ended(Status::Canceled) && state.canceled == Some(Status::Running)
            }),
            Property::sometimes("is taken over", |_, state: &State| {
                state.held.iter().all(Option::is_some)
            }),
            Property::sometimes("is purged", |_, state: &State| state.purged),
        ]
    }
}

#[test]
#[ignore = "takes minutes without optimisation: cargo test --release -p model -- --ignored"]
fn the_rules_hold_under_every_interleaving() {
    let checker = Register(Weakness::None).checker().threads(2).spawn_bfs().join();
    println!(
        "{} states, {} of them different",
        checker.state_count(),
        checker.unique_state_count()
    );
    checker.assert_properties();
    assert!(checker.unique_state_count() > 10_000, "the model does nothing");
}

#[test]
fn each_check_is_needed() {
    for (weakness, broken) in [
        (Weakness::NoAttemptCheck, "a stale worker changes nothing"),
        (Weakness::ReaperById, "what has ended never changes"),
        (Weakness::ReaperById, "what was purged stays away"),
        (Weakness::CancelFromStaleRead, "what has ended never changes"),
        (Weakness::CancelFromStaleRead, "who was told canceled reads canceled"),
    ] {
        let checker = Register(weakness)
            .checker()
            .threads(2)
            .finish_when(stateright::HasDiscoveries::AnyOf([broken].into()))
            .spawn_bfs()
            .join();
        let path = checker.discovery(broken);
        let path = path.unwrap_or_else(|| panic!("{weakness:?} breaks nothing"));
        println!("{weakness:?} breaks {broken:?} in {} steps", path.into_actions().len());
    }
}
