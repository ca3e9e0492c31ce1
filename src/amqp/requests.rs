use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::connection::{Amqp, Message, PublishError, Publisher, ended, jittered};
use super::message::{CANCEL, PERSISTENT, Reply, TRANSIENT, insert_trace, read_reply, short};
use super::topology;
use crate::operation::{IntoOutcome, OperationId, Outcome};
use crate::operations::{Context, Job, JobPolicy, Operations};
use crate::problem::{Problem, types};
use crate::store::Observed;

/// How many replies are taken from the broker before the first is dealt with.
const PREFETCH: u16 = 1_000;
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
}

struct Inner {
    settings: Settings,
    /// Where this process gets its replies.
    reply_queue: String,
    publisher: Publisher,
    /// Whether replies are taken: before that, nothing is asked.
    is_listening: watch::Sender<bool>,
    waiting: Mutex<HashMap<Uuid, Waiter>>,
    in_flight: Semaphore,
    /// Records what nobody here waits for.
    recorder: Mutex<Weak<Operations>>,
    _tasks: Mutex<JoinSet<()>>,
}

/// Who waits for the reply to a request.
struct Waiter {
    context: Context,
    outcome: oneshot::Sender<Outcome>,
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

    /// How long a request that is answered at once waits for its reply; after it, 504. The message
    /// expires at the same time. An operation waits until its deadline.
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
        let mut random = [0; 16];
        let instance = getrandom::fill(&mut random).map(|()| Uuid::from_bytes(random));
        let instance =
            instance.map_or_else(|_| std::process::id().to_string(), |id| id.to_string());
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
                is_listening: watch::Sender::new(false),
                waiting: Mutex::default(),
                in_flight: Semaphore::new(settings.in_flight),
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
    pub fn builder(amqp: &Amqp, name: impl Into<String>) -> RequestsBuilder {
        let settings = Settings {
            name: name.into(),
            timeout: RequestsBuilder::DEFAULT_TIMEOUT,
            expiry: RequestsBuilder::DEFAULT_EXPIRY,
            in_flight: RequestsBuilder::DEFAULT_IN_FLIGHT,
            reply_wait: RequestsBuilder::DEFAULT_REPLY_WAIT,
        };
        RequestsBuilder { amqp: amqp.clone(), settings }
    }

    /// A handler that has the job done by whoever consumes the queue of its [kind](Job::KIND).
    ///
    /// - In the synchronous answer: 503 without a broker or once its connection is lost, without a queue,
    ///   or if the queue is full; 504 if no reply comes in [time](RequestsBuilder::timeout). Both leave open
    ///   whether the work was done.
    /// - In an operation: it waits for the broker and for the reply until its deadline. A queue that is
    ///   not there, or full, is a 503, which the job's policy tries again.
    pub fn handler<J: Job>(
        &self,
    ) -> impl Fn(J, Context) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync + 'static
    {
        let requests = self.clone();
        move |job: J, context| {
            let requests = requests.clone();
            Box::pin(async move {
                let answer = match job.encode() {
                    Ok(input) => requests.send(J::KIND, input, context).await,
                    Err(_) => Err(Problem::new(types::INTERNAL)),
                };
                answer.unwrap_or_else(Problem::into_outcome)
            })
        }
    }

    /// Sends a request, and gives its reply.
    async fn send(&self, kind: &str, input: Bytes, context: Context) -> Result<Outcome, Problem> {
        let inner = &*self.0;
        let Ok(_place) = inner.in_flight.try_acquire() else {
            return Err(Problem::new(types::OVERLOADED).retry_after(AGAIN));
        };
        let operation = context.operation_id();
        let id = match operation {
            Some(id) => id.as_uuid(),
            None => random_id()?,
        };
        let (outcome, reply) = oneshot::channel();
        let _waits = Waits::new(inner, id, Waiter { context: context.clone(), outcome });
        let message = inner.message(kind, id, input, &context);
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
        inner.publish_persistently(message, &context).await?;
        let mut reply = reply;
        tokio::select! {
            outcome = &mut reply => return outcome.map_err(|_| Problem::new(types::INTERNAL)),
            () = context.canceled() => {}
        }
        // Told once; whoever does not hear it goes on, and this handler is given up after its grace.
        let _ = inner.publisher.publish(cancellation(id)).await;
        reply.await.map_err(|_| Problem::new(types::INTERNAL))
    }

    /// Records the replies to operations that nobody waits for here: of a replica that is gone, or from
    /// before a restart. Call it once the operations have started, and keep what it gives.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn record(&self, amqp: &Amqp, operations: &Operations) -> Recorder {
        let operations = Arc::new(operations.clone());
        *lock(&self.0.recorder) = Arc::downgrade(&operations);
        let mut tasks = JoinSet::new();
        let name = self.0.settings.name.clone();
        tasks.spawn(take_replies(amqp.clone(), Arc::downgrade(&self.0), Queue::OfAll(name)));
        Recorder { _operations: operations, _tasks: tasks }
    }
}

