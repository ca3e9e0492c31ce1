//! The list of preferences: separators, recovery, limits and duplicates.

use super::error::{Fault, PreferError};
use super::parse::Cursor;
use super::preference::Preference;
use super::text::{MAX_PREFERENCES, Text};

/// The members of a list in their order, each as a preference or as the reason why it is none.
#[derive(Clone, Debug)]
pub(super) struct Members<'a> {
    cursor: Cursor<'a>,
    /// Whether the text was cut off, so that its last member is not to be trusted.
    cut: bool,
    count: usize,
    /// Where the member that was read last starts.
    start: usize,
    line: usize,
    line_start: usize,
}

impl<'a> Members<'a> {
    /// The members of field lines.
    #[inline]
    pub(super) fn of_lines(text: &'a Text) -> Self {
        Self::new(Cursor::of_lines(text.as_bytes()), text.is_cut())
    }

    /// The members of a single field value, in which a line feed is nothing but a wrong byte.
    pub(super) fn of_field(text: &'a Text) -> Self {
        Self::new(Cursor::of_field(text.as_bytes()), text.is_cut())
    }

    #[inline]
    const fn new(cursor: Cursor<'a>, cut: bool) -> Self {
        Self { cursor, cut, count: 0, start: 0, line: 0, line_start: 0 }
    }

    /// The index in the list of the member that was read last.
    const fn index(&self) -> usize {
        self.count.saturating_sub(1)
    }

    /// Moves to the first byte of the next member, over empty ones
    /// ([RFC 9110 §5.6.1.2](https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.1.2)).
    #[inline]
    fn find_member(&mut self) -> Option<()> {
        loop {
            let byte = self.cursor.byte()?;
            if byte == b'\n' && self.cursor.is_of_lines() {
                self.cursor.advance(1);
                self.line += 1;
                self.line_start = self.cursor.position();
            } else if matches!(byte, b',' | b' ' | b'\t') {
                self.cursor.advance(1);
            } else {
                return Some(());
            }
        }
    }

    /// Ends the list here.
    #[cold]
    fn stop(&mut self, fault: Fault) -> PreferError {
        let position = self.cursor.position();
        self.cut = false;
        self.cursor.advance_to_end();
        self.error(PreferError::new(fault, position))
    }

    #[cold]
    const fn error(&self, error: PreferError) -> PreferError {
        error.in_line(self.line, self.line_start)
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<Preference<'a>, PreferError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.find_member().is_none() {
            return self.cut.then(|| Err(self.stop(Fault::TooLong)));
        }
        if self.count == MAX_PREFERENCES {
            return Some(Err(self.stop(Fault::TooMany)));
        }
        self.count += 1;
        self.start = self.cursor.position();
        let member = self.cursor.preference();
        // What ends where the text was cut off may go on behind it: `wait=1` is not `wait=10`.
        if self.cut && self.cursor.is_at_end() {
            return Some(Err(self.stop(Fault::TooLong)));
        }
        Some(match member {
            Ok((head, parameters)) => Ok(Preference::new(head, parameters)),
            Err(error) => {
                self.cursor.skip_preference();
                Err(self.error(error))
            }
        })
    }
}

/// The members of a list with its duplicates turned into errors: of several instances only the first is considered
/// ([RFC 7240 §2](https://www.rfc-editor.org/rfc/rfc7240.html#section-2)).
///
/// Comes with each member's index in the list, which is less than [`MAX_PREFERENCES`].
#[derive(Clone, Debug)]
pub(super) struct Distinct<'a> {
    members: Members<'a>,
    seen: [&'a [u8]; MAX_PREFERENCES],
}

impl<'a> Distinct<'a> {
    pub(super) const fn new(members: Members<'a>) -> Self {
        Self { members, seen: [&[]; MAX_PREFERENCES] }
    }
}

impl<'a> Iterator for Distinct<'a> {
    type Item = Result<(usize, Preference<'a>), PreferError>;

    fn next(&mut self) -> Option<Self::Item> {
        let preference = match self.members.next()? {
            Ok(preference) => preference,
            Err(error) => return Some(Err(error)),
        };
        let index = self.members.index();
        let name = preference.name_bytes();
        if self.seen.iter().take(index).any(|seen| seen.eq_ignore_ascii_case(name)) {
            return Some(Err(self
                .members
                .error(PreferError::new(Fault::Duplicate, self.members.start))));
        }
        if let Some(seen) = self.seen.get_mut(index) {
            *seen = name;
        }
        Some(Ok((index, preference)))
    }
}

#[cfg(test)]
mod tests;
