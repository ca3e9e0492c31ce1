//! What is asked of the tables.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Failure;
use super::lane::{Run, Serve, Session, give};
use super::sql::{Sql, Text};
use crate::operation::{Due, Operation, OperationId, Outcome, Owner};
use crate::store::server::{Answer, AtOnce, Grouped, READ_BYTES, names};
use crate::store::{DueQuery, ListQuery, Observed, Page};
use crate::time::Timestamp;

/// How many operations a list looks at before it gives what it found.
const MAX_LISTED: usize = 2_000;
/// How many of what is due are given at once.
pub(super) const MAX_DUE: usize = 10_000;
/// How many records that cannot be understood are passed over at once.
pub(super) const MAX_PASSED_OVER: usize = 1_000;

/// How many bodies are read at once at the most.
const MAX_BODIES: usize = 64;

/// A call that reads.
#[derive(Debug)]
pub(super) enum Read {
    Get(OperationId, Answer<Option<Observed>>),
    Input(OperationId, Answer<Option<Bytes>>),
    Outcome(OperationId, Answer<Option<Outcome>>),
    Due(DueQuery, Answer<Vec<Observed>>),
    List(Owner, ListQuery, Answer<Page>),
    Now(Answer<Timestamp>),
}

impl Grouped for Read {
    fn bytes(&self) -> usize {
        match self {
            Self::Input(..) | Self::Outcome(..) => READ_BYTES,
            Self::Get(..) | Self::Due(..) | Self::List(..) | Self::Now(_) => 0,
        }
    }
}

/// Answers reads: those by ids of one sort with one statement.
#[derive(Debug)]
pub(super) struct Reader {
    bodies_at_once: AtOnce,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { bodies_at_once: AtOnce::new(MAX_BODIES) }
    }

    async fn bodies<T: Clone>(
        &mut self,
        session: &mut Session,
        mut calls: Vec<(OperationId, Answer<Option<T>>)>,
        pick: impl Fn(&Sql) -> &Text + Send + Copy,
        understand: impl Fn(&Row) -> Result<Option<T>, Failure> + Copy,
    ) -> Result<(), Failure> {
        while !calls.is_empty() {
            let some = calls.split_off(calls.len().saturating_sub(self.bodies_at_once.count()));
            let count = some.len();
            let read = by_id(session, some, pick, understand).await;
            match read {
                Ok(true) => self.bodies_at_once.went_well(),
                _ => self.bodies_at_once.failed(count),
            }
            read?;
        }
        Ok(())
    }
}

impl Serve<Read> for Reader {
    async fn serve(&mut self, session: &mut Session, calls: Vec<Read>) -> Result<(), Failure> {
        let (mut gets, mut inputs, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        let mut others = Vec::new();
        for call in calls {
            match call {
                Read::Get(id, answer) => gets.push((id, answer)),
                Read::Input(id, answer) => inputs.push((id, answer)),
                Read::Outcome(id, answer) => outcomes.push((id, answer)),
                other => others.push(other),
            }
        }
        // What is short before what may be long. What is left once the connection is lost has not begun.
        by_id(session, gets, |sql| &sql.get, unexpired).await?;
        for call in others {
            match call {
                Read::Due(query, answer) if answer.begin() => {
                    give(answer, due(session, &query).await, Failure::to_error)?;
                }
                Read::List(owner, query, answer) if answer.begin() => {
                    give(answer, list(session, &owner, &query).await, Failure::to_error)?;
                }
                Read::Now(answer) if answer.begin() => {
                    give(answer, now(session).await, Failure::to_error)?;
                }
                _ => {}
            }
        }
        self.bodies(session, inputs, |sql| &sql.input, input).await?;
        self.bodies(session, outcomes, |sql| &sql.outcome, outcome).await
    }
}

/// Answers reads of one sort with one statement, and says whether that succeeded.
async fn by_id<T: Clone>(
    session: &mut Session,
    mut calls: Vec<(OperationId, Answer<Option<T>>)>,
    pick: impl Fn(&Sql) -> &Text + Send,
    understand: impl Fn(&Row) -> Result<Option<T>, Failure>,
) -> Result<bool, Failure> {
    calls.retain(|(_, answer)| answer.begin());
    if calls.is_empty() {
        return Ok(true);
    }
    let ids: Vec<Uuid> = calls.iter().map(|(id, _)| id.as_uuid()).collect();
    let asked = Instant::now();
    let rows = session.query(pick, &[&ids]).await;
    let found = rows.map(|rows| {
        learn(session, &rows, asked);
        let found = rows.iter().filter_map(|row| Some((id(row, 1)?, understand(row))));
        found.collect::<HashMap<_, _>>()
    });
    for (id, answer) in calls {
        // The same one may be asked for more than once.
        answer.send(match &found {
            Ok(found) => match found.get(&id) {
                Some(Ok(found)) => Ok(found.clone()),
                Some(Err(failure)) => Err(failure.to_error()),
                None => Ok(None),
            },
            Err(failure) => Err(failure.to_error()),
        });
    }
    match found {
        Err(failure) if failure.is_fatal() => Err(failure),
        read => Ok(read.is_ok()),
    }
}

/// The operations that have these ids and have not expired, each by its id.
pub(super) async fn get(
    run: &mut impl Run,
    ids: &[OperationId],
) -> Result<HashMap<OperationId, Result<Observed, Failure>>, Failure> {
    let ids: Vec<Uuid> = ids.iter().map(OperationId::as_uuid).collect();
    let rows = run.query(|sql| &sql.get, &[&ids]).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        if let (Some(id), Some(observed)) = (id(row, 1), unexpired(row).transpose()) {
            found.insert(id, observed);
        }
    }
    Ok(found)
}

