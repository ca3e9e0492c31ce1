use bytes::Bytes;

use super::{Idempotency, Observed, StoreError, StoreErrorKind};
use crate::operation::{NewOperation, Operation};

/// What a store is asked to accept, in one step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Submission {
    /// The operation.
    pub operation: NewOperation,
    /// What its work needs, for whichever worker runs it. No input and an empty one are not the same.
    pub input: Option<Bytes>,
    /// The client's own name for the request.
    pub idempotency: Option<Idempotency>,
    /// How much unfinished work there may be.
    pub limits: Limits,
}

impl Submission {
    /// Only the operation: no input, no key, no limits.
    pub fn new(operation: NewOperation) -> Self {
        Self { operation, input: None, idempotency: None, limits: Limits::default() }
    }

    /// Gives the work's input.
    #[must_use]
    pub fn with_input(mut self, input: impl Into<Bytes>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Gives the client's own name for the request.
    #[must_use]
    pub fn with_idempotency(mut self, idempotency: Idempotency) -> Self {
        self.idempotency = Some(idempotency);
        self
    }

    /// Bounds the unfinished work.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What a store looks at before it writes.
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`] if the input is over `max_body_bytes`.
    pub fn check_size(&self, max_body_bytes: usize) -> Result<(), StoreError> {
        check_size(self.input.as_ref(), max_body_bytes)
    }
}

pub(super) fn check_size(body: Option<&Bytes>, max_body_bytes: usize) -> Result<(), StoreError> {
    if body.is_some_and(|body| body.len() > max_body_bytes) {
        let message = "the body is larger than the store takes";
        return Err(StoreError::new(StoreErrorKind::TooLarge, message));
    }
    Ok(())
}

/// How many unfinished operations there may be, the new one among them. Judged by the store in the
/// step that accepts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Of all owners together.
    pub total: Option<usize>,
    /// Of the owner of the new one. Not applied to the anonymous owner, who is not one client.
    pub owner: Option<usize>,
}

impl Limits {
    /// Bounds what all owners have together.
    #[must_use]
    pub fn with_total(mut self, total: usize) -> Self {
        self.total = Some(total);
        self
    }

    /// Bounds what each owner has.
    #[must_use]
    pub fn with_owner(mut self, owner: usize) -> Self {
        self.owner = Some(owner);
        self
    }
}

/// What became of a [`Submission`].
#[derive(Debug, Clone, PartialEq)]
pub enum Acceptance {
    /// It is stored, as durably as the store can.
    Created(Observed),
    /// The idempotency key stands for this operation, and for the same request; or this is the
    /// operation that has the id. Nothing was written.
    Existing(Observed),
    /// The idempotency key stands for another request. Nothing was written.
    KeyReused,
    /// There is no room. Nothing was written, the key is not used up.
    Full(Full),
}

impl Acceptance {
    /// What a store says of an operation that it has just made. Its clock has gone on since, but this is when that was.
    pub(super) fn created(operation: Operation) -> Self {
        let now = operation.created();
        Self::Created(Observed { operation, now, write_id: 0 })
    }
}

/// What has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Full {
    /// The store itself, or all owners together ([`Limits::total`]).
    Total,
    /// The owner ([`Limits::owner`]).
    Owner,
}
