//! What an operator sees: spans and events of `tracing`, and with the feature `metrics` what is counted.
//!
//! docs/operating.md lists all of it; `tests/telemetry` compares. Nothing here names an owner or quotes what a
//! client sent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tracing::field::Empty;
use tracing::{Span, debug, error, info, info_span, trace, warn};

use crate::operation::{Kind, Operation, OperationId, TraceContext};
use crate::problem::Problem;
use crate::store::{Durability, StoreError};

/// The field of a run's span that its end is written to.
const STATUS: &str = "operation.status";

/// An attempt that is about to begin, as far as a [span](super::OperationsBuilder::run_span) tells of it.
#[derive(Debug, Clone, Copy)]
pub struct RunInfo<'a> {
    pub(crate) id: OperationId,
    pub(crate) kind: &'a Kind,
    pub(crate) attempt: u32,
    pub(crate) trace: Option<&'a TraceContext>,
}

impl RunInfo<'_> {
    /// The operation. If its work ends in time, it is never stored.
    pub fn id(&self) -> OperationId {
        self.id
    }

    /// What sort of work it is.
    pub fn kind(&self) -> &Kind {
        self.kind
    }

    /// Which attempt it is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The trace that its request belongs to, if that was [told](super::KickOff::trace).
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace
    }
}

