//! Webhooks, against receivers of every sort.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod crash;
mod delivery;
mod oracle;
mod receiver;
mod refused;
mod registration;

use std::time::Duration;

use respond_async::operation::Callback;
use respond_async::operations::{Delivery, DeliveryStatus, Job, OperationsBuilder};
use respond_async::prefer::Preferences;
use respond_async::store::MemoryStore;
use respond_async::webhook::{Secret, Webhooks, WebhooksBuilder};
use respond_async::{Context, OperationId, Operations, Outcome, Owner, Problem};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// Work that takes so many milliseconds, and fails with an odd number.
#[derive(Serialize, Deserialize)]
struct Work(u64);

impl Job for Work {
    const KIND: &'static str = "work";
}

async fn work(job: Work, context: Context) -> Result<Outcome, Problem> {
    context.progress(0.5, "half");
    sleep(Duration::from_millis(job.0)).await;
    if job.0 % 2 == 1 {
        return Err(Problem::from_status(http::StatusCode::UNPROCESSABLE_ENTITY));
    }
    Ok(Outcome::default())
}

fn secret() -> Secret {
    Secret::new(*b"canary-canary-canary-canary-").unwrap()
}

/// Webhooks to receivers of this machine.
fn local() -> WebhooksBuilder {
    Webhooks::builder(|_: &Owner| vec![secret()])
        .allow_http()
        .allow_private_addresses()
        .ports([])
        .backoff(Duration::from_millis(20), Duration::from_millis(100))
        .connect_timeout(Duration::from_millis(500))
        .timeout(Duration::from_secs(1))
}

fn operations(webhooks: &Webhooks) -> OperationsBuilder {
    on(&MemoryStore::new(), webhooks).job(work)
}

/// One that does no work yet.
fn on(store: &MemoryStore, webhooks: &Webhooks) -> OperationsBuilder {
    let builder = Operations::builder(store.clone())
        .base_url("https://service.example/operations")
        .poll_interval(Duration::from_millis(10))
        .sweep_interval(Duration::from_millis(10))
        .progress_interval(Duration::ZERO);
    webhooks.tell(builder)
}

fn owner() -> Owner {
    Owner::new("ann").unwrap()
}

async fn submit(operations: &Operations, callback: Callback, millis: u64) -> OperationId {
    let preferences = Preferences::default();
    let kick_off = operations.kick_off(&preferences).owner(owner()).callback(Some(callback));
    kick_off.submit(Work(millis)).await.unwrap().operation.id()
}

/// How the delivery of its end went, once that is known.
async fn settled(operations: &Operations, id: OperationId) -> Delivery {
    settled_of(operations, &owner(), id).await
}

async fn settled_of(operations: &Operations, owner: &Owner, id: OperationId) -> Delivery {
    for _ in 0..2_000 {
        let observed = operations.get(owner, id).await.unwrap();
        if observed.operation.status().is_finished() {
            let delivery = operations.delivery(owner, id).await.unwrap().unwrap();
            if delivery.status != DeliveryStatus::Pending {
                return delivery;
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it is neither delivered nor dead");
}
