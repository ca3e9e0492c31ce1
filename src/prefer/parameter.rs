//! A name with its value, by reference into the field that they were read from.

use std::borrow::Cow;
use std::fmt;

/// A parameter of a preference: a name and perhaps a value, by the same rules.
///
/// ```
/// use respond_async::prefer::Preferences;
///
/// let preferences = Preferences::parse("foo; a=1; b")?;
/// let foo = preferences.get("foo").ok_or("not there")?;
/// assert_eq!(foo.parameters().map(|parameter| parameter.name()).collect::<Vec<_>>(), ["a", "b"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Parameter<'a> {
    name: &'a [u8],
    value: Option<Value<'a>>,
}

impl<'a> Parameter<'a> {
    #[inline]
    pub(super) const fn new(name: &'a [u8], value: Option<Value<'a>>) -> Self {
        Self { name, value }
    }

    #[inline]
    pub(super) const fn name_bytes(&self) -> &'a [u8] {
        self.name
    }

    /// The name as it was written. Compare it with [`str::eq_ignore_ascii_case`]: names have no case.
    pub fn name(&self) -> &'a str {
        // A token is ASCII, so that there is no other case; the check is only made for who asks for the name.
        std::str::from_utf8(self.name).unwrap_or_default()
    }

    /// The value, or `None` if there is none or if it is empty, which is the same.
    pub const fn value(&self) -> Option<Value<'a>> {
        self.value
    }
}

impl PartialEq for Parameter<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.name.eq_ignore_ascii_case(other.name) && self.value == other.value
    }
}

impl Eq for Parameter<'_> {}

impl fmt::Debug for Parameter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.value.map_or(Ok(()), |value| write!(f, "={value:?}"))
    }
}

/// The value of a preference or of a parameter: one byte or more, without quotes and escapes.
///
/// A quoted string may carry octets from 0x80 up
/// ([RFC 9110 §5.6.4](https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.4)), so that a value is bytes and only as
/// a rule text. It compares with `str`, byte by byte and without allocating.
///
/// ```
/// use respond_async::prefer::Preferences;
///
/// let preferences = Preferences::parse(r#"title="a \"b\"""#)?;
/// let title = preferences.get("title").and_then(|title| title.value()).ok_or("no title")?;
/// assert_eq!(title, r#"a "b""#);
/// assert_eq!(title.to_str().as_deref(), Some(r#"a "b""#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Value<'a> {
    /// As it stands in the field, between its quotes.
    raw: &'a [u8],
    /// Whether `raw` contains a backslash, each of which escapes the byte after it.
    escaped: bool,
}

impl<'a> Value<'a> {
    #[inline]
    pub(super) const fn new(raw: &'a [u8], escaped: bool) -> Self {
        Self { raw, escaped }
    }

    /// The bytes one by one.
    #[inline]
    pub(super) fn bytes(self) -> impl Iterator<Item = u8> + Clone + use<'a> {
        let mut raw = self.raw.iter().copied();
        std::iter::from_fn(move || match raw.next() {
            Some(b'\\') if self.escaped => raw.next(),
            byte => byte,
        })
    }

    /// The bytes. Allocates only if there were escapes to undo.
    pub fn to_bytes(&self) -> Cow<'a, [u8]> {
        if self.escaped { Cow::Owned(self.bytes().collect()) } else { Cow::Borrowed(self.raw) }
    }

    /// The text, or `None` if it is not UTF-8. Allocates only if there were escapes to undo.
    pub fn to_str(&self) -> Option<Cow<'a, str>> {
        match self.to_bytes() {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        }
    }
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes().eq(other.bytes())
    }
}

impl Eq for Value<'_> {}

impl PartialEq<[u8]> for Value<'_> {
    fn eq(&self, other: &[u8]) -> bool {
        self.bytes().eq(other.iter().copied())
    }
}

impl PartialEq<str> for Value<'_> {
    fn eq(&self, other: &str) -> bool {
        *self == *other.as_bytes()
    }
}

impl PartialEq<&str> for Value<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.to_bytes().escape_ascii())
    }
}
