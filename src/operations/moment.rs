//! Something that happens once, and that many may wait for.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Moment {
    has_come: AtomicBool,
    told: Notify,
}

impl Moment {
    /// It happens now.
    pub(super) fn comes(&self) {
        self.has_come.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    pub(super) fn has_come(&self) -> bool {
        self.has_come.load(Ordering::Acquire)
    }

    /// Waits for it.
    pub(super) async fn come(&self) {
        let mut told = pin!(self.told.notified());
        // From here on it is told.
        told.as_mut().enable();
        if !self.has_come() {
            told.await;
        }
    }
}
