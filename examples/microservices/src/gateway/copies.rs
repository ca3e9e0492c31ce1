//! c. A local copy that events feed; e. a snapshot and the events since, fetched when somebody asks.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use http::StatusCode;
use http::header::{self, HeaderValue};
use respond_async::amqp::{Amqp, EventStream, Feed};
use respond_async::prefer::Preferences;
use respond_async::problem::types;
use respond_async::read_model::{CatchUpError, EventPage, EventSource, ReadModel, Snapshot};
use respond_async::respond::Response;
use respond_async::{Context, Outcome, Problem};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{App, Id, Page, PageQuery, WAIT_CAP, asked, json, number, page, unknown};
use crate::messages::{EVENTS, EVENTS_BYTES, EventsAfter, GetSnapshot, User, UserEvent, Users};

/// How often the copy is written to disk.
const SAVE: Duration = Duration::from_secs(10);
/// After how many events a new snapshot is kept.
const KEEP_EVERY: u64 = 1_000;

type Answer = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A copy that events feed.
#[derive(Debug, Clone)]
pub(super) struct LocalUsers {
    model: ReadModel<Users>,
    _feed: Arc<Feed>,
    /// Ends with the last that reads the copy.
    _saving: Arc<JoinSet<()>>,
}

impl LocalUsers {
    pub(super) fn start(
        amqp: &Amqp,
        ask: impl Fn(GetSnapshot, Context) -> Answer + Send + Sync + 'static,
        folder: &Path,
    ) -> Self {
        let file = folder.join("model.json");
        let model = begin(&file);
        let ask = Arc::new(ask);
        // If the stream does not have what is missing any more, the service has.
        let feed =
            EventStream::new(amqp, EVENTS).with_max_bytes(EVENTS_BYTES).feed(&model, move || {
                let ask = Arc::clone(&ask);
                async move {
                    serde_json::from_slice(&ask(GetSnapshot {}, Context::default()).await.body).ok()
                }
            });
        let copy = model.clone();
        let mut saving = JoinSet::new();
        saving.spawn(async move {
            let mut saved = copy.position();
            loop {
                sleep(SAVE).await;
                if copy.position() > saved {
                    saved = copy.position();
                    keep(&copy.snapshot(), &file).await;
                }
            }
        });
        Self { model, _feed: Arc::new(feed), _saving: Arc::new(saving) }
    }
}

/// The model as it was last kept, or a new one.
fn begin(file: &Path) -> ReadModel<Users> {
    let kept = fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    kept.map_or_else(|| ReadModel::new(Users::default()), ReadModel::from_snapshot)
}

/// Keeps a snapshot. One that is lost is made again.
async fn keep(snapshot: &Snapshot<Users>, file: &Path) {
    let Ok(bytes) = serde_json::to_vec(snapshot) else { return };
    let file = file.to_owned();
    let writing = tokio::task::spawn_blocking(move || {
        let part = file.with_extension("part");
        fs::write(&part, bytes).and_then(|()| fs::rename(part, file))
    });
    let _ = writing.await;
}

/// Users from a snapshot and the events since.
#[derive(Debug, Clone)]
pub(super) struct SnapshotUsers {
    model: ReadModel<Users>,
    source: Arc<ServiceEvents>,
    file: Arc<PathBuf>,
    kept: Arc<AtomicU64>,
}

struct ServiceEvents(Box<dyn Fn(EventsAfter, Context) -> Answer + Send + Sync>);

impl fmt::Debug for ServiceEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceEvents")
    }
}

impl EventSource<Users> for ServiceEvents {
    type Error = Problem;

    async fn after(&self, position: u64) -> Result<EventPage<UserEvent>, Problem> {
        let answer = (self.0)(EventsAfter { position }, Context::default()).await;
        if let Some(problem) = answer.problem() {
            return Err(problem);
        }
        let unreadable = "The reply of the service of users could not be read.";
        let problem = || Problem::from_status(StatusCode::BAD_GATEWAY).with_detail(unreadable);
        serde_json::from_slice(&answer.body).map_err(|_| problem())
    }
}

