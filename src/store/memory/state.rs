//! What the memory store holds, and its indices. All under one lock; the time is passed in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::operation::{Change, Due, Kind, Operation, OperationId, Outcome, Owner};
use crate::store::field_bytes;
use crate::store::query::MAX_LISTED;
use crate::store::{
    Acceptance, ClaimRequest, DueQuery, Fingerprint, Full, IdempotencyKey, Limits, ListQuery,
    Observed, Page, Submission, Swap, Swapped,
};
use crate::time::Timestamp;

/// Below this many operations, room that is no longer needed is kept.
const MIN_CAPACITY: usize = 1_024;

#[derive(Default)]
pub(super) struct State {
    entries: HashMap<OperationId, Entry>,
    /// By what it is due for, and by kind, so that work that nobody does hides no other.
    due: [BTreeMap<Kind, Dates>; Due::ALL.len()],
    owners: HashMap<Owner, OwnerEntry>,
    keys: HashMap<KeyName, (OperationId, Fingerprint)>,
    live: usize,
    bytes: usize,
}

/// From when on operations are due, in that order; and until when those may be claimed that have a
/// deadline, so that many that are overdue cost a claim little.
type Dates = BTreeMap<(Timestamp, OperationId), Option<Timestamp>>;

struct Entry {
    operation: Operation,
    write_id: u64,
    input: Option<Bytes>,
    outcome: Option<Box<Outcome>>,
    key: Option<KeyName>,
}

#[derive(Default)]
struct OwnerEntry {
    ids: BTreeSet<OperationId>,
    live: usize,
}

/// Owner, scope and key: what a client's key is unique in.
type KeyName = (Owner, Arc<str>, IdempotencyKey);

impl State {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn accept(
        &mut self,
        submission: Submission,
        now: Timestamp,
        max_operations: usize,
        max_bytes: usize,
    ) -> Acceptance {
        let Submission { operation: new, input, idempotency, limits } = submission;
        let key = idempotency.map(|idempotency| {
            let name = (new.owner().clone(), idempotency.scope, idempotency.key);
            (name, idempotency.fingerprint)
        });
        if let Some((name, fingerprint)) = &key {
            if let Some((id, used_for)) = self.keys.get(name).copied() {
                match self.get(id, now) {
                    None => self.drop_entry(id),
                    Some(_) if used_for != *fingerprint => return Acceptance::KeyReused,
                    Some(observed) => return Acceptance::Existing(observed),
                }
            }
        }
        match self.entries.get(&new.id()) {
            Some(entry) if entry.operation.is_expired(now) => self.drop_entry(new.id()),
            Some(entry) => return Acceptance::Existing(entry.observe(now)),
            None => {}
        }
        if self.entries.len() >= max_operations || self.bytes > max_bytes {
            return Acceptance::Full(Full::Total);
        }
        if let Some(full) = self.full(&limits, new.owner()) {
            return Acceptance::Full(full);
        }

        let operation = new.accept(now);
        let id = operation.id();
        self.index(None, Some(&operation));
        self.bytes += input.as_ref().map_or(0, Bytes::len);
        let key = key.map(|(name, fingerprint)| {
            self.keys.insert(name.clone(), (id, fingerprint));
            name
        });
        let created = Acceptance::created(operation.clone());
        self.entries.insert(id, Entry { operation, write_id: 0, input, outcome: None, key });
        created
    }

    fn full(&self, limits: &Limits, owner: &Owner) -> Option<Full> {
        if limits.total.is_some_and(|total| self.live >= total) {
            return Some(Full::Total);
        }
        let live = self.owners.get(owner).map_or(0, |entry| entry.live);
        limits
            .owner
            .is_some_and(|most| owner.name().is_some() && live >= most)
            .then_some(Full::Owner)
    }

    pub(super) fn get(&self, id: OperationId, now: Timestamp) -> Option<Observed> {
        self.visible(id, now).map(|entry| entry.observe(now))
    }

    pub(super) fn input(&self, id: OperationId, now: Timestamp) -> Option<Bytes> {
        self.visible(id, now)?.input.clone()
    }

    pub(super) fn outcome(&self, id: OperationId, now: Timestamp) -> Option<Outcome> {
        self.visible(id, now)?.outcome.as_deref().cloned()
    }

    pub(super) fn swap(&mut self, swap: Swap, now: Timestamp) -> Swapped {
        let Swap { next, expected, write_id, outcome, outbox } = swap;
        let id = next.id();
        match self.visible(id, now) {
            None => return Swapped::Gone,
            Some(entry) if entry.operation.version() != expected => {
                return Swapped::Conflict(entry.observe(now));
            }
            Some(_) => {}
        }
        let Some(mut entry) = self.entries.remove(&id) else { return Swapped::Gone };
        self.index(Some(&entry.operation), Some(&next));
        self.bytes -= entry.bytes();
        if next.status().is_finished() {
            entry.input = None;
        }
        if let Some(outcome) = outcome {
            entry.outcome = Some(Box::new(outcome));
        }
        self.bytes += entry.bytes();
        entry.operation = next;
        entry.write_id = write_id;
        self.entries.insert(id, entry);
        for submission in outbox {
            let submission = Submission { limits: Limits::default(), ..submission };
            self.accept(submission, now, usize::MAX, usize::MAX);
        }
        Swapped::Swapped
    }

