//! How the store is called: to the end, within a time, and what its errors mean to a client.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::job::without_panic;
use crate::problem::{Problem, types};
use crate::store::{ApplyError, StoreError, StoreErrorKind};

/// After how long a client may try again when the store is away.
const STORE_RETRY_AFTER: Duration = Duration::from_secs(2);

/// After how long a client may try again when the store has no room.
const SPACE_RETRY_AFTER: Duration = Duration::from_secs(30);

/// A call of the store. It is boxed where it is made, so that no task has to have room for it.
pub(super) type Call<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A call that goes to its end even if whoever waits for it goes away.
pub(super) enum Detached<T> {
    Answered(T),
    GoesOn(JoinHandle<T>),
    Over,
}

impl<T: Send + 'static> Detached<T> {
    /// Begins it. It is polled once in place, which is all that a store in memory needs, and else handed to a task
    /// of its own before anybody could drop it half-way.
    pub(super) async fn begin(runtime: &Handle, mut call: Call<T>) -> Self {
        let mut first = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx)));
        match without_panic(Pin::new(&mut first)).await {
            Ok(Poll::Ready(answer)) => Self::Answered(answer),
            Ok(Poll::Pending) => Self::GoesOn(runtime.spawn(call)),
            Err(_) => Self::Over,
        }
    }

    /// Gives the answer, once. None if it takes longer than `timeout`, and then it goes on, and can be waited for
    /// again; or if it panicked.
    pub(super) async fn answer(&mut self, timeout: Duration) -> Option<T> {
        match std::mem::replace(self, Self::Over) {
            Self::Answered(answer) => Some(answer),
            Self::GoesOn(mut task) => {
                if let Ok(answer) = tokio::time::timeout(timeout, &mut task).await {
                    return answer.ok();
                }
                *self = Self::GoesOn(task);
                None
            }
            Self::Over => None,
        }
    }
}

/// Runs a call to its end even if whoever waits for it goes away; none if it takes longer than `timeout`, or panics.
pub(super) async fn detached<T: Send + 'static>(
    runtime: &Handle,
    call: Call<T>,
    timeout: Duration,
) -> Option<T> {
    Detached::begin(runtime, call).await.answer(timeout).await
}

/// What a client is told when the store does not answer in time.
pub(super) fn unavailable() -> Problem {
    Problem::new(types::STORE_UNAVAILABLE).with_retry_after(STORE_RETRY_AFTER)
}

/// What a client is told of a store's trouble: never the store's own words. (What is too large for it is what
/// the client sent: outcomes are looked at before.)
pub(super) fn store_problem(error: &StoreError) -> Problem {
    match error.kind() {
        StoreErrorKind::Unavailable | StoreErrorKind::Ambiguous => unavailable(),
        StoreErrorKind::OutOfSpace => {
            Problem::new(types::STORE_UNAVAILABLE).with_retry_after(SPACE_RETRY_AFTER)
        }
        StoreErrorKind::TooLarge => Problem::new(types::REQUEST_TOO_LARGE),
        StoreErrorKind::Corrupt => Problem::new(types::INTERNAL),
    }
}

/// Whether the same change may succeed later.
pub(super) fn is_passing(error: &ApplyError) -> bool {
    match error {
        // What was done is recorded once there is room again.
        ApplyError::Store(error) => {
            error.is_retryable() || error.kind() == StoreErrorKind::OutOfSpace
        }
        ApplyError::Contended => true,
        ApplyError::Refused(..) | ApplyError::Gone | ApplyError::NotFinished => false,
    }
}
