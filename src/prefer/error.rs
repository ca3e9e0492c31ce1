//! What can be wrong with a field, where, and in which words.

use std::{error, fmt};

use super::text::{MAX_FIELD_BYTES, MAX_PREFERENCES};

/// A fault in a `Prefer` field, or the reason why one of its preferences was dropped.
///
/// `{}` names the fault and its position, `{:#}` leaves the position out.
///
/// ```
/// use respond_async::prefer::{PreferErrorKind, Preferences};
///
/// let error = Preferences::parse("respond-async, wait=@10").unwrap_err();
/// assert_eq!(error.kind(), PreferErrorKind::UnexpectedByte);
/// assert_eq!(error.position(), 20);
/// assert_eq!(error.to_string(), "unexpected '@' in preference value at byte 20");
/// assert_eq!(format!("{error:#}"), "unexpected '@' in preference value");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreferError {
    fault: Fault,
    line: usize,
    position: usize,
}

/// What kind of fault a [`PreferError`] is.
///
/// ```
/// use respond_async::prefer::{PreferErrorKind, Preferences};
///
/// let kind = |field| Preferences::parse(field).map_err(|error| error.kind());
/// assert_eq!(kind("foo="), Err(PreferErrorKind::EmptyValue));
/// assert_eq!(kind("foo=\"bar"), Err(PreferErrorKind::UnterminatedQuote));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PreferErrorKind {
    /// A byte that the grammar does not allow where it stands.
    UnexpectedByte,
    /// A name of no bytes. Only when a field is built: in a field that is read, it is an unexpected byte.
    EmptyName,
    /// A `=` with nothing after it. A value may be absent, or an empty quoted string, but not this.
    EmptyValue,
    /// A quoted string without its closing quote.
    UnterminatedQuote,
    /// The same preference stood earlier in the list. Only ever dropped, never an error of [`Preferences::parse`].
    ///
    /// [`Preferences::parse`]: super::Preferences::parse
    Duplicate,
    /// The field goes on after [`MAX_FIELD_BYTES`].
    TooLong,
    /// The list goes on after [`MAX_PREFERENCES`].
    TooMany,
    /// A parameter was given before any preference that it could belong to. Only when a field is built.
    NoPreference,
}

impl PreferError {
    pub(super) const fn new(fault: Fault, position: usize) -> Self {
        Self { fault, line: 0, position }
    }

    /// The same fault, with its position in a text of lines turned into one in its line.
    pub(super) const fn in_line(self, line: usize, line_start: usize) -> Self {
        Self { fault: self.fault, line, position: self.position.saturating_sub(line_start) }
    }

    /// What kind of fault it is.
    pub const fn kind(&self) -> PreferErrorKind {
        match self.fault {
            Fault::Unexpected(..) => PreferErrorKind::UnexpectedByte,
            Fault::EmptyName(_) => PreferErrorKind::EmptyName,
            Fault::EmptyValue(_) => PreferErrorKind::EmptyValue,
            Fault::UnterminatedQuote(_) => PreferErrorKind::UnterminatedQuote,
            Fault::Duplicate => PreferErrorKind::Duplicate,
            Fault::TooLong => PreferErrorKind::TooLong,
            Fault::TooMany => PreferErrorKind::TooMany,
            Fault::NoPreference => PreferErrorKind::NoPreference,
        }
    }

    /// The field line with the fault, counted from 0 in the order of the header map. Always 0 where there is only one.
    pub const fn line(&self) -> usize {
        self.line
    }

    /// Where in its line the fault is: a byte index, counted from 0.
    ///
    /// It points at the unexpected byte, at the place of the missing value, at the quote that is never closed, at the
    /// first byte of a duplicate, or at the first byte that was not read any more. When a field is built, it is an
    /// index into the refused name or value.
    pub const fn position(&self) -> usize {
        self.position
    }
}

impl fmt::Display for PreferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)?;
        if f.alternate() {
            return Ok(());
        }
        write!(f, " at byte {}", self.position)?;
        match self.line {
            0 => Ok(()),
            line => write!(f, " of field line {line}"),
        }
    }
}

impl error::Error for PreferError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Unexpected(u8, Place),
    EmptyName(Part),
    EmptyValue(Part),
    UnterminatedQuote(Part),
    Duplicate,
    TooLong,
    TooMany,
    NoPreference,
}

/// Where in the grammar a byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    InName(Part),
    AfterName(Part),
    InValue(Part),
    AfterValue(Part),
}

/// Preferences and parameters share one grammar, [erratum 4439](https://www.rfc-editor.org/errata/eid4439).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Preference,
    Parameter,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unexpected(byte @ 0x20..=0x7e, place) => {
                write!(f, "unexpected '{}' {place}", char::from(byte))
            }
            Self::Unexpected(byte, place) => write!(f, "unexpected byte 0x{byte:02x} {place}"),
            Self::EmptyName(part) => write!(f, "empty {part} name"),
            Self::EmptyValue(part) => write!(f, "empty {part} value"),
            Self::UnterminatedQuote(part) => write!(f, "unterminated quote in {part} value"),
            Self::Duplicate => f.write_str("repeated preference"),
            Self::TooLong => write!(f, "field of more than {MAX_FIELD_BYTES} bytes"),
            Self::TooMany => write!(f, "list of more than {MAX_PREFERENCES} preferences"),
            Self::NoPreference => f.write_str("parameter without a preference"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InName(part) => write!(f, "in {part} name"),
            Self::AfterName(part) => write!(f, "after {part} name"),
            Self::InValue(part) => write!(f, "in {part} value"),
            Self::AfterValue(part) => write!(f, "after {part} value"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preference => "preference",
            Self::Parameter => "parameter",
        })
    }
}