impl SnapshotUsers {
    pub(super) fn new(
        ask: impl Fn(EventsAfter, Context) -> Answer + Send + Sync + 'static,
        folder: &Path,
    ) -> Self {
        let file = folder.join("snapshot.json");
        let model = begin(&file);
        let kept = Arc::new(AtomicU64::new(model.position()));
        Self { model, source: Arc::new(ServiceEvents(Box::new(ask))), file: Arc::new(file), kept }
    }

    /// The users as they are now.
    async fn current(&self) -> Result<&ReadModel<Users>, Problem> {
        match self.model.catch_up(&*self.source, WAIT_CAP).await {
            Ok(()) => {}
            Err(CatchUpError::Source(problem)) => return Err(problem),
            Err(_) => {
                let pause = ReadModel::<Users>::RETRY_AFTER;
                return Err(Problem::new(types::NOT_CAUGHT_UP).with_retry_after(pause));
            }
        }
        let (position, kept) = (self.model.position(), self.kept.load(Ordering::Relaxed));
        let is_due = position >= kept + KEEP_EVERY;
        let claim = || {
            let (order, failed) = (Ordering::Relaxed, Ordering::Relaxed);
            self.kept.compare_exchange(kept, position, order, failed).is_ok()
        };
        if is_due && claim() {
            keep(&self.model.snapshot(), &self.file).await;
        }
        Ok(&self.model)
    }
}

/// What a reader wants to see at the least.
#[derive(Debug, Deserialize)]
pub(super) struct AtLeast {
    position: Option<u64>,
}

type AtLeastQuery = Result<Query<AtLeast>, QueryRejection>;

impl LocalUsers {
    /// The copy, once it has that position: who wrote it says it, by the link that he got.
    async fn reached(
        &self,
        query: AtLeastQuery,
        preferences: &Preferences,
    ) -> Result<&ReadModel<Users>, Problem> {
        if let Some(position) = asked(query)?.position {
            let wait = preferences.wait().unwrap_or_default().min(WAIT_CAP);
            self.model.reached(position, wait).await?;
        }
        Ok(&self.model)
    }
}

pub(super) async fn read(
    State(app): State<App>,
    id: Id,
    query: AtLeastQuery,
    preferences: Preferences,
) -> Result<Response, Problem> {
    one(app.local.reached(query, &preferences).await?, id)
}

pub(super) async fn list(
    State(app): State<App>,
    query: AtLeastQuery,
    preferences: Preferences,
    pages: PageQuery,
) -> Result<Response, Problem> {
    let model = app.local.reached(query, &preferences).await?;
    Ok(many(model, &page(pages)?))
}

pub(super) async fn read_snapshot(State(app): State<App>, id: Id) -> Result<Response, Problem> {
    one(app.snapshot.current().await?, id)
}

pub(super) async fn list_snapshot(
    State(app): State<App>,
    pages: PageQuery,
) -> Result<Response, Problem> {
    Ok(many(app.snapshot.current().await?, &page(pages)?))
}

fn one(model: &ReadModel<Users>, id: Id) -> Result<Response, Problem> {
    let id = number(id)?;
    let user = model.read(|users| users.0.get(&id).cloned()).ok_or_else(unknown)?;
    Ok(fresh(model, json(&user)))
}

fn many(model: &ReadModel<Users>, page: &Page) -> Response {
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let after = page.after.saturating_add(1);
    let users: Vec<User> = model
        .read(|users| users.0.range(after..).take(limit).map(|(_, user)| user.clone()).collect());
    fresh(model, json(&users))
}

/// Says how old it may be.
fn fresh(model: &ReadModel<Users>, mut response: Response) -> Response {
    model.freshness(response.headers_mut());
    let vary = HeaderValue::from_static("Prefer");
    response.headers_mut().insert(header::VARY, vary);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_cannot_be_told_how_things_stand_is_told_when_to_come_again() {
        let folder = tempfile::tempdir().unwrap();
        // A service that has more and does not give it.
        let page = EventPage::<UserEvent> { events: Vec::new(), has_more: true };
        let ask = move |_, _| -> Answer {
            let answer = Outcome::json(StatusCode::OK, &page);
            Box::pin(async { answer })
        };
        let users = SnapshotUsers::new(ask, folder.path());
        let problem = users.current().await.unwrap_err();
        assert!(problem.is(types::NOT_CAUGHT_UP) && problem.retry_after().is_some());
    }
}
