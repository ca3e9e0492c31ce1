use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::{CacheEntry, CacheKey, CacheStore};

use crate::lock::lock;

/// Keeps answers in memory, those that were used last.
#[derive(Debug)]
pub struct MemoryCache {
    max_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<CacheKey, (u64, Arc<CacheEntry>)>,
    bytes: usize,
    uses: u64,
}

impl MemoryCache {
    /// How much [`new`](Self::new) keeps: 32 MiB.
    pub const DEFAULT_MAX_BYTES: usize = 32 << 20;

    /// With the default bound.
    pub fn new() -> Self {
        Self::with_max_bytes(Self::DEFAULT_MAX_BYTES)
    }

    /// Keeps so much, about.
    pub fn with_max_bytes(bytes: usize) -> Self {
        Self { max_bytes: bytes, kept: Mutex::default() }
    }
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new()
    }
}

impl Kept {
    fn remove(&mut self, key: &CacheKey) {
        if let Some((_, entry)) = self.entries.remove(key) {
            self.bytes -= entry.bytes();
        }
    }
}

#[async_trait]
impl CacheStore for MemoryCache {
    async fn load(&self, key: &CacheKey) -> Option<Arc<CacheEntry>> {
        let kept = &mut *lock(&self.kept);
        kept.uses += 1;
        let (used, entry) = kept.entries.get_mut(key)?;
        *used = kept.uses;
        Some(Arc::clone(entry))
    }

    async fn save(&self, key: &CacheKey, entry: Arc<CacheEntry>) {
        let kept = &mut *lock(&self.kept);
        kept.remove(key);
        let bytes = entry.bytes();
        if bytes > self.max_bytes {
            return;
        }
        while kept.bytes + bytes > self.max_bytes {
            // One look at all for each that goes: there are some thousands at the most.
            let oldest = kept.entries.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            kept.remove(&oldest);
        }
        kept.uses += 1;
        kept.bytes += bytes;
        kept.entries.insert(key.clone(), (kept.uses, entry));
    }

    async fn remove(&self, key: &CacheKey) {
        lock(&self.kept).remove(key);
    }
}
