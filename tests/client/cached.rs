//! What a client keeps, and what it does not.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use respond_async::client::cache::{CACHE_STATUS, CacheStore, Cached, FileCache, MemoryCache};
use respond_async::client::{
    Answer, Client, ClientErrorKind, Transport, TransportError, TransportErrorKind,
};
use tokio::sync::Notify;

/// A server that gives its answers in turn, and then cannot be reached.
#[derive(Debug, Clone, Default)]
struct Server {
    answers: Arc<Mutex<VecDeque<Response<Bytes>>>>,
    asked: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Server {
    fn say(&self, status: u16, fields: &[(&str, &str)], body: &'static str) {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let response = response.body(Bytes::from_static(body.as_bytes())).unwrap();
        self.answers.lock().unwrap().push_back(response);
    }

    fn asked(&self) -> Vec<HeaderMap> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn keeping(&self, store: impl CacheStore) -> Cached<Self> {
        Cached::new(self.clone(), store)
    }
}

#[async_trait]
impl Transport for Server {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        self.asked.lock().unwrap().push(request.headers().clone());
        let answer = self.answers.lock().unwrap().pop_front();
        answer.ok_or_else(|| TransportError::new(TransportErrorKind::NotSent, "no server"))
    }
}

fn request(method: &str, url: &str, fields: &[(&str, &str)]) -> Request<Bytes> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Bytes::new()).unwrap()
}

const URL: &str = "http://api.example/images/17";

/// The content and where it is from.
async fn get(cache: &Cached<Server>, fields: &[(&str, &str)]) -> (u16, String, String) {
    let answer = cache.send(request("GET", URL, fields)).await.unwrap();
    let status = answer.headers().get(&CACHE_STATUS).map_or("", |value| value.to_str().unwrap());
    let body = String::from_utf8(answer.body().to_vec()).unwrap();
    (answer.status().as_u16(), body, status.trim_start_matches("respond-async; ").to_owned())
}

fn is(answer: &(u16, String, String), status: u16, body: &str, from: &str) {
    assert_eq!((answer.0, &*answer.1, &*answer.2), (status, body, from));
}

#[tokio::test]
async fn what_is_fresh_needs_no_request() {
    let server = Server::default();
    let cache = server.keeping(MemoryCache::new());
    server.say(
        200,
        &[("cache-control", "private, max-age=60"), ("link", "<a>"), ("link", "<b>")],
        "one",
    );
    is(&get(&cache, &[]).await, 200, "one", "");
    for _ in 0..3 {
        is(&get(&cache, &[]).await, 200, "one", "hit");
    }
    assert_eq!(server.asked().len(), 1);
    let answer = cache.send(request("GET", URL, &[])).await.unwrap();
    assert_eq!(answer.headers().get_all("link").iter().count(), 2);
    assert_eq!(answer.headers()["age"], "0");
    // The client's own wish counts.
    server.say(200, &[("cache-control", "max-age=60")], "two");
    is(&get(&cache, &[("cache-control", "no-cache")]).await, 200, "two", "");
    is(&get(&cache, &[]).await, 200, "two", "hit");
}

#[tokio::test]
async fn what_may_not_be_kept_is_not() {
    for (status, fields) in [
        (200, &[("cache-control", "no-store")][..]),
        (200, &[("cache-control", "max-age=60"), ("vary", "*")]),
        (200, &[]),
        (201, &[("cache-control", "max-age=60")]),
        (202, &[("cache-control", "max-age=60")]),
        (404, &[("cache-control", "max-age=60")]),
    ] {
        let server = Server::default();
        let cache = server.keeping(MemoryCache::new());
        for body in ["one", "two"] {
            server.say(status, fields, body);
            is(&get(&cache, &[]).await, status, body, "");
        }
    }
    // Nor what the client does not want kept.
    let server = Server::default();
    let cache = server.keeping(MemoryCache::new());
    server.say(200, &[("cache-control", "max-age=60")], "one");
    get(&cache, &[("cache-control", "no-store")]).await;
    server.say(200, &[("cache-control", "max-age=60")], "two");
    is(&get(&cache, &[]).await, 200, "two", "");
}

