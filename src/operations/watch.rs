//! Word of an operation's changes for all who wait for them.
//!
//! However many wait, each operation that is waited for has one reader, which looks when a hint names
//! it, and now and then without; and all readers of a process have one subscription of the store's
//! hints. Both end when nobody waits any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::Inner;
use super::calls::{store_problem, unavailable};
use super::hints::Listener;
use crate::lock::lock;
use crate::operation::OperationId;
use crate::problem::Problem;
use crate::store::{Hint, Observed};

/// What a reader saw last.
#[derive(Debug, Clone)]
enum Seen {
    /// It has not looked yet.
    Nothing,
    Operation(Observed),
    /// It is not there: removed, or expired.
    Gone,
    /// The store could not say.
    Away(Problem),
}

/// Word of one operation's changes.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: watch::Receiver<Seen>,
}

/// The operations that are waited for.
#[derive(Debug, Default)]
pub(super) struct Watches {
    state: Mutex<State>,
    /// Told when there is none any more.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    readers: HashMap<OperationId, Reader>,
    /// Whether there is a task that passes hints on.
    is_listening: bool,
}

#[derive(Debug)]
struct Reader {
    seen: Arc<watch::Sender<Seen>>,
    wake: Arc<Notify>,
}

impl Watch {
    /// Waits until the operation has a later revision than `seen`, and gives it; none if it is gone.
    ///
    /// Each revision is given once at the most, in their order; of several that follow each other
    /// quickly the last. It is never given before it is there, and what comes after the call is never
    /// missed.
    ///
    /// # Errors
    /// A problem, if a look that came after this call failed. The next call goes on, unless it [is over](Self::is_over).
    ///
    /// # Cancel safety
    /// A future that is dropped has missed nothing.
    pub(crate) async fn newer_than(&mut self, seen: u64) -> Result<Option<Observed>, Problem> {
        let mut is_news = false;
        loop {
            match &*self.seen.borrow_and_update() {
                Seen::Operation(observed) if observed.operation.revision() > seen => {
                    return Ok(Some(observed.clone()));
                }
                Seen::Gone => return Ok(None),
                Seen::Away(problem) if is_news => return Err(problem.clone()),
                _ => {}
            }
            if self.seen.changed().await.is_err() {
                // There is no reader any more: it saw the end, or panicked with the store.
                return match &*self.seen.borrow() {
                    Seen::Operation(observed) if observed.operation.revision() > seen => {
                        Ok(Some(observed.clone()))
                    }
                    Seen::Gone => Ok(None),
                    Seen::Away(problem) => Err(problem.clone()),
                    _ => Err(unavailable()),
                };
            }
            is_news = true;
        }
    }

    /// Whether there will be no more.
    pub(crate) fn is_over(&self) -> bool {
        self.seen.has_changed().is_err()
    }

    /// The operation as it was seen last, no longer ago than the poll interval.
    pub(crate) fn latest(&self) -> Option<Observed> {
        match &*self.seen.borrow() {
            Seen::Operation(observed) => Some(observed.clone()),
            _ => None,
        }
    }
}

impl Watches {
    /// Ends the reader if nobody waits for that operation any more.
    fn is_left(&self, id: OperationId, seen: &watch::Sender<Seen>) -> bool {
        let mut state = lock(&self.state);
        // Who comes takes its receiver under the same lock.
        let is_left = seen.receiver_count() == 0;
        if is_left {
            self.remove(&mut state, id);
        }
        is_left
    }

    fn remove(&self, state: &mut State, id: OperationId) {
        state.readers.remove(&id);
        if state.readers.is_empty() {
            self.emptied.notify_one();
        }
    }

    fn pass_on(&self, hint: Hint) {
        let state = lock(&self.state);
        match hint {
            Hint::Changed(id) => {
                state.readers.get(&id).into_iter().for_each(|reader| reader.wake.notify_one());
            }
            Hint::Missed => state.readers.values().for_each(|reader| reader.wake.notify_one()),
            Hint::Claimable => {}
        }
    }

    /// Says that the task that passes hints on may end.
    fn stops_listening(&self) -> bool {
        let mut state = lock(&self.state);
        state.is_listening &= !state.readers.is_empty();
        !state.is_listening
    }
}

impl Inner {
    /// Word of an operation's changes from now on.
    pub(super) fn watch(self: &Arc<Self>, id: OperationId) -> Watch {
        let mut state = lock(&self.watches.state);
        if let Some(reader) = state.readers.get(&id) {
            let seen = reader.seen.subscribe();
            reader.wake.notify_one();
            return Watch { seen };
        }
        if !state.is_listening {
            // Listened to before the first look, so that no change falls in between.
            if let Some(listener) = Listener::new(&self.store, self.settings.poll_interval) {
                state.is_listening = true;
                self.runtime.spawn(listen(Arc::clone(self), listener));
            }
        }
        let (sender, seen) = watch::channel(Seen::Nothing);
        let reader = Reader { seen: Arc::new(sender), wake: Arc::default() };
        self.runtime.spawn(read(
            Arc::clone(self),
            id,
            Arc::clone(&reader.seen),
            Arc::clone(&reader.wake),
        ));
        state.readers.insert(id, reader);
        Watch { seen }
    }
}

async fn listen(inner: Arc<Inner>, mut listener: Listener) {
    loop {
        tokio::select! {
            hint = listener.next() => inner.watches.pass_on(hint),
            () = inner.watches.emptied.notified() => {
                if inner.watches.stops_listening() {
                    return;
                }
            }
        }
    }
}

/// Looks at an operation for as long as it lives and somebody waits for it.
async fn read(
    inner: Arc<Inner>,
    id: OperationId,
    seen: Arc<watch::Sender<Seen>>,
    wake: Arc<Notify>,
) {
    loop {
        let store = Arc::clone(&inner.store);
        let now = match inner.detached(Box::pin(async move { store.get(id).await })).await {
            Some(Ok(Some(observed))) => Seen::Operation(observed),
            Some(Ok(None)) => Seen::Gone,
            Some(Err(error)) => Seen::Away(store_problem(&error)),
            None => Seen::Away(unavailable()),
        };
        let is_over = match &now {
            Seen::Operation(observed) => observed.operation.status().is_finished(),
            Seen::Gone => true,
            Seen::Nothing | Seen::Away(_) => false,
        };
        seen.send_if_modified(|before| {
            let is_news = match (&*before, &now) {
                (Seen::Operation(before), Seen::Operation(now)) => {
                    now.operation.revision() > before.operation.revision()
                }
                _ => true,
            };
            *before = now;
            is_news
        });
        if is_over {
            // What is finished does not change, and what is gone does not come back.
            inner.watches.remove(&mut lock(&inner.watches.state), id);
            return;
        }
        tokio::select! {
            () = wake.notified() => {}
            () = sleep(inner.settings.poll_interval) => {}
            () = seen.closed() => {
                if inner.watches.is_left(id, &seen) {
                    return;
                }
            }
        }
    }
}
