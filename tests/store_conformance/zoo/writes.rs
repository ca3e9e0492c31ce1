//! Stores that write, or keep what was written, in a broken way.

use serde_json::{Map, Value};

use super::*;

/// A text that ends at its first NUL.
#[derive(Debug, Default)]
pub(super) struct InputCutAtNul;

#[async_trait]
impl Defect for InputCutAtNul {
    async fn input(&self, store: &MemoryStore, id: OperationId) -> Answer<Option<Bytes>> {
        let input = store.input(id).await?;
        Ok(input.map(|input| {
            let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
            input.slice(..end)
        }))
    }
}

/// It takes more than it says.
#[derive(Debug, Default)]
pub(super) struct BodyLimitIgnored;

#[async_trait]
impl Defect for BodyLimitIgnored {
    fn capabilities(&self, _: &MemoryStore) -> Capabilities {
        Capabilities::new(Durability::ProcessCrash, 1 << 10)
    }
}

/// An insert that replaces.
#[derive(Debug, Default)]
pub(super) struct IdOverwritten;

#[async_trait]
impl Defect for IdOverwritten {
    async fn accept(&self, store: &MemoryStore, submission: Submission) -> Answer<Acceptance> {
        let id = submission.operation.id();
        if let Some(current) = store.get(id).await? {
            store.remove(id, current.operation.version()).await?;
        }
        store.accept(submission).await
    }
}

/// An update by id alone.
#[derive(Debug, Default)]
pub(super) struct FenceIgnored;

#[async_trait]
impl Defect for FenceIgnored {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        write_over(store, swap).await
    }
}

/// The version is compared in one step and written over in another.
#[derive(Debug, Default)]
pub(super) struct CheckThenWrite;

#[async_trait]
impl Defect for CheckThenWrite {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        match store.get(swap.next.id()).await? {
            None => Ok(Swapped::Gone),
            Some(current) if current.operation.version() != swap.expected => {
                Ok(Swapped::Conflict(current))
            }
            Some(_) => {
                gap().await;
                write_over(store, swap).await
            }
        }
    }
}

/// A replica that is one read behind.
#[derive(Debug, Default)]
pub(super) struct StaleRead(Mutex<HashMap<OperationId, Observed>>);

#[async_trait]
impl Defect for StaleRead {
    async fn get(&self, store: &MemoryStore, id: OperationId) -> Answer<Option<Observed>> {
        let Some(current) = store.get(id).await? else { return Ok(None) };
        let before = self.0.lock().unwrap().insert(id, current.clone());
        Ok(Some(before.unwrap_or(current)))
    }
}

/// Nobody can tell whose write it was.
#[derive(Debug, Default)]
pub(super) struct WriteIdDropped;

#[async_trait]
impl Defect for WriteIdDropped {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        store.swap(swap.with_write_id(0)).await
    }
}

/// A removal by id alone.
#[derive(Debug, Default)]
pub(super) struct RemovalUnfenced;

#[async_trait]
impl Defect for RemovalUnfenced {
    async fn remove(&self, store: &MemoryStore, id: OperationId, _: u64) -> Answer<Swapped> {
        match store.get(id).await? {
            None => Ok(Swapped::Gone),
            Some(current) => store.remove(id, current.operation.version()).await,
        }
    }
}

/// The last end wins.
#[derive(Debug, Default)]
pub(super) struct TerminalRewrite;

#[async_trait]
impl Defect for TerminalRewrite {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        if swap.next.status().is_finished() {
            gap().await;
            return write_over(store, swap).await;
        }
        store.swap(swap).await
    }
}

/// The operation ends and its outcome is nowhere.
#[derive(Debug, Default)]
pub(super) struct LostOutcome;

#[async_trait]
impl Defect for LostOutcome {
    async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
        store.swap(swap.with_outcome(None)).await
    }
}

/// The values of one field become one value.
#[derive(Debug, Default)]
pub(super) struct FieldsMerged;

#[async_trait]
impl Defect for FieldsMerged {
    async fn outcome(&self, store: &MemoryStore, id: OperationId) -> Answer<Option<Outcome>> {
        let Some(mut outcome) = store.outcome(id).await? else { return Ok(None) };
        let names: Vec<_> = outcome.headers.keys().cloned().collect();
        for name in names {
            let values = outcome.headers.get_all(&name).iter().map(HeaderValue::as_bytes);
            let merged = values.collect::<Vec<_>>().join(&b", "[..]);
            outcome.headers.insert(name, HeaderValue::from_bytes(&merged).unwrap());
        }
        Ok(Some(outcome))
    }
}

/// A field's value that is no text is left out.
#[derive(Debug, Default)]
pub(super) struct OpaqueFieldsDropped;

#[async_trait]
impl Defect for OpaqueFieldsDropped {
    async fn outcome(&self, store: &MemoryStore, id: OperationId) -> Answer<Option<Outcome>> {
        let Some(mut outcome) = store.outcome(id).await? else { return Ok(None) };
        let fields = std::mem::take(&mut outcome.headers);
        for (name, value) in &fields {
            if value.to_str().is_ok() {
                outcome.headers.append(name, value.clone());
            }
        }
        Ok(Some(outcome))
    }
}

/// Writes the members that it knows, and no others.
#[derive(Debug, Default)]
pub(super) struct UnknownDropped;

#[async_trait]
impl Defect for UnknownDropped {
    async fn swap(&self, store: &MemoryStore, mut swap: Swap) -> Answer<Swapped> {
        swap.next = rewritten(&swap.next, |record| drop(record.remove("zone")));
        store.swap(swap).await
    }
}

/// What is in no state that it knows waits for a worker.
#[derive(Debug, Default)]
pub(super) struct UnknownForgotten;

#[async_trait]
impl Defect for UnknownForgotten {
    async fn swap(&self, store: &MemoryStore, mut swap: Swap) -> Answer<Swapped> {
        swap.next = rewritten(&swap.next, |record| {
            if record["status"] == "suspended" {
                record.insert("status".into(), "pending".into());
            }
        });
        store.swap(swap).await
    }
}

fn rewritten(operation: &Operation, change: impl Fn(&mut Map<String, Value>)) -> Operation {
    let mut record = serde_json::from_slice(&operation.to_record()).unwrap();
    change(&mut record);
    Operation::from_record(&serde_json::to_vec(&record).unwrap()).unwrap()
}
