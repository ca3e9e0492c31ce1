//! Text that is written into a page.

use std::fmt::{self, Write};

/// A text of somebody else's, in which nothing can be markup: neither as content nor as the value of a
/// quoted attribute.
pub(super) struct Escaped<T>(pub(super) T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'', '\0']) {
            self.0.write_str(&rest[..at])?;
            self.0.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                b'\'' => "&#39;",
                // No page may hold it.
                _ => "\u{FFFD}",
            })?;
            rest = &rest[at + 1..];
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_it_is_markup() {
        let text = "a<b>&\"c'd\0 é </script><!--";
        let escaped = Escaped(text).to_string();
        assert_eq!(escaped, "a&lt;b&gt;&amp;&quot;c&#39;d\u{FFFD} é &lt;/script&gt;&lt;!--");
        assert_eq!(Escaped("").to_string(), "");
        assert_eq!(Escaped(format_args!("{}{}", '<', 1)).to_string(), "&lt;1");
    }
}