fn unexpired(row: &Row) -> Result<Option<Observed>, Failure> {
    let observed = observe(row)?;
    Ok((!observed.operation.is_expired(observed.now)).then_some(observed))
}

fn input(row: &Row) -> Result<Option<Bytes>, Failure> {
    Ok(Some(Bytes::copy_from_slice(row.try_get(2)?)))
}

fn outcome(row: &Row) -> Result<Option<Outcome>, Failure> {
    let body = Bytes::copy_from_slice(row.try_get(3)?);
    Ok(Some(Outcome::from_record(row.try_get(2)?, body)?))
}

async fn now(session: &mut Session) -> Result<Timestamp, Failure> {
    let asked = Instant::now();
    let rows = session.query(|sql| &sql.now, &[]).await?;
    learn(session, &rows, asked);
    Ok(rows.first().map_or(Timestamp::from_unix_millis(0), at))
}

async fn due(session: &mut Session, query: &DueQuery) -> Result<Vec<Observed>, Failure> {
    let kinds = match (&query.kinds, query.due) {
        (Some(kinds), _) => Some(names(kinds)),
        (None, Due::Claim) => Some(all_kinds(session).await?),
        (None, _) => None,
    };
    let limit = query.limit.min(MAX_DUE);
    let statement = match query.due {
        Due::Claim => session.prepare_for(|sql| &sql.to_claim, limit).await?,
        Due::Settle => session.prepare_for(|sql| &sql.to_settle, limit).await?,
        Due::Expire => session.prepare_for(|sql| &sql.to_expire, limit).await?,
    };
    let mut passed_over = Vec::new();
    loop {
        let rows = session.run(&statement, &[&kinds, &passed_over]).await?;
        let (due, others) = understood(&rows, query.due);
        let is_all = others.is_empty() || passed_over.len() >= MAX_PASSED_OVER;
        passed_over.extend(others);
        if is_all {
            return Ok(due);
        }
    }
}

/// What is due of these rows; and the ids of those that cannot be understood, or are not due by the
/// rules: to be passed over, so that they stand in nobody's way.
pub(super) fn understood(rows: &[Row], due: Due) -> (Vec<Observed>, Vec<Uuid>) {
    let (mut found, mut others) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match observe(row) {
            Ok(observed) if observed.operation.is_due(due, observed.now) => found.push(observed),
            _ => others.push(row.get(1)),
        }
    }
    (found, others)
}

/// The kinds of which anything may be claimed.
pub(super) async fn all_kinds(session: &mut Session) -> Result<Vec<String>, Failure> {
    let rows = session.query(|sql| &sql.kinds, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn list(session: &mut Session, owner: &Owner, query: &ListQuery) -> Result<Page, Failure> {
    let Some(name) = owner.name() else { return Ok(Page::default()) };
    let size = query.page_size();
    let mut page = Page::default();
    let mut before = query.before.map_or(Uuid::max(), |id| id.as_uuid());
    let mut looked_at = 0;
    loop {
        // As many as may be wanted, and one more that tells whether others follow.
        let limit = if looked_at == 0 { size + 1 } else { MAX_LISTED / 10 };
        let statement = session.prepare_for(|sql| &sql.list, limit).await?;
        let rows = session.run(&statement, &[&name, &before]).await?;
        let is_last = rows.len() < limit;
        for row in &rows {
            if page.operations.len() == size || looked_at == MAX_LISTED {
                // There is one more: the page before it ends at the last one that was looked at.
                return Ok(page);
            }
            looked_at += 1;
            before = row.get(1);
            page.next = id(row, 1).or(page.next);
            let Ok(operation) = record(row, 2) else { continue };
            if !operation.is_expired(at(row)) && query.selects(&operation) {
                page.operations.push(operation);
            }
        }
        if is_last {
            return Ok(Page { next: None, ..page });
        }
    }
}

/// Learns what the server's clock shows from rows that begin with it.
pub(super) fn learn(session: &Session, rows: &[Row], asked: Instant) {
    if let Some(row) = rows.first() {
        session.line.clock.learn(at(row), asked);
    }
}

/// The server's clock, which is the first column.
pub(super) fn at(row: &Row) -> Timestamp {
    Timestamp::from_unix_millis(row.get(0))
}

fn id(row: &Row, column: usize) -> Option<OperationId> {
    row.get::<_, Uuid>(column).try_into().ok()
}

fn record(row: &Row, column: usize) -> Result<Operation, Failure> {
    Ok(Operation::from_record(row.get::<_, &[u8]>(column))?)
}

/// The operation of a row with the time, its id, its record and its write id.
pub(super) fn observe(row: &Row) -> Result<Observed, Failure> {
    let write_id: i64 = row.get(3);
    Ok(Observed {
        operation: record(row, 2)?,
        now: at(row),
        write_id: u64::from_ne_bytes(write_id.to_ne_bytes()),
    })
}
