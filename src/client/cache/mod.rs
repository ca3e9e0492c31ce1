//! What a client may keep: a private cache ([RFC 9111]) in front of any transport.
//!
//! - Fresh answers are given without a request; stale ones are asked for again, by `ETag` and
//!   `Last-Modified`; `Vary` is kept to, so answers to another `Prefer` are other answers.
//! - While the server cannot be reached, or answers 5xx, `stale-if-error` holds
//!   ([RFC 5861 §4](https://www.rfc-editor.org/rfc/rfc5861#section-4)).
//! - [Offline](Cached::offline), all is given that is kept and may be used without asking. What is not there is a
//!   504, as to a request with `only-if-cached`.
//! - A request that may change something takes away what is kept of its target, and of what its answer names.
//!
//! `Cache-Status` ([RFC 9211]) says where an answer is from. Requests with conditions or ranges of their own are
//! passed on.
//!
//! It is *private*: one for each user. Answers to other credentials are other answers here, which
//! `Authorization` and `Cookie` tell apart; a field of your own that names the user does not.
//!
//! ```
//! use respond_async::client::cache::{Cached, MemoryCache};
//! use respond_async::client::{Client, ReqwestTransport};
//!
//! let client = Client::with(Cached::new(ReqwestTransport::new()?, MemoryCache::new()));
//! # Ok::<(), respond_async::client::TransportError>(())
//! ```
//!
//! [RFC 9111]: https://www.rfc-editor.org/rfc/rfc9111
//! [RFC 9211]: https://www.rfc-editor.org/rfc/rfc9211

mod entry;
mod file;
mod memory;

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_cache_semantics::BeforeRequest;
use sha2::{Digest, Sha256};
use url::Url;

use self::entry::Variant;
use super::transport::{
    MadeUp, Opened, StreamTransport, Transport, TransportError, TransportErrorKind,
};
use crate::operation::IntoOutcome;
use crate::problem::Problem;

pub use entry::CacheEntry;
pub use file::FileCache;
pub use memory::MemoryCache;

/// `Cache-Status` ([RFC 9211](https://www.rfc-editor.org/rfc/rfc9211)).
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Fields that tell users apart. A digest of them is kept.
const CREDENTIALS: [HeaderName; 3] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];
/// Fields of a request that the rules read. Of the others, which may be secret, digests tell whether two are the
/// same.
const READ: [HeaderName; 3] = [header::CACHE_CONTROL, header::HOST, header::PRAGMA];

/// Fields by which a request is more than a plain one for its target.
const OWN_CONDITIONS: [HeaderName; 6] = [
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

/// Where answers are kept. What goes wrong here is a miss, and nobody's trouble.
#[async_trait]
pub trait CacheStore: fmt::Debug + Send + Sync + 'static {
    /// What is kept under that key.
    async fn load(&self, key: &CacheKey) -> Option<Arc<CacheEntry>>;
    /// Keeps it, in place of what was there, and lets go of other entries where the room is needed.
    async fn save(&self, key: &CacheKey, entry: Arc<CacheEntry>);
    /// Lets go of it.
    async fn remove(&self, key: &CacheKey);
}

/// A shared or boxed store is one.
macro_rules! forward {
    ($($pointer:ident)*) => {$(
        #[async_trait]
        impl<S: CacheStore + ?Sized> CacheStore for $pointer<S> {
            async fn load(&self, key: &CacheKey) -> Option<Arc<CacheEntry>> {
                (**self).load(key).await
            }

            async fn save(&self, key: &CacheKey, entry: Arc<CacheEntry>) {
                (**self).save(key, entry).await;
            }

            async fn remove(&self, key: &CacheKey) {
                (**self).remove(key).await;
            }
        }
    )*};
}

forward!(Arc Box);

/// What an entry is kept under: a digest of its target, of which nothing can be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheKey(String);

