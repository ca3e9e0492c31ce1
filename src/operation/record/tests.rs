use proptest::prelude::*;

use super::*;
use crate::operation::{Change, Due, NewOperation, TransitionError};
use crate::problem::types;

/// The records of each state, as the first version wrote them.
const GOLDEN: &str = include_str!("../../../tests/data/records/v1.jsonl");
/// With the callbacks, traces and last errors that came after that.
const ADDED: &str = include_str!("../../../tests/data/records/added.jsonl");
const LEASE: Duration = Duration::from_secs(30);

fn at(second: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_800_000_000_000 + second * 1_000)
}

fn new() -> NewOperation {
    NewOperation::new(OperationId::from_parts(at(0), [7; 10]))
}

/// One operation of each state, with every member that a state can have.
fn operations() -> Vec<Operation> {
    let apply = |operation: &Operation, change: Change, second| {
        operation.apply(&change, at(second)).unwrap()
    };
    let full = new()
        .with_kind(Kind::new("images.enhance").unwrap())
        .with_owner(Owner::new("Zoë \"<z>\"").unwrap())
        .with_attempt_limit(3)
        .with_retention(LEASE)
        .with_delay(Duration::from_millis(1))
        .with_deadline(LEASE * 10);
    let pending = full.clone().accept(at(0));
    let running = apply(&pending, Change::Claim { lease: LEASE }, 1);
    let progress = Progress::new(1.0 / 3.0, "sharpening \u{1f5bc}");
    let reported = apply(&running, Change::Progress { attempt: 1, progress }, 2);
    let outcome = OutcomeHead::new(StatusCode::CREATED, Some(UriReference::new("/images/17")));
    let error = Problem::new(types::OVERLOADED)
        .with_detail("no luck")
        .with_extension("more", serde_json::json!({"a": [1, 2.5, null]}))
        .with_retry_after(LEASE);
    vec![
        new().accept(at(0)),
        pending,
        new().held(LEASE, false).accept(at(0)),
        reported.clone(),
        apply(&reported, Change::Cancel, 3),
        apply(&reported, Change::Release { attempt: 1 }, 3),
        apply(&reported, Change::Retry { attempt: 1, delay: LEASE, error: error.clone() }, 3),
        apply(&reported, Change::Succeed { attempt: 1, head: outcome }, 3),
        apply(&reported, Change::Fail { attempt: 1, error }, 3),
        apply(&apply(&reported, Change::Cancel, 3), Change::ConfirmCancel { attempt: 1 }, 4),
    ]
}

/// The file is never changed; what this version writes may grow.
#[test]
fn what_the_first_version_wrote_is_read_and_goes_on() {
    let records: Vec<_> = GOLDEN.lines().collect();
    let operations = operations();
    assert_eq!(records.len(), operations.len());
    for (record, expected) in records.iter().zip(operations) {
        let read = Operation::from_record(record.as_bytes()).unwrap();
        // The first version did not keep why an attempt failed.
        let expected = State { last_error: None, ..State::clone(&expected.0) };
        let expected = Operation(Arc::new(expected));
        assert_eq!(read, expected);
        assert_eq!(String::from_utf8(read.to_record()).unwrap(), *record);
        for change in [Change::Claim { lease: LEASE }, Change::Cancel, Change::Settle] {
            assert_eq!(read.apply(&change, at(60)), expected.apply(&change, at(60)));
        }
    }
}

/// The same of members that came later.
#[test]
fn what_was_added_since_is_read_and_goes_on() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let callback = Callback::new("https://client.example/done?x=1").map(Callback::with_progress);
    let pending = new()
        .with_callback(callback)
        .with_trace(TraceContext::new(parent, "a=1,b=2"))
        .accept(at(0));
    let running = pending.apply(&Change::Claim { lease: LEASE }, at(1)).unwrap();
    let error = Problem::new(types::OVERLOADED).with_detail("no luck").with_retry_after(LEASE);
    let retry = Change::Retry { attempt: 1, delay: LEASE, error };
    let retried = running.apply(&retry, at(2)).unwrap();
    let records: Vec<_> = ADDED.lines().collect();
    assert_eq!(records.len(), 3);
    for (record, expected) in records.iter().zip([pending, running, retried]) {
        assert_eq!(String::from_utf8(expected.to_record()).unwrap(), *record);
        assert_eq!(Operation::from_record(record.as_bytes()).unwrap(), expected);
    }
}

