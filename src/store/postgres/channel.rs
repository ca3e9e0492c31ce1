//! The channel of word of changes: `NOTIFY` and `LISTEN` on a connection of their own.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client};

use super::lane::Line;
use super::open::Driver;
use crate::store::server::{self, Ear, Heard, ear};
use crate::text::floor_char_boundary;

/// How many bytes the name of anything may have.
const MAX_NAME: usize = 63;

/// The channel of all processes that share the tables.
pub(super) struct Channel(pub(super) Arc<Line>);

impl Channel {
    fn name(&self) -> String {
        let mut name = format!("ra_{}", self.0.settings.schema);
        // Who has the same beginning hears more than is for it, and nothing less.
        name.truncate(floor_char_boundary(&name, MAX_NAME));
        name
    }
}

#[async_trait]
impl server::Channel for Channel {
    type Connection = Connection;

    async fn connect(&self) -> Option<Connection> {
        let settings = &self.0.settings;
        let (voice, ear) = ear();
        let hear = move |message| {
            if let AsyncMessage::Notification(notification) = message {
                voice.say(notification.payload().to_owned());
            }
        };
        let (client, driver) = settings.open(hear).await.ok()?;
        let connection = Connection { name: self.name(), client, ear, _driver: driver };
        let listen = format!("LISTEN {}", super::sql::quoted(&connection.name));
        let listening = connection.client.batch_execute(&listen);
        timeout(settings.call_timeout, listening).await.ok()?.ok()?;
        Some(connection)
    }
}

pub(super) struct Connection {
    name: String,
    client: Client,
    ear: Ear,
    _driver: Driver,
}

#[async_trait]
impl server::Connection for Connection {
    async fn hear(&mut self) -> Option<Heard> {
        self.ear.hear().await
    }

    async fn say(&mut self, message: &str) -> Option<()> {
        let params: [&(dyn ToSql + Sync); 2] = [&self.name, &message];
        self.client.execute("SELECT pg_notify($1, $2)", &params).await.ok()?;
        Some(())
    }
}
