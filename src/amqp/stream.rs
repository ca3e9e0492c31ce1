use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{error, warn};

use super::connection::{Amqp, Channels};
use super::message::{PERSISTENT, integer};
use super::publisher::{Message, PublishError, Publisher};
use super::topology;
use crate::operations::without_panic;
use crate::read_model::{Model, Offered, Positioned, ReadModel, Snapshot};
use crate::time::{Clock, SystemClock, Timestamp};

/// How many events are taken from the broker before the first is dealt with.
const PREFETCH: u16 = 500;
/// After how long to try again when events are missing and no snapshot has them.
const AGAIN: Duration = Duration::from_secs(1);

/// A log of events that a service writes and others read from any place on: a stream queue.
///
/// The writer numbers its events from 1 without gaps, and writes them in that order, each until it is
/// confirmed; so one process writes at a time. A number that is written twice counts once.
#[derive(Clone)]
pub struct EventStream(Arc<Inner>);

struct Inner {
    amqp: Amqp,
    name: String,
    max_bytes: u64,
    publisher: Publisher,
    declared: tokio::sync::Mutex<bool>,
}

/// Events that the broker has not all confirmed: append them again, before any other, unless one of them is
/// [too large](Self::is_too_large).
#[derive(Debug, thiserror::Error)]
#[error("the broker did not confirm the events")]
pub struct AppendError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Feeds a read model, as long as it is kept.
#[derive(Debug)]
#[must_use = "the model is fed as long as it is kept"]
pub struct Feed {
    _task: JoinSet<()>,
}

impl AppendError {
    /// Whether one of the events is larger than a message [may be](Amqp::with_max_message_bytes): none of them was
    /// sent, and none will be.
    pub fn is_too_large(&self) -> bool {
        matches!(self.0.downcast_ref(), Some(PublishError::TooLarge))
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl EventStream {
    /// A usual bound for [`new`](Self::new): 1 GiB.
    pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;

    /// The stream of that name.
    ///
    /// # Panics
    /// If the name is longer than 200 bytes: AMQP bounds names.
    pub fn new(amqp: &Amqp, name: impl Into<String>) -> Self {
        let name = name.into();
        topology::check_name(&name);
        Self::keeping(amqp, name, Self::DEFAULT_MAX_BYTES)
    }

    /// How many bytes of events the broker keeps, at the least. All users of the stream have to agree on it.
    #[must_use]
    pub fn with_max_bytes(self, bytes: u64) -> Self {
        Self::keeping(&self.0.amqp, self.0.name.clone(), bytes)
    }

    fn keeping(amqp: &Amqp, name: String, max_bytes: u64) -> Self {
        Self(Arc::new(Inner {
            amqp: amqp.clone(),
            name,
            max_bytes,
            publisher: Publisher::new(amqp),
            declared: tokio::sync::Mutex::default(),
        }))
    }

    /// Writes events, each as JSON, and returns once the broker has all of them.
    ///
    /// # Errors
    /// If it may not have all of them: append the same again, before any other.
    pub async fn append<E: Serialize>(&self, events: &[Positioned<E>]) -> Result<(), AppendError> {
        let inner = &*self.0;
        let messages: Result<Vec<_>, _> = events.iter().map(|event| inner.message(event)).collect();
        let messages = messages.map_err(|error| AppendError(Box::new(error)))?;
        let mut declared = inner.declared.lock().await;
        let unconfirmed = |error: PublishError| AppendError(Box::new(error));
        if !*declared {
            let channel = inner.amqp.channel().await;
            let channel = channel.ok_or_else(|| unconfirmed(PublishError::Unavailable))?;
            let declared = timeout(Amqp::CONFIRM_TIMEOUT, inner.declare(&channel)).await;
            let declared = declared.map_err(|_| unconfirmed(PublishError::Unavailable))?;
            declared.map_err(|error| AppendError(Box::new(error)))?;
        }
        let published = inner.publisher.publish_all(messages).await;
        // Whatever it was, the stream may be gone.
        *declared = published.is_ok();
        published.map_err(unconfirmed)
    }

    /// Feeds a model with the events after its position, now and from now on.
    ///
    /// `rebuild` is asked when events are missing, because the stream keeps them no longer or one cannot be read: it
    /// gives a snapshot from elsewhere (such as the service itself), or none, and is asked again after a second.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn feed<M, R, F>(&self, model: &ReadModel<M>, rebuild: R) -> Feed
    where
        M: Model<Event: DeserializeOwned>,
        R: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Option<Snapshot<M>>> + Send + 'static,
    {
        let (stream, model) = (Arc::clone(&self.0), model.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut channels = Channels::new(&stream.amqp, "reading a stream");
            let mut gap = None;
            loop {
                let channel = channels.next().await;
                let read = stream.amqp.until_lost(&channel, stream.read(&channel, &model));
                let expected = match read.await {
                    Ok(Read::Gap { expected }) => expected,
                    Ok(Read::Ended) => continue,
                    Err(error) => {
                        channels.ended(&error);
                        continue;
                    }
                };
                warn!(target: "respond_async", expected, stream = stream.name, "events are missing");
                let found = without_panic(pin!(async { rebuild().await })).await;
                if found.is_err() {
                    error!(
                        target: "respond_async",
                        stream = stream.name,
                        "to rebuild a model has panicked"
                    );
                }
                let is_restored =
                    found.ok().flatten().is_some_and(|snapshot| model.restore(snapshot));
                // Where it is to be read on then is not known: from its beginning. That may be long, so
                // that it is read again but once for each gap.
                if is_restored || gap != Some(expected) {
                    model.move_cursor(None);
                }
                gap = Some(expected);
                if !is_restored {
                    sleep(AGAIN).await;
                }
            }
        });
        Feed { _task: task }
    }
}

/// Why a stream is read no further.
enum Read {
    Ended,
    Gap { expected: u64 },
}

impl Inner {
    fn message<E: Serialize>(&self, next: &Positioned<E>) -> serde_json::Result<Message> {
        let seconds = u64::try_from(next.time.as_unix_millis() / 1_000).unwrap_or(0);
        let properties = BasicProperties::default()
            .with_message_id(next.position.to_string().into())
            .with_timestamp(seconds)
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT);
        Ok(Message {
            exchange: "",
            routing_key: self.name.clone(),
            properties,
            body: Bytes::from(serde_json::to_vec(&next.event)?),
            mandatory: true,
            place: None,
        })
    }

