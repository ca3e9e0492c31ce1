//! How a connection is made, and given up if that takes too long.

use std::io;
use std::net::TcpStream;
#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(windows)]
use std::os::windows::io::AsSocket;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use tokio::time::timeout;

use crate::lock::lock;

/// The socket of a connection that is being made.
#[derive(Default)]
enum Socket {
    #[default]
    None,
    Open(TcpStream),
    GivenUp,
}

/// Connects, and leaves nothing behind if that takes too long. The driver itself would: its thread waits for good for
/// a broker that takes the connection and says nothing, so that the socket is shut down for it.
pub(super) async fn connect(url: AMQPUri, within: Duration) -> lapin::Result<Connection> {
    let socket = Arc::new(Mutex::new(Socket::None));
    let runtime = lapin::runtime::default_runtime()?;
    let options = ConnectionProperties::default();
    let opened = Arc::clone(&socket);
    let making = Connection::connector(
        url,
        runtime,
        async move |url, runtime| {
            let address = (url.authority.host.clone(), url.authority.port);
            let opening = AsyncTcpStream::connect(&runtime, runtime.to_socket_addrs(address));
            let stream = timeout(within, opening).await.map_err(io::Error::from)??;
            if let AsyncTcpStream::Plain(plain) = &stream {
                let copy = copy(plain.get_ref())?;
                let mut socket = lock(&opened);
                if matches!(*socket, Socket::GivenUp) {
                    return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                }
                *socket = Socket::Open(copy);
            }
            match url.scheme {
                AMQPScheme::AMQP => Ok(stream),
                AMQPScheme::AMQPS => {
                    let config = OwnedTLSConfig::default();
                    Ok(stream.into_tls(&url.authority.host, config.as_ref()).await?)
                }
            }
        },
        options,
    );
    match timeout(within, making).await {
        Ok(made) => {
            *lock(&socket) = Socket::None;
            made
        }
        Err(elapsed) => {
            let before = std::mem::replace(&mut *lock(&socket), Socket::GivenUp);
            if let Socket::Open(stream) = before {
                // It may be gone by itself.
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
            Err(io::Error::from(elapsed).into())
        }
    }
}

#[cfg(unix)]
fn copy(socket: &impl AsFd) -> io::Result<TcpStream> {
    Ok(socket.as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn copy(socket: &impl AsSocket) -> io::Result<TcpStream> {
    Ok(socket.as_socket().try_clone_to_owned()?.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// How many threads the driver has.
    fn threads() -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim_end() == "lapin-io-loop").count()
    }

    #[tokio::test]
    async fn a_broker_that_says_nothing_costs_no_thread() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("amqp://{}", silent.local_addr().unwrap());
        for _ in 0..3 {
            let made = connect(url.parse().unwrap(), Duration::from_millis(200)).await;
            assert!(made.is_err());
        }
        for _ in 0..500 {
            if threads() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} threads are left", threads());
    }
}
