use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::connection::{Amqp, Channels, Message, Pauses, PublishError, Publisher};
use super::message::{
    CANCEL, PERSISTENT, Reply, TRANSIENT, insert_deadline, insert_trace, read_reply, short,
};
use super::runs::lock;
use super::topology;
use crate::operation::{IntoOutcome, OperationId, Outcome, Progress};
use crate::operations::{Context, Job, Operations};
use crate::problem::{Problem, types};
use crate::time::{Clock, SystemClock};

/// How many replies are taken from the broker before the first is dealt with.
const PREFETCH: u16 = 1_000;
/// How many of those that nobody waits for are recorded at once.
const RECORDED_AT_ONCE: u16 = 100;
/// How long the queue of a replica that is gone is kept.
const REPLICA_QUEUE_TTL: Duration = Duration::from_secs(10 * 60);
/// After how long to try again what the broker or the store could not do.
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
    /// Whether replies are taken: before that, nothing is asked.
    is_listening: watch::Sender<bool>,
    waiting: Mutex<HashMap<Uuid, Waiter>>,
    in_flight: Semaphore,
    /// The kinds whose work is done by whoever replies.
    kinds: Mutex<HashSet<&'static str>>,
    /// Records what nobody here waits for.
    recorder: Mutex<Weak<Operations>>,
    _tasks: Mutex<JoinSet<()>>,
}

/// Who waits for the reply to a request.
struct Waiter {
    context: Context,
    outcome: oneshot::Sender<Outcome>,
    /// That there was word of the work.
    heard: Arc<Notify>,
}

/// What is to be done with a reply.
#[derive(Debug)]
enum Taken {
    /// It reached who waits, or it can reach nobody.
    Settled,
    /// Nobody waits here for the end of that operation.
    Stray(OperationId, Outcome),
}

/// Records replies that nobody waits for, as long as it is kept: see [`Requests::record`].
#[derive(Debug)]
#[must_use = "replies are recorded as long as it is kept"]
pub struct Recorder {
    _operations: Arc<Operations>,
    _tasks: JoinSet<()>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl RequestsBuilder {
    /// How long a request that is answered at once waits for its reply if nothing else is said: below the
    /// 30 s after which many proxies hang up.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(25);
    /// How long the broker keeps the message of an operation without deadline if nothing else is said.
    pub const DEFAULT_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);
    /// How many requests may wait for their replies if nothing else is said.
    pub const DEFAULT_IN_FLIGHT: usize = 10_000;
    /// How long a reply waits for its process if nothing else is said.
    pub const DEFAULT_REPLY_WAIT: Duration = Duration::from_secs(30);
    /// For how long an operation hears nothing of its job before that counts as lost if nothing else is said:
    /// longer than a broker leaves a job with a worker that does not acknowledge it.
    pub const DEFAULT_SILENCE: Duration = Duration::from_secs(60 * 60);

    /// How long a request that is answered at once waits for its reply; after it, 504. The message
    /// expires at the same time. An operation waits until its deadline, as long as there is
    /// [word](Self::silence) of its job.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// How long the broker keeps the message of an operation without a deadline of its own.
    pub fn expiry(mut self, expiry: Duration) -> Self {
        self.settings.expiry = expiry;
        self
    }

