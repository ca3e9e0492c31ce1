use http::{HeaderMap, Method, Uri, header};
use sha2::{Digest, Sha256};

use crate::problem::{Problem, types};
use crate::store::{Fingerprint, Idempotency, IdempotencyKey};

impl Idempotency {
    /// What the `Idempotency-Key` field of a request names; none if it has no such field.
    ///
    /// The key counts for the request's method and target, and for the owner that is given to
    /// [`KickOff::owner`](super::KickOff::owner). Two requests are the same if their media type and
    /// content are. Give it to [`KickOff::idempotency`](super::KickOff::idempotency), after your own
    /// checks of the request, for whatever is refused before is not remembered.
    ///
    /// The target is the whole one that the client sent. A nested router of axum leaves its prefix out of what its
    /// handlers get, and then the same key at `/orders/` and at `/refunds/` is one. The extractors `Head` of the features
    /// `axum` and `actix` have the whole.
    ///
    /// ```
    /// use http::{HeaderMap, Method, Uri};
    /// use respond_async::store::Idempotency;
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.insert("idempotency-key", "\"order-17\"".parse()?);
    /// let target = Uri::from_static("/images");
    /// let named = Idempotency::from_request(&Method::POST, &target, &headers, b"a picture")?;
    /// assert_eq!(named.unwrap().key.as_str(), "order-17");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A problem of the type [`INVALID_KEY`](types::INVALID_KEY) if the field holds no key.
    pub fn from_request(
        method: &Method,
        target: &Uri,
        headers: &HeaderMap,
        content: &[u8],
    ) -> Result<Option<Self>, Problem> {
        let key = IdempotencyKey::from_headers(headers).map_err(|error| {
            Problem::new(types::INVALID_KEY).with_detail(format!("Idempotency-Key: {error}."))
        })?;
        let Some(key) = key else { return Ok(None) };
        let target = target.path_and_query().map_or("/", |target| target.as_str());
        let media_type =
            headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let mut digest = Sha256::new();
        // The length first, so that no byte of the one can pass for a byte of the other.
        digest.update((media_type.len() as u64).to_be_bytes());
        digest.update(media_type);
        digest.update(content);
        Ok(Some(Self {
            scope: format!("{method} {target}").into(),
            key,
            fingerprint: Fingerprint(digest.finalize().into()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn named(
        method: &Method,
        target: &'static str,
        media_type: &'static str,
        content: &[u8],
    ) -> Idempotency {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", HeaderValue::from_static("k"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        let target = Uri::from_static(target);
        Idempotency::from_request(method, &target, &headers, content).unwrap().unwrap()
    }

    #[test]
    fn scope_and_fingerprint_tell_requests_apart() {
        let one = named(&Method::POST, "/a?b=c", "text/plain", b"x");
        assert_eq!(one, named(&Method::POST, "http://any.host/a?b=c", "text/plain", b"x"));
        for other in [
            named(&Method::PUT, "/a?b=c", "text/plain", b"x"),
            named(&Method::POST, "/a", "text/plain", b"x"),
        ] {
            assert_ne!(one.scope, other.scope);
            assert_eq!(one.fingerprint, other.fingerprint);
        }
        for other in [
            named(&Method::POST, "/a?b=c", "text/plain", b"y"),
            named(&Method::POST, "/a?b=c", "text/plainx", b""),
            named(&Method::POST, "/a?b=c", "text/html", b"x"),
        ] {
            assert_eq!(one.scope, other.scope);
            assert_ne!(one.fingerprint, other.fingerprint);
        }
    }

    #[test]
    fn a_bad_key_is_a_problem() {
        let mut headers = HeaderMap::new();
        let parse = |headers: &HeaderMap| {
            Idempotency::from_request(&Method::POST, &Uri::from_static("/"), headers, b"")
        };
        assert_eq!(parse(&headers).unwrap(), None);
        headers.insert("idempotency-key", HeaderValue::from_static("\"open"));
        assert!(parse(&headers).unwrap_err().is(types::INVALID_KEY));
    }
}
