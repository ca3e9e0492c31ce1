//! A local copy of what another service has, fed by its events, to answer reads from.
//!
//! Each event has a position: the number that its service gave it, one more than that of the event before. So
//! a copy knows what it has, passes over what it was told before, and notices what it was not told.
//!
//! ```
//! use std::collections::HashMap;
//! use std::time::Duration;
//!
//! use respond_async::Timestamp;
//! use respond_async::read_model::{Model, Offered, ReadModel};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Default, Serialize, Deserialize)]
//! struct Names(HashMap<u64, String>);
//!
//! #[derive(Serialize, Deserialize)]
//! struct Named {
//!     id: u64,
//!     name: String,
//! }
//!
//! impl Model for Names {
//!     type Event = Named;
//!
//!     fn apply(&mut self, event: Named) {
//!         self.0.insert(event.id, event.name);
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let names = ReadModel::new(Names::default());
//! let at = Timestamp::from_unix_millis(1_700_000_000_000);
//! let ann = || Named { id: 7, name: "Ann".to_owned() };
//! assert_eq!(names.offer(1, at, ann()), Offered::Applied);
//! assert_eq!(names.offer(1, at, ann()), Offered::Duplicate);
//! assert_eq!(names.offer(3, at, ann()), Offered::Gap { expected: 2 });
//!
//! // Who wrote at position 1 reads what it wrote.
//! names.reached(1, Duration::from_secs(5)).await.unwrap();
//! assert_eq!(names.read(|names| names.0[&7].clone()), "Ann");
//! # }
//! ```

mod source;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

pub use self::source::{CatchUpError, EventPage, EventSource};
use crate::problem::{Problem, types};
use crate::time::{Clock, SystemClock, Timestamp};

/// What a read model holds, and how an event changes it.
pub trait Model: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What happens in the other service.
    type Event: Send;

    /// Takes an event in. It has been accepted elsewhere, so it cannot be refused here.
    fn apply(&mut self, event: Self::Event);
}

/// A read model as it was at some position: to begin from after a restart, or when events are missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot<M> {
    /// The position of the last event that is in it; 0 if none is.
    pub position: u64,
    /// When that event happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<Timestamp>,
    /// Where its source is to be read on, in the source's own count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
    /// What it holds.
    pub state: M,
}

/// An event with its place among those of its service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Positioned<E> {
    /// Its number, from 1, without gaps.
    pub position: u64,
    /// When it happened.
    pub time: Timestamp,
    /// What happened.
    pub event: E,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an event after a gap is not taken"]
pub enum Offered {
    /// It is in the model now.
    Applied,
    /// It was in the model before.
    Duplicate,
    /// Events before it are missing, from that position on; it was not taken.
    Gap {
        /// The position that comes next.
        expected: u64,
    },
}

/// A local copy, fed by events. A clone is the same.
pub struct ReadModel<M> {
    inner: Arc<Inner<M>>,
}

struct Inner<M> {
    held: RwLock<Held<M>>,
    /// That of what is held, sent before anybody else can write.
    position: watch::Sender<u64>,
    /// Held by who asks the source.
    turn: Mutex<()>,
    /// How many looks at the source were begun, and the last of these that brought the model up to date.
    looks: watch::Sender<(u64, u64)>,
}

struct Held<M> {
    snapshot: Snapshot<M>,
    /// When it was last known to have all that there is.
    confirmed: Option<Timestamp>,
}

impl<M> Clone for ReadModel<M> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<M> fmt::Debug for ReadModel<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadModel")
            .field("position", &*self.inner.position.borrow())
            .finish_non_exhaustive()
    }
}

impl<M: Model> ReadModel<M> {
    /// After how long a client may ask again for what is not there yet.
    pub const RETRY_AFTER: Duration = Duration::from_secs(1);

    /// A model that has seen no event.
    pub fn new(state: M) -> Self {
        Self::from_snapshot(Snapshot { position: 0, modified: None, cursor: None, state })
    }

