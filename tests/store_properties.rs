//! Random calls on the memory store give the same answers as on a model that has no index, no
//! counter and no lock: a list of operations that is searched from end to end.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "to panic is how a test fails")]

use std::cell::RefCell;
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use respond_async::operation::{
    Change, Due, Kind, NewOperation, Operation, OperationId, Outcome, OutcomeHead, Owner, Progress,
    Status,
};
use respond_async::problem::{Problem, types};
use respond_async::store::{
    Acceptance, ClaimRequest, DueQuery, Fingerprint, Full, Idempotency, IdempotencyKey, Limits,
    ListQuery, MemoryStore, Observed, OperationStore, OperationStoreExt, Page, Submission, Swap,
    Swapped,
};
use respond_async::time::{Clock, ManualClock, Timestamp};

/// How many operations a run speaks of: few, so that calls meet.
const IDS: u8 = 6;
const UNIT: Duration = Duration::from_millis(100);

/// A call. Operations are named by a small number; times are in units.
#[derive(Debug, Clone)]
enum Call {
    Accept(New),
    Read(u8),
    Apply { operation: u8, change: Change, outcome: bool },
    Claim { kinds: Option<Vec<u8>>, limit: usize, lease: u32 },
    Due { due: Due, kinds: Option<Vec<u8>>, limit: usize },
    Swap { operation: u8, change: Change, behind: u64 },
    Remove { operation: u8, behind: u64 },
    Purge { limit: usize },
    List { owner: u8, query: ListQuery },
    Advance(u32),
}

