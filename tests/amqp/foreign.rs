//! A worker in another language.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

work!(Foreign, "test.foreign");

struct Python(Child);

impl Drop for Python {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
#[ignore = "needs RabbitMQ and pika: run ./tests/all"]
async fn a_worker_in_python_is_a_worker() {
    let url = servers::shared("AMQP_URL");
    let amqp = connect("test.foreign").await;
    // `tests/all` installs pika beside its own servers.
    let python = std::env::var("PIKA_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/amqp/worker.py");
    let child = Command::new(python).args([script, &url]).stdout(Stdio::piped()).spawn().unwrap();
    let mut python = Python(child);
    let mut line = String::new();
    BufReader::new(python.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");

    let gateway = Gateway::start::<Foreign>(&amqp, "test-foreign", &MemoryStore::new());
    let now = gateway.send("", Foreign::new("ann")).await;
    assert_eq!((now.status, &*now.text), (StatusCode::CREATED, r#"{"say": "ann"}"#));
    assert_eq!(now.headers["location"], "/python/ann");
    assert_eq!(now.headers["content-type"], "application/json");
    let id = gateway.submit(Foreign::new("bob")).await;
    let done = gateway.finished(id).await.operation;
    assert_eq!(done.outcome_head().unwrap().location().unwrap().as_str(), "/python/bob");
    let id = gateway.submit(Foreign::new("taken")).await;
    let failed = gateway.finished(id).await.operation;
    assert_eq!(failed.error().unwrap().detail(), Some("Taken in Python."));
    assert_eq!(failed.error().unwrap().status(), StatusCode::CONFLICT);
    assert_eq!(failed.progress().unwrap().message(), Some("half in Python"));
}
