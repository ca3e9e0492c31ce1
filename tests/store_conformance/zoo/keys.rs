//! Stores that keep idempotency keys in a broken way.

use super::*;

/// A key stands for whatever comes with it.
#[derive(Debug, Default)]
pub(super) struct KeyIgnoresPayload;

#[async_trait]
impl Defect for KeyIgnoresPayload {
    async fn accept(&self, store: &MemoryStore, mut submission: Submission) -> Answer<Acceptance> {
        if let Some(idempotency) = &mut submission.idempotency {
            idempotency.fingerprint = Fingerprint([0; 32]);
        }
        store.accept(submission).await
    }
}

/// The key is looked up in one step and taken in another.
#[derive(Debug, Default)]
pub(super) struct KeyNotAtomic(Mutex<HashMap<KeyName, OperationId>>);

#[async_trait]
impl Defect for KeyNotAtomic {
    async fn accept(&self, store: &MemoryStore, mut submission: Submission) -> Answer<Acceptance> {
        let Some(name) = key_name(&submission) else { return store.accept(submission).await };
        let known = self.0.lock().unwrap().get(&name).copied();
        if let Some(id) = known {
            if let Some(current) = store.get(id).await? {
                return Ok(Acceptance::Existing(current));
            }
        }
        gap().await;
        self.0.lock().unwrap().insert(name, submission.operation.id());
        submission.idempotency = None;
        store.accept(submission).await
    }
}

/// The key is there first, and its operation comes a moment later.
#[derive(Debug, Default)]
pub(super) struct KeyBeforeOperation(Mutex<HashMap<KeyName, Observed>>);

#[async_trait]
impl Defect for KeyBeforeOperation {
    async fn accept(&self, store: &MemoryStore, mut submission: Submission) -> Answer<Acceptance> {
        let Some(name) = key_name(&submission) else { return store.accept(submission).await };
        let known = self.0.lock().unwrap().get(&name).cloned();
        if let Some(observed) = known {
            return Ok(Acceptance::Existing(observed));
        }
        let now = submission.operation.id().timestamp();
        let operation = submission.operation.accept(now);
        self.0.lock().unwrap().insert(name, Observed { operation, now, write_id: 0 });
        gap().await;
        submission.idempotency = None;
        store.accept(submission).await
    }
}

/// A key is everybody's.
#[derive(Debug, Default)]
pub(super) struct KeyAcrossOwners(Mutex<HashMap<(String, String), OperationId>>);

#[async_trait]
impl Defect for KeyAcrossOwners {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        let Some((_, scope, key)) = key_name(&submission) else {
            return store.accept(submission).await;
        };
        let id = submission.operation.id();
        let used_for = *self.0.lock().unwrap().entry((scope, key)).or_insert(id);
        match store.get(used_for).await? {
            Some(current) => Ok(Acceptance::Existing(current)),
            None => store.accept(submission).await,
        }
    }
}

/// A key stays when its operation goes.
#[derive(Debug, Default)]
pub(super) struct KeyOutlivesOperation(Mutex<HashMap<KeyName, OperationId>>);

#[async_trait]
impl Defect for KeyOutlivesOperation {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        if let Some(name) = key_name(&submission) {
            let id = submission.operation.id();
            let used_for = *self.0.lock().unwrap().entry(name).or_insert(id);
            if used_for != id && store.get(used_for).await?.is_none() {
                return Ok(Acceptance::KeyReused);
            }
        }
        store.accept(submission).await
    }
}

/// A key is taken before it is known whether there is room.
#[derive(Debug, Default)]
pub(super) struct KeyBurnt(Mutex<HashSet<KeyName>>);

#[async_trait]
impl Defect for KeyBurnt {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        let name = key_name(&submission);
        if name.as_ref().is_some_and(|name| self.0.lock().unwrap().contains(name)) {
            return Ok(Acceptance::KeyReused);
        }
        let answer = store.accept(submission).await?;
        if matches!(answer, Acceptance::Full(_)) {
            self.0.lock().unwrap().extend(name);
        }
        Ok(answer)
    }
}
