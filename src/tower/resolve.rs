//! References of an answer that is read elsewhere than at its request's target.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;

/// Makes what an answer names relative to its request's target mean the same wherever the answer is read: its result
/// is at another URL, and its monitor tells its `Location`. A reference that begins with `/` stays, and one with a
/// scheme.
pub(super) fn resolve_locations(headers: &mut HeaderMap, target: &PathAndQuery) {
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let Some(value) = headers.get_mut(name) else { continue };
        let reference = std::str::from_utf8(value.as_bytes()).ok();
        let resolved = reference.and_then(|reference| resolved(target, reference));
        if let Some(resolved) = resolved.and_then(|text| HeaderValue::try_from(text).ok()) {
            *value = resolved;
        }
    }
}

/// The reference as one that begins with `/` ([RFC 3986 §5.2](https://www.rfc-editor.org/rfc/rfc3986#section-5.2)); none
/// if it does already, or has a scheme.
fn resolved(base: &PathAndQuery, reference: &str) -> Option<String> {
    if reference.starts_with('/') || has_scheme(reference) {
        return None;
    }
    let path_end = reference.find(['?', '#']).unwrap_or(reference.len());
    let (path, rest) = reference.split_at(path_end);
    if path.is_empty() {
        let query = base.query().filter(|_| !rest.starts_with('?'));
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        return Some([&of_this_host(base.path().to_owned()), &query, rest].concat());
    }
    let folder = base.path().rfind('/').map_or("/", |slash| &base.path()[..=slash]);
    Some(of_this_host(without_dots(&[folder, path].concat())) + rest)
}

/// Whether it begins with a scheme ([RFC 3986 §3.1](https://www.rfc-editor.org/rfc/rfc3986#section-3.1)).
fn has_scheme(reference: &str) -> bool {
    let scheme = reference.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(is_of_scheme)
}

/// The path without `.` and `..`
/// ([RFC 3986 §5.2.4](https://www.rfc-editor.org/rfc/rfc3986#section-5.2.4)).
fn without_dots(path: &str) -> String {
    let mut kept = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if segment == ".." {
            kept.pop();
        }
        match segment {
            "." | ".." if is_last => kept.push(""),
            "." | ".." => {}
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

/// What begins with two slashes would name a host, and clients choose the target.
fn of_this_host(path: String) -> String {
    if path.starts_with("//") { format!("/.{path}") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &'static str, reference: &str, expected: &str) {
        let base = PathAndQuery::from_static(base);
        let resolved = resolved(&base, reference);
        assert_eq!(resolved.as_deref().unwrap_or(reference), expected, "{reference} at {base}");
    }

    /// [RFC 3986 §5.4](https://www.rfc-editor.org/rfc/rfc3986#section-5.4), without scheme and authority.
    #[test]
    fn references_are_resolved_as_the_rfc_has_them() {
        for (reference, expected) in [
            ("g:h", "g:h"),
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("//g", "//g"),
            ("?y", "/b/c/d;p?y"),
            ("g?y", "/b/c/g?y"),
            ("#s", "/b/c/d;p?q#s"),
            ("g#s", "/b/c/g#s"),
            ("g?y#s", "/b/c/g?y#s"),
            (";x", "/b/c/;x"),
            ("g;x", "/b/c/g;x"),
            ("g;x?y#s", "/b/c/g;x?y#s"),
            ("", "/b/c/d;p?q"),
            (".", "/b/c/"),
            ("./", "/b/c/"),
            ("..", "/b/"),
            ("../", "/b/"),
            ("../g", "/b/g"),
            ("../..", "/"),
            ("../../", "/"),
            ("../../g", "/g"),
            ("../../../g", "/g"),
            ("../../../../g", "/g"),
            ("g.", "/b/c/g."),
            (".g", "/b/c/.g"),
            ("g..", "/b/c/g.."),
            ("..g", "/b/c/..g"),
            ("./../g", "/b/g"),
            ("./g/.", "/b/c/g/"),
            ("g/./h", "/b/c/g/h"),
            ("g/../h", "/b/c/h"),
            ("g;x=1/./y", "/b/c/g;x=1/y"),
            ("g;x=1/../y", "/b/c/y"),
            ("g?y/./x", "/b/c/g?y/./x"),
            ("g?y/../x", "/b/c/g?y/../x"),
            ("g#s/./x", "/b/c/g#s/./x"),
            ("g#s/../x", "/b/c/g#s/../x"),
            ("http:g", "http:g"),
        ] {
            check("/b/c/d;p?q", reference, expected);
        }
    }

    #[test]
    fn whatever_the_target_is_no_reference_comes_to_name_a_host() {
        check("/", "17", "/17");
        check("*", "17", "/17");
        check("/a", "?x", "/a?x");
        check("/reports/", "1:2", "/reports/1:2");
        check("/reports/", "ü", "/reports/ü");
        check("//evil.example/x", "17", "/.//evil.example/17");
        check("//evil.example/x", "#s", "/.//evil.example/x#s");
        check("/a", ".//evil.example", "/.//evil.example");
    }

    #[test]
    fn what_is_no_text_stays() {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, HeaderValue::from_bytes(b"\xFF").unwrap());
        headers.insert(header::CONTENT_LOCATION, HeaderValue::from_static("17"));
        resolve_locations(&mut headers, &PathAndQuery::from_static("/reports/?x=1"));
        assert_eq!(headers["location"].as_bytes(), b"\xFF");
        assert_eq!(headers["content-location"], "/reports/17");
    }
}
