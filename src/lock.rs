//! How a mutex is locked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks it even if a thread panicked while holding it: what is kept under a lock here is whole after each step,
/// and one panic is no reason for all that come after to panic too.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
