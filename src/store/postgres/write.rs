//! What is written: groups of acceptances and of swaps in one statement each, and what takes a
//! transaction of its own.

use std::sync::atomic::{AtomicI16, Ordering};

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::error::{Failure, Left};
use super::lane::{Run, Serve, Session};
use super::read::{MAX_DUE, all_kinds, at, get, learn, observe, understood};
use super::sql::{PARTS, Sql, Text};
use crate::operation::{Change, Due, Operation, OperationId, Outcome};
use crate::store::server::Answer;
use crate::store::{
    Acceptance, ClaimRequest, Full, Idempotency, Limits, Observed, Submission, Swap, Swapped,
};
use crate::time::Timestamp;

/// So near to the limit of all operations those that accept take turns, so that their count is exact.
/// Further away there is room for whatever is on its way in all processes together.
const NEAR: i64 = 4_096;
/// How often a statement is tried that others were in the way of.
const TRIES: usize = 3;

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

/// A call that takes more than one statement, or more time.
#[derive(Debug)]
pub(super) enum Step {
    Claim(ClaimRequest, Answer<Vec<Observed>>),
    SwapWithOutbox(Box<Swap>, Answer<Swapped>),
    Remove(OperationId, u64, Answer<Swapped>),
    Purge(usize, Answer<usize>),
}

/// Writes groups, and counts in a part of its own.
#[derive(Debug)]
pub(super) struct Writer {
    part: i16,
}

impl Writer {
    pub(super) fn new() -> Self {
        static NEXT: AtomicI16 = AtomicI16::new(0);
        let part = NEXT.fetch_add(1, Ordering::Relaxed).rem_euclid(PARTS);
        Self { part }
    }
}

impl Serve<Write> for Writer {
    async fn serve(&mut self, session: &mut Session, calls: Vec<Write>) -> Result<(), Failure> {
        let (mut accepts, mut swaps) = (Vec::new(), Vec::new());
        for call in calls {
            match call {
                Write::Accept(accept, answer) if answer.begin() => accepts.push((accept, answer)),
                Write::Swap(swap, record, answer) if answer.begin() => {
                    swaps.push((swap, record, answer));
                }
                _ => {}
            }
        }
        let swapped = self.swap_all(session, swaps).await;
        self.accept_all(session, accepts).await.and(swapped)
    }
}

impl Writer {
    async fn swap_all(
        &self,
        session: &mut Session,
        swaps: Vec<(Box<Swap>, Vec<u8>, Answer<Swapped>)>,
    ) -> Result<(), Failure> {
        if swaps.is_empty() {
            return Ok(());
        }
        let group: Vec<(&Swap, &[u8])> =
            swaps.iter().map(|(swap, record, _)| (&**swap, &record[..])).collect();
        let result = again!(self.swap(session, &group).await);
        // Whether the ones that were not written are gone or have changed.
        let others = match &result {
            Ok(written) => {
                let missing = swaps.iter().zip(written).filter(|(_, is_written)| !**is_written);
                let ids: Vec<_> = missing.map(|((swap, ..), _)| swap.next.id()).collect();
                if ids.is_empty() { Ok(None) } else { get(session, &ids).await.map(Some) }
            }
            Err(_) => Ok(None),
        };
        match (result, others) {
            (Ok(written), Ok(mut others)) => {
                for ((swap, _, answer), is_written) in swaps.into_iter().zip(written) {
                    let id = swap.next.id();
                    let other = others.as_mut().and_then(|others| others.get(&id));
                    answer.send(match other {
                        _ if is_written => Ok(Swapped::Swapped),
                        Some(Ok(observed)) => Ok(Swapped::Conflict(Box::new(observed.clone()))),
                        Some(Err(failure)) => Err(failure.to_error()),
                        None => Ok(Swapped::Gone),
                    });
                }
                Ok(())
            }
            (Ok(written), Err(failure)) => {
                for ((_, _, answer), is_written) in swaps.into_iter().zip(written) {
                    answer.send(if is_written {
                        Ok(Swapped::Swapped)
                    } else {
                        Err(failure.to_error())
                    });
                }
                Err(failure)
            }
            (Err(failure), _)
                if swaps.len() > 1 && failure.left() == Left::Nothing && !failure.is_fatal() =>
            {
                // Each alone, so that one that fails fails no other.
                let mut last = Ok(());
                for swap in swaps {
                    last = Box::pin(self.swap_all(session, vec![swap])).await.and(last);
                }
                last
            }
            (Err(failure), _) => {
                for (_, _, answer) in swaps {
                    answer.send(Err(failure.to_write_error()));
                }
                if failure.is_fatal() { Err(failure) } else { Ok(()) }
            }
        }
    }

