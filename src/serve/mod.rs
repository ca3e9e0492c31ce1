//! Serves an [axum] router so that no client can hold more than it may: `axum::serve` has no bound on how long a
//! request takes to arrive, or an answer to be taken.
//!
//! | a client that | is cut off |
//! | --- | --- |
//! | connects and says nothing, or sends its request's head byte by byte | after [`header_timeout`](Server::header_timeout), 10 s |
//! | keeps its connection open between requests | after the same; in HTTP/2 after [`idle_timeout`](Server::idle_timeout), 60 s, or a [ping](Server::ping_interval) without answer |
//! | sends its content byte by byte | after [`body_grace`](Server::body_grace), 30 s, below [1 KiB a second](Server::body_rate) |
//! | does not take its answer | after [`write_timeout`](Server::write_timeout), 30 s without a byte |
//! | vanishes without a word, as one whose network is gone | after the same without an acknowledgement, where the system can tell (Linux, Android) |
//! | sends a large head | with 431, beyond [64 KiB](Server::max_head_bytes) or, of HTTP/1, [100 fields](Server::max_headers) |
//! | opens stream after stream, and resets them | by the [bounds](Server::max_streams) of HTTP/2 |
//!
//! In HTTP/2 a client can leave one answer and take others: what it leaves is held until the connection ends, and is bounded
//! by [`max_streams`](Server::max_streams) times what an answer may have.
//!
//! And no more than [`max_connections`](Server::max_connections) are served at once; others wait to be accepted.
//!
//! If you bring your own server, see that it has the like: for hyper, `header_read_timeout` works only with a
//! `timer`; a proxy in front (nginx, Envoy) does all of it.
//!
//! ```no_run
//! use axum::Router;
//! use axum::routing::get;
//! use respond_async::serve::Server;
//! use tokio::net::TcpListener;
//!
//! # async fn run() -> std::io::Result<()> {
//! let listener = TcpListener::bind("127.0.0.1:3000").await?;
//! let app = Router::new().route("/", get(async || "hello"));
//! Server::new(listener, app).run(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await;
//! # Ok(())
//! # }
//! ```
//!
//! [axum]: https://docs.rs/axum

mod body;
mod idle;
mod io;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
#[cfg(any(target_os = "android", target_os = "linux"))]
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_service::Service;

use self::body::Paced;
use self::idle::{Activity, Answering, Sent};
use self::io::Guarded;
use crate::time::keep_within_reach;

/// How long it waits after a connection could not be accepted: for want of file descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How much a connection that is to end takes of its last answers, at the least: more than pings.
const LEAST_TAKEN: u64 = 1024;

/// A server of a router. Each bound has a name and a default.
#[derive(Debug)]
#[must_use]
pub struct Server {
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    header_timeout: Duration,
    body_grace: Duration,
    body_rate: u32,
    write_timeout: Duration,
    ping_interval: Duration,
    idle_timeout: Duration,
    head_bytes: usize,
    headers: usize,
    streams: u32,
    connections: usize,
    shutdown_grace: Duration,
}

impl Server {
    /// The default of [`header_timeout`](Self::header_timeout).
    pub const DEFAULT_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
    /// The default of [`body_grace`](Self::body_grace).
    pub const DEFAULT_BODY_GRACE: Duration = Duration::from_secs(30);
    /// The default of [`body_rate`](Self::body_rate).
    pub const DEFAULT_BODY_RATE: u32 = 1024;
    /// The default of [`write_timeout`](Self::write_timeout).
    pub const DEFAULT_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
    /// The default of [`ping_interval`](Self::ping_interval).
    pub const DEFAULT_PING_INTERVAL: Duration = Duration::from_secs(20);
    /// The default of [`idle_timeout`](Self::idle_timeout).
    pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
    /// The default of [`max_head_bytes`](Self::max_head_bytes): 64 KiB.
    pub const DEFAULT_MAX_HEAD_BYTES: usize = 64 << 10;
    /// The default of [`max_headers`](Self::max_headers).
    pub const DEFAULT_MAX_HEADERS: usize = 100;
    /// The default of [`max_streams`](Self::max_streams).
    pub const DEFAULT_MAX_STREAMS: u32 = 200;
    /// The default of [`max_connections`](Self::max_connections).
    pub const DEFAULT_MAX_CONNECTIONS: usize = 20_000;
    /// The default of [`shutdown_grace`](Self::shutdown_grace).
    pub const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

    /// The smallest [`max_head_bytes`](Self::max_head_bytes).
    const LEAST_HEAD_BYTES: usize = 8 << 10;

