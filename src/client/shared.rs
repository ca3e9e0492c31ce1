use std::sync::Arc;

use super::error::{ClientError, ClientErrorKind};
use super::origin::Origins;
use super::policy::PollPolicy;
use super::transport::{Transport, TransportError};

/// What a client, its requests and its pollers share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) origins: Origins,
    pub(super) policy: PollPolicy,
    pub(super) tries: u32,
    /// Whether requests are given a name, and whether servers are known to heed it.
    pub(super) names_requests: bool,
    pub(super) trusts_names: bool,
}

pub(super) fn untransported(error: TransportError) -> ClientError {
    ClientError::new(ClientErrorKind::Transport).with_source(error)
}

/// Any number; without a generator the same each time, which spreads nothing and harms nothing.
pub(super) fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}
