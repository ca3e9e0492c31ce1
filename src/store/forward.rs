//! A shared or boxed store is a store. Every method is passed on, so that none falls back to its
//! default where the store has a better one.
//!
//! They are written as `async_trait` writes them, so that a call is the store's own future and not a box
//! around it.
#![deny(clippy::missing_trait_methods)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::{
    Acceptance, Capabilities, ClaimRequest, DueQuery, Hints, ListQuery, Observed, OperationStore,
    Page, StoreError, Submission, Swap, Swapped,
};
use crate::operation::{OperationId, Outcome, Owner};
use crate::time::Timestamp;

type Call<'c, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'c>>;

macro_rules! forward {
    ($($pointer:ident)*) => {$(
        impl<S: OperationStore + ?Sized> OperationStore for $pointer<S> {
            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }

            fn now(&self) -> Option<Timestamp> {
                (**self).now()
            }

            fn accept<'s, 'c>(&'s self, submission: Submission) -> Call<'c, Acceptance>
            where
                's: 'c,
                Self: 'c,
            {
                (**self).accept(submission)
            }

            fn get<'s, 'c>(&'s self, id: OperationId) -> Call<'c, Option<Observed>>
            where
                's: 'c,
                Self: 'c,
            {
                (**self).get(id)
            }

            fn input<'s, 'c>(&'s self, id: OperationId) -> Call<'c, Option<Bytes>>
            where
                's: 'c,
                Self: 'c,
            {
                (**self).input(id)
            }

            fn outcome<'s, 'c>(&'s self, id: OperationId) -> Call<'c, Option<Outcome>>
            where
                's: 'c,
                Self: 'c,
            {
                (**self).outcome(id)
            }

            fn swap<'s, 'c>(&'s self, swap: Swap) -> Call<'c, Swapped>
            where
                's: 'c,
                Self: 'c,
            {
                (**self).swap(swap)
            }

            fn remove<'s, 'c>(&'s self, id: OperationId, expected: u64) -> Call<'c, Swapped>
            where
                's: 'c,
                Self: 'c,
            {
                (**self).remove(id, expected)
            }

            fn due<'s, 'q, 'c>(&'s self, query: &'q DueQuery) -> Call<'c, Vec<Observed>>
            where
                's: 'c,
                'q: 'c,
                Self: 'c,
            {
                (**self).due(query)
            }

            fn list<'s, 'o, 'q, 'c>(
                &'s self,
                owner: &'o Owner,
                query: &'q ListQuery,
            ) -> Call<'c, Page>
            where
                's: 'c,
                'o: 'c,
                'q: 'c,
                Self: 'c,
            {
                (**self).list(owner, query)
            }

            fn purge<'s, 'c>(&'s self, limit: usize) -> Call<'c, usize>
            where
                's: 'c,
                Self: 'c,
            {
                (**self).purge(limit)
            }

            fn hints(&self) -> Option<Box<dyn Hints>> {
                (**self).hints()
            }

            fn claim<'s, 'r, 'c>(&'s self, request: &'r ClaimRequest) -> Call<'c, Vec<Observed>>
            where
                's: 'c,
                'r: 'c,
                Self: 'c,
            {
                (**self).claim(request)
            }
        }
    )*};
}

forward! { Arc Box }
