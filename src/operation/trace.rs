use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The field that names a request's place in a trace.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The field with what tracing systems add to that.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Where a request stands in a trace of many services ([W3C Trace Context](https://www.w3.org/TR/trace-context/)).
///
/// It is kept with the operation, so that the work, whichever process does it, belongs to the trace of the
/// request that began it. It is passed on as it came; this crate makes no spans of its own of it. A clone is
/// cheap.
///
/// ```
/// use http::HeaderMap;
/// use respond_async::operation::TraceContext;
///
/// let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let mut headers = HeaderMap::new();
/// headers.insert("traceparent", parent.parse().unwrap());
/// assert_eq!(TraceContext::from_headers(&headers).unwrap().parent(), parent);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceContext(Arc<(Box<str>, Box<str>)>);

impl TraceContext {
    /// The longest `tracestate` that is kept, in bytes; of a longer one nothing is.
    pub const MAX_STATE_BYTES: usize = 512;

    /// A trace context; none if `parent` is not of its form. A `state` that is not of its form is left out.
    pub fn new(parent: &str, state: &str) -> Option<Self> {
        let is_state = state.len() <= Self::MAX_STATE_BYTES
            && state.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let state = if is_state { state } else { "" };
        is_parent(parent).then(|| Self(Arc::new((parent.into(), state.into()))))
    }

    /// That of a request, if it has one. Several `tracestate` fields are one list.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (parent, None) = (parents.next()?, parents.next()) else { return None };
        let states = headers.get_all(TRACESTATE).iter().map(HeaderValue::to_str);
        let states: Result<Vec<_>, _> = states.collect();
        Self::new(parent.to_str().ok()?, &states.unwrap_or_default().join(","))
    }

    /// The value of `traceparent`.
    pub fn parent(&self) -> &str {
        &self.0.0
    }

    /// The value of `tracestate`; empty if there is none.
    pub fn state(&self) -> &str {
        &self.0.1
    }

    /// Puts it into a request to another service, in place of what is there.
    pub fn insert_into(&self, headers: &mut HeaderMap) {
        headers.remove(TRACESTATE);
        let fields = [(TRACEPARENT, self.parent()), (TRACESTATE, self.state())];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TraceContext").field(&self.parent()).finish()
    }
}

/// `version-trace_id-parent_id-flags` in lower-case hexadecimal. A version after 00 may have more at its end.
fn is_parent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut next = |length: usize| {
        let is_hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        parts.next().filter(|part| part.len() == length && part.bytes().all(is_hex))
    };
    let (Some(version), Some(trace), Some(parent), Some(_)) =
        (next(2), next(32), next(16), next(2))
    else {
        return false;
    };
    let is_zero = |id: &str| id.bytes().all(|byte| byte == b'0');
    let is_known = version == "00";
    let rest = parts.next();
    version != "ff"
        && !is_zero(trace)
        && !is_zero(parent)
        && (rest.is_none() || !is_known)
        && text.len() <= 256
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn parents() {
        let cases = [
            (PARENT.to_owned(), true),
            (PARENT.replace("00-", "cc-"), true),
            (PARENT.replace("00-", "cc-") + "-what-follows", true),
            (PARENT.to_owned() + "-x", false),
            (PARENT.replace("00-", "ff-"), false),
            (PARENT.to_uppercase(), false),
            (PARENT.replace("b7ad6b7169203331", "0000000000000000"), false),
            (PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)), false),
            (PARENT[..54].to_owned(), false),
            (PARENT.replace('-', "_"), false),
            (format!(" {PARENT}"), false),
            (format!("cc-{}-{}", &PARENT[3..], "x".repeat(300)), false),
            (String::new(), false),
        ];
        for (text, is_valid) in cases {
            assert_eq!(TraceContext::new(&text, "").is_some(), is_valid, "{text}");
        }
    }

    #[test]
    fn fields_come_and_go() {
        let mut headers = HeaderMap::new();
        let mut add = |name: HeaderName, value: &str| headers.append(name, value.parse().unwrap());
        add(TRACEPARENT, PARENT);
        add(TRACESTATE, "a=1");
        add(TRACESTATE, "b=2");
        let trace = TraceContext::from_headers(&headers).unwrap();
        assert_eq!((trace.parent(), trace.state()), (PARENT, "a=1,b=2"));
        let mut sent = HeaderMap::new();
        sent.append(TRACESTATE, HeaderValue::from_static("old=1"));
        sent.append(TRACESTATE, HeaderValue::from_static("old=2"));
        trace.insert_into(&mut sent);
        assert_eq!(TraceContext::from_headers(&sent), Some(trace));

        headers.append(TRACEPARENT, PARENT.parse().unwrap());
        assert_eq!(TraceContext::from_headers(&headers), None, "which one it is nobody knows");
        for state in ["x".repeat(513), "a=\u{e9}".to_owned()] {
            assert_eq!(TraceContext::new(PARENT, &state).unwrap().state(), "");
        }
    }
}
