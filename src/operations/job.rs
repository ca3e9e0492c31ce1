use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::admission::Admission;
use super::context::Context;
use super::policy::JobPolicy;
use super::pulse::Pulse;
use crate::operation::{IntoOutcome, Kind, Outcome};
use crate::problem::{Problem, types};

/// The work of a handler, its answer being whatever a synchronous caller would get.
pub(crate) type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Runs a handler so that a panic becomes a problem that tells nothing of its cause.
pub(crate) async fn without_panic<T>(
    mut work: Pin<&mut (impl Future<Output = T> + ?Sized)>,
) -> Result<T, Problem> {
    poll_fn(|cx| {
        // After a panic the future is not polled again, so nobody sees what it left half-done.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(_) => Poll::Ready(Err(Problem::new(types::INTERNAL))),
        }
    })
    .await
}

/// What a piece of durable work needs to know, and what it is called: it is stored with its
/// operation, and any process that registered a handler for its kind can do it, this one after a
/// crash among them.
///
/// A type that serde can write and read is stored as JSON. One of its own form implements
/// [`JobInput`] in place of serde's traits.
///
/// ```
/// use respond_async::operations::Job;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Convert {
///     from: String,
///     #[serde(default)] // added later: what was stored before is read all the same
///     quality: u8,
/// }
///
/// impl Job for Convert {
///     const KIND: &'static str = "images.convert";
/// }
/// ```
pub trait Job: JobInput {
    /// The [kind](Kind) of its operations. It is stored: change it, and what was accepted under the
    /// old one waits for a process that still knows it.
    const KIND: &'static str;
}

/// How a job's input is stored.
///
/// Implemented for all that serde can write and read. What is stored may be read by another
/// version of the service, so keep it readable: new members have a default.
///
/// ```
/// use bytes::Bytes;
/// use respond_async::operations::{Job, JobInput, JobInputError};
///
/// /// A file, stored as it came.
/// struct Upload(Bytes);
///
/// impl JobInput for Upload {
///     fn encode(&self) -> Result<Bytes, JobInputError> {
///         Ok(self.0.clone())
///     }
///
///     fn decode(input: Bytes) -> Result<Self, JobInputError> {
///         Ok(Self(input))
///     }
/// }
///
/// impl Job for Upload {
///     const KIND: &'static str = "files.check";
/// }
/// ```
pub trait JobInput: Sized + Send + 'static {
    /// The media type of the bytes, for whoever else reads them: `application/json` of what serde writes.
    const MEDIA_TYPE: &'static str = "application/octet-stream";

    /// The input as bytes.
    ///
    /// # Errors
    /// If it has no such form.
    fn encode(&self) -> Result<Bytes, JobInputError>;

    /// The input of such bytes.
    ///
    /// # Errors
    /// If they are not the bytes of such an input. The operation fails then.
    fn decode(input: Bytes) -> Result<Self, JobInputError>;
}

/// An input that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("the job's input is not of its form")]
pub struct JobInputError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl JobInputError {
    /// It could not be, for that reason. No client sees the reason.
    pub fn new(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(reason.into())
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> JobInput for T {
    const MEDIA_TYPE: &'static str = "application/json";

    fn encode(&self) -> Result<Bytes, JobInputError> {
        serde_json::to_vec(self).map(Bytes::from).map_err(JobInputError::new)
    }

    fn decode(input: Bytes) -> Result<Self, JobInputError> {
        serde_json::from_slice(&input).map_err(JobInputError::new)
    }
}

/// A kind of job that this process knows.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) kind: Kind,
    pub(super) policy: JobPolicy,
    pub(super) admission: Arc<Admission>,
    /// Wakes whoever claims jobs of this kind.
    pub(super) wake: Notify,
    /// How whoever claims them is doing.
    pub(super) pulse: Pulse,
    handler: Arc<dyn Handler>,
}

/// A handler whose type of job is known to itself alone.
trait Handler: fmt::Debug + Send + Sync {
    fn run_stored(&self, input: Bytes, context: Context) -> Result<Work, JobInputError>;
    fn as_any(&self) -> &dyn Any;
}

struct Typed<J>(Box<dyn Fn(J, Context) -> Work + Send + Sync>);

impl<J> fmt::Debug for Typed<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

impl<J: Job> Handler for Typed<J> {
    fn run_stored(&self, input: Bytes, context: Context) -> Result<Work, JobInputError> {
        Ok((self.0)(J::decode(input)?, context))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Registered {
    /// Runs a job that was read from the store.
    pub(super) fn run_stored(&self, input: Bytes, context: Context) -> Result<Work, JobInputError> {
        self.handler.run_stored(input, context)
    }

    /// Runs a job that came with a request; none if the kind is another type's.
    pub(super) fn run<J: Job>(&self, job: J, context: Context) -> Option<Work> {
        let typed: &Typed<J> = self.handler.as_any().downcast_ref()?;
        Some((typed.0)(job, context))
    }
}

/// A registration that waits for the builder's other settings.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    kind: &'static str,
    policy: JobPolicy,
    handler: Arc<dyn Handler>,
}

impl Registration {
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(super) fn policy(&self) -> &JobPolicy {
        &self.policy
    }

    pub(super) fn new<J, H, F>(policy: JobPolicy, handler: H) -> Self
    where
        J: Job,
        H: Fn(J, Context) -> F + Send + Sync + 'static,
        F: Future<Output: IntoOutcome> + Send + 'static,
    {
        let handler = Typed::<J>(Box::new(move |job, context| {
            let work = handler(job, context);
            Box::pin(async move { work.await.into_outcome() })
        }));
        Self { kind: J::KIND, policy, handler: Arc::new(handler) }
    }
}

/// The kinds of job that this process knows.
#[derive(Debug, Default)]
pub(super) struct Jobs(HashMap<Kind, Arc<Registered>>);

impl Jobs {
    /// # Panics
    /// If a kind is no valid name, or is registered twice.
    pub(super) fn new(registrations: &[Registration], concurrency: usize, queue: usize) -> Self {
        let mut jobs = HashMap::new();
        for Registration { kind: name, policy, handler } in registrations {
            let kind = match Kind::new(name) {
                Ok(kind) => kind,
                Err(error) => panic!("{name:?} cannot be a kind of job: {error}"),
            };
            let registered = Registered {
                kind: kind.clone(),
                policy: *policy,
                admission: Admission::new(policy.concurrency.unwrap_or(concurrency), queue),
                wake: Notify::new(),
                pulse: Pulse::default(),
                handler: Arc::clone(handler),
            };
            let before = jobs.insert(kind, Arc::new(registered));
            assert!(before.is_none(), "the kind of job {name:?} is registered twice");
        }
        Self(jobs)
    }

    pub(super) fn get(&self, kind: &str) -> Option<&Arc<Registered>> {
        self.0.get(kind)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.0.values()
    }
}
