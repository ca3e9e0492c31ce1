//! What is declared at the broker, by whoever comes first.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::message::CANCEL;

/// The topic exchange that events are told on.
pub const EVENTS_EXCHANGE: &str = "respond-async.events";

/// How many messages a queue of dead ones keeps; then the oldest go.
const MAX_DEAD: i32 = 100_000;
/// How many replies wait for a replica that records them; then the oldest go, and what they answer is done again.
const MAX_REPLIES: i32 = 1_000_000;

/// How long the name of a queue may be, in bytes.
pub(super) const MAX_QUEUE_NAME_BYTES: usize = 255;
/// How long a name may be from which those of queues are made.
const MAX_NAME_BYTES: usize = 200;

/// # Panics
/// If a name is too long for a queue's.
pub(super) fn check_name(name: &str) {
    let length = name.len();
    assert!(length <= MAX_NAME_BYTES, "a name of {length} bytes is longer than {MAX_NAME_BYTES}");
}

/// The queue of replies that the replicas of a gateway share.
pub(super) fn shared_replies(gateway: &str) -> String {
    format!("{gateway}.replies")
}

/// A durable queue of the replicated sort.
fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments
}

/// The arguments of the queue of replies that replicas share: without a replica that records, it must not grow for
/// ever.
pub(super) fn replies() -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(MAX_REPLIES));
    arguments
}

pub(super) fn insert_millis(arguments: &mut FieldTable, name: &str, time: Duration) {
    let millis = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    arguments.insert(name.into(), AMQPValue::LongInt(millis));
}

fn insert_int(arguments: &mut FieldTable, name: &str, value: u32) {
    let value = i32::try_from(value).unwrap_or(i32::MAX);
    arguments.insert(name.into(), AMQPValue::LongInt(value));
}

pub(super) fn dead_letter_to(arguments: &mut FieldTable, queue: &str) {
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(queue.into()));
}

/// The queue of a kind of job. What is too much for it is refused, so that whoever sends it knows.
pub(super) async fn declare_work(
    channel: &Channel,
    kind: &str,
    delivery_limit: u32,
    max_length: u32,
    longest_job: Duration,
) -> lapin::Result<()> {
    let mut more = FieldTable::default();
    more.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    // Brokers before 3.12 do not know it, and pass over it.
    insert_millis(&mut more, "x-consumer-timeout", longest_job);
    declare_with_dead(channel, kind, delivery_limit, max_length, more).await
}

/// The queue of a subscriber. Of what is too much for it the oldest goes: nobody who tells shall wait.
pub(super) async fn declare_subscription(
    channel: &Channel,
    queue: &str,
    delivery_limit: u32,
    max_length: u32,
) -> lapin::Result<()> {
    declare_with_dead(channel, queue, delivery_limit, max_length, FieldTable::default()).await
}

/// A queue, and the one that its dead messages go to.
async fn declare_with_dead(
    channel: &Channel,
    queue: &str,
    delivery_limit: u32,
    max_length: u32,
    more: FieldTable,
) -> lapin::Result<()> {
    let dead = format!("{queue}.dead");
    let mut arguments = quorum();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(MAX_DEAD));
    let options = QueueDeclareOptions::durable();
    channel.queue_declare(dead.as_str().into(), options, arguments).await?;
    let mut arguments = quorum();
    dead_letter_to(&mut arguments, &dead);
    insert_int(&mut arguments, "x-delivery-limit", delivery_limit);
    insert_int(&mut arguments, "x-max-length", max_length);
    for (name, value) in more.inner() {
        arguments.insert(name.clone(), value.clone());
    }
    channel.queue_declare(queue.into(), options, arguments).await?;
    Ok(())
}

/// Whether messages wait in a queue that is there.
///
/// # Errors
/// If there is no such queue. The channel is gone then.
pub(super) async fn has_waiting(channel: &Channel, queue: &str) -> lapin::Result<bool> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    Ok(declared.message_count() > 0)
}

/// The exchange on which cancellations are told.
pub(super) async fn declare_cancel(channel: &Channel) -> lapin::Result<()> {
    declare_exchange(channel, CANCEL, ExchangeKind::Fanout).await
}

/// The exchange on which events are told.
pub(super) async fn declare_events(channel: &Channel) -> lapin::Result<()> {
    declare_exchange(channel, EVENTS_EXCHANGE, ExchangeKind::Topic).await
}

async fn declare_exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await
}
