//! What the reader of a list's stream has seen, as an event's id that it gives back when it comes again.
//!
//! A store cannot say what changed after a given moment, and changes become visible in another order
//! than that of their times. So a cursor has two parts: a time, up to which all was shown, and the
//! operations that have been shown since, each with its revision. Whatever bears a later time and is
//! not among them is new. There is no gap, then, as long as a change is visible
//! [soon after](crate::operations) the time that it bears; and nothing is repeated unless more than
//! [`MAX_SHOWN`] operations have changed since that time.

use std::fmt::Write;

use crate::operation::{Operation, OperationId};
use crate::time::Timestamp;

/// How many operations a cursor names.
pub(super) const MAX_SHOWN: usize = 128;

/// The end of an operation's id: 48 random bits, enough to tell it from the owner's others.
type Tag = [u8; 6];

/// As many bits of a revision as a cursor has.
const REVISION_BITS: u64 = 0xFF_FFFF;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// What bears this time or an earlier one was shown.
    settled: Timestamp,
    shown: Vec<Shown>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    tag: Tag,
    revision: u64,
    updated: Timestamp,
}

impl Cursor {
    /// Nothing that bears a later time was shown.
    pub(super) fn new(settled: Timestamp) -> Self {
        Self { settled, shown: Vec::new() }
    }

    /// Reads what a client gives back; none if that is no cursor.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let (settled, shown) = text.split_once('-')?;
        let settled = Timestamp::from_unix_millis(from_hex(settled)?.try_into().ok()?);
        let is_whole = shown.is_ascii() && shown.len() % 18 == 0 && shown.len() / 18 <= MAX_SHOWN;
        let entries = shown.as_bytes().chunks_exact(18).map(|entry| {
            let (tag, revision) = std::str::from_utf8(entry).ok()?.split_at(12);
            let [_, _, tag @ ..] = from_hex(tag)?.to_be_bytes();
            // When it changed is not known before it is seen again.
            Some(Shown { tag, revision: from_hex(revision)?, updated: Timestamp::MAX })
        });
        Some(Self { settled, shown: entries.collect::<Option<_>>()? }).filter(|_| is_whole)
    }

    /// The cursor as an event's id.
    pub(super) fn encode(&self) -> String {
        let mut text = format!("{:x}-", self.settled.as_unix_millis().max(0));
        for Shown { tag, revision, .. } in &self.shown {
            let tag = tag.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
            // A string takes whatever is written.
            let _ = write!(text, "{tag:012x}{:06x}", revision & REVISION_BITS);
        }
        text
    }

    /// Whether this state of the operation was not shown.
    pub(super) fn is_new(&self, operation: &Operation) -> bool {
        operation.updated() > self.settled && !self.has(operation)
    }

    /// Whether this state of the operation, or a later one, is among those that were shown of late.
    pub(super) fn has(&self, operation: &Operation) -> bool {
        let tag = tag(operation.id());
        let shown = self.shown.iter().find(|shown| shown.tag == tag);
        shown.is_some_and(|shown| operation.revision() & REVISION_BITS <= shown.revision)
    }

    /// Notes when an operation changed that was read from the cursor without its time.
    pub(super) fn learn(&mut self, operation: &Operation) {
        let tag = tag(operation.id());
        if let Some(shown) = self.shown.iter_mut().find(|shown| shown.tag == tag) {
            shown.updated = shown.updated.min(operation.updated());
        }
    }

    /// Forgets what a whole look has not [taught](Self::learn): it is gone, and is not seen again.
    pub(super) fn forget_the_gone(&mut self) {
        self.shown.retain(|shown| shown.updated != Timestamp::MAX);
    }

    /// Notes that all was shown that bears a time up to that.
    pub(super) fn settle(&mut self, settled: Timestamp) {
        self.settled = self.settled.max(settled);
        let settled = self.settled;
        self.shown.retain(|shown| shown.updated > settled);
    }

    /// Notes that this state was shown, after all that bears a time up to `settled`.
    pub(super) fn show(&mut self, operation: &Operation, settled: Timestamp) {
        self.settle(settled);
        let (tag, updated) = (tag(operation.id()), operation.updated());
        self.shown.retain(|shown| shown.tag != tag);
        if updated <= self.settled {
            return;
        }
        if self.shown.len() == MAX_SHOWN {
            let oldest = self.shown.iter().enumerate().min_by_key(|(_, shown)| shown.updated);
            if let Some((oldest, _)) = oldest {
                self.shown.swap_remove(oldest);
            }
        }
        self.shown.push(Shown { tag, revision: operation.revision() & REVISION_BITS, updated });
    }
}

