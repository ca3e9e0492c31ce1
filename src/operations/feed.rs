//! Word of all changes of an owner's operations for those who follow its list.
//!
//! A store can say neither whose operation a hint names, nor what has changed since some moment. So an
//! owner whose list is followed has one task that looks through its operations now and then, and knows
//! their revisions; in between, each operation that a hint names is read once, for all owners, and told
//! to those who follow its owner's list. However many follow it, that is what it costs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::Inner;
use super::hints::Listener;
use crate::lock::lock;
use crate::operation::{Operation, OperationId, Owner};
use crate::problem::Problem;
use crate::store::{Hint, ListQuery, Page};
use crate::time::Timestamp;

/// How long after the time that it bears a change may become visible. The time is the store's, taken when
/// the change is decided; it is written after that, or not at all, within the time that a call may take.
pub(crate) const LATE: Duration = Duration::from_secs(10);

/// How many changes who follows may be behind before it has to look for itself. Each owner has room for them.
const MAX_BEHIND: usize = 64;
/// How many operations that hints name are read at once.
const MAX_READS: usize = 64;
/// How many times as long as a look takes there is none after it, so that it costs the store little however
/// much an owner has; and how many times if one is asked for.
const REST: u32 = 20;
const SHORT_REST: u32 = 4;

/// That an operation is new or has changed.
#[derive(Debug, Clone)]
pub(crate) struct News {
    pub(crate) operation: Operation,
    /// Counts the news of its owner.
    pub(crate) number: u64,
    /// All that bears this time or an earlier one had been told before.
    pub(crate) settled: Timestamp,
}

/// What has been told of an owner's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) number: u64,
    pub(crate) settled: Timestamp,
}

/// Word of an owner's changes.
#[derive(Debug)]
pub(crate) struct Feed {
    /// There until it is dropped.
    news: Option<broadcast::Receiver<News>>,
    ready: watch::Receiver<bool>,
    shared: Arc<Shared>,
}

/// More has changed than is remembered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Behind;

/// The owners whose lists are followed.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    state: Mutex<State>,
    /// Told when there is none any more.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    owners: HashMap<Owner, Arc<Shared>>,
    /// Whether there is a task that reads what hints name.
    is_listening: bool,
}

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    news: broadcast::Sender<News>,
    ready: watch::Sender<bool>,
    /// Told when hints were lost.
    missed: Notify,
    /// Told when somebody leaves.
    left: Notify,
}

/// The operations of an owner.
#[derive(Debug)]
struct Known {
    /// With the revision that was seen, and the look at which it was.
    revisions: HashMap<OperationId, (u64, u64)>,
    look: u64,
    latest: Timestamp,
    told: Told,
}

/// The time so long before that.
pub(crate) fn before(time: Timestamp, by: Duration) -> Timestamp {
    let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_unix_millis(time.as_unix_millis().saturating_sub(millis))
}

impl Feed {
    /// Waits until the task knows the owner's operations: what changes from then on is told.
    pub(crate) async fn ready(&mut self) {
        // If the task has panicked with its store, the stream ends by the next call.
        let _ = self.ready.wait_for(|is_ready| *is_ready).await;
    }

    /// What has been told so far. Whoever looks for itself after this call sees at least that.
    pub(crate) fn told(&self) -> Told {
        lock(&self.shared.known).told
    }

    /// Waits for the next change; none if there will be no more.
    ///
    /// # Cancel safety
    /// A future that is dropped has missed nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<News>, Behind> {
        let Some(news) = &mut self.news else { return Ok(None) };
        match news.recv().await {
            Ok(news) => Ok(Some(news)),
            Err(broadcast::error::RecvError::Closed) => Ok(None),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                *news = news.resubscribe();
                Err(Behind)
            }
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.news = None;
        self.shared.left.notify_one();
    }
}

impl Shared {
    fn new() -> Self {
        let told = Told { number: 0, settled: Timestamp::MIN };
        let known = Known { revisions: HashMap::new(), look: 0, latest: Timestamp::MIN, told };
        Self {
            known: Mutex::new(known),
            news: broadcast::Sender::new(MAX_BEHIND),
            ready: watch::Sender::new(false),
            missed: Notify::new(),
            left: Notify::new(),
        }
    }

    /// Tells of an operation if it is new or has changed. Each revision is told once at the most, in their
    /// order.
    fn offer(&self, operation: &Operation) {
        let mut known = lock(&self.known);
        let look = known.look;
        let seen = known.revisions.entry(operation.id()).or_default();
        seen.1 = look;
        if operation.revision() <= seen.0 {
            return;
        }
        seen.0 = operation.revision();
        known.latest = known.latest.max(operation.updated());
        if *self.ready.borrow() {
            known.told.number += 1;
            let Told { number, settled } = known.told;
            // Under the lock, so that the order is the one of the numbers. Nobody need be there.
            let _ = self.news.send(News { operation: operation.clone(), number, settled });
        }
    }

    fn begins_to_tell(&self) {
        let _known = lock(&self.known);
        self.ready.send_replace(true);
    }

    fn begin_look(&self) -> Timestamp {
        let mut known = lock(&self.known);
        known.look += 1;
        known.latest
    }

