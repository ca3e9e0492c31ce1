use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::header::UriReference;
use crate::problem::types;

const LEASE: Duration = Duration::from_secs(30);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_millis(seconds * 1_000)
}

fn new() -> NewOperation {
    NewOperation::new(OperationId::from_parts(at(0), [7; 10])).with_attempt_limit(2)
}

fn claim() -> Change {
    Change::Claim { lease: LEASE }
}

fn head() -> OutcomeHead {
    OutcomeHead::new(StatusCode::CREATED, Some(UriReference::new("/images/17")))
}

/// All changes, the worker's under one attempt.
fn changes(attempt: u32) -> [Change; 14] {
    let error = Problem::from_status(StatusCode::BAD_GATEWAY);
    [
        claim(),
        Change::Start { attempt },
        Change::Renew { attempt, lease: LEASE },
        Change::Progress { attempt, progress: Progress::new(0.5, "half") },
        Change::Succeed { attempt, head: head() },
        Change::Fail { attempt, error: error.clone() },
        Change::Retry { attempt, delay: LEASE, error: error.clone() },
        Change::Release { attempt },
        Change::Cancel,
        Change::ConfirmCancel { attempt },
        Change::Settle,
        Change::Complete { end: Ok(head()) },
        Change::Complete { end: Err(error) },
        Change::Unclaim { attempt },
    ]
}

/// Every state that differs in what may happen next, at second 100.
fn states() -> Vec<(&'static str, Operation)> {
    let run = |operation: &Operation, change: Change, second| {
        operation.apply(&change, at(second)).unwrap()
    };
    let pending = new().accept(at(90));
    let running = run(&pending, claim(), 90);
    let canceling = run(&running, Change::Cancel, 90);
    let lapsed = run(&new().accept(at(60)), claim(), 60);
    let second = run(&lapsed, claim(), 90);
    let overdue = new().with_deadline(Duration::from_secs(10)).accept(at(90));
    vec![
        ("pending", pending.clone()),
        ("delayed", new().with_delay(LEASE).accept(at(90))),
        ("overdue", overdue.clone()),
        ("held", new().held(LEASE, false).accept(at(90))),
        ("held lapsed", new().with_attempt_limit(1).held(LEASE, false).accept(at(60))),
        ("running", running.clone()),
        ("running overdue", run(&overdue, claim(), 90)),
        ("running lapsed", lapsed),
        ("last attempt", second.clone()),
        ("last lapsed", run(&second, Change::Renew { attempt: 2, lease: Duration::ZERO }, 91)),
        ("canceling", canceling.clone()),
        (
            "canceling lapsed",
            run(&canceling, Change::Renew { attempt: 1, lease: Duration::ZERO }, 91),
        ),
        ("released", run(&running, Change::Release { attempt: 1 }, 95)),
        ("succeeded", run(&running, Change::Succeed { attempt: 1, head: head() }, 95)),
        ("failed", run(&running, changes(1)[5].clone(), 95)),
        ("canceled", run(&pending, Change::Cancel, 95)),
    ]
}

/// The state machine whole: each cell is what a change by the current attempt makes of a state.
#[test]
fn every_change_in_every_state() {
    #[rustfmt::skip]
    let expected = [
        // state            claim    start    renew    progress succeed  fail     retry    release  cancel   confirm  settle   complete  broken unclaim
        "pending          | running  lost     lost     lost     lost     lost     lost     lost     canceled lost     nothing  succeeded failed lost",
        "delayed          | early    lost     lost     lost     lost     lost     lost     lost     canceled lost     nothing  succeeded failed lost",
        "overdue          | never    lost     lost     lost     lost     lost     lost     lost     canceled lost     failed   late      failed lost",
        "held             | early    running  pending  idle     idle     failed   pending  pending  canceled unasked  nothing  succeeded failed pending",
        "held lapsed      | never    running  pending  idle     idle     failed   failed   pending  canceled unasked  failed   succeeded failed pending",
        "running          | early    begun    running  running  succeeded failed  pending  pending  running  unasked  nothing  succeeded failed pending",
        "running overdue  | never    begun    running  running  late     failed   pending  pending  running  unasked  failed   late      failed pending",
        "running lapsed   | running  begun    running  running  succeeded failed  pending  pending  running  unasked  nothing  succeeded failed pending",
        "last attempt     | never    begun    running  running  succeeded failed  failed   pending  running  unasked  nothing  succeeded failed pending",
        "last lapsed      | never    begun    running  running  succeeded failed  failed   pending  running  unasked  failed   succeeded failed pending",
        "canceling        | never    begun    running  running  succeeded failed  canceled canceled running  canceled nothing  succeeded failed canceled",
        "canceling lapsed | never    begun    running  running  succeeded failed  canceled canceled running  canceled canceled succeeded failed canceled",
        "released         | running  lost     lost     lost     lost     lost     lost     lost     canceled lost     nothing  succeeded failed lost",
        "succeeded        | over     over     over     over     over     over     over     over     over     over     over     over      over   over",
        "failed           | over     over     over     over     over     over     over     over     over     over     over     over      over   over",
        "canceled         | over     over     over     over     over     over     over     over     over     over     over     over      over   over",
    ];
    let word = |result: Result<Operation, TransitionError>| match result {
        Ok(operation) => operation.status().as_str(),
        Err(TransitionError::Finished) => "over",
        Err(TransitionError::UnknownState) => "unknown",
        Err(TransitionError::LeaseLost) => "lost",
        Err(TransitionError::NotClaimable) => "early",
        Err(TransitionError::Unclaimable) => "never",
        Err(TransitionError::DeadlinePassed) => "late",
        Err(TransitionError::NotRunning) => "idle",
        Err(TransitionError::AlreadyRunning) => "begun",
        Err(TransitionError::CancelNotRequested) => "unasked",
        Err(TransitionError::NothingDue) => "nothing",
    };
    let states = states();
    assert_eq!(states.len(), expected.len());
    for ((name, state), row) in states.iter().zip(expected) {
        let (row_name, cells) = row.split_once('|').unwrap();
        assert_eq!(*name, row_name.trim());
        let cells: Vec<_> = cells.split_whitespace().collect();
        let changes = changes(state.attempt());
        assert_eq!(cells.len(), changes.len());
        for (change, cell) in changes.iter().zip(cells) {
            assert_eq!(word(state.apply(change, at(100))), cell, "{name}: {change:?}");
        }
        // Any other attempt is refused, whatever it asks for, and before anything else but the end.
        for attempt in [state.attempt() + 1, state.attempt().wrapping_sub(1)] {
            for change in changes_by_workers(attempt) {
                let refused = if state.finished().is_some() { "over" } else { "lost" };
                assert_eq!(word(state.apply(&change, at(100))), refused, "{name}: {change:?}");
            }
        }
    }
}

