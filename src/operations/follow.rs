//! Requests whose operation is stored first, because they have an idempotency key: they are
//! answered from the store, so that the first answer and each replay are the same bytes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::calls::{store_problem, unavailable};
use super::{Inner, Operations};
use crate::problem::{Problem, types};
use crate::store::{Observed, OperationStoreExt, StoreError};

impl Operations {
    /// Waits until the operation has finished or that time is over, and gives it as it then stands.
    pub(super) async fn follow(
        &self,
        observed: Box<Observed>,
        wait: Option<Duration>,
    ) -> Result<Box<Observed>, Problem> {
        if observed.operation.status().is_finished() || wait == Some(Duration::ZERO) {
            return Ok(observed);
        }
        // In a task of its own, because a read of the store should not be dropped half-way either.
        // It ends when nobody waits for it any more.
        let (waits, waiter) = oneshot::channel();
        self.inner().runtime.spawn(until_finished(Arc::clone(self.inner()), observed, wait, waits));
        match waiter.await {
            Ok(Ok(Some(observed))) => Ok(observed),
            Ok(Ok(None)) => Err(Problem::new(types::EXPIRED)),
            Ok(Err(error)) => Err(store_problem(&error)),
            Err(_) => Err(unavailable()),
        }
    }
}

type Followed = Result<Option<Box<Observed>>, StoreError>;

async fn until_finished(
    inner: Arc<Inner>,
    mut observed: Box<Observed>,
    wait: Option<Duration>,
    mut waits: oneshot::Sender<Followed>,
) {
    let until = wait.and_then(|wait| Instant::now().checked_add(wait));
    let answer = loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) || waits.is_closed() {
            break Ok(Some(observed));
        }
        // A hint may be lost, so there is a look now and then.
        let pause = left
            .map_or(inner.settings.poll_interval, |left| left.min(inner.settings.poll_interval));
        let over = async {
            tokio::select! {
                () = waits.closed() => {}
                () = sleep(pause) => {}
            }
        };
        let (id, seen) = (observed.operation.id(), observed.operation.revision());
        match inner.store.changed(id, seen, over).await {
            Ok(Some(now)) if now.operation.status().is_finished() => break Ok(Some(Box::new(now))),
            Ok(Some(now)) => *observed = now,
            Ok(None) => break Ok(None),
            Err(error) => break Err(error),
        }
    };
    // If nobody waits any more, the answer has no reader.
    let _ = waits.send(answer);
}
