//! Brings to their end the operations that nobody will, and removes the expired ones.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use super::calls::{Call, detached, is_passing};
use super::{Inner, Operations, telemetry};
use crate::operation::{Change, Due};
use crate::store::{ApplyError, DueQuery, OperationStore, StoreError};

/// How many operations one step settles or purges; steps follow each other while there are more.
const BATCH: usize = 500;

/// Sweeps until the last [`Operations`] is gone.
pub(super) fn spawn(operations: &Operations) {
    let settings = &operations.inner().settings;
    let (interval, timeout) = (settings.sweep_interval, settings.store_timeout);
    let weak: Weak<Inner> = Arc::downgrade(operations.inner());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            let Some(inner) = weak.upgrade() else { return };
            // What is at work in the store holds up no end of the operations.
            let store = Arc::clone(&inner.store);
            drop(inner);
            // One batch after another as long as there is more. What failed is due still, and is
            // tried again with the next sweep; a store that does not answer holds up none.
            let swept = loop {
                match sweep(&store, &weak, timeout).await {
                    Ok(true) => {}
                    swept => break swept,
                }
            };
            let Some(inner) = weak.upgrade() else { return };
            inner.sweeper.beat(swept.is_ok());
            if let Err(error) = swept {
                telemetry::store_failed(Some("sweeper"), error.as_ref());
            }
            #[cfg(feature = "metrics")]
            inner.gauge();
        }
    });
}

/// Settles and purges one batch each, and says whether there may be more. Each call of the store has that time;
/// no error is one that did not end within it.
async fn sweep(
    store: &Arc<dyn OperationStore>,
    inner: &Weak<Inner>,
    timeout: Duration,
) -> Result<bool, Option<StoreError>> {
    let due = {
        let store = Arc::clone(store);
        let call = async move { store.due(&DueQuery::new(Due::Settle, BATCH)).await };
        in_time(Box::pin(call), timeout).await?
    };
    let (mut settled, mut trouble) = (0, None);
    for observed in due {
        let Some(inner) = inner.upgrade() else { break };
        let call = async move { Ok(inner.apply_to(observed, Change::Settle, None).await) };
        match in_time(Box::pin(call), timeout).await {
            Ok(Ok(_)) => settled += 1,
            Ok(Err(error)) => {
                let is_passing = is_passing(&error);
                match error {
                    ApplyError::Store(error) if is_passing => trouble = Some(Some(error)),
                    ApplyError::Store(error) => {
                        telemetry::store_failed(Some("sweeper"), Some(&error));
                    }
                    _ => {}
                }
                // Else somebody was first, or this one cannot be written: it holds up no other.
                if is_passing {
                    break;
                }
            }
            // What has expired can perhaps be purged all the same.
            Err(error) => {
                trouble = Some(error);
                break;
            }
        }
    }
    let store = Arc::clone(store);
    let purged = in_time(Box::pin(async move { store.purge(BATCH).await }), timeout).await?;
    trouble.map_or(Ok(settled == BATCH || purged == BATCH), Err)
}

async fn in_time<T: Send + 'static>(
    call: Call<Result<T, StoreError>>,
    timeout: Duration,
) -> Result<T, Option<StoreError>> {
    match detached(&Handle::current(), call, timeout).await {
        Some(answer) => answer.map_err(Some),
        None => Err(None),
    }
}