    /// A model as it was.
    pub fn from_snapshot(snapshot: Snapshot<M>) -> Self {
        let position = watch::Sender::new(snapshot.position);
        let held = RwLock::new(Held { snapshot, confirmed: None });
        let inner =
            Inner { held, position, turn: Mutex::default(), looks: watch::Sender::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Takes an event in, if it is the next.
    pub fn offer(&self, position: u64, time: Timestamp, event: M::Event) -> Offered {
        let mut held = self.write();
        let expected = held.snapshot.position + 1;
        if position < expected {
            return Offered::Duplicate;
        }
        if position > expected {
            return Offered::Gap { expected };
        }
        held.snapshot.state.apply(event);
        held.snapshot.position = position;
        held.snapshot.modified = Some(time);
        self.inner.position.send_replace(position);
        Offered::Applied
    }

    /// Begins from a snapshot, if that is ahead. Says whether it was.
    pub fn restore(&self, snapshot: Snapshot<M>) -> bool {
        let mut held = self.write();
        let position = snapshot.position;
        let is_ahead = position > held.snapshot.position;
        if is_ahead {
            held.snapshot = snapshot;
            self.inner.position.send_replace(position);
        }
        is_ahead
    }

    /// The position of the last event that is in it.
    pub fn position(&self) -> u64 {
        *self.inner.position.borrow()
    }

    /// Reads it. Nothing is taken in meanwhile, so be quick.
    pub fn read<T>(&self, read: impl FnOnce(&M) -> T) -> T {
        read(&self.lock().snapshot.state)
    }

    /// It as it is, to be kept.
    pub fn snapshot(&self) -> Snapshot<M>
    where
        M: Clone,
    {
        self.lock().snapshot.clone()
    }

    /// Waits until it has the event of that position, so that a client reads what it wrote: up to `wait`,
    /// which is what the client's `Prefer: wait` says, within your bound.
    ///
    /// # Errors
    /// A 503 problem of the type [`NOT_CAUGHT_UP`](types::NOT_CAUGHT_UP). A service whose readers would rather
    /// have old data answers without it.
    pub async fn reached(&self, position: u64, wait: Duration) -> Result<(), Problem> {
        let mut now = self.inner.position.subscribe();
        let reached = async {
            while *now.borrow_and_update() < position {
                // Its sender is this.
                let _ = now.changed().await;
            }
        };
        let behind = || Problem::new(types::NOT_CAUGHT_UP).with_retry_after(Self::RETRY_AFTER);
        timeout(wait, reached).await.map_err(|_| behind())
    }

    /// Notes that it has all that there was at that time: its source says so, or has nothing more.
    pub fn confirm(&self, time: Timestamp) {
        let mut held = self.write();
        held.confirmed = held.confirmed.max(Some(time));
    }

    /// Says in an answer how old it may be: `Age`, the seconds since it was last known to have all that
    /// there is, or since its last event if that is later, and `Last-Modified`, the time of that event.
    pub fn freshness(&self, headers: &mut HeaderMap) {
        let (modified, confirmed) = {
            let held = self.lock();
            (held.snapshot.modified, held.confirmed)
        };
        let now = SystemClock.now();
        // An event is news too, unless the clock of its source is ahead.
        if let Some(time) = confirmed.max(modified.filter(|time| *time <= now)) {
            let age = now.duration_since(time).as_secs();
            headers.insert(header::AGE, HeaderValue::from(age));
        }
        // None is later than its answer, whatever the clock of its source (RFC 9110 §8.8.2.1).
        let modified = modified.map(|time| time.min(now).to_http_date());
        if let Some(date) = modified.and_then(|date| HeaderValue::try_from(date).ok()) {
            headers.insert(header::LAST_MODIFIED, date);
        }
    }

    #[cfg(feature = "amqp")]
    pub(crate) fn cursor(&self) -> Option<u64> {
        self.lock().snapshot.cursor
    }

    #[cfg(feature = "amqp")]
    pub(crate) fn move_cursor(&self, cursor: Option<u64>) {
        self.write().snapshot.cursor = cursor;
    }

    fn lock(&self) -> std::sync::RwLockReadGuard<'_, Held<M>> {
        self.inner.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Held<M>> {
        self.inner.held.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    pub(super) struct Sum(pub(super) u64);

    impl Model for Sum {
        type Event = u64;

        fn apply(&mut self, event: u64) {
            self.0 += event;
        }
    }

    pub(super) fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_millis(second * 1_000)
    }

    #[test]
    fn each_event_counts_once_and_in_order() {
        let sum = ReadModel::new(Sum::default());
        let offers = [(1, Offered::Applied), (2, Offered::Applied), (1, Offered::Duplicate)];
        for (position, offered) in offers {
            assert_eq!(sum.offer(position, at(10), position), offered);
        }
        assert_eq!(sum.offer(4, at(11), 4), Offered::Gap { expected: 3 });
        assert_eq!((sum.read(|sum| sum.0), sum.position()), (3, 2));
        // From a snapshot and the events since.
        let json = serde_json::to_string(&sum.snapshot()).unwrap();
        let again: ReadModel<Sum> = ReadModel::from_snapshot(serde_json::from_str(&json).unwrap());
        assert_eq!(again.offer(3, at(12), 3), Offered::Applied);
        assert_eq!(again.read(|sum| sum.0), 6);
        assert!(!again.restore(sum.snapshot()), "it is behind");
        assert!(sum.restore(again.snapshot()));
        assert_eq!(sum.snapshot(), again.snapshot());
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_reads_what_it_wrote() {
        let sum = ReadModel::new(Sum::default());
        let behind = sum.reached(1, Duration::from_secs(3)).await.unwrap_err();
        assert!(behind.is(types::NOT_CAUGHT_UP) && behind.retry_after().is_some());
        let waiting = tokio::spawn({
            let sum = sum.clone();
            async move { sum.reached(2, Duration::from_secs(3)).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(sum.offer(1, at(1), 1), Offered::Applied);
        assert_eq!(sum.offer(2, at(2), 1), Offered::Applied);
        waiting.await.unwrap().unwrap();
        sum.reached(1, Duration::ZERO).await.unwrap();
    }

    #[test]
    fn its_age_is_told() {
        let sum = ReadModel::new(Sum::default());
        let told = || {
            let mut headers = HeaderMap::new();
            sum.freshness(&mut headers);
            let text = |name| {
                headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap().to_owned())
            };
            (text(header::AGE), text(header::LAST_MODIFIED))
        };
        assert_eq!(told(), (None, None));
        assert_eq!(sum.offer(1, at(784_111_777), 1), Offered::Applied);
        assert_eq!(told().1.as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert!(
            told().0.unwrap().parse::<u64>().unwrap() > 1_000_000,
            "nobody has said more since"
        );
        sum.confirm(SystemClock.now());
        assert_eq!(told().0.as_deref(), Some("0"));
        // By a source whose clock is ahead.
        let ahead = SystemClock.now() + Duration::from_secs(3_600);
        assert_eq!(sum.offer(2, ahead, 1), Offered::Applied);
        let modified = Timestamp::from_http_date(&told().1.unwrap()).unwrap();
        assert!(modified <= SystemClock.now());
    }

    /// Its events come without a pause, so that nobody says that these are all.
    #[test]
    fn an_event_is_news_too() {
        let sum = ReadModel::new(Sum::default());
        let now = SystemClock.now();
        let hour = Duration::from_secs(3_600);
        let age = || {
            let mut headers = HeaderMap::new();
            sum.freshness(&mut headers);
            headers[header::AGE].to_str().unwrap().parse::<u64>().unwrap()
        };
        sum.confirm(Timestamp::from_unix_millis(now.as_unix_millis() - 3_600_000));
        assert_eq!(sum.offer(1, now + hour, 1), Offered::Applied);
        assert!(age() >= 3_600, "a clock that is ahead says nothing");
        assert_eq!(sum.offer(2, now, 1), Offered::Applied);
        assert!(age() < 60);
    }

    /// Two that feed it, one of which is interrupted between the model and who waits for it.
    #[test]
    fn its_position_never_goes_back() {
        let sum = ReadModel::new(Sum::default());
        let next = std::sync::atomic::AtomicU64::new(1);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while next.load(Ordering::Relaxed) < 20_000 {
                        let expected = sum.lock().snapshot.position + 1;
                        let _ = sum.offer(expected, at(1), 1);
                        let held = sum.lock();
                        assert!(sum.position() >= held.snapshot.position);
                        next.fetch_max(held.snapshot.position, Ordering::Relaxed);
                    }
                });
            }
        });
    }
}
