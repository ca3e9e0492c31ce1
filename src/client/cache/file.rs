use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;

use super::{CacheEntry, CacheKey, CacheStore};
use crate::client::shared::random;

/// Keeps answers in a folder, a file for each target, which the next process finds again. Any number of
/// processes may share it.
#[derive(Debug, Clone)]
pub struct FileCache {
    folder: PathBuf,
    max_bytes: u64,
}

/// Tells the files of one process that are being written from each other.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl FileCache {
    /// The default of [`with_max_bytes`](Self::with_max_bytes): 256 MiB.
    pub const DEFAULT_MAX_BYTES: u64 = 256 << 20;

    /// Keeps answers in that folder, which is made if it is not there. It is for this cache alone, and
    /// only its user can read it.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        }
        Ok(Self { folder, max_bytes: Self::DEFAULT_MAX_BYTES })
    }

    /// How much is kept, in bytes. The default is [256 MiB](Self::DEFAULT_MAX_BYTES).
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    fn file(&self, key: &CacheKey) -> PathBuf {
        self.folder.join(key.as_str())
    }

    fn write(&self, key: &CacheKey, bytes: &[u8]) -> io::Result<()> {
        self.make_room(bytes.len() as u64)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Processes of two hosts, or of two containers, may have one number.
        let name = format!("{}.{number}.{:08x}.new", std::process::id(), random());
        let unfinished = self.folder.join(name);
        let written = fs::File::create_new(&unfinished)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&unfinished, self.file(key)));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Takes away the files that were written or used longest ago, until there is room.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            // One that has just vanished takes no room.
            if let Ok(about) = file.metadata() {
                files.push((about.modified()?, about.len(), file.path()));
            }
        }
        let mut kept: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        files.sort();
        for (_, length, file) in files {
            if kept + bytes <= self.max_bytes {
                break;
            }
            kept -= length;
            let _ = fs::remove_file(file);
        }
        Ok(())
    }
}

fn read(file: &Path) -> Option<CacheEntry> {
    let bytes = fs::read(file).ok()?;
    // So that what is used is not taken away first.
    if let Ok(file) = fs::File::open(file) {
        let _ = file.set_modified(SystemTime::now());
    }
    CacheEntry::from_bytes(bytes.into())
}

#[async_trait]
impl CacheStore for FileCache {
    async fn load(&self, key: &CacheKey) -> Option<Arc<CacheEntry>> {
        let file = self.file(key);
        let read = tokio::task::spawn_blocking(move || read(&file)).await;
        read.ok().flatten().map(Arc::new)
    }

    async fn save(&self, key: &CacheKey, entry: Arc<CacheEntry>) {
        let (cache, key) = (self.clone(), key.clone());
        let save = move || match entry.to_bytes() {
            Some(bytes) if bytes.len() as u64 <= cache.max_bytes => {
                // A full disk is a cache that keeps nothing.
                let _ = cache.write(&key, &bytes);
            }
            _ => {}
        };
        let _ = tokio::task::spawn_blocking(save).await;
    }

    async fn remove(&self, key: &CacheKey) {
        let file = self.file(key);
        let _ = tokio::task::spawn_blocking(move || fs::remove_file(file)).await;
    }
}
