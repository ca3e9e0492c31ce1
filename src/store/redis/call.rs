//! A call as it is sent, and an operation as its key holds it.

use std::time::Duration;

use bytes::Bytes;
use redis::Cmd;

use super::error::Failure;
use crate::operation::{Due, Operation, OperationId, Outcome};
use crate::store::server::{Answer, Grouped, READ_BYTES};
use crate::store::{Acceptance, Idempotency, Observed, Submission, Swap, Swapped};
use crate::time::Timestamp;

/// What a script says of several operations.
pub(super) type Found = (Timestamp, Vec<Vec<u8>>);

/// A call.
pub(super) enum Call {
    /// Which, and whether it decides what became of an acceptance if one is in doubt.
    Get(OperationId, bool, Answer<Option<Observed>>),
    Input(OperationId, Answer<Option<Bytes>>),
    Outcome(OperationId, Answer<Option<Outcome>>),
    Now(Answer<Timestamp>),
    Accept(Box<Accept>, Answer<Acceptance>),
    Swap(Box<Swap>, Vec<u8>, Vec<Accept>, Answer<Swapped>),
    Remove(OperationId, u64, Answer<Swapped>),
    Purge(usize, Answer<usize>),
    /// How many, for how long to keep them from others, and of which kinds.
    ToClaim(usize, Duration, Option<Vec<String>>, Answer<Found>),
    /// Which, how many, how many to pass over.
    Due(Due, usize, usize, Answer<Found>),
    /// Whose, from where on, how many.
    List(String, Option<OperationId>, usize, Answer<Found>),
}

impl Grouped for Call {
    fn bytes(&self) -> usize {
        match self {
            Self::Accept(accept, _) => accept.bytes(),
            Self::Swap(swap, _, follows, _) => {
                let outcome = swap.outcome.as_ref().map_or(0, |outcome| outcome.body.len());
                outcome + follows.iter().map(Accept::bytes).sum::<usize>()
            }
            Self::Input(..) | Self::Outcome(..) => READ_BYTES,
            _ => 0,
        }
    }
}

impl Call {
    /// Whether it is to be made.
    pub(super) fn begin(&self) -> bool {
        match self {
            Self::Get(.., answer) => answer.begin(),
            Self::Input(_, answer) => answer.begin(),
            Self::Outcome(_, answer) => answer.begin(),
            Self::Now(answer) => answer.begin(),
            Self::Accept(_, answer) => answer.begin(),
            Self::Swap(.., answer) | Self::Remove(.., answer) => answer.begin(),
            Self::Purge(_, answer) => answer.begin(),
            Self::ToClaim(.., answer) | Self::Due(.., answer) | Self::List(.., answer) => {
                answer.begin()
            }
        }
    }

    pub(super) fn writes(&self) -> bool {
        matches!(self, Self::Accept(..) | Self::Swap(..) | Self::Remove(..) | Self::Purge(..))
    }

    pub(super) fn reads_body(&self) -> bool {
        matches!(self, Self::Input(..) | Self::Outcome(..))
    }

    pub(super) fn fail(self, failure: &Failure) {
        let (read, written) = (failure.to_error(), failure.to_write_error());
        match self {
            Self::Get(.., answer) => answer.send(Err(read)),
            Self::Input(_, answer) => answer.send(Err(read)),
            Self::Outcome(_, answer) => answer.send(Err(read)),
            Self::Now(answer) => answer.send(Err(read)),
            Self::Accept(_, answer) => answer.send(Err(written)),
            Self::Swap(.., answer) | Self::Remove(.., answer) => answer.send(Err(written)),
            Self::Purge(_, answer) => answer.send(Err(written)),
            Self::ToClaim(.., answer) | Self::Due(.., answer) | Self::List(.., answer) => {
                answer.send(Err(read));
            }
        }
    }
}

/// A new operation, as it is accepted.
#[derive(Debug)]
pub(super) struct Accept {
    pub(super) submission: Submission,
    pub(super) operation: Operation,
    pub(super) value: Vec<u8>,
}

impl Accept {
    pub(super) fn new(submission: Submission, now: Timestamp) -> Self {
        let operation = submission.operation.accept(now);
        Self { value: value(&operation, 0), operation, submission }
    }

    fn bytes(&self) -> usize {
        self.submission.input.as_ref().map_or(0, Bytes::len)
    }

    /// Adds the arguments that the scripts' `accept` reads.
    pub(super) fn add_to(&self, cmd: &mut Cmd) {
        let Submission { input, idempotency, limits, .. } = &self.submission;
        let limit = |limit: Option<usize>| limit.map_or("-".to_owned(), |limit| limit.to_string());
        let owner = self.operation.owner().name().unwrap_or_default();
        cmd.arg(name(self.operation.id())).arg(self.operation.kind().as_str()).arg(owner);
        add_due(cmd, &self.operation);
        cmd.arg(&self.value);
        cmd.arg(u8::from(input.is_some())).arg(input.as_deref().unwrap_or_default());
        match idempotency {
            Some(Idempotency { scope, key, fingerprint }) => {
                // Each part with its length, so that no two keys run into one.
                let lengths = format!("{}:{}:", owner.len(), scope.len());
                let key = [lengths.as_str(), owner, scope, key.as_str()].concat();
                cmd.arg(key).arg(&fingerprint.0[..]);
            }
            None => {
                cmd.arg("").arg("");
            }
        }
        cmd.arg(limit(limits.total)).arg(limit(limits.owner));
    }
}

/// An operation as its key holds it: a line for the scripts, then its record.
pub(super) fn value(operation: &Operation, write_id: u64) -> Vec<u8> {
    let [settle, expire] = [Due::Settle, Due::Expire].map(|due| due_at(operation, due));
    let (kind, owner) = (operation.kind().as_str(), operation.owner().name().unwrap_or_default());
    let line = format!("{} {write_id} {settle} {expire} {kind} {owner}\n", operation.version());
    let mut value = line.into_bytes();
    value.extend_from_slice(&operation.to_record());
    value
}

/// The operation of such a value.
pub(super) fn observe(value: &[u8], now: Timestamp) -> Result<Observed, Failure> {
    let damaged = || Failure::Record("the line before a record is not as it should be".to_owned());
    let end = value.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
    let (line, record) = value.split_at(end + 1);
    let line = std::str::from_utf8(line).map_err(|_| damaged())?;
    let write_id = line.split(' ').nth(1).and_then(|text| text.parse().ok());
    let operation = Operation::from_record(record)?;
    Ok(Observed { operation, now, write_id: write_id.ok_or_else(damaged)? })
}

fn due_at(operation: &Operation, due: Due) -> String {
    operation.due_at(due).map_or("-".to_owned(), |at| at.as_unix_millis().to_string())
}

pub(super) fn add_due(cmd: &mut Cmd, operation: &Operation) {
    for due in [Due::Claim, Due::Settle, Due::Expire] {
        cmd.arg(due_at(operation, due));
    }
}

/// The id as it stands in keys: 32 digits, in the order of time.
pub(super) fn name(id: OperationId) -> String {
    id.as_uuid().simple().to_string()
}

/// An outcome as its key holds it: the length of its head, the head, the body.
pub(super) fn packed(outcome: &Outcome) -> Vec<u8> {
    let head = outcome.to_record();
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[..], &head, &outcome.body].concat()
}
