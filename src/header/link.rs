use http::{HeaderMap, HeaderValue, header};

use super::UriReference;

/// A web link with one relation ([RFC 8288 §3](https://www.rfc-editor.org/rfc/rfc8288#section-3)).
///
/// ```
/// use respond_async::header::Link;
///
/// let link = Link::monitor("/operations/17");
/// assert_eq!(link.to_header_value(), r#"</operations/17>; rel="monitor""#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    target: UriReference,
    rel: &'static str,
}

impl Link {
    /// A link to the status monitor of what was asked for (relation `monitor`,
    /// [RFC 5989](https://www.rfc-editor.org/rfc/rfc5989)).
    pub fn monitor(target: impl Into<UriReference>) -> Self {
        Self { target: target.into(), rel: "monitor" }
    }

    /// A link to the next page of a list (relation `next`).
    pub fn next(target: impl Into<UriReference>) -> Self {
        Self { target: target.into(), rel: "next" }
    }

    /// The link as a header value.
    pub fn to_header_value(&self) -> HeaderValue {
        let text = ["<", self.target.as_str(), ">; rel=\"", self.rel, "\""].concat();
        // A URI reference and a relation name are visible ASCII.
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("</>"))
    }

    /// The target of the first link to a status monitor in a response, as it stands there; none if there is
    /// no such link. What is malformed ends its line.
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue};
    /// use respond_async::header::Link;
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.insert("link", HeaderValue::from_static("</help>; rel=help, <jobs/3>; rel=\"monitor\""));
    /// assert_eq!(Link::monitor_in(&headers), Some("jobs/3"));
    /// ```
    pub fn monitor_in(headers: &HeaderMap) -> Option<&str> {
        // Text beyond ASCII is of no link's target, but may be of its title.
        let lines = headers.get_all(header::LINK).iter();
        let lines = lines.filter_map(|line| std::str::from_utf8(line.as_bytes()).ok());
        lines.flat_map(Links).find(|(_, rel)| is_monitor(rel)).map(|(target, _)| target)
    }
}

fn is_monitor(rel: &str) -> bool {
    rel.split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case("monitor"))
}

/// The links of a line: target and relations
/// ([RFC 8288 §3](https://www.rfc-editor.org/rfc/rfc8288#section-3)).
struct Links<'a>(&'a str);

impl<'a> Iterator for Links<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_start_matches([' ', '\t', ',']);
        let (target, mut rest) = rest.strip_prefix('<')?.split_once('>')?;
        let mut relations = None;
        loop {
            rest = rest.trim_start();
            let Some(parameter) = rest.strip_prefix(';') else { break };
            let parameter = parameter.trim_start();
            let end = parameter.find(['=', ';', ',']).unwrap_or(parameter.len());
            let (name, after) = parameter.split_at(end);
            let (value, after) = match after.strip_prefix('=') {
                Some(value) => value_of(value.trim_start())?,
                None => ("", after),
            };
            // The first counts (RFC 8288 §3.3).
            if name.trim_end().eq_ignore_ascii_case("rel") {
                relations.get_or_insert(value);
            }
            rest = after;
        }
        self.0 = match rest {
            "" => "",
            rest => rest.strip_prefix(',').unwrap_or_default(),
        };
        Some((target, relations.unwrap_or_default()))
    }
}

/// A value at the beginning of a text, without its quotes, and what follows it. What is escaped in it stays
/// escaped: no relation needs that.
fn value_of(text: &str) -> Option<(&str, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Some((value.trim_end(), rest));
    };
    let mut escaped = false;
    let end = quoted.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some((&quoted[..end], &quoted[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_is_found_among_links() {
        for (line, target) in [
            ("</o/1>; rel=monitor", Some("/o/1")),
            ("</o/1>;rel=\"monitor\"", Some("/o/1")),
            (" , <a>; title=\"x, <b>; rel=monitor\", <c> ; REL = \"up Monitor\" ; q", Some("c")),
            ("<a>; title=\"\\\"\"; rel=monitor", Some("a")),
            ("<a>; rel=next; rel=monitor", None),
            ("<a>; rev=monitor", None),
            ("<a>; rel", None),
            ("<a>; rel=monitors, <monitor>", None),
            ("<a; rel=monitor", None),
            ("<a>; rel=\"monitor", None),
            ("<>; rel=monitor", Some("")),
            ("<a>; title=\"größer\"; rel=monitor", Some("a")),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(header::LINK, HeaderValue::from_static("<z>; rel=z"));
            headers.append(header::LINK, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            assert_eq!(Link::monitor_in(&headers), target, "{line}");
        }
    }
}
