//! The service of users: a database and messages, no HTTP.

mod publish;

use std::error::Error;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use respond_async::amqp::{Amqp, EventStream, Worker};
use respond_async::header::EntityTag;
use respond_async::operation::IntoOutcome;
use respond_async::read_model::{EventPage, Positioned, Snapshot};
use respond_async::respond::Created;
use respond_async::time::{Clock, SystemClock};
use respond_async::{Context, Outcome, Problem, Timestamp};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, params};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_blocking};

use self::publish::{forget, publish};
use crate::messages::{
    CreateUser, EVENTS, EVENTS_BYTES, EventsAfter, GetSnapshot, GetUser, ListUsers, UpdateUser,
    User, UserEvent, Users,
};

/// How long a user may be kept without asking again, and how long after that if the service is away.
const CACHE_CONTROL: &str = "max-age=2, stale-if-error=300";
/// How many events are told at once.
const PAGE: usize = 1_000;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS users (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, email TEXT NOT NULL UNIQUE, version INTEGER NOT NULL);
    -- Written in the transaction that it tells of, so one is there if and only if the other is.
    CREATE TABLE IF NOT EXISTS events (
        position INTEGER PRIMARY KEY, millis INTEGER NOT NULL, event TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS published (position INTEGER NOT NULL);
    -- What was answered to each operation, for a week: a job may come twice.
    CREATE TABLE IF NOT EXISTS answers (operation TEXT PRIMARY KEY, user TEXT NOT NULL, position INTEGER NOT NULL)
        WITHOUT ROWID;
";

/// The service, as long as it is kept.
#[derive(Debug)]
pub struct UserService {
    worker: Worker,
    _publisher: JoinSet<()>,
}

impl UserService {
    /// Opens the database, and begins to take messages.
    ///
    /// # Errors
    /// If the database cannot be opened.
    pub fn start(amqp: &Amqp, file: &Path) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let database = Database::open(file)?;
        let stream = EventStream::new(amqp, EVENTS).with_max_bytes(EVENTS_BYTES);
        let mut publisher = JoinSet::new();
        publisher.spawn(publish(database.clone(), stream));
        publisher.spawn(forget(database.clone()));
        let on = |database: &Database| database.clone();
        let worker = Worker::builder(amqp)
            .job(with(on(&database), |database, job: CreateUser, context| {
                database.answered(&context, |transaction| create(transaction, &job))
            }))
            .job(with(on(&database), |database, job: UpdateUser, context| {
                database.answered(&context, |transaction| update(transaction, &job))
            }))
            .job(with(on(&database), |database, job: GetUser, _| get(&database, &job)))
            .job(with(on(&database), |database, job: ListUsers, _| list(&database, &job)))
            .job(with(on(&database), |database, job: EventsAfter, _| {
                let events = database.events_after(job.position)?;
                let has_more = events.len() == PAGE;
                Ok(Outcome::json(StatusCode::OK, &EventPage { events, has_more }))
            }))
            .job(with(database, |database, _: GetSnapshot, _| {
                Ok(Outcome::json(StatusCode::OK, &database.snapshot()?))
            }))
            .start();
        Ok(Self { worker, _publisher: publisher })
    }

    /// Waits until it takes messages of each kind.
    pub async fn ready(&self) {
        self.worker.ready().await;
    }

    /// Ends what runs within that time.
    pub async fn stop(self, grace: Duration) {
        self.worker.shutdown(grace).await;
    }
}

/// A handler whose work is the database's.
fn with<J: Send + 'static>(
    database: Database,
    work: impl Fn(Database, J, Context) -> Result<Outcome, Refusal> + Clone + Send + Sync + 'static,
) -> impl Fn(J, Context) -> std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync + 'static
{
    move |job, context| {
        let (database, work) = (database.clone(), work.clone());
        Box::pin(async move {
            match spawn_blocking(move || work(database, job, context)).await {
                Ok(answer) => answer.unwrap_or_else(|refusal| refusal.0.into_outcome()),
                Err(_) => Problem::from_status(StatusCode::INTERNAL_SERVER_ERROR).into_outcome(),
            }
        })
    }
}

/// What a client is told when it does not work.
struct Refusal(Problem);

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        if let rusqlite::Error::SqliteFailure(failure, Some(words)) = &error
            && failure.code == ErrorCode::ConstraintViolation
        {
            let field = if words.contains("users.email") { "email" } else { "name" };
            let problem = Problem::from_status(StatusCode::CONFLICT);
            let problem = problem.with_detail(format!("Another user has this {field}."));
            return Self(problem.with_extension("field", field));
        }
        // Locked, full, away: it may be better in a moment. The database's own words are for the service's
        // log, and not for its clients.
        complain(&error);
        let problem = Problem::from_status(StatusCode::SERVICE_UNAVAILABLE);
        Self(
            problem
                .with_detail("The users are not available.")
                .with_retry_after(Duration::from_secs(1)),
        )
    }
}