impl Inner {
    fn message(&self, kind: &str, id: Uuid, body: Bytes, context: &Context) -> Message {
        let (mode, left) = match context.operation_id() {
            Some(_) => (PERSISTENT, context.time_left().unwrap_or(self.settings.expiry)),
            None => (TRANSIENT, self.settings.timeout),
        };
        let mut headers = FieldTable::default();
        headers.insert("attempt".into(), AMQPValue::LongUInt(context.attempt()));
        insert_trace(&mut headers, context.trace());
        // RabbitMQ takes up to 32 bits of milliseconds.
        let expiration = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        let properties = BasicProperties::default()
            .with_message_id(id.to_string().into())
            .with_correlation_id(id.to_string().into())
            .with_reply_to(self.reply_queue.as_str().into())
            .with_content_type("application/json".into())
            .with_type(short(kind))
            .with_app_id(short(&self.settings.name))
            .with_delivery_mode(mode)
            .with_expiration(expiration.to_string().into())
            .with_headers(headers);
        Message { exchange: "", routing_key: kind.to_owned(), properties, body, mandatory: true }
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

    /// Publishes a message until the broker has it.
    async fn publish_persistently(
        &self,
        message: Message,
        context: &Context,
    ) -> Result<(), Problem> {
        let mut pause = Amqp::FIRST_PAUSE;
        loop {
            match self.publish(message.clone()).await {
                // The broker may have it all the same; then it is done twice, and recorded once.
                Err(PublishError::Unavailable) => {}
                answer => return answer.map_err(refused),
            }
            tokio::select! {
                () = context.canceled() => return context.check(),
                () = sleep(jittered(pause)) => {}
            }
            pause = (pause * 2).min(Amqp::LONGEST_PAUSE);
        }
    }

    /// Gives a reply to whoever waits for it, or records it. Says whether it is dealt with.
    async fn take(&self, delivery: &Delivery) -> bool {
        let id = delivery.properties.correlation_id().as_ref();
        let Some(id) = id.and_then(|id| Uuid::try_parse(id.as_str()).ok()) else { return true };
        match read_reply(delivery) {
            Reply::Progress(progress) => {
                if let Some(waiter) = lock(&self.waiting).get(&id) {
                    let message = progress.message().unwrap_or_default();
                    waiter.context.progress(progress.fraction().unwrap_or(f64::NAN), message);
                }
                true
            }
            Reply::Outcome(outcome) => {
                let waiter = lock(&self.waiting).remove(&id);
                match waiter {
                    Some(waiter) => match waiter.outcome.send(outcome) {
                        Ok(()) => true,
                        Err(outcome) => self.record(id, outcome).await,
                    },
                    None => self.record(id, outcome).await,
                }
            }
        }
    }

    /// Records an outcome that nobody waits for. Says whether that is settled.
    async fn record(&self, id: Uuid, outcome: Outcome) -> bool {
        // What may pass is left to the operation's next attempt.
        if outcome.problem().is_some_and(|problem| JobPolicy::is_temporary(&problem)) {
            return true;
        }
        let operations = lock(&self.recorder).upgrade();
        let Some(operations) = operations else { return true };
        // What is no operation's id was a request that was to be answered at once: nobody waits for it.
        let Ok(id) = id.to_string().parse::<OperationId>() else { return true };
        let recorded: Result<Observed, Problem> = operations.complete(id, outcome).await;
        !recorded.is_err_and(|problem| problem.is(types::STORE_UNAVAILABLE))
    }
}

/// Waits for a reply as long as it lives.
struct Waits<'a>(&'a Inner, Uuid);

impl<'a> Waits<'a> {
    fn new(inner: &'a Inner, id: Uuid, waiter: Waiter) -> Self {
        lock(&inner.waiting).insert(id, waiter);
        Self(inner, id)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        lock(&self.0.waiting).remove(&self.1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let shared = |name: &str| format!("{name}.replies");
        let (name, arguments) = match self {
            Self::OfAll(name) => (shared(name), topology::quorum()),
            Self::OfReplica { service, name, wait } => {
                // What its replica does not take goes to all; so that has to be there.
                let all = shared(service).into();
                let options = QueueDeclareOptions::durable();
                channel.queue_declare(all, options, topology::quorum()).await?;
                let mut arguments = FieldTable::default();
                topology::insert_millis(&mut arguments, "x-message-ttl", *wait);
                topology::insert_millis(&mut arguments, "x-expires", REPLICA_QUEUE_TTL);
                topology::dead_letter_to(&mut arguments, &shared(service));
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
    loop {
        let channel = amqp.next_channel().await;
        if let Err(error) = session(&channel, &requests, &queue).await {
            ended("taking replies", &error);
        }
        let Some(requests) = requests.upgrade() else { return };
        if matches!(queue, Queue::OfReplica { .. }) {
            requests.is_listening.send_replace(false);
        }
        drop(requests);
        sleep(Amqp::FIRST_PAUSE).await;
    }
}

async fn session(channel: &Channel, requests: &Weak<Inner>, queue: &Queue) -> lapin::Result<()> {
    let name = queue.declare(channel).await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let arguments = FieldTable::default();
    let mut replies = channel.basic_consume(name.into(), "".into(), options, arguments).await?;
    let is_own = matches!(queue, Queue::OfReplica { .. });
    if let Some(requests) = requests.upgrade().filter(|_| is_own) {
        requests.is_listening.send_replace(true);
    }
    while let Some(delivery) = replies.next().await {
        let delivery = delivery?;
        let Some(requests) = requests.upgrade() else { return Ok(()) };
        if requests.take(&delivery).await {
            delivery.ack(BasicAckOptions::default()).await?;
        } else {
            // The store is away: the replies wait with the broker.
            sleep(AGAIN).await;
            let again = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
            delivery.nack(again).await?;
        }
    }
    Ok(())
}
