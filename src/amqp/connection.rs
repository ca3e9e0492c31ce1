//! A connection to RabbitMQ that is made again whenever it is lost, and its channels.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionState, ErrorKind};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::connect::connect;

/// How often to look whether a connection is lost, or a channel, in case that nobody is told.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A connection to RabbitMQ that is made again whenever it is lost. A clone is the same.
///
/// It ends with its last clone, and with what was built on it.
#[derive(Clone)]
pub struct Amqp {
    connected: watch::Receiver<Option<Arc<Connection>>>,
    pub(super) max_message_bytes: usize,
}

/// An address that is none of a broker: `amqp://user:password@host:port/vhost`.
#[derive(Debug, thiserror::Error)]
#[error("no address of a broker: {0}")]
pub struct InvalidAmqpUrl(String);

impl Amqp {
    /// How long a connection may take to be made.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// How long the broker may take to confirm a message. It confirms none while it is short of memory or
    /// of disk.
    pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
    /// How long it waits before it connects again: a random time of up to this, then up to twice as
    /// long, and so on up to [`LONGEST_PAUSE`](Self::LONGEST_PAUSE).
    pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
    /// How long it waits before it connects again, at the most.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);
    /// The default of [`with_max_message_bytes`](Self::with_max_message_bytes): a little less than the 16 MiB that RabbitMQ
    /// takes from its version 4 on.
    pub const DEFAULT_MAX_MESSAGE_BYTES: usize = (16 << 20) - (64 << 10);

    /// Begins to connect, and returns at once. The broker need not be there yet.
    ///
    /// # Errors
    /// If that is no address.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(url: &str) -> Result<Self, InvalidAmqpUrl> {
        let url: AMQPUri = url.parse().map_err(InvalidAmqpUrl)?;
        let (connection, connected) = watch::channel(None);
        tokio::spawn(supervise(url, connection));
        Ok(Self { connected, max_message_bytes: Self::DEFAULT_MAX_MESSAGE_BYTES })
    }

    /// How large the content of a message may be, in bytes, for what is built on this from now on. What is
    /// larger is not sent: a job is answered 413, an answer becomes
    /// [`RESULT_TOO_LARGE`](crate::problem::types::RESULT_TOO_LARGE). Keep it within the broker's own
    /// `max_message_size`: what is larger than that closes its channel. The default is
    /// [16 MiB less 64 KiB](Self::DEFAULT_MAX_MESSAGE_BYTES).
    #[must_use]
    pub fn with_max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.connected.borrow().is_some()
    }

    /// Waits until there is a connection.
    pub async fn ready(&self) {
        let mut connected = self.connected.clone();
        // The supervisor lives as long as this.
        let _ = connected.wait_for(Option::is_some).await;
    }

    /// Whether the broker takes no messages, for it is short of memory or of disk.
    pub(super) fn is_blocked(&self) -> bool {
        self.connected.borrow().as_ref().is_some_and(|connection| connection.status().blocked())
    }

    /// A channel of the connection that there is. None while the broker is blocked: the driver writes nothing then, and
    /// would keep what asks for one.
    pub(super) async fn channel(&self) -> Option<Channel> {
        if self.is_blocked() {
            return None;
        }
        let connection = self.connected.borrow().clone()?;
        timeout(Self::CONNECT_TIMEOUT, connection.create_channel()).await.ok()?.ok()
    }

    /// Does something with a channel until that is lost: who waits for the driver's answer then is not always told.
    pub(super) async fn until_lost<T>(
        &self,
        channel: &Channel,
        work: impl Future<Output = lapin::Result<T>>,
    ) -> lapin::Result<T> {
        let mut connected = self.connected.clone();
        let lost = async {
            let is_connected = connected.borrow_and_update().is_some();
            while is_connected && channel.status().connected() {
                if timeout(LOOK_EVERY, connected.changed()).await.is_ok() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            result = work => result,
            () = lost => Err(ErrorKind::InvalidConnectionState(ConnectionState::Error).into()),
        }
    }

    /// A channel, as soon as there is one.
    pub(super) async fn next_channel(&self) -> Channel {
        loop {
            self.ready().await;
            if let Some(channel) = self.channel().await {
                return channel;
            }
            sleep(Self::FIRST_PAUSE).await;
        }
    }
}

