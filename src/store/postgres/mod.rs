//! [`PostgresStore`]: operations in PostgreSQL, for services on many machines.

mod accept;
mod builder;
mod channel;
mod error;
mod hosts;
mod lane;
mod open;
mod patience;
mod read;
mod sql;
mod step;
mod transaction;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_postgres::Config;
use tokio_postgres::config::TargetSessionAttrs;

use self::accept::{Verdict, existing, insert};
pub use self::builder::PostgresStoreBuilder;
use self::error::Failure;
use self::lane::{Foreign, Line, Run};
pub use self::open::{PostgresOpenError, PostgresOpenErrorKind};
use self::read::Read;
use self::sql::FOREIGN_PARTS;
use self::step::Step;
use self::write::{Accept, Write};
use super::server::{Calls, Wire};
use super::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Durability, Hints, ListQuery, Observed,
    OperationStore, Page, StoreError, Submission, Swap, Swapped,
};
use crate::operation::{OperationId, Outcome, Owner};
use crate::time::Timestamp;

/// Keeps operations in PostgreSQL (12 or later): any replica of a service accepts, runs, answers, and
/// may die.
///
/// - What was acknowledged is committed, and on the server's disk if its `fsync` is on
///   ([`Durability::PowerLoss`]). A session that finds `synchronous_commit` off turns it on.
/// - Calls that wait at the same time share a statement and a commit. The store has connections of its
///   own for that: two that write, one that reads, one for transactions of several statements, one that
///   listens.
/// - All times are the server's. A caller's clock decides nothing.
/// - Word of changes goes to the other processes by `NOTIFY`, a few milliseconds after the commit and
///   never within it. A listener that no longer hears itself is made anew, and meanwhile changes are
///   looked for [now and then](PostgresStoreBuilder::watch_interval); see
///   [`is_listening`](Self::is_listening).
/// - While the server is away every call fails within the [call timeout](PostgresStoreBuilder::call_timeout);
///   connections come back by themselves.
/// - Reads go to the same server as writes, never to a replica.
///
/// Needs a session of its own for each connection: with a pooler in between, one in session mode. Another is
/// refused when the store is opened ([`Pooled`](PostgresOpenErrorKind::Pooled)).
///
/// A clone is another handle on the same connections, which end with the last one.
///
/// ```no_run
/// use respond_async::Operations;
/// use respond_async::store::PostgresStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::open("postgres://app:secret@db/app").await?;
/// let operations = Operations::builder(store).start();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
}

struct Shared {
    line: Arc<Line>,
    reads: Calls<Read>,
    writes: Calls<Write>,
    steps: Calls<Step>,
    wire: Wire,
    durability: Durability,
    max_body_bytes: usize,
}

impl PostgresStore {
    /// The default of [`schema`](PostgresStoreBuilder::schema).
    pub const DEFAULT_SCHEMA: &str = "respond_async";
    /// The default of [`connect_timeout`](PostgresStoreBuilder::connect_timeout).
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
    /// The default of [`call_timeout`](PostgresStoreBuilder::call_timeout).
    pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(2);
    /// The default of [`writers`](PostgresStoreBuilder::writers).
    pub const DEFAULT_WRITERS: usize = 2;
    /// The default of [`readers`](PostgresStoreBuilder::readers).
    pub const DEFAULT_READERS: usize = 1;
    /// The default of [`queue`](PostgresStoreBuilder::queue).
    pub const DEFAULT_QUEUE: usize = 10_000;
    /// The default of [`max_body_bytes`](PostgresStoreBuilder::max_body_bytes): 64 MiB.
    pub const DEFAULT_MAX_BODY_BYTES: usize = 64 << 20;
    /// The default of [`watch_interval`](PostgresStoreBuilder::watch_interval).
    pub const DEFAULT_WATCH_INTERVAL: Duration = Duration::from_millis(200);

    /// Opens the store with the defaults and without TLS, and makes its tables if they are not there.
    /// The connection string is a URL or a list of `key=value`, as `psql` takes it.
    ///
    /// # Errors
    /// See [`PostgresOpenErrorKind`].
    ///
    /// # Cancel safety
    /// A future that is dropped leaves no connection behind; the tables were made or not, never half.
    pub async fn open(config: &str) -> Result<Self, PostgresOpenError> {
        Self::builder(config)?.open().await
    }

    /// Sets more than the server.
    ///
    /// Several hosts may be named; the first that takes writes is used, unless the connection string says
    /// otherwise (`target_session_attrs`). Each, and each address behind its name, may take as long as the
    /// [timeout](PostgresStoreBuilder::connect_timeout) says; one that takes longer is passed over.
    ///
    /// # Errors
    /// If the connection string cannot be understood.
    pub fn builder(config: &str) -> Result<PostgresStoreBuilder, PostgresOpenError> {
        let says_which = config.contains("target_session_attrs");
        let mut config: Config = config.parse().map_err(PostgresOpenError::config)?;
        if !says_which {
            // After a failover another of the hosts, or behind the same name, is the one that takes writes.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if config.get_application_name().is_none() {
            config.application_name("respond-async");
        }
        Ok(PostgresStoreBuilder::new(config))
    }