    /// How many requests may wait for their replies; one more is answered 503.
    pub fn in_flight_limit(mut self, requests: usize) -> Self {
        self.settings.in_flight = requests.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// For how long an operation hears nothing of its job, neither progress nor reply, before that counts as
    /// lost, if no job waits in the queue of its kind: a broker can lose what it confirmed. It is then a 504, which
    /// the job's policy tries again. A [`Worker`](super::Worker) tells progress
    /// [often enough](super::Worker::SIGN_OF_LIFE) by itself if this is longer; one of another make that has a job for
    /// longer than this without a word, be it that it has not begun, has it done twice.
    pub fn silence(mut self, silence: Duration) -> Self {
        self.settings.silence = silence;
        self
    }

    /// How long a reply waits at the broker for the process that asked, before it goes to the queue from
    /// which all replicas [record](Requests::record).
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
        let inner = Arc::new_cyclic(|inner: &Weak<Inner>| {
            let reply_queue = format!("{}.replies.{instance}", settings.name);
            let mut tasks = JoinSet::new();
            tasks.spawn(take_replies(
                amqp.clone(),
                Weak::clone(inner),
                Queue::OfReplica {
                    service: settings.name.clone(),
                    name: reply_queue.clone(),
                    wait: settings.reply_wait,
                },
            ));
            Inner {
                reply_queue,
                publisher: Publisher::new(&amqp),
                amqp,
                is_listening: watch::Sender::new(false),
                waiting: Mutex::default(),
                in_flight: Semaphore::new(settings.in_flight),
                kinds: Mutex::default(),
                recorder: Mutex::default(),
                _tasks: Mutex::new(tasks),
                settings,
            }
        });
        Requests(inner)
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
            in_flight: RequestsBuilder::DEFAULT_IN_FLIGHT,
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
        lock(&self.0.kinds).insert(J::KIND);
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
        let Ok(_place) = inner.in_flight.try_acquire() else {
            return Err(Problem::new(types::OVERLOADED).retry_after(AGAIN));
        };
        let operation = context.operation_id();
        let id = match operation {
            Some(id) => id.as_uuid(),
            None => random_id()?,
        };
        let (outcome, mut reply) = oneshot::channel();
        let waits = Waits::new(inner, id, context.clone(), outcome);
        let message = inner.message::<J>(id, input, &context);
        if operation.is_none() {
            inner.publish(message).await.map_err(refused)?;
            return tokio::select! {
                biased;
                outcome = reply => outcome.map_err(|_| Problem::new(types::INTERNAL)),
                // Neither the request nor its reply outlives the broker, and the client waits.
                () = inner.listens(false) => Err(refused(PublishError::Unavailable)),
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
                () = waits.heard.notified() => {}
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
        let operations = Arc::new(operations.clone());
        *lock(&self.0.recorder) = Arc::downgrade(&operations);
        let mut tasks = JoinSet::new();
        let name = self.0.settings.name.clone();
        let amqp = self.0.amqp.clone();
        tasks.spawn(take_replies(amqp, Arc::downgrade(&self.0), Queue::OfAll(name)));
        Recorder { _operations: operations, _tasks: tasks }
    }
}

impl Inner {
    fn message<J: Job>(&self, id: Uuid, body: Bytes, context: &Context) -> Message {
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
        Message { exchange: "", routing_key: J::KIND.to_owned(), properties, body, mandatory: true }
    }

    async fn publish(&self, message: Message) -> Result<(), PublishError> {
        let is_up =
            self.publisher.is_connected() && timeout(AGAIN, self.listens(true)).await.is_ok();
        if !is_up {
            return Err(PublishError::Unavailable);
        }
        self.publisher.publish(message).await
    }

    /// Waits until replies are taken, or until they are not.
    async fn listens(&self, expected: bool) {
        let mut is_listening = self.is_listening.subscribe();
        while *is_listening.borrow_and_update() != expected {
            // Its sender is this.
            let _ = is_listening.changed().await;
        }
    }

    /// Publishes a message until the broker has it, once replies are taken.
    async fn publish_persistently(&self, message: Message) -> Result<(), PublishError> {
        // Not all that wait at once, when the broker is back.
        let mut pauses = Pauses::default();
        while !*self.is_listening.borrow() {
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
        let Ok(channel) = self.amqp.channel().await else { return true };
        let waiting = topology::has_waiting(&channel, kind);
        match timeout(Amqp::CONFIRM_TIMEOUT, waiting).await {
            Ok(Ok(is_any)) => is_any,
            // A queue that is gone.
            Ok(Err(error)) => !error.is_amqp_soft_error(),
            Err(_) => true,
        }
    }

    /// Gives a reply to whoever waits for it.
    fn take(&self, delivery: &Delivery) -> Taken {
        let id = delivery.properties.correlation_id().as_ref();
        let Some(id) = id.and_then(|id| Uuid::try_parse(id.as_str()).ok()) else {
            return Taken::Settled;
        };
        let outcome = match read_reply(delivery) {
            Reply::Progress(progress) => {
                if let Some(waiter) = lock(&self.waiting).get(&id) {
                    waiter.heard.notify_one();
                    // One that says nothing is a sign of life.
                    if progress != Progress::default() {
                        let message = progress.message().unwrap_or_default();
                        waiter.context.progress(progress.fraction(), message);
                    }
                }
                return Taken::Settled;
            }
            Reply::Outcome(outcome) => outcome,
        };
        let waiter = lock(&self.waiting).remove(&id);
        let outcome = match waiter {
            Some(waiter) => match waiter.outcome.send(outcome) {
                Ok(()) => return Taken::Settled,
                Err(outcome) => outcome,
            },
            None => outcome,
        };
        // What is no operation's id was a request that was to be answered at once: nobody waits for it.
        match id.to_string().parse() {
            Ok(id) => Taken::Stray(id, outcome),
            Err(_) => Taken::Settled,
        }
    }

    /// Records an outcome that nobody waits for, if it is an end.
    async fn try_record(&self, id: OperationId, outcome: &Outcome) -> Result<(), Problem> {
        let operations = lock(&self.recorder).upgrade();
        let Some(operations) = operations else { return Ok(()) };
        let Some(operation) = operations.known(id).await? else { return Ok(()) };
        let kind = operation.kind().as_str();
        if operation.status().is_finished() || !lock(&self.kinds).contains(kind) {
            return Ok(());
        }
        if let Some(problem) = outcome.problem() {
            // What may pass is left to the operation's next attempt; and whoever cancels an operation does
            // not need to be told by its worker.
            if problem.is(types::CANCELED) || operations.is_retried(operation.kind(), &problem) {
                return Ok(());
            }
        }
        operations.complete(id, outcome.clone()).await.map(drop)
    }
}

/// Records an outcome that nobody waits for, however long the store is away. Says whether that is settled.
async fn record(requests: &Weak<Inner>, id: OperationId, outcome: &Outcome) -> bool {
    loop {
        let Some(inner) = requests.upgrade() else { return false };
        match inner.try_record(id, outcome).await {
            Err(problem) if problem.is(types::STORE_UNAVAILABLE) => {}
            // What else the store says of it, it would say again.
            _ => return true,
        }
        drop(inner);
        sleep(AGAIN).await;
    }
}

/// Waits for a reply as long as it lives.
struct Waits<'a> {
    inner: &'a Inner,
    id: Uuid,
    /// Tells it from a later attempt that waits for the same.
    heard: Arc<Notify>,
}

impl<'a> Waits<'a> {
    fn new(
        inner: &'a Inner,
        id: Uuid,
        context: Context,
        outcome: oneshot::Sender<Outcome>,
    ) -> Self {
        let heard = Arc::new(Notify::new());
        let waiter = Waiter { context, outcome, heard: Arc::clone(&heard) };
        lock(&inner.waiting).insert(id, waiter);
        Self { inner, id, heard }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.inner.waiting);
        if waiting.get(&self.id).is_some_and(|waiter| Arc::ptr_eq(&waiter.heard, &self.heard)) {
            waiting.remove(&self.id);
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
            return Problem::from_status(StatusCode::PAYLOAD_TOO_LARGE).detail(detail);
        }
        PublishError::Unroutable => types::NO_WORKER,
        PublishError::Refused => types::OVERLOADED,
        PublishError::Unavailable => types::BROKER_UNAVAILABLE,
    };
    Problem::new(kind).retry_after(AGAIN * 2)
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
    }
}