fn changes_by_workers(attempt: u32) -> impl Iterator<Item = Change> {
    changes(attempt).into_iter().filter(|change| change.attempt().is_some())
}

#[test]
fn what_ends_without_an_answer_says_why() {
    let settled = |name: &str| {
        let (_, state) = states().into_iter().find(|(state, _)| *state == name).unwrap();
        state.apply(&Change::Settle, at(100)).unwrap()
    };
    for (state, kind) in [
        ("overdue", types::DEADLINE_PASSED),
        ("running overdue", types::DEADLINE_PASSED),
        ("held lapsed", types::INTERRUPTED),
        ("last lapsed", types::ATTEMPTS_EXHAUSTED),
    ] {
        let operation = settled(state);
        assert!(operation.error().unwrap().is(kind), "{state}");
        assert_eq!(operation.outcome_head().unwrap().status(), kind.status());
    }
}

#[test]
fn an_end_is_recorded_whole() {
    let running = new().with_retention(LEASE).accept(at(0)).apply(&claim(), at(1)).unwrap();
    let reported = running
        .apply(&Change::Progress { attempt: 1, progress: Progress::new(0.9, "nearly") }, at(2))
        .unwrap();
    let done = reported.apply(&Change::Succeed { attempt: 1, head: head() }, at(3)).unwrap();
    assert_eq!(
        (done.created(), done.started(), done.finished()),
        (at(0), Some(at(1)), Some(at(3)))
    );
    assert_eq!(done.expires(), Some(at(33)));
    assert_eq!((done.version(), done.revision(), done.attempt()), (4, 4, 1));
    assert_eq!(done.outcome_head(), Some(&head()));
    assert_eq!(done.progress(), None);
    let failed = reported.apply(&changes(1)[5], at(3)).unwrap();
    assert_eq!(failed.progress(), reported.progress());
    assert!(!done.is_expired(at(32)) && done.is_expired(at(33)));
    assert_eq!(done.error(), None);
}

#[test]
fn renewal_is_seen_by_no_client() {
    let running = new().accept(at(0)).apply(&claim(), at(1)).unwrap();
    let renewed = running.apply(&Change::Renew { attempt: 1, lease: LEASE }, at(20)).unwrap();
    assert_eq!(renewed.revision(), running.revision());
    assert_eq!(renewed.updated(), running.updated());
    assert_eq!(renewed.version(), running.version() + 1);
    assert_eq!(renewed.lease_expires(), Some(at(50)));
}

#[test]
fn an_attempt_is_given_back_once() {
    let mut operation = new().accept(at(0));
    assert_eq!(operation.attempts_left(), 2);
    for (second, left) in [(1, 2), (2, 1)] {
        operation = operation.apply(&claim(), at(second)).unwrap();
        let attempt = operation.attempt();
        operation = operation.apply(&Change::Release { attempt }, at(second)).unwrap();
        assert_eq!(operation.attempts_left(), left);
    }
    // What has not begun costs nothing, however often.
    for second in 3..9 {
        operation = operation.apply(&claim(), at(second)).unwrap();
        let attempt = operation.attempt();
        operation = operation.apply(&Change::Unclaim { attempt }, at(second)).unwrap();
        assert_eq!(operation.attempts_left(), 1);
    }
    let last = operation.apply(&claim(), at(9)).unwrap();
    let ended = last.apply(&Change::Release { attempt: 9 }, at(9)).unwrap();
    assert!(ended.error().unwrap().is(types::ATTEMPTS_EXHAUSTED));
}

