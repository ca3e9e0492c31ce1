use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions, QueueBindOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::error;

use super::connection::{Amqp, Channels};
use super::message::{PERSISTENT, short};
use super::publisher::{Message, PublishError, Publisher};
use super::topology::{self, EVENTS_EXCHANGE};
use crate::event::{MEDIA_TYPE, OperationEvent};
use crate::operation::{IntoOutcome, Outcome};
use crate::operations::{Context, Job, JobPolicy, OperationsBuilder, without_panic};
use crate::problem::{Problem, types};

/// How often one publication of events is tried: until its deadline, which comes first.
const ATTEMPTS: u32 = 1_000_000;
/// How long it waits between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long one that is done is kept.
const RETENTION: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How many operations a subscriber remembers, to tell what it was told before.
const REMEMBERED: usize = 100_000;
/// How often a subscriber is given an event that it fails at.
const DELIVERY_LIMIT: u32 = 20;
/// How many events wait for a subscriber; then the oldest go to its dead ones.
const MAX_WAITING: u32 = 1_000_000;
/// How many events a subscriber takes from the broker before the first is dealt with.
const PREFETCH: u16 = 100;

/// Events that are to be told in one go: the job that follows from a change.
#[derive(Debug, Serialize, Deserialize)]
struct Tell {
    kind: String,
    events: Vec<OperationEvent>,
}

impl Job for Tell {
    const KIND: &'static str = "respond-async.tell";
}

impl Amqp {
    /// Has each change of the operations told as an [`OperationEvent`] on [`EVENTS_EXCHANGE`], at least
    /// once. `source` is how the service calls itself in them, a URI reference such as `/gateway`.
    ///
    /// The routing key is `accepted`, `progressed` or `finished`, then the status, then the operation's kind:
    /// `finished.succeeded.images.enhance`. Nobody has to listen.
    pub fn tell(&self, source: impl Into<String>, builder: OperationsBuilder) -> OperationsBuilder {
        let source = source.into();
        let publisher = Arc::new(Publisher::of_events(self));
        let policy = JobPolicy::new()
            .with_attempt_limit(ATTEMPTS)
            .with_backoff(FIRST_PAUSE, LONGEST_PAUSE)
            .with_retention(RETENTION)
            .with_deadline(DEADLINE);
        builder
            .follow_up_with(move |operation, urls| {
                let event = OperationEvent::of(operation, urls, &source);
                let mut events = vec![event];
                if operation.status().is_finished() {
                    // In case that it could not be told when it was so.
                    events.insert(0, OperationEvent::accepted(operation, &source));
                }
                Some(Tell { kind: operation.kind().to_string(), events })
            })
            .job_with(policy, move |job: Tell, _: Context| {
                let publisher = Arc::clone(&publisher);
                async move {
                    let messages = job.events.iter().map(|event| message(event, &job.kind));
                    match publisher.publish_all(messages.collect()).await {
                        Ok(()) => Outcome::default(),
                        // It never becomes smaller.
                        Err(PublishError::TooLarge) => {
                            Problem::new(types::RESULT_TOO_LARGE).into_outcome()
                        }
                        Err(_) => Problem::new(types::BROKER_UNAVAILABLE).into_outcome(),
                    }
                }
            })
    }
}

fn message(event: &OperationEvent, kind: &str) -> Message {
    let status = event.status().map_or("unknown", |status| status.as_str());
    let properties = BasicProperties::default()
        .with_message_id(short(event.id()))
        .with_type(short(event.event_type().as_str()))
        .with_content_type(MEDIA_TYPE.into())
        .with_delivery_mode(PERSISTENT);
    Message {
        exchange: EVENTS_EXCHANGE,
        routing_key: format!("{}.{status}.{kind}", event.event_type().as_str()),
        properties,
        body: serde_json::to_vec(event).unwrap_or_default().into(),
        mandatory: false,
        place: None,
    }
}

/// Hears of other services' operations, until it is dropped.
#[derive(Debug)]
#[must_use = "it hears as long as it is kept"]
pub struct Subscriber {
    _task: JoinSet<()>,
}

