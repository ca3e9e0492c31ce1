//! What the server's answers say to the calls.

use std::collections::HashMap;

use bytes::Bytes;
use redis::{FromRedisValue, Value};

use super::call::{Accept, Call, Found, observe};
use super::error::Failure;
use crate::operation::{OperationId, Outcome};
use crate::store::{Acceptance, Full, Observed, Swapped};
use crate::time::Timestamp;

/// What the server answered, each in the order of the calls.
pub(super) struct Answers {
    pub(super) now: Result<Timestamp, Failure>,
    pub(super) accepted: Told,
    pub(super) changed: Told,
    pub(super) found: Result<HashMap<OperationId, Vec<u8>>, Failure>,
    pub(super) rest: std::vec::IntoIter<Result<Value, Failure>>,
    /// Why what was written may be lost after all.
    pub(super) doubt: Option<Failure>,
    /// Acceptances that it says this of too.
    pub(super) doubtful: Vec<OperationId>,
}

impl Answers {
    /// Takes those from the doubtful acceptances that need not be waited for any more: enough replicas have them, or
    /// somebody has changed them since. A change is never refused for the replicas, and whoever made it may ask.
    pub(super) fn settle(&mut self) -> Vec<OperationId> {
        let Self { now, found, doubt, doubtful, .. } = self;
        let is_settled = |id: &OperationId| {
            let found = found_as(found, *id, now).ok().flatten();
            found.is_some_and(|observed| doubt.is_none() || observed.write_id != 0)
        };
        let (settled, left) = std::mem::take(doubtful).into_iter().partition(is_settled);
        *doubtful = left;
        settled
    }

    /// Gives a call its answer; false if the connection is to be given up.
    pub(super) fn give(&mut self, call: Call) -> bool {
        let Self { now, accepted, changed, found, rest, doubt, doubtful } = self;
        let mut next = || rest.next().unwrap_or(Err(Failure::Unexpected));
        let goes_on;
        // Of a read, and of a write.
        macro_rules! read {
            ($answer:ident, $result:expr) => {{
                let result = $result;
                goes_on = !result.as_ref().is_err_and(Failure::is_fatal);
                $answer.send(result.map_err(|failure| failure.to_error()));
            }};
        }
        macro_rules! write {
            ($answer:ident, $result:expr) => {{
                let result = match doubt {
                    Some(doubt) => $result.and(Err(doubt.clone())),
                    None => $result,
                };
                goes_on = !result.as_ref().is_err_and(Failure::is_fatal);
                $answer.send(result.map_err(|failure| failure.to_write_error()));
            }};
        }
        match call {
            Call::Get(id, decides, answer) => {
                let doubt = doubt.clone().filter(|_| decides && doubtful.contains(&id));
                read!(answer, doubt.map_or_else(|| found_as(found, id, now), Err));
            }
            Call::Input(_, answer) => {
                let (operation, body) = (next(), next());
                read!(answer, body_of(operation, body, now));
            }
            Call::Outcome(_, answer) => {
                let (operation, body) = (next(), next());
                let outcome = body_of(operation, body, now);
                read!(answer, outcome.and_then(|body| body.as_ref().map(unpacked).transpose()));
            }
            Call::Now(answer) => read!(answer, now.clone()),
            Call::Accept(accept, answer) => {
                write!(answer, accepted.next().and_then(|told| acceptance(&accept, told, now)));
            }
            Call::Swap(.., answer) | Call::Remove(.., answer) => {
                write!(answer, changed.next().and_then(|told| swapped(told, now)));
            }
            Call::Purge(_, answer) => {
                write!(answer, next().and_then(parsed::<usize>));
            }
            Call::ToClaim(.., answer) | Call::Due(.., answer) | Call::List(.., answer) => {
                read!(answer, next().and_then(several));
            }
        }
        goes_on
    }
}

/// What one script says to many calls.
pub(super) struct Told(Result<std::vec::IntoIter<Value>, Failure>);

