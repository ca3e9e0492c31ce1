//! Calls that take more than one statement, or more time.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::accept::{existing, insert};
use super::error::Failure;
use super::lane::{Run, Serve, Session};
use super::read::{MAX_DUE, all_kinds, at, get, learn, understood};
use super::transaction::{Last, end};
use super::write::{Accept, TRIES, Writer, again, signed};
use crate::operation::{Change, Due, OperationId};
use crate::store::server::Answer;
use crate::store::{ClaimRequest, Limits, Observed, Submission, Swap, Swapped};

/// A call that takes more than one statement, or more time.
#[derive(Debug)]
pub(super) enum Step {
    Claim(ClaimRequest, Answer<Vec<Observed>>),
    SwapWithOutbox(Box<Swap>, Answer<Swapped>),
    Remove(OperationId, u64, Answer<Swapped>),
    Purge(usize, Answer<usize>),
}

/// Makes the calls that are more than a statement, one after the other.
#[derive(Debug)]
pub(super) struct Stepper(pub(super) Writer);

impl Serve<Step> for Stepper {
    async fn serve(&mut self, session: &mut Session, calls: Vec<Step>) -> Result<(), Failure> {
        let mut last = Ok(());
        for call in calls {
            let done = match call {
                Step::Claim(request, answer) if answer.begin() => {
                    give(answer, self.claim(session, &request).await)
                }
                Step::SwapWithOutbox(swap, answer) if answer.begin() => {
                    give(answer, self.swap_with_outbox(session, &swap).await)
                }
                Step::Remove(id, expected, answer) if answer.begin() => {
                    give(answer, self.remove(session, id, expected).await)
                }
                Step::Purge(limit, answer) if answer.begin() => {
                    give(answer, purge(session, limit).await)
                }
                _ => continue,
            };
            last = done.and(last);
        }
        last
    }
}

impl Stepper {
    async fn claim(
        &self,
        session: &mut Session,
        request: &ClaimRequest,
    ) -> Result<Vec<Observed>, Failure> {
        let query = request.as_due_query();
        let kinds: Vec<String> = match &query.kinds {
            Some(kinds) => kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
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
                let (begun, rows) = tokio::join!(
                    biased;
                    session.say("BEGIN"),
                    session.run(&statement, &params),
                );
                let rows = match begun.and(rows) {
                    Ok(rows) => rows,
                    failed => break end(session, failed.map(|_| Vec::new())).await,
                };
                learn(session, &rows);
                let (due, others) = understood(&rows, Due::Claim);
                if !due.is_empty() || others.is_empty() {
                    break self.take(session, due, &change).await;
                }
                session.say("ROLLBACK").await?;
                passed_over.extend(others);
            }
        })
    }

    /// Claims what is held by the transaction that has begun, and ends it.
    async fn take(
        &self,
        session: &mut Session,
        due: Vec<Observed>,
        change: &Change,
    ) -> Result<Vec<Observed>, Failure> {
        let mut swaps = Vec::with_capacity(due.len());
        let mut claimed = Vec::with_capacity(due.len());
        for Observed { operation, now, .. } in due {
            // What is due may be claimed: the two are one rule of the operation's.
            let Ok(next) = operation.apply(change, now) else { continue };
            swaps.push((Swap::new(next.clone(), operation.version()), next.to_record()));
            claimed.push(Observed { operation: next, now, write_id: 0 });
        }
        if swaps.is_empty() {
            return end(session, Ok(claimed)).await;
        }
        let group: Vec<(&Swap, &[u8])> =
            swaps.iter().map(|(swap, record)| (swap, &record[..])).collect();
        let written = match self.0.swap(&mut Last(session), &group).await {
            Ok(written) => written,
            failed => return end(session, failed.map(|_| Vec::new())).await,
        };
        let mut written = written.into_iter();
        claimed.retain(|_| written.next().unwrap_or(false));
        Ok(claimed)
    }

    async fn swap_with_outbox(
        &self,
        session: &mut Session,
        swap: &Swap,
    ) -> Result<Swapped, Failure> {
        let written = again!({
            session.say("BEGIN").await?;
            let written = self.write_with_outbox(session, swap).await;
            end(session, written).await
        })?;
        if written { Ok(Swapped::Swapped) } else { conflict(session, swap.next.id()).await }
    }

    async fn write_with_outbox(&self, session: &mut Session, swap: &Swap) -> Result<bool, Failure> {
        let record = swap.next.to_record();
        if self.0.swap(session, &[(swap, &record)]).await? != [true] {
            return Ok(false);
        }
        let rows = session.query(|sql| &sql.now, &[]).await?;
        let now = rows.first().map_or(swap.next.updated(), at);
        for submission in &swap.outbox {
            // Not limited, and left out if its key or id is in use.
            let submission = Submission { limits: Limits::default(), ..submission.clone() };
            if existing(session, &[&submission]).await?.remove(0)?.is_none() {
                insert(session, &[&Accept::new(submission, now)], 0, self.0.part).await?;
            }
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
}

async fn purge(session: &mut Session, limit: usize) -> Result<usize, Failure> {
    let statement = session.prepare_for(|sql| &sql.purge, limit.min(MAX_DUE)).await?;
    let rows = session.run(&statement, &[]).await?;
    let removed = rows.first().map_or(0, |row| row.get::<_, i64>(0));
    Ok(usize::try_from(removed).unwrap_or(0))
}

/// What to say of an operation that had not the expected version.
async fn conflict(session: &mut Session, id: OperationId) -> Result<Swapped, Failure> {
    match get(session, &[id]).await?.remove(&id) {
        Some(observed) => Ok(Swapped::Conflict(Box::new(observed?))),
        None => Ok(Swapped::Gone),
    }
}

/// Gives the result of a write, and the error that ends the connection if it was one.
fn give<T>(answer: Answer<T>, result: Result<T, Failure>) -> Result<(), Failure> {
    match result {
        Ok(value) => {
            answer.send(Ok(value));
            Ok(())
        }
        Err(failure) => {
            answer.send(Err(failure.to_write_error()));
            if failure.is_fatal() { Err(failure) } else { Ok(()) }
        }
    }
}
