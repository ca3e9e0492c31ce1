//! Clients that hold on to what they have, on real sockets, and those that only take their time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use respond_async::serve::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const SHORT: Duration = Duration::from_millis(300);
/// What would be for ever.
const LONG: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

async fn start(set: impl FnOnce(Server) -> Server) -> Running {
    let app = Router::new()
        .route("/", get(async |ConnectInfo(from): ConnectInfo<SocketAddr>| from.ip().to_string()))
        .route("/length", post(async |body: Bytes| body.len().to_string()))
        .route("/upgrade", get(upgrade))
        .route("/large", get(async || Body::from(vec![b'x'; 64 << 20])))
        .route(
            "/slow",
            get(async || {
                sleep(SHORT * 2).await;
                "late"
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let server = set(Server::new(listener, app)).run(async {
        let _ = stopped.await;
    });
    Running { address, stop: Some(stop), server: tokio::spawn(server) }
}

/// Changes to a protocol that says what it hears.
async fn upgrade(request: axum::extract::Request) -> axum::response::Response {
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let (mut read, mut write) = tokio::io::split(hyper_util::rt::TokioIo::new(upgraded));
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let answer = axum::response::Response::builder().status(101);
    answer.header("connection", "upgrade").header("upgrade", "echo").body(Body::empty()).unwrap()
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// All that still comes, until the connection ends.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let ended = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the connection stays");
    // A reset is an end too.
    let _ = ended;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What has come when it says that.
async fn until(stream: &mut TcpStream, word: &str) -> String {
    let mut all = Vec::new();
    loop {
        let mut some = [0; 4096];
        let read = timeout(LONG, stream.read(&mut some)).await.unwrap().unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&some[..read]);
        let text = String::from_utf8_lossy(&all).into_owned();
        if text.contains(word) {
            return text;
        }
    }
}

#[tokio::test]
async fn who_says_nothing_or_half_a_head_is_cut_off() {
    let running = start(|server| server.header_timeout(SHORT)).await;
    // The first bytes of HTTP/2 among them, at which it is not known yet what it will be.
    for begin in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\nX-"] {
        let mut stream = running.connect().await;
        stream.write_all(begin.as_bytes()).await.unwrap();
        let said = rest(&mut stream).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{begin:?}: {said}");
    }
    // Byte by byte is no better.
    let mut stream = running.connect().await;
    let (mut reading, mut writing) = stream.split();
    let drip = async {
        for byte in "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'x')) {
            if writing.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(SHORT / 10).await;
        }
    };
    let cut = async {
        let mut all = Vec::new();
        timeout(LONG, reading.read_to_end(&mut all)).await.expect("the connection stays")
    };
    tokio::select! {
        () = drip => {}
        _ = cut => {}
    }
}

#[tokio::test]
async fn a_connection_may_be_used_again_and_not_kept_for_ever() {
    let running = start(|server| server.header_timeout(SHORT)).await;
    let mut stream = running.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let answer = until(&mut stream, "127.0.0.1").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        sleep(SHORT / 3).await;
    }
    assert_eq!(rest(&mut stream).await, "");
    // An answer that takes longer than a head may is waited for.
    let mut stream = running.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    until(&mut stream, "late").await;
}

