//! A client over a real socket that asks for a stream and does not read.

use std::time::Duration;

use axum::Router;
use respond_async::Operations;
use respond_async::store::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::streams::{accepted, progress};

/// Whether it is a stream that goes on.
async fn is_open(socket: &mut TcpStream) -> bool {
    let mut buffer = vec![0; 64 << 10];
    let read = socket.read(&mut buffer).await.unwrap();
    let head = String::from_utf8_lossy(&buffer[..read]).into_owned();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    // An answer that is all there has its length in its head.
    !head.contains("content-length")
}

/// It is cut off although its stream is never asked for more: its place is free again, and what was kept
/// for it is bounded by what the server and the sockets keep of any answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_loses_its_place() {
    let store = MemoryStore::new();
    let id = accepted(&store).await;
    let operations = Operations::builder(store.clone())
        .streams(1)
        .heartbeat(Duration::from_millis(20))
        .stall_limit(Duration::from_millis(200))
        .start();
    let owner = axum::middleware::from_fn(
        async |mut request: axum::extract::Request, next: axum::middleware::Next| {
            request.extensions_mut().insert(super::ann());
            next.run(request).await
        },
    );
    let app =
        Router::new().nest("/operations", respond_async::axum::monitor(&operations)).layer(owner);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let ask = async || {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET /operations/{id} HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        socket
    };
    let stalled = ask().await;
    sleep(Duration::from_millis(50)).await;
    assert!(!is_open(&mut ask().await).await, "there is one place");
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for change in 0.. {
                progress(&store, id, &format!("{change} {}", "x".repeat(900))).await;
                tokio::task::yield_now().await;
            }
        }
    });
    let mut tries = 0;
    while !is_open(&mut ask().await).await {
        tries += 1;
        assert!(tries < 600, "it still has its place");
        sleep(Duration::from_millis(50)).await;
    }
    writing.abort();
    // Whatever it takes now ends with the stream's end, which is well-formed.
    let mut stalled = stalled;
    let mut all = Vec::new();
    let reading = stalled.read_buf(&mut all);
    assert!(tokio::time::timeout(Duration::from_secs(5), reading).await.unwrap().unwrap() > 0);
    let mut end = false;
    while !end {
        all.drain(..all.len().saturating_sub(16));
        let read = tokio::time::timeout(Duration::from_secs(5), stalled.read_buf(&mut all));
        end = read.await.expect("the rest").unwrap() == 0 || all.ends_with(b"0\r\n\r\n");
    }
    assert!(all.ends_with(b"\n\n\r\n0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&all));
}