impl fmt::Debug for Amqp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp").field("is_connected", &self.is_connected()).finish()
    }
}

async fn supervise(url: AMQPUri, connection: watch::Sender<Option<Arc<Connection>>>) {
    let mut pauses = Pauses::default();
    while !connection.is_closed() {
        let began = Instant::now();
        match connect(url.clone(), Amqp::CONNECT_TIMEOUT).await {
            Ok(made) => {
                let mut events = pin!(made.events_listener());
                let made = Arc::new(made);
                connection.send_replace(Some(Arc::clone(&made)));
                // An error that it tells of may be a channel's, whose user sees to it.
                while made.status().connected() {
                    tokio::select! {
                        event = events.next() => if event.is_none() { break },
                        // In case that it is lost without a word.
                        () = sleep(LOOK_EVERY) => {}
                        () = connection.closed() => {
                            let _ = made.close(200, "".into()).await;
                            return;
                        }
                    }
                }
                warn!(target: "respond_async", "the connection to RabbitMQ is lost");
                connection.send_replace(None);
            }
            Err(error) => warn!(target: "respond_async", %error, "RabbitMQ cannot be reached"),
        }
        pauses.pause_after(began).await;
    }
}

/// The pauses between tries at the same: a random time of up to [`Amqp::FIRST_PAUSE`], so that not all come
/// back at once, then up to twice as long, and so on.
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(Amqp::FIRST_PAUSE)
    }
}

impl Pauses {
    pub(super) async fn pause(&mut self) {
        let random = getrandom::u32().unwrap_or(u32::MAX);
        sleep(self.0.mul_f64(f64::from(random) / f64::from(u32::MAX))).await;
        self.0 = (self.0 * 2).min(Amqp::LONGEST_PAUSE);
    }

    /// After a try that went well for a while, they begin again.
    async fn pause_after(&mut self, began: Instant) {
        if began.elapsed() > Amqp::LONGEST_PAUSE {
            *self = Self::default();
        }
        self.pause().await;
    }
}

/// One channel after another, for who uses each until it is lost.
#[derive(Debug)]
pub(super) struct Channels {
    amqp: Amqp,
    what: &'static str,
    pauses: Pauses,
    /// When the last one was given out.
    began: Option<Instant>,
}

impl Channels {
    /// `what` is what the log says of who uses them: it "begins again".
    pub(super) fn new(amqp: &Amqp, what: &'static str) -> Self {
        Self { amqp: amqp.clone(), what, pauses: Pauses::default(), began: None }
    }

    /// A channel, at once the first time, and after a pause after that.
    pub(super) async fn next(&mut self) -> Channel {
        if let Some(began) = self.began {
            self.pauses.pause_after(began).await;
        }
        let channel = self.amqp.next_channel().await;
        self.began = Some(Instant::now());
        channel
    }

    /// Says in the log why the last one is used no more.
    pub(super) fn ended(&self, error: &lapin::Error) {
        warn!(target: "respond_async", %error, "{} begins again", self.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_it_goes_well() {
        let (mut pauses, began) = (Pauses::default(), Instant::now());
        for doubling in 0..6 {
            assert_eq!(pauses.0, Amqp::FIRST_PAUSE * (1 << doubling));
            pauses.pause().await;
        }
        pauses.pause().await;
        assert_eq!(pauses.0, Amqp::LONGEST_PAUSE);
        pauses.pause_after(Instant::now()).await;
        assert_eq!(pauses.0, Amqp::LONGEST_PAUSE, "it was lost at once");
        tokio::time::advance(Amqp::LONGEST_PAUSE).await;
        pauses.pause_after(began).await;
        assert_eq!(pauses.0, Amqp::FIRST_PAUSE * 2);
    }
}
