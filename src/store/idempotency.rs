use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};

/// A name that a client gave to its request, with what it was said to name. Within one owner and
/// one scope a key stands for one operation as long as that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Where the key counts, such as the method and target of the request. It may be any text: a
    /// store whose own texts have limits keeps a digest of it.
    pub scope: Arc<str>,
    /// The key.
    pub key: IdempotencyKey,
    /// What tells one request from another.
    pub fingerprint: Fingerprint,
}

/// A digest of a request: equal for the same request, different for any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// A client's own name for a request that it may have to repeat: 1 to
/// [`MAX_BYTES`](Self::MAX_BYTES) visible ASCII characters or spaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(Arc<str>);

/// A key that is empty, too long, or has a byte that it may not have; or a field that holds no key,
/// or more than one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key is 1 to 255 visible ASCII characters or spaces")]
pub struct InvalidIdempotencyKey(());

/// The field that a client names its request in.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl IdempotencyKey {
    /// The longest key, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Makes a key of its text, without the quotes that it has in the field.
    ///
    /// # Errors
    /// [`InvalidIdempotencyKey`] if the text is empty, too long, or has another character.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidIdempotencyKey> {
        let text = text.as_ref();
        let is_allowed = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if (1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidIdempotencyKey(()))
        }
    }

    /// The key that a request has in its `Idempotency-Key` field; none if it has no such field.
    ///
    /// The field is a string in quotes ([RFC 9651 §3.3.3]), whose parameters are ignored. Most
    /// clients leave the quotes out, so the bare text is taken too, if it has no comma, semicolon,
    /// quote or space in it: `"k-17"` and `k-17` are the same key.
    ///
    /// # Errors
    /// [`InvalidIdempotencyKey`] if the field is there, but not once, or is neither form.
    ///
    /// [RFC 9651 §3.3.3]: https://www.rfc-editor.org/rfc/rfc9651#section-3.3.3
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, InvalidIdempotencyKey> {
        let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(line) = lines.next() else { return Ok(None) };
        if lines.next().is_some() {
            return Err(InvalidIdempotencyKey(()));
        }
        let text = line.to_str().map_err(|_| InvalidIdempotencyKey(()))?.trim_ascii();
        match text.strip_prefix('"') {
            Some(quoted) => Self::new(unquoted(quoted).ok_or(InvalidIdempotencyKey(()))?),
            None if text.contains([',', ';', '"', ' ']) => Err(InvalidIdempotencyKey(())),
            None => Self::new(text),
        }
        .map(Some)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;

    /// As [`new`](Self::new).
    fn from_str(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        Self::new(text)
    }
}

/// What stands before the closing quote, without the backslashes that escape; none if the quote
/// does not close, something else is escaped, or more than parameters follow.
fn unquoted(text: &str) -> Option<String> {
    let mut content = String::with_capacity(text.len());
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => content.push(chars.next().filter(|escaped| ['"', '\\'].contains(escaped))?),
            other => content.push(other),
        }
    }
    are_parameters(chars.as_str()).then_some(content)
}

/// Whether all that is there is parameters ([RFC 9651 §4.2.3.2]), each a key and maybe a value.
///
/// [RFC 9651 §4.2.3.2]: https://www.rfc-editor.org/rfc/rfc9651#section-4.2.3.2
fn are_parameters(text: &str) -> bool {
    let mut rest = text.trim_ascii_start();
    while let Some(parameter) = rest.strip_prefix(';') {
        let parameter = parameter.trim_start_matches(' ');
        if !parameter.starts_with(|first: char| first.is_ascii_lowercase() || first == '*') {
            return false;
        }
        let is_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.*".contains(c);
        rest = parameter.trim_start_matches(is_key);
        if let Some(value) = rest.strip_prefix('=') {
            let Some(after) = after_bare_item(value) else { return false };
            rest = after;
        }
        rest = rest.trim_ascii_start();
    }
    rest.is_empty()
}

/// What follows a bare item; none if there is none. Its own characters are not looked into, for
/// nobody asks what a parameter says.
fn after_bare_item(text: &str) -> Option<&str> {
    let Some(string) = text.strip_prefix("%\"").or_else(|| text.strip_prefix('"')) else {
        let after = text.trim_start_matches(|c: char| c.is_ascii_graphic() && !",;\"".contains(c));
        return (after.len() < text.len()).then_some(after);
    };
    let mut chars = string.chars();
    loop {
        match chars.next()? {
            '"' => return Some(chars.as_str()),
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn parse(lines: &[&'static [u8]]) -> Result<Option<String>, InvalidIdempotencyKey> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(line).unwrap());
        }
        let key = IdempotencyKey::from_headers(&headers)?;
        Ok(key.map(|key| key.as_str().to_owned()))
    }

    #[test]
    fn quoted_and_bare_are_the_same_key() {
        assert_eq!(parse(&[]), Ok(None));
        for (field, key) in [
            (&b"8e03978e-40d5-43dd-bc93"[..], "8e03978e-40d5-43dd-bc93"),
            (b"\"8e03978e-40d5-43dd-bc93\"", "8e03978e-40d5-43dd-bc93"),
            (b"  k-17\t", "k-17"),
            (b"\"a \\\"b\\\\c,d;e\"", "a \"b\\c,d;e"),
            (b"\"k\";v=1", "k"),
            (b"\"k\" ; v", "k"),
            (b"\"k\";a;b=?1; *c.d=\"x, \\\"y;\";e=:aGk=:;f=-1.5;g=a/b:c", "k"),
            (b"a=b/c:d", "a=b/c:d"),
        ] {
            assert_eq!(parse(&[field]), Ok(Some(key.to_owned())), "{field:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long: &'static [u8] = Box::leak(Box::new([b'k'; 256]));
        for field in [
            &b""[..],
            b"\"\"",
            b"\"open",
            b"\"a\"b",
            b"\"a\";x, \"b\"",
            b"\"a\";",
            b"\"a\";x=",
            b"\"a\";X",
            b"\"a\";x=\"open",
            b"\"a\";x=1 y",
            b"\"a\", \"b\"",
            b"\"a\\b\"",
            b"a b",
            b"a,b",
            b"a;b=1",
            b"a\"b",
            b"k\xe9",
            b"\"k\xff\"",
            b"\"tab\tin\"",
            long,
        ] {
            assert!(parse(&[field]).is_err(), "{field:?}");
        }
        assert!(parse(&[b"a", b"a"]).is_err());
        assert!(parse(&[&long[..255]]).is_ok());
        let key: IdempotencyKey = "k 17".parse().unwrap();
        assert_eq!(key.to_string(), "k 17");
        assert!("".parse::<IdempotencyKey>().is_err());
    }
}
