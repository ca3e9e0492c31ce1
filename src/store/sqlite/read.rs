//! What is asked of the tables, by readers and by the writer alike.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use rusqlite::{Row, Statement, ToSql, params};

use super::error::Failure;
use super::sql::Reads;
use crate::operation::{Due, Kind, Operation, OperationId, Outcome, Owner, RecordError};
use crate::store::query::MAX_LISTED;
use crate::store::{DueQuery, ListQuery, Observed, Page};
use crate::time::Timestamp;

impl Reads<'_> {
    pub(super) fn get(
        &mut self,
        id: OperationId,
        now: Timestamp,
    ) -> Result<Option<Observed>, Failure> {
        first(&mut self.get, params![blob(id)], |row| observe(row, now))
            .map(|found| found.filter(|observed: &Observed| !observed.operation.is_expired(now)))
    }

    pub(super) fn input(
        &mut self,
        id: OperationId,
        now: Timestamp,
    ) -> Result<Option<Bytes>, Failure> {
        first(&mut self.input, params![blob(id)], |row| {
            let is_expired = record(row)?.is_expired(now);
            Ok((!is_expired).then_some(bytes(row, 1)?))
        })
        .map(Option::flatten)
    }

    pub(super) fn outcome(
        &mut self,
        id: OperationId,
        now: Timestamp,
    ) -> Result<Option<Outcome>, Failure> {
        first(&mut self.outcome, params![blob(id)], |row| {
            let is_expired = record(row)?.is_expired(now);
            let outcome =
                Outcome::from_record(row.get_ref(1)?.as_blob().map_err(wrong)?, bytes(row, 2)?);
            Ok((!is_expired).then_some(outcome?))
        })
        .map(Option::flatten)
    }

    /// What is due, longest due first. A row that cannot be understood stands in nobody's way.
    pub(super) fn due(
        &mut self,
        query: &DueQuery,
        now: Timestamp,
    ) -> Result<Vec<Observed>, Failure> {
        if query.due == Due::Claim {
            return self.claimable(query, now);
        }
        let statement =
            if query.due == Due::Settle { &mut self.to_settle } else { &mut self.to_expire };
        let mut due = Vec::new();
        each_due(statement, params![now.as_unix_millis()], query, now, |observed| {
            if query.selects(&observed.operation) {
                due.push(observed);
            }
            enough(due.len() >= query.limit)
        })?;
        Ok(due)
    }

    /// Kind by kind, so that work that nobody does hides no other.
    fn claimable(&mut self, query: &DueQuery, now: Timestamp) -> Result<Vec<Observed>, Failure> {
        let kinds: BTreeSet<Kind> = match &query.kinds {
            Some(kinds) => kinds.iter().cloned().collect(),
            None => self.kinds()?,
        };
        let mut due = Vec::new();
        for kind in kinds {
            let mut left = query.limit;
            let params = params![now.as_unix_millis(), kind.as_str()];
            each_due(&mut self.to_claim, params, query, now, |observed| {
                due.push(observed);
                left -= 1;
                enough(left == 0)
            })?;
        }
        due.sort_by_cached_key(|Observed { operation, .. }| {
            (operation.due_at(Due::Claim), operation.id())
        });
        due.truncate(query.limit);
        Ok(due)
    }

    /// The kinds of which anything may ever be claimed.
    fn kinds(&mut self) -> Result<BTreeSet<Kind>, Failure> {
        let mut kinds = BTreeSet::new();
        let mut last = String::new();
        loop {
            let next: Option<String> = self.next_kind.query_row(params![last], |row| row.get(0))?;
            let Some(next) = next else { return Ok(kinds) };
            // One that is no kind is a row that cannot be understood.
            kinds.extend(Kind::new(&next));
            last = next;
        }
    }

    /// Whether there is anything to purge, also what cannot be understood.
    pub(super) fn any_expired(&mut self, now: Timestamp) -> Result<bool, Failure> {
        Ok(self.any_expired.exists(params![now.as_unix_millis()])?)
    }

    pub(super) fn list(
        &mut self,
        owner: &Owner,
        query: &ListQuery,
        now: Timestamp,
    ) -> Result<Page, Failure> {
        let Some(name) = owner.name() else { return Ok(Page::default()) };
        let before = query.before.map_or([u8::MAX; 16], |id| *id.as_uuid().as_bytes());
        let mut rows = self.list.query(params![name, &before[..]])?;
        let mut page = Page::default();
        let mut looked_at = 0;
        while let Some(row) = rows.next()? {
            if page.operations.len() == query.page_size() || looked_at == MAX_LISTED {
                // There is one more: the page before it ends at the last one that was looked at.
                return Ok(page);
            }
            looked_at += 1;
            let Ok(id) = uuid::Uuid::from_bytes(row.get(0)?).try_into() else { continue };
            page.next = Some(id);
            let expires: Option<i64> = row.get(1)?;
            if expires.is_some_and(|expires| expires <= now.as_unix_millis()) {
                continue;
            }
            // By what the record says: a state of which only a newer version knows counts as running.
            let operation = Operation::from_record(row.get_ref(2)?.as_blob().map_err(wrong)?).ok();
            page.operations.extend(operation.filter(|operation| query.selects(operation)));
        }
        Ok(Page { next: None, ..page })
    }
}

/// Hands on what is due, in the order of the statement, until that is enough.
fn each_due(
    statement: &mut Statement<'_>,
    params: &[&dyn ToSql],
    query: &DueQuery,
    now: Timestamp,
    mut hand_on: impl FnMut(Observed) -> ControlFlow<()>,
) -> Result<(), Failure> {
    if query.limit == 0 {
        return Ok(());
    }
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        let observed = match observe(row, now) {
            Ok(observed) => observed,
            Err(Failure::Record(_)) => continue,
            Err(failure) => return Err(failure),
        };
        if observed.operation.is_due(query.due, now) && hand_on(observed).is_break() {
            break;
        }
    }
    Ok(())
}

fn enough(is_enough: bool) -> ControlFlow<()> {
    if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The first row of a query, if there is one.
fn first<T>(
    statement: &mut Statement<'_>,
    params: &[&dyn ToSql],
    read: impl FnOnce(&Row<'_>) -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    let mut rows = statement.query(params)?;
    rows.next()?.map(read).transpose()
}

/// The operation of a row that begins with its record and its write id.
pub(super) fn observe(row: &Row<'_>, now: Timestamp) -> Result<Observed, Failure> {
    let write_id: i64 = row.get(1)?;
    let write_id = u64::from_ne_bytes(write_id.to_ne_bytes());
    Ok(Observed { operation: record(row)?, now, write_id })
}

fn record(row: &Row<'_>) -> Result<Operation, Failure> {
    Ok(Operation::from_record(row.get_ref(0)?.as_blob().map_err(wrong)?)?)
}

fn bytes(row: &Row<'_>, column: usize) -> Result<Bytes, Failure> {
    Ok(Bytes::copy_from_slice(row.get_ref(column)?.as_blob().map_err(wrong)?))
}

/// The tables are strict, so a column of another type is a damaged row.
fn wrong(error: rusqlite::types::FromSqlError) -> Failure {
    Failure::Record(RecordError::new(error))
}

/// The id as its column has it.
pub(super) fn blob(id: OperationId) -> [u8; 16] {
    *id.as_uuid().as_bytes()
}
