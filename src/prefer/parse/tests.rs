//! The strict door: what it accepts, where it stops and what it says. And that reading is linear.

use super::{is_text, is_token, steps};
use crate::prefer::{MAX_FIELD_BYTES, PreferErrorKind, Preferences};

#[track_caller]
fn assert_accepts(field: &str, debug: &str) {
    let preferences = Preferences::parse(field).unwrap();
    assert_eq!(format!("{preferences:?}"), format!("Preferences[{debug}]"));
}

#[track_caller]
fn assert_refuses(field: impl AsRef<[u8]>, kind: PreferErrorKind, text: &str) {
    let error = Preferences::parse(field).unwrap_err();
    assert_eq!(error.to_string(), text);
    assert_eq!(error.kind(), kind);
    assert_eq!(format!("{error:#} at byte {}", error.position()), text);
    assert_eq!(error.line(), 0);
}

#[track_caller]
fn assert_unexpected(field: impl AsRef<[u8]>, text: &str) {
    assert_refuses(field, PreferErrorKind::UnexpectedByte, &format!("unexpected {text}"));
}

#[test]
fn accepts_what_a_recipient_has_to() {
    assert_accepts("", "");
    assert_accepts(" , ,", "");
    assert_accepts("foo", "foo");
    assert_accepts("foo, bar=1", r#"foo, bar="1""#);
    assert_accepts("\t foo\t =\t \"a, b\" ; ; c = d;\t, e ", r#"foo="a, b"; c="d", e"#);
    assert_accepts("foo=\"\"; bar=\"\"", "foo; bar");
    assert_accepts("wait=soon, wait=5", r#"wait="soon""#);
    assert_accepts(r#"a="\"\\\x""#, r#"a="\"\\x""#);
}

#[test]
fn tells_where_in_the_grammar_a_byte_is_wrong() {
    assert_unexpected("=foo", "'=' in preference name at byte 0");
    assert_unexpected("f/o", "'/' in preference name at byte 1");
    assert_unexpected("a, f(o", "'(' in preference name at byte 4");
    assert_unexpected("foo bar", "'b' after preference name at byte 4");
    assert_unexpected("foo=@", "'@' in preference value at byte 4");
    assert_unexpected("foo=b@r", "'@' in preference value at byte 5");
    assert_unexpected("foo=b r", "'r' after preference value at byte 6");
    assert_unexpected("foo=\"b\"r", "'r' after preference value at byte 7");
    assert_unexpected("foo;=", "'=' in parameter name at byte 4");
    assert_unexpected("foo; b[r", "'[' in parameter name at byte 6");
    assert_unexpected("foo; bar baz", "'b' after parameter name at byte 9");
    assert_unexpected("foo; bar=<", "'<' in parameter value at byte 9");
    assert_unexpected("foo; bar=a>", "'>' in parameter value at byte 10");
    assert_unexpected("foo; bar=a b", "'b' after parameter value at byte 11");
}

#[test]
fn names_bytes_that_cannot_be_shown() {
    assert_unexpected(b"foo\0", "byte 0x00 in preference name at byte 3");
    assert_unexpected(b"f\xc3\xb6", "byte 0xc3 in preference name at byte 1");
    assert_unexpected(b"foo=\xff", "byte 0xff in preference value at byte 4");
    assert_unexpected(b"foo=\"a\x7f\"", "byte 0x7f in preference value at byte 6");
    assert_unexpected(b"foo=\"\\\r\"", "byte 0x0d in preference value at byte 6");
}

#[test]
fn takes_no_line_feed_for_the_end_of_a_line() {
    assert_unexpected("\nfoo", "byte 0x0a in preference name at byte 0");
    assert_unexpected("foo\nbar", "byte 0x0a in preference name at byte 3");
    assert_unexpected("foo,\nbar", "byte 0x0a in preference name at byte 4");
    assert_unexpected("foo=\n", "byte 0x0a in preference value at byte 4");
    assert_unexpected("foo=bar\n", "byte 0x0a in preference value at byte 7");
    assert_unexpected("foo=\"bar\n\"", "byte 0x0a in preference value at byte 8");
    assert_unexpected("foo=\"bar\\\n\"", "byte 0x0a in preference value at byte 9");
}

#[test]
fn wants_a_value_after_an_equals_sign() {
    let kind = PreferErrorKind::EmptyValue;
    assert_refuses("foo=", kind, "empty preference value at byte 4");
    assert_refuses("foo= , bar", kind, "empty preference value at byte 5");
    assert_refuses("foo=;bar", kind, "empty preference value at byte 4");
    assert_refuses("foo; bar=", kind, "empty parameter value at byte 9");
}

#[test]
fn wants_quotes_to_be_closed() {
    let kind = PreferErrorKind::UnterminatedQuote;
    assert_refuses("foo=\"", kind, "unterminated quote in preference value at byte 4");
    assert_refuses("foo=\"bar, baz", kind, "unterminated quote in preference value at byte 4");
    assert_refuses("foo=\"bar\\\"", kind, "unterminated quote in preference value at byte 4");
    assert_refuses("foo=\"bar\\", kind, "unterminated quote in preference value at byte 4");
    assert_refuses("foo; bar=\"baz", kind, "unterminated quote in parameter value at byte 9");
}

#[test]
fn classes_of_bytes() {
    for byte in u8::MIN..=u8::MAX {
        let delimiter = b"\"(),/:;<=>?@[\\]{}".contains(&byte);
        assert_eq!(is_token(byte), byte.is_ascii_graphic() && !delimiter, "{byte:#x}");
        assert_eq!(is_text(byte), !byte.is_ascii_control() || byte == b'\t', "{byte:#x}");
    }
}

/// Each piece is a way to make a parser go back over what it has seen.
const HOSTILE: [&str; 12] =
    ["\"", "\\", "\\\"", "=\"\\", "a=\"", ",", ";", " ", "a", "a;", "a b,", "a=\"\\\"\","];

#[test]
fn reading_is_linear() {
    for piece in HOSTILE {
        for prefix in ["", "a=\"", "a=\"\\", "a b", "a b\"", "a;"] {
            let steps = |length: usize| {
                let mut field = prefix.to_owned() + &piece.repeat(length / piece.len() + 1);
                field.truncate(length);
                steps::take();
                // Its result does not matter: a fault that ends the reading makes it shorter still.
                drop(Preferences::parse(&field));
                let strict = steps::take();
                let lenient = lenient_steps(&field);
                assert!(strict <= 6 * length + 16, "{prefix}{piece}… of {length}: {strict} steps");
                assert!(
                    lenient <= 6 * length + 16,
                    "{prefix}{piece}… of {length}: {lenient} steps"
                );
                lenient
            };
            let (once, twice) = (steps(MAX_FIELD_BYTES / 2), steps(MAX_FIELD_BYTES));
            assert!(twice <= 2 * once + 16, "{prefix}{piece}…: {once} steps, then {twice}");
            // Beyond the limit, no further work is done at all.
            assert!(steps(1024 * 1024) <= twice + 16, "{prefix}{piece}…");
        }
    }
}

fn lenient_steps(field: &str) -> usize {
    let value = http::HeaderValue::from_str(field).unwrap();
    let headers = [(crate::prefer::PREFER, value)].into_iter().collect();
    steps::take();
    drop(Preferences::from_headers(&headers));
    steps::take()
}