impl Told {
    pub(super) fn new(answer: Option<Result<Value, Failure>>) -> Self {
        let answer = answer.unwrap_or(Ok(Value::Array(Vec::new())));
        Self(answer.and_then(parsed::<Vec<Value>>).map(Vec::into_iter))
    }

    fn next(&mut self) -> Result<Value, Failure> {
        match self {
            Self(Ok(values)) => values.next().ok_or(Failure::Unexpected),
            Self(Err(failure)) => Err(failure.clone()),
        }
    }
}

pub(super) fn parsed<T: FromRedisValue>(value: Value) -> Result<T, Failure> {
    T::from_redis_value(value).map_err(|_| Failure::Unexpected)
}

/// An operation that was read, if it is there and has not expired.
fn found_as(
    found: &Result<HashMap<OperationId, Vec<u8>>, Failure>,
    id: OperationId,
    now: &Result<Timestamp, Failure>,
) -> Result<Option<Observed>, Failure> {
    let found = found.as_ref().map_err(Clone::clone)?;
    let now = now.clone()?;
    let found = found.get(&id).map(|value| observe(value, now)).transpose()?;
    Ok(found.filter(|observed| !observed.operation.is_expired(now)))
}

/// A body, if its operation is there and has not expired.
fn body_of(
    operation: Result<Value, Failure>,
    body: Result<Value, Failure>,
    now: &Result<Timestamp, Failure>,
) -> Result<Option<Bytes>, Failure> {
    let now = now.clone()?;
    let operation: Option<Vec<u8>> = parsed(operation?)?;
    let body: Option<Vec<u8>> = parsed(body?)?;
    let (Some(operation), Some(body)) = (operation, body) else { return Ok(None) };
    let is_expired = observe(&operation, now)?.operation.is_expired(now);
    Ok((!is_expired).then(|| body.into()))
}

fn unpacked(packed: &Bytes) -> Result<Outcome, Failure> {
    let Some((length, rest)) = packed.split_first_chunk::<4>() else {
        return Err(Failure::Unexpected);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let head = rest.get(..length).ok_or(Failure::Unexpected)?;
    Ok(Outcome::from_record(head, packed.slice(4 + length..))?)
}

/// A word, and an operation where there is one to tell of. That takes the time; without one, nothing was
/// written, and so the time's failure is the call's.
fn told(value: Value) -> Result<(String, Option<Vec<u8>>), Failure> {
    match value {
        Value::Array(_) => parsed(value),
        word => Ok((parsed(word)?, None)),
    }
}

fn acceptance(
    accept: &Accept,
    value: Value,
    now: &Result<Timestamp, Failure>,
) -> Result<Acceptance, Failure> {
    let (word, value) = told(value)?;
    Ok(match (word.as_str(), value) {
        ("created", _) => Acceptance::created(accept.operation.clone()),
        ("existing", Some(value)) => Acceptance::Existing(observe(&value, now.clone()?)?),
        ("reused", _) => Acceptance::KeyReused,
        ("full", _) => Acceptance::Full(Full::Total),
        ("owner is full", _) => Acceptance::Full(Full::Owner),
        _ => return Err(Failure::Unexpected),
    })
}

fn swapped(value: Value, now: &Result<Timestamp, Failure>) -> Result<Swapped, Failure> {
    let (word, value) = told(value)?;
    Ok(match (word.as_str(), value) {
        ("changed", _) => Swapped::Swapped,
        ("gone", _) => Swapped::Gone,
        ("conflict", Some(value)) => Swapped::Conflict(observe(&value, now.clone()?)?),
        _ => return Err(Failure::Unexpected),
    })
}

/// The time, then values.
fn several(value: Value) -> Result<Found, Failure> {
    let parts: Vec<Value> = parsed(value)?;
    let mut parts = parts.into_iter();
    let now: i64 = parsed(parts.next().ok_or(Failure::Unexpected)?)?;
    let values = parts.map(parsed).collect::<Result<_, _>>()?;
    Ok((Timestamp::from_unix_millis(now), values))
}
