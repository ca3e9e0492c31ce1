//! Writing a `Prefer` field.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use super::error::{Fault, Part, Place, PreferError};
use super::parse::{is_text, is_token};
use super::preferences::{Handling, MAX_WAIT_SECONDS, Return};

/// A `Prefer` field that a client sends.
///
/// Names are written in lower case and values in quotes only where they need them. What is stated a second time
/// replaces what was stated first, since a recipient considers only one of them.
///
/// ```
/// use std::time::Duration;
///
/// use respond_async::prefer::{PreferField, Return};
///
/// let field = PreferField::new()
///     .respond_async()
///     .wait(Duration::from_millis(2_500))
///     .return_(Return::Minimal)
///     .with("callback", "")?
///     .parameter("url", "https://example.com/a,b")?;
/// let value = field.to_header_value().ok_or("empty")?;
/// assert_eq!(value, r#"respond-async, wait=3, return=minimal, callback; url="https://example.com/a,b""#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The length is not limited here; recipients have limits of their own, such as
/// [`MAX_FIELD_BYTES`](super::MAX_FIELD_BYTES) and [`MAX_PREFERENCES`](super::MAX_PREFERENCES).
#[derive(Clone, Debug, Default)]
#[must_use = "a field does nothing until it is put into a header map"]
pub struct PreferField {
    preferences: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    /// The whole preference as it will be sent.
    text: Vec<u8>,
}

impl PreferField {
    /// A field that states nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// States `respond-async` ([RFC 7240 §4.1](https://www.rfc-editor.org/rfc/rfc7240.html#section-4.1)).
    pub fn respond_async(self) -> Self {
        self.state("respond-async", b"")
    }

    /// States `wait`, the longest time that the server may take
    /// ([RFC 7240 §4.3](https://www.rfc-editor.org/rfc/rfc7240.html#section-4.3)).
    ///
    /// It is sent in whole seconds, rounded up, so that no server gives up earlier than the client would: 2.5 s is 3 s.
    /// Zero stays zero, and everything above 2<sup>31</sup> seconds is sent as that.
    pub fn wait(self, time: Duration) -> Self {
        let started_second = u64::from(time.subsec_nanos() > 0);
        let seconds = time.as_secs().saturating_add(started_second).min(MAX_WAIT_SECONDS.into());
        self.state("wait", seconds.to_string().as_bytes())
    }

    /// States `return` ([RFC 7240 §4.2](https://www.rfc-editor.org/rfc/rfc7240.html#section-4.2)).
    pub fn return_(self, return_: Return) -> Self {
        self.state("return", return_.as_str().as_bytes())
    }

    /// States `handling` ([RFC 7240 §4.4](https://www.rfc-editor.org/rfc/rfc7240.html#section-4.4)).
    pub fn handling(self, handling: Handling) -> Self {
        self.state("handling", handling.as_str().as_bytes())
    }

    /// States any preference; an empty value is no value.
    ///
    /// # Errors
    ///
    /// `EmptyName` or `UnexpectedByte` if the name is not a token
    /// ([RFC 9110 §5.6.2](https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.2)); `UnexpectedByte` if the value
    /// has a control byte other than the tab, which no field can carry.
    pub fn with(self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, PreferError> {
        check(Part::Preference, name, value.as_ref())?;
        Ok(self.state(name, value.as_ref()))
    }

    /// Adds a parameter to the preference that was stated last; an empty value is no value.
    ///
    /// # Errors
    ///
    /// As for [`with`](Self::with), and `NoPreference` if none was stated yet.
    pub fn parameter(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, PreferError> {
        check(Part::Parameter, name, value.as_ref())?;
        let Some(entry) = self.preferences.last_mut() else {
            return Err(PreferError::new(Fault::NoPreference, 0));
        };
        entry.text.extend_from_slice(b"; ");
        write_pair(&mut entry.text, name, value.as_ref().iter().copied());
        Ok(self)
    }

    /// The field value, or `None` if nothing was stated: an empty field must not be sent
    /// ([RFC 9110 §5.6.1.1](https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.1.1)).
    pub fn to_header_value(&self) -> Option<HeaderValue> {
        write_list(self.preferences.iter(), |field, entry| field.extend_from_slice(&entry.text))
    }

    /// The name and the value have been checked.
    fn state(mut self, name: &str, value: &[u8]) -> Self {
        let name = name.to_ascii_lowercase();
        self.preferences.retain(|entry| entry.name != name);
        let mut text = Vec::new();
        write_pair(&mut text, &name, value.iter().copied());
        self.preferences.push(Entry { name, text });
        self
    }
}

fn check(part: Part, name: &str, value: &[u8]) -> Result<(), PreferError> {
    if name.is_empty() {
        return Err(PreferError::new(Fault::EmptyName(part), 0));
    }
    let find = |bytes: &[u8], allowed: fn(u8) -> bool, place| {
        let fault = bytes.iter().enumerate().find(|&(_, &byte)| !allowed(byte));
        fault
            .map_or(Ok(()), |(at, &byte)| Err(PreferError::new(Fault::Unexpected(byte, place), at)))
    };
    find(name.as_bytes(), is_token, Place::InName(part))?;
    find(value, is_text, Place::InValue(part))
}

/// A list as a field value, or `None` if it is empty.
///
/// Nothing else makes it `None`: tokens, quoted strings and separators consist of bytes that a field value may contain.
pub(super) fn write_list<T>(
    members: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) -> Option<HeaderValue> {
    let mut field = Vec::new();
    for (index, member) in members.enumerate() {
        if index > 0 {
            field.extend_from_slice(b", ");
        }
        write(&mut field, member);
    }
    if field.is_empty() { None } else { HeaderValue::from_maybe_shared(Bytes::from(field)).ok() }
}

/// `name=value`, the name in lower case and the value in quotes only where it is not a token.
pub(super) fn write_pair(field: &mut Vec<u8>, name: &str, value: impl Iterator<Item = u8> + Clone) {
    field.extend(name.bytes().map(|byte| byte.to_ascii_lowercase()));
    if value.clone().next().is_none() {
        return;
    }
    field.push(b'=');
    if value.clone().all(is_token) {
        field.extend(value);
        return;
    }
    field.push(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            field.push(b'\\');
        }
        field.push(byte);
    }
    field.push(b'"');
}

#[cfg(test)]
mod tests;
