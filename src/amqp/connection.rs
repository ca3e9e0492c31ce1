use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Event};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::topology;

/// A connection to RabbitMQ that is made again whenever it is lost. A clone is the same.
///
/// It ends with its last clone, and with what was built on it.
#[derive(Clone)]
pub struct Amqp {
    connected: watch::Receiver<Option<Arc<Connection>>>,
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
        Ok(Self { connected })
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

    /// A channel of the connection that there is.
    pub(super) async fn channel(&self) -> Result<Channel, PublishError> {
        let connection = self.connected.borrow().clone().ok_or(PublishError::Unavailable)?;
        let channel = timeout(Self::CONNECT_TIMEOUT, connection.create_channel());
        channel.await.ok().and_then(Result::ok).ok_or(PublishError::Unavailable)
    }

    /// A channel, as soon as there is one.
    pub(super) async fn next_channel(&self) -> Channel {
        loop {
            self.ready().await;
            match self.channel().await {
                Ok(channel) => return channel,
                Err(_) => sleep(Self::FIRST_PAUSE).await,
            }
        }
    }
}

impl fmt::Debug for Amqp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp").field("is_connected", &self.is_connected()).finish()
    }
}

async fn supervise(url: AMQPUri, connection: watch::Sender<Option<Arc<Connection>>>) {
    let mut pause = Amqp::FIRST_PAUSE;
    while !connection.is_closed() {
        let began = Instant::now();
        let options = ConnectionProperties::default();
        match timeout(Amqp::CONNECT_TIMEOUT, Connection::connect_uri(url.clone(), options)).await {
            Ok(Ok(made)) => {
                let mut events = pin!(made.events_listener());
                let made = Arc::new(made);
                connection.send_replace(Some(Arc::clone(&made)));
                while made.status().connected() {
                    tokio::select! {
                        event = events.next() => match event {
                            Some(Event::Error(error)) => {
                                warn!(%error, "the connection to RabbitMQ is lost");
                                break;
                            }
                            Some(_) => {}
                            None => break,
                        },
                        // In case that it is lost without a word.
                        () = sleep(Duration::from_secs(1)) => {}
                        () = connection.closed() => {
                            let _ = made.close(200, "".into()).await;
                            return;
                        }
                    }
                }
                connection.send_replace(None);
            }
            Ok(Err(error)) => warn!(%error, "RabbitMQ cannot be reached"),
            Err(_) => warn!("RabbitMQ does not answer"),
        }
        if began.elapsed() > Amqp::LONGEST_PAUSE {
            pause = Amqp::FIRST_PAUSE;
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(Amqp::LONGEST_PAUSE);
    }
}

/// A random part of a pause, so that not all come back at once.
pub(super) fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    pause.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// A message that the broker does not have, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PublishError {
    /// No queue takes it.
    #[error("no queue takes the message")]
    Unroutable,
    /// The queue is full.
    #[error("the broker refuses the message")]
    Refused,
    /// There is no connection, or it was lost before the broker confirmed; it may have the message.
    #[error("the broker did not confirm the message")]
    Unavailable,
}

/// Publishes with confirms, on a channel that is made again when it is lost.
#[derive(Debug)]
pub(super) struct Publisher {
    amqp: Amqp,
    channel: Mutex<Option<Channel>>,
    /// Whether it tells events, whose exchange may be gone after the broker was.
    tells: bool,
}

/// A message on its way out.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) exchange: &'static str,
    pub(super) routing_key: String,
    pub(super) properties: BasicProperties,
    pub(super) body: bytes::Bytes,
    /// Whether it is an error if no queue takes it.
    pub(super) mandatory: bool,
}

impl Publisher {
    pub(super) fn new(amqp: &Amqp) -> Self {
        Self { amqp: amqp.clone(), channel: Mutex::default(), tells: false }
    }

    /// One for events.
    pub(super) fn of_events(amqp: &Amqp) -> Self {
        Self { tells: true, ..Self::new(amqp) }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.amqp.is_connected()
    }

    /// Returns once the broker has the message.
    pub(super) async fn publish(&self, message: Message) -> Result<(), PublishError> {
        self.publish_all(vec![message]).await
    }

    /// Returns once the broker has all of them. They go out in their order; of an error it is not known
    /// which the broker has.
    pub(super) async fn publish_all(&self, messages: Vec<Message>) -> Result<(), PublishError> {
        let channel = self.channel().await?;
        // In a task of its own: a confirm that nobody waits for any more would be kept by its channel.
        let publishing = tokio::spawn(publish(channel, messages));
        match timeout(Amqp::CONFIRM_TIMEOUT, publishing).await {
            Ok(Ok(answer)) => answer,
            _ => Err(PublishError::Unavailable),
        }
    }

    async fn channel(&self) -> Result<Channel, PublishError> {
        let mut kept = self.channel.lock().await;
        if let Some(channel) = kept.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = self.amqp.channel().await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        confirms.await.map_err(|_| PublishError::Unavailable)?;
        if self.tells {
            topology::declare_events(&channel).await.map_err(|_| PublishError::Unavailable)?;
        }
        *kept = Some(channel.clone());
        Ok(channel)
    }
}

async fn publish(channel: Channel, messages: Vec<Message>) -> Result<(), PublishError> {
    let mut confirms = Vec::with_capacity(messages.len());
    for Message { exchange, routing_key, properties, body, mandatory } in messages {
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        let sent =
            channel.basic_publish(exchange.into(), routing_key.into(), options, &body, properties);
        confirms.push(sent.await.map_err(|_| PublishError::Unavailable)?);
    }
    let mut all = Ok(());
    for confirm in confirms {
        let answer = match confirm.await {
            Ok(Confirmation::Ack(None)) => Ok(()),
            Ok(Confirmation::Ack(Some(_))) => Err(PublishError::Unroutable),
            Ok(Confirmation::Nack(_)) => Err(PublishError::Refused),
            Ok(Confirmation::NotRequested) | Err(_) => Err(PublishError::Unavailable),
        };
        all = all.and(answer);
    }
    all
}

/// Says in the log why a session on a channel has ended.
pub(super) fn ended(what: &str, error: &lapin::Error) {
    warn!(%error, "{what} begins again");
}
