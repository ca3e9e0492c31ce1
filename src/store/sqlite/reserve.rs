//! Room that is kept back, so that a full disk does not keep work from ending.
//!
//! SQLite cannot even delete on a full disk, for the log of a deletion needs room too. So there is a
//! file of no use, which is removed when there is no room for a write that ends work or purges it.
//! Until it is there again, new operations must leave as much room inside the database.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often to try to make the file again.
const RESTORE_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: usize,
    state: State,
    tried: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The file is there.
    Kept,
    /// There was no room for the file, or it was given up.
    Lacking,
    /// None is wanted, or the file cannot be made for another reason than room.
    Without,
}

impl Reserve {
    /// Beside that database, `-reserve` after its name. With 0 bytes there is none, and that of another
    /// handle is left alone.
    pub(super) fn beside(database: &Path, bytes: usize) -> Self {
        let mut name = database.file_name().unwrap_or_default().to_owned();
        name.push("-reserve");
        let path = database.with_file_name(name);
        let mut reserve = Self { path, bytes, state: State::Without, tried: Instant::now() };
        reserve.make();
        reserve
    }

    /// Makes room, and says whether it did.
    pub(super) fn give_up(&mut self) -> bool {
        if self.state == State::Without {
            return false;
        }
        self.state = State::Lacking;
        self.tried = Instant::now();
        fs::remove_file(&self.path).is_ok()
    }

    /// How many bytes new operations have to leave free inside the database: as many as should be kept
    /// back and are not, whichever process has used them.
    pub(super) fn lacking_bytes(&mut self) -> usize {
        if self.state == State::Kept && !self.path.exists() {
            self.state = State::Lacking;
            self.tried = Instant::now();
        }
        if self.state == State::Lacking { self.bytes } else { 0 }
    }

    /// Keeps room back again, if there is any now.
    pub(super) fn restore(&mut self) {
        if self.state != State::Kept && self.tried.elapsed() >= RESTORE_INTERVAL {
            self.make();
        }
    }

    fn make(&mut self) {
        self.tried = Instant::now();
        self.state = match self.fill() {
            _ if self.bytes == 0 => State::Without,
            Ok(()) => State::Kept,
            Err(error) if is_full(&error) => State::Lacking,
            Err(_) => State::Without,
        };
    }

    /// Writes the file whole: one with holes would keep nothing back. One that is there already is
    /// another process's too, so it is only ever made longer.
    fn fill(&self) -> io::Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        let there = fs::metadata(&self.path).map_or(0, |file| file.len());
        let mut left = self.bytes.saturating_sub(usize::try_from(there).unwrap_or(usize::MAX));
        if left == 0 {
            return Ok(());
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let zeros = [0; 8 << 10];
        let mut write_rest = || {
            while left > 0 {
                let part = left.min(zeros.len());
                file.write_all(&zeros[..part])?;
                left -= part;
            }
            file.sync_all()
        };
        write_rest().inspect_err(|_| {
            // What there was no room for must not take any.
            let _ = if there == 0 { fs::remove_file(&self.path) } else { file.set_len(there) };
        })
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
