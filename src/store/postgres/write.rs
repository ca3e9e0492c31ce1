//! What is written: groups of swaps in one statement each, and beside them those of acceptances.

use std::collections::HashSet;
use std::ops::Range;
use std::slice;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::error::Failure;
use super::lane::{Run, Serve, Session};
use super::patience::HeldUp;
use super::read::get;
use super::sql::{PARTS, STEP_PARTS};
use crate::operation::{Due, Operation, Outcome, Owner};
use crate::store::server::{Answer, Grouped};
use crate::store::{Acceptance, StoreError, Submission, Swap, Swapped};
use crate::time::Timestamp;

/// How often a statement is tried that others were in the way of.
pub(super) const TRIES: usize = 3;

/// Tries a call again that others were in the way of.
macro_rules! again {
    ($call:expr) => {{
        let mut tries = 1;
        loop {
            match $call {
                Err(failure) if failure.is_conflict() && tries < TRIES => tries += 1,
                result => break result,
            }
        }
    }};
}
pub(super) use again;

/// A new operation, as it is accepted.
#[derive(Debug)]
pub(super) struct Accept {
    pub(super) submission: Submission,
    pub(super) operation: Operation,
    pub(super) record: Vec<u8>,
}

impl Accept {
    pub(super) fn new(submission: Submission, now: Timestamp) -> Self {
        let operation = submission.operation.accept(now);
        Self { record: operation.to_record(), operation, submission }
    }
}

/// A call that writes.
#[derive(Debug)]
pub(super) enum Write {
    Accept(Box<Accept>, Answer<Acceptance>),
    Swap(Box<Swap>, Vec<u8>, Answer<Swapped>),
}

impl Grouped for Write {
    fn bytes(&self) -> usize {
        match self {
            Self::Accept(accept, _) => accept.submission.input.as_ref().map_or(0, Bytes::len),
            Self::Swap(swap, ..) => swap.outcome.as_ref().map_or(0, |outcome| outcome.body.len()),
        }
    }
}

/// Writes groups, and counts in a part of its own.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) part: i16,
    pub(super) held_up: HeldUp,
}

impl Writer {
    /// For statements that are committed each by itself.
    pub(super) fn new() -> Self {
        Self::counting_in(0..PARTS)
    }

    /// For transactions of several.
    pub(super) fn of_steps() -> Self {
        Self::counting_in(STEP_PARTS)
    }

    fn counting_in(parts: Range<i16>) -> Self {
        // From anywhere on, or all processes would count in the same few.
        static NEXT: LazyLock<AtomicI16> = LazyLock::new(|| {
            let mut start = [0; 2];
            let _ = getrandom::fill(&mut start);
            AtomicI16::new(i16::from_ne_bytes(start))
        });
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let part = parts.start + next.rem_euclid(parts.end - parts.start);
        Self { part, held_up: HeldUp::default() }
    }
}

impl Serve<Write> for Writer {
    async fn serve(&mut self, session: &mut Session, calls: Vec<Write>) -> Result<(), Failure> {
        let (mut accepts, mut swaps) = (Vec::new(), Vec::new());
        for call in calls {
            match call {
                Write::Accept(accept, answer) => accepts.push((accept, answer)),
                Write::Swap(swap, record, answer) if answer.begin() => {
                    swaps.push((swap, record, answer));
                }
                Write::Swap(..) => {}
            }
        }
        // If that ends the connection, the acceptances have not begun.
        self.swap_all(session, swaps).await?;
        self.accept_all(session, accepts).await
    }
}

/// A swap, its record, and where its answer goes.
type SwapCall = (Box<Swap>, Vec<u8>, Answer<Swapped>);

/// What to say to each of a group that was written; and why the connection is lost, if it is.
type Answered = (Vec<Result<Swapped, StoreError>>, Result<(), Failure>);

impl Writer {
    /// Writes together what nobody holds up, and the rest apart.
    async fn swap_all(
        &mut self,
        session: &mut Session,
        swaps: Vec<SwapCall>,
    ) -> Result<(), Failure> {
        let (mut apart, group): (Vec<_>, Vec<_>) =
            swaps.into_iter().partition(|(swap, ..)| self.held_up.contains(swap.next.owner()));
        let patience = session.line.settings.wait_together();
        let mut ended = Ok(());
        match self.swap_some(session, &group, patience).await {
            Ok((answers, is_sound)) => {
                for ((.., answer), said) in group.into_iter().zip(answers) {
                    answer.send(said);
                }
                ended = is_sound;
            }
            Err(failure) if !failure.is_fatal() && (group.len() > 1 || failure.is_held_up()) => {
                apart.splice(..0, group);
            }
            Err(failure) => {
                for (.., answer) in group {
                    answer.send(Err(failure.to_write_error()));
                }
                if failure.is_fatal() {
                    ended = Err(failure);
                }
            }
        }
        self.swap_each(session, apart, ended).await
    }

