//! Tasks that begin at the same instant.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Barrier;

/// Runs each future in a task of its own, begins them all at once, and gives their answers in the
/// order in which the futures came.
pub(super) async fn race<T, R>(runners: impl IntoIterator<Item = R>) -> Vec<T>
where
    T: Send + 'static,
    R: Future<Output = T> + Send + 'static,
{
    let runners: Vec<R> = runners.into_iter().collect();
    let start = Arc::new(Barrier::new(runners.len()));
    let running: Vec<_> = runners
        .into_iter()
        .map(|runner| {
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                runner.await
            })
        })
        .collect();
    let mut answers = Vec::with_capacity(running.len());
    for runner in running {
        answers.push(runner.await.expect("no task panics in a race"));
    }
    answers
}

/// The same for two futures that are not of one type.
pub(super) async fn race_two<T, U>(
    one: impl Future<Output = T> + Send + 'static,
    other: impl Future<Output = U> + Send + 'static,
) -> (T, U)
where
    T: Send + 'static,
    U: Send + 'static,
{
    let start = Arc::new(Barrier::new(2));
    let one = {
        let start = Arc::clone(&start);
        tokio::spawn(async move {
            start.wait().await;
            one.await
        })
    };
    let other = tokio::spawn(async move {
        start.wait().await;
        other.await
    });
    (one.await.expect("no task panics in a race"), other.await.expect("no task panics in a race"))
}
