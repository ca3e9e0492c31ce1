//! How much work this process takes on, and how loaded it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Counts the tasks that were taken on, and gives out the places to run in.
#[derive(Debug)]
pub(super) struct Admission {
    places: Arc<Semaphore>,
    concurrency: usize,
    most: usize,
    taken: AtomicUsize,
    /// How many of the places taken are for jobs that may be claimed, and are none of them yet.
    offered: AtomicUsize,
    emptied: Notify,
    /// A moving mean of how long a task runs, in microseconds.
    mean_micros: AtomicU64,
}

/// A task that was taken on. Dropping it makes room for another.
#[derive(Debug)]
pub(super) struct Admitted(Arc<Admission>);

/// A place to run in, of a task that was taken on.
#[derive(Debug)]
pub(super) struct Place {
    // Dropped first, so that the place is free before the task counts as gone.
    _permit: OwnedSemaphorePermit,
    pub(super) admitted: Admitted,
    /// Whether no job has taken it yet.
    is_offered: bool,
}

/// How loaded the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Tasks that run or wait.
    pub(super) tasks: usize,
    /// How many run at once.
    pub(super) concurrency: usize,
    /// How long one runs, on average.
    pub(super) mean: Duration,
}

impl Admission {
    pub(super) fn new(concurrency: usize, queue: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(concurrency)),
            concurrency,
            most: concurrency.saturating_add(queue),
            taken: AtomicUsize::new(0),
            offered: AtomicUsize::new(0),
            emptied: Notify::new(),
            mean_micros: AtomicU64::new(0),
        })
    }

    /// How many tasks run at once.
    pub(super) fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// How many run now.
    pub(super) fn running(&self) -> usize {
        let idle = self.places.available_permits() + self.offered.load(Ordering::Acquire);
        self.concurrency.saturating_sub(idle)
    }

    /// Waits for a place to run in and takes what else is free, up to `most` places; the queue's
    /// bound is not for them, for what is to run there waits elsewhere.
    pub(super) async fn places(self: &Arc<Self>, most: usize) -> Vec<Place> {
        let first = self.place().await;
        let more = || Arc::clone(&self.places).try_acquire_owned().ok();
        let others = std::iter::from_fn(more).take(most.saturating_sub(1));
        std::iter::once(first)
            .chain(others)
            .map(|permit| {
                self.offered.fetch_add(1, Ordering::AcqRel);
                self.taken.fetch_add(1, Ordering::AcqRel);
                Place { _permit: permit, admitted: Admitted(Arc::clone(self)), is_offered: true }
            })
            .collect()
    }

    async fn place(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.places).acquire_owned().await {
            Ok(place) => place,
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Takes a task on; none if running and waiting tasks are as many as there may be.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let more = |taken| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Admitted(Arc::clone(self)))
    }

    pub(super) fn load(&self) -> Load {
        Load {
            tasks: self.tasks(),
            concurrency: self.concurrency,
            mean: Duration::from_micros(self.mean_micros.load(Ordering::Relaxed)),
        }
    }

    /// Waits until there is no task, and no place for one that may be claimed yet.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.taken.load(Ordering::Acquire) == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// How many tasks there are.
    pub(super) fn tasks(&self) -> usize {
        self.taken.load(Ordering::Acquire).saturating_sub(self.offered.load(Ordering::Acquire))
    }
}

impl Place {
    /// A job is run in it from now on.
    pub(super) fn occupy(&mut self) {
        if std::mem::take(&mut self.is_offered) {
            self.admitted.0.offered.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.occupy();
    }
}

impl Admitted {
    /// A place to run in, if one is free and nobody waits for it.
    pub(super) fn try_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.places).try_acquire_owned().ok()
    }

    /// Waits for a place to run in, first come, first served.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        self.0.place().await
    }

    /// Notes how long the task ran.
    pub(super) fn ran(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mean = self.0.mean_micros.load(Ordering::Relaxed);
        // Two that write at once lose one of many samples, which a mean can bear.
        let next = if mean == 0 { micros } else { mean - mean / 8 + micros / 8 };
        self.0.mean_micros.store(next, Ordering::Relaxed);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.0.taken.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}
