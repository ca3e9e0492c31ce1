//! Word that something changed, from whoever wrote to whoever waits, without a runtime.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use crate::lock::lock;
use crate::operation::{Operation, OperationId, Status};

/// How many hints a subscriber may be behind before it is told [`Hint::Missed`] in their place.
pub const MAX_PENDING_HINTS: usize = 1_024;

/// For how many subscribers there is room before those who have left are looked for.
const MIN_SUBSCRIBERS: usize = 16;

/// That something changed. A hint may be lost, repeated, late or out of order: it says where to look,
/// never what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// This operation may have changed.
    Changed(OperationId),
    /// There may be work to claim.
    Claimable,
    /// Hints were lost: any operation may have changed.
    Missed,
}

/// A stream of [`Hint`]s, from the moment at which it was made.
pub trait Hints: fmt::Debug + Send {
    /// The next hint. None if the store will give no more, as one whose hints cannot end never says.
    fn poll_hint(&mut self, cx: &mut Context<'_>) -> Poll<Option<Hint>>;
}

/// Passes each hint on to every subscriber of this process.
#[derive(Debug, Default)]
pub(super) struct Hub(Mutex<Vec<Weak<Mutex<Queue>>>>);

#[derive(Debug, Default)]
struct Queue {
    changed: VecDeque<OperationId>,
    claimable: bool,
    missed: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Subscription(Arc<Mutex<Queue>>);

/// Whether a worker may claim it, at once or after its delay.
pub(super) fn waits_for_a_worker(operation: &Operation) -> bool {
    operation.status() == Status::Pending && operation.lease_expires().is_none()
}

impl Hub {
    pub(super) fn subscribe(&self) -> Box<dyn Hints> {
        let queue = Arc::default();
        let mut subscribers = lock(&self.0);
        if subscribers.len() == subscribers.capacity() {
            // On a store that nobody writes to nobody else clears away those who have left.
            subscribers.retain(|subscriber| subscriber.strong_count() > 0);
            let live = subscribers.len();
            subscribers.reserve(live.max(MIN_SUBSCRIBERS));
        }
        subscribers.push(Arc::downgrade(&queue));
        Box::new(Subscription(queue))
    }

    /// Whether there is any subscriber.
    #[cfg(feature = "sqlite")]
    pub(super) fn is_listened_to(&self) -> bool {
        lock(&self.0).iter().any(|subscriber| subscriber.strong_count() > 0)
    }

    /// Tells that the operation is new or has changed, and that it waits for a worker, if it does.
    pub(super) fn publish(&self, operation: &Operation) {
        self.send(Hint::Changed(operation.id()));
        if waits_for_a_worker(operation) {
            self.send(Hint::Claimable);
        }
    }

    /// Tells every subscriber.
    pub(super) fn send(&self, hint: Hint) {
        let mut wakers = Vec::new();
        lock(&self.0).retain(|subscriber| {
            let Some(queue) = subscriber.upgrade() else { return false };
            let mut queue = lock(&queue);
            match hint {
                Hint::Claimable => queue.claimable = true,
                Hint::Missed => queue.missed = true,
                Hint::Changed(id) => queue.changed.push_back(id),
            }
            if queue.missed || queue.changed.len() > MAX_PENDING_HINTS {
                // What was missed may be anything, these among it.
                *queue = Queue { missed: true, waker: queue.waker.take(), ..Queue::default() };
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
        if std::mem::take(&mut queue.claimable) {
            return Poll::Ready(Some(Hint::Claimable));
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
    use crate::operation::NewOperation;
    use crate::time::Timestamp;

    fn id(number: u64) -> OperationId {
        let millis = i64::try_from(number).unwrap();
        OperationId::from_parts(Timestamp::from_unix_millis(millis), [0; 10])
    }

    fn changed(number: u64) -> Hint {
        Hint::Changed(id(number))
    }

    fn poll(hints: &mut Box<dyn Hints>) -> Poll<Option<Hint>> {
        hints.poll_hint(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn each_subscriber_gets_each_hint_in_order() {
        let hub = Hub::default();
        let (mut one, mut two) = (hub.subscribe(), hub.subscribe());
        hub.send(changed(1));
        hub.send(changed(2));
        let mut late = hub.subscribe();
        for hints in [&mut one, &mut two] {
            assert_eq!(poll(hints), Poll::Ready(Some(changed(1))));
            assert_eq!(poll(hints), Poll::Ready(Some(changed(2))));
            assert_eq!(poll(hints), Poll::Pending);
        }
        assert_eq!(poll(&mut late), Poll::Pending);
    }

    #[test]
    fn who_is_too_far_behind_is_told_so_once() {
        let hub = Hub::default();
        let mut slow = hub.subscribe();
        for number in 0..MAX_PENDING_HINTS as u64 * 3 {
            hub.send(changed(number));
        }
        assert_eq!(poll(&mut slow), Poll::Ready(Some(Hint::Missed)));
        assert_eq!(poll(&mut slow), Poll::Pending);
        hub.send(changed(7));
        assert_eq!(poll(&mut slow), Poll::Ready(Some(changed(7))));
    }

    #[test]
    fn word_of_work_is_given_once_however_often_it_came() {
        let hub = Hub::default();
        let mut hints = hub.subscribe();
        let pending = NewOperation::new(id(1)).accept(Timestamp::from_unix_millis(1));
        hub.publish(&pending);
        hub.publish(&pending);
        assert_eq!(poll(&mut hints), Poll::Ready(Some(Hint::Claimable)));
        for _ in 0..2 {
            assert_eq!(poll(&mut hints), Poll::Ready(Some(changed(1))));
        }
        let held = NewOperation::new(id(2)).held(std::time::Duration::from_secs(1), false);
        hub.publish(&held.accept(Timestamp::from_unix_millis(1)));
        assert_eq!(poll(&mut hints), Poll::Ready(Some(changed(2))));
        assert_eq!(poll(&mut hints), Poll::Pending);
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let hub = Hub::default();
        drop(hub.subscribe());
        hub.send(changed(1));
        assert!(lock(&hub.0).is_empty());
    }

    #[test]
    fn those_who_come_and_go_leave_nothing_where_nobody_writes() {
        let hub = Hub::default();
        let stays: Vec<_> = (0..100).map(|_| hub.subscribe()).collect();
        for _ in 0..10_000 {
            drop(hub.subscribe());
        }
        assert!(lock(&hub.0).len() <= stays.len() * 4, "{}", lock(&hub.0).len());
        drop(stays);
        for _ in 0..1_000 {
            drop(hub.subscribe());
        }
        assert!(lock(&hub.0).len() <= 500, "{}", lock(&hub.0).len());
    }
}
