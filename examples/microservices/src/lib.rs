//! A REST gateway in front of a service of users that talks over RabbitMQ, and five ways to answer through it:
//!
//! | | request | how it is answered |
//! | --- | --- | --- |
//! | a | `POST`, `PUT`, `GET /users…` | a message to the service, and its reply |
//! | b | the same with `Prefer: respond-async` | 202; the reply is the end of the operation |
//! | c | `GET /model/users…` | from a local copy that the service's events feed |
//! | d | `GET /cached/users/1` | from a cache that obeys what the service says in `Cache-Control` |
//! | e | `GET /snapshot/users…` | from a snapshot and the events since, fetched when asked |
//!
//! docs/patterns.md compares them.

pub mod gateway;
pub mod messages;
mod stop;
pub mod users;

use std::env;

/// Where RabbitMQ is, unless `AMQP_URL` says otherwise.
pub const AMQP_URL: &str = "amqp://127.0.0.1:5672";

/// What the environment says, or else.
pub fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Waits for SIGTERM or Ctrl-C.
pub async fn told_to_stop() {
    stop::told_to_stop().await;
}
