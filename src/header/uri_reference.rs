use std::fmt;

use http::HeaderValue;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where something is: an absolute URI or a reference relative to the request's
/// ([RFC 3986 §4.1](https://www.rfc-editor.org/rfc/rfc3986#section-4.1)).
///
/// Making one never fails: a byte that may not stand in a URI reference (control and non-ASCII
/// bytes, spaces, quotes, angle brackets, backslash, braces, `^`, `|`, backtick, and a `%` that
/// starts no escape) is percent-encoded. What is valid stays as it is, byte for byte.
///
/// ```
/// use respond_async::header::UriReference;
///
/// assert_eq!(UriReference::new("/images/17").as_str(), "/images/17");
/// assert_eq!(UriReference::new("/a b\r\nSet-Cookie: x").as_str(), "/a%20b%0D%0ASet-Cookie:%20x");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UriReference(HeaderValue);

impl UriReference {
    /// Makes a reference, percent-encoding what may not stand in one.
    pub fn new(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        if text.bytes().enumerate().all(|(at, byte)| is_allowed(text.as_bytes(), at, byte)) {
            return Self::from_valid(text.to_owned());
        }
        let mut encoded = String::with_capacity(text.len() + 16);
        for (at, byte) in text.bytes().enumerate() {
            if is_allowed(text.as_bytes(), at, byte) {
                encoded.push(char::from(byte));
            } else {
                encoded.push('%');
                for digit in [byte >> 4, byte & 0xF] {
                    let digit = char::from_digit(digit.into(), 16).unwrap_or('0');
                    encoded.push(digit.to_ascii_uppercase());
                }
            }
        }
        Self::from_valid(encoded)
    }

    /// Takes a text of which nothing has to be encoded.
    pub(crate) fn from_valid(text: String) -> Self {
        // Visible ASCII may stand in every header value.
        Self(HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("/")))
    }

    /// The reference as text: visible ASCII only.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The reference up to its `#`: `Content-Location` has no place for a fragment
    /// ([RFC 9110 §8.7](https://www.rfc-editor.org/rfc/rfc9110#section-8.7)).
    #[must_use]
    pub fn without_fragment(&self) -> Self {
        match self.as_str().split_once('#') {
            Some((before, _)) => Self::from_valid(before.to_owned()),
            None => self.clone(),
        }
    }

    /// The reference as a header value, shared and not copied.
    pub fn to_header_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Whether `byte`, which stands at `at`, is of a URI reference
/// ([RFC 3986 §2](https://www.rfc-editor.org/rfc/rfc3986#section-2)).
fn is_allowed(bytes: &[u8], at: usize, byte: u8) -> bool {
    match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
        _ => byte.is_ascii_graphic(),
    }
}

impl<T: AsRef<str>> From<T> for UriReference {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for UriReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for UriReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for UriReference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for UriReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(std::borrow::Cow::<'de, str>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_becomes_a_header_value_and_encoding_is_stable() {
        for code in 0..0x250_u32 {
            let Some(character) = char::from_u32(code) else { continue };
            let reference = UriReference::new(format!("/a{character}b"));
            assert_eq!(reference.to_header_value().as_bytes(), reference.as_str().as_bytes());
            assert_eq!(UriReference::new(reference.as_str()), reference);
        }
    }

    #[test]
    fn what_is_valid_stays() {
        for text in ["", "/", "../x?y=z&a=%20#f", "https://[::1]:8080/a;b=c,d@e!$'()*+~_-."] {
            assert_eq!(UriReference::new(text).as_str(), text);
        }
        assert_eq!(UriReference::new("100%").as_str(), "100%25");
        assert_eq!(UriReference::new("ü").as_str(), "%C3%BC");
        assert_eq!(UriReference::new("/a#b").without_fragment().as_str(), "/a");
    }
}