    async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
        let bytes = i64::try_from(self.max_bytes).unwrap_or(i64::MAX);
        arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(bytes));
        let options = QueueDeclareOptions::durable();
        channel.queue_declare(self.name.as_str().into(), options, arguments).await.map(drop)
    }

    async fn read<M>(&self, channel: &Channel, model: &ReadModel<M>) -> lapin::Result<Read>
    where
        M: Model<Event: DeserializeOwned>,
    {
        self.declare(channel).await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        // From the last that was taken: that it is there tells that it is the same stream. One that was made anew is
        // read from its end by who asks for what it does not have.
        let cursor = model.cursor();
        let from = match cursor.and_then(|cursor| i64::try_from(cursor).ok()) {
            Some(last) => AMQPValue::LongLongInt(last),
            None => AMQPValue::LongString("first".into()),
        };
        let mut is_same = cursor.is_none();
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), from);
        let (name, options) = (self.name.as_str().into(), BasicConsumeOptions::default());
        let mut events = channel.basic_consume(name, "".into(), options, arguments).await?;
        loop {
            let silence = if is_same { AGAIN } else { Amqp::CONFIRM_TIMEOUT };
            let mut delivery = timeout(silence, events.next()).await;
            if delivery.is_err() && !self.amqp.is_blocked() {
                // A stream tells nobody that he has all of it. What comes is there at once, so one that is silent
                // for a while has no more; but a connection can be lost without a word, so that the broker is asked
                // for one.
                let asked = SystemClock.now();
                let answer = timeout(Amqp::CONFIRM_TIMEOUT, self.declare(channel)).await;
                let Ok(answer) = answer else { return Ok(Read::Ended) };
                answer?;
                delivery = timeout(Duration::ZERO, events.next()).await;
                if delivery.is_err() {
                    if !is_same {
                        model.move_cursor(None);
                        return Ok(Read::Ended);
                    }
                    model.confirm(asked);
                }
            }
            let Ok(delivery) = delivery else { continue };
            let Some(delivery) = delivery.transpose()? else { return Ok(Read::Ended) };
            // What it no longer keeps of what follows is missing, as its numbers tell.
            is_same |= offset(&delivery) >= cursor;
            // A model that panics is asked again later: its event is lost otherwise.
            let Ok(taken) = without_panic(pin!(async { take(&delivery, model) })).await else {
                error!(target: "respond_async", stream = self.name, "a model has panicked");
                return Ok(Read::Ended);
            };
            match taken {
                Some(Offered::Gap { expected }) => return Ok(Read::Gap { expected }),
                Some(_) => {}
                None => warn!(
                    target: "respond_async",
                    stream = self.name,
                    "no event is to be read in a message"
                ),
            }
            model.move_cursor(offset(&delivery));
            delivery.ack(BasicAckOptions::default()).await?;
        }
    }
}

/// Offers an event. One that cannot be read is missing; none if the message is no event at all.
fn take<M: Model<Event: DeserializeOwned>>(
    delivery: &Delivery,
    model: &ReadModel<M>,
) -> Option<Offered> {
    let position = delivery.properties.message_id().as_ref()?.as_str().parse().ok()?;
    let expected = model.position() + 1;
    if position < expected {
        return Some(Offered::Duplicate);
    }
    let read = || {
        let seconds = delivery.properties.timestamp().and_then(|time| i64::try_from(time).ok())?;
        let time = Timestamp::from_unix_millis(seconds.saturating_mul(1_000));
        Some((time, serde_json::from_slice(&delivery.data).ok()?))
    };
    Some(match read() {
        Some((time, event)) => model.offer(position, time, event),
        None => Offered::Gap { expected },
    })
}

/// Where the message is in its stream.
fn offset(delivery: &Delivery) -> Option<u64> {
    let headers = delivery.properties.headers().as_ref()?;
    u64::try_from(integer(headers.inner().get("x-stream-offset")?)?).ok()
}