impl CacheKey {
    fn of(url: &str) -> Self {
        Self(digest(url, &HeaderMap::new(), &[]))
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 64 hexadecimal digits of that target, and of the values of those fields.
fn digest(url: &str, headers: &HeaderMap, names: &[HeaderName]) -> String {
    let mut digest = Sha256::new();
    digest.update(url);
    for name in names {
        for value in headers.get_all(name) {
            digest.update([0xFF]);
            digest.update(value);
        }
        digest.update([0xFE]);
    }
    let digits = digest.finalize();
    let digits = digits.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// A transport that keeps what it may.
#[derive(Debug)]
pub struct Cached<T> {
    transport: T,
    store: Arc<dyn CacheStore>,
    offline: bool,
    changes: Changes,
}

/// How often what may have changed was taken away, by a part of the hash of its URL: so an answer that is older than
/// a change is not kept after it.
#[derive(Debug)]
struct Changes([AtomicU64; 64]);

impl Default for Changes {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; 64])
    }
}

impl Changes {
    fn of(&self, url: &str) -> &AtomicU64 {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(url);
        &self.0[usize::try_from(hash % 64).unwrap_or_default()]
    }
}

impl<T: Transport> Cached<T> {
    /// The largest content that is kept: 16 MiB.
    pub const MAX_BODY_BYTES: usize = 16 << 20;

    /// Keeps in `store` what comes through `transport`.
    pub fn new(transport: T, store: impl CacheStore) -> Self {
        Self { transport, store: Arc::new(store), offline: false, changes: Changes::default() }
    }

    /// Sends nothing, and answers from what is kept.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    async fn get(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let plain = plain(&request);
        let url = plain.uri().to_string();
        let key = CacheKey::of(&url);
        let user = digest(&url, request.headers(), &CREDENTIALS);
        let changes = self.changes.of(&url).load(Ordering::SeqCst);
        let entry = self.store.load(&key).await;
        let now = SystemTime::now();
        let found = entry.as_ref().and_then(|entry| entry.matching(&user, &plain, now));
        let (variant, before) = match found {
            Some((variant, BeforeRequest::Fresh(_))) => return Ok(variant.answer(now, "hit")),
            Some((variant, BeforeRequest::Stale { request, .. })) => (Some(variant), Some(request)),
            None => (None, None),
        };
        if self.offline || is_only_if_cached(request.headers()) {
            return Ok(match variant.filter(|variant| self.offline && variant.may_be_stale()) {
                Some(variant) => variant.answer(now, "hit; detail=offline"),
                None => not_kept(),
            });
        }
        let sent = match before {
            Some(parts) => {
                let mut conditional = request.clone();
                for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
                    if let Some(value) = parts.headers.get(&name) {
                        conditional.headers_mut().insert(name, value.clone());
                    }
                }
                self.transport.send(conditional).await
            }
            None => self.transport.send(request.clone()).await,
        };
        let now = SystemTime::now();
        let is_broken = match &sent {
            Ok(answer) => matches!(answer.status().as_u16(), 500 | 502 | 503 | 504),
            Err(error) => {
                matches!(error.kind(), TransportErrorKind::NotSent | TransportErrorKind::Ambiguous)
            }
        };
        if let Some(variant) = variant.filter(|one| is_broken && one.may_stand_in(now)) {
            return Ok(variant.answer(now, "hit; detail=stale-if-error"));
        }
        let answer = sent?;
        let revalidated = variant
            .filter(|_| answer.status() == StatusCode::NOT_MODIFIED)
            .map(|variant| variant.revalidated(&plain, &answer, now));
        let (kept, given) = match revalidated {
            Some(Some(kept)) => {
                let mut given = kept.answer(now, "fwd=stale; fwd-status=304");
                for cookie in answer.headers().get_all(header::SET_COOKIE) {
                    given.headers_mut().append(header::SET_COOKIE, cookie.clone());
                }
                (kept, given)
            }
            // A 304 to what is not what was kept: ask again, and plainly.
            Some(None) => {
                self.store.remove(&key).await;
                return self.transport.send(request).await;
            }
            None => (Variant::of(user, &plain, &answer, now), answer),
        };
        // What has changed since the request was sent may not be in its answer.
        let is_old = || self.changes.of(&url).load(Ordering::SeqCst) != changes;
        if is_old() {
            return Ok(given);
        }
        if kept.is_storable() && given.body().len() <= Self::MAX_BODY_BYTES {
            let entry = CacheEntry::with(entry.as_deref(), kept, &plain, now);
            self.store.save(&key, Arc::new(entry)).await;
            if is_old() {
                self.store.remove(&key).await;
            }
        } else if given.status().as_u16() < 500 {
            self.store.remove(&key).await;
        }
        Ok(given)
    }

    /// Takes away what a request may have changed
    /// ([RFC 9111 §4.4](https://www.rfc-editor.org/rfc/rfc9111#section-4.4)).
    async fn invalidate(&self, request: &Request<Bytes>, answer: &Response<Bytes>) {
        let Some(target) = target(request) else { return };
        let named = [header::LOCATION, header::CONTENT_LOCATION].map(|name| {
            let link = answer.headers().get(name).and_then(|value| value.to_str().ok());
            let mut url = link.and_then(|link| target.join(link).ok())?;
            url.set_fragment(None);
            Some(url)
        });
        let named = named.into_iter().flatten().filter(|url| url.origin() == target.origin());
        for url in named.chain([target.clone()]) {
            self.changes.of(url.as_str()).fetch_add(1, Ordering::SeqCst);
            self.store.remove(&CacheKey::of(url.as_str())).await;
        }
    }
}

