//! Statements in a transaction, in as few turns to the server and back as can be.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::Failure;
use super::lane::{Run, Session, wait};
use super::sql::{Sql, Text, quoted};

/// A connection that says a statement while nobody else does, all in one go: begins, takes the turn, says
/// it, and commits. For the turn it waits as long as a statement may take; for a row only for as long as the
/// session is set to, since the others wait for the turn, and somebody's open transaction may hold the row.
pub(super) struct Alone<'a>(pub(super) &'a mut Session);

impl Run for Alone<'_> {
    async fn query(
        &mut self,
        pick: impl Fn(&Sql) -> &Text + Send,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let Self(session) = self;
        let lock = session.prepare(|sql| &sql.lock).await?;
        let statement = session.prepare(pick).await?;
        let settings = &session.line.settings;
        let name = format!("{}.live", quoted(&settings.schema));
        let lock_params: [&(dyn ToSql + Sync); 1] = [&name];
        let first = format!("BEGIN; {}", wait("SET LOCAL", settings.longest_wait()));
        let patience = wait("SET LOCAL", session.patience());
        let (begun, locked, bounded, rows, committed) = tokio::join!(
            biased;
            session.say(&first),
            session.run(&lock, &lock_params),
            session.say(&patience),
            session.run(&statement, params),
            // Of what failed it keeps nothing.
            session.say("COMMIT"),
        );
        begun?;
        locked?;
        bounded?;
        let rows = rows?;
        committed.map(|()| rows)
    }
}

/// A transaction that is committed with the statement that is said next.
pub(super) struct Last<'a>(pub(super) &'a mut Session);

impl Run for Last<'_> {
    async fn query(
        &mut self,
        pick: impl Fn(&Sql) -> &Text + Send,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let Self(session) = self;
        let statement = session.prepare(pick).await?;
        let (rows, committed) = tokio::join!(
            biased;
            session.run(&statement, params),
            // Of what failed it keeps nothing.
            session.say("COMMIT"),
        );
        let rows = rows?;
        committed.map(|()| rows)
    }
}

/// Ends a transaction: keeps what was done in it, or nothing.
pub(super) async fn end<T>(session: &Session, result: Result<T, Failure>) -> Result<T, Failure> {
    match result {
        Ok(value) => session.say("COMMIT").await.map(|()| value),
        Err(failure) if failure.is_fatal() => Err(failure),
        // A connection that cannot undo it is given up, and with it what was done.
        Err(failure) => session.say("ROLLBACK").await.and(Err(failure)),
    }
}