#[tokio::test]
async fn what_is_stale_is_asked_for_again() {
    let server = Server::default();
    let cache = server.keeping(MemoryCache::new());
    let stale = ("cache-control", "private, no-cache");
    server.say(200, &[stale, ("etag", "\"1\""), ("x-kept", "1")], "one");
    get(&cache, &[]).await;
    server.say(304, &[stale, ("etag", "\"1\""), ("x-new", "2")], "");
    is(&get(&cache, &[]).await, 200, "one", "fwd=stale; fwd-status=304");
    assert_eq!(server.asked()[1]["if-none-match"], "\"1\"");
    server.say(200, &[stale, ("etag", "\"2\"")], "two");
    is(&get(&cache, &[]).await, 200, "two", "");
    server.say(304, &[("etag", "\"2\""), ("cache-control", "max-age=60")], "");
    is(&get(&cache, &[]).await, 200, "two", "fwd=stale; fwd-status=304");
    assert_eq!(server.asked()[1]["if-none-match"], "\"2\"");
    is(&get(&cache, &[]).await, 200, "two", "hit");
    // A 304 for something else is no answer: it is asked again, plainly.
    let server = Server::default();
    let cache = server.keeping(MemoryCache::new());
    server.say(200, &[stale, ("etag", "\"1\"")], "one");
    get(&cache, &[]).await;
    server.say(304, &[("etag", "\"9\"")], "");
    server.say(200, &[stale, ("etag", "\"9\"")], "nine");
    is(&get(&cache, &[]).await, 200, "nine", "");
    assert!(!server.asked()[2].contains_key("if-none-match"));
}

#[tokio::test]
async fn another_preference_is_another_answer() {
    let server = Server::default();
    let cache = server.keeping(MemoryCache::new());
    let keep = [("cache-control", "max-age=60"), ("vary", "Prefer")];
    let (full, minimal) = ([("prefer", "return=representation")], [("prefer", "return=minimal")]);
    server.say(200, &keep, "full");
    get(&cache, &full).await;
    server.say(200, &keep, "minimal");
    is(&get(&cache, &minimal).await, 200, "minimal", "");
    is(&get(&cache, &full).await, 200, "full", "hit");
    is(&get(&cache, &minimal).await, 200, "minimal", "hit");
    // No more of them than there is room for.
    for number in 0..20 {
        server.say(200, &keep, "x");
        get(&cache, &[("prefer", &*format!("n={number}"))]).await;
    }
    server.say(200, &keep, "full again");
    is(&get(&cache, &full).await, 200, "full again", "");
}

fn holds_no_secret(folder: &std::path::Path) {
    for file in std::fs::read_dir(folder).unwrap() {
        let kept = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&kept).contains("secret"));
    }
}

#[tokio::test]
async fn other_credentials_are_another_user_and_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::default();
    let cache = server.keeping(FileCache::open(folder.path().join("cache")).unwrap());
    let vary = ("vary", "Authorization, X-Varied");
    let fields = [("cache-control", "max-age=60"), vary, ("set-cookie", "id=secret")];
    server.say(200, &fields, "ann's");
    let ann = [
        ("authorization", "Bearer secret-of-ann"),
        ("cookie", "secret=1"),
        ("x-api-key", "secret-2"),
        ("x-varied", "secret-3"),
    ];
    let answer = cache.send(request("GET", URL, &ann)).await.unwrap();
    assert_eq!(answer.headers()["set-cookie"], "id=secret");
    is(&get(&cache, &ann).await, 200, "ann's", "hit");
    server.say(200, &[], "bob's");
    is(&get(&cache, &[("authorization", "Bearer bob")]).await, 200, "bob's", "");
    server.say(200, &fields, "ann's other");
    let other = [ann[0], ann[1], ann[2], ("x-varied", "secret-4")];
    is(&get(&cache, &other).await, 200, "ann's other", "");
    is(&get(&cache, &ann).await, 200, "ann's", "hit");
    holds_no_secret(&folder.path().join("cache"));
    // Asked again, they are sent along all the same.
    server.say(200, &[("cache-control", "no-cache"), ("etag", "\"1\"")], "one");
    get(&cache, &[ann[0], ("cache-control", "no-cache")]).await;
    server.say(304, &[("etag", "\"1\""), ("set-cookie", "id=secret")], "");
    let answer = cache.send(request("GET", URL, &ann[..1])).await.unwrap();
    assert_eq!(
        (answer.body(), &answer.headers()["set-cookie"]),
        (&Bytes::from("one"), &"id=secret".parse().unwrap())
    );
    let last = server.asked().pop().unwrap();
    assert_eq!(
        (&last["authorization"], &last["if-none-match"]),
        (&"Bearer secret-of-ann".parse().unwrap(), &"\"1\"".parse().unwrap())
    );
    holds_no_secret(&folder.path().join("cache"));
}

