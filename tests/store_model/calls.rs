//! Random calls on a store.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use proptest::collection::vec;
use proptest::prelude::*;
use respond_async::operation::{
    Change, Due, Kind, NewOperation, OperationId, Outcome, OutcomeHead, Owner, Progress, Status,
};
use respond_async::problem::{Problem, types};
use respond_async::store::{Fingerprint, Idempotency, IdempotencyKey, ListQuery, Submission};
use respond_async::time::Timestamp;

/// How many operations a run speaks of: few, so that calls meet.
pub(crate) const IDS: u8 = 6;
pub(crate) const UNIT: Duration = Duration::from_millis(100);

/// A call. Operations are named by a small number; times are in units.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Accept(New),
    Read(u8),
    Apply { operation: u8, change: Change, outcome: bool },
    Claim { kinds: Option<Vec<u8>>, limit: usize, lease: u32 },
    Due { due: Due, kinds: Option<Vec<u8>>, limit: usize },
    Swap { operation: u8, change: Change, behind: u64, outbox: Vec<New> },
    Remove { operation: u8, behind: u64 },
    Purge { limit: usize },
    List { owner: u8, query: ListQuery },
    Advance(u32),
}

#[derive(Debug, Clone)]
pub(crate) struct New {
    operation: u8,
    owner: u8,
    kind: u8,
    times: [u32; 2],
    deadline: Option<u32>,
    held: Option<(u32, bool)>,
    attempt_limit: u32,
    key: Option<(u8, u8)>,
    total: Option<usize>,
    per_owner: Option<usize>,
}

pub(crate) fn id(number: u8) -> OperationId {
    OperationId::from_parts(Timestamp::from_unix_millis(1_000), [number; 10])
}

/// The anonymous owner is number 0.
pub(crate) fn owner(number: u8) -> Owner {
    if number == 0 { Owner::anonymous() } else { Owner::new(format!("owner {number}")).unwrap() }
}

fn kind(number: u8) -> Kind {
    Kind::new(format!("kind-{number}")).unwrap()
}

pub(crate) fn kinds(numbers: Option<&Vec<u8>>) -> Option<Vec<Kind>> {
    numbers.map(|numbers| numbers.iter().map(|number| kind(*number)).collect())
}

pub(crate) fn outcome() -> Outcome {
    Outcome { body: Bytes::from_static(b"done"), ..Outcome::new(StatusCode::OK) }
}

impl New {
    pub(crate) fn submission(&self) -> Submission {
        let [delay, retention] = self.times.map(|units| UNIT * units);
        let mut new = NewOperation::new(id(self.operation))
            .with_owner(owner(self.owner))
            .with_kind(kind(self.kind))
            .with_attempt_limit(self.attempt_limit)
            .with_delay(delay)
            .with_retention(retention);
        if let Some(units) = self.deadline {
            new = new.with_deadline(UNIT * units);
        }
        if let Some((units, running)) = self.held {
            new = new.held(UNIT * units, running);
        }
        let mut submission = Submission::new(new).with_input(vec![self.operation]);
        submission.idempotency = self.key.map(|(key, request)| Idempotency {
            scope: "scope".into(),
            key: IdempotencyKey::new(format!("key {key}")).unwrap(),
            fingerprint: Fingerprint([request; 32]),
        });
        submission.limits.total = self.total;
        submission.limits.owner = self.per_owner;
        submission
    }
}

fn change() -> impl Strategy<Value = Change> {
    // Mostly an attempt that somebody has, sometimes one that nobody has any more or yet.
    let attempt = 0..4_u32;
    let units = (0..4_u32).prop_map(|units| UNIT * units);
    let error = Problem::new(types::INTERNAL);
    (attempt, units, 0..14).prop_map(move |(attempt, time, which)| match which {
        0 => Change::Claim { lease: time },
        1 => Change::Start { attempt },
        2 => Change::Renew { attempt, lease: time },
        3 => Change::Progress { attempt, progress: Progress::new(0.5, "half") },
        4 => Change::Succeed { attempt, head: OutcomeHead::new(StatusCode::OK, None) },
        5 => Change::Fail { attempt, error: error.clone() },
        6 => Change::Retry { attempt, delay: time, error: error.clone() },
        7 => Change::Release { attempt },
        8 => Change::Cancel,
        9 => Change::ConfirmCancel { attempt },
        10 => Change::Complete { end: Ok(OutcomeHead::new(StatusCode::OK, None)) },
        11 => Change::Complete { end: Err(error.clone()) },
        12 => Change::Unclaim { attempt },
        _ => Change::Settle,
    })
}

fn new() -> impl Strategy<Value = New> {
    let names = (0..IDS, 0..3_u8, 0..2_u8);
    let times = ([0..3_u32, 0..5_u32], prop::option::of(0..5_u32));
    let held = prop::option::of((0..4_u32, any::<bool>()));
    let bounds = (prop::option::of(0..5_usize), prop::option::of(0..3_usize));
    let key = prop::option::of((0..3_u8, 0..2_u8));
    (names, times, held, 1..4_u32, key, bounds).prop_map(
        |((operation, owner, kind), (times, deadline), held, attempt_limit, key, bounds)| New {
            operation,
            owner,
            kind,
            times,
            deadline,
            held,
            attempt_limit,
            key,
            total: bounds.0,
            per_owner: bounds.1,
        },
    )
}

pub(crate) fn call() -> impl Strategy<Value = Call> {
    let some_kinds = || prop::option::of(vec(0..2_u8, 0..3));
    let status = prop::option::of(prop::sample::select(Status::ALL.to_vec()));
    let list = (0..3_u8, status, prop::option::of(0..2_u8), prop::option::of(0..IDS), 0..4_usize);
    prop_oneof![
        4 => new().prop_map(Call::Accept),
        1 => (0..IDS).prop_map(Call::Read),
        6 => (0..IDS, change(), any::<bool>())
            .prop_map(|(operation, change, outcome)| Call::Apply { operation, change, outcome }),
        3 => (some_kinds(), 0..4_usize, 0..4_u32)
            .prop_map(|(kinds, limit, lease)| Call::Claim { kinds, limit, lease }),
        2 => (prop::sample::select(Due::ALL.to_vec()), some_kinds(), 0..8_usize)
            .prop_map(|(due, kinds, limit)| Call::Due { due, kinds, limit }),
        2 => (0..IDS, change(), 0..2_u64, vec(new(), 0..3)).prop_map(
            |(operation, change, behind, outbox)| Call::Swap { operation, change, behind, outbox },
        ),
        1 => (0..IDS, 0..2_u64).prop_map(|(operation, behind)| Call::Remove { operation, behind }),
        1 => (0..4_usize).prop_map(|limit| Call::Purge { limit }),
        2 => list.prop_map(|(owner, status, of_kind, before, limit)| {
            let mut query = ListQuery::default();
            query.status = status;
            query.kind = of_kind.map(kind);
            query.before = before.map(id);
            query.limit = limit;
            Call::List { owner, query }
        }),
        3 => (1..4_u32).prop_map(Call::Advance),
    ]
}
