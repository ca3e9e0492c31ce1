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

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

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

/// Some events of a source, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventPage<E> {
    /// The events.
    pub events: Vec<Positioned<E>>,
    /// Whether there were more after them.
    pub has_more: bool,
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

/// A source of events that is asked: a table of events, a service.
pub trait EventSource<M: Model>: Sync {
    /// Why it cannot answer.
    type Error;

    /// The first events after that position.
    fn after(
        &self,
        position: u64,
    ) -> impl Future<Output = Result<EventPage<M::Event>, Self::Error>> + Send;
}

/// Why a read model could not be brought up to date.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatchUpError<E> {
    /// Its source has not all events from that position on: it has to be [restored](ReadModel::restore).
    #[error("events are missing from position {0} on")]
    Gap(u64),
    /// Its source cannot answer.
    #[error("the source of events cannot answer")]
    Source(E),
    /// Its source did not answer in time, neither this caller nor others.
    #[error("the source of events did not answer in time")]
    Overdue,
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
        let behind = || Problem::new(types::NOT_CAUGHT_UP).retry_after(Self::RETRY_AFTER);
        timeout(wait, reached).await.map_err(|_| behind())
    }

    /// Notes that it has all that there was at that time: its source says so, or has nothing more.
    pub fn confirm(&self, time: Timestamp) {
        let mut held = self.write();
        held.confirmed = held.confirmed.max(Some(time));
    }

    /// Says in an answer how old it may be: `Age`, the seconds since it was last known to have all that
    /// there is, and `Last-Modified`, the time of the last event.
    pub fn freshness(&self, headers: &mut HeaderMap) {
        let (modified, confirmed) = {
            let held = self.lock();
            (held.snapshot.modified, held.confirmed)
        };
        let now = SystemClock.now();
        if let Some(time) = confirmed.or(modified) {
            let age = now.duration_since(time).as_secs();
            headers.insert(header::AGE, HeaderValue::from(age));
        }
        // None is later than its answer, whatever the clock of its source (RFC 9110 §8.8.2.1).
        let modified = modified.map(|time| time.min(now).to_http_date());
        if let Some(date) = modified.and_then(|date| HeaderValue::try_from(date).ok()) {
            headers.insert(header::LAST_MODIFIED, date);
        }
    }

    /// Takes in what its source has, and returns once it has all that there was when this was called. Any number
    /// of callers cost one look at a time, and share what it finds.
    ///
    /// `wait` bounds a look, however many pages it takes, and before it the wait for one that was under way
    /// already: so this returns after twice as long at the latest. A source that takes longer is never caught up
    /// with.
    ///
    /// # Errors
    /// See [`CatchUpError`]. What was taken in before stays.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing; who waits meanwhile looks next.
    pub async fn catch_up<S: EventSource<M>>(
        &self,
        source: &S,
        wait: Duration,
    ) -> Result<(), CatchUpError<S::Error>> {
        let Inner { turn, looks, .. } = &*self.inner;
        let (begun, _) = *looks.borrow();
        // A look that began after this was called has all that this asks for.
        let has_all = |(_, last_good): &(u64, u64)| *last_good > begun;
        let own = async {
            let held = timeout(wait, turn.lock()).await;
            if has_all(&looks.borrow()) {
                return Ok(());
            }
            if held.is_ok() {
                let look = timeout(wait, self.look(source)).await;
                return look.unwrap_or(Err(CatchUpError::Overdue));
            }
            // It may be others' turn with such a look. To cut it short would be to wait for it in vain.
            if looks.borrow().0 > begun {
                let _ = timeout(wait, turn.lock()).await;
            }
            Err(CatchUpError::Overdue)
        };
        let mut others = looks.subscribe();
        tokio::select! {
            biased;
            // Its sender is this.
            _ = others.wait_for(has_all) => Ok(()),
            looked = own => looked,
        }
    }

    /// Who looks has the turn.
    async fn look<S: EventSource<M>>(&self, source: &S) -> Result<(), CatchUpError<S::Error>> {
        let (looks, asked) = (&self.inner.looks, SystemClock.now());
        let this = looks.borrow().0 + 1;
        looks.send_modify(|(begun, _)| *begun = this);
        loop {
            let before = self.position();
            let page = source.after(before).await.map_err(CatchUpError::Source)?;
            let EventPage { events, has_more } = page;
            for Positioned { position, time, event } in events {
                if let Offered::Gap { expected } = self.offer(position, time, event) {
                    return Err(CatchUpError::Gap(expected));
                }
            }
            if !has_more {
                break;
            }
            // It has more and does not give it.
            if self.position() == before {
                return Err(CatchUpError::Gap(before + 1));
            }
        }
        self.confirm(asked);
        looks.send_modify(|(_, last_good)| *last_good = this);
        Ok(())
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    struct Sum(u64);

    impl Model for Sum {
        type Event = u64;

        fn apply(&mut self, event: u64) {
            self.0 += event;
        }
    }

    fn at(second: i64) -> Timestamp {
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
        assert!(behind.is(types::NOT_CAUGHT_UP) && behind.retry_delay().is_some());
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

    const WAIT: Duration = Duration::from_secs(10);

    struct Table {
        events: std::sync::Mutex<Vec<u64>>,
        asked: AtomicUsize,
        lost: u64,
    }

    impl EventSource<Sum> for Table {
        type Error = ();

        async fn after(&self, position: u64) -> Result<EventPage<u64>, ()> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
            let events = self.events.lock().unwrap();
            let all = (1..).zip(events.iter());
            let all =
                all.map(|(position, event)| Positioned { position, time: at(1), event: *event });
            let mut events: Vec<_> =
                all.filter(|next| next.position > position.max(self.lost)).collect();
            let has_more = events.len() > 2;
            events.truncate(2);
            Ok(EventPage { events, has_more })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_readers_cost_one_look() {
        let table = Table { events: vec![1; 5].into(), asked: AtomicUsize::new(0), lost: 0 };
        let table = Arc::new(table);
        let sum = ReadModel::new(Sum::default());
        let readers: Vec<_> = (0..100)
            .map(|_| {
                let (sum, table) = (sum.clone(), table.clone());
                tokio::spawn(async move { sum.catch_up(&*table, WAIT).await })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap().unwrap();
        }
        assert_eq!(sum.read(|sum| sum.0), 5);
        // Those that came while the first looked share a second look.
        assert!(table.asked.load(Ordering::Relaxed) <= 4, "{:?}", table.asked);
        table.events.lock().unwrap().push(7);
        sum.catch_up(&*table, WAIT).await.unwrap();
        assert_eq!(sum.read(|sum| sum.0), 12);

        let gone = Table { events: vec![1; 5].into(), asked: AtomicUsize::new(0), lost: 3 };
        let error = ReadModel::new(Sum::default()).catch_up(&gone, WAIT).await;
        assert_eq!(error, Err(CatchUpError::Gap(1)));
    }

    struct Odd(Option<Duration>);

    impl EventSource<Sum> for Odd {
        type Error = ();

        async fn after(&self, _: u64) -> Result<EventPage<u64>, ()> {
            if let Some(pause) = self.0 {
                tokio::time::sleep(pause).await;
                return Err(());
            }
            Ok(EventPage { events: Vec::new(), has_more: true })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_gives_nothing_is_not_asked_for_ever() {
        let sum = ReadModel::new(Sum::default());
        assert_eq!(sum.catch_up(&Odd(None), WAIT).await, Err(CatchUpError::Gap(1)));
        // Each of those that wait would ask one that is away.
        let began = tokio::time::Instant::now();
        let away = Arc::new(Odd(Some(Duration::from_secs(4))));
        let readers: Vec<_> = (0..100)
            .map(|_| {
                let (sum, away) = (sum.clone(), away.clone());
                tokio::spawn(async move { sum.catch_up(&*away, WAIT).await })
            })
            .collect();
        let mut overdue = 0;
        for reader in readers {
            overdue += u32::from(reader.await.unwrap() == Err(CatchUpError::Overdue));
        }
        // Three have asked, the last of them two seconds before the others' time was over.
        assert_eq!((began.elapsed(), overdue), (WAIT + Duration::from_secs(2), 97));
    }

    struct Slow;

    impl EventSource<Sum> for Slow {
        type Error = ();

        async fn after(&self, _: u64) -> Result<EventPage<u64>, ()> {
            tokio::time::sleep(Duration::from_secs(6)).await;
            Ok(EventPage { events: Vec::new(), has_more: false })
        }
    }

    /// More than half of the time that they wait.
    #[tokio::test(start_paused = true)]
    async fn a_look_that_takes_long_is_not_cut_short_by_those_who_came_late() {
        let sum = ReadModel::new(Sum::default());
        let mut readers = Vec::new();
        // A hundred at once, and then some each second.
        for at_once in std::iter::once(100).chain(std::iter::repeat_n(5, 60)) {
            for _ in 0..at_once {
                let sum = sum.clone();
                readers.push(tokio::spawn(async move {
                    let began = tokio::time::Instant::now();
                    (sum.catch_up(&Slow, WAIT).await, began.elapsed())
                }));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for reader in readers {
            let (caught_up, took) = reader.await.unwrap();
            assert_eq!(caught_up, Ok(()));
            assert!(took <= Duration::from_secs(12), "{took:?}");
        }
    }
}
