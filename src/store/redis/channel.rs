//! The channel of word of changes: one connection that publishes, one that is subscribed.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::lane::Line;
use crate::store::server::{self, Ear, Heard, ear};

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
        let mut messages = timeout(settings.connect_timeout, listen).await.ok()??;
        // The driver would keep without a bound what is not heard at once.
        let (voice, ear) = ear();
        let listener = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                // What is no text nobody understands.
                voice.say(message.get_payload().unwrap_or_default());
            }
        });
        Some(Connection { name, speaker, ear, listener })
    }
}

pub(super) struct Connection {
    name: String,
    speaker: MultiplexedConnection,
    ear: Ear,
    /// Reads what is published.
    listener: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

#[async_trait]
impl server::Connection for Connection {
    async fn hear(&mut self) -> Option<Heard> {
        self.ear.hear().await
    }

    async fn say(&mut self, message: &str) -> Option<()> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.name).arg(message);
        publish.query_async(&mut self.speaker).await.ok()
    }
}
