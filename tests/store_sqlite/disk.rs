//! A full disk: what is new is refused, what is there is read and can end, and it all goes on once
//! there is room (F05).

use std::process::Command;

use respond_async::OperationId;
use respond_async::operation::{Change, NewOperation, OutcomeHead, Status};
use respond_async::store::{OperationStoreExt, StoreErrorKind, Submission};
use respond_async::time::{Clock, SystemClock};

use super::*;

/// A file system in memory, of a size that can be changed.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// None if this may not be done here.
    fn new() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mounted = Self::mount(&["-t", "tmpfs", "-o", "size=24m", "tmpfs"], folder.path());
        mounted.then_some(Self(folder))
    }

    fn grow(&self) {
        assert!(Self::mount(&["-o", "remount,size=64m"], self.0.path()));
    }

    fn mount(arguments: &[&str], at: &Path) -> bool {
        let status = Command::new("mount").args(arguments).arg(at).status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
#[ignore = "it mounts a small file system, which only root may; tests/all runs it"]
async fn a_full_disk_refuses_what_is_new_and_lets_what_is_there_end() {
    let Some(disk) = SmallDisk::new() else {
        eprintln!("no file system can be mounted here, so a full disk cannot be shown");
        return;
    };
    let path = disk.0.path().join("some.db");
    let clock = Arc::new(ManualClock::default());
    let store = SqliteStore::builder(&path).clock(Arc::clone(&clock)).open().unwrap();
    let submit = |bytes: usize| {
        let id = OperationId::generate(SystemClock.now()).unwrap();
        let lease = Duration::from_secs(600);
        let new = NewOperation::new(id).held(lease, true).with_retention(Duration::ZERO);
        let submission = Submission::new(new).with_input(vec![7; bytes]);
        let store = store.clone();
        async move { store.submit(submission).await.map(|_| id) }
    };
    let mut accepted = Vec::new();
    let error = loop {
        match submit(200_000).await {
            Ok(id) => accepted.push(id),
            Err(error) => break error,
        }
        assert!(accepted.len() < 1_000, "the disk does not fill up");
    };
    assert_eq!(error.kind(), StoreErrorKind::OutOfSpace, "{error}");
    assert!(accepted.len() > 20, "only {} fit", accepted.len());
    // Smaller ones may still fit, but not many.
    while submit(1_000).await.is_ok() {}

    // Reads go on, and nothing is half-written.
    for id in &accepted {
        assert_eq!(store.get(*id).await.unwrap().unwrap().operation.status(), Status::Running);
        assert_eq!(store.input(*id).await.unwrap().unwrap().len(), 200_000);
    }
    // Work ends, out of the reserve, and so does its retention, which makes room.
    for id in &accepted {
        let head = OutcomeHead::new(http::StatusCode::OK, None);
        let change = Change::Succeed { attempt: 1, head };
        store.apply(*id, change).await.unwrap();
    }
    let mut purged = 0;
    loop {
        match store.purge(10).await.unwrap() {
            0 => break,
            count => purged += count,
        }
    }
    assert_eq!(purged, accepted.len());
    submit(200_000).await.expect("there is room again");

    while submit(200_000).await.is_ok() {}
    disk.grow();
    submit(200_000).await.expect("the disk has grown");
    drop(store);
    let connection = Connection::open(&path).unwrap();
    let is_whole: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(is_whole, "ok");
}