fn tag(id: OperationId) -> Tag {
    let mut tag = Tag::default();
    tag.copy_from_slice(&id.as_uuid().as_bytes()[10..]);
    tag
}

/// A number of up to 60 bits, in lower-case digits as [`Cursor::encode`] writes them.
fn from_hex(text: &str) -> Option<u64> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_number = (1..=15).contains(&text.len()) && text.bytes().all(is_digit);
    u64::from_str_radix(text, 16).ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::operation::{Change, NewOperation};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(1_000_000_000_000 + seconds * 1_000)
    }

    fn pending(number: u8, created: i64) -> Operation {
        NewOperation::new(OperationId::from_parts(at(0), [number; 10])).accept(at(created))
    }

    fn claimed(operation: &Operation, when: i64) -> Operation {
        operation.apply(&Change::Claim { lease: Duration::from_secs(60) }, at(when)).unwrap()
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (kept, gone) = (pending(1, 20), pending(2, 21));
        let mut cursor = Cursor::new(at(0));
        cursor.show(&kept, at(10));
        cursor.show(&gone, at(10));
        let mut cursor = Cursor::decode(&cursor.encode()).unwrap();
        cursor.learn(&kept);
        cursor.forget_the_gone();
        assert!(cursor.has(&kept) && !cursor.has(&gone));
    }

    #[test]
    fn what_was_shown_is_not_new_until_it_changes() {
        let (one, two) = (pending(1, 20), pending(2, 21));
        let mut cursor = Cursor::new(at(0));
        assert!(cursor.is_new(&one) && cursor.is_new(&two));
        cursor.show(&one, at(10));
        for cursor in [cursor.clone(), Cursor::decode(&cursor.encode()).unwrap()] {
            assert!(!cursor.is_new(&one));
            // It became visible late, and bears an earlier time.
            assert!(cursor.is_new(&pending(3, 15)));
            assert!(cursor.is_new(&two));
            assert!(cursor.is_new(&claimed(&one, 20)));
            assert!(!cursor.is_new(&pending(4, 10)));
        }
        cursor.show(&claimed(&one, 22), at(10));
        assert!(!cursor.is_new(&one) && !cursor.is_new(&claimed(&one, 22)));
    }

    #[test]
    fn what_is_settled_needs_no_name() {
        let mut cursor = Cursor::new(at(0));
        for number in 0..100 {
            cursor.show(&pending(number, i64::from(number)), at(i64::from(number) - 10));
        }
        assert_eq!(cursor.shown.len(), 10);
        let mut read = Cursor::decode(&cursor.encode()).unwrap();
        // Their times are learnt by looking, and then they are forgotten as the others are.
        (0..100).for_each(|number| read.learn(&pending(number, i64::from(number))));
        assert_eq!(read, cursor);
        read.show(&pending(200, 200), at(150));
        assert_eq!(read.shown.len(), 1);
    }

    #[test]
    fn it_has_a_bound_beyond_which_the_oldest_come_again() {
        let mut cursor = Cursor::new(at(0));
        for number in 0..=u8::MAX {
            cursor.show(&pending(number, 1 + i64::from(number)), at(0));
        }
        assert!(cursor.encode().len() < 2_500);
        let repeated = (0..=u8::MAX).filter(|n| cursor.is_new(&pending(*n, 1 + i64::from(*n))));
        assert_eq!(repeated.count(), 256 - MAX_SHOWN);
        assert!(!cursor.is_new(&pending(255, 256)));
    }

    #[test]
    fn reads_only_what_it_writes() {
        let mut cursor = Cursor::new(at(0));
        cursor.show(&pending(1, 20), at(10));
        cursor.show(&claimed(&pending(2, 20), 21), at(10));
        let text = cursor.encode();
        assert_eq!(Cursor::decode(&text).unwrap().encode(), text);
        assert_eq!(Cursor::decode("0-").unwrap(), Cursor::new(Timestamp::from_unix_millis(0)));
        let long = format!("0-{}", "0".repeat(18 * (MAX_SHOWN + 1)));
        for wrong in [
            "",
            "3",
            "-",
            "x-",
            "0-0",
            "0-00000000000000000g",
            "+1-",
            "0-+1111111111111111",
            "é-",
            "0-ééééééééé",
            "F-",
            "-1-",
            "ffffffffffffffff-",
            &text[1..text.len() - 1],
            &long,
        ] {
            assert_eq!(Cursor::decode(wrong), None, "{wrong}");
        }
    }
}