#[async_trait]
impl<T: Transport> Transport for Cached<T> {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let headers = request.headers();
        let is_plain = !OWN_CONDITIONS.iter().any(|name| headers.contains_key(name));
        if request.method() == Method::GET && is_plain {
            return self.get(request).await;
        }
        if self.offline {
            return Ok(not_kept());
        }
        if request.method().is_safe() {
            return self.transport.send(request).await;
        }
        let answer = self.transport.send(request.clone()).await?;
        if answer.status().as_u16() < 400 {
            self.invalidate(&request, &answer).await;
        }
        Ok(answer)
    }

    fn streaming(&self) -> Option<&dyn StreamTransport> {
        let streams = self.transport.streaming().filter(|_| !self.offline);
        streams.map(|_| self as &dyn StreamTransport)
    }
}

/// Passes on: what may be a stream is not kept, nor taken from what is kept.
#[async_trait]
impl<T: Transport> StreamTransport for Cached<T> {
    async fn open(&self, request: Request<Bytes>) -> Result<Opened, TransportError> {
        match self.transport.streaming() {
            Some(transport) => transport.open(request).await,
            None => self.send(request).await.map(Opened::Whole),
        }
    }
}

/// What of a request tells by which answer that is kept it may be answered. Nothing secret is in it.
fn plain(request: &Request<Bytes>) -> Request<Bytes> {
    let mut plain = Request::new(Bytes::new());
    // As URLs are compared, so that a target that is written otherwise is the same.
    let uri = target(request).and_then(|url| url.as_str().parse().ok());
    *plain.uri_mut() = uri.unwrap_or_else(|| request.uri().clone());
    let url = plain.uri().to_string();
    let headers = request.headers();
    for name in headers.keys().filter(|name| !CREDENTIALS.contains(name)) {
        if READ.contains(name) {
            for value in headers.get_all(name) {
                plain.headers_mut().append(name, value.clone());
            }
        } else if let Ok(value) = digest(&url, headers, slice::from_ref(name)).try_into() {
            plain.headers_mut().insert(name, value);
        }
    }
    plain
}

fn target(request: &Request<Bytes>) -> Option<Url> {
    Url::parse(&request.uri().to_string()).ok()
}

fn is_only_if_cached(headers: &HeaderMap) -> bool {
    entry::directive(headers, "only-if-cached").is_some()
}

/// What a cache without the answer says ([RFC 9111 §5.2.1.7](https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.7)).
fn not_kept() -> Response<Bytes> {
    let problem = Problem::from_status(StatusCode::GATEWAY_TIMEOUT).with_detail(
        "This is not kept here, or may not be used without asking, and nobody is asked.",
    );
    let outcome = problem.into_outcome();
    let mut response = Response::new(outcome.body);
    *response.status_mut() = outcome.status;
    *response.headers_mut() = outcome.headers;
    response.extensions_mut().insert(MadeUp);
    let status = HeaderValue::from_static("respond-async; fwd=miss; detail=offline");
    response.headers_mut().insert(CACHE_STATUS, status);
    response
}
