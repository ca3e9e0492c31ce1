//! Work that follows from a change of an operation, accepted in the step that writes the change.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::job::Job;
use super::{Inner, telemetry};
use crate::operation::{NewOperation, Operation, OperationId, Owner};
use crate::respond::MonitorUrls;
use crate::store::{OperationStore, OperationStoreExt, Submission};

/// The kind of job that tells a change to the operation's [callback](crate::operation::Callback).
pub(crate) const WEBHOOK: &str = "respond-async.webhook";

/// The owner of what follows, which nobody who asks is.
const OWNER: &str = "respond-async:follow-up";

/// The input of what follows, if anything does.
type Input = dyn Fn(&Operation, &MonitorUrls) -> Option<Bytes> + Send + Sync;

/// What follows from a change.
#[derive(Clone)]
pub(super) struct FollowUp {
    pub(super) kind: &'static str,
    input: Arc<Input>,
}

impl FollowUp {
    pub(super) fn new<J: Job>(
        job: impl Fn(&Operation, &MonitorUrls) -> Option<J> + Send + Sync + 'static,
    ) -> Self {
        // What cannot be written has no handler that could read it.
        let input =
            move |operation: &Operation, urls: &MonitorUrls| job(operation, urls)?.encode().ok();
        Self { kind: J::KIND, input: Arc::new(input) }
    }

    /// For how long the operation's owner sees how it goes: of a delivery, for as long as the operation itself.
    fn shown_for(&self, operation: &Operation) -> Duration {
        let kept = operation.expires().filter(|_| self.kind == WEBHOOK);
        kept.map_or(Duration::ZERO, |until| until.duration_since(operation.updated()))
    }
}

impl fmt::Debug for FollowUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FollowUp").field(&self.kind).finish()
    }
}

impl Inner {
    /// What follows from the operation's becoming so. Nothing follows from what follows.
    pub(super) fn follow_ups(&self, operation: &Operation) -> Vec<Submission> {
        if operation.owner().name() == Some(OWNER) {
            return Vec::new();
        }
        let submission = |(place, follow_up): (usize, &FollowUp)| {
            let job = self.jobs.get(follow_up.kind)?;
            let settings = &self.settings;
            // A mistake in it must not keep the operation from its end.
            let input = || (follow_up.input)(operation, &settings.urls);
            let input = catch_unwind(AssertUnwindSafe(input)).unwrap_or_else(|_| {
                telemetry::panicked(&job.kind);
                None
            })?;
            let most = self.store.capabilities().max_body_bytes;
            if input.len() > most {
                telemetry::follow_up_too_large(operation, &job.kind, input.len(), most);
                return None;
            }
            let policy = job.policy;
            let usual = policy.retention.unwrap_or(settings.retention);
            let new = NewOperation::new(self.follower(operation, place))
                .with_kind(job.kind.clone())
                .with_owner(Owner::of_record(OWNER).ok()?)
                .with_attempt_limit(policy.attempt_limit)
                .with_retention(usual.max(follow_up.shown_for(operation)))
                .with_deadline(policy.deadline.unwrap_or(settings.deadline));
            Some(Submission::new(new).with_input(input))
        };
        self.follow_ups.iter().enumerate().filter_map(submission).collect()
    }

    /// What follows is called the same for the same change, in each process: so one that is written again has the
    /// same followers.
    pub(super) fn follower(&self, operation: &Operation, place: usize) -> OperationId {
        let kind = self.follow_ups[place].kind;
        let of_its_kind = self.follow_ups[..place].iter().filter(|other| other.kind == kind);
        let hash = Sha256::new()
            .chain_update(operation.id().as_uuid().as_bytes())
            .chain_update(operation.revision().to_be_bytes())
            .chain_update(u64::try_from(of_its_kind.count()).unwrap_or(u64::MAX).to_be_bytes())
            .chain_update(kind)
            .finalize();
        OperationId::of_digest(operation.updated(), &hash.into())
    }

    /// Accepts what follows from an acceptance, after it: nobody waits for it. What is lost here (the store is
    /// away, the process dies) is not made up for, unless what follows from later changes tells it too.
    pub(super) fn follow_acceptance(&self, operation: &Operation) {
        let submissions = self.follow_ups(operation);
        if submissions.is_empty() {
            return;
        }
        let store: Arc<dyn OperationStore> = Arc::clone(&self.store);
        let jobs: Vec<_> =
            self.follow_ups.iter().filter_map(|next| self.jobs.get(next.kind).cloned()).collect();
        self.runtime.spawn(async move {
            for submission in submissions {
                let _ = store.submit(submission).await;
            }
            for job in jobs {
                job.wake.notify_one();
            }
        });
    }
}
