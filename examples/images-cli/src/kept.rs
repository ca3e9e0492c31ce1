//! What is kept from one run to the next: the operations that are not finished, a file for each, and the
//! answers that may be kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use respond_async::client::PollerState;
use respond_async::client::cache::FileCache;
use serde::{Deserialize, Serialize};
use url::Url;

#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

/// An operation that was left. Who may see it is not in here: that is said again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) file: PathBuf,
    pub(crate) state: PollerState,
}

impl Kept {
    /// Whether its operation is at that service.
    pub(crate) fn is_at(&self, server: &Url) -> bool {
        Url::parse(self.state.monitor()).is_ok_and(|monitor| monitor.origin() == server.origin())
    }
}

impl Folder {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder.join("operations"))?;
        Ok(Self(folder.to_owned()))
    }

    pub(crate) fn cache(&self) -> io::Result<FileCache> {
        FileCache::open(self.0.join("cache"))
    }

    /// Keeps an operation, whole or not at all.
    pub(crate) fn keep(&self, kept: &Kept) -> io::Result<()> {
        let file = self.file(kept.state.monitor());
        let unfinished = file.with_extension("new");
        fs::write(&unfinished, serde_json::to_vec(kept)?)?;
        fs::rename(unfinished, file)
    }

    pub(crate) fn forget(&self, monitor: &str) -> io::Result<()> {
        match fs::remove_file(self.file(monitor)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All that is kept. A file that is none of ours is left alone.
    pub(crate) fn all(&self) -> io::Result<Vec<Kept>> {
        let mut all = Vec::new();
        for file in fs::read_dir(self.0.join("operations"))? {
            let file = file?.path();
            if file.extension().is_some_and(|extension| extension == "json") {
                all.extend(serde_json::from_slice::<Kept>(&fs::read(file)?).ok());
            }
        }
        all.sort_by(|one, other| one.file.cmp(&other.file));
        Ok(all)
    }

    fn file(&self, monitor: &str) -> PathBuf {
        // A name without anything that a file's name may not have.
        let name: String =
            monitor.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        self.0.join("operations").join(name).with_extension("json")
    }
}
