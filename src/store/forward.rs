//! A shared or boxed store is a store. Every method is passed on, so that none falls back to its
//! default where the store has a better one.
#![deny(clippy::missing_trait_methods)]

use std::sync::Arc;

use super::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Hints, ListQuery, Observed, OperationStore,
    Page, StoreError, Submission, Swap, Swapped, async_trait,
};
use crate::operation::{OperationId, Outcome, Owner};
use crate::time::Timestamp;

macro_rules! forward {
    ($($pointer:ident)*) => {$(
        #[async_trait]
        impl<S: OperationStore + ?Sized> OperationStore for $pointer<S> {
            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }

            fn now(&self) -> Option<Timestamp> {
                (**self).now()
            }

            async fn accept(&self, submission: Submission) -> Result<Acceptance, StoreError> {
                (**self).accept(submission).await
            }

            async fn get(&self, id: OperationId) -> Result<Option<Observed>, StoreError> {
                (**self).get(id).await
            }

            async fn input(&self, id: OperationId) -> Result<Option<bytes::Bytes>, StoreError> {
                (**self).input(id).await
            }

            async fn outcome(&self, id: OperationId) -> Result<Option<Outcome>, StoreError> {
                (**self).outcome(id).await
            }

            async fn swap(&self, swap: Swap) -> Result<Swapped, StoreError> {
                (**self).swap(swap).await
            }

            async fn remove(&self, id: OperationId, expected: u64) -> Result<Swapped, StoreError> {
                (**self).remove(id, expected).await
            }

            async fn due(&self, query: &DueQuery) -> Result<Vec<Observed>, StoreError> {
                (**self).due(query).await
            }

            async fn list(&self, owner: &Owner, query: &ListQuery) -> Result<Page, StoreError> {
                (**self).list(owner, query).await
            }

            async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
                (**self).purge(limit).await
            }

            fn hints(&self) -> Option<Box<dyn Hints>> {
                (**self).hints()
            }

            async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Observed>, StoreError> {
                (**self).claim(request).await
            }
        }
    )*};
}

forward! { Arc Box }
