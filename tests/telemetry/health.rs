use std::time::Duration;

use http_body_util::BodyExt;
use respond_async::operations::{HealthStatus, JobPolicy};
use respond_async::{Context, Operations};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::store::Flaky;
use crate::{Work, builder, prefer, work};

#[tokio::test(start_paused = true)]
async fn what_is_well_says_so() {
    let store = Flaky::new();
    let operations = builder(&store).concurrency(2).start();
    sleep(Duration::from_secs(2)).await;
    operations.respond(&prefer("respond-async"), Work::Forever).await;
    sleep(Duration::from_millis(10)).await;
    let health = operations.health().await;
    assert!(health.is_well());
    let response = health.into_response();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["cache-control"]),
        (200, &"no-store".parse().unwrap())
    );
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let expected = json!({
        "status": "pass", "store": "pass", "sweeper": "pass", "shutting_down": false,
        "workers": [{"kind": "work", "status": "pass", "running": 1, "concurrency": 2}],
    });
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_told_and_its_return_too() {
    let store = Flaky::new();
    let operations = builder(&store).start();
    sleep(Duration::from_secs(3)).await;
    assert!(operations.health().await.is_well());
    store.set_away(true);
    sleep(Duration::from_secs(3)).await;
    let health = operations.health().await;
    let parts = (health.store, health.sweeper, health.workers[0].status);
    assert_eq!(parts, (HealthStatus::Fail, HealthStatus::Fail, HealthStatus::Fail));
    assert_eq!(health.into_response().status(), 503);
    store.set_away(false);
    // The longest pause of a worker.
    sleep(Duration::from_secs(6)).await;
    assert!(operations.health().await.is_well());
}

#[tokio::test(start_paused = true)]
async fn the_store_is_asked_once_a_second_at_the_most() {
    let store = Flaky::new();
    let operations = builder(&store).start();
    for _ in 0..100 {
        assert!(operations.health().await.is_well());
    }
    assert_eq!(store.gets(), 1);
    sleep(Duration::from_millis(1_001)).await;
    let (one, other) = tokio::join!(operations.health(), operations.health());
    assert!(one.is_well() && other.is_well());
    assert_eq!(store.gets(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_shuts_down_wants_no_requests() {
    let operations = builder(&Flaky::new()).start();
    assert!(operations.health().await.is_well());
    operations.shutdown(Duration::ZERO).await;
    sleep(Duration::from_secs(2)).await;
    let health = operations.health().await;
    assert!(health.shutting_down && !health.is_well());
    assert_eq!(health.store, HealthStatus::Pass);
    assert_eq!(health.workers[0].status, HealthStatus::Fail, "it has stopped");
}

#[tokio::test(start_paused = true)]
async fn who_does_no_jobs_has_no_workers() {
    let policy = JobPolicy::new().with_concurrency(0);
    let operations = Operations::builder(Flaky::new())
        .job_with(policy, async |job: Work, context: Context| work(job, context).await)
        .start();
    let health = operations.health().await;
    assert!(health.is_well() && health.workers.is_empty());
}
