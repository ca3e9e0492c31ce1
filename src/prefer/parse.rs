//! The grammar of one preference, as a cursor over bytes with one method per rule.
//!
//! ```text
//! preference = parameter-or-token *( OWS ";" [ OWS parameter-or-token ] )
//! parameter-or-token = token [ BWS "=" BWS ( token / quoted-string ) ]
//! ```
//!
//! This is [RFC 7240 §2](https://www.rfc-editor.org/rfc/rfc7240.html#section-2) with
//! [erratum 4439](https://www.rfc-editor.org/errata/eid4439) and what a recipient has to put up with.
//!
//! The cursor only moves forward, so that reading is linear whatever the bytes are.

use super::error::{Fault, Part, Place, PreferError};
use super::parameter::{Parameter, Value};

/// A position in a text.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    /// Whether a line feed ends a field line. Otherwise it is a byte like any other, which the grammar never allows.
    lines: bool,
}

impl<'a> Cursor<'a> {
    /// Reads one field value.
    pub(super) const fn of_field(text: &'a [u8]) -> Self {
        Self { text, at: 0, lines: false }
    }

    /// Reads field lines with a line feed between them.
    pub(super) const fn of_lines(text: &'a [u8]) -> Self {
        Self { text, at: 0, lines: true }
    }

    pub(super) const fn position(&self) -> usize {
        self.at
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    pub(super) const fn is_of_lines(&self) -> bool {
        self.lines
    }

    /// The next byte of the text.
    #[inline]
    pub(super) fn byte(&self) -> Option<u8> {
        #[cfg(test)]
        steps::count(1);
        self.text.get(self.at).copied()
    }

    /// The next byte of the field line.
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.byte().filter(|&byte| byte != b'\n' || !self.lines)
    }

    #[inline]
    pub(super) fn advance(&mut self, count: usize) {
        #[cfg(test)]
        steps::count(count);
        self.at += count;
    }

    pub(super) fn advance_to_end(&mut self) {
        self.at = self.text.len();
    }

    #[inline]
    fn take_while(&mut self, accepts: impl Fn(u8) -> bool) -> &'a [u8] {
        let start = self.at;
        while self.byte().is_some_and(&accepts) {
            self.advance(1);
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// [RFC 7240 §2](https://www.rfc-editor.org/rfc/rfc7240.html#section-2), `preference`.
    ///
    /// Starts at the first byte of the preference, and stops at the comma or the end of the line that ends it, or at
    /// the fault. Gives what stands before its first semicolon, and its parameters as they stand behind.
    #[inline]
    pub(super) fn preference(&mut self) -> Result<(Parameter<'a>, &'a [u8]), PreferError> {
        let head = self.pair(Part::Preference)?;
        let start = self.at;
        while self.peek() == Some(b';') {
            self.advance(1);
            self.whitespace();
            if !matches!(self.peek(), None | Some(b',' | b';')) {
                self.pair(Part::Parameter)?;
            }
        }
        Ok((head, self.text.get(start..self.at).unwrap_or_default()))
    }

    /// The next parameter of a preference that has been read before.
    pub(super) fn next_parameter(&mut self) -> Option<Parameter<'a>> {
        self.take_while(|byte| matches!(byte, b';' | b' ' | b'\t'));
        self.peek()?;
        self.pair(Part::Parameter).ok()
    }

