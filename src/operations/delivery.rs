//! The state of the delivery of an operation's last change to its callback.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;

use super::follow_up::WEBHOOK;
use super::run::Signal;
use super::{Inner, Operations};
use crate::operation::{Change, Operation, OperationId, Outcome, Owner, Status, TransitionError};
use crate::problem::{Problem, types};
use crate::respond::{Response, no_store};
use crate::store::{ApplyError, OperationStore, OperationStoreExt, StoreError};
use crate::time::Timestamp;

/// The state of the delivery of an operation's last change to its callback.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Delivery {
    /// What it is called in `webhook-id`.
    pub id: OperationId,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it did not succeed the last time. It says as much to everybody: an answer's status, or that there
    /// was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Problem>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Timestamp>,
    /// When this became so.
    pub updated: Timestamp,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DeliveryStatus {
    /// It is being tried, or will be again.
    Pending,
    /// The receiver has it.
    Delivered,
    /// It is tried no more.
    Dead,
}

impl Delivery {
    /// The answer to a GET of it.
    pub(crate) fn into_response(self) -> Response {
        no_store(Outcome::json(StatusCode::OK, &self).into_response())
    }
}

impl Operations {
    /// The state of the delivery of the last change of that owner's operation to its callback; none if it has no
    /// callback, or its callback does not want to be told of this change.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn delivery(
        &self,
        owner: &Owner,
        id: OperationId,
    ) -> Result<Option<Delivery>, Problem> {
        let observed = self.get(owner, id).await?;
        let Some(name) = self.inner().delivery_of(&observed.operation) else { return Ok(None) };
        let store = Arc::clone(&self.inner().store);
        let Some(found) = self.call(async move { store.get(name).await }).await? else {
            return Ok(None);
        };
        let job = found.operation;
        let status = match job.status() {
            Status::Succeeded => DeliveryStatus::Delivered,
            Status::Pending | Status::Running => DeliveryStatus::Pending,
            Status::Failed | Status::Canceled => DeliveryStatus::Dead,
        };
        Ok(Some(Delivery {
            id: job.id(),
            status,
            attempts: job.attempt(),
            last_error: last_error(&job).cloned(),
            next_attempt: (job.status() == Status::Pending).then(|| job.available()),
            updated: job.updated(),
        }))
    }
}

impl Inner {
    fn place_of_deliveries(&self) -> Option<usize> {
        self.follow_ups.iter().position(|next| next.kind == WEBHOOK)
    }

    /// What the delivery of the operation's last change is called; none if there is no callback.
    fn delivery_of(&self, operation: &Operation) -> Option<OperationId> {
        operation.callback()?;
        self.place_of_deliveries().map(|place| self.follower(operation, place))
    }

    /// Removes the delivery of that owner's operation, if it has finished: of what is forgotten nobody is told any more.
    pub(super) async fn forget_delivery(
        &self,
        owner: &Owner,
        id: OperationId,
    ) -> Result<(), StoreError> {
        if self.place_of_deliveries().is_none() {
            return Ok(());
        }
        let found = self.store.find(owner, id).await?;
        let finished = found.filter(|found| found.operation.status().is_finished());
        let Some(delivery) = finished.and_then(|found| self.delivery_of(&found.operation)) else {
            return Ok(());
        };
        let ended = match self.apply(delivery, Change::Cancel, None).await {
            Ok(observed) | Err(ApplyError::Refused(TransitionError::Finished, observed)) => {
                observed
            }
            Err(ApplyError::Store(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        if ended.operation.status().is_finished() {
            self.store.remove(delivery, ended.operation.version()).await?;
        } else {
            // It is being told at this moment, maybe here, and not again.
            self.runs.send(delivery, Signal::Cancel);
        }
        Ok(())
    }
}

/// Why a delivery did not succeed the last time that it was tried. That its time was up says less.
fn last_error(job: &Operation) -> Option<&Problem> {
    let end = job.error();
    let is_told = end
        .is_some_and(|end| !end.is(types::DEADLINE_PASSED) && !end.is(types::ATTEMPTS_EXHAUSTED));
    if is_told { end } else { job.last_error().or(end) }
}
