//! Events that are asked for: many who want to be up to date cost one look at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{Inner, Model, Offered, Positioned, ReadModel};
use crate::time::{Clock, SystemClock};

/// Some events of a source, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventPage<E> {
    /// The events.
    pub events: Vec<Positioned<E>>,
    /// Whether there were more after them.
    pub has_more: bool,
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

impl<M: Model> ReadModel<M> {
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
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::tests::{Sum, at};
    use super::*;

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
