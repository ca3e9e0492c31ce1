//! What an [`Operations`](super::Operations) may do: [`OperationsBuilder`](super::OperationsBuilder) sets it.

use std::time::Duration;

use super::telemetry::RunSpan;
use crate::operation::Outcome;
use crate::respond::MonitorUrls;
use crate::store::check_outcome_size;
use crate::time::keep_within_reach;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) urls: MonitorUrls,
    pub(super) retention: Duration,
    pub(super) retention_bounds: RetentionBounds,
    pub(super) deadline: Duration,
    pub(super) live_limit: usize,
    pub(super) poll_interval: Duration,
    pub(super) wait_cap: Duration,
    pub(super) waiters: usize,
    pub(super) streams: usize,
    pub(super) results_bytes: usize,
    pub(super) heartbeat: Duration,
    pub(super) stall_limit: Duration,
    pub(super) stream_lifetime: Duration,
    pub(super) concurrency: usize,
    pub(super) queue: usize,
    pub(super) owner_limit: Option<usize>,
    pub(super) lease: Duration,
    pub(super) cancel_grace: Duration,
    pub(super) progress_interval: Duration,
    pub(super) sweep_interval: Duration,
    pub(super) store_timeout: Duration,
    pub(super) max_outcome_bytes: usize,
    pub(super) poll_rate: u32,
    pub(super) owner_poll_rate: u32,
    pub(super) run_span: RunSpan,
}

impl Settings {
    /// Whether an outcome is no larger than may be kept.
    pub(super) fn takes(&self, outcome: &Outcome) -> bool {
        check_outcome_size(outcome, self.max_outcome_bytes).is_ok()
    }

    pub(super) fn keep_within_reach(&mut self) {
        keep_within_reach([
            &mut self.poll_interval,
            &mut self.wait_cap,
            &mut self.heartbeat,
            &mut self.stall_limit,
            &mut self.stream_lifetime,
            &mut self.lease,
            &mut self.cancel_grace,
            &mut self.progress_interval,
            &mut self.sweep_interval,
            &mut self.store_timeout,
        ]);
    }
}

/// The shortest and the longest retention that a request may ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct RetentionBounds {
    pub(super) shortest: Duration,
    pub(super) longest: Duration,
}

impl RetentionBounds {
    pub(super) fn bound(self, wanted: Duration) -> Duration {
        wanted.max(self.shortest).min(self.longest.max(self.shortest))
    }
}
