//! A store as simple as can be: a list of operations that is searched from end to end.

use bytes::Bytes;
use respond_async::operation::{Operation, OperationId, Outcome, Owner};
use respond_async::store::{
    Acceptance, DueQuery, Full, Idempotency, Limits, ListQuery, Observed, Submission,
};
use respond_async::time::Timestamp;

/// What the store is compared with.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// In no order that means anything.
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) operation: Operation,
    pub(crate) input: Option<Bytes>,
    pub(crate) outcome: Option<Outcome>,
    idempotency: Option<Idempotency>,
}

impl Model {
    pub(crate) fn visible(&mut self, id: OperationId, now: Timestamp) -> Option<&mut Entry> {
        self.entries
            .iter_mut()
            .find(|entry| entry.operation.id() == id && !entry.operation.is_expired(now))
    }

    pub(crate) fn operation(&mut self, id: OperationId, now: Timestamp) -> Option<Operation> {
        self.visible(id, now).map(|entry| entry.operation.clone())
    }

    pub(crate) fn accept(&mut self, submission: Submission, now: Timestamp) -> Acceptance {
        let Submission { operation: new, input, idempotency, limits, .. } = submission;
        if let Some(wanted) = &idempotency {
            let same_key = |entry: &Entry| {
                entry.operation.owner() == new.owner()
                    && entry.idempotency.as_ref().is_some_and(|kept| {
                        (&kept.scope, &kept.key) == (&wanted.scope, &wanted.key)
                    })
            };
            let found = self.entries.iter().position(same_key);
            match found {
                // Its operation has expired, so the key is free; the store purges it by the way.
                Some(at) if self.entries[at].operation.is_expired(now) => {
                    self.entries.remove(at);
                }
                Some(at) => {
                    let Entry { operation, idempotency, .. } = &self.entries[at];
                    let is_same = idempotency.as_ref().map(|kept| kept.fingerprint)
                        == Some(wanted.fingerprint);
                    return if is_same { existing(operation, now) } else { Acceptance::KeyReused };
                }
                None => {}
            }
        }
        if let Some(operation) = self.operation(new.id(), now) {
            return existing(&operation, now);
        }
        self.entries.retain(|entry| entry.operation.id() != new.id());
        if let Some(full) = self.full(limits, new.owner()) {
            return Acceptance::Full(full);
        }
        let operation = new.accept(now);
        let observed = Observed { operation: operation.clone(), now, write_id: 0 };
        self.entries.push(Entry { operation, input, outcome: None, idempotency });
        Acceptance::Created(observed)
    }

    fn full(&self, limits: Limits, owner: &Owner) -> Option<Full> {
        let live = || self.entries.iter().filter(|entry| entry.operation.finished().is_none());
        let of_owner = live().filter(|entry| entry.operation.owner() == owner).count();
        if limits.total.is_some_and(|limit| live().count() >= limit) {
            Some(Full::Total)
        } else if owner.name().is_some() && limits.owner.is_some_and(|limit| of_owner >= limit) {
            Some(Full::Owner)
        } else {
            None
        }
    }

    pub(crate) fn due(&self, query: &DueQuery, now: Timestamp) -> Vec<Operation> {
        let mut due: Vec<&Operation> = self
            .entries
            .iter()
            .map(|entry| &entry.operation)
            .filter(|operation| operation.is_due(query.due, now) && query.selects(operation))
            .collect();
        due.sort_by_key(|operation| (operation.due_at(query.due), operation.id()));
        due.into_iter().take(query.limit).cloned().collect()
    }

    pub(crate) fn write(&mut self, next: Operation, outcome: Option<Outcome>) {
        let entry = self.entries.iter_mut().find(|entry| entry.operation.id() == next.id());
        let entry = entry.expect("only what is there is written");
        if next.finished().is_some() {
            entry.input = None;
        }
        entry.outcome = outcome.or(entry.outcome.take());
        entry.operation = next;
    }

    /// Accepts what follows from a write: without limits, and what has no place is left out.
    pub(crate) fn follow(&mut self, outbox: Vec<Submission>, now: Timestamp) {
        for submission in outbox {
            self.accept(submission.with_limits(Limits::default()), now);
        }
    }

    pub(crate) fn remove(&mut self, id: OperationId) {
        self.entries.retain(|entry| entry.operation.id() != id);
    }

    pub(crate) fn list(&self, owner: &Owner, query: &ListQuery, now: Timestamp) -> Vec<Operation> {
        let mut listed: Vec<Operation> = self
            .entries
            .iter()
            .map(|entry| &entry.operation)
            .filter(|operation| operation.owner() == owner && owner.name().is_some())
            .filter(|operation| !operation.is_expired(now) && query.selects(operation))
            .filter(|operation| query.before.is_none_or(|before| operation.id() < before))
            .cloned()
            .collect();
        listed.sort_by_key(|operation| std::cmp::Reverse(operation.id()));
        listed
    }
}

fn existing(operation: &Operation, now: Timestamp) -> Acceptance {
    let observed = Observed { operation: operation.clone(), now, write_id: 0 };
    Acceptance::Existing(observed)
}
