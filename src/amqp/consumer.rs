//! The work of a worker: takes jobs from the queues of their kinds, does them, and tells what becomes of them.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Instrument;

use super::cancellations::Cancellations;
use super::connection::{Amqp, Channels, Pauses};
use super::message::{
    PERSISTENT, TRANSIENT, deliveries_before, longest_wait, outcome_properties, progress_message,
    read_trace, time_left,
};
use super::publisher::{Message, PublishError, Publisher};
use super::topology;
use crate::operation::{IntoOutcome, Kind, OperationId, Outcome, Progress};
use crate::operations::{Context, JobInputError, Run, RunSpan, Signal, Work, without_panic};
use crate::problem::{Problem, types};
use crate::time::{Clock, SystemClock, Timestamp};

/// After how long without progress a gateway is told that a job is still worked on, or waits for its place.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(10 * 60);

/// The settings of a worker; its builder says what they mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) concurrency: u16,
    pub(super) attempt_limit: u32,
    pub(super) queue: u32,
    pub(super) longest_job: Duration,
    pub(super) progress_interval: Duration,
    pub(super) cancel_grace: Duration,
}

pub(super) type Handler = Box<dyn Fn(Bytes, Context) -> Result<Work, JobInputError> + Send + Sync>;

/// What the consumers of all kinds share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) run_span: RunSpan,
    pub(super) handlers: HashMap<Kind, Handler>,
    pub(super) publisher: Publisher,
    pub(super) cancellations: Arc<Cancellations>,
    /// A permit for each job that may run.
    pub(super) places: Arc<Semaphore>,
    pub(super) closing: watch::Sender<bool>,
    /// From how many queues jobs are taken now.
    pub(super) taking: watch::Sender<usize>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Takes the jobs of a kind, on one channel after another.
pub(super) async fn consume(amqp: Amqp, shared: Arc<Shared>, kind: Kind) {
    let mut running = JoinSet::new();
    let mut channels = Channels::new(&amqp, "taking jobs");
    loop {
        let channel = channels.next().await;
        let session = session(&channel, &shared, &kind, &mut running);
        if let Err(error) = amqp.until_lost(&channel, session).await {
            channels.ended(&error);
        }
        if *shared.closing.borrow() {
            while running.join_next().await.is_some() {}
            return;
        }
    }
}

async fn session(
    channel: &Channel,
    shared: &Arc<Shared>,
    kind: &Kind,
    running: &mut JoinSet<()>,
) -> lapin::Result<()> {
    let Settings { attempt_limit, queue, concurrency, longest_job, .. } = shared.settings;
    // The broker gives up one delivery later than the worker, which tells the operation so.
    let limit = attempt_limit.saturating_add(1);
    topology::declare_work(channel, kind.as_str(), limit, queue, longest_job).await?;
    channel.basic_qos(concurrency, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let (name, arguments) = (kind.as_str(), FieldTable::default());
    let mut jobs = channel.basic_consume(name.into(), "".into(), options, arguments).await?;
    let _taken = Taken::new(shared);
    // What waits here for its place when the channel is lost comes again on the next.
    let session = watch::Sender::new(());
    loop {
        // Those that have ended are let go.
        while running.try_join_next().is_some() {}
        let delivery = tokio::select! {
            biased;
            () = shared.closing() => {
                channel.basic_cancel(jobs.tag(), BasicCancelOptions::default()).await?;
                return Ok(());
            }
            delivery = jobs.next() => delivery,
        };
        let Some(delivery) = delivery.transpose()? else { return Ok(()) };
        let (shared, kind, mut session) = (Arc::clone(shared), kind.clone(), session.subscribe());
        // As it comes: what it says does not tell how long it has been here.
        let now = SystemClock.now();
        let deadline = time_left(&delivery, now).and_then(|left| Instant::now().checked_add(left));
        let over = sleep(longest_wait(&delivery, now).unwrap_or(Duration::MAX));
        // At once, and not when there is a place: what the driver keeps gives no sign of life.
        running.spawn(async move {
            let place = tokio::select! {
                biased;
                _ = session.changed() => return,
                place = shared.place(&delivery) => place,
                // As if it had waited at the broker: whoever asked knows when, or tries again as he hears nothing.
                () = over => return settle(&delivery, End::Dead).await,
            };
            let Some(_place) = place else { return };
            shared.run(&kind, delivery, deadline).await;
        });
    }
}

/// That jobs are taken from one more queue, as long as this exists.
struct Taken<'a>(&'a Shared);

