use http::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};

/// How many bytes of `If-None-Match`, or of `If-Match`, are read: its lines as far as they fit into 8 KiB as
/// a whole. A tag on a later line does not match, so the answer is then the full one, or 412.
pub const MAX_IF_NONE_MATCH_BYTES: usize = 8 * 1024;

/// A strong entity tag ([RFC 9110 §8.8.3](https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3)).
///
/// ```
/// use http::{HeaderMap, HeaderValue, header::IF_NONE_MATCH};
/// use respond_async::header::EntityTag;
///
/// let tag = EntityTag::new("v7")?;
/// let mut request = HeaderMap::new();
/// request.insert(IF_NONE_MATCH, HeaderValue::from_static(r#""v6", W/"v7""#));
/// assert!(tag.is_in_if_none_match(&request));
/// # Ok::<(), respond_async::header::InvalidEntityTag>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityTag(HeaderValue);

/// A text with a byte that no entity tag may hold: a quote, a space, or a control byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an entity tag holds neither quotes, spaces nor control bytes")]
pub struct InvalidEntityTag(());

impl EntityTag {
    /// A tag of the given text, without its quotes.
    ///
    /// # Errors
    /// [`InvalidEntityTag`] if the text has a byte outside
    /// [etagc](https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3).
    pub fn new(text: &str) -> Result<Self, InvalidEntityTag> {
        let is_etagc = |byte: u8| byte == 0x21 || (0x23..=0x7E).contains(&byte) || byte >= 0x80;
        if !text.bytes().all(is_etagc) {
            return Err(InvalidEntityTag(()));
        }
        HeaderValue::try_from(format!("\"{text}\"")).map(Self).map_err(|_| InvalidEntityTag(()))
    }

    /// The tag that names a revision: its number.
    pub fn of_revision(revision: u64) -> Self {
        let text = format!("\"{revision}\"");
        Self(HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("\"\"")))
    }

    /// The tag as a header value, with its quotes.
    pub fn to_header_value(&self) -> HeaderValue {
        self.0.clone()
    }

    /// Whether `If-None-Match` lists this tag, or is `*`: then a GET is answered 304. Tags are
    /// compared weakly ([RFC 9110 §13.1.2](https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2)).
    pub fn is_in_if_none_match(&self, headers: &HeaderMap) -> bool {
        self.is_in(headers, &IF_NONE_MATCH, true)
    }

    /// Whether `If-Match` lists this tag, or is `*`: otherwise what was asked for is not done (412). Tags are
    /// compared strongly ([RFC 9110 §13.1.1](https://www.rfc-editor.org/rfc/rfc9110#section-13.1.1)).
    pub fn is_in_if_match(&self, headers: &HeaderMap) -> bool {
        self.is_in(headers, &IF_MATCH, false)
    }

    fn is_in(&self, headers: &HeaderMap, field: &HeaderName, weakly: bool) -> bool {
        let mut budget = MAX_IF_NONE_MATCH_BYTES;
        for line in headers.get_all(field) {
            let line = line.as_bytes();
            let Some(rest) = budget.checked_sub(line.len()) else { return false };
            budget = rest;
            if line.trim_ascii() == b"*" || self.is_in_list(line, weakly) {
                return true;
            }
        }
        false
    }

    /// A tag may hold a comma, so the list is read tag by tag and not split.
    fn is_in_list(&self, mut list: &[u8], weakly: bool) -> bool {
        while let Some(open) = list.iter().position(|byte| *byte == b'"') {
            let Some(length) = list[open + 1..].iter().position(|byte| *byte == b'"') else {
                break;
            };
            let end = open + 1 + length + 1;
            let is_weak = list[..open].ends_with(b"W/");
            if list[open..end] == *self.0.as_bytes() && (weakly || !is_weak) {
                return true;
            }
            list = &list[end..];
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_compares_strongly() {
        let tag = EntityTag::of_revision(3);
        for (line, is_in) in [
            ("\"3\"", true),
            ("\"2\", \"3\"", true),
            ("*", true),
            ("W/\"3\"", false),
            ("\"2\"", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(IF_MATCH, HeaderValue::from_static(line))]);
            assert_eq!(tag.is_in_if_match(&headers), is_in, "{line}");
        }
        assert!(!tag.is_in_if_match(&HeaderMap::new()));
    }

    #[track_caller]
    fn matches(tag: &str, lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_NONE_MATCH, HeaderValue::from_str(line).unwrap());
        }
        EntityTag::new(tag).unwrap().is_in_if_none_match(&headers)
    }

    #[test]
    fn compares_weakly_over_lists_and_lines() {
        assert!(matches("7", &[r#""7""#]));
        assert!(matches("7", &[r#"W/"7""#]));
        assert!(matches("7", &[r#""1", "7""#]));
        assert!(matches("7", &[r#""1""#, r#""7""#]));
        assert!(matches("7", &[" * "]));
        assert!(matches("a,b", &[r#""a,b""#]));
        assert!(!matches("a", &[r#""a,b""#]));
        assert!(!matches("7", &[]));
        assert!(!matches("7", &["7"]));
        assert!(!matches("7", &[r#""7"#]));
        assert!(!matches("7", &[r#""17""#]));
        assert!(!matches("7", &[&"x".repeat(MAX_IF_NONE_MATCH_BYTES), r#""7""#]));
    }

    #[test]
    fn refuses_what_would_end_the_tag() {
        for text in ["a\"b", "a b", "a\r\n", "\u{7f}"] {
            assert!(EntityTag::new(text).is_err(), "{text:?}");
        }
        assert_eq!(EntityTag::of_revision(7), EntityTag::new("7").unwrap());
    }
}