#[derive(Debug, Clone)]
struct Database {
    connection: Arc<Mutex<Connection>>,
    /// Another, so that readers need not wait for writers.
    readers: Arc<Mutex<Connection>>,
    /// There are new events.
    news: Arc<Notify>,
}

impl Database {
    fn open(file: &Path) -> rusqlite::Result<Self> {
        let open = || {
            let connection = Connection::open(file)?;
            connection.busy_timeout(Duration::from_secs(1))?;
            connection.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")?;
            Ok::<_, rusqlite::Error>(connection)
        };
        let connection = open()?;
        connection.execute_batch(SCHEMA)?;
        let (connection, readers) =
            (Arc::new(Mutex::new(connection)), Arc::new(Mutex::new(open()?)));
        Ok(Self { connection, readers, news: Arc::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a write once for each operation or request, however often its message comes.
    fn answered(
        &self,
        context: &Context,
        write: impl FnOnce(&Transaction<'_>) -> Result<Written, Refusal>,
    ) -> Result<Outcome, Refusal> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let operation = context.operation_id().map(|id| id.to_string());
        let before = match &operation {
            None => None,
            Some(operation) => transaction
                .prepare_cached("SELECT user, position FROM answers WHERE operation = ?")?
                .query_row([operation], |row| Ok((row.get::<_, String>(0)?, number(row, 1)?)))
                .optional()?,
        };
        if let Some((user, position)) = before {
            let user = serde_json::from_str(&user).map_err(|_| unreadable())?;
            return Ok(Written { user, position }.answer());
        }
        let written = write(&transaction)?;
        if let Some(operation) = &operation {
            let user = json!(written.user).to_string();
            transaction
                .prepare_cached("INSERT INTO answers VALUES (?, ?, ?)")?
                .execute(params![operation, user, signed(written.position)])?;
        }
        transaction.commit()?;
        self.news.notify_one();
        Ok(written.answer())
    }

    fn events_after(&self, position: u64) -> rusqlite::Result<Vec<Positioned<UserEvent>>> {
        let connection = self.reader();
        let mut statement = connection.prepare_cached(
            "SELECT position, millis, event FROM events WHERE position > ? ORDER BY position LIMIT ?",
        )?;
        let rows = statement.query_map(
            params![signed(position), i64::try_from(PAGE).unwrap_or(i64::MAX)],
            |row| {
                let event: String = row.get(2)?;
                Ok(Positioned {
                    position: number(row, 0)?,
                    time: Timestamp::from_unix_millis(row.get(1)?),
                    event: serde_json::from_str(&event).map_err(|error| {
                        rusqlite::Error::FromSqlConversionFailure(
                            2,
                            rusqlite::types::Type::Text,
                            error.into(),
                        )
                    })?,
                })
            },
        )?;
        rows.collect()
    }

    fn snapshot(&self) -> rusqlite::Result<Snapshot<Users>> {
        let mut connection = self.reader();
        let transaction = connection.transaction()?;
        let position =
            transaction.query_row("SELECT coalesce(max(position), 0) FROM events", [], |row| {
                number(row, 0)
            })?;
        let mut statement = transaction.prepare("SELECT id, name, email, version FROM users")?;
        let users = statement.query_map([], user)?;
        let users = users.map(|user| user.map(|user| (user.id, user)));
        let state = Users(users.collect::<Result<_, _>>()?);
        Ok(Snapshot { position, modified: None, cursor: None, state })
    }

    /// Forgets what was answered before that time. A job that came again so late would be done again.
    fn forget_answers(&self, before: Timestamp) -> rusqlite::Result<usize> {
        self.lock().execute(
            "DELETE FROM answers WHERE position <=
             (SELECT coalesce(max(position), 0) FROM events WHERE millis < ?)",
            [before.as_unix_millis()],
        )
    }

    fn published(&self) -> rusqlite::Result<u64> {
        let connection = self.reader();
        connection
            .query_row("SELECT coalesce(max(position), 0) FROM published", [], |row| number(row, 0))
    }

    fn set_published(&self, position: u64) -> rusqlite::Result<()> {
        let connection = self.lock();
        if connection.execute("UPDATE published SET position = ?", [signed(position)])? == 0 {
            connection.execute("INSERT INTO published VALUES (?)", [signed(position)])?;
        }
        Ok(())
    }
}

/// A user as it was written, and the event that tells of it.
struct Written {
    user: User,
    position: u64,
}

impl Written {
    fn answer(&self) -> Outcome {
        let location = format!("/users/{}", self.user.id);
        // Where the gateway's local copy has it: with the position, one reads what one wrote.
        let link = format!("</model{location}?position={}>; rel=\"latest-version\"", self.position);
        let mut outcome = if self.user.version == 1 {
            Created::at(location).json(&self.user).into_outcome()
        } else {
            Outcome::json(StatusCode::OK, &self.user)
        };
        insert(&mut outcome.headers, header::LINK, &link);
        outcome
    }
}

fn create(transaction: &Transaction<'_>, job: &CreateUser) -> Result<Written, Refusal> {
    job.check().map_err(Refusal)?;
    transaction
        .prepare_cached("INSERT INTO users (name, email, version) VALUES (?, ?, 1)")?
        .execute([&job.name, &job.email])?;
    let id = u64::try_from(transaction.last_insert_rowid()).unwrap_or_default();
    let user = User { id, name: job.name.clone(), email: job.email.clone(), version: 1 };
    let position = note(transaction, &UserEvent::UserCreated(user.clone()))?;
    Ok(Written { user, position })
}

fn update(transaction: &Transaction<'_>, job: &UpdateUser) -> Result<Written, Refusal> {
    let UpdateUser { id, to } = job;
    to.check().map_err(Refusal)?;
    let updated = transaction
        .prepare_cached(
            "UPDATE users SET name = ?, email = ?, version = version + 1 WHERE id = ?
             RETURNING id, name, email, version",
        )?
        .query_row(params![to.name, to.email, signed(*id)], user)
        .optional()?;
    let user = updated.ok_or_else(unknown)?;
    let position = note(transaction, &UserEvent::UserUpdated(user.clone()))?;
    Ok(Written { user, position })
}

/// Notes an event in the transaction that it tells of. Writers come one after the other, so the positions
/// have no gaps.
fn note(transaction: &Transaction<'_>, event: &UserEvent) -> rusqlite::Result<u64> {
    let millis = SystemClock.now().as_unix_millis();
    transaction
        .prepare_cached(
            "INSERT INTO events SELECT coalesce(max(position), 0) + 1, ?, ? FROM events RETURNING position",
        )?
        .query_row(params![millis, json!(event).to_string()], |row| number(row, 0))
}

fn get(database: &Database, job: &GetUser) -> Result<Outcome, Refusal> {
    let found = database
        .reader()
        .prepare_cached("SELECT id, name, email, version FROM users WHERE id = ?")?
        .query_row([signed(job.id)], user)
        .optional()?;
    let user = found.ok_or_else(unknown)?;
    let tag = EntityTag::of_revision(user.version);
    let asked = job.if_none_match.iter().filter_map(|tags| HeaderValue::try_from(tags).ok());
    let asked: HeaderMap = asked.map(|tags| (header::IF_NONE_MATCH, tags)).collect();
    let mut outcome = if tag.is_in_if_none_match(&asked) {
        Outcome::new(StatusCode::NOT_MODIFIED)
    } else {
        Outcome::json(StatusCode::OK, &user)
    };
    outcome.headers.insert(header::ETAG, tag.to_header_value());
    insert(&mut outcome.headers, header::CACHE_CONTROL, CACHE_CONTROL);
    Ok(outcome)
}

fn list(database: &Database, job: &ListUsers) -> Result<Outcome, Refusal> {
    let connection = database.reader();
    let mut statement = connection.prepare_cached(
        "SELECT id, name, email, version FROM users WHERE id > ? ORDER BY id LIMIT ?",
    )?;
    let users = statement.query_map(params![signed(job.after), job.limit], user)?;
    let users = users.collect::<Result<Vec<_>, _>>()?;
    Ok(Outcome::json(StatusCode::OK, &users))
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: number(row, 0)?,
        name: row.get(1)?,
        email: row.get(2)?,
        version: number(row, 3)?,
    })
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or_default())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

fn unknown() -> Refusal {
    Refusal(Problem::from_status(StatusCode::NOT_FOUND).with_detail("There is no such user."))
}

/// What broke is for the service's own log.
fn complain(error: &dyn Error) {
    let _ = writeln!(io::stderr(), "error: {error}");
}

fn unreadable() -> Refusal {
    Refusal(Problem::from_status(StatusCode::INTERNAL_SERVER_ERROR))
}
