//! The threads that read, each on a connection of its own.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};

use rusqlite::Connection;

use super::sql::Reads;
use crate::lock::lock;
use crate::store::{StoreError, StoreErrorKind};

/// What a reader is asked to do.
pub(super) type Read = Box<dyn FnOnce(&mut Reads<'_>) + Send>;

/// What the readers share. A call wakes one of them, and of those the one that read last: its memory is
/// the warmest.
pub(super) struct Readers {
    waiting: Mutex<Waiting>,
    /// One for each reader.
    wakes: Box<[Condvar]>,
    /// How many calls may wait.
    room: usize,
}

#[derive(Default)]
struct Waiting {
    calls: VecDeque<Read>,
    /// The readers that have nothing to do.
    idle: Vec<usize>,
    is_closed: bool,
}

impl Readers {
    pub(super) fn new(readers: usize, room: usize) -> Self {
        let wakes = (0..readers).map(|_| Condvar::new()).collect();
        Self { waiting: Mutex::default(), wakes, room }
    }

    /// Has one of them read.
    pub(super) fn ask(&self, read: Read) -> Result<(), StoreError> {
        let mut waiting = lock(&self.waiting);
        if waiting.is_closed || waiting.calls.len() >= self.room {
            let message =
                if waiting.is_closed { "the threads that read are gone" } else { super::TOO_MANY };
            return Err(StoreError::new(StoreErrorKind::Unavailable, message));
        }
        waiting.calls.push_back(read);
        let idle = waiting.idle.pop();
        drop(waiting);
        if let Some(wake) = idle.and_then(|reader| self.wakes.get(reader)) {
            wake.notify_one();
        }
        Ok(())
    }

    /// Reads until there will be no more calls.
    ///
    /// # Errors
    /// If the statements cannot be prepared. Then nobody reads any more.
    pub(super) fn run(&self, reader: usize, connection: &Connection) -> rusqlite::Result<()> {
        let mut reads = Reads::prepare(connection).inspect_err(|_| {
            self.close();
            lock(&self.waiting).calls.clear();
        })?;
        while let Some(read) = self.next(reader) {
            // What panics in it, such as a clock, has cost its caller an answer, and nobody else.
            drop(catch_unwind(AssertUnwindSafe(|| read(&mut reads))));
        }
        Ok(())
    }

    /// There will be no more calls: those that wait are read, then the threads end.
    pub(super) fn close(&self) {
        lock(&self.waiting).is_closed = true;
        self.wakes.iter().for_each(Condvar::notify_one);
    }

    fn next(&self, reader: usize) -> Option<Read> {
        let mut waiting = lock(&self.waiting);
        loop {
            if let Some(read) = waiting.calls.pop_front() {
                return Some(read);
            }
            if waiting.is_closed {
                return None;
            }
            waiting.idle.push(reader);
            waiting = self.wakes[reader].wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle.retain(|idle| *idle != reader);
        }
    }
}
