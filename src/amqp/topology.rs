//! What is declared at the broker, by whoever comes first.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::message::CANCEL;

/// How many messages a queue of dead ones keeps; then the oldest go.
const MAX_DEAD: i32 = 100_000;

/// A durable queue of the replicated sort.
pub(super) fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments
}

pub(super) fn insert_millis(arguments: &mut FieldTable, name: &str, time: Duration) {
    let millis = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    arguments.insert(name.into(), AMQPValue::LongInt(millis));
}

pub(super) fn dead_letter_to(arguments: &mut FieldTable, queue: &str) {
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(queue.into()));
}

/// The queue of a kind of job, and the one that its dead messages go to.
pub(super) async fn declare_work(
    channel: &Channel,
    kind: &str,
    delivery_limit: u32,
    max_length: u32,
) -> lapin::Result<()> {
    let dead = format!("{kind}.dead");
    let mut arguments = quorum();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(MAX_DEAD));
    let options = QueueDeclareOptions::durable();
    channel.queue_declare(dead.as_str().into(), options, arguments).await?;
    let mut arguments = quorum();
    dead_letter_to(&mut arguments, &dead);
    let int = |value: u32| AMQPValue::LongInt(i32::try_from(value).unwrap_or(i32::MAX));
    arguments.insert("x-delivery-limit".into(), int(delivery_limit));
    arguments.insert("x-max-length".into(), int(max_length));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    channel.queue_declare(kind.into(), options, arguments).await?;
    Ok(())
}

/// The exchange on which cancellations are told.
pub(super) async fn declare_cancel(channel: &Channel) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(CANCEL.into(), ExchangeKind::Fanout, options, FieldTable::default())
        .await
}
