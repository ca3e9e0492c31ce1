use std::sync::atomic::{AtomicBool, Ordering};

/// How a task that calls the store again and again fared the last time.
#[derive(Debug, Default)]
pub(super) struct Pulse(AtomicBool);

impl Pulse {
    /// It succeeded, or did not.
    pub(super) fn beat(&self, is_well: bool) {
        self.0.store(!is_well, Ordering::Relaxed);
    }

    pub(super) fn is_well(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

/// Fails the pulse when its task ends, in whatever way.
pub(super) struct PulseGuard<'a>(pub(super) &'a Pulse);

impl Drop for PulseGuard<'_> {
    fn drop(&mut self) {
        self.0.beat(false);
    }
}
