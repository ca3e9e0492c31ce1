//! The preferences of a request, and those of them that RFC 7240 defines.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::error::PreferError;
use super::list::{Distinct, Members};
use super::parameter::Value;
use super::preference::Preference;
use super::text::Text;

/// The names of the preference to be told at a URL.
pub(crate) const CALLBACKS: [&str; 2] = ["callback", "odata.callback"];

/// The name of the `Prefer` field ([RFC 7240 §2](https://www.rfc-editor.org/rfc/rfc7240.html#section-2)).
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// What a client would like about the answer to its request
/// ([RFC 7240 §2](https://www.rfc-editor.org/rfc/rfc7240.html#section-2)).
///
/// [`from_headers`](Self::from_headers) reads whatever there is and never fails; [`parse`](Self::parse) insists on a
/// well-formed field. The preferences that RFC 7240 defines have methods of their own, which cost nothing; all others
/// are found by [`get`](Self::get) and [`iter`](Self::iter).
///
/// ```
/// use std::time::Duration;
///
/// use http::{HeaderMap, HeaderValue};
/// use respond_async::prefer::{Handling, Preferences, Return};
///
/// let mut headers = HeaderMap::new();
/// headers.append("prefer", HeaderValue::from_static("respond-async, wait=100, return=minimal"));
/// headers.append("prefer", HeaderValue::from_static("wait=5, handling=lenient, max-affected=7"));
///
/// let preferences = Preferences::from_headers(&headers);
/// assert!(preferences.respond_async());
/// assert_eq!(preferences.wait(), Some(Duration::from_secs(100)));
/// assert_eq!(preferences.return_(), Some(Return::Minimal));
/// assert_eq!(preferences.handling(), Some(Handling::Lenient));
/// assert!(preferences.get("Max-Affected").and_then(|it| it.value()).is_some_and(|value| value == "7"));
///
/// // The second `wait` is a duplicate.
/// let dropped: Vec<_> = preferences.dropped().map(|reason| reason.to_string()).collect();
/// assert_eq!(dropped, ["repeated preference at byte 0 of field line 1"]);
/// ```
///
/// It holds its own copy of the field, so that it can outlive the request. Two are equal if they state equal
/// preferences in the same order, whatever was dropped between them.
#[derive(Clone, Default)]
pub struct Preferences {
    text: Text,
    registered: Registered,
}

/// The preferences that RFC 7240 defines, as the first instance of each has them.
#[derive(Clone, Copy, Default)]
struct Registered {
    respond_async: bool,
    wait: Option<u32>,
    return_: Option<Return>,
    handling: Option<Handling>,
}

/// What the answer should contain
/// ([RFC 7240 §4.2](https://www.rfc-editor.org/rfc/rfc7240.html#section-4.2)).
///
/// ```
/// use respond_async::prefer::{Preferences, Return};
///
/// assert_eq!(Preferences::parse("return=minimal")?.return_(), Some(Return::Minimal));
/// # Ok::<(), respond_async::prefer::PreferError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Return {
    /// `return=representation`: the resource itself, as it is after the request.
    Representation,
    /// `return=minimal`: as little as possible, such as a `Location`.
    Minimal,
}

/// How to treat what is wrong with a request
/// ([RFC 7240 §4.4](https://www.rfc-editor.org/rfc/rfc7240.html#section-4.4)).
///
/// ```
/// use respond_async::prefer::{Handling, Preferences};
///
/// assert_eq!(Preferences::parse("handling=strict")?.handling(), Some(Handling::Strict));
/// # Ok::<(), respond_async::prefer::PreferError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handling {
    /// `handling=strict`: refuse the request.
    Strict,
    /// `handling=lenient`: do what can be done.
    Lenient,
}

