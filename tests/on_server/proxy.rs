//! A way to a server that can be cut off: refused, silent, slow, reset, or torn in the middle of one call.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How it treats what goes over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// Nobody listens, and who was connected is not any more.
    Refused,
    /// Connections come about, and nothing goes over them.
    Silent,
    /// Each piece, either way, takes so long.
    Slow(Duration),
    /// Nothing comes of it any more: the test is over.
    Over,
}

/// What becomes of the call that a trap is set for. Whatever it is, its connection is reset then.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loss {
    /// So many bytes of the request come through.
    Request(usize),
    /// The request comes through, and so many bytes of the answer.
    Answer(usize),
}

#[derive(Debug, Default)]
struct Trap(Mutex<Option<(Vec<u8>, Loss)>>);

/// Listens on a port of its own, and passes on to the server.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    way: watch::Sender<Way>,
    /// Counts how often all connections were cut.
    cuts: watch::Sender<u64>,
    trap: Arc<Trap>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Before the server of that address, `host:port`.
    pub(crate) fn before(server: impl Into<String>) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let here = listener.local_addr().unwrap();
        let (way, cuts) = (watch::Sender::new(Way::Open), watch::Sender::new(0));
        let trap = Arc::new(Trap::default());
        let door = Door {
            here,
            there: server.into(),
            way: way.subscribe(),
            cuts: cuts.subscribe(),
            trap: Arc::clone(&trap),
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(door.keep(listener));
        });
        Self { port: here.port(), way, cuts, trap, thread: Some(thread) }
    }

    /// The address of the proxy.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
        if way == Way::Refused {
            self.cut();
        }
    }

    /// Resets all connections.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Loses the next call that has these bytes in it.
    pub(crate) fn lose(&self, needle: &[u8], loss: Loss) {
        *self.trap.0.lock().unwrap() = Some((needle.to_vec(), loss));
    }

    /// Whether the last trap has sprung.
    pub(crate) fn has_lost(&self) -> bool {
        self.trap.0.lock().unwrap().is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.way.send_replace(Way::Over);
        let _ = self.thread.take().unwrap().join();
    }
}

/// What listens, and what each connection is given.
#[derive(Clone)]
struct Door {
    here: SocketAddr,
    there: String,
    way: watch::Receiver<Way>,
    cuts: watch::Receiver<u64>,
    trap: Arc<Trap>,
}

impl Door {
    async fn keep(mut self, listener: std::net::TcpListener) {
        let mut first = Some(TcpListener::from_std(listener).unwrap());
        loop {
            let way = self.way.wait_for(|way| *way != Way::Refused).await;
            if way.is_err() || way.is_ok_and(|way| *way == Way::Over) {
                return;
            }
            let listener = match first.take() {
                Some(listener) => listener,
                None => TcpListener::bind(self.here).await.unwrap(),
            };
            loop {
                let mut changed = self.way.clone();
                tokio::select! {
                    client = listener.accept() => {
                        let mut door = self.clone();
                        // Cuts from before are not meant for it.
                        door.cuts.mark_unchanged();
                        tokio::spawn(door.pass(client.unwrap().0));
                    }
                    _ = changed.wait_for(|way| matches!(way, Way::Refused | Way::Over)) => break,
                }
            }
        }
    }

    /// Passes one connection's bytes on until it ends.
    async fn pass(mut self, client: TcpStream) {
        let Ok(server) = TcpStream::connect(&self.there).await else { return };
        let mut ends = [client, server];
        for end in &ends {
            end.set_nodelay(true).unwrap();
        }
        // How many bytes of the next answer come through, if that is to be lost.
        let mut cut_answer = None;
        let mut pieces = [vec![0; 1 << 16], vec![0; 1 << 16]];
        loop {
            let way = *self.way.borrow_and_update();
            let [client, server] = &mut ends;
            let [up, down] = &mut pieces;
            let (is_up, length) = tokio::select! {
                _ = self.cuts.changed() => break,
                changed = self.way.changed() => {
                    if changed.is_err() { break }
                    continue;
                }
                length = client.read(up), if way != Way::Silent => (true, length.unwrap_or(0)),
                length = server.read(down), if way != Way::Silent => (false, length.unwrap_or(0)),
            };
            if length == 0 {
                break;
            }
            // What came through while the way was changed goes the new one, however late this task learns of it.
            let way = tokio::select! {
                biased;
                _ = self.cuts.changed() => break,
                way = self.way.wait_for(|way| *way != Way::Silent) => match way {
                    Ok(way) if *way != Way::Refused => *way,
                    _ => break,
                },
            };
            if let Way::Slow(delay) = way {
                tokio::time::sleep(delay).await;
            }
            let (to, piece) =
                if is_up { (server, &up[..length]) } else { (client, &down[..length]) };
            let loss = if is_up { self.sprung(piece) } else { cut_answer.map(Loss::Request) };
            match loss {
                Some(Loss::Request(bytes)) => {
                    let _ = to.write_all(&piece[..bytes.min(length)]).await;
                    // It arrives before the reset, which would take it back.
                    let _ = to.flush().await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    break;
                }
                Some(Loss::Answer(bytes)) => cut_answer = Some(bytes),
                None => {}
            }
            if to.write_all(piece).await.is_err() {
                break;
            }
        }
        for end in &ends {
            // Both learn of it at once, by a reset.
            let _ = end.set_zero_linger();
        }
    }

    /// What is to become of a request with the bytes that a trap is set for.
    fn sprung(&self, piece: &[u8]) -> Option<Loss> {
        let mut trap = self.trap.0.lock().unwrap();
        let (needle, _) = trap.as_ref()?;
        let is_it = piece.windows(needle.len()).any(|bytes| bytes == needle);
        if is_it { trap.take().map(|(_, loss)| loss) } else { None }
    }
}