    /// `token [ BWS "=" BWS word ]` and the white space behind it, up to the byte that ends it.
    #[inline]
    fn pair(&mut self, part: Part) -> Result<Parameter<'a>, PreferError> {
        let name = self.token();
        if name.is_empty() {
            return Err(self.unexpected(Place::InName(part)));
        }
        let mut apart = self.whitespace();
        if self.peek() != Some(b'=') {
            self.end_of_pair(if apart { Place::AfterName(part) } else { Place::InName(part) })?;
            return Ok(Parameter::new(name, None));
        }
        self.advance(1);
        self.whitespace();
        let value = if self.peek() == Some(b'"') {
            apart = true;
            self.quoted_string(part)?
        } else {
            apart = false;
            self.token_value(part)?
        };
        apart |= self.whitespace();
        self.end_of_pair(if apart { Place::AfterValue(part) } else { Place::InValue(part) })?;
        Ok(Parameter::new(name, value))
    }

    #[inline]
    fn end_of_pair(&self, place: Place) -> Result<(), PreferError> {
        match self.peek() {
            None | Some(b',' | b';') => Ok(()),
            Some(_) => Err(self.unexpected(place)),
        }
    }

    #[inline]
    fn token_value(&mut self, part: Part) -> Result<Option<Value<'a>>, PreferError> {
        let token = self.token();
        if !token.is_empty() {
            return Ok(Some(Value::new(token, false)));
        }
        match self.peek() {
            None | Some(b',' | b';') => Err(PreferError::new(Fault::EmptyValue(part), self.at)),
            Some(_) => Err(self.unexpected(Place::InValue(part))),
        }
    }

    /// [RFC 9110 §5.6.4](https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.4), `quoted-string`.
    ///
    /// An empty one is no value: [RFC 7240 §2](https://www.rfc-editor.org/rfc/rfc7240.html#section-2).
    fn quoted_string(&mut self, part: Part) -> Result<Option<Value<'a>>, PreferError> {
        let opening = self.at;
        self.advance(1);
        let start = self.at;
        let mut escaped = false;
        loop {
            self.take_while(is_quoted_text);
            match self.peek() {
                Some(b'"') => {
                    let content = self.text.get(start..self.at).unwrap_or_default();
                    self.advance(1);
                    return Ok((!content.is_empty()).then_some(Value::new(content, escaped)));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.advance(1);
                    match self.peek() {
                        Some(byte) if is_text(byte) => self.advance(1),
                        Some(_) => return Err(self.unexpected(Place::InValue(part))),
                        None => {
                            return Err(PreferError::new(Fault::UnterminatedQuote(part), opening));
                        }
                    }
                }
                Some(_) => return Err(self.unexpected(Place::InValue(part))),
                None => return Err(PreferError::new(Fault::UnterminatedQuote(part), opening)),
            }
        }
    }

    /// [RFC 9110 §5.6.2](https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.2), `token`; empty if there is none.
    #[inline]
    fn token(&mut self) -> &'a [u8] {
        self.take_while(is_token)
    }

    /// [RFC 9110 §5.6.3](https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.3), `OWS` and `BWS`; whether there was
    /// any.
    #[inline]
    fn whitespace(&mut self) -> bool {
        !self.take_while(|byte| matches!(byte, b' ' | b'\t')).is_empty()
    }

    /// From a fault outside of quotes to the comma, or the end of the line, that ends its preference.
    pub(super) fn skip_preference(&mut self) {
        let mut quoted = false;
        while let Some(byte) = self.peek() {
            match byte {
                b',' if !quoted => return,
                b'"' => quoted = !quoted,
                // Whatever is escaped ends nothing, except that no escape reaches beyond its line.
                b'\\' if quoted => {
                    self.advance(1);
                    if self.peek().is_none() {
                        return;
                    }
                }
                _ => {}
            }
            self.advance(1);
        }
    }

    /// The next byte as a fault. There is one wherever this is called: the end of a line ends every rule but quotes.
    #[cold]
    fn unexpected(&self, place: Place) -> PreferError {
        PreferError::new(Fault::Unexpected(self.peek().unwrap_or_default(), place), self.at)
    }
}

/// [RFC 9110 §5.6.2](https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.2), `tchar`.
#[inline]
pub(super) const fn is_token(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

/// What a quoted string may contain, escaped or not: `HTAB`, `SP`, `VCHAR` and `obs-text`.
#[inline]
pub(super) const fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// [RFC 9110 §5.6.4](https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.4), `qdtext`: what needs no escape.
#[inline]
const fn is_quoted_text(byte: u8) -> bool {
    CLASSES[byte as usize] & QUOTED_TEXT != 0
}

const TOKEN: u8 = 1;
const QUOTED_TEXT: u8 = 2;

/// The classes of each byte: a look-up per byte is all that the inner loops do.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    loop {
        let mut class = 0;
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            class |= TOKEN;
        }
        if is_text(byte) && !matches!(byte, b'"' | b'\\') {
            class |= QUOTED_TEXT;
        }
        classes[byte as usize] = class;
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    classes
};

/// Counts what the cursor does, so that a test can hold it to linear work without a clock.
#[cfg(test)]
pub(super) mod steps {
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    pub(in crate::prefer) fn count(steps: usize) {
        STEPS.set(STEPS.get() + steps);
    }

    /// The steps since this was last called on this thread.
    pub(in crate::prefer) fn take() -> usize {
        STEPS.take()
    }
}

#[cfg(test)]
mod tests;