#[test]
fn a_callback_is_kept_by_every_change_and_a_broken_one_is_left_out() {
    let callback = Callback::new("https://client.example/done?x=1").map(Callback::with_progress);
    let pending = new().with_callback(callback.clone()).accept(at(0));
    let running = pending.apply(&Change::Claim { lease: LEASE }, at(1)).unwrap();
    let read = Operation::from_record(&running.to_record()).unwrap();
    assert_eq!((read.callback(), &read), (callback.as_ref(), &running));
    let record = String::from_utf8(pending.to_record()).unwrap();
    for broken in ["", " ", "\\n"] {
        let record = record.replace("https://client.example/done?x=1", broken);
        assert_eq!(Operation::from_record(record.as_bytes()).unwrap().callback(), None);
    }
}

#[test]
fn a_trace_is_kept_by_every_change_and_a_broken_one_is_left_out() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for state in ["", "a=1,b=2"] {
        let trace = TraceContext::new(parent, state);
        assert!(trace.is_some());
        let pending = new().with_trace(trace.clone()).accept(at(0));
        let running = pending.apply(&Change::Claim { lease: LEASE }, at(1)).unwrap();
        let read = Operation::from_record(&running.to_record()).unwrap();
        assert_eq!((read.trace(), &read), (trace.as_ref(), &running));
    }
    let record = String::from_utf8(
        new().with_trace(TraceContext::new(parent, "")).accept(at(0)).to_record(),
    );
    let broken = record.unwrap().replace(parent, "00-nothing");
    assert_eq!(Operation::from_record(broken.as_bytes()).unwrap().trace(), None);
}