impl Subscriber {
    /// Gives the handler each event whose routing key matches one of `keys` (`finished.#`;
    /// `*.*.images.enhance`), in the order in which the broker has them: of an operation, each once and
    /// none after a later one, as far as this process remembers. After a restart one may come again.
    ///
    /// `queue` is durable and the subscriber's own: what is told while nobody listens waits in it. Processes
    /// with the same queue share its events. An event is acknowledged once the handler says `Ok`; otherwise, and
    /// if it panics, it comes again after a second, and after 20 times goes to the queue `….dead`.
    ///
    /// # Panics
    /// Outside a tokio runtime, and if the name of the queue is longer than 200 bytes or a key longer than 255: AMQP
    /// bounds names.
    pub fn start<H, F, E>(amqp: &Amqp, queue: impl Into<String>, keys: &[&str], handler: H) -> Self
    where
        H: Fn(OperationEvent) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Send + 'static,
    {
        let (amqp, queue) = (amqp.clone(), queue.into());
        topology::check_name(&queue);
        let keys: Vec<ShortString> = keys.iter().map(|&key| key.into()).collect();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut seen = Seen::default();
            let mut channels = Channels::new(&amqp, "hearing events");
            loop {
                let channel = channels.next().await;
                if let Err(error) = hear(&amqp, &channel, &queue, &keys, &handler, &mut seen).await
                {
                    channels.ended(&error);
                }
            }
        });
        Self { _task: task }
    }
}

async fn hear<H, F, E>(
    amqp: &Amqp,
    channel: &Channel,
    queue: &str,
    keys: &[ShortString],
    handler: &H,
    seen: &mut Seen,
) -> lapin::Result<()>
where
    H: Fn(OperationEvent) -> F,
    F: Future<Output = Result<(), E>>,
{
    const AGAIN: Duration = Duration::from_secs(1);
    let mut events = amqp.until_lost(channel, subscribe(channel, queue, keys)).await?;
    while let Some(delivery) = amqp.until_lost(channel, events.next().map(Ok)).await? {
        let delivery = delivery?;
        let Some(event) = read(&delivery) else {
            // Nobody will ever be able to read it.
            let reject = delivery.reject(BasicRejectOptions { requeue: false });
            amqp.until_lost(channel, reject).await?;
            continue;
        };
        let (of, revision) =
            ((event.source().to_owned(), event.subject().to_owned()), event.revision());
        if seen.is_new(&of, revision) {
            // What it does before its first await can panic too.
            let answer = without_panic(pin!(async { handler(event).await })).await;
            if answer.is_err() {
                error!(target: "respond_async", queue, "a subscriber's handler has panicked");
            }
            if !matches!(answer, Ok(Ok(()))) {
                sleep(AGAIN).await;
                // Rejected, for from RabbitMQ 4.3 on a nack does not count as a failed delivery.
                let reject = delivery.reject(BasicRejectOptions { requeue: true });
                amqp.until_lost(channel, reject).await?;
                continue;
            }
            seen.note(of, revision);
        }
        amqp.until_lost(channel, delivery.ack(BasicAckOptions::default())).await?;
    }
    Ok(())
}

async fn subscribe(
    channel: &Channel,
    queue: &str,
    keys: &[ShortString],
) -> lapin::Result<Consumer> {
    topology::declare_events(channel).await?;
    topology::declare_subscription(channel, queue, DELIVERY_LIMIT, MAX_WAITING).await?;
    for key in keys {
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        let key = key.clone();
        channel.queue_bind(queue.into(), EVENTS_EXCHANGE.into(), key, options, arguments).await?;
    }
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    channel.basic_consume(queue.into(), "".into(), options, arguments).await
}

fn read(delivery: &Delivery) -> Option<OperationEvent> {
    serde_json::from_slice(&delivery.data).ok()
}

/// The last revisions that were told, of the operations that were last told of.
#[derive(Debug, Default)]
struct Seen {
    revisions: HashMap<(String, String), u64>,
    order: VecDeque<(String, String)>,
}

impl Seen {
    fn is_new(&self, of: &(String, String), revision: Option<u64>) -> bool {
        let seen = self.revisions.get(of).copied();
        seen.is_none() || revision > seen
    }

    fn note(&mut self, of: (String, String), revision: Option<u64>) {
        let Some(revision) = revision else { return };
        if self.revisions.insert(of.clone(), revision).is_none() {
            self.order.push_back(of);
        }
        if self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.revisions.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_remembered_for_a_while() {
        let of = |number: usize| ("/a".to_owned(), number.to_string());
        let mut seen = Seen::default();
        assert!(seen.is_new(&of(1), Some(1)) && seen.is_new(&of(1), None));
        seen.note(of(1), Some(3));
        for (revision, is_new) in
            [(None, false), (Some(2), false), (Some(3), false), (Some(4), true)]
        {
            assert_eq!(seen.is_new(&of(1), revision), is_new);
        }
        assert!(seen.is_new(&("/b".to_owned(), "1".to_owned()), Some(1)), "another service's");
        for number in 2..REMEMBERED + 2 {
            seen.note(of(number), Some(1));
        }
        assert!(seen.is_new(&of(1), Some(1)), "it was long ago");
        assert!(!seen.is_new(&of(2), Some(1)));
        assert_eq!(seen.revisions.len(), REMEMBERED);
    }
}
