use std::error::Error;
use std::time::Duration;

use http::Request;
use respond_async::monitor::Monitor;
use respond_async::operations::Job;
use respond_async::prefer::Preferences;
use respond_async::respond::{Created, violations};
use respond_async::store::MemoryStore;
use respond_async::{Context, Operations, Owner};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

#[derive(Serialize, Deserialize)]
struct Write {
    year: u16,
}

impl Job for Write {
    const KIND: &'static str = "reports.write";
}

async fn write(Write { year }: Write, context: Context) -> Created {
    context.progress(0.5, "writing");
    sleep(Duration::from_secs(5)).await;
    Created::at(format!("/reports/{year}"))
}

#[tokio::test(start_paused = true)]
async fn the_handler_alone() {
    let created = write(Write { year: 2026 }, Context::default()).await.into_response();
    assert_eq!(created.headers()["location"], "/reports/2026");
}

#[tokio::test(start_paused = true)]
async fn what_clients_get() -> Result<(), Box<dyn Error>> {
    let operations = Operations::builder(MemoryStore::new()).job(write).start();
    let patient = Preferences::parse("respond-async, wait=9")?;
    let created = operations.respond(&patient, Write { year: 2026 }).await;
    assert_eq!(created.status(), 201);

    let hurried = Preferences::parse("respond-async, wait=1")?;
    let accepted = operations.respond(&hurried, Write { year: 2026 }).await;
    assert_eq!(accepted.status(), 202);
    assert_eq!(violations(&hurried, &accepted).count(), 0);

    sleep(Duration::from_secs(9)).await; // takes no time
    let monitor = Monitor::new(&operations);
    let poll = Request::get(accepted.headers()["content-location"].to_str()?).body(())?;
    let answer = monitor.respond(&Owner::anonymous(), &poll).await;
    let operation: serde_json::Value = serde_json::from_slice(&answer.into_body().into_bytes())?;
    assert_eq!(operation["status"], "succeeded");
    assert_eq!(operation["result"]["location"], "/reports/2026");
    Ok(())
}
