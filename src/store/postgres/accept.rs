//! Acceptances: groups of them in one statement, and what becomes of each.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::error::Failure;
use super::lane::{Run, Session};
use super::read::{get, observe};
use super::transaction::Alone;
use super::write::{Accept, TRIES, Writer, again, due_at, signed};
use crate::operation::{Due, OperationId};
use crate::store::server::Answer;
use crate::store::{Acceptance, Full, Idempotency, Limits, Submission};

/// So near to the limit of all operations those that accept take turns, so that their count is exact.
/// Further away there is room for whatever is on its way in all processes together.
const NEAR: i64 = 4_096;

/// What became of one of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Inserted,
    /// Its key is taken.
    Taken,
    Full(Full),
}

impl Writer {
    pub(super) async fn accept_all(
        &mut self,
        session: &mut Session,
        mut calls: Vec<(Box<Accept>, Answer<Acceptance>)>,
    ) -> Result<(), Failure> {
        calls.retain(|(_, answer)| answer.begin());
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

    /// What becomes of each: together of what nobody holds up, and apart of the rest.
    async fn accept_group(
        &mut self,
        session: &mut Session,
        group: Vec<Accept>,
    ) -> Vec<Result<Acceptance, Failure>> {
        let until = Instant::now() + session.line.settings.call_timeout;
        let patience = session.line.settings.wait_together();
        let mut results: Vec<_> = group.iter().map(|_| None).collect();
        let is_held_up = |(_, new): &(_, &Accept)| self.held_up.contains(new.operation.owner());
        let (mut apart, mut left): (Vec<_>, Vec<_>) =
            group.iter().enumerate().partition(is_held_up);
        let in_company = left.len() > 1;
        let mut is_lost = false;
        match self.accept_some(session, &mut left, &mut results, patience).await {
            Err(failure) if failure.is_fatal() => {
                for (at, _) in &left {
                    results[*at] = Some(Err(failure.again()));
                }
                // What the driver said is told to one of them.
                if let Some((at, _)) = left.first() {
                    results[*at] = Some(Err(failure));
                }
                is_lost = true;
            }
            Err(failure) if in_company || failure.is_held_up() => {
                apart.splice(..0, left);
            }
            Err(failure) => {
                if let Some((at, _)) = left.first() {
                    results[*at] = Some(Err(failure));
                }
            }
            Ok(()) => {}
        }
        self.accept_each(session, apart, &mut results, until, is_lost).await;
        results.into_iter().map(|result| result.unwrap_or(Err(Failure::Contended))).collect()
    }

    /// Accepts each alone, so that one that fails fails no other; and none waits long for a row, so that it
    /// keeps no other waiting. Nothing more is sent once the connection is lost.
    async fn accept_each(
        &mut self,
        session: &mut Session,
        calls: Vec<(usize, &Accept)>,
        results: &mut [Option<Result<Acceptance, Failure>>],
        until: Instant,
        mut is_lost: bool,
    ) {
        let patience = session.line.settings.wait_alone();
        let mut waited_for = HashSet::new();
        for (at, accept) in calls {
            let owner = accept.operation.owner();
            results[at] = Some(if is_lost {
                Err(Failure::NotConnected)
            } else if Instant::now() >= until || waited_for.contains(owner) {
                // Nobody waits for it any more, or it would be in vain.
                Err(Failure::Contended)
            } else {
                let (mut alone, mut result) = (vec![(0, accept)], [None]);
                let done = self.accept_some(session, &mut alone, &mut result, patience).await;
                if self.note(session, owner, done.as_ref().err()) {
                    waited_for.insert(owner);
                }
                match done {
                    Ok(()) => result[0].take().unwrap_or(Err(Failure::Contended)),
                    Err(failure) => Err(failure),
                }
            });
            is_lost |= matches!(&results[at], Some(Err(failure)) if failure.is_fatal());
        }
    }

    /// Accepts together what is left, and takes away from it what has its result. It waits so long for a row.
    async fn accept_some(
        &self,
        session: &mut Session,
        left: &mut Vec<(usize, &Accept)>,
        results: &mut [Option<Result<Acceptance, Failure>>],
        patience: Duration,
    ) -> Result<(), Failure> {
        if left.is_empty() {
            return Ok(());
        }
        session.set_patience(patience).await?;
        // An owner's limit is near for most of its life; the count of all is not.
        let has_limit = |new: &Accept| {
            new.submission.limits.owner.is_some() && new.operation.owner().name().is_some()
        };
        let mut is_near = left.iter().any(|(_, new)| has_limit(new));
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
                    Verdict::Inserted => {
                        results[at] = Some(Ok(Acceptance::created(accept.operation.clone())));
                    }
                    other => rest.push((at, accept, other)),
                }
            }
            let is_full = |(_, _, verdict): &(_, _, Verdict)| matches!(verdict, Verdict::Full(_));
            // Where there may be none at all, it is full for certain.
            let may_have_room = |(_, new, _): &(_, &Accept, _)| {
                new.submission.limits.total.is_none_or(|total| total > 0)
            };
            if rest.is_empty() {
                return Ok(());
            }
            if !is_near && rest.iter().any(|call| is_full(call) && may_have_room(call)) {
                is_near = true;
                left.extend(rest.into_iter().map(|(at, accept, _)| (at, accept)));
                continue;
            }
            // A key or an id that is in use decides before any limit. One whose key was taken has no
            // place, so that those after it may have found one.
            let is_exact = rest.iter().all(is_full);
            let submissions: Vec<_> =
                rest.iter().map(|(_, accept, _)| &accept.submission).collect();
            let existing = match existing(session, &submissions).await {
                Ok(existing) => existing,
                Err(failure) => {
                    left.extend(rest.into_iter().map(|(at, accept, _)| (at, accept)));
                    return Err(failure);
                }
            };
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
                Ok(observed) => Ok(Some(Acceptance::Existing(observed))),
                Err(failure) => Err(failure),
            };
        }
    }
    let ids: Vec<OperationId> = submissions.iter().map(|new| new.operation.id()).collect();
    let mut others = get(run, &ids).await?;
    for (id, found) in ids.iter().zip(&mut found) {
        if matches!(found, Ok(None)) {
            let other = others.remove(id).transpose();
            *found = other.map(|other| other.map(Acceptance::Existing));
            // It may have expired and be there still.
            expired.push(id.as_uuid());
        }
    }
    if !expired.is_empty() {
        run.query(|sql| &sql.make_way, &[&expired]).await?;
    }
    Ok(found)
}