    /// The SQL that brings the tables in that schema up to date, for those who run migrations themselves. It is to
    /// be run once, in one transaction; then open the store with
    /// [`migrate(false)`](PostgresStoreBuilder::migrate).
    ///
    /// `from` is the version that the tables have: 0 if there are none, else what the schema's table `schema_version`
    /// says. The text is empty if that is this crate's version or a newer one.
    pub fn migrations(schema: &str, from: usize) -> String {
        sql::migrations(schema, from).concat()
    }

    /// Accepts an operation within a transaction of the caller's, so that a service commits its own rows
    /// and the work that follows from them together, or neither. The tables must be in the database that
    /// the transaction is of.
    ///
    /// [Limits](crate::store::Limits) are judged by what is committed, so several transactions at once may
    /// pass one together. Nobody is told of it: after the commit call [`wake`](Self::wake), or a worker
    /// finds it with its next look.
    ///
    /// Have the submission made by [`KickOff::submission`](crate::operations::KickOff::submission): it has the limits,
    /// the deadline and the attempts that the job's policy says, which one that you make yourself has not.
    ///
    /// ```no_run
    /// use respond_async::operations::Job;
    /// use respond_async::prefer::Preferences;
    /// use respond_async::respond::{OperationView, Response};
    /// use respond_async::store::PostgresStore;
    /// use respond_async::{Operations, Problem};
    /// # use respond_async::problem::types;
    /// # use respond_async::store::{StoreError, tokio_postgres};
    /// # use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Ship {
    ///     order: i64,
    /// }
    ///
    /// impl Job for Ship {
    ///     const KIND: &'static str = "orders.ship";
    /// }
    ///
    /// async fn order(
    ///     operations: &Operations,
    ///     store: PostgresStore, // a clone of the one that the operations have
    ///     client: &mut tokio_postgres::Client,
    ///     preferences: &Preferences,
    /// ) -> Result<Response, Error> {
    ///     let transaction = client.transaction().await?;
    ///     let row = transaction.query_one("INSERT INTO orders DEFAULT VALUES RETURNING id", &[]).await?;
    ///     let submission = operations.kick_off(preferences).submission(&Ship { order: row.get(0) })?;
    ///     let accepted = store.accept_in(&transaction, submission).await?;
    ///     transaction.commit().await?;
    ///     store.wake();
    ///     let observed = operations.accepted::<Ship>(accepted)?;
    ///     let view = OperationView::new(&observed.operation, observed.now, operations.urls());
    ///     Ok(view.retry_after(operations.retry_after(&observed)).accepted(preferences))
    /// }
    /// # struct Error;
    /// # impl From<tokio_postgres::Error> for Error { fn from(_: tokio_postgres::Error) -> Self { Self } }
    /// # impl From<StoreError> for Error { fn from(_: StoreError) -> Self { Self } }
    /// # impl From<Problem> for Error { fn from(_: Problem) -> Self { Self } }
    /// ```
    ///
    /// What became of it is known before the commit: roll back, if [`Acceptance::Existing`] says that an earlier
    /// request under the same key has made the row already.
    ///
    /// Commit soon. Until then whatever is accepted or ends for the same owner waits, and fails after a quarter
    /// of the [call timeout](PostgresStoreBuilder::call_timeout) or somewhat more, and so do acceptances with
    /// the same idempotency key. For the anonymous owner only another such transaction may have to wait: one
    /// whose session's process on the server has a number that differs by a multiple of 256, which sessions
    /// that were opened one after the other have not. One transaction that accepts for several owners takes
    /// them in the order of their names, or two may wait for each other, and PostgreSQL ends one of them.
    ///
    /// It is meant for a transaction that is `READ COMMITTED`, as PostgreSQL's are by default. A stricter one
    /// judges limits by what was committed when it began, and fails if since then anybody else had anything
    /// accepted or ended for the same owner, or under the same idempotency key: roll it back, and begin again.
    ///
    /// It is as durable as the caller's session says: with its `synchronous_commit` off the last moments
    /// before a crash may be lost, whatever the store's own connections do.
    ///
    /// # Errors
    /// As [`accept`](OperationStore::accept). After one, PostgreSQL lets the transaction only be rolled
    /// back.
    ///
    /// # Cancel safety
    /// After a future that was dropped the transaction has the operation or not: roll it back.
    pub async fn accept_in(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
        submission: Submission,
    ) -> Result<Acceptance, StoreError> {
        submission.check_size(self.shared.max_body_bytes)?;
        let mut run = Foreign { transaction, sql: &self.shared.line.sql };
        let accepted = async {
            if let Some(existing) = existing(&mut run, &[&submission]).await?.remove(0)? {
                return Ok(existing);
            }
            let rows = run.query(|sql| &sql.now_and_process, &[]).await?;
            let now = rows.first().map_or(Timestamp::from_unix_millis(0), read::at);
            let process: i32 = rows.first().map_or(0, |row| row.get(1));
            let accept = Accept::new(submission, now);
            match insert(&mut run, &[&accept], 0, foreign_part(process)).await?.first() {
                Some(Verdict::Inserted) => Ok(Acceptance::created(accept.operation)),
                Some(Verdict::Full(full)) => Ok(Acceptance::Full(*full)),
                // Somebody else took the key since it was looked for.
                _ => existing(&mut run, &[&accept.submission])
                    .await?
                    .remove(0)?
                    .ok_or(Failure::Contended),
            }
        };
        accepted.await.map_err(|failure: Failure| failure.to_error())
    }

