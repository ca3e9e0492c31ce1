use std::time::Duration;

use super::PreferField;
use crate::prefer::{Handling, PreferError, PreferErrorKind, Return};

#[track_caller]
fn assert_writes(field: &PreferField, expected: &str) {
    assert_eq!(field.to_header_value().unwrap(), expected);
}

#[track_caller]
fn assert_refuses(result: Result<PreferField, PreferError>, kind: PreferErrorKind, text: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind);
    assert_eq!(error.to_string(), text);
}

#[test]
fn nothing_is_not_a_field() {
    assert_eq!(PreferField::new().to_header_value(), None);
}

#[test]
fn the_registered_preferences() {
    let field = PreferField::new()
        .respond_async()
        .wait(Duration::from_secs(100))
        .return_(Return::Representation)
        .handling(Handling::Lenient);
    assert_writes(&field, "respond-async, wait=100, return=representation, handling=lenient");
}

#[test]
fn wait_is_rounded_up_and_limited() {
    for (time, expected) in [
        (Duration::ZERO, "wait=0"),
        (Duration::from_nanos(1), "wait=1"),
        (Duration::from_secs(1), "wait=1"),
        (Duration::from_millis(1_001), "wait=2"),
        (Duration::from_secs((1 << 31) - 1), "wait=2147483647"),
        (Duration::from_secs((1 << 31) + 1), "wait=2147483648"),
        (Duration::MAX, "wait=2147483648"),
    ] {
        assert_writes(&PreferField::new().wait(time), expected);
    }
}

#[test]
fn quotes_and_escapes_where_needed() {
    for (value, expected) in [
        ("", "x"),
        ("token", "x=token"),
        ("Case", "x=Case"),
        ("a b", r#"x="a b""#),
        ("a,b;c", r#"x="a,b;c""#),
        (r#"""#, r#"x="\"""#),
        (r"\", r#"x="\\""#),
        ("\t", "x=\"\t\""),
    ] {
        assert_writes(&PreferField::new().with("x", value).unwrap(), expected);
    }
    let bytes = PreferField::new().with("x", b"\xff").unwrap().to_header_value().unwrap();
    assert_eq!(bytes.as_bytes(), b"x=\"\xff\"");
}

#[test]
fn names_are_written_in_lower_case() {
    let field = PreferField::new().with("Foo", "Bar").unwrap().parameter("BAZ", "Q").unwrap();
    assert_writes(&field, "foo=Bar; baz=Q");
}

#[test]
fn parameters_follow_their_preference() {
    let field =
        PreferField::new().respond_async().parameter("a", "1").unwrap().parameter("b", "").unwrap();
    assert_writes(&field.wait(Duration::ZERO), "respond-async; a=1; b, wait=0");
}

#[test]
fn the_last_statement_replaces_the_earlier_one() {
    let field =
        PreferField::new().return_(Return::Minimal).parameter("x", "1").unwrap().respond_async();
    assert_writes(
        &field.clone().return_(Return::Representation),
        "respond-async, return=representation",
    );
    assert_writes(&field.with("RETURN", "other").unwrap(), "respond-async, return=other");
}

#[test]
fn refuses_what_no_field_can_carry() {
    let with = |name, value: &str| PreferField::new().with(name, value);
    let parameter = |name, value: &str| PreferField::new().respond_async().parameter(name, value);
    let unexpected = PreferErrorKind::UnexpectedByte;
    assert_refuses(with("", "x"), PreferErrorKind::EmptyName, "empty preference name at byte 0");
    assert_refuses(with("a b", "x"), unexpected, "unexpected ' ' in preference name at byte 1");
    assert_refuses(with("ö", "x"), unexpected, "unexpected byte 0xc3 in preference name at byte 0");
    assert_refuses(
        with("a", "x\r\ny"),
        unexpected,
        "unexpected byte 0x0d in preference value at byte 1",
    );
    assert_refuses(
        with("a", "\0"),
        unexpected,
        "unexpected byte 0x00 in preference value at byte 0",
    );
    assert_refuses(
        with("a", "\x7f"),
        unexpected,
        "unexpected byte 0x7f in preference value at byte 0",
    );
    assert_refuses(
        parameter("", "x"),
        PreferErrorKind::EmptyName,
        "empty parameter name at byte 0",
    );
    assert_refuses(parameter("a=", "x"), unexpected, "unexpected '=' in parameter name at byte 1");
    assert_refuses(
        parameter("a", "x\n"),
        unexpected,
        "unexpected byte 0x0a in parameter value at byte 1",
    );
}

#[test]
fn a_parameter_needs_a_preference() {
    let error = PreferField::new().parameter("a", "1");
    assert_refuses(
        error,
        PreferErrorKind::NoPreference,
        "parameter without a preference at byte 0",
    );
}