impl Preferences {
    /// Reads all `Prefer` lines of a request. What is malformed is dropped, and [`dropped`](Self::dropped) names it.
    #[inline]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        Self::from_field(headers, &PREFER)
    }

    /// Reads all lines of a field that is made like `Prefer`.
    #[inline]
    pub(super) fn from_field(headers: &HeaderMap, name: &HeaderName) -> Self {
        let text = Text::from_lines(headers.get_all(name).iter().map(HeaderValue::as_bytes));
        let registered = Registered::read(Members::of_lines(&text).filter_map(Result::ok));
        Self { text, registered }
    }

    /// Reads a single field value and insists on its grammar.
    ///
    /// Everything that a recipient has to accept is accepted: white space around `=`, empty list elements, a `;` with
    /// nothing behind it. Duplicates are not errors, and neither are values that make no sense, such as `wait=soon`:
    /// RFC 7240 has both ignored.
    ///
    /// # Errors
    ///
    /// The first fault, with its kind and its position: every kind but `Duplicate`, `EmptyName` and `NoPreference`.
    pub fn parse(field: impl AsRef<[u8]>) -> Result<Self, PreferError> {
        let text = Text::from_lines(std::iter::once(field.as_ref()));
        let mut fault = None;
        let members = Members::of_field(&text)
            .map_while(|member| member.map_err(|error| fault = Some(error)).ok());
        let registered = Registered::read(members);
        fault.map_or(Ok(Self { text, registered }), Err)
    }

    /// Whether the client would like to be answered before the work is done
    /// ([RFC 7240 §4.1](https://www.rfc-editor.org/rfc/rfc7240.html#section-4.1)).
    ///
    /// The preference has no value; `respond-async=false`, whatever it is meant to mean, does not state it.
    #[inline]
    pub const fn respond_async(&self) -> bool {
        self.registered.respond_async
    }

    /// How long the client is willing to wait, from when the request was received, in whole seconds
    /// ([RFC 7240 §4.3](https://www.rfc-editor.org/rfc/rfc7240.html#section-4.3)).
    ///
    /// From 0 to 2<sup>31</sup> seconds, which also stands for everything above
    /// ([RFC 9111 §1.2.2](https://www.rfc-editor.org/rfc/rfc9111.html#section-1.2.2)). `None` if there is no `wait`, or
    /// if the first one is not made of digits alone: no sign, no fraction, not empty. Since only the first one is
    /// considered, `wait=soon, wait=5` is `None` too; [`get`](Self::get) tells a senseless `wait` from none.
    #[inline]
    pub fn wait(&self) -> Option<Duration> {
        self.registered.wait.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// What the answer should contain. `None` if there is no `return`, or if the first one has any other value than the
    /// two that RFC 7240 defines, in their exact case.
    #[inline]
    pub const fn return_(&self) -> Option<Return> {
        self.registered.return_
    }

    /// How to treat what is wrong with the request. `None` if there is no `handling`, or if the first one has any other
    /// value than the two that RFC 7240 defines, in their exact case.
    #[inline]
    pub const fn handling(&self) -> Option<Handling> {
        self.registered.handling
    }

    /// `callback; url="…"`: where the client wants to be told of the operation's end. OData has it
    /// ([OData 4.01 §8.2.8.2](https://docs.oasis-open.org/odata/odata/v4.01/odata-v4.01-part1-protocol.html#sec_Preferencecallbackodatacallback)),
    /// of old as `odata.callback`.
    pub fn callback(&self) -> Option<Preference<'_>> {
        CALLBACKS.into_iter().find_map(|name| self.get(name))
    }

    /// The preference of this name, in whatever case. Of several instances it is the first.
    pub fn get(&self, name: &str) -> Option<Preference<'_>> {
        self.members()
            .filter_map(Result::ok)
            .find(|preference| preference.name_bytes().eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The preferences in their order, without duplicates; at most [`MAX_PREFERENCES`](super::MAX_PREFERENCES).
    pub fn iter(&self) -> impl Iterator<Item = Preference<'_>> {
        self.distinct().map(|(_, preference)| preference)
    }

    /// The number of preferences, without duplicates. Counts them anew each time.
    pub fn len(&self) -> usize {
        self.distinct().count()
    }

    /// Whether there are no preferences at all.
    pub fn is_empty(&self) -> bool {
        self.members().all(|member| member.is_err())
    }

    /// Why preferences were dropped, in their order: at most one reason for each of the
    /// [`MAX_PREFERENCES`](super::MAX_PREFERENCES) members that are read, and one for all that follows them.
    pub fn dropped(&self) -> impl Iterator<Item = PreferError> {
        Distinct::new(self.members()).filter_map(Result::err)
    }

    /// The preferences, each with its place in the list, which is less than
    /// [`MAX_PREFERENCES`](super::MAX_PREFERENCES).
    pub(super) fn distinct(&self) -> impl Iterator<Item = (usize, Preference<'_>)> {
        Distinct::new(self.members()).filter_map(Result::ok)
    }

    /// Each preference and each fault. A text that `parse` accepted has no line feeds, so that it is one line.
    fn members(&self) -> Members<'_> {
        Members::of_lines(&self.text)
    }
}

