//! The gateway's side: jobs on their way to whoever does them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::connection::{Amqp, Pauses};
use super::message::{CANCEL, PERSISTENT, TRANSIENT, insert_deadline, insert_trace, short};
use super::publisher::{Message, PublishError, Publisher};
use super::replies::{Queue, Recorder, Replies, take_replies};
use super::topology;
use crate::operation::{IntoOutcome, Outcome};
use crate::operations::{Context, Job, Operations};
use crate::problem::{Problem, types};
use crate::time::{Clock, SystemClock};

/// After how long to try again what the broker could not do.
const AGAIN: Duration = Duration::from_secs(1);

/// The gateway's side: publishes jobs, and waits for their replies. A clone is the same.
///
/// It makes the [handler](Self::handler) of each kind of job whose work another service does. What that
/// answers is the answer; nothing else of the crate knows that it came from elsewhere.
#[derive(Debug, Clone)]
pub struct Requests(Arc<Inner>);

/// Sets how a gateway sends its requests. Each bound has a name and a default.
#[derive(Debug, Clone)]
#[must_use]
pub struct RequestsBuilder {
    amqp: Amqp,
    settings: Settings,
}

#[derive(Debug, Clone)]
struct Settings {
    name: String,
    timeout: Duration,
    expiry: Duration,
    in_flight: usize,
    reply_wait: Duration,
    silence: Duration,
}

struct Inner {
    settings: Settings,
    /// Where this process gets its replies.
    reply_queue: String,
    amqp: Amqp,
    publisher: Publisher,
    replies: Arc<Replies>,
    in_flight: Arc<Semaphore>,
    _tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl RequestsBuilder {
    /// The default of [`timeout`](Self::timeout): below the 30 s after which many proxies hang up.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(25);
    /// The default of [`expiry`](Self::expiry): a day.
    pub const DEFAULT_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);
    /// The default of [`in_flight_limit`](Self::in_flight_limit).
    pub const DEFAULT_IN_FLIGHT_LIMIT: usize = 10_000;
    /// The default of [`reply_wait`](Self::reply_wait).
    pub const DEFAULT_REPLY_WAIT: Duration = Duration::from_secs(30);
    /// The default of [`silence`](Self::silence), an hour: longer than a broker leaves a job with a
    /// worker that does not acknowledge it.
    pub const DEFAULT_SILENCE: Duration = Duration::from_secs(60 * 60);

    /// How long a request that is answered at once waits for its reply; after it, 504. The message expires at
    /// the same time. An operation waits until its deadline, as long as there is [word](Self::silence) of its
    /// job. The default is [25 s](Self::DEFAULT_TIMEOUT).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// How long the broker keeps the message of an operation without a deadline of its own. The default is
    /// [a day](Self::DEFAULT_EXPIRY).
    pub fn expiry(mut self, expiry: Duration) -> Self {
        self.settings.expiry = expiry;
        self
    }

    /// How many requests may wait for their replies; one more is answered 503, and an operation waits. What the broker
    /// was sent and has not confirmed counts, whether anybody waits for it still or not. The default is
    /// [10,000](Self::DEFAULT_IN_FLIGHT_LIMIT).
    pub fn in_flight_limit(mut self, requests: usize) -> Self {
        self.settings.in_flight = requests.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// For how long an operation hears nothing of its job, neither progress nor reply, before that counts as
    /// lost, if no job waits in the queue of its kind: a broker can lose what it confirmed. It is then a 504,
    /// which the job's policy tries again. A [`Worker`](super::Worker) tells progress
    /// [often enough](super::Worker::SIGN_OF_LIFE) by itself if this is longer; one of another make that has a job for
    /// longer than this without a word, be it that it has not begun, has it done twice. The default is
    /// [an hour](Self::DEFAULT_SILENCE).
    pub fn silence(mut self, silence: Duration) -> Self {
        self.settings.silence = silence;
        self
    }

    /// How long a reply waits at the broker for the process that asked, before it goes to the queue from which
    /// all replicas [record](Requests::record). The default is [30 s](Self::DEFAULT_REPLY_WAIT).
    pub fn reply_wait(mut self, wait: Duration) -> Self {
        self.settings.reply_wait = wait;
        self
    }

    /// Begins to take replies.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(self) -> Requests {
        let Self { amqp, settings } = self;
        // A name that no other process has, and that another one of this process has not.
        let instance =
            random_id().map_or_else(|_| std::process::id().to_string(), |id| id.to_string());
        let reply_queue = format!("{}.replies.{instance}", settings.name);
        let replies = Arc::new(Replies::default());
        let mut tasks = JoinSet::new();
        let queue = Queue::OfReplica {
            service: settings.name.clone(),
            name: reply_queue.clone(),
            wait: settings.reply_wait,
        };
        tasks.spawn(take_replies(amqp.clone(), Arc::downgrade(&replies), queue));
        Requests(Arc::new(Inner {
            reply_queue,
            publisher: Publisher::new(&amqp),
            amqp,
            replies,
            in_flight: Arc::new(Semaphore::new(settings.in_flight)),
            _tasks: Mutex::new(tasks),
            settings,
        }))
    }
}