    /// A server with the defaults.
    pub fn new(listener: TcpListener, router: Router) -> Self {
        let bounds = Bounds {
            header_timeout: Self::DEFAULT_HEADER_TIMEOUT,
            body_grace: Self::DEFAULT_BODY_GRACE,
            body_rate: Self::DEFAULT_BODY_RATE,
            write_timeout: Self::DEFAULT_WRITE_TIMEOUT,
            ping_interval: Self::DEFAULT_PING_INTERVAL,
            idle_timeout: Self::DEFAULT_IDLE_TIMEOUT,
            head_bytes: Self::DEFAULT_MAX_HEAD_BYTES,
            headers: Self::DEFAULT_MAX_HEADERS,
            streams: Self::DEFAULT_MAX_STREAMS,
            connections: Self::DEFAULT_MAX_CONNECTIONS,
            shutdown_grace: Self::DEFAULT_SHUTDOWN_GRACE,
        };
        Self { listener, router, bounds }
    }

    /// How long a request's head may take to arrive, from when the connection is made or its last request has
    /// been answered. The default is [10 s](Self::DEFAULT_HEADER_TIMEOUT).
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.header_timeout = timeout;
        self
    }

    /// How long a request's content may take, however slow it is. The default is
    /// [30 s](Self::DEFAULT_BODY_GRACE).
    pub fn body_grace(mut self, grace: Duration) -> Self {
        self.bounds.body_grace = grace;
        self
    }

    /// How many bytes a second a request's content must bring once its grace is over, on average; at least 1.
    /// The default is [1,024](Self::DEFAULT_BODY_RATE).
    pub fn body_rate(mut self, bytes: u32) -> Self {
        self.bounds.body_rate = bytes.max(1);
        self
    }

    /// How long a client may take nothing of an answer that is there for it, or, on Linux and Android, leave what was
    /// sent to it unacknowledged. The default is [30 s](Self::DEFAULT_WRITE_TIMEOUT).
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.write_timeout = timeout;
        self
    }

    /// How often an HTTP/2 connection is pinged. One that does not answer for as long is cut off. The default
    /// is [20 s](Self::DEFAULT_PING_INTERVAL).
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.bounds.ping_interval = interval;
        self
    }

    /// How long a connection may have no request; then it is told to end, and if it does not agree and takes no
    /// answer either it is cut off after another [write timeout](Self::write_timeout). (One of HTTP/1 also has
    /// to begin its next request within the [header timeout](Self::header_timeout).) The default is
    /// [60 s](Self::DEFAULT_IDLE_TIMEOUT).
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.idle_timeout = timeout;
        self
    }

    /// How large a request's head may be, at least 8 KiB. The default is
    /// [64 KiB](Self::DEFAULT_MAX_HEAD_BYTES).
    pub fn max_head_bytes(mut self, bytes: usize) -> Self {
        self.bounds.head_bytes = bytes.max(Self::LEAST_HEAD_BYTES);
        self
    }

    /// How many fields a request of HTTP/1 may have; in HTTP/2 their bytes [count](Self::max_head_bytes). The default is
    /// [100](Self::DEFAULT_MAX_HEADERS).
    pub fn max_headers(mut self, fields: usize) -> Self {
        self.bounds.headers = fields;
        self
    }

    /// How many requests an HTTP/2 connection may have at once. The default is
    /// [200](Self::DEFAULT_MAX_STREAMS).
    pub fn max_streams(mut self, streams: u32) -> Self {
        self.bounds.streams = streams;
        self
    }

    /// How many connections are served at once, at least 1. More wait until one ends. The default is
    /// [20,000](Self::DEFAULT_MAX_CONNECTIONS).
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.bounds.connections = connections.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How long requests that run may go on once the server is told to stop. The default is
    /// [10 s](Self::DEFAULT_SHUTDOWN_GRACE).
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.bounds.shutdown_grace = grace;
        self
    }

    /// Serves until `stop` is over, and then until all requests that run are answered or their grace is over.
    /// Handlers find their client's address by [`ConnectInfo`]. What runs longer than the grace is dropped; a
    /// connection that was upgraded is its handler's, and goes on.
    ///
    /// # Cancel safety
    /// If it is dropped, so are its connections, with what their handlers were at.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { listener, router, bounds } = self;
        let bounds = bounds.within_reach();
        let builder = Arc::new(bounds.builder());
        let places = Arc::new(Semaphore::new(bounds.connections));
        let (told, stopping) = watch::channel(());
        let mut running = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = stop.as_mut() => break,
                accepted = accepted => accepted,
            };
            // It is closed by nobody.
            let Ok(place) = place else { break };
            // Those that have ended make room.
            while running.try_join_next().is_some() {}
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                // It was its client's connection, and is its client's business.
                Err(error) if is_of_the_client(&error) => continue,
                Err(error) => {
                    tracing::warn!(target: "respond_async", %error, "a connection cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // A small answer is not held back to wait for more.
            let _ = stream.set_nodelay(true);
            end_unless_acknowledged(&stream, bounds.write_timeout);
            let activity = Arc::new(Activity::new());
            let service = HandOver {
                router: router.clone(),
                address,
                bounds,
                activity: Arc::clone(&activity),
            };
            let connection = bounds.connection(&builder, stream, service, place);
            let mut stopping = stopping.clone();
            running.spawn(async move {
                let mut connection = pin!(connection);
                tokio::select! {
                    // A connection that fails is its client's business.
                    _ = connection.as_mut() => return,
                    () = activity.idles(bounds.idle_timeout) => {}
                    // Also if the server itself is gone.
                    _ = stopping.changed() => {}
                }
                connection.as_mut().graceful_shutdown();
                // It has to agree, may have begun another request just before, and may still take the end of an
                // answer that is counted no more: all of it is in buffers.
                let patience = bounds.header_timeout.max(bounds.write_timeout);
                let mut written = activity.written();
                while timeout(patience, connection.as_mut()).await.is_err() {
                    let before = std::mem::replace(&mut written, activity.written());
                    if activity.is_idle() && written - before < LEAST_TAKEN {
                        break;
                    }
                }
            });
        }
        drop((listener, told));
        let all = async { while running.join_next().await.is_some() {} };
        let _ = timeout(bounds.shutdown_grace, all).await;
        running.shutdown().await;
    }
}