impl Registered {
    /// Only the first instance of each is considered, even if its value makes no sense
    /// ([RFC 7240 §2](https://www.rfc-editor.org/rfc/rfc7240.html#section-2)).
    #[inline]
    fn read<'a>(preferences: impl Iterator<Item = Preference<'a>>) -> Self {
        let (mut respond_async, mut wait, mut return_, mut handling) = (None, None, None, None);
        for preference in preferences {
            let (name, value) = (preference.name_bytes(), preference.value());
            // Most names are told apart by their length.
            match name.len() {
                4 if name.eq_ignore_ascii_case(b"wait") => {
                    wait.get_or_insert_with(|| value.and_then(delay_seconds));
                }
                6 if name.eq_ignore_ascii_case(b"return") => {
                    return_.get_or_insert_with(|| value.and_then(Return::from_value));
                }
                8 if name.eq_ignore_ascii_case(b"handling") => {
                    handling.get_or_insert_with(|| value.and_then(Handling::from_value));
                }
                13 if name.eq_ignore_ascii_case(b"respond-async") => {
                    respond_async.get_or_insert(value.is_none());
                }
                _ => {}
            }
        }
        Self {
            respond_async: respond_async.unwrap_or_default(),
            wait: wait.flatten(),
            return_: return_.flatten(),
            handling: handling.flatten(),
        }
    }
}

/// The longest `wait`, in seconds: [RFC 9111 §1.2.2](https://www.rfc-editor.org/rfc/rfc9111.html#section-1.2.2).
pub(super) const MAX_WAIT_SECONDS: u32 = 1 << 31;

/// [RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110.html#section-10.2.3), `delay-seconds`, by which
/// [erratum 4316](https://www.rfc-editor.org/errata/eid4316) replaces what RFC 7240 §4.3 says.
#[inline]
fn delay_seconds(value: Value<'_>) -> Option<u32> {
    value.bytes().try_fold(0_u32, |seconds, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        Some(seconds.saturating_mul(10).saturating_add(digit).min(MAX_WAIT_SECONDS))
    })
}

impl Return {
    /// The value on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Representation => "representation",
            Self::Minimal => "minimal",
        }
    }

    fn from_value(value: Value<'_>) -> Option<Self> {
        [Self::Representation, Self::Minimal].into_iter().find(|known| value == *known.as_str())
    }
}

impl Handling {
    /// The value on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Lenient => "lenient",
        }
    }

    fn from_value(value: Value<'_>) -> Option<Self> {
        [Self::Strict, Self::Lenient].into_iter().find(|known| value == *known.as_str())
    }
}

impl PartialEq for Preferences {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Preferences {}

impl fmt::Debug for Preferences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preferences")?;
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
