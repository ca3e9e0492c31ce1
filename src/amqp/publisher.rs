//! Messages on their way to the broker, each confirmed by it or told to be lost.

use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;

use super::connection::{Amqp, Pauses};
use super::topology;
use crate::operation::Outcome;
use crate::store::check_outcome_size;

/// How many fields an answer may have: with what AMQP adds to each, and with as many bytes as a store takes, they go
/// into one frame, of 128 KiB.
const MAX_FIELDS: usize = 4_096;

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
    /// What is kept for it until the broker has answered, or its channel is lost.
    pub(super) place: Option<Arc<OwnedSemaphorePermit>>,
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

    /// Whether an answer goes into a message: the broker closes the connection of who sends too many fields.
    pub(super) fn takes(&self, outcome: &Outcome) -> bool {
        outcome.headers.len() <= MAX_FIELDS
            && check_outcome_size(outcome, self.amqp.max_message_bytes).is_ok()
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
        let channel = self.amqp.channel().await.ok_or(PublishError::Unavailable)?;
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
    let Message { exchange, routing_key, properties, body, mandatory, place: _place } = message;
    let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
    let (exchange, routing_key) = (exchange.into(), routing_key.into());
    let sent = channel.basic_publish(exchange, routing_key, options, &body, properties).await;
    drop(body);
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
}
