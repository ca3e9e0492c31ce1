//! What a task that serves a stream may ask, without keeping the operations open.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::feed::Feed;
use super::watch::Watch;
use super::{Inner, Operations, pace};
use crate::operation::{OperationId, Owner};
use crate::problem::Problem;
use crate::respond::MonitorUrls;
use crate::store::{ListQuery, Page};

/// The operations, as they are seen by who only looks.
#[derive(Debug, Clone)]
pub(crate) struct Observer {
    inner: Arc<Inner>,
}

/// What a stream may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamBounds {
    pub(crate) heartbeat: Duration,
    pub(crate) stall_limit: Duration,
    pub(crate) lifetime: Duration,
}

impl Operations {
    pub(crate) fn observer(&self) -> Observer {
        Observer { inner: Arc::clone(self.inner()) }
    }
}

impl Observer {
    /// Room for one more stream; none if there are as many as [may be](super::OperationsBuilder::streams),
    /// or the process shuts down.
    pub(crate) fn stream_place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.inner.streams).try_acquire_owned().ok()?;
        (!self.inner.is_closing()).then_some(place)
    }

    pub(crate) fn stream_bounds(&self) -> StreamBounds {
        let settings = &self.inner.settings;
        StreamBounds {
            heartbeat: settings.heartbeat,
            stall_limit: settings.stall_limit,
            lifetime: settings.stream_lifetime,
        }
    }

    /// After how long the client of a stream should come again when it ends.
    pub(crate) fn reconnect_after(&self) -> Duration {
        let settings = &self.inner.settings;
        let open = settings.streams - self.inner.streams.available_permits().min(settings.streams);
        let random = RandomState::new().hash_one(open);
        pace::reconnect(open, settings.poll_rate, random)
    }

    /// Word of that operation's changes from now on.
    pub(crate) fn watch(&self, id: OperationId) -> Watch {
        self.inner.watch(id)
    }

    /// Word of all changes of that owner's operations from now on.
    pub(crate) fn feed(&self, owner: &Owner) -> Feed {
        self.inner.feed(owner)
    }

    pub(crate) async fn list(&self, owner: &Owner, query: ListQuery) -> Result<Page, Problem> {
        self.inner.list(owner.clone(), query).await
    }

    /// Waits until the process shuts down.
    pub(crate) async fn closed(&self) {
        self.inner.closed().await;
    }

    pub(crate) fn urls(&self) -> &MonitorUrls {
        &self.inner.settings.urls
    }

    /// Runs a task where all that outlives its request runs.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.runtime.spawn(task);
    }
}