/// How the spans of attempts are made.
#[derive(Clone)]
pub(crate) struct RunSpan(Arc<dyn Fn(RunInfo<'_>) -> Span + Send + Sync>);

impl RunSpan {
    pub(crate) fn new(make: impl Fn(RunInfo<'_>) -> Span + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(crate) fn make(&self, run: RunInfo<'_>) -> Span {
        (self.0)(run)
    }
}

impl Default for RunSpan {
    fn default() -> Self {
        Self::new(run_span)
    }
}

impl fmt::Debug for RunSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunSpan")
    }
}

/// The default span of an attempt: a child of the request's while that is at hand.
fn run_span(run: RunInfo<'_>) -> Span {
    info_span!(
        target: "respond_async",
        "operation.run",
        operation.id = %run.id,
        operation.kind = run.kind.as_str(),
        operation.attempt = run.attempt,
        operation.status = Empty,
        trace.parent = run.trace.map(TraceContext::parent),
    )
}

pub(super) fn accept_span(id: OperationId, kind: &Kind) -> Span {
    info_span!(
        target: "respond_async",
        "operation.accept",
        operation.id = %id,
        operation.kind = kind.as_str(),
    )
}

pub(super) fn accepted(operation: &Operation) {
    debug!(target: "respond_async", { operation.id = %operation.id() }, "accepted");
    #[cfg(feature = "metrics")]
    metrics::counter!("respond_async_accepted_total", "kind" => label(operation.kind()))
        .increment(1);
}

/// Operations begin, on a store of which that much survives.
pub(super) fn started(durability: Durability) {
    info!(target: "respond_async", durability = durability.as_str(), "started");
}

/// A request was refused by this crate, not by its handler.
pub(super) fn rejected(problem: &Problem) {
    let reason = problem.type_uri().rsplit(':').next().unwrap_or_default();
    debug!(target: "respond_async", { reason }, "rejected");
    #[cfg(feature = "metrics")]
    metrics::counter!("respond_async_rejected_total", "reason" => reason.to_owned()).increment(1);
}

/// Work ended within the time that its client waits, and nothing was stored.
pub(super) fn answered_in_time(kind: &Kind) {
    trace!(target: "respond_async", { operation.kind = kind.as_str() }, "answered in time");
    #[cfg(feature = "metrics")]
    metrics::counter!("respond_async_answered_in_time_total", "kind" => label(kind)).increment(1);
}

/// An attempt begins, so long after its operation could first have been worked on.
pub(super) fn begun(kind: &Kind, waited: Duration) {
    trace!(target: "respond_async", { waited_seconds = waited.as_secs_f64() }, "begun");
    #[cfg(feature = "metrics")]
    {
        metrics::counter!("respond_async_attempts_total", "kind" => label(kind)).increment(1);
        metrics::histogram!("respond_async_queue_seconds", "kind" => label(kind)).record(waited);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = kind;
}

/// An attempt has ended, whatever follows.
pub(super) fn ended(kind: &Kind, took: Duration) {
    trace!(target: "respond_async", { took_seconds = took.as_secs_f64() }, "ended");
    #[cfg(feature = "metrics")]
    metrics::histogram!("respond_async_attempt_seconds", "kind" => label(kind)).record(took);
    #[cfg(not(feature = "metrics"))]
    let _ = kind;
}

pub(super) fn panicked(kind: &Kind) {
    error!(target: "respond_async", { operation.kind = kind.as_str() }, "the handler panicked");
    #[cfg(feature = "metrics")]
    metrics::counter!("respond_async_panics_total", "kind" => label(kind)).increment(1);
}

/// What follows from a change cannot be stored, and is left out.
pub(super) fn follow_up_too_large(operation: &Operation, kind: &Kind, bytes: usize, most: usize) {
    error!(
        target: "respond_async",
        { operation.id = %operation.id(), operation.kind = kind.as_str(), bytes, most },
        "what follows from a change is larger than the store takes"
    );
}

/// An attempt failed, and another follows.
pub(super) fn retried(kind: &Kind, error: &Problem, delay: Duration) {
    let (problem, status) = (error.type_uri(), error.status().as_u16());
    warn!(
        target: "respond_async",
        { operation.kind = kind.as_str(), problem, status, delay_seconds = delay.as_secs_f64() },
        "the attempt failed, and another follows"
    );
    #[cfg(feature = "metrics")]
    metrics::counter!("respond_async_retries_total", "kind" => label(kind)).increment(1);
}

/// Somebody else decides about an operation that is worked on here.
pub(super) fn lease_lost(kind: &Kind) {
    warn!(target: "respond_async", { operation.kind = kind.as_str() }, "the lease is lost");
    #[cfg(feature = "metrics")]
    metrics::counter!("respond_async_leases_lost_total", "kind" => label(kind)).increment(1);
}

/// An operation has ended, by whatever this process did.
pub(super) fn finished(operation: &Operation) {
    let status = operation.status().as_str();
    Span::current().record(STATUS, status);
    debug!(target: "respond_async", { operation.id = %operation.id(), status }, "finished");
    #[cfg(feature = "metrics")]
    metrics::counter!(
        "respond_async_finished_total", "kind" => label(operation.kind()), "status" => status
    )
    .increment(1);
}

/// A request about operations was answered.
pub(crate) fn polled(resource: &'static str, status: http::StatusCode) {
    trace!(target: "respond_async", { resource, status = status.as_u16() }, "polled");
    #[cfg(feature = "metrics")]
    metrics::counter!(
        "respond_async_polls_total", "resource" => resource, "status" => status.as_str().to_owned()
    )
    .increment(1);
}

/// A call of the store failed, on behalf of a request if `by` is none, or of this process's own tasks.
pub(super) fn store_failed(by: Option<&'static str>, error: Option<&StoreError>) {
    let kind = error.map_or("timeout", |error| error.kind().as_str());
    let cause = error.and_then(std::error::Error::source).map(tracing::field::display);
    let error = error.map(tracing::field::display);
    match by {
        // There may be thousands a second, and the tasks tell of it too.
        None => debug!(target: "respond_async", { kind, error, cause }, "the store failed"),
        Some(task) => {
            warn!(target: "respond_async", { task, kind, error, cause }, "the store failed");
        }
    }
    #[cfg(feature = "metrics")]
    metrics::counter!("respond_async_store_errors_total", "kind" => kind).increment(1);
}

/// How much there is of something at this moment.
#[cfg(feature = "metrics")]
pub(super) fn gauge(name: &'static str, value: usize) {
    metrics::gauge!(name).set(as_f64(value));
}

/// The same of a kind.
#[cfg(feature = "metrics")]
pub(super) fn gauge_of(name: &'static str, kind: &Kind, value: usize) {
    metrics::gauge!(name, "kind" => label(kind)).set(as_f64(value));
}

/// Tells the recorder what the names mean.
#[cfg(feature = "metrics")]
pub(super) fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    let counters = [
        ("accepted_total", "Operations that were stored and are to be done"),
        (
            "answered_in_time_total",
            "Requests with wait whose work ended in time, so that nothing was stored",
        ),
        ("rejected_total", "Requests that were refused before any work was begun, by the reason"),
        ("attempts_total", "Attempts that were begun here"),
        ("retries_total", "Attempts that failed, and that another follows"),
        ("panics_total", "Attempts whose handler panicked"),
        ("leases_lost_total", "Attempts that somebody else took over or ended"),
        ("finished_total", "Operations that this process brought to their end, by how they ended"),
        ("polls_total", "Requests about operations, by the resource and how it was answered"),
        ("store_errors_total", "Calls of the store that failed, by the kind of failure"),
    ];
    for (name, meaning) in counters {
        describe_counter!(format!("respond_async_{name}"), Unit::Count, meaning);
    }
    let gauges = [
        ("running", "Tasks that run in this process"),
        ("waiting", "Tasks of this process that wait for their turn"),
        ("held_polls", "Polls that are held, and requests that wait for work elsewhere"),
        ("open_streams", "Event streams that are open"),
    ];
    for (name, meaning) in gauges {
        describe_gauge!(format!("respond_async_{name}"), Unit::Count, meaning);
    }
    let histograms = [
        ("queue_seconds", "From when an attempt could have begun until it did"),
        ("attempt_seconds", "How long an attempt took"),
    ];
    for (name, meaning) in histograms {
        describe_histogram!(format!("respond_async_{name}"), Unit::Seconds, meaning);
    }
}

#[cfg(feature = "metrics")]
fn label(kind: &Kind) -> metrics::SharedString {
    kind.shared().into()
}

#[cfg(feature = "metrics")]
fn as_f64(number: usize) -> f64 {
    u32::try_from(number).unwrap_or(u32::MAX).into()
}
