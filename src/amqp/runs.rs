//! The jobs that run in this process, and how they hear of their cancellation.

use std::collections::{HashMap, HashSet, VecDeque};
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
pub(super) struct Running<'a>(&'a Runs, OperationId, Arc<Run>);

impl Runs {
    pub(super) fn insert(&self, id: OperationId, run: &Arc<Run>) -> Running<'_> {
        lock(&self.running).insert(id, Arc::clone(run));
        Running(self, id, Arc::clone(run))
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
        let mut running = lock(&self.0.running);
        // A later delivery of the same job may have its place.
        if running.get(&self.1).is_some_and(|held| Arc::ptr_eq(held, &self.2)) {
            running.remove(&self.1);
        }
    }
}

/// Tells the jobs of their cancellation, on one channel after another.
pub(super) async fn hear_cancellations(amqp: Amqp, runs: Arc<Runs>) {
    let mut channels = Channels::new(&amqp, "hearing cancellations");
    loop {
        let channel = channels.next().await;
        if let Err(error) = amqp.until_lost(&channel, session(&channel, &runs)).await {
            channels.ended(&error);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A channel that is lost brings a job again, to this process too, while its first run goes on.
    #[test]
    fn a_run_that_ends_leaves_its_successor() {
        let id = OperationId::from_parts(crate::time::Timestamp::from_unix_millis(1), [7; 10]);
        let (runs, first) = (Runs::default(), Run::new(id, 1, None, None));
        let second = Run::new(id, 2, None, None);
        let one = runs.insert(id, &first);
        let other = runs.insert(id, &second);
        drop(one);
        runs.cancel(id);
        assert_eq!((first.signal(), second.signal()), (Signal::GoOn, Signal::Cancel));
        drop(other);
        assert!(lock(&runs.running).is_empty());
    }
}
