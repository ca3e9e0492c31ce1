//! A process that dies between an operation's end and the receiver's answer.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use respond_async::operations::DeliveryStatus;
use respond_async::store::SqliteStore;
use respond_async::{OperationId, Operations};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::receiver::{Receiver, answer};
use crate::{local, owner, submit, work};

const FILE: &str = "WEBHOOK_TEST_FILE";
const URL: &str = "WEBHOOK_TEST_URL";

/// This program, on operations in a file. Dropped, it is killed.
struct Process(Child);

impl Process {
    /// With a URL, it begins an operation whose end is told there.
    fn start(file: &std::path::Path, url: Option<&str>, proxy: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["crash::run", "--exact", "--ignored", "--test-threads=1"]);
        command.env(FILE, file).stdout(Stdio::null());
        // Which it has to leave alone.
        for name in
            ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"]
        {
            command.env(name, proxy);
        }
        if let Some(url) = url {
            command.env(URL, url);
        }
        Self(command.spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn operations(file: &std::path::Path, webhooks: &respond_async::webhook::Webhooks) -> Operations {
    let builder = Operations::builder(SqliteStore::open(file).unwrap())
        .job(work)
        .lease(Duration::from_secs(1))
        .sweep_interval(Duration::from_millis(50))
        .poll_interval(Duration::from_millis(50));
    webhooks.tell(builder).start()
}

#[tokio::test]
#[ignore = "the process that another test kills"]
async fn run() {
    let Ok(file) = std::env::var(FILE) else { return };
    let webhooks = local().timeout(Duration::from_secs(60)).build().unwrap();
    let operations = operations(file.as_ref(), &webhooks);
    if let Ok(url) = std::env::var(URL) {
        submit(&operations, webhooks.check(&url, &owner()).unwrap(), 0).await;
    }
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn another_process_tells_it_under_the_same_name() {
    // What comes while it is being told is not answered.
    let receiver =
        Receiver::slow(Duration::from_secs(2), |call| answer(if call < 3 { 500 } else { 200 }))
            .await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_url = format!("http://{}", proxy.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("operations.db");
    let mut process = Process::start(&file, Some(&receiver.url("/done")), &proxy_url);
    for calls in 1..=2 {
        while receiver.calls().len() < calls {
            sleep(Duration::from_millis(10)).await;
        }
        drop(process);
        process = Process::start(&file, None, &proxy_url);
    }
    while receiver.calls().len() < 3 {
        sleep(Duration::from_millis(10)).await;
    }
    let calls = receiver.calls();
    assert!(calls.iter().all(|call| call.id == calls[0].id && call.raw == calls[0].raw));
    let id: OperationId = calls[0].body["id"].as_str().unwrap().parse().unwrap();
    // Seen from here, where nothing is sent.
    let idle = local().concurrency(1).build().unwrap();
    let watching = operations(&file, &idle);
    let delivery = loop {
        let delivery = watching.delivery(&owner(), id).await.unwrap().unwrap();
        if delivery.status != DeliveryStatus::Pending {
            break delivery;
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((delivery.status, delivery.attempts), (DeliveryStatus::Delivered, 3));
    drop(process);
    let asked = tokio::time::timeout(Duration::from_millis(10), proxy.accept()).await;
    assert!(asked.is_err(), "no proxy is taken from the environment");
}
