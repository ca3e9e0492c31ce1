use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_cache_semantics::{
    AfterResponse, BeforeRequest, CacheOptions, CachePolicy, RequestLike, ResponseLike,
};
use serde::{Deserialize, Serialize};

use super::{CACHE_STATUS, READ};
use crate::header::{from_pairs, to_pairs};

/// How many answers to one target are kept, by what they vary on.
const MAX_VARIANTS: usize = 8;

/// What is kept of one target: its answers, each with the request that it was to.
#[derive(Debug, Clone)]
pub struct CacheEntry {
    variants: Vec<Variant>,
}

#[derive(Debug, Clone)]
pub(super) struct Variant {
    /// Whose it is: a digest of the credentials.
    user: String,
    policy: CachePolicy,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    received: SystemTime,
}

/// What stands of a variant before the contents, in one line of JSON.
#[derive(Serialize, Deserialize)]
struct Head {
    user: String,
    policy: CachePolicy,
    status: u16,
    headers: Vec<(String, String)>,
    bytes: usize,
    received: SystemTime,
}

impl CacheEntry {
    /// The entry with that answer in place of the one that the same request would have got before.
    pub(super) fn with(
        before: Option<&Self>,
        kept: Variant,
        request: &Request<Bytes>,
        now: SystemTime,
    ) -> Self {
        let others = before.into_iter().flat_map(|entry| &entry.variants);
        let others = others.filter(|other| other.before(&kept.user, request, now).is_none());
        let others = others.take(MAX_VARIANTS - 1).cloned();
        let mut variants: Vec<_> = others.collect();
        variants.insert(0, kept);
        Self { variants }
    }

    /// The answer that the request would get, and whether it may be used as it is.
    pub(super) fn matching(
        &self,
        user: &str,
        request: &Request<Bytes>,
        now: SystemTime,
    ) -> Option<(&Variant, BeforeRequest)> {
        self.variants
            .iter()
            .find_map(|variant| Some((variant, variant.before(user, request, now)?)))
    }

    /// How much room it takes, about.
    pub fn bytes(&self) -> usize {
        let fields = |headers: &HeaderMap| -> usize {
            headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum()
        };
        let variants = self.variants.iter();
        variants.map(|variant| 512 + variant.body.len() + 2 * fields(&variant.headers)).sum()
    }

    /// The entry as bytes, for a store that needs them; none if it has no such form.
    pub fn to_bytes(&self) -> Option<Bytes> {
        let heads: Vec<Head> = self.variants.iter().map(Variant::head).collect();
        let mut bytes = BytesMut::from(&*serde_json::to_vec(&heads).ok()?);
        bytes.put_u8(b'\n');
        for variant in &self.variants {
            bytes.put_slice(&variant.body);
        }
        Some(bytes.freeze())
    }

    /// The entry of such bytes; none if they are not those of one.
    pub fn from_bytes(mut bytes: Bytes) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let line = bytes.split_to(end);
        let mut bodies = bytes.split_off(1);
        let heads: Vec<Head> = serde_json::from_slice(&line).ok()?;
        let mut variants = Vec::with_capacity(heads.len().min(MAX_VARIANTS));
        for head in heads {
            if head.bytes > bodies.len() {
                return None;
            }
            variants.push(Variant::from_head(head, &mut bodies)?);
        }
        Some(Self { variants })
    }
}

impl Variant {
    pub(super) fn of(
        user: String,
        request: &Request<Bytes>,
        answer: &Response<Bytes>,
        received: SystemTime,
    ) -> Self {
        let options = CacheOptions { shared: false, ..CacheOptions::default() };
        let mut kept = answer.clone();
        kept.headers_mut().remove(header::SET_COOKIE);
        let request = selecting(request, [kept.headers()]);
        let policy = CachePolicy::new_options(&request, &kept, received, options);
        let (parts, body) = kept.into_parts();
        Self { user, policy, status: parts.status, headers: parts.headers, body, received }
    }

    pub(super) fn is_storable(&self) -> bool {
        // The crate's rules understand statuses that this cache has no use for.
        self.status == StatusCode::OK && self.policy.is_storable()
    }

    /// Whether it may be used for that user's request; none if it is not the answer to that.
    fn before(
        &self,
        user: &str,
        request: &Request<Bytes>,
        now: SystemTime,
    ) -> Option<BeforeRequest> {
        match self.policy.before_request(request, now) {
            BeforeRequest::Stale { matches: false, .. } => None,
            before => Some(before).filter(|_| self.user == user),
        }
    }

