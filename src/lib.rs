//! An asynchronous mode for any HTTP service.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod header;
#[cfg(feature = "tokio")]
pub mod monitor;
pub mod operation;
#[cfg(feature = "tokio")]
pub mod operations;
pub mod prefer;
pub mod problem;
pub mod respond;
pub mod store;
pub mod time;

pub use operation::{Operation, OperationId, Outcome, Owner, Progress, Status};
#[cfg(feature = "tokio")]
pub use operations::{Context, Operations};
pub use problem::Problem;
pub use time::Timestamp;
