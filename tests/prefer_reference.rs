//! A reference parser for `Prefer`: slow and simple, and made another way round than the crate's own, to compare with.
//!
//! It cuts a line at its commas, the pieces at their semicolons and those at their equals signs, and only then looks at
//! what it has got. The property tests and the bench include it as a module.
#![allow(dead_code, reason = "each of those who include this file uses a part of it")]

/// A name in lower case, with its value.
pub(crate) type Pair = (String, Option<Vec<u8>>);

/// A pair with its parameters.
pub(crate) type Member = (Pair, Vec<Pair>);

/// The first instance of each preference, without limits.
pub(crate) fn preferences(lines: &[&[u8]]) -> Vec<Member> {
    let mut found: Vec<Member> = Vec::new();
    for line in lines {
        for member in split(line, b',') {
            let Some(member) = preference(&member) else { continue };
            if found.iter().all(|earlier| earlier.0.0 != member.0.0) {
                found.push(member);
            }
        }
    }
    found
}

/// How many list members there are, empty ones aside.
pub(crate) fn count(lines: &[&[u8]]) -> usize {
    lines
        .iter()
        .flat_map(|line| split(line, b','))
        .filter(|member| !trim(member).is_empty())
        .count()
}

pub(crate) fn respond_async(preferences: &[Member]) -> bool {
    preferences.iter().any(|(head, _)| head.0 == "respond-async" && head.1.is_none())
}

pub(crate) fn wait(preferences: &[Member]) -> Option<u64> {
    let (head, _) = preferences.iter().find(|(head, _)| head.0 == "wait")?;
    let digits = String::from_utf8(head.1.clone()?).ok()?;
    if !digits.chars().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse::<u64>().unwrap_or(u64::MAX).min(1 << 31))
}

fn preference(member: &[u8]) -> Option<Member> {
    let mut parts = split(member, b';').into_iter();
    let head = pair(&parts.next()?)?;
    let parameters = parts
        .filter(|part| !trim(part).is_empty())
        .map(|part| pair(&part))
        .collect::<Option<_>>()?;
    Some((head, parameters))
}

fn pair(part: &[u8]) -> Option<Pair> {
    let mut sides = part.splitn(2, |&byte| byte == b'=');
    let name = token(trim(sides.next()?))?;
    let value = match sides.next().map(trim) {
        None => None,
        Some([b'"', inner @ .., b'"']) => Some(unquote(inner)?).filter(|value| !value.is_empty()),
        Some(value) => Some(token(value)?.to_vec()),
    };
    Some((String::from_utf8(name.to_ascii_lowercase()).ok()?, value))
}

fn unquote(inner: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        let byte = match byte {
            b'"' => return None,
            b'\\' => *bytes.next()?,
            byte => byte,
        };
        if byte.is_ascii_control() && byte != b'\t' {
            return None;
        }
        value.push(byte);
    }
    Some(value)
}

fn token(bytes: &[u8]) -> Option<&[u8]> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    (!bytes.is_empty() && bytes.iter().all(is_token)).then_some(bytes)
}

fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let start = bytes.iter().position(|byte| !blank(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// Cuts at each separator outside of quotes.
fn split(bytes: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let (mut pieces, mut piece) = (Vec::new(), Vec::new());
    let (mut quoted, mut escaped) = (false, false);
    for &byte in bytes {
        if byte == separator && !quoted {
            pieces.push(std::mem::take(&mut piece));
            continue;
        }
        let begins_escape = quoted && !escaped && byte == b'\\';
        if byte == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = begins_escape;
        piece.push(byte);
    }
    pieces.push(piece);
    pieces
}

#[test]
fn reads_the_examples_of_rfc_7240() {
    let read = preferences(&[b"respond-async, wait=100", b"Foo; Bar=\"\"; ; baz=\"a,\\\";b\""]);
    let plain = |name: &str, value: Option<&str>| {
        (name.to_owned(), value.map(|value| value.as_bytes().to_vec()))
    };
    assert_eq!(
        read,
        [
            (plain("respond-async", None), vec![]),
            (plain("wait", Some("100")), vec![]),
            (plain("foo", None), vec![plain("bar", None), plain("baz", Some("a,\";b"))]),
        ]
    );
    assert!(respond_async(&read));
    assert_eq!(wait(&read), Some(100));
}
