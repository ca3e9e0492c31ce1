//! The results that are on their way to clients.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Operations;
use crate::operation::Outcome;
use crate::problem::{Problem, types};

/// A result of up to that is given in any case, and costs nothing.
const SMALL: usize = 64 << 10;
/// What is counted: so a `u32` is enough for any.
const UNIT: usize = 1 << 10;
/// After how long there may be room again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Room for the results that clients have not taken yet. Each is a copy of what a store on a disk or a server has.
#[derive(Debug)]
pub(super) struct Results {
    room: Arc<Semaphore>,
    units: u32,
}

impl Results {
    pub(super) fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        Self { room: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// The same bytes, whose room is free again when the last of them is dropped; none if there is no room. One that
    /// is larger than all of it has it alone.
    fn admit(&self, bytes: Bytes) -> Option<Bytes> {
        if bytes.len() <= SMALL {
            return Some(bytes);
        }
        let units = u32::try_from(bytes.len().div_ceil(UNIT)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(units.min(self.units)).ok()?;
        Some(Bytes::from_owner(Counted { bytes, _room: room }))
    }
}

struct Counted {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Operations {
    /// An outcome that is given to a client: as long as any of its bytes are there, they are counted among
    /// [those on their way](super::OperationsBuilder::results_bytes).
    ///
    /// # Errors
    /// A problem of the type [`OVERLOADED`](types::OVERLOADED), if there is no room for it.
    pub(crate) fn admit_result(&self, outcome: Outcome) -> Result<Outcome, Problem> {
        let body = self.inner().results.admit(outcome.body).ok_or_else(|| {
            let detail = "Too many results are on their way to clients.";
            Problem::new(types::OVERLOADED).with_detail(detail).with_retry_after(RETRY_AFTER)
        })?;
        Ok(Outcome { body, ..outcome })
    }
}
