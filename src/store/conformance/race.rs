//! Tasks that begin at the same instant.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// Runs each future in a task of its own, begins them all at once, and gives their answers in the
/// order in which the futures came. The first that panics ends the race: what the others wait for may
/// never come then.
pub(super) async fn race<T, R>(runners: impl IntoIterator<Item = R>) -> Vec<T>
where
    T: Send + 'static,
    R: Future<Output = T> + Send + 'static,
{
    let runners: Vec<R> = runners.into_iter().collect();
    let start = Arc::new(Barrier::new(runners.len()));
    let mut running = JoinSet::new();
    for (at, runner) in runners.into_iter().enumerate() {
        let start = Arc::clone(&start);
        running.spawn(async move {
            start.wait().await;
            (at, runner.await)
        });
    }
    let mut answers = Vec::with_capacity(running.len());
    while let Some(answer) = running.join_next().await {
        answers.push(answer.expect("no task panics in a race"));
    }
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
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
    let other_start = Arc::clone(&start);
    let one = async move {
        start.wait().await;
        one.await
    };
    let other = async move {
        other_start.wait().await;
        other.await
    };
    let (one, other) =
        tokio::try_join!(tokio::spawn(one), tokio::spawn(other)).expect("no task panics in a race");
    (one, other)
}