#[test]
fn unknown_members_are_kept_by_every_change() {
    for (record, operation) in GOLDEN.lines().zip(operations()) {
        let more = r#","zone":{"b":[1.10,null],"a":"\u0000"},"schema_hint":2}"#;
        let newer = format!("{}{more}", record.strip_suffix('}').unwrap());
        let read = Operation::from_record(newer.as_bytes()).unwrap();
        assert_ne!(read, operation);
        assert_eq!(read.status(), operation.status());
        let next = read.apply(&Change::Cancel, at(60)).unwrap_or(read);
        let text = String::from_utf8(next.to_record()).unwrap();
        assert!(text.contains(r#""zone":{"a":"\u0000","b":[1.1,null]}"#), "{text}");
        assert_eq!(Operation::from_record(text.as_bytes()).unwrap(), next);
    }
}

#[test]
fn an_unknown_state_or_form_is_shown_and_left_alone() {
    let suspended = |record: &str| {
        let (before, rest) = record.split_once("\"status\":\"").unwrap();
        let (_, after) = rest.split_once('"').unwrap();
        format!("{before}\"status\":\"suspended\"{after}")
    };
    let newer = |record: &str| record.replace("\"schema\":1", "\"schema\":2");
    for record in GOLDEN.lines().flat_map(|record| [suspended(record), newer(record)]) {
        let read = Operation::from_record(record.as_bytes()).unwrap();
        assert_eq!(read.status(), Status::Running);
        for due in Due::ALL {
            assert_eq!(read.due_at(due), None);
            assert!(!read.is_due(due, Timestamp::MAX));
        }
        for change in [
            Change::Claim { lease: LEASE },
            Change::Renew { attempt: read.attempt(), lease: LEASE },
            Change::Fail { attempt: read.attempt(), error: Problem::new(types::INTERNAL) },
            Change::Cancel,
            Change::Settle,
        ] {
            assert_eq!(read.apply(&change, at(60)), Err(TransitionError::UnknownState));
        }
        assert_eq!(read.to_record(), record.as_bytes());
    }
}

#[test]
fn what_is_no_record_is_an_error_that_says_why() {
    let record = GOLDEN.lines().nth(7).unwrap();
    assert!(Operation::from_record(record.as_bytes()).is_ok());
    for (wrong, why) in [
        (record.replace("\"version\"", "\"v\""), "version is missing"),
        (record.replace("\"code\":201", "\"code\":1"), "invalid status code"),
        (record.replace("\"code\":201,", ""), "code is missing"),
        (record.replace("images.enhance", "a b"), "a kind must be"),
        (record.replace("\"attempt\":1", "\"attempt\":-1"), "invalid value"),
        (record[..record.len() / 2].to_owned(), "EOF"),
        (String::new(), "EOF"),
        ("[]".to_owned(), "the record of an operation"),
    ] {
        let error = Operation::from_record(wrong.as_bytes()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(why), "{source}");
    }
}

#[test]
fn an_outcome_is_kept_byte_for_byte() {
    let mut outcome = Outcome::new(StatusCode::from_u16(299).unwrap());
    outcome.body = bytes::Bytes::from_static(b"\0\xff\n");
    assert_eq!(Outcome::from_record(&outcome.to_record(), outcome.body.clone()).unwrap(), outcome);
    let every: Vec<u8> = (32..=255).filter(|byte| *byte != 127).chain([b'\t']).collect();
    for value in [&b""[..], b":", b"a:b", &every] {
        outcome.headers.append("x-many", HeaderValue::from_bytes(value).unwrap());
    }
    outcome.headers.append("x-one", HeaderValue::from_static("1"));
    let read = Outcome::from_record(&outcome.to_record(), outcome.body.clone()).unwrap();
    assert_eq!(read, outcome);
    let many =
        |outcome: &Outcome| outcome.headers.get_all("x-many").iter().cloned().collect::<Vec<_>>();
    assert_eq!(many(&read), many(&outcome));
    for wrong in [&b""[..], b"20", b"abc", b"200\n", b"200\nx", b"200\nx y:1", b"200\nx:\r"] {
        assert!(Outcome::from_record(wrong, "").is_err(), "{wrong:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_round_trip(which in 0_usize..10, fraction: f64, message: String, delay: u64) {
        let operation = operations()[which].clone();
        let reported = Change::Progress { attempt: 1, progress: Progress::new(fraction, message) };
        let retried = Change::Retry {
            attempt: 1,
            delay: Duration::from_millis(delay),
            error: Problem::new(types::INTERNAL),
        };
        for change in [reported, retried] {
            let next = operation.apply(&change, at(60)).unwrap_or_else(|_| operation.clone());
            prop_assert_eq!(Operation::from_record(&next.to_record()).unwrap(), next);
        }
    }

    /// Bytes from anywhere are an operation or an error, and what was read can be written and read.
    #[test]
    fn any_bytes_are_survived(
        which in 0_usize..10,
        from: prop::sample::Index,
        to: prop::sample::Index,
        with in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut record = GOLDEN.lines().nth(which).unwrap().as_bytes().to_vec();
        let (from, to) = (from.index(record.len()), to.index(record.len()));
        record.splice(from.min(to)..from.max(to), with);
        if let Ok(read) = Operation::from_record(&record) {
            prop_assert_eq!(Operation::from_record(&read.to_record()).unwrap(), read);
        }
        if let Ok(read) = Outcome::from_record(&record, "") {
            prop_assert_eq!(Outcome::from_record(&read.to_record(), "").unwrap(), read);
        }
    }
}

#[test]
#[ignore = "it prints the golden file, for when a state is added"]
#[allow(clippy::print_stdout, reason = "that is what it is for")]
fn print_records() {
    for operation in operations() {
        println!("{}", String::from_utf8(operation.to_record()).unwrap());
    }
}