impl<'a> Taken<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.taking.send_modify(|taking| *taking += 1);
        Self(shared)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taking.send_modify(|taking| *taking -= 1);
    }
}

/// What becomes of the message when its answer has been told.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    /// It goes to the queue of dead messages, for somebody to look at.
    Dead,
}

impl Shared {
    /// Waits for a place, which the jobs of all kinds share, and tells now and then that the job is not lost. None
    /// if the worker closes before.
    async fn place(&self, delivery: &Delivery) -> Option<OwnedSemaphorePermit> {
        let mut place = pin!(Arc::clone(&self.places).acquire_owned());
        loop {
            tokio::select! {
                biased;
                () = self.closing() => return None,
                place = &mut place => return place.ok(),
                () = sleep(SIGN_OF_LIFE) => {
                    self.tell(delivery, &Progress::default()).await;
                }
            }
        }
    }

    async fn run(&self, kind: &Kind, delivery: Delivery, deadline: Option<Instant>) {
        let (outcome, end) = self.outcome(kind, &delivery, deadline).await;
        self.reply(&delivery, outcome).await;
        settle(&delivery, end).await;
    }

    async fn outcome(
        &self,
        kind: &Kind,
        delivery: &Delivery,
        deadline: Option<Instant>,
    ) -> (Outcome, End) {
        let problem = |kind| Problem::new(kind).into_outcome();
        let attempt = deliveries_before(delivery).saturating_add(1);
        if attempt > self.settings.attempt_limit {
            let exhausted = Problem::new(types::ATTEMPTS_EXHAUSTED);
            let exhausted = exhausted.with_extension("attempts", self.settings.attempt_limit);
            return (exhausted.into_outcome(), End::Dead);
        }
        let Some(id) = operation_id(delivery) else {
            return (problem(types::INTERNAL), End::Done);
        };
        let run = Run::new(id, attempt, deadline, read_trace(delivery));
        let input = Bytes::from(delivery.data.clone());
        let Some(handler) = self.handlers.get(kind) else {
            return (problem(types::INTERNAL), End::Dead);
        };
        let _running = self.cancellations.enter(&run);
        if self.cancellations.is_canceled(id) {
            return (problem(types::CANCELED), End::Done);
        }
        let context = Context::of(&run);
        // What a handler does before its first await can panic too.
        let mut work = Box::pin(async move {
            match handler(input, context) {
                Ok(work) => Some(work.await),
                Err(_) => None,
            }
        });
        let span = self.run_span.make(run.info(kind));
        tokio::select! {
            biased;
            outcome = without_panic(work.as_mut()).instrument(span) => match outcome {
                Ok(Some(outcome)) => (outcome, End::Done),
                Ok(None) => (problem(types::UNREADABLE_INPUT), End::Dead),
                Err(panicked) => (panicked.into_outcome(), End::Dead),
            },
            () = self.keep(&run, delivery) => (problem(types::CANCELED), End::Done),
        }
    }

    /// Tells progress, and now and then that there is none. Ends when the work has gone on for too long after its cancellation was requested.
    async fn keep(&self, run: &Run, delivery: &Delivery) {
        let mut report_at = Instant::now();
        let mut life_at = report_at + SIGN_OF_LIFE;
        let mut progress = None;
        let mut stop_at: Option<Instant> = None;
        loop {
            let report = if progress.is_some() { report_at } else { life_at };
            let wake_at = stop_at.map_or(report, |stop_at| stop_at.min(report));
            tokio::select! {
                () = run.news() => {}
                () = sleep_until(wake_at) => {}
            }
            let now = Instant::now();
            if run.signal() != Signal::GoOn
                && now >= *stop_at.get_or_insert(now + self.settings.cancel_grace)
            {
                return;
            }
            progress = run.take_progress().or(progress);
            if now >= life_at {
                progress = progress.or_else(|| Some(Progress::default()));
            }
            if let Some(told) = progress.take_if(|_| now >= report_at) {
                report_at = now + self.settings.progress_interval;
                life_at = now + SIGN_OF_LIFE;
                self.tell(delivery, &told).await;
            }
        }
    }