    /// Writes each alone, so that one that fails fails no other; and none waits long for a row, so that it
    /// keeps no other waiting. Nothing more is sent once the connection has ended.
    async fn swap_each(
        &mut self,
        session: &mut Session,
        swaps: Vec<SwapCall>,
        mut ended: Result<(), Failure>,
    ) -> Result<(), Failure> {
        let patience = session.line.settings.wait_alone();
        let mut waited_for = HashSet::new();
        for swap in swaps {
            if ended.is_err() {
                swap.2.send(Err(Failure::NotConnected.to_error()));
                continue;
            }
            let owner = swap.0.next.owner().clone();
            if waited_for.contains(&owner) {
                swap.2.send(Err(Failure::Contended.to_error()));
                continue;
            }
            if !swap.2.is_awaited() {
                continue;
            }
            let result = self.swap_some(session, slice::from_ref(&swap), patience).await;
            if self.note(session, &owner, result.as_ref().err()) {
                waited_for.insert(owner);
            }
            match result {
                Ok((mut answers, is_sound)) => {
                    swap.2
                        .send(answers.pop().unwrap_or_else(|| Err(Failure::Contended.to_error())));
                    ended = is_sound;
                }
                Err(failure) => {
                    swap.2.send(Err(failure.to_write_error()));
                    if failure.is_fatal() {
                        ended = Err(failure);
                    }
                }
            }
        }
        ended
    }

    /// Notes what became of a call of that owner's alone: whether the owner's others need not be tried now.
    pub(super) fn note(
        &mut self,
        session: &Session,
        owner: &Owner,
        failure: Option<&Failure>,
    ) -> bool {
        self.held_up.note(owner, failure, session.line.settings.call_timeout);
        self.held_up.contains(owner)
    }

    /// Writes a group in one statement that waits so long for a row. If it fails, nothing is written.
    async fn swap_some(
        &self,
        session: &mut Session,
        swaps: &[SwapCall],
        patience: Duration,
    ) -> Result<Answered, Failure> {
        if swaps.is_empty() {
            return Ok((Vec::new(), Ok(())));
        }
        session.set_patience(patience).await?;
        let group: Vec<(&Swap, &[u8])> =
            swaps.iter().map(|(swap, record, _)| (&**swap, &record[..])).collect();
        let written = again!(self.swap(session, &group).await)?;
        // Whether the ones that were not written are gone or have changed.
        let missing = swaps.iter().zip(&written).filter(|(_, is_written)| !**is_written);
        let ids: Vec<_> = missing.map(|((swap, ..), _)| swap.next.id()).collect();
        let others = if ids.is_empty() { Ok(None) } else { get(session, &ids).await.map(Some) };
        let answer = |((swap, ..), is_written): (&SwapCall, bool)| {
            if is_written {
                return Ok(Swapped::Swapped);
            }
            match &others {
                Ok(others) => {
                    match others.as_ref().and_then(|others| others.get(&swap.next.id())) {
                        Some(Ok(observed)) => Ok(Swapped::Conflict(observed.clone())),
                        Some(Err(failure)) => Err(failure.to_error()),
                        None => Ok(Swapped::Gone),
                    }
                }
                Err(failure) => Err(failure.to_error()),
            }
        };
        let answers = swaps.iter().zip(written).map(answer).collect();
        Ok((
            answers,
            match others {
                Err(failure) if failure.is_fatal() => Err(failure),
                _ => Ok(()),
            },
        ))
    }

    /// Writes a group in one statement, and says which of it took place.
    pub(super) async fn swap(
        &self,
        run: &mut impl Run,
        group: &[(&Swap, &[u8])],
    ) -> Result<Vec<bool>, Failure> {
        let swaps = || group.iter().map(|(swap, _)| *swap);
        let due = |due| swaps().map(|swap| due_at(&swap.next, due)).collect::<Vec<_>>();
        let ids: Vec<Uuid> = swaps().map(|swap| swap.next.id().as_uuid()).collect();
        let expected: Vec<i64> = swaps().map(|swap| signed(swap.expected)).collect();
        let status: Vec<&str> = swaps().map(|swap| swap.next.status().as_str()).collect();
        let version: Vec<i64> = swaps().map(|swap| signed(swap.next.version())).collect();
        let write_id: Vec<i64> = swaps().map(|swap| signed(swap.write_id)).collect();
        let record: Vec<&[u8]> = group.iter().map(|(_, record)| *record).collect();
        let heads: Vec<Option<Vec<u8>>> =
            swaps().map(|swap| swap.outcome.as_ref().map(Outcome::to_record)).collect();
        let bodies: Vec<Option<&[u8]>> =
            swaps().map(|swap| swap.outcome.as_ref().map(|outcome| &outcome.body[..])).collect();
        let params: [&(dyn ToSql + Sync); 12] = [
            &ids,
            &expected,
            &status,
            &version,
            &write_id,
            &due(Due::Claim),
            &due(Due::Settle),
            &due(Due::Expire),
            &record,
            &heads,
            &bodies,
            &self.part,
        ];
        let rows = run.query(|sql| &sql.swap, &params).await?;
        let mut written = vec![false; group.len()];
        for row in &rows {
            let place: i64 = row.get(0);
            let place = usize::try_from(place).unwrap_or(0).saturating_sub(1);
            if let Some(is_written) = written.get_mut(place) {
                *is_written = true;
            }
        }
        Ok(written)
    }
}

pub(super) fn due_at(operation: &Operation, due: Due) -> Option<i64> {
    operation.due_at(due).map(Timestamp::as_unix_millis)
}

/// A number as its column has it: the same bits.
pub(super) fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}