/// A queue of replies.
enum Queue {
    /// That of this process.
    OfReplica { service: String, name: String, wait: Duration },
    /// The one that the service's replicas share.
    OfAll(String),
}

impl Queue {
    async fn declare(&self, channel: &Channel) -> lapin::Result<String> {
        topology::declare_cancel(channel).await?;
        let (name, arguments) = match self {
            Self::OfAll(name) => (topology::shared_replies(name), topology::quorum()),
            Self::OfReplica { service, name, wait } => {
                // What its replica does not take goes to all; so that has to be there.
                let all = topology::shared_replies(service);
                let options = QueueDeclareOptions::durable();
                channel.queue_declare(all.as_str().into(), options, topology::quorum()).await?;
                let mut arguments = FieldTable::default();
                topology::insert_millis(&mut arguments, "x-message-ttl", *wait);
                topology::insert_millis(&mut arguments, "x-expires", REPLICA_QUEUE_TTL);
                topology::dead_letter_to(&mut arguments, &all);
                (name.clone(), arguments)
            }
        };
        let declared =
            channel.queue_declare(name.as_str().into(), QueueDeclareOptions::durable(), arguments);
        declared.await?;
        Ok(name)
    }
}

/// Takes the replies of a queue, on one channel after another.
async fn take_replies(amqp: Amqp, requests: Weak<Inner>, queue: Queue) {
    let mut channels = Channels::new(&amqp, "taking replies");
    loop {
        let channel = channels.next().await;
        let session = session(&channel, &requests, &queue);
        if let Err(error) = amqp.until_lost(&channel, session).await {
            channels.ended(&error);
        }
        let Some(requests) = requests.upgrade() else { return };
        if matches!(queue, Queue::OfReplica { .. }) {
            requests.is_listening.send_replace(false);
        }
    }
}