#[tokio::test]
async fn an_old_answer_stands_in_for_a_broken_server() {
    let keep = [("cache-control", "max-age=0, stale-if-error=60")];
    let server = Server::default();
    let cache = server.keeping(MemoryCache::new());
    server.say(200, &keep, "one");
    get(&cache, &[]).await;
    for status in [500, 502, 503, 504] {
        server.say(status, &[], "broken");
        is(&get(&cache, &[]).await, 200, "one", "hit; detail=stale-if-error");
    }
    // It cannot be reached.
    is(&get(&cache, &[]).await, 200, "one", "hit; detail=stale-if-error");
    server.say(404, &[], "gone");
    is(&get(&cache, &[]).await, 404, "gone", "");
    // That took it away.
    assert!(cache.send(request("GET", URL, &[])).await.is_err());
    for not in [
        "max-age=0",
        "no-cache, stale-if-error=60",
        "must-revalidate, max-age=0, stale-if-error=60",
    ] {
        let server = Server::default();
        let cache = server.keeping(MemoryCache::new());
        server.say(200, &[("cache-control", not)], "one");
        get(&cache, &[]).await;
        server.say(503, &[], "broken");
        is(&get(&cache, &[]).await, 503, "broken", "");
    }
    // Not for ever.
    let server = Server::default();
    let cache = server.keeping(MemoryCache::new());
    server.say(200, &[("cache-control", "max-age=0, stale-if-error=0")], "one");
    get(&cache, &[]).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(cache.send(request("GET", URL, &[])).await.is_err());
}

#[tokio::test]
async fn offline_is_what_was_kept_by_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::default();
    let online = server.keeping(FileCache::open(folder.path()).unwrap());
    server.say(200, &[("cache-control", "private, max-age=0"), ("x-bytes", "a")], "one");
    get(&online, &[]).await;
    server.asked();

    let offline = server.keeping(FileCache::open(folder.path()).unwrap()).offline(true);
    is(&get(&offline, &[]).await, 200, "one", "hit; detail=offline");
    let other = offline.send(request("GET", "http://api.example/other", &[])).await.unwrap();
    assert_eq!(
        (other.status().as_u16(), &other.headers()["content-type"]),
        (504, &"application/problem+json".parse().unwrap())
    );
    let post = offline.send(request("POST", URL, &[])).await.unwrap();
    assert_eq!(post.status(), 504);
    assert!(server.asked().is_empty());
    // What may not be used without asking is not.
    server.say(200, &[("cache-control", "no-cache"), ("etag", "\"1\"")], "two");
    get(&online, &[]).await;
    assert_eq!(get(&offline, &[]).await.0, 504);
    // Online, a client may ask not to ask.
    server.asked();
    assert_eq!(get(&online, &[("cache-control", "only-if-cached")]).await.0, 504);
    assert!(server.asked().is_empty());
    // A damaged file is a miss.
    for file in std::fs::read_dir(folder.path()).unwrap() {
        std::fs::write(file.unwrap().path(), b"[{\n").unwrap();
    }
    server.say(200, &[], "three");
    is(&get(&online, &[]).await, 200, "three", "");
}

#[tokio::test]
async fn a_change_takes_away_what_was_kept() {
    let other = "http://api.example/operations/1";
    for (method, status, fields, is_gone) in [
        ("DELETE", 204, &[][..], [true, false]),
        ("POST", 201, &[("location", "/operations/1")], [true, true]),
        ("PUT", 200, &[("content-location", "../operations/1")], [true, true]),
        ("POST", 201, &[("location", "http://evil.example/operations/1")], [true, false]),
        ("POST", 500, &[], [false, false]),
    ] {
        let server = Server::default();
        let cache = server.keeping(MemoryCache::new());
        for url in [URL, other] {
            server.say(200, &[("cache-control", "max-age=60")], "one");
            cache.send(request("GET", url, &[])).await.unwrap();
        }
        server.say(status, fields, "");
        cache.send(request(method, URL, &[])).await.unwrap();
        for (url, is_gone) in [URL, other].into_iter().zip(is_gone) {
            let kept = cache.send(request("GET", url, &[])).await;
            assert_eq!(kept.is_err(), is_gone, "{method} {status} {url}");
        }
    }
}

#[tokio::test]
async fn a_change_takes_away_what_others_have_too() {
    let ann = [("authorization", "Bearer ann")];
    for (reader, writer) in [(&[][..], &ann[..]), (&ann, &[]), (&ann, &[("cookie", "id=1")])] {
        let server = Server::default();
        let cache = server.keeping(MemoryCache::new());
        server.say(200, &[("cache-control", "max-age=60")], "one");
        get(&cache, reader).await;
        is(&get(&cache, reader).await, 200, "one", "hit");
        server.say(204, &[], "");
        cache.send(request("PUT", URL, writer)).await.unwrap();
        server.say(200, &[], "two");
        is(&get(&cache, reader).await, 200, "two", "");
    }
}

