//! Word that something changed, from whoever wrote to whoever waits, without a runtime.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use crate::operation::OperationId;

/// How many hints a subscriber may be behind before it is told [`Hint::Missed`] in their place.
pub const MAX_PENDING_HINTS: usize = 1_024;

/// That something changed. A hint may be lost, repeated, late or out of order: it says where to look,
/// never what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// This operation may have changed.
    Changed(OperationId),
    /// Hints were lost: any operation may have changed.
    Missed,
}

/// A stream of [`Hint`]s, from the moment at which it was made.
pub trait Hints: fmt::Debug + Send {
    /// The next hint; none once the store will give no more.
    fn poll_hint(&mut self, cx: &mut Context<'_>) -> Poll<Option<Hint>>;
}

/// Passes each hint on to every subscriber of this process.
#[derive(Debug, Default)]
pub(super) struct Hub(Mutex<Vec<Weak<Mutex<Queue>>>>);

#[derive(Debug, Default)]
struct Queue {
    changed: VecDeque<OperationId>,
    missed: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Subscription(Arc<Mutex<Queue>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(super) fn subscribe(&self) -> Box<dyn Hints> {
        let queue = Arc::default();
        lock(&self.0).push(Arc::downgrade(&queue));
        Box::new(Subscription(queue))
    }

    pub(super) fn publish(&self, id: OperationId) {
        let mut wakers = Vec::new();
        lock(&self.0).retain(|subscriber| {
            let Some(queue) = subscriber.upgrade() else { return false };
            let mut queue = lock(&queue);
            if queue.changed.len() == MAX_PENDING_HINTS {
                queue.changed.clear();
                queue.missed = true;
            }
            if !queue.missed {
                queue.changed.push_back(id);
            }
            wakers.extend(queue.waker.take());
            true
        });
        // Outside the locks: a waker may run whatever it likes.
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Hints for Subscription {
    fn poll_hint(&mut self, cx: &mut Context<'_>) -> Poll<Option<Hint>> {
        let mut queue = lock(&self.0);
        if std::mem::take(&mut queue.missed) {
            return Poll::Ready(Some(Hint::Missed));
        }
        if let Some(id) = queue.changed.pop_front() {
            return Poll::Ready(Some(Hint::Changed(id)));
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn id(number: u64) -> OperationId {
        let millis = i64::try_from(number).unwrap();
        OperationId::from_parts(Timestamp::from_unix_millis(millis), [0; 10])
    }

    fn poll(hints: &mut Box<dyn Hints>) -> Poll<Option<Hint>> {
        hints.poll_hint(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn each_subscriber_gets_each_hint_in_order() {
        let hub = Hub::default();
        let (mut one, mut two) = (hub.subscribe(), hub.subscribe());
        hub.publish(id(1));
        hub.publish(id(2));
        let mut late = hub.subscribe();
        for hints in [&mut one, &mut two] {
            assert_eq!(poll(hints), Poll::Ready(Some(Hint::Changed(id(1)))));
            assert_eq!(poll(hints), Poll::Ready(Some(Hint::Changed(id(2)))));
            assert_eq!(poll(hints), Poll::Pending);
        }
        assert_eq!(poll(&mut late), Poll::Pending);
    }

    #[test]
    fn who_is_too_far_behind_is_told_so_once() {
        let hub = Hub::default();
        let mut slow = hub.subscribe();
        for number in 0..MAX_PENDING_HINTS as u64 * 3 {
            hub.publish(id(number));
        }
        assert_eq!(poll(&mut slow), Poll::Ready(Some(Hint::Missed)));
        assert_eq!(poll(&mut slow), Poll::Pending);
        hub.publish(id(7));
        assert_eq!(poll(&mut slow), Poll::Ready(Some(Hint::Changed(id(7)))));
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let hub = Hub::default();
        drop(hub.subscribe());
        hub.publish(id(1));
        assert!(lock(&hub.0).is_empty());
    }
}