    async fn tell(&self, delivery: &Delivery, progress: &Progress) {
        let (properties, body) = progress_message(progress);
        if let Some(message) = answer(delivery, properties, body.into()) {
            // The next report tells more than this one could.
            let _ = self.publisher.publish(message).await;
        }
    }

    /// Tells the answer, until the broker has it or it can reach nobody.
    async fn reply(&self, delivery: &Delivery, mut outcome: Outcome) {
        if !self.publisher.takes(&outcome) {
            outcome = Problem::new(types::RESULT_TOO_LARGE).into_outcome();
        }
        let properties = outcome_properties(&outcome);
        let Some(mut message) = answer(delivery, properties, outcome.body) else { return };
        let mut pauses = Pauses::default();
        loop {
            match self.publisher.publish_persistently(message.clone()).await {
                Err(PublishError::Refused | PublishError::Unavailable) => pauses.pause().await,
                Ok(()) | Err(PublishError::TooLarge) => return,
                // A queue that its gateway left alone for too long is gone, and the work is done.
                Err(PublishError::Unroutable) => match shared_replies(delivery) {
                    Some(shared) if shared != message.routing_key => message.routing_key = shared,
                    _ => return,
                },
            }
        }
    }

    async fn closing(&self) {
        let mut closing = self.closing.subscribe();
        while !*closing.borrow_and_update() {
            // Its sender is this.
            let _ = closing.changed().await;
        }
    }
}

/// Says what becomes of a message. If its channel is gone it is delivered again, and what it leads to is recorded once.
async fn settle(delivery: &Delivery, end: End) {
    let settled = async {
        match end {
            End::Done => delivery.ack(BasicAckOptions::default()).await,
            End::Dead => delivery.reject(BasicRejectOptions { requeue: false }).await,
        }
    };
    // The driver does not always say that it is gone, and the next job wants the place.
    let _ = timeout(Amqp::CONFIRM_TIMEOUT, settled).await;
}

/// The operation that a job is for. A request without one, or of another make, is given an id, the same each time that
/// it comes, if it has a name; none if there are no random bytes.
fn operation_id(delivery: &Delivery) -> Option<OperationId> {
    let Some(name) = delivery.properties.message_id() else {
        return OperationId::generate(SystemClock.now()).ok();
    };
    let made = |_| {
        let digest = Sha256::digest(name.as_str());
        OperationId::of_digest(Timestamp::from_unix_millis(0), &digest.into())
    };
    Some(name.as_str().parse().unwrap_or_else(made))
}

/// The queue from which all replicas of who asked record replies to operations; none if no queue can have that name.
fn shared_replies(request: &Delivery) -> Option<String> {
    let asked = &request.properties;
    let name = asked.app_id().as_ref().filter(|_| *asked.delivery_mode() == Some(PERSISTENT))?;
    let queue = topology::shared_replies(name.as_str());
    (queue.len() <= topology::MAX_QUEUE_NAME_BYTES).then_some(queue)
}

/// A reply to a request; none if it wants none.
fn answer(request: &Delivery, properties: BasicProperties, body: Bytes) -> Option<Message> {
    let asked = &request.properties;
    let to = asked.reply_to().as_ref()?;
    // Without a correlation id the message's own name stands for it, as is the custom.
    let correlation = asked.correlation_id().as_ref().or(asked.message_id().as_ref());
    let mut properties = properties.with_delivery_mode(asked.delivery_mode().unwrap_or(TRANSIENT));
    if let Some(correlation) = correlation {
        properties = properties.with_correlation_id(correlation.clone());
    }
    Some(Message {
        exchange: "",
        routing_key: to.as_str().to_owned(),
        properties,
        body,
        mandatory: true,
        place: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name is not too long for a message, and too long for what is made of it.
    #[test]
    fn replies_go_to_no_queue_that_cannot_be() {
        let to = |name: &str| {
            let mut request = Delivery::mock(1, "".into(), "".into(), false, Vec::new());
            let asked = BasicProperties::default().with_app_id(name.into());
            request.properties = asked.with_delivery_mode(PERSISTENT);
            shared_replies(&request)
        };
        assert_eq!(to("gateway").as_deref(), Some("gateway.replies"));
        assert!(to(&"x".repeat(247)).is_some_and(|name| name.len() == 255));
        assert_eq!(to(&"x".repeat(248)), None);
    }
}