/// Has the kernel end the connection when what was sent is not acknowledged for so long. Its buffer takes the few bytes
/// of an event stream, so that nothing else would tell for a quarter of an hour that the peer has vanished.
#[cfg(any(target_os = "android", target_os = "linux"))]
fn end_unless_acknowledged(stream: &TcpStream, within: Duration) {
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(within));
}

#[cfg(not(any(target_os = "android", target_os = "linux")))]
fn end_unless_acknowledged(_: &TcpStream, _: Duration) {}

fn is_of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

type Connection = hyper_util::server::conn::auto::UpgradeableConnection<
    'static,
    TokioIo<Guarded<TcpStream>>,
    HandOver,
    TokioExecutor,
>;

impl Bounds {
    fn within_reach(mut self) -> Self {
        keep_within_reach([
            &mut self.header_timeout,
            &mut self.body_grace,
            &mut self.write_timeout,
            &mut self.ping_interval,
            &mut self.idle_timeout,
            &mut self.shutdown_grace,
        ]);
        self
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_headers(self.headers)
            .max_buf_size(self.head_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.ping_interval)
            .keep_alive_timeout(self.ping_interval)
            .max_concurrent_streams(self.streams)
            .max_header_list_size(u32::try_from(self.head_bytes).unwrap_or(u32::MAX));
        builder
    }

    fn connection(
        &self,
        builder: &Builder<TokioExecutor>,
        stream: TcpStream,
        service: HandOver,
        place: OwnedSemaphorePermit,
    ) -> Connection {
        let activity = Arc::clone(&service.activity);
        let io = Guarded::new(stream, self.header_timeout, self.write_timeout, activity, place);
        builder.serve_connection_with_upgrades(TokioIo::new(io), service).into_owned()
    }
}

/// Hands a request over to the router.
#[derive(Debug, Clone)]
struct HandOver {
    router: Router,
    address: std::net::SocketAddr,
    bounds: Bounds,
    activity: Arc<Activity>,
}

impl hyper::service::Service<Request<Incoming>> for HandOver {
    type Response = http::Response<Sent>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let Bounds { body_grace, body_rate, .. } = self.bounds;
        let mut request = request.map(|body| Body::new(Paced::new(body, body_grace, body_rate)));
        request.extensions_mut().insert(ConnectInfo(self.address));
        let busy = self.activity.begin();
        // A router is always ready.
        Answering::new(self.router.clone().call(request), busy)
    }
}

#[cfg(all(test, any(target_os = "android", target_os = "linux")))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_is_told_how_long_a_peer_may_be_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert_eq!(SockRef::from(&accepted).tcp_user_timeout().unwrap(), None);
        end_unless_acknowledged(&accepted, Server::DEFAULT_WRITE_TIMEOUT);
        let told = SockRef::from(&accepted).tcp_user_timeout().unwrap();
        assert_eq!(told, Some(Server::DEFAULT_WRITE_TIMEOUT));
    }
}
