//! The limits: each at its last permitted value, and one beyond.

use http::{HeaderMap, HeaderValue};

use crate::prefer::{MAX_FIELD_BYTES, MAX_PREFERENCES, PREFER, PreferErrorKind, Preferences};

fn read(lines: impl IntoIterator<Item = String>) -> Preferences {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(PREFER, HeaderValue::from_str(&line).unwrap());
    }
    Preferences::from_headers(&headers)
}

#[track_caller]
fn assert_dropped(preferences: &Preferences, expected: &[&str]) {
    let dropped: Vec<_> = preferences.dropped().map(|reason| reason.to_string()).collect();
    assert_eq!(dropped, expected);
}

/// `wait=1`, and a field of exactly this length that ends with `respond-async`.
fn field_of(length: usize) -> String {
    let (start, end) = ("wait=1, x=", ", respond-async");
    format!("{start}{}{end}", "x".repeat(length - start.len() - end.len()))
}

#[test]
fn as_many_bytes_as_the_limit_are_read() {
    let preferences = read([field_of(MAX_FIELD_BYTES)]);
    assert!(preferences.respond_async());
    assert_dropped(&preferences, &[]);
    assert_eq!(Preferences::parse(field_of(MAX_FIELD_BYTES)), Ok(preferences));
}

#[test]
fn one_byte_more_drops_the_last_preference() {
    let field = field_of(MAX_FIELD_BYTES + 1);
    let preferences = read([field.clone()]);
    assert!(preferences.wait().is_some());
    assert!(!preferences.respond_async());
    assert_eq!(preferences.len(), 2);
    assert_dropped(&preferences, &["field of more than 8192 bytes at byte 8192"]);

    let error = Preferences::parse(field).unwrap_err();
    assert_eq!(error.kind(), PreferErrorKind::TooLong);
    assert_eq!(error.position(), MAX_FIELD_BYTES);
}

#[test]
fn a_preference_is_never_cut_short() {
    let filler = "x".repeat(MAX_FIELD_BYTES - "x, wait=1".len() + 1);
    let preferences = read([format!("{filler}, wait=10")]);
    assert_eq!(preferences.wait(), None);
    assert_eq!(preferences.len(), 1);
    assert_dropped(&preferences, &["field of more than 8192 bytes at byte 8192"]);
}

#[test]
fn what_ends_with_a_comma_at_the_limit_is_whole() {
    let name = "x".repeat(MAX_FIELD_BYTES - 1);
    let preferences = read([format!("{name},respond-async")]);
    assert!(preferences.get(&name).is_some());
    assert_dropped(&preferences, &["field of more than 8192 bytes at byte 8192"]);
}

#[test]
fn a_quote_that_is_cut_off_is_too_long_rather_than_unterminated() {
    let preferences = read([format!("a, b=\"{}\", c", "x".repeat(MAX_FIELD_BYTES))]);
    assert_eq!(preferences.len(), 1);
    assert_dropped(&preferences, &["field of more than 8192 bytes at byte 8192"]);
}

#[test]
fn the_limit_spans_lines() {
    let name = "x".repeat(MAX_FIELD_BYTES - "\na".len());
    let preferences = read([name.clone(), "a".into()]);
    assert_eq!(preferences.len(), 2);
    assert_dropped(&preferences, &[]);

    let preferences = read([name.clone(), "ab".into()]);
    assert_eq!(preferences.len(), 1);
    assert_dropped(&preferences, &["field of more than 8192 bytes at byte 1 of field line 1"]);

    // A line that just fits is whole; the next one is not begun.
    let preferences = read([format!("{name}xx"), "a".into(), "b".into()]);
    assert_eq!(preferences.len(), 1);
    assert_dropped(&preferences, &["field of more than 8192 bytes at byte 0 of field line 1"]);
}

#[test]
fn lines_of_nothing_are_limited_too() {
    let preferences = read((0..=MAX_FIELD_BYTES + 1).map(|_| String::new()));
    assert!(preferences.is_empty());
    assert_dropped(&preferences, &["field of more than 8192 bytes at byte 0 of field line 8193"]);
}

#[test]
fn as_many_preferences_as_the_limit_are_read() {
    let names: Vec<_> = (0..MAX_PREFERENCES).map(|index| format!("p{index}")).collect();
    let preferences = read([names.join(",")]);
    assert_eq!(preferences.len(), MAX_PREFERENCES);
    assert_dropped(&preferences, &[]);
    assert_eq!(Preferences::parse(names.join(",") + " , ,"), Ok(preferences));
}

#[test]
fn one_preference_more_is_dropped_with_all_that_follow() {
    let names: Vec<_> = (0..MAX_PREFERENCES).map(|index| format!("p{index:02}")).collect();
    let field = names.join(",") + ",respond-async, wait=5";
    let preferences = read([field.clone(), "more".into()]);
    assert_eq!(preferences.len(), MAX_PREFERENCES);
    assert!(!preferences.respond_async());
    assert_dropped(&preferences, &["list of more than 64 preferences at byte 256"]);

    let error = Preferences::parse(field).unwrap_err();
    assert_eq!(error.kind(), PreferErrorKind::TooMany);
    assert_eq!(error.to_string(), "list of more than 64 preferences at byte 256");
}

#[test]
fn malformed_and_repeated_members_count() {
    let preferences = read([",a b, x".repeat(MAX_PREFERENCES)]);
    assert_eq!(preferences.len(), 1);
    assert_eq!(preferences.dropped().count(), MAX_PREFERENCES);
    assert_eq!(
        preferences.dropped().last().map(|reason| reason.kind()),
        Some(PreferErrorKind::TooMany)
    );
}

#[test]
fn a_cut_field_with_too_many_preferences_is_dropped_once() {
    let preferences = read(["a,".repeat(MAX_FIELD_BYTES)]);
    assert_eq!(
        preferences.dropped().filter(|reason| reason.kind() != PreferErrorKind::Duplicate).count(),
        1
    );
}