#[test]
fn a_second_cancel_writes_nothing() {
    let running = new().accept(at(0)).apply(&claim(), at(1)).unwrap();
    let canceling = running.apply(&Change::Cancel, at(2)).unwrap();
    assert!(canceling.is_cancel_requested() && !running.is_cancel_requested());
    assert_eq!(canceling.apply(&Change::Cancel, at(3)), Ok(canceling.clone()));
}

/// What a client sees, which is what the entity tag stands for.
fn seen(operation: &Operation) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        operation.status(),
        operation.progress().cloned(),
        operation.is_cancel_requested(),
        (operation.updated(), operation.started(), operation.finished(), operation.expires()),
        operation.attempt(),
        operation.error().cloned(),
        operation.outcome_head().cloned(),
    )
}

fn new_operations() -> impl Strategy<Value = NewOperation> {
    let held = prop_oneof![Just(None), any::<bool>().prop_map(Some)];
    let deadline = prop_oneof![Just(None), (0_u64..200).prop_map(Some)];
    (0_u32..4, 0_u64..50, 0_u64..100, deadline, held).prop_map(
        |(limit, delay, retention, deadline, held)| {
            let mut new = NewOperation::new(OperationId::from_parts(at(0), [7; 10]))
                .with_attempt_limit(limit)
                .with_delay(Duration::from_secs(delay))
                .with_retention(Duration::from_secs(retention));
            if let Some(deadline) = deadline {
                new = new.with_deadline(Duration::from_secs(deadline));
            }
            if let Some(running) = held {
                new = new.held(LEASE, running);
            }
            new
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any sequence of changes, by the right and the wrong worker, at times that may go backwards.
    #[test]
    fn invariants_hold_over_any_sequence(
        new in new_operations(),
        steps in prop::collection::vec((0_usize..14, 0_u32..3, -5_i64..40), 0..60),
    ) {
        let mut now = at(1_000);
        let mut operation = new.accept(now);
        for (change, behind, seconds) in steps {
            now = Timestamp::from_unix_millis(now.as_unix_millis() + seconds * 1_000);
            let attempt = operation.attempt().saturating_sub(behind);
            let change = changes(attempt)[change].clone();
            let next = operation.apply(&change, now);
            prop_assert_eq!(&next, &operation.apply(&change, now), "not a function");
            let Ok(next) = next else { continue };

            prop_assert!(operation.finished().is_none(), "a finished operation changed");
            if change.attempt().is_some() {
                prop_assert_eq!(attempt, operation.attempt(), "a stale attempt was let in");
            }
            let is_claim = matches!(change, Change::Claim { .. });
            prop_assert_eq!(next.attempt(), operation.attempt() + u32::from(is_claim));
            if is_claim {
                prop_assert!(!operation.is_cancel_requested());
                prop_assert_eq!(next.attempts_left() + 1, operation.attempts_left());
            }
            if next.version() == operation.version() {
                prop_assert_eq!(&next, &operation);
            } else {
                prop_assert_eq!(next.version(), operation.version() + 1);
            }
            // The revision, which is the entity tag, grows if and only if a client sees a change
            // (the time of the change itself among it).
            let changed = next.revision() == operation.revision() + 1;
            prop_assert!(changed || next.revision() == operation.revision());
            if !changed {
                prop_assert_eq!(seen(&next), seen(&operation));
            }
            // Nothing is ever stuck.
            let dues = [Due::Claim, Due::Settle].map(|due| next.due_at(due).is_some());
            prop_assert_eq!(dues.contains(&true), next.finished().is_none());
            prop_assert_eq!(next.due_at(Due::Expire).is_some(), next.finished().is_some());
            prop_assert_eq!(next.lease_expires().is_some() && next.status() == Status::Pending
                || next.status() == Status::Running, next.lease_expires().is_some());
            operation = next;
        }
    }

    /// Left to time alone, with a worker that always vanishes, every operation ends.
    #[test]
    fn every_operation_ends(new in new_operations()) {
        let mut now = at(1_000);
        let mut operation = new.accept(now);
        for _ in 0..20 {
            let Some(due) = [Due::Claim, Due::Settle]
                .into_iter()
                .filter_map(|due| Some((operation.due_at(due)?, due)))
                .min_by_key(|(at, due)| (*at, *due == Due::Claim))
            else {
                break;
            };
            now = now.max(due.0);
            let change = if due.1 == Due::Claim { claim() } else { Change::Settle };
            operation = operation.apply(&change, now).unwrap();
        }
        prop_assert!(operation.status().is_finished(), "{operation:?}");
    }
}
