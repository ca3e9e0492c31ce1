//! Typical fields are read without an allocation.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use respond_async::prefer::{PREFER, PREFERENCE_APPLIED, PreferenceApplied, Preferences};

fn headers(lines: &[&'static str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        // A value with a buffer of its own: cloning that would allocate.
        headers.append(PREFER, HeaderValue::from_str(line).unwrap());
    }
    headers
}

#[track_caller]
fn assert_allocations(expected: u64, run: impl FnOnce()) {
    assert_eq!(allocation_counter::measure(run).count_total, expected);
}

fn read_all(headers: &HeaderMap) -> Preferences {
    let preferences = Preferences::from_headers(headers);
    let _ = (
        preferences.respond_async(),
        preferences.wait(),
        preferences.return_(),
        preferences.handling(),
    );
    assert!(preferences.get("absent").is_none());
    assert_eq!(preferences.dropped().count(), 0);
    for preference in preferences.iter() {
        assert!(!preference.name().is_empty());
        assert!(preference.value().is_none_or(|value| value != "x"));
        assert!(
            preference
                .parameters()
                .all(|parameter| preference.parameter(parameter.name()) == Some(parameter))
        );
    }
    preferences
}

#[test]
fn typical_fields_need_none() {
    for lines in [
        &[] as &[&str],
        &["respond-async"],
        &["respond-async, wait=10"],
        &["return=minimal"],
        &["respond-async, wait=100, handling=lenient", r#"return=representation; foo="a,b;c""#],
        &["respond-async", "wait=100", "handling=lenient"],
        &[r#"callback; url="https://example.com/a,b"; retry="3;5"; token="q\"t""#],
    ] {
        let headers = headers(lines);
        assert_allocations(0, || drop(read_all(&headers).clone()));
    }
}

#[test]
fn escapes_are_compared_without() {
    let headers = headers(&[r#"wait="\1\0", title="a \"b\"""#]);
    assert_allocations(0, || {
        let preferences = Preferences::from_headers(&headers);
        assert_eq!(preferences.wait(), Some(Duration::from_secs(10)));
        assert!(
            preferences
                .get("title")
                .and_then(|title| title.value())
                .is_some_and(|value| value == r#"a "b""#)
        );
    });
}

#[test]
fn malformed_fields_need_none() {
    let headers = headers(&["foo=, wait=5, bar baz, wait=6", "x=\"respond-async"]);
    assert_allocations(0, || assert_eq!(Preferences::from_headers(&headers).dropped().count(), 4));
}

#[test]
fn longer_fields_need_one() {
    let headers = headers(&[
        r#"callback; url="https://example.com/some/longer/path?with=a,query;and=more#than-usual"; retry"#,
    ]);
    assert_allocations(1, || drop(read_all(&headers)));
}

#[test]
fn applying_respond_async_needs_none() {
    let mut request = headers(&["respond-async, wait=10"]);
    assert_allocations(0, || {
        let preferences = Preferences::from_headers(&request);
        let value = PreferenceApplied::of(&preferences).respond_async().to_header_value();
        assert!(value.is_some_and(|value| value == "respond-async"));
    });
    request.insert(PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"));
    assert_allocations(0, || {
        assert!(PreferenceApplied::from_headers(&request).contains("respond-async"));
    });
}
