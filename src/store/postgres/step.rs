//! Calls that take more than one statement, or more time.

use std::collections::HashSet;
use std::time::Instant;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::accept::{Verdict, existing, insert};
use super::error::{Failure, Left};
use super::lane::{Run, Serve, Session, give};
use super::read::{MAX_DUE, MAX_PASSED_OVER, all_kinds, at, get, learn, observe, understood};
use super::transaction::{Last, end};
use super::write::{Accept, TRIES, Writer, again, signed};
use crate::operation::{Change, Due, OperationId, Owner};
use crate::store::ext::next_write_id;
use crate::store::server::{Answer, AtOnce, Grouped, names};
use crate::store::{ClaimRequest, Limits, Observed, Submission, Swap, Swapped};

/// How many expired operations one statement removes at the most.
const MAX_PURGED: usize = 50;

/// A call that takes more than one statement, or more time.
#[derive(Debug)]
pub(super) enum Step {
    Claim(ClaimRequest, Answer<Vec<Observed>>),
    SwapWithOutbox(Box<Swap>, Answer<Swapped>),
    Remove(OperationId, u64, Answer<Swapped>),
    Purge(usize, Answer<usize>),
}

impl Grouped for Step {
    fn bytes(&self) -> usize {
        // Each has statements of its own.
        0
    }
}

/// Makes the calls that are more than a statement, one after the other.
#[derive(Debug)]
pub(super) struct Stepper {
    writer: Writer,
    /// How many are purged by one statement: fewer than at first once that took too long.
    purged_at_once: AtOnce,
    /// What a claim that has just failed may have claimed all the same.
    in_doubt: Vec<Observed>,
    unsure: Vec<Unsure>,
}

/// What was claimed, or not: the connection was lost before the answer came.
#[derive(Debug)]
struct Unsure {
    claimed: Vec<Observed>,
    /// Who waits for it; if nobody, it is to be given back.
    answer: Option<Answer<Vec<Observed>>>,
    /// Until then its leases hold; without an end, if there is none.
    until: Option<Instant>,
}

impl Serve<Step> for Stepper {
    async fn begin(&mut self, session: &mut Session) -> Result<(), Failure> {
        session.set_patience(session.line.settings.wait_together()).await?;
        self.make_sure(session).await
    }

