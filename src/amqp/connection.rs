use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionState, ErrorKind};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::connect::connect;
use super::topology;

/// How often to look whether a connection is lost, or a channel, in case that nobody is told.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A connection to RabbitMQ that is made again whenever it is lost. A clone is the same.
///
/// It ends with its last clone, and with what was built on it.
#[derive(Clone)]
pub struct Amqp {
    connected: watch::Receiver<Option<Arc<Connection>>>,
    max_message_bytes: usize,
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
    /// How large the content of a message may be if nothing else is said: a little less than the 16 MiB that
    /// RabbitMQ takes from its version 4 on.
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
    /// `max_message_size`: what is larger than that closes its channel.
    #[must_use]
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
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
    pub(super) async fn channel(&self) -> Result<Channel, PublishError> {
        if self.is_blocked() {
            return Err(PublishError::Unavailable);
        }
        let connection = self.connected.borrow().clone().ok_or(PublishError::Unavailable)?;
        let channel = timeout(Self::CONNECT_TIMEOUT, connection.create_channel());
        channel.await.ok().and_then(Result::ok).ok_or(PublishError::Unavailable)
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
                warn!("the connection to RabbitMQ is lost");
                connection.send_replace(None);
            }
            Err(error) => warn!(%error, "RabbitMQ cannot be reached"),
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
        warn!(%error, "{} begins again", self.what);
    }
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
    /// It was not sent.
    #[error("the message is larger than the broker may take")]
    TooLarge,
    /// There is no connection, or it was lost before the broker confirmed; it may have the message.
    #[error("the broker did not confirm the message")]
    Unavailable,
}

/// Publishes with confirms, on a channel that is made again when it is lost.
#[derive(Debug)]
pub(super) struct Publisher {
    amqp: Amqp,
    channel: Mutex<Option<Outbox>>,
    /// Whether it tells events, whose exchange may be gone after the broker was.
    tells: bool,
}

/// A channel, and the task that publishes on it.
#[derive(Debug)]
struct Outbox {
    channel: Channel,
    messages: mpsc::UnboundedSender<(Message, Answer)>,
}

impl Outbox {
    fn is_open(&self) -> bool {
        self.channel.status().connected() && !self.messages.is_closed()
    }
}

/// Who waits for a message's confirm.
type Answer = oneshot::Sender<Result<(), PublishError>>;

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
        let confirmed = async { confirmed(self.send(messages).await?).await };
        timeout(Amqp::CONFIRM_TIMEOUT, confirmed).await.unwrap_or(Err(PublishError::Unavailable))
    }

    /// Returns once the broker has the message, however long it is away, or refuses it.
    ///
    /// It is sent again only after its channel is lost: until then the broker may confirm it yet, and one that
    /// is short of memory would be sent more and more of the same.
    pub(super) async fn publish_persistently(&self, message: Message) -> Result<(), PublishError> {
        let mut pauses = Pauses::default();
        loop {
            let sending = timeout(Amqp::CONFIRM_TIMEOUT, self.send(vec![message.clone()])).await;
            let answer = match sending.unwrap_or(Err(PublishError::Unavailable)) {
                Ok(sent) => confirmed(sent).await,
                Err(error) => Err(error),
            };
            // The broker may have it all the same; then it is done twice, and recorded once.
            if answer != Err(PublishError::Unavailable) {
                return answer;
            }
            pauses.pause().await;
        }
    }

    /// Sends messages, and says what will tell whether the broker has them.
    async fn send(&self, messages: Vec<Message>) -> Result<Sent, PublishError> {
        if messages.iter().any(|message| message.body.len() > self.amqp.max_message_bytes) {
            return Err(PublishError::TooLarge);
        }
        // The driver would keep them, and whoever waits would send them again.
        if self.amqp.is_blocked() {
            return Err(PublishError::Unavailable);
        }
        let mut kept = self.channel.lock().await;
        let outbox = match kept.take().filter(Outbox::is_open) {
            Some(outbox) => outbox,
            None => self.outbox().await?,
        };
        let outbox = kept.insert(outbox);
        let mut sent = Vec::with_capacity(messages.len());
        for message in messages {
            let (answer, confirmed) = oneshot::channel();
            let sending = outbox.messages.send((message, answer));
            sending.map_err(|_| PublishError::Unavailable)?;
            sent.push(confirmed);
        }
        Ok(sent)
    }

    async fn outbox(&self) -> Result<Outbox, PublishError> {
        let channel = self.amqp.channel().await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        confirms.await.map_err(|_| PublishError::Unavailable)?;
        if self.tells {
            topology::declare_events(&channel).await.map_err(|_| PublishError::Unavailable)?;
        }
        let (messages, outgoing) = mpsc::unbounded_channel();
        let (amqp, on) = (self.amqp.clone(), channel.clone());
        tokio::spawn(async move {
            // Whoever waits still when it is lost is told so by that his answer never comes.
            let _ = amqp.until_lost(&on, publish(&on, outgoing)).await;
        });
        Ok(Outbox { channel, messages })
    }
}

/// Messages that were sent and that the broker may have.
type Sent = Vec<oneshot::Receiver<Result<(), PublishError>>>;

async fn confirmed(sent: Sent) -> Result<(), PublishError> {
    let mut all = Ok(());
    for confirmed in sent {
        all = all.and(confirmed.await.unwrap_or(Err(PublishError::Unavailable)));
    }
    all
}

