//! One preference with its parameters, by reference into the field that it was read from.

use std::fmt;

use super::parameter::{Parameter, Value};
use super::parse::Cursor;

/// A preference as it was stated: `foo`, `foo=bar`, `foo="b,a,r"; a=1; b`.
///
/// ```
/// use respond_async::prefer::Preferences;
///
/// let preferences = Preferences::parse(r#"Callback; url="https://example.com/a,b"; retry"#)?;
/// let callback = preferences.get("callback").ok_or("not there")?;
/// assert_eq!(callback.name(), "Callback");
/// assert_eq!(callback.value(), None);
///
/// let url = callback.parameter("URL").and_then(|url| url.value()).ok_or("no URL")?;
/// assert_eq!(url, "https://example.com/a,b");
/// assert_eq!(callback.parameters().count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Two are equal if their names are, whatever their case, and their values and parameters with the order of these.
#[derive(Clone, Copy)]
pub struct Preference<'a> {
    head: Parameter<'a>,
    /// What follows the head, known to be well-formed.
    parameters: &'a [u8],
}

impl<'a> Preference<'a> {
    #[inline]
    pub(super) const fn new(head: Parameter<'a>, parameters: &'a [u8]) -> Self {
        Self { head, parameters }
    }

    pub(super) const fn without_parameters(self) -> Self {
        Self { head: self.head, parameters: &[] }
    }

    #[inline]
    pub(super) const fn name_bytes(&self) -> &'a [u8] {
        self.head.name_bytes()
    }

    /// The name as it was written. Compare it with [`str::eq_ignore_ascii_case`]: names have no case.
    pub fn name(&self) -> &'a str {
        self.head.name()
    }

    /// The value, or `None` if there is none or if it is empty, which is the same
    /// ([RFC 7240 §2](https://www.rfc-editor.org/rfc/rfc7240.html#section-2)).
    pub const fn value(&self) -> Option<Value<'a>> {
        self.head.value()
    }

    /// The parameters in their order, including repeated ones.
    pub fn parameters(&self) -> impl Iterator<Item = Parameter<'a>> + use<'a> {
        let mut cursor = Cursor::of_lines(self.parameters);
        std::iter::from_fn(move || cursor.next_parameter())
    }

    /// The first parameter of this name, in whatever case.
    pub fn parameter(&self, name: &str) -> Option<Parameter<'a>> {
        self.parameters()
            .find(|parameter| parameter.name_bytes().eq_ignore_ascii_case(name.as_bytes()))
    }
}

impl PartialEq for Preference<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.head == other.head && self.parameters().eq(other.parameters())
    }
}

impl Eq for Preference<'_> {}

impl fmt::Debug for Preference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head.fmt(f)?;
        self.parameters().try_for_each(|parameter| write!(f, "; {parameter:?}"))
    }
}