impl Requests {
    /// Sets up requests of the service of that name. All its replicas have the same; its reply queues
    /// begin with it.
    ///
    /// # Panics
    /// If the name is longer than 200 bytes: AMQP bounds names.
    pub fn builder(amqp: &Amqp, name: impl Into<String>) -> RequestsBuilder {
        let name = name.into();
        topology::check_name(&name);
        let settings = Settings {
            name,
            timeout: RequestsBuilder::DEFAULT_TIMEOUT,
            expiry: RequestsBuilder::DEFAULT_EXPIRY,
            in_flight: RequestsBuilder::DEFAULT_IN_FLIGHT_LIMIT,
            reply_wait: RequestsBuilder::DEFAULT_REPLY_WAIT,
            silence: RequestsBuilder::DEFAULT_SILENCE,
        };
        RequestsBuilder { amqp: amqp.clone(), settings }
    }

    /// A handler that has the job done by whoever consumes the queue of its [kind](Job::KIND).
    ///
    /// - In the synchronous answer: 503 without a broker or once its connection is lost, without a queue,
    ///   or if the queue is full; 504 if no reply comes in [time](RequestsBuilder::timeout). Both leave open
    ///   whether the work was done.
    /// - In an operation: it waits for the broker and for the reply until its deadline. A queue that is
    ///   not there, or full, is a 503, and a job that nothing is heard of for [long](RequestsBuilder::silence) a
    ///   504, both of which the job's policy tries again.
    pub fn handler<J: Job>(
        &self,
    ) -> impl Fn(J, Context) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync + 'static
    {
        let requests = self.clone();
        self.0.replies.answer_for(J::KIND);
        move |job: J, context| {
            let requests = requests.clone();
            Box::pin(async move {
                let answer = match job.encode() {
                    Ok(input) => requests.send::<J>(input, context).await,
                    Err(_) => Err(Problem::new(types::INTERNAL)),
                };
                answer.unwrap_or_else(Problem::into_outcome)
            })
        }
    }

    /// Sends a request, and gives its reply.
    async fn send<J: Job>(&self, input: Bytes, context: Context) -> Result<Outcome, Problem> {
        let inner = &*self.0;
        // The message holds it too: it may be kept for longer than anybody waits.
        let place = Arc::new(inner.place(&context).await?);
        let operation = context.operation_id();
        let id = match operation {
            Some(id) => id.as_uuid(),
            None => random_id()?,
        };
        let (waits, mut reply) = inner.replies.wait(id, context.clone());
        let message = inner.message::<J>(id, input, &context, Arc::clone(&place));
        if operation.is_none() {
            inner.publish(message).await.map_err(refused)?;
            return tokio::select! {
                biased;
                outcome = reply => outcome.map_err(|_| Problem::new(types::INTERNAL)),
                // Neither the request nor its reply outlives the broker, and the client waits.
                () = inner.replies.listens(false) => Err(refused(PublishError::Unavailable)),
                () = sleep(inner.settings.timeout) => Err(Problem::new(types::REPLY_OVERDUE)),
            };
        }
        tokio::select! {
            published = inner.publish_persistently(message) => published.map_err(refused)?,
            // A broker that has the message need not have confirmed it.
            outcome = &mut reply => return outcome.map_err(|_| Problem::new(types::INTERNAL)),
            () = context.canceled() => {
                // A broker that has not confirmed it may have it, or be about to.
                inner.tell_cancellation(id, &context).await;
                context.check()?;
            }
        }
        let mut is_told = false;
        loop {
            tokio::select! {
                biased;
                outcome = &mut reply => return outcome.map_err(|_| Problem::new(types::INTERNAL)),
                () = context.canceled(), if !is_told => {
                    is_told = true;
                    inner.tell_cancellation(id, &context).await;
                }
                () = waits.heard() => {}
                () = sleep(inner.settings.silence) => if !inner.may_wait(J::KIND).await {
                    return Err(Problem::new(types::REPLY_OVERDUE));
                }
            }
        }
    }

