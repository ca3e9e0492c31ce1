//! The way back: a reply reaches who waits for it, or ends the operation that nobody waits for any more.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use super::connection::{Amqp, Channels};
use super::message::{Reply, read_reply};
use super::topology;
use crate::lock::lock;
use crate::operation::{OperationId, Outcome, Progress};
use crate::operations::{Context, Operations};
use crate::problem::{Problem, types};

/// How many replies are taken from the broker before the first is dealt with.
const PREFETCH: u16 = 1_000;
/// How many of those that nobody waits for are recorded at once.
const RECORDED_AT_ONCE: u16 = 100;
/// How long the queue of a replica that is gone is kept after all that was in it by then has gone to the others. What
/// comes while it ends goes with it.
const REPLICA_QUEUE_TTL: Duration = Duration::from_secs(10 * 60);
/// After how long to try again what the store could not do.
const AGAIN: Duration = Duration::from_secs(1);

/// The replies that this process waits for, and what becomes of others.
#[derive(Default)]
pub(super) struct Replies {
    /// Whether they are taken: before that, nothing is asked.
    is_listening: watch::Sender<bool>,
    waiting: Mutex<HashMap<Uuid, Waiter>>,
    /// The kinds whose work is done by whoever replies.
    kinds: Mutex<HashSet<&'static str>>,
    /// Records what nobody here waits for.
    recorder: Mutex<Weak<Operations>>,
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

/// Records replies that nobody waits for, as long as it is kept: see [`Requests::record`](super::Requests::record).
#[derive(Debug)]
#[must_use = "replies are recorded as long as it is kept"]
pub struct Recorder {
    _operations: Arc<Operations>,
    _tasks: JoinSet<()>,
}

impl Replies {
    /// From now on, operations of that kind are ended by whoever replies.
    pub(super) fn answer_for(&self, kind: &'static str) {
        lock(&self.kinds).insert(kind);
    }

    pub(super) fn is_listening(&self) -> bool {
        *self.is_listening.borrow()
    }

    /// Waits until replies are taken, or until they are not.
    pub(super) async fn listens(&self, expected: bool) {
        let mut is_listening = self.is_listening.subscribe();
        while *is_listening.borrow_and_update() != expected {
            // Its sender is this.
            let _ = is_listening.changed().await;
        }
    }

    /// Waits for the reply to a request.
    pub(super) fn wait(
        &self,
        id: Uuid,
        context: Context,
    ) -> (Waits<'_>, oneshot::Receiver<Outcome>) {
        let heard = Arc::new(Notify::new());
        let (outcome, reply) = oneshot::channel();
        let waiter = Waiter { context, outcome, heard: Arc::clone(&heard) };
        lock(&self.waiting).insert(id, waiter);
        (Waits { replies: self, id, heard }, reply)
    }

    /// Records from now on, as long as what it gives is kept.
    pub(super) fn record(
        self: &Arc<Self>,
        amqp: &Amqp,
        service: &str,
        operations: &Operations,
    ) -> Recorder {
        let operations = Arc::new(operations.clone());
        *lock(&self.recorder) = Arc::downgrade(&operations);
        let mut tasks = JoinSet::new();
        let queue = Queue::OfAll(service.to_owned());
        tasks.spawn(take_replies(amqp.clone(), Arc::downgrade(self), queue));
        Recorder { _operations: operations, _tasks: tasks }
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
pub(super) async fn record(replies: &Weak<Replies>, id: OperationId, outcome: &Outcome) -> bool {
    loop {
        let Some(strong) = replies.upgrade() else { return false };
        match strong.try_record(id, outcome).await {
            Err(problem) if problem.is(types::STORE_UNAVAILABLE) => {}
            // What else the store says of it, it would say again.
            _ => return true,
        }
        drop(strong);
        sleep(AGAIN).await;
    }
}

/// Waits for a reply as long as it lives.
pub(super) struct Waits<'a> {
    replies: &'a Replies,
    id: Uuid,
    /// Tells it from a later attempt that waits for the same.
    heard: Arc<Notify>,
}

impl Waits<'_> {
    /// Waits until there is word of the work.
    pub(super) async fn heard(&self) {
        self.heard.notified().await;
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.replies.waiting);
        if waiting.get(&self.id).is_some_and(|waiter| Arc::ptr_eq(&waiter.heard, &self.heard)) {
            waiting.remove(&self.id);
        }
    }
}

/// A queue of replies.
pub(super) enum Queue {
    /// That of this process.
    OfReplica { service: String, name: String, wait: Duration },
    /// The one that the service's replicas share.
    OfAll(String),
}

impl Queue {
    async fn declare(&self, channel: &Channel) -> lapin::Result<String> {
        topology::declare_cancel(channel).await?;
        let (name, arguments) = match self {
            Self::OfAll(name) => (topology::shared_replies(name), topology::replies()),
            Self::OfReplica { service, name, wait } => {
                // What its replica does not take goes to all; so that has to be there.
                let all = topology::shared_replies(service);
                let (options, arguments) = (QueueDeclareOptions::durable(), topology::replies());
                channel.queue_declare(all.as_str().into(), options, arguments).await?;
                let mut arguments = FieldTable::default();
                topology::insert_millis(&mut arguments, "x-message-ttl", *wait);
                let expires = wait.saturating_add(REPLICA_QUEUE_TTL);
                topology::insert_millis(&mut arguments, "x-expires", expires);
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
pub(super) async fn take_replies(amqp: Amqp, replies: Weak<Replies>, queue: Queue) {
    let mut channels = Channels::new(&amqp, "taking replies");
    loop {
        let channel = channels.next().await;
        let session = session(&channel, &replies, &queue);
        if let Err(error) = amqp.until_lost(&channel, session).await {
            channels.ended(&error);
        }
        let Some(replies) = replies.upgrade() else { return };
        if matches!(queue, Queue::OfReplica { .. }) {
            replies.is_listening.send_replace(false);
        }
    }
}

async fn session(channel: &Channel, replies: &Weak<Replies>, queue: &Queue) -> lapin::Result<()> {
    let name = queue.declare(channel).await?;
    let is_own = matches!(queue, Queue::OfReplica { .. });
    let prefetch = if is_own { PREFETCH } else { RECORDED_AT_ONCE };
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let arguments = FieldTable::default();
    let mut taken = channel.basic_consume(name.into(), "".into(), options, arguments).await?;
    if let Some(replies) = replies.upgrade().filter(|_| is_own) {
        replies.is_listening.send_replace(true);
    }
    // Beside the others, which somebody waits for: the store may be away. It is asked again from here, for
    // the broker puts aside what is given back too often.
    let mut recording = JoinSet::new();
    while let Some(delivery) = taken.next().await {
        let delivery = delivery?;
        while recording.try_join_next().is_some() {}
        let Some(strong) = replies.upgrade() else { return Ok(()) };
        match strong.take(&delivery) {
            Taken::Settled => delivery.ack(BasicAckOptions::default()).await.map(drop)?,
            Taken::Stray(id, outcome) => {
                let replies = Weak::clone(replies);
                recording.spawn(async move {
                    if record(&replies, id, &outcome).await {
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
    use super::*;

    #[test]
    fn an_attempt_that_ends_leaves_its_successor() {
        let (replies, id) = (Replies::default(), Uuid::from_u128(7));
        let (first, _lost) = replies.wait(id, Context::default());
        let (second, mut reply) = replies.wait(id, Context::default());
        drop(first);
        assert!(reply.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        assert!(lock(&replies.waiting).contains_key(&id));
        drop(second);
        assert!(lock(&replies.waiting).is_empty());
    }
}
