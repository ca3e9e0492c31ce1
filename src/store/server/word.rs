//! Word of changes, from process to process, gathered for a few milliseconds.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::lock::lock;
use crate::operation::{Operation, OperationId};
use crate::store::hints::{Hint, Hub, waits_for_a_worker};

/// How many ids one message names: of PostgreSQL's notifications none may have over 8,000 bytes.
const MAX_NAMED: usize = 200;
/// How many ids are kept while they cannot be passed on; beyond it only that some were missed.
const MAX_KEPT: usize = 10_000;

/// What a process has to tell the others, and what it hears from them.
#[derive(Debug)]
pub(in crate::store) struct Word {
    kept: Mutex<Kept>,
    /// There is something to pass on, or nobody is left to say anything.
    pub(in crate::store) news: Notify,
    is_heard: AtomicBool,
    is_closed: AtomicBool,
    /// Marks this process's own word.
    own: String,
}

#[derive(Debug, Default)]
struct Kept {
    changed: HashSet<OperationId>,
    claimable: bool,
    missed: bool,
}

impl Word {
    pub(in crate::store) fn new() -> Self {
        let mut own = [0; 16];
        // Without it a process takes others' word for its own, and hears of no change but by looking.
        let _ = getrandom::fill(&mut own);
        Self {
            kept: Mutex::default(),
            news: Notify::new(),
            is_heard: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            own: Uuid::from_bytes(own).simple().to_string(),
        }
    }

    /// Tells that the operation is new or has changed, and that it waits for a worker, if it does.
    pub(in crate::store) fn tell(&self, operation: &Operation) {
        self.say(Some(operation.id()), waits_for_a_worker(operation));
    }

    pub(in crate::store) fn tell_changed(&self, id: OperationId) {
        self.say(Some(id), false);
    }

    pub(in crate::store) fn tell_claimable(&self) {
        self.say(None, true);
    }

    /// Tells that something was to be told and is lost.
    pub(in crate::store) fn tell_missed(&self) {
        lock(&self.kept).missed = true;
    }

    fn say(&self, changed: Option<OperationId>, claimable: bool) {
        let mut kept = lock(&self.kept);
        let was_empty = kept.changed.is_empty() && !kept.claimable && !kept.missed;
        kept.changed.extend(changed);
        kept.claimable |= claimable;
        if kept.changed.len() > MAX_KEPT {
            *kept = Kept { missed: true, ..Kept::default() };
        }
        drop(kept);
        if was_empty {
            self.news.notify_one();
        }
    }

    /// Nobody is left to say anything.
    pub(in crate::store) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.news.notify_one();
    }

    pub(in crate::store) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Whether this process hears itself, and so the others.
    pub(in crate::store) fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::SeqCst)
    }

    pub(in crate::store) fn set_heard(&self, is_heard: bool) {
        self.is_heard.store(is_heard, Ordering::SeqCst);
    }

    /// What only this process understands: that it hears itself.
    pub(in crate::store) fn probe(&self) -> String {
        format!("{}?", self.own)
    }

    /// What is to be passed on, in as many messages as it takes: whose word it is, whether there is work,
    /// and the ids of what changed.
    pub(in crate::store) fn take(&self) -> Vec<String> {
        let mut kept = lock(&self.kept);
        let Kept { changed, claimable, missed } = std::mem::take(&mut *kept);
        drop(kept);
        let own = &self.own;
        let mut messages = Vec::new();
        if missed {
            messages.push(format!("{own}!"));
        }
        let changed: Vec<OperationId> = changed.into_iter().collect();
        let mut mark = if claimable { '+' } else { '=' };
        for ids in changed.chunks(MAX_NAMED) {
            let mut message = format!("{own}{mark}");
            for id in ids {
                message.push_str(&id.as_uuid().simple().to_string());
            }
            messages.push(message);
            mark = '=';
        }
        if mark == '+' {
            messages.push(format!("{own}+"));
        }
        messages
    }

    /// Tells this process what another said. True if it was this process itself.
    pub(in crate::store) fn hear(&self, message: &str, hub: &Hub) -> bool {
        let Some((whose, rest)) = message.split_at_checked(self.own.len()) else { return false };
        if whose == self.own {
            // It has told its own already, and knows by its echo that it hears.
            self.set_heard(true);
            return true;
        }
        let mut marks = rest.chars();
        match marks.next() {
            Some('!') => hub.send(Hint::Missed),
            Some(mark @ ('+' | '=')) => {
                let ids = marks.as_str().as_bytes().chunks(32);
                for id in ids.filter_map(|id| Uuid::try_parse_ascii(id).ok()) {
                    if let Ok(id) = OperationId::try_from(id) {
                        hub.send(Hint::Changed(id));
                    }
                }
                if mark == '+' {
                    hub.send(Hint::Claimable);
                }
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::NewOperation;
    use crate::time::Timestamp;

    #[test]
    fn what_one_says_another_hears_and_it_knows_its_own() {
        let (one, other) = (Word::new(), Word::new());
        let hub = Hub::default();
        let mut hints = hub.subscribe();
        let mut hear = || {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            match hints.poll_hint(&mut cx) {
                std::task::Poll::Ready(hint) => hint,
                std::task::Poll::Pending => None,
            }
        };
        let id = |number: u8| OperationId::from_parts(Timestamp::from_unix_millis(7), [number; 10]);
        for number in 0..=250 {
            one.tell_changed(id(number));
        }
        one.tell(&NewOperation::new(id(251)).accept(Timestamp::from_unix_millis(7)));
        let messages = one.take();
        assert_eq!(messages.len(), 2);
        assert!(messages.iter().all(|message| message.len() < 8_000));
        assert!(one.take().is_empty());
        for message in &messages {
            assert!(!other.hear(message, &hub));
            assert!(one.hear(message, &hub) && one.is_heard());
        }
        assert_eq!(hear(), Some(Hint::Claimable));
        let mut changed = HashSet::new();
        while let Some(Hint::Changed(id)) = hear() {
            changed.insert(id);
        }
        assert_eq!(changed.len(), 252);
        for nonsense in ["", "x", &format!("{}=zz", other.probe()), &one.probe()] {
            assert!(!other.hear(nonsense, &hub) || nonsense.starts_with(&other.own));
        }
        assert_eq!(hear(), None);
        for number in 0..=MAX_KEPT {
            let millis = i64::try_from(number).unwrap();
            one.tell_changed(OperationId::from_parts(Timestamp::from_unix_millis(millis), [0; 10]));
        }
        for message in one.take() {
            other.hear(&message, &hub);
        }
        assert_eq!(hear(), Some(Hint::Missed));
    }
}