    /// Records the replies to operations that nobody waits for here: of a replica that is gone, or from
    /// before a restart. Only operations of the kinds that this has made a [handler](Self::handler) of are ended by
    /// a reply. Call it once the operations have started, and keep what it gives.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn record(&self, operations: &Operations) -> Recorder {
        self.0.replies.record(&self.0.amqp, &self.0.settings.name, operations)
    }
}

impl Inner {
    /// A place among those that wait for their replies. An operation, which was accepted, waits for one.
    async fn place(&self, context: &Context) -> Result<OwnedSemaphorePermit, Problem> {
        let in_flight = Arc::clone(&self.in_flight);
        if context.operation_id().is_none() {
            let overloaded = |_| Problem::new(types::OVERLOADED).with_retry_after(AGAIN);
            return in_flight.try_acquire_owned().map_err(overloaded);
        }
        tokio::select! {
            biased;
            place = in_flight.acquire_owned() => place.map_err(|_| Problem::new(types::INTERNAL)),
            () = context.canceled() => Err(Problem::new(types::CANCELED)),
        }
    }

    fn message<J: Job>(
        &self,
        id: Uuid,
        body: Bytes,
        context: &Context,
        place: Arc<OwnedSemaphorePermit>,
    ) -> Message {
        let (mode, left) = match context.operation_id() {
            Some(_) => (PERSISTENT, context.time_left().unwrap_or(self.settings.expiry)),
            None => (TRANSIENT, self.settings.timeout),
        };
        let mut headers = FieldTable::default();
        headers.insert("attempt".into(), AMQPValue::LongUInt(context.attempt()));
        insert_trace(&mut headers, context.trace());
        insert_deadline(&mut headers, SystemClock.now() + left);
        // RabbitMQ takes up to 32 bits of milliseconds.
        let expiration = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        let properties = BasicProperties::default()
            .with_message_id(id.to_string().into())
            .with_correlation_id(id.to_string().into())
            .with_reply_to(self.reply_queue.as_str().into())
            .with_content_type(short(J::MEDIA_TYPE))
            .with_type(short(J::KIND))
            .with_app_id(short(&self.settings.name))
            .with_delivery_mode(mode)
            .with_expiration(expiration.to_string().into())
            .with_headers(headers);
        Message {
            exchange: "",
            routing_key: J::KIND.to_owned(),
            properties,
            body,
            mandatory: true,
            place: Some(place),
        }
    }

    async fn publish(&self, message: Message) -> Result<(), PublishError> {
        let is_up = self.publisher.is_connected()
            && timeout(AGAIN, self.replies.listens(true)).await.is_ok();
        if !is_up {
            return Err(PublishError::Unavailable);
        }
        self.publisher.publish(message).await
    }

    /// Publishes a message until the broker has it, once replies are taken.
    async fn publish_persistently(&self, message: Message) -> Result<(), PublishError> {
        // Not all that wait at once, when the broker is back.
        let mut pauses = Pauses::default();
        while !self.replies.is_listening() {
            pauses.pause().await;
        }
        self.publisher.publish_persistently(message).await
    }

    /// A lease that is lost, or a process that ends, leaves the work to a successor, which publishes it under the
    /// same id. What does not hear of a cancellation goes on, and its handler here is given up after its grace.
    async fn tell_cancellation(&self, id: Uuid, context: &Context) {
        if context.is_cancel_requested() {
            let _ = self.publisher.publish(cancellation(id)).await;
        }
    }

