//! What event streams tell.
//!
//! Each revision is told once at the most, in their order, and the last one always. What follows each other
//! more quickly than it is read, or than the store is looked at, is told as the last of it.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tokio::time::sleep;

use super::cursor::Cursor;
use super::pump::Pump;
use crate::operation::{Operation, OperationId, Owner};
use crate::operations::{Feed, Observer, before};
use crate::problem::Problem;
use crate::respond::{Event, OperationView};
use crate::store::{ListQuery, Page};
use crate::time::Timestamp;

/// What a client that comes again has seen
/// ([HTML standard](https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header)).
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How many operations that changed while a client was away are told of from one look.
const MAX_CAUGHT_UP: usize = 1_000;
/// After how long a store that failed is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What a client says that it has seen. It may say anything.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(LAST_EVENT_ID)?.to_str().ok()
}

/// The revision that a client of a monitor's stream has seen; none if that is no number.
pub(super) fn last_revision(headers: &HeaderMap) -> Option<u64> {
    let text = last_event_id(headers)?;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

pub(super) fn event(observer: &Observer, operation: &Operation, id: &str) -> Event {
    OperationView::new(operation, operation.updated(), observer.urls()).event(id)
}

/// Tells of an operation's revisions after `seen`, until it has finished or is gone.
pub(super) async fn operation(
    observer: Observer,
    mut pump: Pump,
    owner: Owner,
    id: OperationId,
    mut seen: u64,
) -> Option<()> {
    let mut watch = observer.watch(id);
    loop {
        let now = match pump.beating(watch.newer_than(seen)).await? {
            Ok(now) => now.filter(|now| *now.operation.owner() == owner)?,
            Err(_) if watch.is_over() => return None,
            // The store is away. What happens meanwhile is told when it is back.
            Err(_) => continue,
        };
        let mut told = now;
        pump.send(|| {
            // When there is room at last, there may be a later one.
            told = watch.latest().unwrap_or_else(|| told.clone());
            let revision = told.operation.revision();
            event(&observer, &told.operation, &revision.to_string())
        })
        .await?;
        seen = told.operation.revision();
        if told.operation.status().is_finished() {
            return Some(());
        }
    }
}

/// Tells of the changes of an owner's operations: first those of a page, or those after a cursor.
pub(super) async fn list(
    observer: Observer,
    mut pump: Pump,
    owner: Owner,
    query: ListQuery,
    cursor: Option<Cursor>,
) -> Option<()> {
    let mut feed = observer.feed(&owner);
    pump.beating(feed.ready()).await?;
    let cursor_of_none = Cursor::new(Timestamp::MIN);
    let mut list = List { observer, owner, query, feed, cursor: cursor_of_none, told: 0 };
    let mut told = list.feed.told();
    // Boxed, so that the stream need not have room for them while it waits.
    match cursor {
        Some(cursor) => {
            list.cursor = cursor;
            Box::pin(list.catch_up(&mut pump, told.settled)).await?;
        }
        None => Box::pin(list.page(&mut pump, told.settled)).await?,
    }
    if list.told == 0 {
        // Whoever is cut off now comes again with this, and hears of what happens meanwhile. An event without data
        // is none, but its id counts
        // (https://html.spec.whatwg.org/multipage/server-sent-events.html#dispatchMessage).
        list.cursor.settle(told.settled);
        let id = list.cursor.encode();
        pump.send(|| Event::new().id(&id)).await?;
    }
    loop {
        let Ok(news) = pump.beating(list.feed.next()).await? else {
            told = list.feed.told();
            Box::pin(list.catch_up(&mut pump, told.settled)).await?;
            continue;
        };
        let news = news?;
        // What was told before the last look was seen by it.
        if news.number > told.number && !list.cursor.has(&news.operation) {
            list.tell(&mut pump, &news.operation, news.settled).await?;
        }
    }
}

struct List {
    observer: Observer,
    owner: Owner,
    query: ListQuery,
    feed: Feed,
    cursor: Cursor,
    /// How many events were sent.
    told: u64,
}

impl List {
    async fn tell(
        &mut self,
        pump: &mut Pump,
        operation: &Operation,
        settled: Timestamp,
    ) -> Option<()> {
        self.cursor.show(operation, settled);
        if self.query.kind.as_ref().is_some_and(|kind| operation.kind() != kind) {
            return Some(());
        }
        self.told += 1;
        pump.send(|| event(&self.observer, operation, &self.cursor.encode())).await
    }

    /// Tells of several, the one that changed longest ago first: so all that bears an earlier time than the
    /// one that is told of has been shown.
    async fn tell_all(
        &mut self,
        pump: &mut Pump,
        operations: BTreeMap<(Timestamp, OperationId), Operation>,
        settled: Timestamp,
    ) -> Option<()> {
        for ((updated, _), operation) in operations {
            let earlier = before(updated, Duration::from_millis(1));
            self.tell(pump, &operation, settled.min(earlier)).await?;
        }
        Some(())
    }

    /// Tells of the page that the query asks for.
    async fn page(&mut self, pump: &mut Pump, settled: Timestamp) -> Option<()> {
        let page = self.look(pump, self.query.clone()).await?;
        let operations = page.operations.into_iter();
        let by_time = operations.map(|one| ((one.updated(), one.id()), one)).collect();
        self.tell_all(pump, by_time, settled).await
    }

    /// Tells of all that has changed since the cursor.
    async fn catch_up(&mut self, pump: &mut Pump, settled: Timestamp) -> Option<()> {
        let mut told_up_to = None;
        loop {
            let mut missing = BTreeMap::new();
            let mut is_all = true;
            let mut query = ListQuery { limit: ListQuery::MAX_LIMIT, ..ListQuery::default() };
            loop {
                let page = self.look(pump, query.clone()).await?;
                for operation in page.operations {
                    self.cursor.learn(&operation);
                    let place = (operation.updated(), operation.id());
                    if self.cursor.is_new(&operation) && Some(place) > told_up_to {
                        missing.insert(place, operation);
                    }
                    if missing.len() > MAX_CAUGHT_UP {
                        missing.pop_last();
                        is_all = false;
                    }
                }
                query.before = page.next;
                if query.before.is_none() {
                    break;
                }
            }
            self.cursor.forget_the_gone();
            told_up_to = missing.last_key_value().map(|(place, _)| *place).max(told_up_to);
            self.tell_all(pump, missing, settled).await?;
            if is_all {
                return Some(());
            }
        }
    }

    /// A page, as soon as the store can give it.
    async fn look(&self, pump: &mut Pump, query: ListQuery) -> Option<Page> {
        let asked = async {
            loop {
                let page: Result<_, Problem> = self.observer.list(&self.owner, query.clone()).await;
                match page {
                    Ok(page) => return page,
                    Err(_) => sleep(STORE_PAUSE).await,
                }
            }
        };
        pump.beating(asked).await
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_revision_is_digits_and_nothing_else() {
        let mut headers = HeaderMap::new();
        assert_eq!(last_revision(&headers), None);
        for (text, revision) in [
            (&b"3"[..], Some(3)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"", None),
            (b"+3", None),
            (b"-1", None),
            (b"3 4", None),
            (b"\xFF", None),
        ] {
            headers.insert(LAST_EVENT_ID, HeaderValue::from_bytes(text).unwrap());
            assert_eq!(last_revision(&headers), revision, "{text:?}");
        }
    }
}