    async fn serve(&mut self, session: &mut Session, calls: Vec<Step>) -> Result<(), Failure> {
        self.make_sure(session).await?;
        // Claims wait for nobody's rows, so they come first.
        let (claims, others): (Vec<_>, Vec<_>) =
            calls.into_iter().partition(|call| matches!(call, Step::Claim(..)));
        let mut waited_for = HashSet::new();
        for call in claims.into_iter().chain(others) {
            // What is left once the connection is lost has not begun.
            match call {
                Step::Claim(request, answer) if answer.begin() => {
                    self.claim_for(session, &request, answer).await?;
                }
                Step::SwapWithOutbox(swap, answer) if answer.begin() => {
                    let owner = swap.next.owner();
                    let swapped = if waited_for.contains(owner) {
                        // It would be in vain, and the others wait here.
                        Err(Failure::Contended)
                    } else {
                        self.swap_with_outbox(session, &swap).await
                    };
                    if self.writer.held_up.contains(owner) {
                        waited_for.insert(owner.clone());
                    }
                    give(answer, swapped, Failure::to_write_error)?;
                }
                Step::Remove(id, expected, answer) if answer.begin() => {
                    give(
                        answer,
                        self.remove(session, id, expected).await,
                        Failure::to_write_error,
                    )?;
                }
                Step::Purge(limit, answer) if answer.begin() => {
                    give(answer, self.purge(session, limit).await, Failure::to_write_error)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Stepper {
    pub(super) fn new() -> Self {
        Self {
            writer: Writer::of_steps(),
            purged_at_once: AtOnce::new(MAX_PURGED),
            in_doubt: Vec::new(),
            unsure: Vec::new(),
        }
    }

    /// Claims, and gives back what nobody waits for any more: an attempt that does not take place may be
    /// the only one. If it is not known whether it took place, whoever waits does so until it is.
    async fn claim_for(
        &mut self,
        session: &mut Session,
        request: &ClaimRequest,
        answer: Answer<Vec<Observed>>,
    ) -> Result<(), Failure> {
        let result = self.claim(session, request, &answer).await;
        let in_doubt = std::mem::take(&mut self.in_doubt);
        let until = Instant::now().checked_add(request.lease());
        match result {
            Ok(claimed) => {
                self.hand_out(session, Unsure { claimed, answer: Some(answer), until }).await
            }
            Err(failure) if !in_doubt.is_empty() => {
                self.unsure.push(Unsure { claimed: in_doubt, answer: Some(answer), until });
                Err(failure)
            }
            failed => give(answer, failed, Failure::to_write_error),
        }
    }

    /// Gives what was claimed to whoever waits for it, or back.
    async fn hand_out(&mut self, session: &mut Session, sure: Unsure) -> Result<(), Failure> {
        let Unsure { claimed, answer, until } = sure;
        let unheard = match answer {
            Some(answer) => match answer.try_send(Ok(claimed)) {
                Ok(()) => return Ok(()),
                Err(unheard) => unheard.unwrap_or_default(),
            },
            None => claimed,
        };
        let released = self.release(session, &unheard).await;
        if released.is_err() {
            self.unsure.push(Unsure { claimed: unheard, answer: None, until });
        }
        released
    }

    /// Finds out what became of claims that got no answer. Those of which it cannot be found out yet stay.
    async fn make_sure(&mut self, session: &mut Session) -> Result<(), Failure> {
        let mut left = std::mem::take(&mut self.unsure).into_iter();
        while let Some(unsure) = left.next() {
            let result = self.make_one_sure(session, unsure).await;
            if result.is_err() {
                self.unsure.extend(left);
                return result;
            }
        }
        Ok(())
    }

    async fn make_one_sure(
        &mut self,
        session: &mut Session,
        unsure: Unsure,
    ) -> Result<(), Failure> {
        if unsure.until.is_some_and(|until| Instant::now() >= until) {
            // Others claim it now.
            return Ok(());
        }
        let operations = unsure.claimed.iter().map(|observed| &observed.operation);
        let ids: Vec<Uuid> = operations.map(|operation| operation.id().as_uuid()).collect();
        let rows = match session.query(|sql| &sql.settled, &[&ids]).await {
            Ok(rows) => rows,
            Err(failure) => {
                self.unsure.push(unsure);
                return if failure.is_fatal() { Err(failure) } else { Ok(()) };
            }
        };
        // As it is now, so that whoever gets it knows the time.
        let found: Vec<Observed> = rows.iter().filter_map(|row| observe(row).ok()).collect();
        let sure = unsure.claimed.iter().filter_map(|claimed| {
            let is_it = |it: &&Observed| {
                it.operation.id() == claimed.operation.id() && it.write_id == claimed.write_id
            };
            found.iter().find(is_it).cloned()
        });
        let claimed = sure.collect();
        self.hand_out(session, Unsure { claimed, ..unsure }).await
    }

    /// Gives back what was claimed.
    async fn release(&self, session: &mut Session, claimed: &[Observed]) -> Result<(), Failure> {
        if claimed.is_empty() {
            return Ok(());
        }
        let released: Vec<_> = claimed
            .iter()
            .filter_map(|Observed { operation, now, .. }| {
                let change = Change::Unclaim { attempt: operation.attempt() };
                let next = operation.apply(&change, *now).ok()?;
                let record = next.to_record();
                Some((Swap::new(next, operation.version()), record))
            })
            .collect();
        let group: Vec<(&Swap, &[u8])> =
            released.iter().map(|(swap, record)| (swap, &record[..])).collect();
        match again!(self.writer.swap(session, &group).await) {
            Err(failure) if failure.is_fatal() => Err(failure),
            // Their leases end by themselves.
            _ => Ok(()),
        }
    }

    async fn claim(
        &mut self,
        session: &mut Session,
        request: &ClaimRequest,
        answer: &Answer<Vec<Observed>>,
    ) -> Result<Vec<Observed>, Failure> {
        let query = request.to_due_query();
        let kinds = match &query.kinds {
            Some(kinds) => names(kinds),
            None => all_kinds(session).await?,
        };
        let limit = query.limit.min(MAX_DUE);
        if kinds.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let change = Change::Claim { lease: request.lease() };
        let statement = session.prepare_for(|sql| &sql.claim, limit).await?;
        again!({
            let mut passed_over: Vec<Uuid> = Vec::new();
            loop {
                let params: [&(dyn ToSql + Sync); 2] = [&kinds, &passed_over];
                let asked = Instant::now();
                let (begun, rows) = tokio::join!(
                    biased;
                    session.say("BEGIN"),
                    session.run(&statement, &params),
                );
                let rows = match begun.and(rows) {
                    Ok(rows) => rows,
                    failed => break end(session, failed.map(|_| Vec::new())).await,
                };
                learn(session, &rows, asked);
                let (due, others) = understood(&rows, Due::Claim);
                if !answer.is_awaited() {
                    break end(session, Ok(Vec::new())).await;
                }
                let is_all = others.is_empty() || passed_over.len() >= MAX_PASSED_OVER;
                if !due.is_empty() || is_all {
                    break self.take(session, due, &change).await;
                }
                session.say("ROLLBACK").await?;
                passed_over.extend(others);
            }
        })
    }

    /// Claims what is held by the transaction that has begun, and ends it.
    async fn take(
        &mut self,
        session: &mut Session,
        due: Vec<Observed>,
        change: &Change,
    ) -> Result<Vec<Observed>, Failure> {
        let mut swaps = Vec::with_capacity(due.len());
        let mut claimed = Vec::with_capacity(due.len());
        for Observed { operation, now, .. } in due {
            // What is due may be claimed: the two are one rule of the operation's.
            let Ok(next) = operation.apply(change, now) else { continue };
            let write_id = next_write_id();
            let swap = Swap::new(next.clone(), operation.version()).with_write_id(write_id);
            swaps.push((swap, next.to_record()));
            claimed.push(Observed { operation: next, now, write_id });
        }
        if swaps.is_empty() {
            return end(session, Ok(claimed)).await;
        }
        let group: Vec<(&Swap, &[u8])> =
            swaps.iter().map(|(swap, record)| (swap, &record[..])).collect();
        let written = match self.writer.swap(&mut Last(session), &group).await {
            Ok(written) => written,
            Err(failure) => {
                if failure.left() == Left::InDoubt {
                    self.in_doubt = claimed;
                }
                return end(session, Err(failure)).await;
            }
        };
        let mut written = written.into_iter();
        claimed.retain(|_| written.next().unwrap_or(false));
        Ok(claimed)
    }

    async fn swap_with_outbox(
        &mut self,
        session: &mut Session,
        swap: &Swap,
    ) -> Result<Swapped, Failure> {
        let owner = swap.next.owner();
        let settings = &session.line.settings;
        // Whose rows were waited for in vain a moment ago is not waited for as long again: others wait here.
        let patience = if self.writer.held_up.contains(owner) {
            settings.wait_alone()
        } else {
            settings.wait_together()
        };
        session.set_patience(patience).await?;
        let written = again!(self.write_with_outbox(session, swap).await);
        self.writer.note(session, owner, written.as_ref().err());
        if written? { Ok(Swapped::Swapped) } else { conflict(session, swap.next.id()).await }
    }

    /// Writes it with what follows from it, in a transaction of its own.
    async fn write_with_outbox(&self, session: &mut Session, swap: &Swap) -> Result<bool, Failure> {
        let (of_operation, of_owners) = (
            session.prepare(|sql| &sql.hold).await?,
            session.prepare(|sql| &sql.hold_owners).await?,
        );
        let followers = swap.outbox.iter().map(|submission| submission.operation.owner());
        let owners: Vec<&str> =
            followers.chain([swap.next.owner()]).filter_map(Owner::name).collect();
        let id = swap.next.id().as_uuid();
        let (operation, counts): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 1]) =
            ([&id], [&owners]);
        // All that others may wait for, in the one order.
        let (begun, held, owners_held) = tokio::join!(
            biased;
            session.say("BEGIN"),
            session.run(&of_operation, &operation),
            session.run(&of_owners, &counts),
        );
        let written = match begun.and(held).and(owners_held) {
            Ok(_) => self.write_held(session, swap, &owners).await,
            Err(failure) => Err(failure),
        };
        match written {
            // Nor are there counts of nothing then.
            Ok(false) => session.say("ROLLBACK").await.map(|()| false),
            written => end(session, written).await,
        }
    }

    async fn write_held(
        &self,
        session: &mut Session,
        swap: &Swap,
        owners: &[&str],
    ) -> Result<bool, Failure> {
        let record = swap.next.to_record();
        if self.writer.swap(session, &[(swap, &record)]).await? != [true] {
            return Ok(false);
        }
        let rows = session.query(|sql| &sql.now, &[]).await?;
        let now = rows.first().map_or(swap.next.updated(), at);
        let mut left_out = 0;
        for submission in &swap.outbox {
            // Not limited, and left out if its key or id is in use.
            let submission = Submission { limits: Limits::default(), ..submission.clone() };
            let is_new = existing(session, &[&submission]).await?.remove(0)?.is_none();
            let new = [&Accept::new(submission, now)];
            if !is_new || insert(session, &new, 0, self.writer.part).await? != [Verdict::Inserted] {
                left_out += 1;
            }
        }
        if left_out > 0 {
            session.query(|sql| &sql.tidy, &[&owners]).await?;
        }
        Ok(true)
    }

    async fn remove(
        &self,
        session: &mut Session,
        id: OperationId,
        expected: u64,
    ) -> Result<Swapped, Failure> {
        let rows = session.query(|sql| &sql.remove, &[&id.as_uuid(), &signed(expected)]).await?;
        if rows.first().is_some_and(|row| row.get::<_, i64>(0) > 0) {
            return Ok(Swapped::Swapped);
        }
        conflict(session, id).await
    }

    /// Purges some at a time, so that what is done is kept, for at most a quarter of the time of a call.
    async fn purge(&mut self, session: &mut Session, limit: usize) -> Result<usize, Failure> {
        let until = Instant::now() + session.line.settings.call_timeout / 4;
        let mut purged = 0;
        while purged < limit {
            let some = self.purged_at_once.count().min(limit - purged);
            match purge(session, some).await {
                Ok(count) => {
                    purged += count;
                    self.purged_at_once.went_well();
                    if count < some || Instant::now() >= until {
                        break;
                    }
                }
                Err(failure) => {
                    self.purged_at_once.failed(some);
                    if purged == 0 || failure.is_fatal() {
                        return Err(failure);
                    }
                    break;
                }
            }
        }
        Ok(purged)
    }
}

async fn purge(session: &mut Session, limit: usize) -> Result<usize, Failure> {
    let statement = session.prepare_for(|sql| &sql.purge, limit).await?;
    let rows = session.run(&statement, &[]).await?;
    let removed = rows.first().map_or(0, |row| row.get::<_, i64>(0));
    Ok(usize::try_from(removed).unwrap_or(0))
}

/// What to say of an operation that had not the expected version.
async fn conflict(session: &mut Session, id: OperationId) -> Result<Swapped, Failure> {
    match get(session, &[id]).await?.remove(&id) {
        Some(observed) => Ok(Swapped::Conflict(observed?)),
        None => Ok(Swapped::Gone),
    }
}