    pub(super) fn remove(&mut self, id: OperationId, expected: u64, now: Timestamp) -> Swapped {
        match self.visible(id, now) {
            None => Swapped::Gone,
            Some(entry) if entry.operation.version() != expected => {
                Swapped::Conflict(entry.observe(now))
            }
            Some(_) => {
                self.drop_entry(id);
                Swapped::Swapped
            }
        }
    }

    pub(super) fn due(&self, query: &DueQuery, now: Timestamp) -> Vec<Observed> {
        let mut due: Vec<(Timestamp, &Entry)> = Vec::new();
        for (kind, index) in &self.due[query.due as usize] {
            if !query.selects_kind(kind) {
                continue;
            }
            let passed = index.iter().take_while(|((at, _), _)| *at <= now);
            let passed = passed.filter(|(_, until)| until.is_none_or(|until| until > now));
            let entries = passed.filter_map(|((at, id), _)| Some((*at, self.entries.get(id)?)));
            due.extend(
                entries
                    .filter(|(_, entry)| entry.operation.is_due(query.due, now))
                    .take(query.limit),
            );
        }
        due.sort_by_key(|(at, entry)| (*at, entry.operation.id()));
        due.into_iter().take(query.limit).map(|(_, entry)| entry.observe(now)).collect()
    }

    pub(super) fn claim(&mut self, request: &ClaimRequest, now: Timestamp) -> Vec<Observed> {
        let mut claimed = self.due(&request.to_due_query(), now);
        claimed.retain_mut(|observed| {
            let before = &observed.operation;
            let Ok(next) = before.apply(&Change::Claim { lease: request.lease() }, now) else {
                return false;
            };
            let swapped = self.swap(Swap::new(next.clone(), before.version()), now);
            *observed = Observed { operation: next, now, write_id: 0 };
            swapped == Swapped::Swapped
        });
        claimed
    }

    pub(super) fn list(&self, owner: &Owner, query: &ListQuery, now: Timestamp) -> Page {
        let Some(index) = self.owners.get(owner) else { return Page::default() };
        let before = query.before.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = Page::default();
        let older = index.ids.range((Bound::Unbounded, before)).rev();
        for (scanned, id) in older.enumerate() {
            if page.operations.len() == query.page_size() || scanned == MAX_LISTED {
                // There is one more: the page before it ends at the last one that was looked at.
                return page;
            }
            page.next = Some(*id);
            if let Some(entry) = self.visible(*id, now) {
                if query.selects(&entry.operation) {
                    page.operations.push(entry.operation.clone());
                }
            }
        }
        Page { next: None, ..page }
    }

    pub(super) fn purge(&mut self, limit: usize, now: Timestamp) -> usize {
        let expired = self.due(&DueQuery::new(Due::Expire, limit), now);
        for observed in &expired {
            self.drop_entry(observed.operation.id());
        }
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(MIN_CAPACITY.max(self.entries.len() * 2));
            self.keys.shrink_to(MIN_CAPACITY.max(self.keys.len() * 2));
            self.owners.shrink_to(MIN_CAPACITY.max(self.owners.len() * 2));
        }
        expired.len()
    }

    fn visible(&self, id: OperationId, now: Timestamp) -> Option<&Entry> {
        self.entries.get(&id).filter(|entry| !entry.operation.is_expired(now))
    }

    fn drop_entry(&mut self, id: OperationId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.index(Some(&entry.operation), None);
        self.bytes -= entry.bytes();
        if let Some(key) = &entry.key {
            self.keys.remove(key);
        }
    }

    /// Keeps the indices and counters true to a change from `before` to `after`.
    fn index(&mut self, before: Option<&Operation>, after: Option<&Operation>) {
        for due in Due::ALL {
            let at = |operation: Option<&Operation>| {
                let operation = operation?;
                let until = operation.due_at(Due::Settle).filter(|_| due == Due::Claim);
                Some(((operation.due_at(due)?, operation.id()), until))
            };
            let (old, new) = (at(before), at(after));
            let Some(kind) = after.or(before).map(Operation::kind).filter(|_| old != new) else {
                continue;
            };
            let kinds = &mut self.due[due as usize];
            let index = kinds.entry(kind.clone()).or_default();
            old.map(|(old, _)| index.remove(&old));
            new.map(|(new, until)| index.insert(new, until));
            if index.is_empty() {
                kinds.remove(kind);
            }
        }
        let is_live = |operation: Option<&Operation>| {
            usize::from(operation.is_some_and(|operation| !operation.status().is_finished()))
        };
        let (was_live, live) = (is_live(before), is_live(after));
        self.live = self.live + live - was_live;

        let Some(operation) =
            after.or(before).filter(|operation| operation.owner().name().is_some())
        else {
            return;
        };
        let owner = self.owners.entry(operation.owner().clone()).or_default();
        owner.live = owner.live + live - was_live;
        match (before, after) {
            (None, Some(new)) => {
                owner.ids.insert(new.id());
            }
            (Some(old), None) => {
                owner.ids.remove(&old.id());
                if owner.ids.is_empty() {
                    self.owners.remove(old.owner());
                }
            }
            _ => {}
        }
    }
}

impl Entry {
    fn observe(&self, now: Timestamp) -> Observed {
        Observed { operation: self.operation.clone(), now, write_id: self.write_id }
    }

    fn bytes(&self) -> usize {
        let input = self.input.as_ref().map_or(0, Bytes::len);
        let outcome = self.outcome.as_deref();
        input + outcome.map_or(0, |outcome| outcome.body.len() + field_bytes(outcome))
    }
}