    /// Writes a group in one statement, and says which of it took place.
    async fn swap(
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

    async fn accept_all(
        &self,
        session: &mut Session,
        calls: Vec<(Box<Accept>, Answer<Acceptance>)>,
    ) -> Result<(), Failure> {
        if calls.is_empty() {
            return Ok(());
        }
        let (group, answers): (Vec<_>, Vec<_>) =
            calls.into_iter().map(|(accept, answer)| (*accept, answer)).unzip();
        let mut fatal = Ok(());
        let results = self.accept_group(session, group).await;
        for (result, answer) in results.into_iter().zip(answers) {
            answer.send(result.map_err(|failure| {
                let error = failure.to_write_error();
                if failure.is_fatal() {
                    fatal = Err(failure);
                }
                error
            }));
        }
        fatal
    }

    /// What becomes of each.
    async fn accept_group(
        &self,
        session: &mut Session,
        group: Vec<Accept>,
    ) -> Vec<Result<Acceptance, Failure>> {
        let mut results: Vec<_> = group.iter().map(|_| None).collect();
        let mut left: Vec<(usize, &Accept)> = group.iter().enumerate().collect();
        let failed = self.accept_some(session, &mut left, &mut results).await.err();
        let in_company = group.len() > 1;
        for (at, accept) in left {
            results[at] = Some(match &failed {
                Some(failure) if failure.is_fatal() => Err(failure.again()),
                // Each alone, so that one that fails fails no other.
                Some(_) if in_company => {
                    let (mut alone, mut result) = (vec![(0, accept)], [None]);
                    match self.accept_some(session, &mut alone, &mut result).await {
                        Ok(()) => result[0].take().unwrap_or(Err(Failure::Contended)),
                        Err(failure) => Err(failure),
                    }
                }
                Some(failure) => Err(failure.again()),
                None => Err(Failure::Contended),
            });
        }
        results.into_iter().map(|result| result.unwrap_or(Err(Failure::Contended))).collect()
    }

    /// Accepts together what is left, and takes away from it what has its result.
    async fn accept_some(
        &self,
        session: &mut Session,
        left: &mut Vec<(usize, &Accept)>,
        results: &mut [Option<Result<Acceptance, Failure>>],
    ) -> Result<(), Failure> {
        // An owner's limit is near for most of its life; the count of all is not.
        let mut is_near = left.iter().any(|(_, new)| new.submission.limits.owner.is_some());
        for _ in 0..=TRIES {
            let group: Vec<&Accept> = left.iter().map(|(_, accept)| *accept).collect();
            let inserted = again!(if is_near {
                insert(&mut Alone(session), &group, 0, self.part).await
            } else {
                insert(session, &group, NEAR, self.part).await
            });
            let verdicts = match inserted {
                // Somebody has the id; who that is, is looked up.
                Err(failure) if failure.is_in_use() && group.len() == 1 => vec![Verdict::Taken],
                verdicts => verdicts?,
            };
            let mut rest = Vec::new();
            for ((at, accept), verdict) in left.drain(..).zip(verdicts) {
                match verdict {
                    Verdict::Inserted => results[at] = Some(Ok(created(accept))),
                    other => rest.push((at, accept, other)),
                }
            }
            let is_full = |(_, _, verdict): &(_, _, Verdict)| matches!(verdict, Verdict::Full(_));
            if rest.is_empty() {
                return Ok(());
            }
            if !is_near && rest.iter().any(is_full) {
                is_near = true;
                left.extend(rest.into_iter().map(|(at, accept, _)| (at, accept)));
                continue;
            }
            // A key or an id that is in use decides before any limit. One whose key was taken has no
            // place, so that those after it may have found one.
            let is_exact = rest.iter().all(is_full);
            let submissions: Vec<_> =
                rest.iter().map(|(_, accept, _)| &accept.submission).collect();
            let existing = existing(session, &submissions).await?;
            for ((at, accept, verdict), existing) in rest.into_iter().zip(existing) {
                match (existing.transpose(), verdict) {
                    (Some(existing), _) => results[at] = Some(existing),
                    (None, Verdict::Full(full)) if is_exact => {
                        results[at] = Some(Ok(Acceptance::Full(full)));
                    }
                    _ => left.push((at, accept)),
                }
            }
            if left.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// A connection that says a statement while nobody else does, all in one go: begins, takes the turn, says
/// it, and commits.
struct Alone<'a>(&'a mut Session);

impl Run for Alone<'_> {
    async fn query(
        &mut self,
        pick: impl Fn(&Sql) -> &Text + Send,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let Self(session) = self;
        let lock = session.prepare(|sql| &sql.lock).await?;
        let statement = session.prepare(pick).await?;
        let (begun, locked, rows, committed) = tokio::join!(
            biased;
            session.say("BEGIN"),
            session.run(&lock, &[]),
            session.run(&statement, params),
            // Of what failed it keeps nothing.
            session.say("COMMIT"),
        );
        begun.and(locked)?;
        let rows = rows?;
        committed.map(|()| rows)
    }
}

/// A transaction that is committed with the statement that is said next.
struct Last<'a>(&'a mut Session);

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

/// Inserts a group in one statement. So near to a limit as `margin` there is no room.
pub(super) async fn insert(
    run: &mut impl Run,
    group: &[&Accept],
    margin: i64,
    part: i16,
) -> Result<Vec<Verdict>, Failure> {
    let operations = || group.iter().map(|accept| &accept.operation);
    let keys = || group.iter().map(|accept| accept.submission.idempotency.as_ref());
    let limits = |pick: fn(&Limits) -> Option<usize>| {
        let limit = |accept: &&Accept| {
            pick(&accept.submission.limits)
                .map(|limit| i64::try_from(limit).unwrap_or(i64::MAX >> 1))
        };
        group.iter().map(limit).collect::<Vec<_>>()
    };
    let due = |due| operations().map(|operation| due_at(operation, due)).collect::<Vec<_>>();
    let ids: Vec<Uuid> = operations().map(|operation| operation.id().as_uuid()).collect();
    let kinds: Vec<&str> = operations().map(|operation| operation.kind().as_str()).collect();
    let owners: Vec<Option<&str>> =
        operations().map(|operation| operation.owner().name()).collect();
    let status: Vec<&str> = operations().map(|operation| operation.status().as_str()).collect();
    let version: Vec<i64> = operations().map(|operation| signed(operation.version())).collect();
    let record: Vec<&[u8]> = group.iter().map(|accept| &accept.record[..]).collect();
    let input: Vec<Option<&[u8]>> =
        group.iter().map(|accept| accept.submission.input.as_deref()).collect();
    let scope: Vec<Option<&[u8]>> = keys().map(|key| key.map(|key| key.scope.as_bytes())).collect();
    let key: Vec<Option<&str>> = keys().map(|key| key.map(|key| key.key.as_str())).collect();
    let fingerprint: Vec<Option<&[u8]>> =
        keys().map(|key| key.map(|key| &key.fingerprint.0[..])).collect();
    let params: [&(dyn ToSql + Sync); 17] = [
        &ids,
        &kinds,
        &owners,
        &status,
        &version,
        &due(Due::Claim),
        &due(Due::Settle),
        &due(Due::Expire),
        &record,
        &input,
        &scope,
        &key,
        &fingerprint,
        &limits(|limits| limits.total),
        &limits(|limits| limits.owner),
        &margin,
        &part,
    ];
    let rows = run.query(|sql| &sql.accept, &params).await?;
    let verdict = |row: &Row| match (row.get(0), row.get(1), row.get(2)) {
        (true, ..) => Verdict::Inserted,
        (_, true, _) => Verdict::Full(Full::Total),
        (_, _, true) => Verdict::Full(Full::Owner),
        _ => Verdict::Taken,
    };
    Ok(rows.iter().map(verdict).collect())
}

/// What is said of keys or ids that are in use already. What has expired makes way.
pub(super) async fn existing(
    run: &mut impl Run,
    submissions: &[&Submission],
) -> Result<Vec<Result<Option<Acceptance>, Failure>>, Failure> {
    let mut found: Vec<_> = submissions.iter().map(|_| Ok(None)).collect();
    let mut expired = Vec::new();
    let keyed: Vec<(usize, &str, &Idempotency)> = submissions
        .iter()
        .enumerate()
        .filter_map(|(at, submission)| {
            let owner = submission.operation.owner().name().unwrap_or_default();
            Some((at, owner, submission.idempotency.as_ref()?))
        })
        .collect();
    if !keyed.is_empty() {
        let owners: Vec<&str> = keyed.iter().map(|(_, owner, _)| *owner).collect();
        let scopes: Vec<&[u8]> = keyed.iter().map(|(.., key)| key.scope.as_bytes()).collect();
        let keys: Vec<&str> = keyed.iter().map(|(.., key)| key.key.as_str()).collect();
        let rows = run.query(|sql| &sql.keys, &[&owners, &scopes, &keys]).await?;
        for row in &rows {
            let place: i64 = row.get(5);
            let place = usize::try_from(place).unwrap_or(0).saturating_sub(1);
            let Some((at, _, key)) = keyed.get(place) else { continue };
            let used_for: &[u8] = row.get(4);
            found[*at] = match observe(row) {
                Ok(observed) if observed.operation.is_expired(observed.now) => {
                    expired.push(observed.operation.id().as_uuid());
                    Ok(None)
                }
                Ok(_) if used_for != &key.fingerprint.0[..] => Ok(Some(Acceptance::KeyReused)),
                Ok(observed) => Ok(Some(Acceptance::Existing(Box::new(observed)))),
                Err(failure) => Err(failure),
            };
        }
    }
    let ids: Vec<OperationId> = submissions.iter().map(|new| new.operation.id()).collect();
    let mut others = get(run, &ids).await?;
    for (id, found) in ids.iter().zip(&mut found) {
        if matches!(found, Ok(None)) {
            let other = others.remove(id).transpose();
            *found = other.map(|other| other.map(|it| Acceptance::Existing(Box::new(it))));
            // It may have expired and be there still.
            expired.push(id.as_uuid());
        }
    }
    if !expired.is_empty() {
        run.query(|sql| &sql.make_way, &[&expired]).await?;
    }
    Ok(found)
}

/// What became of one of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Inserted,
    /// Its key is taken.
    Taken,
    Full(Full),
}

/// Its time is the one that the server's clock was reckoned to show when it was made.
pub(super) fn created(accept: &Accept) -> Acceptance {
    let operation = accept.operation.clone();
    let now = operation.created();
    Acceptance::Created(Box::new(Observed { operation, now, write_id: 0 }))
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

/// Ends a transaction: keeps what was done in it, or nothing.
async fn end<T>(session: &Session, result: Result<T, Failure>) -> Result<T, Failure> {
    match result {
        Ok(value) => session.say("COMMIT").await.map(|()| value),
        Err(failure) if failure.is_fatal() => Err(failure),
        // A connection that cannot undo it is given up, and with it what was done.
        Err(failure) => session.say("ROLLBACK").await.and(Err(failure)),
    }
}

fn due_at(operation: &Operation, due: Due) -> Option<i64> {
    operation.due_at(due).map(Timestamp::as_unix_millis)
}

/// A number as its column has it: the same bits.
pub(super) fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}
