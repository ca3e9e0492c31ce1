//! A process that stands still for longer than its lease, and comes to itself.

use std::path::Path;

use rusqlite::Connection;

use super::client;
use super::{Service, eventually, free_address};

#[test]
fn a_process_that_was_stopped_past_its_lease_overwrites_nothing_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (free_address(), free_address());
    let stopped = Service::start(folder.path(), &first, "");
    let answer = client::post(&first, "/repeat/2500", "", "respond-async").unwrap();
    let id = answer.operation();
    eventually("the work does not begin", || !stopped.effects().is_empty());
    stop(&stopped, &folder.path().join("operations.db"));

    let other = Service::start(folder.path(), &second, "");
    let read = || client::get(&second, &format!("/operations/{id}")).unwrap().json();
    let mut taken = read();
    eventually("nobody takes it", || {
        taken = read();
        taken["attempt"] != 1
    });
    assert_eq!((&taken["status"], &taken["attempt"]), (&"running".into(), &2.into()), "{taken}");
    stopped.signal("-CONT");

    eventually("it is stuck", || read().get("finished").is_some());
    let ended = read();
    assert_eq!((&ended["status"], &ended["attempt"]), (&"succeeded".into(), &2.into()), "{ended}");
    let result = client::get(&second, &format!("/operations/{id}/result")).unwrap();
    assert_eq!(result.content, format!("[\"{id}\",2]"));
    // The first one's handler came to its end too, knowing or not; nothing of it is recorded.
    eventually("the stopped process does nothing more", || {
        other.effects().iter().any(|effect| effect.attempt == 1 && effect.word != "began")
    });
    assert_eq!(read(), ended);
    assert_eq!(
        client::get(&second, &format!("/operations/{id}/result")).unwrap().content,
        result.content
    );
    drop(stopped);
}

/// Stops a process at a moment when it does not write: SQLite lets nobody else write while who stands still does.
fn stop(service: &Service, database: &Path) {
    eventually("it writes all the time", || {
        service.signal("-STOP");
        let lock = Connection::open(database).unwrap().execute_batch("BEGIN IMMEDIATE; ROLLBACK");
        if lock.is_err() {
            service.signal("-CONT");
        }
        lock.is_ok()
    });
}
