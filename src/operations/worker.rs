//! Claims stored jobs and runs them, each kind by itself.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use super::admission::Place;
use super::attempt::{Attempt, End};
use super::context::Context;
use super::hints::Listener;
use super::job::{Registered, Work};
use super::pulse::PulseGuard;
use super::run::Run;
use super::{Inner, Operations, telemetry};
use crate::operation::{IntoOutcome, OperationId, Outcome};
use crate::problem::{Problem, types};
use crate::store::{ClaimRequest, Hint, Observed, OperationStore};

/// How many jobs are claimed at once at the most.
const BATCH: usize = 64;
/// How long a worker waits for a store that fails, at the most.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a job that was claimed waits for its input when the store fails.
const INPUT_PAUSE: Duration = Duration::from_millis(100);

/// Works until the last [`Operations`] is gone or shuts down.
pub(super) fn spawn(operations: &Operations) {
    for job in operations.inner().jobs.iter() {
        if job.admission.concurrency() > 0 {
            tokio::spawn(work(Arc::downgrade(operations.inner()), Arc::clone(job)));
        }
    }
}

async fn work(inner: Weak<Inner>, job: Arc<Registered>) {
    let Some((mut hints, interval)) = inner.upgrade().map(|inner| {
        let interval = inner.settings.poll_interval;
        // Listened to before the first look, so that no job falls in between.
        (Listener::new(&inner.store, interval.min(LONGEST_PAUSE)), interval)
    }) else {
        return;
    };
    let mut pause = interval;
    let _guard = PulseGuard(&job.pulse);
    loop {
        let places = job.admission.places(BATCH).await;
        let Some(inner) = inner.upgrade().filter(|inner| !inner.is_closing()) else { return };
        let (wanted, asked) = (places.len(), Instant::now());
        let claimed = claim(&inner, &job, wanted).await;
        job.pulse.beat(claimed.is_some());
        if let Some(claimed) = claimed {
            pause = interval;
            let found = claimed.len();
            for (observed, place) in claimed.into_iter().zip(places) {
                tokio::spawn(run(Arc::clone(&inner), Arc::clone(&job), observed, place, asked));
            }
            if found == wanted {
                continue;
            }
        } else {
            drop(places);
            pause = (pause * 2).min(LONGEST_PAUSE.max(interval));
        }
        drop(inner);
        wait(&job, &mut hints, pause).await;
    }
}

/// Claims up to so many jobs; none if the store fails. It is waited for however long it takes: what
/// it claims has to be run or given back.
async fn claim(inner: &Inner, job: &Registered, most: usize) -> Option<Vec<Observed>> {
    let request = ClaimRequest::new(most, inner.settings.lease).with_kinds(vec![job.kind.clone()]);
    let store = Arc::clone(&inner.store);
    let claimed = tokio::spawn(async move { store.claim(&request).await }).await.ok()?;
    claimed.inspect_err(|error| telemetry::store_failed(Some("worker"), Some(error))).ok()
}

/// Waits until there may be work: until somebody says so, or for that time.
async fn wait(job: &Registered, hints: &mut Option<Listener>, pause: Duration) {
    let hinted = async {
        match hints {
            Some(hints) => while matches!(hints.next().await, Hint::Changed(_)) {},
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = job.wake.notified() => {}
        () = sleep(pause) => {}
        () = hinted => {}
    }
}

/// Runs a job that was claimed by a call that began at `asked`.
async fn run(
    inner: Arc<Inner>,
    job: Arc<Registered>,
    observed: Observed,
    mut place: Place,
    asked: Instant,
) {
    place.occupy();
    let Observed { operation, now, .. } = &observed;
    let left = operation.deadline().map(|deadline| deadline.duration_since(*now));
    let deadline = left.and_then(|left| Instant::now().checked_add(left));
    let run = Run::new(operation.id(), operation.attempt(), deadline, operation.trace().cloned());
    let _running = inner.runs.enter(&run);
    let attempt = Attempt::new(&inner, &run, &observed, Some(job.policy));
    if inner.is_closing() {
        return attempt.finish(End::NotBegun).await;
    }
    if !attempt.holds_still(asked).await {
        return;
    }
    let span = inner.settings.run_span.make(run.info(operation.kind()));
    let context = Context::of(&run);
    async {
        let began = Instant::now();
        let work = stored_work(Arc::clone(&inner), Arc::clone(&job), context, run.id());
        let end = attempt.work_on(work, pin!(attempt.keep())).await;
        place.admitted.ran(began.elapsed());
        attempt.finish(end).await;
    }
    .instrument(span)
    .await;
}

/// The work of a job, its input included, which is read while the lease is kept already.
fn stored_work(inner: Arc<Inner>, job: Arc<Registered>, context: Context, id: OperationId) -> Work {
    Box::pin(async move {
        let Some(input) = input(&inner, id).await else { return unreadable() };
        match job.run_stored(input, context) {
            Ok(work) => work.await,
            Err(_) => unreadable(),
        }
    })
}

/// The input, however long the store is away; none if there is none to be had.
async fn input(inner: &Inner, id: OperationId) -> Option<Bytes> {
    loop {
        let store = Arc::clone(&inner.store);
        let call = Box::pin(async move { store.input(id).await });
        match inner.detached(call).await {
            Some(Ok(input)) => return input,
            Some(Err(error)) if !error.is_retryable() => return None,
            _ => sleep(INPUT_PAUSE).await,
        }
    }
}

fn unreadable() -> Outcome {
    Problem::new(types::UNREADABLE_INPUT).into_outcome()
}
