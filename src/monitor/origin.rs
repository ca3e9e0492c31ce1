//! Whether a form was sent by a page of this service.
//!
//! A browser sends a form wherever a page tells it to, with the cookies of where it goes. So what changes
//! something is done for a form only if the browser itself says that the page is of the same origin: by
//! [`Sec-Fetch-Site`](https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header), which no script can set;
//! from browsers older than that, by an `Origin` that is the request's own host. Whoever says neither is no
//! browser that shows our pages, and has DELETE.

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Whether it was. `own` is the origin at which the service knows that it is, or empty.
pub(super) fn is_own_page(headers: &HeaderMap, uri: &Uri, own: &str) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin";
    }
    let Some(origin) = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()) else {
        return false;
    };
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(Authority::as_str));
    let configured = own.split_once("://").map(|(_, authority)| authority);
    [host, configured].into_iter().flatten().any(|own| own.eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[track_caller]
    fn check(fields: &[(&'static str, &'static str)], expected: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let own = "https://api.example";
        assert_eq!(is_own_page(&headers, &Uri::from_static("/"), own), expected, "{fields:?}");
    }

    #[test]
    fn only_the_browser_itself_can_say_so() {
        let (host, own) = (("host", "Localhost:3000"), ("origin", "http://localhost:3000"));
        check(&[("sec-fetch-site", "same-origin")], true);
        for site in ["same-site", "cross-site", "none", "same-origin, cross-site", ""] {
            check(&[("sec-fetch-site", site), own, host], false);
        }
        check(&[own, host], true);
        check(&[("origin", "https://api.example"), ("host", "10.0.0.1")], true);
        for origin in ["null", "", "http://localhost", "http://evil.example", "localhost:3000"] {
            check(&[("origin", origin), host], false);
        }
        check(&[("origin", "http://evil.example/localhost:3000"), host], false);
        check(&[host], false);
        check(&[own], false);
        check(&[], false);
    }
}
