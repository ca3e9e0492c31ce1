use std::time::Duration;

use crate::operation::{Due, Kind, Operation, OperationId, Status};

/// How many operations a list looks at before it gives what it found.
pub(super) const MAX_LISTED: usize = 10_000;

/// Which of an owner's operations to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListQuery {
    /// Only those in this state.
    pub status: Option<Status>,
    /// Only those of this kind.
    pub kind: Option<Kind>,
    /// Only those older than this one: the [`Page::next`] of the page before.
    pub before: Option<OperationId>,
    /// How many; 0 stands for [`DEFAULT_LIMIT`](Self::DEFAULT_LIMIT), and no page is longer than
    /// [`MAX_LIMIT`](Self::MAX_LIMIT).
    pub limit: usize,
}

impl ListQuery {
    /// The default of `limit`.
    pub const DEFAULT_LIMIT: usize = 50;
    /// How many operations a page has at the most.
    pub const MAX_LIMIT: usize = 200;

    /// Only those in this state.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Only those of this kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Only those older than this one.
    #[must_use]
    pub fn with_before(mut self, before: OperationId) -> Self {
        self.before = Some(before);
        self
    }

    /// So many, from 1 to [`MAX_LIMIT`](Self::MAX_LIMIT); 0 stands for
    /// [`DEFAULT_LIMIT`](Self::DEFAULT_LIMIT).
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// How many operations the page may have.
    pub fn page_size(&self) -> usize {
        match self.limit {
            0 => Self::DEFAULT_LIMIT,
            limit => limit.min(Self::MAX_LIMIT),
        }
    }

    /// Whether an operation is asked for, by its state and kind.
    pub fn selects(&self, operation: &Operation) -> bool {
        self.status.is_none_or(|status| operation.status() == status)
            && self.kind.as_ref().is_none_or(|kind| operation.kind() == kind)
    }
}

/// Some of an owner's operations, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The operations.
    pub operations: Vec<Operation>,
    /// Where the next page begins ([`ListQuery::before`]); none if this is the last.
    pub next: Option<OperationId>,
}

/// What to look for among what is due.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DueQuery {
    /// What it is due for.
    pub due: Due,
    /// Only those of these kinds (of an empty list: none); without it, those of any kind.
    pub kinds: Option<Vec<Kind>>,
    /// How many at the most; 0 gives none.
    pub limit: usize,
}

impl DueQuery {
    /// Up to `limit` operations of any kind that are due.
    pub fn new(due: Due, limit: usize) -> Self {
        Self { due, kinds: None, limit }
    }

    /// Only those of these kinds; of an empty list, none.
    #[must_use]
    pub fn with_kinds(mut self, kinds: Vec<Kind>) -> Self {
        self.kinds = Some(kinds);
        self
    }

    /// Whether an operation is asked for, by its kind.
    pub fn selects(&self, operation: &Operation) -> bool {
        self.selects_kind(operation.kind())
    }

    pub(super) fn selects_kind(&self, kind: &Kind) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind))
    }
}

/// What a worker asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    kinds: Option<Vec<Kind>>,
    limit: usize,
    lease: Duration,
}

impl ClaimRequest {
    /// Up to `limit` operations of any kind, under leases of that length.
    pub fn new(limit: usize, lease: Duration) -> Self {
        Self { kinds: None, limit, lease }
    }

    /// Only operations of these kinds.
    #[must_use]
    pub fn with_kinds(mut self, kinds: Vec<Kind>) -> Self {
        self.kinds = Some(kinds);
        self
    }

    /// The length of the leases.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// The same as a question about what is due.
    pub fn to_due_query(&self) -> DueQuery {
        DueQuery { due: Due::Claim, kinds: self.kinds.clone(), limit: self.limit }
    }
}
