//! Room that is kept back, so that a full disk does not keep work from ending.
//!
//! SQLite cannot even delete on a full disk, for the log of a deletion needs room too. So there is a
//! file of no use, which is removed when there is no room for a write that ends work or purges it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often to try to make the file again.
const RESTORE_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: usize,
    is_there: bool,
    tried: Instant,
}

impl Reserve {
    /// Beside that database, `-reserve` after its name. With 0 bytes there is none.
    pub(super) fn beside(database: &Path, bytes: usize) -> Self {
        let mut name = database.file_name().unwrap_or_default().to_owned();
        name.push("-reserve");
        let mut reserve = Self {
            path: database.with_file_name(name),
            bytes,
            is_there: false,
            tried: Instant::now(),
        };
        reserve.make();
        reserve
    }

    /// Makes room, and says whether it did.
    pub(super) fn give_up(&mut self) -> bool {
        let was_there = std::mem::take(&mut self.is_there);
        self.tried = Instant::now();
        was_there && fs::remove_file(&self.path).is_ok()
    }

    /// Keeps room back again, if there is any now.
    pub(super) fn restore(&mut self) {
        if !self.is_there && self.bytes > 0 && self.tried.elapsed() >= RESTORE_INTERVAL {
            self.make();
        }
    }

    fn make(&mut self) {
        self.tried = Instant::now();
        self.is_there = self.bytes > 0 && self.fill().is_ok();
        if !self.is_there {
            // What there was no room for must not take any.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Writes the file whole: one with holes would keep nothing back.
    fn fill(&self) -> io::Result<()> {
        if fs::metadata(&self.path).is_ok_and(|file| file.len() == self.bytes as u64) {
            return Ok(());
        }
        let mut file = File::create(&self.path)?;
        let zeros = [0; 8 << 10];
        let mut left = self.bytes;
        while left > 0 {
            let part = left.min(zeros.len());
            file.write_all(&zeros[..part])?;
            left -= part;
        }
        file.sync_all()
    }
}
