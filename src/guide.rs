//! The pages of `docs`, one after the other.
//!
//! | page | what it is about |
//! | --- | --- |
//! | [`api`] | the five commonest needs, and every public name |
//! | [`adopting`] | an axum and an actix service adopt it, step by step |
//! | [`other_frameworks`] | shown with plain hyper |
//! | [`stores`] | which store, and its settings |
//! | [`operating`] | health, metrics, spans, settings and bounds, workers, sizing |
//! | [`security`] | what a stranger can send, read and make grow |
//! | [`amqp`], [`patterns`] | messages, and five ways to answer from them |
//! | [`webhooks`] | calls of a client's own URL |
//! | [`comparison`] | engines, queues and protocols beside it |
//! | [`architecture`] | why it is built as it is |
//! | [`benchmarks`] | what it costs |
//! | [`testing`], [`contributing`] | how to change it |
//!
//! Links between the pages lead to their files in the repository.

#[cfg(any(not(doctest), feature = "full"))]
#[doc = include_str!("../docs/api.md")]
pub mod api {}
#[doc = include_str!("../docs/adopting.md")]
pub mod adopting {}
#[cfg(any(not(doctest), all(feature = "http-body", feature = "tokio")))]
#[doc = include_str!("../docs/other-frameworks.md")]
pub mod other_frameworks {}
#[doc = include_str!("../docs/stores.md")]
pub mod stores {}
#[cfg(any(not(doctest), feature = "tokio"))]
#[doc = include_str!("../docs/operating.md")]
pub mod operating {}
#[doc = include_str!("../docs/security.md")]
pub mod security {}
#[doc = include_str!("../docs/amqp.md")]
pub mod amqp {}
#[doc = include_str!("../docs/patterns.md")]
pub mod patterns {}
#[cfg(any(not(doctest), feature = "webhook"))]
#[doc = include_str!("../docs/webhooks.md")]
pub mod webhooks {}
#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}
#[cfg(any(not(doctest), feature = "axum"))]
#[doc = include_str!("../docs/architecture.md")]
pub mod architecture {}
#[doc = include_str!("../docs/benchmarks.md")]
pub mod benchmarks {}
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}
#[cfg(any(not(doctest), feature = "tokio"))]
#[doc = include_str!("../docs/contributing.md")]
pub mod contributing {}
