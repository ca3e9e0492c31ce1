//! An asynchronous mode for any HTTP service.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod header;
pub mod prefer;
pub mod problem;
pub mod time;

pub use problem::Problem;
pub use time::Timestamp;
