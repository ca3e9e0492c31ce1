//! What is asked of the writer.

use std::time::Instant;

use tokio::sync::oneshot;

use super::error::Failure;
use super::write::Transaction;
use crate::store::{StoreError, StoreErrorKind};

/// A write that waits for its turn. It may be run more than once, until it is committed.
pub(super) trait Write: Send {
    /// # Errors
    /// Then nothing of it is kept.
    fn run(&mut self, transaction: &mut Transaction<'_, '_>) -> Result<(), Failure>;
    /// Tells whoever waits for it.
    fn answer(&mut self, result: Result<(), StoreError>);
    /// What it is for.
    fn purpose(&self) -> Purpose;
    /// When it was asked for.
    fn asked(&self) -> Instant;
}

/// What a write is for, by which it may use room when there is little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It takes in new work: it may use nothing that is kept back.
    Accept,
    /// It brings work on: it may use what the log can give back.
    GoOn,
    /// It ends work or purges it: it may use the reserve too.
    End,
}

/// A call of the store as a [`Write`].
pub(super) struct Call<T, F> {
    pub(super) run: F,
    pub(super) value: Option<T>,
    pub(super) answer: Option<oneshot::Sender<Result<T, StoreError>>>,
    pub(super) purpose: Purpose,
    pub(super) asked: Instant,
}

impl<T, F> Write for Call<T, F>
where
    T: Send,
    F: FnMut(&mut Transaction<'_, '_>) -> Result<T, Failure> + Send,
{
    fn run(&mut self, transaction: &mut Transaction<'_, '_>) -> Result<(), Failure> {
        self.value = Some((self.run)(transaction)?);
        Ok(())
    }

    fn answer(&mut self, result: Result<(), StoreError>) {
        let Some(answer) = self.answer.take() else { return };
        let value = result.and_then(|()| self.value.take().ok_or_else(lost));
        // Whoever asked may have gone away.
        let _ = answer.send(value);
    }

    fn purpose(&self) -> Purpose {
        self.purpose
    }

    fn asked(&self) -> Instant {
        self.asked
    }
}

/// What is said to the writer.
pub(super) enum Message {
    Write(Box<dyn Write>),
    /// Somebody listens for hints now, or the store is closed.
    Look,
}

/// The thread that should have answered is gone.
pub(super) fn lost() -> StoreError {
    StoreError::new(StoreErrorKind::Ambiguous, "the thread that uses the database is gone")
}
