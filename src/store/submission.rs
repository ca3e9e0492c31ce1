use std::sync::Arc;

use bytes::Bytes;

use super::Observed;
use crate::operation::NewOperation;

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

/// A name that a client gave to its request, with what it was said to name. Within one owner and
/// one scope a key stands for one operation as long as that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Where the key counts, such as the method and target of the request. It may be any text: a
    /// store whose own texts have limits keeps a digest of it.
    pub scope: Arc<str>,
    /// The key.
    pub key: IdempotencyKey,
    /// What tells one request from another.
    pub fingerprint: Fingerprint,
}

/// A digest of a request: equal for the same request, different for any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// A client's own name for a request that it may have to repeat: 1 to
/// [`MAX_BYTES`](Self::MAX_BYTES) visible ASCII characters or spaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(Arc<str>);

/// A key that is empty, too long, or has a byte that it may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key is 1 to 255 visible ASCII characters or spaces")]
pub struct InvalidIdempotencyKey(());

impl IdempotencyKey {
    /// The longest key, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Makes a key of its text, without the quotes that it has in the field.
    ///
    /// # Errors
    /// [`InvalidIdempotencyKey`] if the text is empty, too long, or has another character.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidIdempotencyKey> {
        let text = text.as_ref();
        let is_allowed = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if (1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidIdempotencyKey(()))
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What became of a [`Submission`].
#[derive(Debug, Clone, PartialEq)]
pub enum Acceptance {
    /// It is stored, as durably as the store can.
    Created(Box<Observed>),
    /// The idempotency key stands for this operation, and for the same request; or this is the
    /// operation that has the id. Nothing was written.
    Existing(Box<Observed>),
    /// The idempotency key stands for another request. Nothing was written.
    KeyReused,
    /// There is no room. Nothing was written, the key is not used up.
    Full(Full),
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
