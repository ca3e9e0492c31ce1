//! Outcomes that come from elsewhere: of work that another service does, whoever waits for it here.

use std::sync::Arc;

use super::Operations;
use super::run::Signal;
use crate::operation::{Change, IntoOutcome, OperationId, Outcome, TransitionError};
#[cfg(feature = "amqp")]
use crate::operation::{Kind, Operation};
use crate::problem::{Problem, types};
use crate::store::{ApplyError, Observed};

impl Operations {
    /// An operation as it is, whoever owns it, for what decides whether to complete it.
    #[cfg(feature = "amqp")]
    pub(crate) async fn known(&self, id: OperationId) -> Result<Option<Operation>, Problem> {
        let store = self.store();
        let found = self.call(async move { store.get(id).await }).await?;
        Ok(found.map(|observed| observed.operation))
    }

    /// Whether the policy of that kind tries again what ended so.
    #[cfg(feature = "amqp")]
    pub(crate) fn is_retried(&self, kind: &Kind, problem: &Problem) -> bool {
        let job = self.inner().jobs.get(kind.as_str());
        job.is_some_and(|job| job.policy.retries(kind, problem))
    }

    /// Records how an operation ended whose work was done elsewhere, and gives it as it then stands.
    /// Whoever holds the operation loses it. The first end that is recorded stays, so that the same may be
    /// told twice.
    ///
    /// It is for whoever hears of the end by another way than the handler that began the work: by a reply
    /// that comes after its process was started again, for example. Who may say so is the caller's to judge.
    ///
    /// # Errors
    /// As [`get`](Self::get). After [`STORE_UNAVAILABLE`](crate::problem::types::STORE_UNAVAILABLE) it may have
    /// been recorded or not: tell it again.
    pub async fn complete(&self, id: OperationId, outcome: Outcome) -> Result<Observed, Problem> {
        let outcome = if self.inner().settings.takes(&outcome) {
            outcome.without_connection_fields()
        } else {
            Problem::new(types::RESULT_TOO_LARGE).into_outcome()
        };
        let inner = Arc::clone(self.inner());
        let call = async move {
            let end = outcome.problem().map_or_else(|| Ok(outcome.head()), Err);
            let complete = Change::Complete { end };
            Ok(match inner.apply(id, complete, Some(outcome)).await {
                Err(ApplyError::Refused(TransitionError::DeadlinePassed, _)) => {
                    inner.apply(id, Change::Settle, None).await
                }
                answer => answer,
            })
        };
        let completed = match self.call(call).await? {
            Err(ApplyError::Refused(TransitionError::Finished, finished)) => finished,
            Err(error) => return Err(self.apply_problem(&error, id)),
            Ok(completed) => completed,
        };
        self.inner().runs.send(id, Signal::LeaseLost);
        Ok(completed)
    }
}
