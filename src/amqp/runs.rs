//! The jobs that run in this process, and how they hear of their cancellation.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use lapin::Channel;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::time::sleep;

use super::connection::{Amqp, ended};
use super::message::CANCEL;
use super::topology;
use crate::operation::OperationId;
use crate::operations::{Run, Signal};

/// How many cancellations are kept of jobs that have not come yet.
const KEPT_CANCELLATIONS: usize = 10_000;

#[derive(Default)]
pub(super) struct Runs {
    running: Mutex<HashMap<OperationId, Arc<Run>>>,
    canceled: Mutex<Canceled>,
}

/// The last operations whose cancellation was told.
#[derive(Default)]
struct Canceled {
    order: VecDeque<OperationId>,
    ids: HashSet<OperationId>,
}

/// A job that can be told of its cancellation as long as this lives.
pub(super) struct Running<'a>(&'a Runs, OperationId);

impl Runs {
    pub(super) fn insert(&self, id: OperationId, run: &Arc<Run>) -> Running<'_> {
        lock(&self.running).insert(id, Arc::clone(run));
        Running(self, id)
    }

    /// Whether the cancellation was told before the job came.
    pub(super) fn is_canceled(&self, id: OperationId) -> bool {
        lock(&self.canceled).ids.contains(&id)
    }

    fn cancel(&self, id: OperationId) {
        let mut canceled = lock(&self.canceled);
        if canceled.ids.insert(id) {
            canceled.order.push_back(id);
        }
        if canceled.order.len() > KEPT_CANCELLATIONS {
            if let Some(oldest) = canceled.order.pop_front() {
                canceled.ids.remove(&oldest);
            }
        }
        drop(canceled);
        let run = lock(&self.running).get(&id).cloned();
        if let Some(run) = run {
            run.send(Signal::Cancel);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(&self.0.running).remove(&self.1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the jobs of their cancellation, on one channel after another.
pub(super) async fn hear_cancellations(amqp: Amqp, runs: Arc<Runs>) {
    loop {
        let channel = amqp.next_channel().await;
        if let Err(error) = session(&channel, &runs).await {
            ended("hearing cancellations", &error);
        }
        sleep(Amqp::FIRST_PAUSE).await;
    }
}

async fn session(channel: &Channel, runs: &Runs) -> lapin::Result<()> {
    topology::declare_cancel(channel).await?;
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
    let name = queue.name().clone();
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(name.clone(), CANCEL.into(), "".into(), options, arguments).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut told = channel.basic_consume(name, "".into(), options, FieldTable::default()).await?;
    while let Some(delivery) = told.next().await {
        let id = delivery?.properties.correlation_id().clone();
        if let Some(Ok(id)) = id.map(|id| id.as_str().parse()) {
            runs.cancel(id);
        }
    }
    Ok(())
}
