//! What the gateway and the service of users say to each other. Two teams would share this as a crate, or write it
//! down and each have its own.

use std::collections::BTreeMap;

use http::StatusCode;
use respond_async::Problem;
use respond_async::operations::Job;
use respond_async::read_model::Model;
use serde::{Deserialize, Serialize};

/// The stream on which the service tells what has happened.
pub const EVENTS: &str = "users.events.stream";
/// How much of that the broker keeps.
pub const EVENTS_BYTES: u64 = 256 << 20;

/// A user, as everybody sees one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Its number.
    pub id: u64,
    /// Its name; no other user has it.
    pub name: String,
    /// Its address; no other user has it.
    pub email: String,
    /// Counts its changes, from 1.
    pub version: u64,
}

/// Has a user created: 201, or 409 if the name or the address is taken.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// Its name.
    pub name: String,
    /// Its address.
    pub email: String,
}

impl Job for CreateUser {
    const KIND: &'static str = "users.create";
}

impl CreateUser {
    /// The longest name and address, in bytes.
    pub const MAX_BYTES: usize = 200;

    /// Refuses what the service would refuse, before anything is published.
    ///
    /// # Errors
    /// A 422 problem.
    pub fn check(&self) -> Result<(), Problem> {
        let refuse = |field: &str, detail: &'static str| {
            let problem = Problem::from_status(StatusCode::UNPROCESSABLE_ENTITY);
            Err(problem.with_detail(detail).with_extension("field", field))
        };
        if self.name.trim().is_empty() || self.name.len() > Self::MAX_BYTES {
            return refuse("name", "A name has 1 to 200 bytes.");
        }
        let is_address = self
            .email
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && host.contains('.'));
        if !is_address || self.email.len() > Self::MAX_BYTES {
            return refuse("email", "That is no e-mail address.");
        }
        Ok(())
    }
}

/// Has a user changed: 200, 404 or 409.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateUser {
    /// Its number.
    pub id: u64,
    /// What it becomes.
    pub to: CreateUser,
}

impl Job for UpdateUser {
    const KIND: &'static str = "users.update";
}

/// Asks for a user: 200, 304 or 404.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetUser {
    /// Its number.
    pub id: u64,
    /// The entity tags that the asker has, as in `If-None-Match`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_none_match: Option<String>,
}

impl Job for GetUser {
    const KIND: &'static str = "users.get";
}

/// Asks for users, in the order of their numbers: 200.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListUsers {
    /// Those after this one.
    pub after: u64,
    /// How many at the most.
    pub limit: u32,
}

impl Job for ListUsers {
    const KIND: &'static str = "users.list";
}

/// Asks for what has happened after a position: 200 with some of it, in its order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventsAfter {
    /// The position.
    pub position: u64,
}

impl Job for EventsAfter {
    const KIND: &'static str = "users.events";
}

/// Asks for all users at once, as a snapshot: for whom the stream has not enough. The answer is one message, of 16 MiB
/// at the most (`Amqp::with_max_message_bytes`), which some 30,000 users with long names fill: one with more gives them
/// page by page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetSnapshot {}

impl Job for GetSnapshot {
    const KIND: &'static str = "users.snapshot";
}

/// What happens to users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum UserEvent {
    /// There is a new one.
    UserCreated(User),
    /// One has changed.
    UserUpdated(User),
}

/// All users, as a read model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Users(pub BTreeMap<u64, User>);

impl Model for Users {
    type Event = UserEvent;

    fn apply(&mut self, event: UserEvent) {
        let (UserEvent::UserCreated(user) | UserEvent::UserUpdated(user)) = event;
        self.0.insert(user.id, user);
    }
}