    /// Tells the workers of all processes that there may be work, after a transaction with
    /// [`accept_in`](Self::accept_in) was committed.
    pub fn wake(&self) {
        self.shared.wire.publish_claimable();
    }

    /// Whether word of other processes' changes comes. If not, they are looked for now and then.
    pub fn is_listening(&self) -> bool {
        self.shared.wire.is_heard()
    }

    /// What the server's clock shows. It is asked if it was not heard of a moment ago.
    async fn time(&self) -> Result<Timestamp, StoreError> {
        match self.shared.line.clock.now() {
            Some(now) => Ok(now),
            None => self.shared.reads.ask(false, Read::Now).await,
        }
    }
}

/// In which part a transaction of that process of the server's counts: in none of the store's own, which
/// would wait for its end.
fn foreign_part(process: i32) -> i16 {
    let count = i32::from(FOREIGN_PARTS.end - FOREIGN_PARTS.start);
    FOREIGN_PARTS.start + i16::try_from(process.rem_euclid(count)).unwrap_or(0)
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("schema", &self.shared.line.settings.schema)
            .field("durability", &self.shared.durability)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl OperationStore for PostgresStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(self.shared.durability, self.shared.max_body_bytes).with_shared(true)
    }

    fn now(&self) -> Option<Timestamp> {
        self.shared.line.clock.now()
    }

    async fn accept(&self, submission: Submission) -> Result<Acceptance, StoreError> {
        submission.check_size(self.shared.max_body_bytes)?;
        let accept = Box::new(Accept::new(submission, self.time().await?));
        let acceptance =
            self.shared.writes.ask(true, |answer| Write::Accept(accept, answer)).await?;
        if let Acceptance::Created(created) = &acceptance {
            self.shared.wire.publish(&created.operation);
        }
        Ok(acceptance)
    }

    async fn get(&self, id: OperationId) -> Result<Option<Observed>, StoreError> {
        self.shared.reads.ask(false, |answer| Read::Get(id, answer)).await
    }

    async fn input(&self, id: OperationId) -> Result<Option<Bytes>, StoreError> {
        self.shared.reads.ask(false, |answer| Read::Input(id, answer)).await
    }

    async fn outcome(&self, id: OperationId) -> Result<Option<Outcome>, StoreError> {
        self.shared.reads.ask(false, |answer| Read::Outcome(id, answer)).await
    }

    async fn swap(&self, swap: Swap) -> Result<Swapped, StoreError> {
        swap.check_size(self.shared.max_body_bytes)?;
        let (next, follows) = (swap.next.clone(), !swap.outbox.is_empty());
        let swap = Box::new(swap);
        let swapped = if follows {
            self.shared.steps.ask(true, |answer| Step::SwapWithOutbox(swap, answer)).await?
        } else {
            let record = next.to_record();
            self.shared.writes.ask(true, |answer| Write::Swap(swap, record, answer)).await?
        };
        if swapped == Swapped::Swapped {
            self.shared.wire.publish(&next);
            if follows {
                self.shared.wire.publish_claimable();
            }
        }
        Ok(swapped)
    }

    async fn remove(&self, id: OperationId, expected: u64) -> Result<Swapped, StoreError> {
        let removed =
            self.shared.steps.ask(true, |answer| Step::Remove(id, expected, answer)).await?;
        if removed == Swapped::Swapped {
            self.shared.wire.publish_changed(id);
        }
        Ok(removed)
    }

    async fn due(&self, query: &DueQuery) -> Result<Vec<Observed>, StoreError> {
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        let query = query.clone();
        self.shared.reads.ask(false, |answer| Read::Due(query, answer)).await
    }

    async fn list(&self, owner: &Owner, query: &ListQuery) -> Result<Page, StoreError> {
        let (owner, query) = (owner.clone(), query.clone());
        self.shared.reads.ask(false, |answer| Read::List(owner, query, answer)).await
    }

    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        if limit == 0 {
            return Ok(0);
        }
        self.shared.steps.ask(true, |answer| Step::Purge(limit, answer)).await
    }

    fn hints(&self) -> Option<Box<dyn Hints>> {
        Some(self.shared.wire.hints())
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Observed>, StoreError> {
        let request = request.clone();
        let claimed = self.shared.steps.ask(true, |answer| Step::Claim(request, answer)).await?;
        for observed in &claimed {
            self.shared.wire.publish(&observed.operation);
        }
        Ok(claimed)
    }
}