/// Whose answers to GET are made when they are asked for, and come when they are let go.
#[derive(Debug, Default)]
struct Slow {
    server: Server,
    way: Arc<Notify>,
}

#[async_trait]
impl Transport for Slow {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let is_get = request.method() == http::Method::GET;
        let answer = self.server.send(request).await;
        if is_get {
            self.way.notified().await;
        }
        answer
    }
}

#[tokio::test]
async fn an_answer_from_before_a_change_is_not_kept_after_it() {
    let slow = Slow::default();
    let (server, way) = (slow.server.clone(), slow.way.clone());
    let cache = Cached::new(slow, MemoryCache::new());
    let kept = [("cache-control", "max-age=60")];
    server.say(200, &kept, "old");
    server.say(204, &[], "");
    let reading = cache.send(request("GET", URL, &[]));
    let writing = async {
        tokio::task::yield_now().await;
        cache.send(request("PUT", URL, &[])).await.unwrap();
        way.notify_one();
    };
    let (read, ()) = tokio::join!(reading, writing);
    assert_eq!(read.unwrap().body(), "old");
    server.say(200, &kept, "new");
    way.notify_one();
    for _ in 0..2 {
        let read = cache.send(request("GET", URL, &[])).await.unwrap();
        assert_eq!(read.body(), "new");
    }
}

#[tokio::test]
async fn a_store_keeps_to_its_bound() {
    let folder = tempfile::tempdir().unwrap();
    let body: &'static str = String::leak("x".repeat(10_000));
    let (memory, file) = (
        MemoryCache::with_max_bytes(60_000),
        FileCache::open(folder.path()).unwrap().with_max_bytes(60_000),
    );
    let server = Server::default();
    for cache in [server.keeping(memory), server.keeping(file)] {
        for number in 0..20 {
            server.say(200, &[("cache-control", "max-age=60")], body);
            let url = format!("http://api.example/{number}");
            cache.send(request("GET", &url, &[])).await.unwrap();
            // The first is used all the time, and so stays.
            cache.send(request("GET", "http://api.example/0", &[])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut kept = 0;
        for number in 0..20 {
            let url = format!("http://api.example/{number}");
            kept += usize::from(cache.send(request("GET", &url, &[])).await.is_ok());
        }
        assert!((3..=6).contains(&kept), "{kept}");
        let first = cache.send(request("GET", "http://api.example/0", &[])).await;
        assert!(first.is_ok());
    }
    let files: u64 = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(files <= 60_000, "{files}");
}

/// What is not kept is a 504 of this side's own, which is no trouble that passes.
#[tokio::test(start_paused = true)]
async fn offline_nobody_is_asked_again() {
    let server = Server::default();
    let client = Client::with(server.keeping(MemoryCache::new()).offline(true));
    let began = tokio::time::Instant::now();
    let answer = client.send(request("GET", URL, &[])).await.unwrap();
    assert!(matches!(answer, Answer::Answered(answer) if answer.status() == 504));
    let poller = client.follow(&URL.parse().unwrap(), HeaderMap::new()).unwrap();
    let error = poller.await.unwrap_err();
    assert!(error.kind() == ClientErrorKind::PollFailed && error.is_retryable());
    assert!(began.elapsed().is_zero() && server.asked().is_empty());
}

/// A change names its target as a URL has it, and a request as it was written.
#[tokio::test]
async fn one_target_is_one_entry_however_it_is_written() {
    let server = Server::default();
    // A transport and a store that are shared are such themselves.
    let cache = Cached::new(Arc::new(server.clone()), Arc::new(MemoryCache::new()));
    let written = "http://API.example:80/images/a/../17";
    let send = async |method: &str, url: &str| {
        let answer = cache.send(request(method, url, &[])).await.unwrap();
        String::from_utf8(answer.into_body().to_vec()).unwrap()
    };
    server.say(200, &[("cache-control", "max-age=60")], "one");
    assert_eq!(send("GET", written).await, "one");
    assert_eq!(send("GET", URL).await, "one");
    server.say(204, &[], "");
    send("PUT", URL).await;
    server.say(200, &[("cache-control", "max-age=60")], "two");
    assert_eq!(send("GET", written).await, "two");
    assert_eq!(server.asked().len(), 3);
}