#[tokio::test]
async fn content_may_be_slow_but_not_too_slow() {
    let running = start(|server| server.body_grace(SHORT).body_rate(1_000)).await;
    let head = b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";
    // 100 bytes each 50 ms: 2,000 a second.
    let mut stream = running.connect().await;
    stream.write_all(head).await.unwrap();
    for _ in 0..10 {
        stream.write_all(&[b'x'; 100]).await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    until(&mut stream, "1000").await;
    // A byte each 50 ms: 20 a second.
    let mut stream = running.connect().await;
    stream.write_all(head).await.unwrap();
    let mut sent = 0;
    while stream.write_all(b"x").await.is_ok() {
        sent += 1;
        assert!(sent < 400, "it is taken for ever");
        sleep(Duration::from_millis(50)).await;
        let mut some = [0; 512];
        if let Ok(Ok(read)) = timeout(Duration::from_millis(1), stream.read(&mut some)).await {
            let said = String::from_utf8_lossy(&some[..read]).into_owned();
            assert!(read == 0 || !said.starts_with("HTTP/1.1 2"), "{said}");
            break;
        }
    }
}

#[tokio::test]
async fn who_takes_no_answer_is_cut_off() {
    let running = start(|server| server.write_timeout(SHORT)).await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    // Longer than that nothing is read; then what was on its way is, and an end that is too early.
    sleep(SHORT * 5).await;
    let mut bytes = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the connection stays");
    assert!(bytes.len() < 64 << 20, "all of it came");
}

/// Also when the server has handed all of it over long before, or is told to stop meanwhile.
#[tokio::test]
async fn who_takes_an_answer_slowly_gets_all_of_it() {
    for stops in [false, true] {
        let mut running = start(|server| {
            server.write_timeout(SHORT * 5).idle_timeout(SHORT).header_timeout(SHORT)
        })
        .await;
        let mut stream = running.connect().await;
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let (mut read, mut pauses) = (0, 0);
        let mut some = vec![0; 1 << 20];
        while read < 64 << 20 {
            let more = timeout(LONG, stream.read(&mut some)).await.unwrap().unwrap();
            assert_ne!(more, 0, "it ends after {read} bytes");
            read += more;
            if stops && read > 1 << 22 {
                running.stop.take();
            }
            if read > (pauses + 1) << 22 {
                pauses += 1;
                sleep(SHORT).await;
            }
        }
    }
}

#[tokio::test]
async fn heads_are_bounded() {
    let running = start(|server| server.max_headers(20)).await;
    let many = "X-A: b\r\n".repeat(21);
    let large = format!("X-Large: {}\r\n", "x".repeat(80 << 10));
    for fields in [many, large] {
        let mut stream = running.connect().await;
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        // The answer may come before all is sent.
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

#[tokio::test]
async fn no_more_connections_than_may_be() {
    let running = start(|server| server.max_connections(2).header_timeout(SHORT * 3)).await;
    let (held, _other) = (running.connect().await, running.connect().await);
    let mut third = running.connect().await;
    third.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0];
    assert!(timeout(SHORT, third.read(&mut byte)).await.is_err(), "it has to wait");
    drop(held);
    assert!(rest(&mut third).await.contains("200"));
}

#[tokio::test]
async fn what_runs_is_answered_before_it_stops() {
    let mut running = start(|server| server).await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let _idle = running.connect().await;
    sleep(SHORT / 2).await;
    running.stop.take().unwrap().send(()).unwrap();
    until(&mut stream, "late").await;
    timeout(LONG, running.server).await.expect("it stops").unwrap();

    let mut running = start(|server| server.shutdown_grace(SHORT / 10)).await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    sleep(SHORT / 2).await;
    running.stop.take().unwrap().send(()).unwrap();
    timeout(LONG, running.server).await.expect("it stops").unwrap();
}

#[tokio::test]
async fn another_protocol_may_take_over() {
    let mut running = start(|server| server.idle_timeout(SHORT).max_connections(1)).await;
    let mut stream = running.connect().await;
    let head = "GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    until(&mut stream, "\r\n\r\n").await;
    // For as long as the two like.
    sleep(SHORT * 3).await;
    stream.write_all(b"hello").await.unwrap();
    until(&mut stream, "hello").await;
    // It has its place as long, and outlives the server.
    let mut another = running.connect().await;
    another.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    timeout(SHORT, another.read_u8()).await.expect_err("there are more than may be");
    running.stop.take();
    timeout(LONG, running.server).await.expect("it stops").unwrap();
    stream.write_all(b"there").await.unwrap();
    until(&mut stream, "there").await;
}

/// What a client of HTTP/2 begins with: the preface, and settings that change nothing.
const BEGIN_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn who_asks_nothing_over_http_2_is_cut_off() {
    let running = start(|server| {
        server.header_timeout(SHORT).write_timeout(SHORT).idle_timeout(SHORT).max_connections(1)
    })
    .await;
    for _ in 0..2 {
        // It does not agree to the end either.
        let mut stream = running.connect().await;
        stream.write_all(BEGIN_2).await.unwrap();
        rest(&mut stream).await;
    }
}

#[tokio::test]
async fn what_is_still_at_work_when_the_grace_is_over_is_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (held, mut dropped) = tokio::sync::mpsc::channel::<()>(1);
    let app = Router::new().route(
        "/",
        get(async move || {
            let _held = held;
            std::future::pending::<()>().await;
        }),
    );
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::new(listener, app).shutdown_grace(SHORT).run(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(server);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    sleep(SHORT).await;
    drop(stop);
    timeout(LONG, server).await.unwrap().unwrap();
    assert_eq!(timeout(LONG, dropped.recv()).await.unwrap(), None);
    assert_eq!(rest(&mut stream).await, "");
}
