//! What is done within a transaction of the writer.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, params};

use super::error::Failure;
use super::read::{blob, observe};
use super::sql::{Reads, Writes};
use crate::operation::{Change, Due, Operation, OperationId, Owner};
use crate::store::{
    Acceptance, ClaimRequest, Fingerprint, Full, Idempotency, Limits, Observed, Submission, Swap,
    Swapped,
};
use crate::time::Timestamp;

/// Under this name the unfinished operations of all owners are counted; no owner is called so.
const ALL: &str = "";

/// A transaction that is open.
pub(super) struct Transaction<'a, 'c> {
    pub(super) reads: &'a mut Reads<'c>,
    pub(super) writes: &'a mut Writes<'c>,
    /// By how much the counts of unfinished operations are to change at its end.
    pub(super) live: HashMap<String, i64>,
}

/// An operation as it is accepted, and its record: made by whoever calls, not by the one thread that
/// writes.
pub(super) struct Accepted {
    operation: Operation,
    record: Vec<u8>,
}

impl Accepted {
    pub(super) fn new(submission: &Submission, now: Timestamp) -> Self {
        let operation = submission.operation.accept(now);
        Self { record: operation.to_record(), operation }
    }
}

/// A row without its record.
struct Found {
    row: i64,
    version: i64,
    expires: Option<i64>,
    owner: Option<String>,
}

impl Found {
    fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now.as_unix_millis())
    }
}

impl Transaction<'_, '_> {
    pub(super) fn accept(
        &mut self,
        submission: &Submission,
        accepted: &Accepted,
        limits: Limits,
        now: Timestamp,
    ) -> Result<Acceptance, Failure> {
        let Submission { operation: new, input, idempotency, .. } = submission;
        if let Some(idempotency) = idempotency {
            match self.find_key(new.owner(), idempotency)? {
                Some((found, _)) if found.is_expired(now) => self.drop_row(&found)?,
                Some((_, used_for)) if used_for != idempotency.fingerprint => {
                    return Ok(Acceptance::KeyReused);
                }
                Some((found, _)) => {
                    return Ok(Acceptance::Existing(self.read(&found, now)?));
                }
                None => {}
            }
        }
        if let Some(full) = self.full(limits, new.owner())? {
            // One whose id is in use is not new.
            let existing = self.in_use(new.id(), now)?;
            return Ok(existing.unwrap_or(Acceptance::Full(full)));
        }

        let row = match self.insert(accepted)? {
            Some(row) => row,
            // The id is in use, which hardly ever is so.
            None => match self.in_use(new.id(), now)? {
                Some(existing) => return Ok(existing),
                None => self.insert(accepted)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?,
            },
        };
        let operation = &accepted.operation;
        if let Some(input) = input {
            self.writes.insert_input.execute(params![row, &input[..]])?;
        }
        if let Some(Idempotency { scope, key, fingerprint }) = idempotency {
            let owner = operation.owner().name().unwrap_or_default();
            let params = params![owner, &**scope, key.as_str(), &fingerprint.0[..], row];
            self.writes.insert_key.execute(params)?;
        }
        self.count(operation.owner().name(), 1);
        Ok(Acceptance::created(operation.clone()))
    }

    /// What is said of an id that an operation has already. One that has expired makes way.
    fn in_use(&mut self, id: OperationId, now: Timestamp) -> Result<Option<Acceptance>, Failure> {
        match self.find(id)? {
            Some(found) if found.is_expired(now) => self.drop_row(&found).map(|()| None),
            Some(found) => Ok(Some(Acceptance::Existing(self.read(&found, now)?))),
            None => Ok(None),
        }
    }

