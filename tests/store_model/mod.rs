//! Random calls on a store give the same answers as on a model that has no index, no counter and no
//! lock.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "to panic is how a test fails")]

mod calls;
mod model;

use std::cell::RefCell;
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use respond_async::operation::{Change, Due, Operation, OperationId, Status};
use respond_async::store::{
    Acceptance, ClaimRequest, DueQuery, ListQuery, Observed, OperationStore, OperationStoreExt,
    Page, Submission, Swap, Swapped,
};
use respond_async::time::{Clock, ManualClock, Timestamp};

use calls::{Call, IDS, New, UNIT, call, id, kinds, outcome, owner};
use model::Model;

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
struct Pair<S> {
    store: S,
    model: Model,
    clock: Arc<ManualClock>,
}

impl<S: OperationStore> Pair<S> {
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
                let answer =
                    store.apply_with(id, change.clone(), outcome.clone(), |_| Vec::new()).await;
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
                let mut claimed = operations(store.claim(&request).await.unwrap());
                claimed.sort_by_key(Operation::id);
                let change = Change::Claim { lease: UNIT * lease };
                let due = model.due(&request.to_due_query(), now);
                let mut expected: Vec<Operation> =
                    due.iter().filter_map(|due| due.apply(&change, now).ok()).collect();
                for next in &expected {
                    model.write(next.clone(), None);
                }
                expected.sort_by_key(Operation::id);
                prop_assert_eq!(claimed, expected);
            }
            Call::Due { due, kinds: of_kinds, limit } => {
                let mut query = DueQuery::new(due, limit);
                query.kinds = kinds(of_kinds.as_ref());
                let found = operations(store.due(&query).await.unwrap());
                prop_assert_eq!(found, model.due(&query, now));
            }
            Call::Swap { operation, change, behind, outbox } => {
                let outbox = outbox.iter().map(New::submission).collect();
                self.swap(id(operation), &change, behind, outbox).await?;
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
    async fn swap(
        &mut self,
        id: OperationId,
        change: &Change,
        behind: u64,
        outbox: Vec<Submission>,
    ) -> TestCaseResult {
        let now = self.clock.now();
        let before = self.model.operation(id, now);
        let Some(next) = before.as_ref().and_then(|before| before.apply(change, now).ok()) else {
            return Ok(());
        };
        let version = before.as_ref().map_or(1, Operation::version);
        let swap = Swap::new(next.clone(), version.wrapping_sub(behind)).with_write_id(7);
        let swap = swap.with_outbox(outbox.clone());
        match self.store.swap(swap).await.unwrap() {
            Swapped::Swapped => {
                prop_assert_eq!(behind, 0);
                self.model.write(next, None);
                self.model.follow(outbox, now);
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
            // What a store does with the input of finished work is its own affair.
            if expected.as_ref().is_none_or(|entry| entry.operation.finished().is_none()) {
                let input = expected.as_ref().and_then(|entry| entry.input.clone());
                prop_assert_eq!(store.input(id).await.unwrap(), input);
            }
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
        Ok(())
    }
}

/// Up to 100 calls on a new store, and after each everything is compared; that many times, unless
/// `RA_CASES` names another number. `open` gives an empty store that goes by that clock, and `count`
/// says how many operations it holds, if it can tell.
pub(crate) fn answers_like_its_model<S, F>(
    cases: u32,
    open: impl Fn(Arc<ManualClock>) -> F,
    count: impl Fn(&S) -> Option<usize>,
) where
    S: OperationStore,
    F: Future<Output = S>,
{
    let seed = number("RA_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let cases = number("RA_CASES").unwrap_or(cases);
    // A failure is told with the calls that it takes, so no file of failures is kept.
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (reached, followed) = (RefCell::new(HashSet::new()), RefCell::new(0));
    let case = |calls: Vec<Call>| {
        runtime.block_on(async {
            let clock = Arc::new(ManualClock::new(Timestamp::from_unix_millis(1_000)));
            let store = open(clock.clone()).await;
            let mut pair = Pair { store, model: Model::default(), clock };
            for call in &calls {
                let before = pair.model.entries.len();
                pair.run(call).await?;
                pair.compare().await?;
                if let Some(count) = count(&pair.store) {
                    prop_assert_eq!(count, pair.model.entries.len());
                }
                if matches!(call, Call::Swap { .. }) && pair.model.entries.len() > before {
                    *followed.borrow_mut() += 1;
                }
                let statuses = pair.model.entries.iter().map(|entry| entry.operation.status());
                reached.borrow_mut().extend(statuses);
            }
            Ok(())
        })
    };
    // Few cases may by chance have left something out: then there are more, by a runner that has not run
    // all of its own yet.
    for seed in (0..20).map(|round| seed.wrapping_add(round)) {
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.to_be_bytes().repeat(4));
        let mut runner = TestRunner::new_with_rng(config.clone(), random);
        if let Err(failure) = runner.run(&vec(call(), 0..=100), case) {
            panic!("RA_SEED={seed}: {failure}");
        }
        if reached.borrow().len() == Status::ALL.len() && *followed.borrow() > 0 {
            break;
        }
    }
    assert_eq!(reached.borrow().len(), Status::ALL.len(), "the calls do not reach every state");
    assert!(*followed.borrow() > 0, "nothing followed from a write");
}

/// The number that an environment variable names.
fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}
