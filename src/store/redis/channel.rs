//! The channel of word of changes: one connection that publishes, one that is subscribed.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSubStream};
use tokio::time::timeout;

use super::lane::Line;
use crate::store::server;

/// The channel of all processes that share the prefix.
pub(super) struct Channel(pub(super) Arc<Line>);

#[async_trait]
impl server::Channel for Channel {
    type Connection = Connection;

    async fn connect(&self) -> Option<Connection> {
        let settings = &self.0.settings;
        let name = format!("{}word", self.0.prefix);
        let speaker = settings.open().await.ok()?;
        let listen = async {
            let (mut sink, listener) = settings.client.get_async_pubsub().await.ok()?.split();
            sink.subscribe(&name).await.ok()?;
            Some(listener)
        };
        let listener = timeout(settings.connect_timeout, listen).await.ok()??;
        Some(Connection { name, speaker, listener })
    }
}

pub(super) struct Connection {
    name: String,
    speaker: MultiplexedConnection,
    listener: PubSubStream,
}

#[async_trait]
impl server::Connection for Connection {
    async fn hear(&mut self) -> Option<String> {
        let message = self.listener.next().await?;
        // What is no text nobody understands.
        Some(message.get_payload().unwrap_or_default())
    }

    async fn say(&mut self, message: &str) -> Option<()> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.name).arg(message);
        publish.query_async(&mut self.speaker).await.ok()
    }
}