    /// The answer as it is given now, with its age.
    pub(super) fn answer(&self, now: SystemTime, cache_status: &str) -> Response<Bytes> {
        let mut response = Response::new(self.body.clone());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        let headers = response.headers_mut();
        headers.insert(header::AGE, HeaderValue::from(self.policy.age(now).as_secs()));
        if let Ok(status) = HeaderValue::try_from(format!("respond-async; {cache_status}")) {
            headers.insert(CACHE_STATUS, status);
        }
        response
    }

    /// The same answer, which the server says still holds; none if it is not the one that it means.
    pub(super) fn revalidated(
        &self,
        request: &Request<Bytes>,
        answer: &Response<Bytes>,
        now: SystemTime,
    ) -> Option<Self> {
        let request = selecting(request, [&self.headers, answer.headers()]);
        let AfterResponse::NotModified(policy, _) =
            self.policy.after_response(&RequestOf(&request), &ResponseOf(answer), now)
        else {
            return None;
        };
        let mut headers = self.headers.clone();
        let others = [header::CONTENT_LENGTH, header::SET_COOKIE];
        for name in answer.headers().keys().filter(|name| !others.contains(name)) {
            headers.remove(name);
            for value in answer.headers().get_all(name) {
                headers.append(name, value.clone());
            }
        }
        let (user, body) = (self.user.clone(), self.body.clone());
        Some(Self { user, policy, status: self.status, headers, body, received: now })
    }

    /// Whether it may be used, however old it is, while nobody can be asked
    /// ([RFC 9111 §4.2.4](https://www.rfc-editor.org/rfc/rfc9111#section-4.2.4)).
    pub(super) fn may_be_stale(&self) -> bool {
        !["no-cache", "must-revalidate"].iter().any(|name| directive(&self.headers, name).is_some())
    }

    /// Whether it may stand in for a server that is in trouble.
    pub(super) fn may_stand_in(&self, now: SystemTime) -> bool {
        let window =
            directive(&self.headers, "stale-if-error").and_then(|value| value.parse().ok());
        let Some(window) = window.map(Duration::from_secs) else { return false };
        let fresh = self.policy.time_to_live(self.received);
        let since = now.duration_since(self.received).unwrap_or_default();
        self.may_be_stale() && since <= fresh.saturating_add(window)
    }

    fn head(&self) -> Head {
        Head {
            user: self.user.clone(),
            policy: self.policy.clone(),
            status: self.status.as_u16(),
            headers: to_pairs(&self.headers),
            bytes: self.body.len(),
            received: self.received,
        }
    }

    fn from_head(head: Head, bodies: &mut Bytes) -> Option<Self> {
        Some(Self {
            user: head.user,
            policy: head.policy,
            status: StatusCode::from_u16(head.status).ok()?,
            headers: from_pairs(&head.headers)?,
            body: bodies.split_to(head.bytes),
            received: head.received,
        })
    }
}

/// Of a request what the rules read, and what such answers vary on.
fn selecting<const N: usize>(request: &Request<Bytes>, answers: [&HeaderMap; N]) -> Request<Bytes> {
    let lines = answers.iter().flat_map(|headers| headers.get_all(header::VARY));
    let varied: Vec<&str> =
        lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).collect();
    let is_varied = |name: &HeaderName| {
        varied.iter().any(|varied| varied.trim().eq_ignore_ascii_case(name.as_str()))
    };
    let mut selecting = request.clone();
    let headers = selecting.headers_mut();
    let others: Vec<_> =
        headers.keys().filter(|name| !READ.contains(name) && !is_varied(name)).cloned().collect();
    for name in others {
        headers.remove(name);
    }
    selecting
}

/// A directive of `Cache-Control`: its value, which is empty if it has none.
pub(super) fn directive<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).find_map(|directive| {
        let (key, value) = directive.split_once('=').unwrap_or((directive, ""));
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

struct RequestOf<'a>(&'a Request<Bytes>);
struct ResponseOf<'a>(&'a Response<Bytes>);

impl RequestLike for RequestOf<'_> {
    fn uri(&self) -> http::Uri {
        self.0.uri().clone()
    }
    fn is_same_uri(&self, other: &http::Uri) -> bool {
        self.0.uri() == other
    }
    fn method(&self) -> &http::Method {
        self.0.method()
    }
    fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }
}

impl ResponseLike for ResponseOf<'_> {
    fn status(&self) -> StatusCode {
        self.0.status()
    }
    fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }
}