#[derive(Debug, Clone)]
struct New {
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

fn id(number: u8) -> OperationId {
    OperationId::from_parts(Timestamp::from_unix_millis(1_000), [number; 10])
}

/// The anonymous owner is number 0.
fn owner(number: u8) -> Owner {
    if number == 0 { Owner::anonymous() } else { Owner::new(format!("owner {number}")).unwrap() }
}

fn kind(number: u8) -> Kind {
    Kind::new(format!("kind-{number}")).unwrap()
}

fn kinds(numbers: Option<&Vec<u8>>) -> Option<Vec<Kind>> {
    numbers.map(|numbers| numbers.iter().map(|number| kind(*number)).collect())
}

fn outcome() -> Outcome {
    Outcome { body: Bytes::from_static(b"done"), ..Outcome::new(StatusCode::OK) }
}

impl New {
    fn submission(&self) -> Submission {
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
    (attempt, units, 0..11).prop_map(move |(attempt, time, which)| match which {
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

fn call() -> impl Strategy<Value = Call> {
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
        1 => (0..IDS, change(), 0..2_u64)
            .prop_map(|(operation, change, behind)| Call::Swap { operation, change, behind }),
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

/// What the store is compared with.
#[derive(Debug, Default)]
struct Model {
    /// In no order that means anything.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    operation: Operation,
    input: Option<Bytes>,
    outcome: Option<Outcome>,
    idempotency: Option<Idempotency>,
}

impl Model {
    fn visible(&mut self, id: OperationId, now: Timestamp) -> Option<&mut Entry> {
        self.entries
            .iter_mut()
            .find(|entry| entry.operation.id() == id && !entry.operation.is_expired(now))
    }

    fn operation(&mut self, id: OperationId, now: Timestamp) -> Option<Operation> {
        self.visible(id, now).map(|entry| entry.operation.clone())
    }

    fn accept(&mut self, submission: Submission, now: Timestamp) -> Acceptance {
        let Submission { operation: new, input, idempotency, limits, .. } = submission;
        if let Some(wanted) = &idempotency {
            let same_key = |entry: &Entry| {
                entry.operation.owner() == new.owner()
                    && entry.idempotency.as_ref().is_some_and(|kept| {
                        (&kept.scope, &kept.key) == (&wanted.scope, &wanted.key)
                    })
            };
            let found = self.entries.iter().position(same_key);
            match found {
                // Its operation has expired, so the key is free; the store purges it by the way.
                Some(at) if self.entries[at].operation.is_expired(now) => {
                    self.entries.remove(at);
                }
                Some(at) => {
                    let Entry { operation, idempotency, .. } = &self.entries[at];
                    let is_same = idempotency.as_ref().map(|kept| kept.fingerprint)
                        == Some(wanted.fingerprint);
                    return if is_same { existing(operation, now) } else { Acceptance::KeyReused };
                }
                None => {}
            }
        }
        if let Some(operation) = self.operation(new.id(), now) {
            return existing(&operation, now);
        }
        self.entries.retain(|entry| entry.operation.id() != new.id());
        if let Some(full) = self.full(limits, new.owner()) {
            return Acceptance::Full(full);
        }
        let operation = new.accept(now);
        let observed = Observed { operation: operation.clone(), now, write_id: 0 };
        self.entries.push(Entry { operation, input, outcome: None, idempotency });
        Acceptance::Created(Box::new(observed))
    }

    fn full(&self, limits: Limits, owner: &Owner) -> Option<Full> {
        let live = || self.entries.iter().filter(|entry| entry.operation.finished().is_none());
        let of_owner = live().filter(|entry| entry.operation.owner() == owner).count();
        if limits.total.is_some_and(|limit| live().count() >= limit) {
            Some(Full::Total)
        } else if owner.name().is_some() && limits.owner.is_some_and(|limit| of_owner >= limit) {
            Some(Full::Owner)
        } else {
            None
        }
    }

    fn due(&self, query: &DueQuery, now: Timestamp) -> Vec<Operation> {
        let mut due: Vec<&Operation> = self
            .entries
            .iter()
            .map(|entry| &entry.operation)
            .filter(|operation| operation.is_due(query.due, now) && query.selects(operation))
            .collect();
        due.sort_by_key(|operation| (operation.due_at(query.due), operation.id()));
        due.into_iter().take(query.limit).cloned().collect()
    }

    fn write(&mut self, next: Operation, outcome: Option<Outcome>) {
        let entry = self.entries.iter_mut().find(|entry| entry.operation.id() == next.id());
        let entry = entry.expect("only what is there is written");
        if next.finished().is_some() {
            entry.input = None;
        }
        entry.outcome = outcome.or(entry.outcome.take());
        entry.operation = next;
    }

    fn remove(&mut self, id: OperationId) {
        self.entries.retain(|entry| entry.operation.id() != id);
    }

    fn list(&self, owner: &Owner, query: &ListQuery, now: Timestamp) -> Vec<Operation> {
        let mut listed: Vec<Operation> = self
            .entries
            .iter()
            .map(|entry| &entry.operation)
            .filter(|operation| operation.owner() == owner && owner.name().is_some())
            .filter(|operation| !operation.is_expired(now) && query.selects(operation))
            .filter(|operation| query.before.is_none_or(|before| operation.id() < before))
            .cloned()
            .collect();
        listed.sort_by_key(|operation| std::cmp::Reverse(operation.id()));
        listed
    }
}

fn existing(operation: &Operation, now: Timestamp) -> Acceptance {
    let observed = Observed { operation: operation.clone(), now, write_id: 0 };
    Acceptance::Existing(Box::new(observed))
}

/// An acceptance without the name of the last write, which the model does not keep.
fn nameless(mut acceptance: Acceptance) -> Acceptance {
    if let Acceptance::Created(observed) | Acceptance::Existing(observed) = &mut acceptance {
        observed.write_id = 0;
    }
    acceptance
}

fn operations(observed: Vec<Observed>) -> Vec<Operation> {
    observed.into_iter().map(|observed| observed.operation).collect()
}

/// A store, its model, and the clock of both.
struct Pair {
    store: MemoryStore,
    model: Model,
    clock: Arc<ManualClock>,
}

impl Pair {
    async fn run(&mut self, call: &Call) -> TestCaseResult {
        let now = self.clock.now();
        let Self { store, model, .. } = self;
        match call.clone() {
            Call::Accept(new) => {
                let answer = store.accept(new.submission()).await.unwrap();
                prop_assert_eq!(nameless(answer), model.accept(new.submission(), now));
            }
            Call::Read(operation) => {
                let found = store.find(&owner(1), id(operation)).await.unwrap();
                let expected = model
                    .operation(id(operation), now)
                    .filter(|operation| *operation.owner() == owner(1));
                prop_assert_eq!(found.map(|observed| observed.operation), expected);
            }
            Call::Apply { operation, change, outcome: with_outcome } => {
                // An outcome comes with the end of the work or not at all.
                let ends = matches!(change, Change::Succeed { .. } | Change::Fail { .. });
                let outcome = (with_outcome && ends).then(outcome);
                let id = id(operation);
                let answer = store.apply_with_outcome(id, change.clone(), outcome.clone()).await;
                let next = model.operation(id, now).map(|before| before.apply(&change, now));
                prop_assert_eq!(
                    answer.as_ref().ok().map(|observed| &observed.operation),
                    next.as_ref().and_then(|next| next.as_ref().ok()),
                    "{:?}",
                    answer
                );
                if let Some(Ok(next)) = next {
                    model.write(next, outcome);
                }
            }
            Call::Claim { kinds: of_kinds, limit, lease } => {
                let of_kinds = kinds(of_kinds.as_ref());
                let mut request = ClaimRequest::new(limit, UNIT * lease);
                if let Some(of_kinds) = of_kinds {
                    request = request.with_kinds(of_kinds);
                }
                let claimed = operations(store.claim(&request).await.unwrap());
                let change = Change::Claim { lease: UNIT * lease };
                let due = model.due(&request.as_due_query(), now);
                let expected: Vec<Operation> =
                    due.iter().filter_map(|due| due.apply(&change, now).ok()).collect();
                for next in &expected {
                    model.write(next.clone(), None);
                }
                prop_assert_eq!(claimed, expected);
            }
            Call::Due { due, kinds: of_kinds, limit } => {
                let mut query = DueQuery::new(due, limit);
                query.kinds = kinds(of_kinds.as_ref());
                let found = operations(store.due(&query).await.unwrap());
                prop_assert_eq!(found, model.due(&query, now));
            }
            Call::Swap { operation, change, behind } => {
                self.swap(id(operation), &change, behind).await?;
            }
            Call::Remove { operation, behind } => {
                let id = id(operation);
                let before = model.operation(id, now);
                let version = before.as_ref().map_or(1, Operation::version);
                let answer = store.remove(id, version.wrapping_sub(behind)).await.unwrap();
                match before {
                    None => prop_assert_eq!(answer, Swapped::Gone),
                    Some(_) if behind == 0 => {
                        prop_assert_eq!(answer, Swapped::Swapped);
                        model.remove(id);
                    }
                    Some(_) => prop_assert!(matches!(answer, Swapped::Conflict(_))),
                }
            }
            Call::Purge { limit } => {
                let due = model.due(&DueQuery::new(Due::Expire, limit), now);
                for operation in &due {
                    model.remove(operation.id());
                }
                prop_assert_eq!(store.purge(limit).await.unwrap(), due.len());
            }
            Call::List { owner: number, query } => {
                let Page { operations, next } = store.list(&owner(number), &query).await.unwrap();
                let all = model.list(&owner(number), &query, now);
                let page = &all[..all.len().min(query.page_size())];
                prop_assert_eq!(&operations[..], page);
                prop_assert!(next.is_some() || page.len() == all.len(), "a page is missing");
            }
            Call::Advance(units) => self.clock.advance(UNIT * units),
        }
        Ok(())
    }

    /// A write over the present version, or over one before it.
    async fn swap(&mut self, id: OperationId, change: &Change, behind: u64) -> TestCaseResult {
        let now = self.clock.now();
        let before = self.model.operation(id, now);
        let Some(next) = before.as_ref().and_then(|before| before.apply(change, now).ok()) else {
            return Ok(());
        };
        let version = before.as_ref().map_or(1, Operation::version);
        let swap = Swap::new(next.clone(), version.wrapping_sub(behind)).with_write_id(7);
        match self.store.swap(swap).await.unwrap() {
            Swapped::Swapped => {
                prop_assert_eq!(behind, 0);
                self.model.write(next, None);
            }
            Swapped::Conflict(current) => {
                prop_assert_ne!(behind, 0);
                prop_assert_eq!(Some(current.operation), before);
            }
            Swapped::Gone => prop_assert!(false, "it is there"),
        }
        Ok(())
    }

    /// Everything that can be read is the same.
    async fn compare(&mut self) -> TestCaseResult {
        let now = self.clock.now();
        let Self { store, model, .. } = self;
        for number in 0..IDS {
            let id = id(number);
            let read = store.get(id).await.unwrap();
            prop_assert!(read.as_ref().is_none_or(|read| read.now == now));
            prop_assert_eq!(read.map(|read| read.operation), model.operation(id, now));
            let expected = model.visible(id, now);
            let input = expected.as_ref().and_then(|entry| entry.input.clone());
            prop_assert_eq!(store.input(id).await.unwrap(), input);
            let outcome = expected.and_then(|entry| entry.outcome.clone());
            prop_assert_eq!(store.outcome(id).await.unwrap(), outcome);
        }
        for due in Due::ALL {
            let query = DueQuery::new(due, usize::MAX);
            let found = operations(store.due(&query).await.unwrap());
            prop_assert_eq!(found, model.due(&query, now));
        }
        for number in 0..3 {
            let page = store.list(&owner(number), &ListQuery::default()).await.unwrap();
            let expected = model.list(&owner(number), &ListQuery::default(), now);
            prop_assert_eq!(page, Page { operations: expected, next: None });
        }
        prop_assert_eq!(store.len(), model.entries.len());
        Ok(())
    }
}

/// Up to 60 calls, and after each everything is compared.
#[test]
fn the_memory_store_answers_like_its_model() {
    let seed = seed();
    // A failure is told with the calls that it takes, so no file of failures is kept.
    let config = Config { cases: 1_000, failure_persistence: None, ..Config::default() };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.to_be_bytes().repeat(4));
    let mut runner = TestRunner::new_with_rng(config, random);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let reached = RefCell::new(HashSet::new());
    let result = runner.run(&vec(call(), 0..=60), |calls| {
        runtime.block_on(async {
            let clock = Arc::new(ManualClock::new(Timestamp::from_unix_millis(1_000)));
            let store = MemoryStore::builder().clock(clock.clone()).build();
            let mut pair = Pair { store, model: Model::default(), clock };
            for call in &calls {
                pair.run(call).await?;
                pair.compare().await?;
                let statuses = pair.model.entries.iter().map(|entry| entry.operation.status());
                reached.borrow_mut().extend(statuses);
            }
            Ok(())
        })
    });
    if let Err(failure) = result {
        panic!("RA_SEED={seed}: {failure}");
    }
    assert_eq!(reached.borrow().len(), Status::ALL.len(), "the calls do not reach every state");
}

/// What the calls are drawn from: the seed that `RA_SEED` names, else a new one.
fn seed() -> u64 {
    match std::env::var("RA_SEED") {
        Ok(seed) => seed.parse().expect("RA_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0),
    }
}
