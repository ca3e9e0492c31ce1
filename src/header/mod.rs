//! Header fields that an asynchronous answer is made of, as types that cannot be encoded wrongly.
//!
//! Values are validated or encoded when they are made, so writing them into a response cannot fail
//! and no byte of a request can end a header line.
//!
//! | field | type | specification |
//! | --- | --- | --- |
//! | `Location`, `Content-Location`, target of `Link` | [`UriReference`] | [RFC 9110 §10.2.2], [§8.7] |
//! | `Cache-Control` | [`CacheControl`] | [RFC 9111 §5.2] |
//! | `ETag`, `If-None-Match` | [`EntityTag`] | [RFC 9110 §8.8.3] |
//! | `Accept` | [`preferred_type`] | [RFC 9110 §12.5.1] |
//! | `Link` | [`Link`] | [RFC 8288] |
//! | `Retry-After` | [`retry_after`] | [RFC 9110 §10.2.3] |
//!
//! `Prefer` and `Preference-Applied` have a module of their own, [`prefer`](crate::prefer).
//!
//! [RFC 9110 §10.2.2]: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.2
//! [§8.7]: https://www.rfc-editor.org/rfc/rfc9110#section-8.7
//! [RFC 9111 §5.2]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2
//! [RFC 9110 §8.8.3]: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3
//! [RFC 9110 §12.5.1]: https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1
//! [RFC 8288]: https://www.rfc-editor.org/rfc/rfc8288
//! [RFC 9110 §10.2.3]: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3

mod accept;
mod cache_control;
mod entity_tag;
mod link;
#[cfg(any(feature = "client-cache", feature = "tower"))]
mod pairs;
mod uri_reference;

use std::time::Duration;

use http::HeaderMap;
use http::header::{self, Entry, HeaderName, HeaderValue};

pub use accept::{MAX_ACCEPT_BYTES, preferred_type};
pub use cache_control::CacheControl;
pub use entity_tag::{EntityTag, InvalidEntityTag, MAX_IF_NONE_MATCH_BYTES};
pub use link::Link;
#[cfg(any(feature = "client-cache", feature = "tower"))]
pub(crate) use pairs::{from_pairs, to_pairs};
pub use uri_reference::UriReference;

use crate::time::Timestamp;

/// The media type of JSON ([RFC 8259 §11](https://www.rfc-editor.org/rfc/rfc8259#section-11)).
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// `Sunset`, when a resource will go ([RFC 8594](https://www.rfc-editor.org/rfc/rfc8594)).
pub const SUNSET: HeaderName = HeaderName::from_static("sunset");
/// `Idempotency-Replayed`, on an answer that an earlier request with the same idempotency key has begun.
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The response fields that a browser's script must be allowed to read
/// (`Access-Control-Expose-Headers`), so that it can follow a 202 from another origin.
///
/// Give this list to your CORS layer; without it a script sees neither where the status monitor is
/// nor when to ask again. What a script sends is to be allowed as well: `Prefer`, `Idempotency-Key`, `If-Match` and
/// `If-None-Match`, and the method `DELETE`.
pub const EXPOSED: [HeaderName; 9] = [
    header::CONTENT_LOCATION,
    header::ETAG,
    IDEMPOTENCY_REPLAYED,
    header::LINK,
    header::LOCATION,
    HeaderName::from_static("preference-applied"),
    header::RETRY_AFTER,
    SUNSET,
    header::VARY,
];

/// Encodes `Retry-After` as delay-seconds, rounded up and at least 1
/// ([RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)).
///
/// The other form, an HTTP-date, is never written: it needs synchronous clocks.
pub fn retry_after(delay: Duration) -> HeaderValue {
    let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
    HeaderValue::from(seconds.max(1))
}

/// Reads `Retry-After` in either of its forms: how long after the answer to ask again
/// ([RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)). A date is compared with the
/// answer's own `Date`, so that the server's clock may be wrong, else with `now`; one that has passed is
/// zero. None if there is no such field, or if it makes no sense.
pub fn read_retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number of seconds that no number holds is for ever.
        return (!text.is_empty()).then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = |text: &str| Timestamp::from_http_date(text.trim());
    let own = headers.get(header::DATE).and_then(|value| value.to_str().ok()).and_then(date);
    Some(date(text)?.duration_since(own.unwrap_or(now)))
}

/// Makes sure that `Vary` lists `Prefer`, keeping what it lists already.
///
/// Every answer of a resource that negotiates needs it, whether or not the request had a `Prefer`
/// ([RFC 7240 §2](https://www.rfc-editor.org/rfc/rfc7240#section-2)). `Vary: *` covers it.
pub fn vary_on_prefer(headers: &mut HeaderMap) {
    let prefer = HeaderValue::from_static("Prefer");
    match headers.entry(header::VARY) {
        Entry::Vacant(absent) => {
            absent.insert(prefer);
        }
        Entry::Occupied(mut lines) => {
            if !lines.iter().any(covers_prefer) {
                lines.append(prefer);
            }
        }
    }
}

/// Whether `Vary` lists `Prefer`.
pub(crate) fn varies_on_prefer(headers: &HeaderMap) -> bool {
    headers.get_all(header::VARY).iter().any(covers_prefer)
}

fn covers_prefer(vary: &HeaderValue) -> bool {
    vary.as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .any(|member| member == b"*" || member.eq_ignore_ascii_case(b"prefer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_whole_seconds_and_never_zero() {
        for (millis, seconds) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (60_000, "60")] {
            assert_eq!(retry_after(Duration::from_millis(millis)), seconds);
        }
        assert_eq!(retry_after(Duration::MAX), u64::MAX.to_string());
    }

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now = Timestamp::from_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let later = "Sun, 06 Nov 1994 08:50:07 GMT";
        for (field, date, seconds) in [
            ("0", None, Some(0)),
            (" 7 ", None, Some(7)),
            ("99999999999999999999999", None, Some(u64::MAX)),
            (later, None, Some(30)),
            (later, Some("Sun, 06 Nov 1994 08:50:00 GMT"), Some(7)),
            (later, Some("nonsense"), Some(30)),
            ("Sun Nov  6 08:49:40 1994", None, Some(3)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None, Some(0)),
            ("-1", None, None),
            ("1.5", None, None),
            ("", None, None),
            ("soon", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(field));
            if let Some(date) = date {
                headers.insert(header::DATE, HeaderValue::from_static(date));
            }
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(read_retry_after(&headers, now), expected, "{field:?} {date:?}");
        }
        assert_eq!(read_retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn vary_is_added_once() {
        for (before, lines) in [
            (&[][..], 1),
            (&["Accept"][..], 2),
            (&["accept, PREFER"][..], 1),
            (&["Accept", "prefer "][..], 2),
            (&["*"][..], 1),
            (&["X-Prefer"][..], 2),
        ] {
            let mut headers = HeaderMap::new();
            for line in before {
                headers.append(header::VARY, HeaderValue::from_static(line));
            }
            vary_on_prefer(&mut headers);
            vary_on_prefer(&mut headers);
            assert_eq!(headers.get_all(header::VARY).iter().count(), lines, "{before:?}");
        }
    }
}
