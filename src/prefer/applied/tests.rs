use http::{HeaderMap, HeaderValue};

use super::{PREFERENCE_APPLIED, PreferenceApplied};
use crate::prefer::Preferences;

fn of(request: &str) -> PreferenceApplied {
    PreferenceApplied::of(&Preferences::parse(request).unwrap())
}

#[track_caller]
fn assert_writes(applied: &PreferenceApplied, expected: &str) {
    assert_eq!(applied.to_header_value().unwrap(), expected);
}

#[track_caller]
fn assert_empty(applied: &PreferenceApplied) {
    assert!(applied.is_empty());
    assert_eq!(applied.to_header_value(), None);
}

fn read(lines: &[&'static str]) -> PreferenceApplied {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(PREFERENCE_APPLIED, HeaderValue::from_static(line));
    }
    PreferenceApplied::from_headers(&headers)
}

#[test]
fn nothing_applied_is_no_field() {
    assert_empty(&of(""));
    assert_empty(&of("respond-async, wait=5"));
    assert_empty(&PreferenceApplied::default());
    assert_empty(&PreferenceApplied::default().respond_async());
}

#[test]
fn names_only_what_the_request_has() {
    let all = |request| of(request).respond_async().wait().return_().handling().preference("x");
    assert_empty(&all("other"));
    assert_writes(&all("respond-async"), "respond-async");
    assert_writes(&all("wait=5"), "wait=5");
    assert_writes(&all("return=minimal, y"), "return=minimal");
    assert_writes(&all("handling=strict, X=1"), "handling=strict, x=1");
}

#[test]
fn what_makes_no_sense_was_not_honoured() {
    assert_empty(&of("respond-async=1").respond_async());
    assert_empty(&of("wait=soon").wait());
    assert_empty(&of("return=all").return_());
    assert_empty(&of("handling=Strict").handling());
    // By its name any preference can be: some services give these values a meaning.
    assert_writes(&of("return=headers-only").preference("return"), "return=headers-only");
}

#[test]
fn keeps_the_order_and_the_value_of_the_request() {
    let request = "WAIT=\"200\", x=\"a \\\"b\\\"\", Respond-Async, wait=1";
    assert_writes(
        &of(request).respond_async().preference("X").wait(),
        r#"wait=200, x="a \"b\"", respond-async"#,
    );
    assert_writes(&of("wait=99999999999999999999").wait(), "wait=99999999999999999999");
}

#[test]
fn never_writes_parameters() {
    assert_writes(&of("respond-async; a=1, wait=5; b").respond_async(), "respond-async");
    assert_writes(
        &of("respond-async; a=1, wait=5; b").respond_async().wait(),
        "respond-async, wait=5",
    );
}

#[test]
fn naming_a_preference_twice_changes_nothing() {
    assert_writes(
        &of("respond-async").respond_async().preference("respond-async"),
        "respond-async",
    );
}

#[test]
fn reads_what_a_server_says() {
    let applied = read(&["Respond-Async; x=1, =, wait=5", "wait=6"]);
    assert!(applied.contains("respond-async"));
    assert_eq!(applied.get("RESPOND-ASYNC").unwrap().parameters().count(), 0);
    assert_eq!(applied.get("wait").unwrap().value().unwrap(), "5");
    assert!(!applied.contains("return"));
    assert_eq!(applied.iter().count(), 2);
    assert_eq!(applied, of("respond-async, wait=5").respond_async().wait());
    assert_eq!(format!("{applied:?}"), r#"PreferenceApplied[Respond-Async, wait="5"]"#);
    assert_empty(&read(&[]));
}