    /// Inserts the row of a new operation; none if its id is in use.
    fn insert(
        &mut self,
        Accepted { operation, record }: &Accepted,
    ) -> Result<Option<i64>, Failure> {
        let inserted = self.writes.insert.insert(params![
            blob(operation.id()),
            operation.kind().as_str(),
            operation.owner().name(),
            operation.status().as_str(),
            signed(operation.version()),
            0,
            due_at(operation, Due::Claim),
            due_at(operation, Due::Settle),
            due_at(operation, Due::Expire),
            record,
        ]);
        match inserted {
            Ok(row) => Ok(Some(row)),
            Err(rusqlite::Error::StatementChangedRows(0)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// `record` is that of the operation as it shall be.
    pub(super) fn swap(
        &mut self,
        swap: &Swap,
        record: &[u8],
        now: Timestamp,
    ) -> Result<Swapped, Failure> {
        let Swap { next, expected, write_id, outcome, outbox } = swap;
        let found = match self.find_version(next.id(), *expected, now)? {
            Ok(found) => found,
            Err(other) => return Ok(other),
        };
        let row = found.row;
        let expires = due_at(next, Due::Expire);
        self.writes.update.execute(params![
            row,
            next.status().as_str(),
            signed(next.version()),
            signed(*write_id),
            due_at(next, Due::Claim),
            due_at(next, Due::Settle),
            expires,
            record,
        ])?;
        if expires.is_some() {
            self.writes.delete_input.execute(params![row])?;
            if found.expires.is_none() {
                self.count(found.owner.as_deref(), -1);
            }
        }
        if let Some(outcome) = outcome {
            let params = params![row, outcome.to_record(), &outcome.body[..]];
            self.writes.insert_outcome.execute(params)?;
        }
        for submission in outbox {
            let accepted = Accepted::new(submission, now);
            self.accept(submission, &accepted, Limits::default(), now)?;
        }
        Ok(Swapped::Swapped)
    }

    pub(super) fn remove(
        &mut self,
        id: OperationId,
        expected: u64,
        now: Timestamp,
    ) -> Result<Swapped, Failure> {
        match self.find_version(id, expected, now)? {
            Ok(found) => self.drop_row(&found).map(|()| Swapped::Swapped),
            Err(other) => Ok(other),
        }
    }

    pub(super) fn purge(&mut self, limit: usize, now: Timestamp) -> Result<usize, Failure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let params = params![now.as_unix_millis(), limit];
        let expired = self.writes.expired.query_map(params, |row| row.get::<_, i64>(0))?;
        let expired = expired.collect::<Result<Vec<i64>, _>>()?;
        for row in &expired {
            self.delete(*row)?;
        }
        Ok(expired.len())
    }

    pub(super) fn claim(
        &mut self,
        request: &ClaimRequest,
        now: Timestamp,
    ) -> Result<Vec<Observed>, Failure> {
        let change = Change::Claim { lease: request.lease() };
        let mut claimed = Vec::new();
        for Observed { operation, .. } in self.reads.due(&request.to_due_query(), now)? {
            // What is due may be claimed: the two are one rule of the operation's.
            let Ok(next) = operation.apply(&change, now) else { continue };
            let swap = Swap::new(next.clone(), operation.version());
            // A row that is not what its record says is nobody's to claim.
            if self.swap(&swap, &next.to_record(), now)? == Swapped::Swapped {
                claimed.push(Observed { operation: next, now, write_id: 0 });
            }
        }
        Ok(claimed)
    }

    /// How much room is free inside the database.
    pub(super) fn free_bytes(&mut self) -> Result<usize, Failure> {
        let free: i64 = self.writes.free_bytes.query_row([], |row| row.get(0))?;
        Ok(usize::try_from(free).unwrap_or(0))
    }

    /// Writes what the counts have changed by.
    pub(super) fn write_counts(&mut self) -> Result<(), Failure> {
        for (owner, by) in self.live.drain().filter(|(_, by)| *by != 0) {
            self.writes.add_live.execute(params![owner, by])?;
            if by < 0 {
                self.writes.drop_live.execute(params![owner])?;
            }
        }
        Ok(())
    }

    fn find(&mut self, id: OperationId) -> Result<Option<Found>, Failure> {
        let found = self.writes.find.query_row(params![blob(id)], |row| {
            Ok(Found {
                row: row.get(0)?,
                version: row.get(1)?,
                expires: row.get(2)?,
                owner: row.get(3)?,
            })
        });
        Ok(found.optional()?)
    }

    /// The row of an operation that has the expected version, or what to say of it otherwise.
    fn find_version(
        &mut self,
        id: OperationId,
        expected: u64,
        now: Timestamp,
    ) -> Result<Result<Found, Swapped>, Failure> {
        match self.find(id)? {
            Some(found) if found.is_expired(now) => Ok(Err(Swapped::Gone)),
            Some(found) if found.version == signed(expected) => Ok(Ok(found)),
            Some(found) => Ok(Err(Swapped::Conflict(self.read(&found, now)?))),
            None => Ok(Err(Swapped::Gone)),
        }
    }

    fn find_key(
        &mut self,
        owner: &Owner,
        Idempotency { scope, key, .. }: &Idempotency,
    ) -> Result<Option<(Found, Fingerprint)>, Failure> {
        let params = params![owner.name().unwrap_or_default(), &**scope, key.as_str()];
        let found = self.writes.key.query_row(params, |row| {
            let (expires, owner) = (row.get(2)?, row.get(3)?);
            let found = Found { row: row.get(0)?, version: 0, expires, owner };
            Ok((found, Fingerprint(row.get(1)?)))
        });
        Ok(found.optional()?)
    }

    fn read(&mut self, found: &Found, now: Timestamp) -> Result<Observed, Failure> {
        let mut rows = self.writes.read.query(params![found.row])?;
        match rows.next()? {
            Some(row) => observe(row, now),
            None => Err(rusqlite::Error::QueryReturnedNoRows.into()),
        }
    }

    fn full(&mut self, limits: Limits, owner: &Owner) -> Result<Option<Full>, Failure> {
        if let Some(total) = limits.total {
            if self.live(ALL)? >= total {
                return Ok(Some(Full::Total));
            }
        }
        if let (Some(most), Some(name)) = (limits.owner, owner.name()) {
            if self.live(name)? >= most {
                return Ok(Some(Full::Owner));
            }
        }
        Ok(None)
    }

    fn live(&mut self, owner: &str) -> Result<usize, Failure> {
        let stored = self.writes.live.query_row(params![owner], |row| row.get(0)).optional()?;
        let count = stored.unwrap_or(0_i64) + self.live.get(owner).copied().unwrap_or(0);
        Ok(usize::try_from(count).unwrap_or(0))
    }

    fn count(&mut self, owner: Option<&str>, by: i64) {
        for name in [Some(ALL), owner].into_iter().flatten() {
            match self.live.get_mut(name) {
                Some(count) => *count += by,
                None => {
                    self.live.insert(name.to_owned(), by);
                }
            }
        }
    }

    fn drop_row(&mut self, found: &Found) -> Result<(), Failure> {
        if found.expires.is_none() {
            self.count(found.owner.as_deref(), -1);
        }
        self.delete(found.row)
    }

    fn delete(&mut self, row: i64) -> Result<(), Failure> {
        let Self { writes, .. } = self;
        for statement in [
            &mut writes.delete,
            &mut writes.delete_input,
            &mut writes.delete_outcome,
            &mut writes.delete_key,
        ] {
            statement.execute(params![row])?;
        }
        Ok(())
    }
}

fn due_at(operation: &Operation, due: Due) -> Option<i64> {
    operation.due_at(due).map(Timestamp::as_unix_millis)
}

/// A number as its column has it: the same bits.
fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}
