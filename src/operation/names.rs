use std::fmt;
use std::sync::Arc;

/// What sort of work an operation is, such as `images.enhance`: it says which handler can run it,
/// and clients may list by it.
///
/// 1 to [`MAX_BYTES`](Self::MAX_BYTES) ASCII letters, digits and `-`, `.`, `_`, `:`, `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(Arc<str>);

/// Who may see an operation: for anyone else it does not exist.
///
/// The text is the service's own name for a client, a user, or an account, whatever it is that
/// must be kept apart. At most [`MAX_BYTES`](Self::MAX_BYTES) bytes, without control characters.
///
/// [`Owner::anonymous`] stands for a client without a name. Its operations are guarded by their
/// ids alone: whoever has the link can use it, and nobody can list them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(Option<Arc<str>>);

/// A name that is empty, too long, or has a byte that it may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct InvalidName {
    what: &'static str,
    rule: &'static str,
}

impl Kind {
    /// The longest kind, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Makes a kind of a text.
    ///
    /// # Errors
    /// [`InvalidName`] if the text is empty, too long, or has another character.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidName> {
        let text = text.as_ref();
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:/".contains(&byte);
        if (1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName { what: "a kind", rule: "1 to 128 of A-Z a-z 0-9 - . _ : /" })
        }
    }

    /// The kind as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl Default for Kind {
    /// The kind of work that was given no other: `task`.
    fn default() -> Self {
        Self("task".into())
    }
}

impl Owner {
    /// The longest name of an owner, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// What names begin with that this crate gives to what is its own.
    pub(crate) const RESERVED: &'static str = "respond-async:";

    /// The owner of that name.
    ///
    /// # Errors
    /// [`InvalidName`] if the name is empty, too long, has a control character, or begins with
    /// `respond-async:`, as the names of what is nobody's do.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
        let name = name.as_ref();
        if name.starts_with(Self::RESERVED) {
            return Err(InvalidName { what: "an owner", rule: "no name of this crate's own" });
        }
        Self::of_record(name)
    }

    /// The same, also of a name of this crate's own.
    pub(crate) fn of_record(name: impl AsRef<str>) -> Result<Self, InvalidName> {
        let name = name.as_ref();
        if (1..=Self::MAX_BYTES).contains(&name.len()) && !name.chars().any(char::is_control) {
            Ok(Self(Some(name.into())))
        } else {
            Err(InvalidName { what: "an owner", rule: "1 to 255 bytes without control characters" })
        }
    }

    /// Whoever has no name.
    pub const fn anonymous() -> Self {
        Self(None)
    }

    /// The name; none for the anonymous owner.
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl Default for Owner {
    fn default() -> Self {
        Self::anonymous()
    }
}

/// A kind is hashed, compared and ordered as its text is.
impl std::borrow::Borrow<str> for Kind {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(name) => fmt::Debug::fmt(name, f),
            None => f.write_str("anonymous"),
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl std::str::FromStr for Owner {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_bounds() {
        assert!(Kind::new("images.enhance:v2/x_y-z").is_ok());
        for wrong in ["", "a b", "ä", "a\0", "%", &"x".repeat(129)] {
            assert!(Kind::new(wrong).is_err(), "{wrong:?}");
        }
        assert!(Owner::new("Zoë <zoe@example.com>").is_ok());
        for wrong in ["", "a\nb", "a\0", &"x".repeat(256)] {
            assert!(Owner::new(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(Owner::default(), Owner::anonymous());
        let error = Kind::new("").unwrap_err();
        assert_eq!(error.to_string(), "a kind must be 1 to 128 of A-Z a-z 0-9 - . _ : /");
    }
}