    fn end_look(&self, latest_before: Timestamp) {
        let mut known = lock(&self.known);
        let look = known.look;
        // What was neither found nor told of since is gone.
        known.revisions.retain(|_, (_, seen)| *seen == look);
        let settled = before(latest_before, LATE);
        known.told.settled = known.told.settled.max(settled);
    }
}

impl Feeds {
    fn of(&self, owner: &Owner) -> Option<Arc<Shared>> {
        lock(&self.state).owners.get(owner).cloned()
    }

    /// Ends the task of an owner whose list nobody follows any more.
    fn is_left(&self, owner: &Owner, shared: &Shared) -> bool {
        let mut state = lock(&self.state);
        // Who comes takes its receiver under the same lock.
        let is_left = shared.news.receiver_count() == 0;
        if is_left {
            state.owners.remove(owner);
            if state.owners.is_empty() {
                self.emptied.notify_one();
            }
        }
        is_left
    }

    fn stops_listening(&self) -> bool {
        let mut state = lock(&self.state);
        state.is_listening &= !state.owners.is_empty();
        !state.is_listening
    }
}

impl Inner {
    /// Word of all changes of that owner's operations from now on.
    pub(super) fn feed(self: &Arc<Self>, owner: &Owner) -> Feed {
        let mut state = lock(&self.feeds.state);
        if !state.is_listening {
            // Listened to before the first look, so that no change falls in between.
            if let Some(listener) = Listener::new(&self.store, self.settings.poll_interval) {
                state.is_listening = true;
                self.runtime.spawn(listen(Arc::clone(self), listener));
            }
        }
        let shared = state.owners.entry(owner.clone()).or_insert_with(|| {
            let shared = Arc::new(Shared::new());
            self.runtime.spawn(look(Arc::clone(self), owner.clone(), Arc::clone(&shared)));
            shared
        });
        Feed {
            news: Some(shared.news.subscribe()),
            ready: shared.ready.subscribe(),
            shared: Arc::clone(shared),
        }
    }

    pub(super) async fn list(&self, owner: Owner, query: ListQuery) -> Result<Page, Problem> {
        let store = Arc::clone(&self.store);
        self.call(async move { store.list(&owner, &query).await }).await
    }
}

/// Reads what hints name, until nobody follows any list.
async fn listen(inner: Arc<Inner>, mut listener: Listener) {
    loop {
        let first = tokio::select! {
            hint = listener.next() => hint,
            () = inner.feeds.emptied.notified() => {
                if inner.feeds.stops_listening() {
                    return;
                }
                continue;
            }
        };
        let mut changed = HashSet::new();
        let mut hint = Some(first);
        while let Some(next) = hint {
            match next {
                Hint::Changed(id) => {
                    changed.insert(id);
                }
                Hint::Missed => {
                    lock(&inner.feeds.state).owners.values().for_each(|of| of.missed.notify_one());
                }
                Hint::Claimable => {}
            }
            hint = if changed.len() < MAX_READS { listener.next_now() } else { None };
        }
        let mut reads = JoinSet::new();
        for id in changed {
            let inner = Arc::clone(&inner);
            reads.spawn(async move {
                let store = Arc::clone(&inner.store);
                // What cannot be read now is seen by the next look.
                if let Ok(Some(observed)) = inner.call(async move { store.get(id).await }).await {
                    let operation = &observed.operation;
                    if let Some(shared) = inner.feeds.of(operation.owner()) {
                        shared.offer(operation);
                    }
                }
            });
        }
        while reads.join_next().await.is_some() {}
    }
}

/// Looks through an owner's operations for as long as somebody follows its list.
async fn look(inner: Arc<Inner>, owner: Owner, shared: Arc<Shared>) {
    let mut whole = 0_u64;
    loop {
        let start = Instant::now();
        let latest = shared.begin_look();
        let mut query = ListQuery { limit: ListQuery::MAX_LIMIT, ..ListQuery::default() };
        // How long it takes to read; a call that fails says nothing of that.
        let mut took = Duration::ZERO;
        let is_whole = loop {
            match inner.list(owner.clone(), query.clone()).await {
                Ok(page) => {
                    page.operations.iter().for_each(|operation| shared.offer(operation));
                    query.before = page.next;
                    took = start.elapsed();
                }
                Err(_) => break false,
            }
            if query.before.is_none() {
                break true;
            }
        };
        if is_whole {
            shared.end_look(latest);
            whole += 1;
        }
        // The first look tells up to when things may have settled, and the second that they have.
        match whole {
            1 if is_whole => continue,
            2 => shared.begins_to_tell(),
            _ => {}
        }
        let rest = inner.settings.poll_interval.max(took.saturating_mul(REST));
        let asked_for = async {
            shared.missed.notified().await;
            // Hints may be lost again and again.
            sleep_until(start + took.saturating_mul(1 + SHORT_REST)).await;
        };
        let left = async {
            loop {
                shared.left.notified().await;
                if inner.feeds.is_left(&owner, &shared) {
                    return;
                }
            }
        };
        tokio::select! {
            () = sleep(rest) => {}
            () = asked_for => {}
            () = left => return,
        }
    }
}