/// Publishes on a channel, and tells what became of each message. In one task, for the driver numbers messages before
/// it writes them, and gives a message that no queue took to whichever is confirmed next.
async fn publish(
    channel: &Channel,
    mut messages: mpsc::UnboundedReceiver<(Message, Answer)>,
) -> lapin::Result<()> {
    let mut unconfirmed = FuturesUnordered::new();
    let mut confirms = Confirms::default();
    let mut is_open = true;
    while is_open || !unconfirmed.is_empty() {
        tokio::select! {
            next = messages.recv(), if is_open => match next {
                Some((message, answer)) => unconfirmed.push(publish_one(channel, message, answer)),
                None => is_open = false,
            },
            Some(one) = unconfirmed.next(), if !unconfirmed.is_empty() => {
                confirms.take(one);
                // All that there are: one that was confirmed before this may have its message.
                while let Some(Some(next)) = unconfirmed.next().now_or_never() {
                    confirms.take(next);
                }
                confirms.tell();
            }
        }
    }
    Ok(())
}

async fn publish_one(channel: &Channel, message: Message, answer: Answer) -> Confirmed {
    let id = MessageId::of(&message.routing_key, &message.properties);
    let Message { exchange, routing_key, properties, body, mandatory } = message;
    let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
    let (exchange, routing_key) = (exchange.into(), routing_key.into());
    let sent = channel.basic_publish(exchange, routing_key, options, &body, properties).await;
    let confirmed = match sent {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    let (result, returned) = match confirmed {
        Ok(Confirmation::Ack(returned)) => (Ok(()), returned),
        Ok(Confirmation::Nack(returned)) => (Err(PublishError::Refused), returned),
        Ok(Confirmation::NotRequested) | Err(_) => (Err(PublishError::Unavailable), None),
    };
    let returned = returned.map(|returned| {
        MessageId::of(returned.delivery.routing_key.as_str(), &returned.delivery.properties)
    });
    Confirmed { id, result, returned, answer }
}

/// What tells messages on their way from each other, as far as their ways can differ.
#[derive(Debug, PartialEq, Eq)]
struct MessageId {
    routing_key: String,
    message: Option<ShortString>,
    correlation: Option<ShortString>,
}

impl MessageId {
    fn of(routing_key: &str, properties: &BasicProperties) -> Self {
        Self {
            routing_key: routing_key.to_owned(),
            message: properties.message_id().clone(),
            correlation: properties.correlation_id().clone(),
        }
    }
}

/// A message that the broker answered, and with it one that no queue took, which may be another.
struct Confirmed {
    id: MessageId,
    result: Result<(), PublishError>,
    returned: Option<MessageId>,
    answer: Answer,
}

/// Gives each message that no queue took to who sent it.
#[derive(Default)]
struct Confirms {
    /// Those that came back before they were confirmed.
    returned: Vec<MessageId>,
    confirmed: Vec<Confirmed>,
}

impl Confirms {
    fn take(&mut self, mut confirmed: Confirmed) {
        self.returned.extend(confirmed.returned.take());
        self.confirmed.push(confirmed);
    }

    /// Tells those of which it is known. The driver hands out what came back in turn, one with each confirm. So what a
    /// confirmed message is still to be given waits behind that of one that is not confirmed; as long as there is
    /// such a one, nothing is known of the others. It is not for long: what no queue took is confirmed at once.
    fn tell(&mut self) {
        let mut untold = Vec::new();
        for one in self.confirmed.drain(..) {
            match self.returned.iter().position(|returned| *returned == one.id) {
                Some(place) => {
                    self.returned.swap_remove(place);
                    let _ = one.answer.send(Err(PublishError::Unroutable));
                }
                None => untold.push(one),
            }
        }
        if self.returned.is_empty() {
            for one in untold {
                let _ = one.answer.send(one.result);
            }
        } else {
            self.confirmed = untold;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The driver gives what came back to whichever is confirmed next.
    #[test]
    fn what_no_queue_takes_is_told_to_who_sent_it() {
        let id = |name: &str| MessageId {
            routing_key: name.to_owned(),
            message: Some(name.into()),
            correlation: None,
        };
        let mut confirms = Confirms::default();
        let mut take = |name: &str, returned: Option<&str>| {
            let (answer, mut told) = oneshot::channel();
            let returned = returned.map(id);
            confirms.take(Confirmed { id: id(name), result: Ok(()), returned, answer });
            confirms.tell();
            move || told.try_recv().ok()
        };
        let unroutable = Some(Err(PublishError::Unroutable));
        let mut first = take("first", Some("first"));
        assert_eq!(first(), unroutable);
        let mut second = take("second", None);
        assert_eq!(second(), Some(Ok(())));
        // Of the one that comes first it is not known until then whether the next in turn is its own.
        let (mut third, mut fourth) = (take("third", Some("fifth")), take("fourth", Some("sixth")));
        assert_eq!((third(), fourth()), (None, None));
        let mut fifth = take("fifth", Some("fourth"));
        assert_eq!((third(), fourth(), fifth()), (None, unroutable, unroutable));
        let mut sixth = take("sixth", None);
        assert_eq!((third(), sixth()), (Some(Ok(())), unroutable));
    }

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