    /// Whether a job that nothing is heard of may still wait in the queue of its kind. A broker that does not
    /// answer is no reason to send it another.
    async fn may_wait(&self, kind: &str) -> bool {
        let Some(channel) = self.amqp.channel().await else { return true };
        let waiting = topology::has_waiting(&channel, kind);
        match timeout(Amqp::CONFIRM_TIMEOUT, waiting).await {
            Ok(Ok(is_any)) => is_any,
            // A queue that is gone.
            Ok(Err(error)) => !error.is_amqp_soft_error(),
            Err(_) => true,
        }
    }
}

fn random_id() -> Result<Uuid, Problem> {
    let mut random = [0; 16];
    // Not of the version that operations have, so that none is taken for one.
    getrandom::fill(&mut random)
        .map(|()| uuid::Builder::from_random_bytes(random).into_uuid())
        .map_err(|_| Problem::new(types::INTERNAL))
}

/// What a client is told of a request that the broker does not have.
fn refused(error: PublishError) -> Problem {
    let kind = match error {
        PublishError::TooLarge => {
            let detail = "The request is larger than what can be passed on.";
            return Problem::from_status(StatusCode::PAYLOAD_TOO_LARGE).with_detail(detail);
        }
        PublishError::Unroutable => types::NO_WORKER,
        PublishError::Refused => types::OVERLOADED,
        PublishError::Unavailable => types::BROKER_UNAVAILABLE,
    };
    Problem::new(kind).with_retry_after(AGAIN * 2)
}

fn cancellation(id: Uuid) -> Message {
    let properties = BasicProperties::default()
        .with_correlation_id(id.to_string().into())
        .with_delivery_mode(TRANSIENT);
    Message {
        exchange: CANCEL,
        routing_key: String::new(),
        properties,
        body: Bytes::new(),
        mandatory: false,
        place: None,
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::super::replies::record;
    use super::*;
    use crate::operation::{Owner, Status};
    use crate::operations::JobPolicy;
    use crate::prefer::Preferences;
    use crate::store::MemoryStore;

    #[derive(Serialize, Deserialize)]
    struct Behind;

    impl Job for Behind {
        const KIND: &'static str = "behind";
    }

    #[derive(Serialize, Deserialize)]
    struct Here;

    impl Job for Here {
        const KIND: &'static str = "here";
    }

    /// One whose broker is away.
    fn requests() -> Requests {
        Requests::builder(&Amqp::connect("amqp://127.0.0.1:1").unwrap(), "test").start()
    }

    /// Of what nobody waits for, what is an end is recorded.
    #[tokio::test]
    async fn a_stray_reply_ends_what_it_may() {
        let requests = requests();
        // Stored, and left alone.
        let idle = JobPolicy::new().with_concurrency(0);
        let own = idle.with_retry_if(|problem| problem.status() == StatusCode::CONFLICT);
        let operations = Operations::builder(MemoryStore::new())
            .job_with(own, requests.handler::<Behind>())
            .job_with(idle, async |_: Here, _: Context| Outcome::default())
            .start();
        let _recorder = requests.record(&operations);
        let problem = |status| Problem::from_status(status).into_outcome();
        let canceled = Problem::new(types::CANCELED).into_outcome();
        for (outcome, behind, here) in [
            (Outcome::default(), Status::Succeeded, Status::Pending),
            (problem(StatusCode::NOT_FOUND), Status::Failed, Status::Pending),
            // By the policy of its kind, not by everybody's.
            (problem(StatusCode::CONFLICT), Status::Pending, Status::Pending),
            (problem(StatusCode::BAD_GATEWAY), Status::Failed, Status::Pending),
            (canceled, Status::Pending, Status::Pending),
        ] {
            let preferences = Preferences::default();
            let behind_id = operations.kick_off(&preferences).submit(Behind).await.unwrap();
            let here_id = operations.kick_off(&preferences).submit(Here).await.unwrap();
            for (accepted, expected) in [(behind_id, behind), (here_id, here)] {
                let id = accepted.operation.id();
                assert!(record(&Arc::downgrade(&requests.0.replies), id, &outcome).await);
                let observed = operations.get(&Owner::anonymous(), id).await.unwrap();
                assert_eq!(observed.operation.status(), expected, "{outcome:?}");
            }
        }
    }
}
