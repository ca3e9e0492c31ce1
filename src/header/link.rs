use http::HeaderValue;

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
}
