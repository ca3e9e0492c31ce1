//! How a mutex is locked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Also one that a thread panicked with: what is kept under a lock here is whole after each of its steps, and one
/// panic is no reason for all that come after it to panic too.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
