//! The channel of word of changes: `NOTIFY` and `LISTEN` on a connection of their own.

use std::future::poll_fn;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client};

use super::lane::Line;
use crate::store::server;

/// How many notifications wait to be heard before the connection is read no further.
const MAX_UNHEARD: usize = 1_024;

/// The channel of all processes that share the tables.
pub(super) struct Channel(pub(super) Arc<Line>);

impl Channel {
    fn name(&self) -> String {
        // A name may have 63 bytes.
        let schema: String = self.0.settings.schema.chars().take(40).collect();
        format!("ra_{schema}")
    }
}

#[async_trait]
impl server::Channel for Channel {
    type Connection = Connection;

    async fn connect(&self) -> Option<Connection> {
        let settings = &self.0.settings;
        let connected = timeout(settings.connect_timeout, settings.connect()).await;
        let (client, mut connection) = connected.ok()?.ok()?;
        let (heard, hearing) = mpsc::channel(MAX_UNHEARD);
        let listener = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notification) = message {
                    if heard.send(notification.payload().to_owned()).await.is_err() {
                        return;
                    }
                }
            }
        });
        let connection = Connection { name: self.name(), client, hearing, listener };
        let listen = format!("LISTEN {}", super::sql::quoted(&connection.name));
        let listening = connection.client.batch_execute(&listen);
        timeout(settings.call_timeout, listening).await.ok()?.ok()?;
        Some(connection)
    }
}

pub(super) struct Connection {
    name: String,
    client: Client,
    hearing: mpsc::Receiver<String>,
    /// Reads the connection.
    listener: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

#[async_trait]
impl server::Connection for Connection {
    async fn hear(&mut self) -> Option<String> {
        self.hearing.recv().await
    }

    async fn say(&mut self, message: &str) -> Option<()> {
        let params: [&(dyn ToSql + Sync); 2] = [&self.name, &message];
        self.client.execute("SELECT pg_notify($1, $2)", &params).await.ok()?;
        Some(())
    }
}
