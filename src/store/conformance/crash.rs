//! Stores whose processes all die, with calls under way.

use std::future::Future;
use std::sync::{Arc, Mutex};

use tokio::sync::Barrier;

use super::Fixture;
use super::samples::{Whole, handles};
use crate::lock::lock;
use crate::store::{Durability, OperationStore};

/// Kills the store; gives three handles on what is left, and whether that is everything.
pub(super) async fn after_kill<F: Fixture>(fixture: &F) -> ([Arc<F::Store>; 3], bool) {
    fixture.kill().await;
    reopen(fixture).await
}

/// The same after a kill.
pub(super) async fn reopen<F: Fixture>(fixture: &F) -> ([Arc<F::Store>; 3], bool) {
    let handles = handles(fixture).await;
    let survives = handles[0].capabilities().durability != Durability::Volatile;
    (handles, survives)
}

/// What is found after a crash of what was there before it.
pub(super) fn surviving(whole: Whole, survives: bool) -> Whole {
    if survives { whole } else { (None, None, None) }
}

/// What became of a call during which the store was killed.
#[derive(Debug)]
pub(super) enum Called<T> {
    /// It was answered before the kill began.
    Before(T),
    /// It was answered later.
    After(T),
    /// It was not answered.
    Never,
}

impl<T> Called<T> {
    pub(super) fn answer(&self) -> Option<&T> {
        match self {
            Self::Before(answer) | Self::After(answer) => Some(answer),
            Self::Never => None,
        }
    }
}

/// Makes all calls at once, kills the store as soon as that many are answered, and tells of each
/// call, in the order in which they came, what became of it.
pub(super) async fn kill_amid<F, T, R>(
    fixture: &F,
    answered: usize,
    calls: impl IntoIterator<Item = R>,
) -> Vec<Called<T>>
where
    F: Fixture,
    T: Send + 'static,
    R: Future<Output = T> + Send + 'static,
{
    let calls: Vec<R> = calls.into_iter().collect();
    let start = Arc::new(Barrier::new(calls.len() + 1));
    let answers: Arc<Mutex<Vec<(usize, T)>>> = Arc::default();
    let mut running = Vec::with_capacity(calls.len());
    for (number, call) in calls.into_iter().enumerate() {
        let (start, answers) = (Arc::clone(&start), Arc::clone(&answers));
        running.push(tokio::spawn(async move {
            start.wait().await;
            let answer = call.await;
            lock(&answers).push((number, answer));
        }));
    }
    start.wait().await;
    let before = loop {
        let count = lock(&answers).len();
        if count >= answered.min(running.len()) {
            break count;
        }
        tokio::task::yield_now().await;
    };
    fixture.kill().await;
    running.iter().for_each(tokio::task::JoinHandle::abort);
    let mut called: Vec<Called<T>> = Vec::with_capacity(running.len());
    for task in running {
        let ended = task.await;
        assert!(ended.is_ok() || ended.is_err_and(|error| error.is_cancelled()), "a call panics");
        called.push(Called::Never);
    }
    for (order, (number, answer)) in lock(&answers).drain(..).enumerate() {
        called[number] =
            if order < before { Called::Before(answer) } else { Called::After(answer) };
    }
    called
}