async fn session(channel: &Channel, requests: &Weak<Inner>, queue: &Queue) -> lapin::Result<()> {
    let name = queue.declare(channel).await?;
    let is_own = matches!(queue, Queue::OfReplica { .. });
    let prefetch = if is_own { PREFETCH } else { RECORDED_AT_ONCE };
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let arguments = FieldTable::default();
    let mut replies = channel.basic_consume(name.into(), "".into(), options, arguments).await?;
    if let Some(requests) = requests.upgrade().filter(|_| is_own) {
        requests.is_listening.send_replace(true);
    }
    // Beside the others, which somebody waits for: the store may be away. It is asked again from here, for
    // the broker puts aside what is given back too often.
    let mut recording = JoinSet::new();
    while let Some(delivery) = replies.next().await {
        let delivery = delivery?;
        while recording.try_join_next().is_some() {}
        let Some(inner) = requests.upgrade() else { return Ok(()) };
        match inner.take(&delivery) {
            Taken::Settled => delivery.ack(BasicAckOptions::default()).await.map(drop)?,
            Taken::Stray(id, outcome) => {
                let requests = Weak::clone(requests);
                recording.spawn(async move {
                    if record(&requests, id, &outcome).await {
                        // If its channel is lost it comes again, and what was recorded stays.
                        let _ = delivery.ack(BasicAckOptions::default()).await;
                    }
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

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

    #[tokio::test]
    async fn an_attempt_that_ends_leaves_its_successor() {
        let (requests, id) = (requests(), random_id().unwrap());
        let (one, _lost) = oneshot::channel();
        let (other, mut reply) = oneshot::channel();
        let first = Waits::new(&requests.0, id, Context::default(), one);
        let second = Waits::new(&requests.0, id, Context::default(), other);
        drop(first);
        assert!(reply.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        assert!(lock(&requests.0.waiting).contains_key(&id));
        drop(second);
        assert!(lock(&requests.0.waiting).is_empty());
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
                assert!(record(&Arc::downgrade(&requests.0), id, &outcome).await);
                let observed = operations.get(&Owner::anonymous(), id).await.unwrap();
                assert_eq!(observed.operation.status(), expected, "{outcome:?}");
            }
        }
    }
}
