//! How the jobs that run in this process hear of their cancellation.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use lapin::Channel;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use super::connection::{Amqp, Channels};
use super::message::CANCEL;
use super::topology;
use crate::lock::lock;
use crate::operation::OperationId;
use crate::operations::{Run, Running, Runs, Signal};

/// How many cancellations are kept of jobs that have not come yet.
const KEPT_CANCELLATIONS: usize = 10_000;

/// The jobs that run here, and those of which was told before they came.
#[derive(Default)]
pub(super) struct Cancellations {
    runs: Arc<Runs>,
    canceled: Mutex<Canceled>,
}

/// The last operations whose cancellation was told.
#[derive(Default)]
struct Canceled {
    order: VecDeque<OperationId>,
    ids: HashSet<OperationId>,
}

impl Cancellations {
    /// Has a job told of its cancellation as long as what this gives is kept.
    pub(super) fn enter(&self, run: &Arc<Run>) -> Running {
        self.runs.enter(run)
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
        self.runs.send(id, Signal::Cancel);
    }
}

/// Tells the jobs of their cancellation, on one channel after another.
pub(super) async fn hear_cancellations(amqp: Amqp, cancellations: Arc<Cancellations>) {
    let mut channels = Channels::new(&amqp, "hearing cancellations");
    loop {
        let channel = channels.next().await;
        if let Err(error) = amqp.until_lost(&channel, session(&channel, &cancellations)).await {
            channels.ended(&error);
        }
    }
}

async fn session(channel: &Channel, cancellations: &Cancellations) -> lapin::Result<()> {
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
            cancellations.cancel(id);
        }
    }
    Ok(())
}
