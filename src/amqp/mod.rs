//! Jobs that another service does, over RabbitMQ.
//!
//! The gateway accepts requests, stores operations and answers; the work is done by whoever consumes the
//! queue of its kind, in any language. To a client, and to the handlers' signatures, it is all the same.
//!
//! | | gateway: [`Requests`] | service behind: [`Worker`] |
//! | --- | --- | --- |
//! | has | a store, HTTP | neither |
//! | a job | is published, persistent and confirmed, for the queue of its kind | is run by its handler |
//! | progress | is what the monitor shows | is a message |
//! | the answer | is recorded, or given to the client that waits | is a message, confirmed before the job is acknowledged |
//! | a cancellation | is a message to all workers | is told to the handler |
//!
//! # What holds
//! - What was accepted is stored. The broker's messages may be lost, repeated or late: an operation whose
//!   gateway dies is published again by another, one of which [nothing is heard](RequestsBuilder::silence) is
//!   tried again, and its outcome is recorded once.
//! - A reply that nobody waits for any more is [recorded](Requests::record) all the same, by whichever replica
//!   gets it.
//! - Without a broker, requests that want their answer at once get 503; operations wait until it is back.
//! - A message that cannot be read, or that ends its worker again and again, ends as a failed operation and
//!   in a queue of dead messages.
//!
//! The messages are described in [the guide](crate::guide::amqp).
//!
//! ```no_run
//! use respond_async::amqp::{Amqp, Requests, Worker};
//! use respond_async::operations::Job;
//! use respond_async::respond::Created;
//! use respond_async::store::MemoryStore;
//! use respond_async::{Context, Operations, Problem};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct CreateUser {
//!     name: String,
//! }
//!
//! impl Job for CreateUser {
//!     const KIND: &'static str = "users.create";
//! }
//!
//! async fn create(job: CreateUser, context: Context) -> Result<Created, Problem> {
//!     context.progress(0.5, "writing");
//!     Ok(Created::at(format!("/users/{}", job.name)))
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let amqp = Amqp::connect("amqp://127.0.0.1:5672")?;
//!
//! // In the gateway:
//! let requests = Requests::builder(&amqp, "gateway").start();
//! let operations =
//!     Operations::builder(MemoryStore::new()).job(requests.handler::<CreateUser>()).start();
//! let recorder = requests.record(&operations);
//!
//! // In the service of users:
//! let worker = Worker::builder(&amqp).job(create).start();
//! # Ok(())
//! # }
//! ```

mod cancellations;
mod connect;
mod connection;
mod consumer;
mod events;
mod message;
mod publisher;
mod replies;
mod requests;
mod stream;
mod topology;
mod worker;

pub use connection::{Amqp, InvalidAmqpUrl};
pub use events::Subscriber;
/// The driver, whose features turn TLS on.
pub use lapin;
pub use replies::Recorder;
pub use requests::{Requests, RequestsBuilder};
pub use stream::{AppendError, EventStream, Feed};
pub use topology::EVENTS_EXCHANGE;
pub use worker::{Worker, WorkerBuilder};
