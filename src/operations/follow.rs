//! Waiting for an operation on behalf of a request.

use std::time::Duration;

use tokio::time::sleep;

use super::Operations;
use crate::operation::Owner;
use crate::problem::Problem;
use crate::store::Observed;

/// What a poll that may be held is answered with.
#[derive(Debug)]
pub(crate) struct Held {
    /// The operation.
    pub(crate) observed: Observed,
    /// Whether the poll was held: until there was something new, or until its time was over.
    pub(crate) was_held: bool,
}

impl Operations {
    /// Waits until the operation has finished, or that time or a shutdown's grace is over, and gives it as it
    /// then stands. If it `needs_place`, or is left to whoever claims it, and as many wait as
    /// [may](super::OperationsBuilder::waiters), it is given at once.
    ///
    /// Its request is answered from the store, so that the first answer and each replay are the same
    /// bytes.
    pub(super) async fn follow(
        &self,
        observed: Observed,
        wait: Option<Duration>,
        needs_place: bool,
    ) -> Result<Observed, Problem> {
        if observed.operation.status().is_finished() || wait == Some(Duration::ZERO) {
            return Ok(observed);
        }
        // What has no lease has no place among the tasks of a process that could be this one.
        let mut place = None;
        let may_wait = |place: &mut Option<_>, observed: &Observed| {
            let is_left = needs_place || observed.operation.lease_expires().is_none();
            if is_left && place.is_none() {
                *place = self.inner().waiters.try_acquire().ok();
            }
            !is_left || place.is_some()
        };
        if !may_wait(&mut place, &observed) {
            return Ok(observed);
        }
        let mut watch = self.inner().watch(observed.operation.id());
        let finished = async {
            let mut seen = observed.operation.revision();
            loop {
                match watch.newer_than(seen).await? {
                    Some(now) if now.operation.status().is_finished() => return Ok(now),
                    Some(now) if !may_wait(&mut place, &now) => return Ok(now),
                    Some(now) => seen = now.operation.revision(),
                    None => return Err(self.absent(observed.operation.id())),
                }
            }
        };
        // Whoever waits without an end of its own waits as long as this process does.
        let over = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = finished => return answer,
            () = over => {}
            () = self.inner().grace_over.come() => {}
        }
        Ok(watch.latest().unwrap_or(observed))
    }

    /// Holds a poll of that owner, who has seen this revision, until there is a later one, the
    /// operation is finished, `wait` or the [cap](super::OperationsBuilder::wait_cap) is over, or this
    /// process shuts down. If as many are held as [may be](super::OperationsBuilder::waiters), it is
    /// answered at once.
    ///
    /// # Errors
    /// As [`get`](Self::get), also of an operation that has gone meanwhile.
    ///
    /// # Cancel safety
    /// The wait ends with its future.
    pub(crate) async fn hold(
        &self,
        owner: &Owner,
        observed: Observed,
        wait: Duration,
    ) -> Result<Held, Problem> {
        let inner = self.inner();
        let (id, seen) = (observed.operation.id(), observed.operation.revision());
        let wait = wait.min(inner.settings.wait_cap);
        let at_once = Held { observed: observed.clone(), was_held: false };
        if wait.is_zero() || observed.operation.status().is_finished() {
            return Ok(at_once);
        }
        let Ok(_place) = inner.waiters.try_acquire() else { return Ok(at_once) };
        let mut watch = inner.watch(id);
        let (now, was_held) = tokio::select! {
            biased;
            news = watch.newer_than(seen) => {
                let now = news?.filter(|now| now.operation.owner() == owner);
                (now.ok_or_else(|| self.absent(id))?, true)
            }
            () = inner.closed() => (watch.latest().unwrap_or(observed), false),
            () = sleep(wait) => (watch.latest().unwrap_or(observed), true),
        };
        Ok(Held { observed: now, was_held })
    }
}
