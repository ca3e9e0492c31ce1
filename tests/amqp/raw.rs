//! A worker that says what a test wants, by the driver alone.

use lapin::message::Delivery;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use respond_async::amqp::lapin;

pub(crate) struct Raw {
    _connection: Connection,
    channel: Channel,
}

pub(crate) struct Taken(Delivery);

impl Taken {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.data.clone()).unwrap()
    }

    pub(crate) fn properties(&self) -> &BasicProperties {
        &self.0.properties
    }
}

impl Raw {
    pub(crate) async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        Self { _connection: connection, channel }
    }

    /// Removes a queue, if there is one.
    pub(crate) async fn remove(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    /// A queue of the sort that workers declare without saying more.
    pub(crate) async fn declare(&self, queue: &str) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
    }

    /// A queue that has what is published on an exchange from now on.
    pub(crate) async fn listen(&self, queue: &str, exchange: &str) {
        self.declare(queue).await;
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        let bound =
            self.channel.queue_bind(queue.into(), exchange.into(), "".into(), options, arguments);
        bound.await.unwrap();
    }

    /// Takes a message for good; none if there is none, or no queue.
    pub(crate) async fn take(&self, queue: &str) -> Option<Taken> {
        let options = BasicGetOptions { no_ack: true };
        let message = self.channel.basic_get(queue.into(), options).await.unwrap()?;
        Some(Taken(message.delivery))
    }

    pub(crate) async fn publish(&self, queue: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions::default();
        let publishing =
            self.channel.basic_publish("".into(), queue.into(), options, body, properties);
        publishing.await.unwrap().await.unwrap();
    }

    /// Replies to a message, wherever that wants it.
    pub(crate) async fn reply(&self, request: &Taken, to: Option<&str>, status: i32, body: &str) {
        let mut headers = FieldTable::default();
        headers.insert("status".into(), AMQPValue::LongInt(status));
        let asked = request.properties();
        let properties = BasicProperties::default()
            .with_correlation_id(asked.correlation_id().clone().unwrap())
            .with_headers(headers);
        let to = to.unwrap_or_else(|| asked.reply_to().as_ref().unwrap().as_str()).to_owned();
        self.publish(&to, properties, body.as_bytes()).await;
    }
}
