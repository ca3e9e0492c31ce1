//! Stores without a defect: what the broken ones have in common passes, and so do stores whose calls
//! take their time.

use std::future::Future;

use respond_async::store::{StoreError, StoreErrorKind};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, yield_now};

use super::*;

/// Nothing is wrong.
mod as_it_is {
    use super::*;

    #[derive(Debug, Default)]
    struct NoDefect;

    impl Defect for NoDefect {}

    respond_async::store_conformance!(Cage<NoDefect>);
}

/// Passes each call on by way of the method `pass`; what follows the name is as it stands.
macro_rules! passing {
    ($defect:ident $($more:tt)*) => {
        #[async_trait]
        impl Defect for $defect {
            async fn accept(&self, store: &MemoryStore, new: Submission) -> Answer<Acceptance> {
                let store = store.clone();
                self.pass(async move { store.accept(new).await }).await
            }

            async fn get(&self, store: &MemoryStore, id: OperationId) -> Answer<Option<Observed>> {
                let store = store.clone();
                self.pass(async move { store.get(id).await }).await
            }

            async fn swap(&self, store: &MemoryStore, swap: Swap) -> Answer<Swapped> {
                let store = store.clone();
                self.pass(async move { store.swap(swap).await }).await
            }

            async fn remove(
                &self,
                store: &MemoryStore,
                id: OperationId,
                expected: u64,
            ) -> Answer<Swapped> {
                let store = store.clone();
                self.pass(async move { store.remove(id, expected).await }).await
            }

            async fn list(
                &self,
                store: &MemoryStore,
                owner: &Owner,
                query: &ListQuery,
            ) -> Answer<Page> {
                let (store, owner, query) = (store.clone(), owner.clone(), query.clone());
                self.pass(async move { store.list(&owner, &query).await }).await
            }

            async fn purge(&self, store: &MemoryStore, limit: usize) -> Answer<usize> {
                let store = store.clone();
                self.pass(async move { store.purge(limit).await }).await
            }

            async fn claim(
                &self,
                store: &MemoryStore,
                request: &ClaimRequest,
            ) -> Answer<Vec<Observed>> {
                let (store, request) = (store.clone(), request.clone());
                self.pass(async move { store.claim(&request).await }).await
            }

            $($more)*
        }
    };
}

/// Every call takes its time on the way there and back, as one to a server does: others get in
/// between, and a caller may hang up before or after it took place.
mod unhurried {
    use super::*;

    #[derive(Debug, Default)]
    struct Unhurried;

    impl Unhurried {
        async fn pass<T>(&self, call: impl Future<Output = Answer<T>> + Send) -> Answer<T> {
            yield_now().await;
            let answer = call.await;
            yield_now().await;
            answer
        }
    }

    passing!(Unhurried);

    respond_async::store_conformance!(Cage<Unhurried>);
}

/// Every call is made by somebody else, as by a thread that has the connection: it takes place also
/// if its caller has hung up, some time later.
mod detached {
    use super::*;

    #[derive(Debug, Default)]
    struct Detached(Mutex<JoinSet<()>>);

    impl Detached {
        async fn pass<T: Send + 'static>(
            &self,
            call: impl Future<Output = Answer<T>> + Send + 'static,
        ) -> Answer<T> {
            let (answered, answer) = oneshot::channel();
            {
                let mut calls = self.0.lock().unwrap();
                while calls.try_join_next().is_some() {}
                calls.spawn(async move {
                    yield_now().await;
                    drop(answered.send(call.await));
                });
            }
            let died = || StoreError::new(StoreErrorKind::Ambiguous, "the process died");
            answer.await.map_err(|_| died())?
        }
    }

    passing! { Detached
        async fn kill(&self, _: &MemoryStore) {
            let mut calls = std::mem::take(&mut *self.0.lock().unwrap());
            calls.shutdown().await;
        }
    }

    respond_async::store_conformance!(Cage<Detached>);
}
