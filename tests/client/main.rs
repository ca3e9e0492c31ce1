//! The client, against servers of every sort.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod cached;
mod canceled;
mod real;
mod scripted;
mod sent;
mod streams;
