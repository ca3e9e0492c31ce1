use std::error::Error;
use std::fmt;

/// Why a store could not do what it was asked.
///
/// Its text says what the store was at; what the driver said is the [`source`](Error::source).
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: &'static str,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What a caller can do about a [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store cannot be reached, or is too busy: nothing was written, try again later.
    Unavailable,
    /// The answer got lost: what was to be written may be written or not. Read to find out.
    Ambiguous,
    /// There is no room: nothing was written. The same call may succeed once somebody makes some.
    OutOfSpace,
    /// A body is larger than the store takes: nothing was written, do not try again.
    TooLarge,
    /// What the store holds cannot be understood: only people can help.
    Corrupt,
}

impl StoreErrorKind {
    /// A word for it, as metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Ambiguous => "ambiguous",
            Self::OutOfSpace => "out_of_space",
            Self::TooLarge => "too_large",
            Self::Corrupt => "corrupt",
        }
    }
}

impl StoreError {
    /// An error of that kind; `message` says in lower case what could not be done.
    pub fn new(kind: StoreErrorKind, message: &'static str) -> Self {
        Self { kind, message, source: None }
    }

    /// Keeps what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later, without anybody's help.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unavailable | StoreErrorKind::Ambiguous)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}
