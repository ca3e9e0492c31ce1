//! What an operator sees: metrics, spans and health, and that docs/operating.md lists it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod health;
mod metrics;
mod spans;
mod store;

use std::time::Duration;

use respond_async::operations::{Job, JobPolicy, OperationsBuilder};
use respond_async::prefer::Preferences;
use respond_async::{Context, Operations, Outcome, Problem};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::store::Flaky;

#[derive(Serialize, Deserialize)]
enum Work {
    Succeed,
    FailOnce,
    Panic,
    Sleep(u64),
    Forever,
}

impl Job for Work {
    const KIND: &'static str = "work";
}

async fn work(job: Work, context: Context) -> Result<Outcome, Problem> {
    let failed = || Err(Problem::from_status(http::StatusCode::BAD_GATEWAY));
    match job {
        Work::Succeed => {}
        Work::FailOnce if context.attempt() > 1 => {}
        Work::FailOnce => return failed(),
        Work::Panic => panic!("on purpose"),
        Work::Sleep(millis) => sleep(Duration::from_millis(millis)).await,
        Work::Forever => {
            context.canceled().await;
            context.check()?;
        }
    }
    Ok(Outcome::default())
}

fn builder(store: &Flaky) -> OperationsBuilder {
    let policy = JobPolicy::new()
        .with_attempt_limit(2)
        .with_backoff(Duration::from_secs(1), Duration::from_secs(1));
    Operations::builder(store.clone()).job_with(policy, work)
}

fn prefer(text: &str) -> Preferences {
    Preferences::parse(text.as_bytes()).unwrap()
}
