//! A full disk: what is new is refused, what is there is read and can end, and it all goes on once
//! there is room (F05).

use std::process::Command;
use std::time::Instant;

use respond_async::OperationId;
use respond_async::operation::{Change, NewOperation, OutcomeHead, Progress, Status};
use respond_async::store::{ApplyError, OperationStoreExt, StoreError, StoreErrorKind, Submission};
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

fn is_full(error: &StoreError) -> bool {
    error.kind() == StoreErrorKind::OutOfSpace
}

#[tokio::test]
#[ignore = "it mounts a small file system, which only root may; tests/all runs it"]
async fn a_full_disk_refuses_what_is_new_and_lets_what_is_there_end() {
    let Some(disk) = SmallDisk::new() else {
        assert!(std::env::var_os("TESTS_ALL").is_none(), "tests/all runs this as root");
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
    // What only brings work on does not take the reserve.
    let reserve = beside(&path, "-reserve");
    for id in &accepted {
        let message = "x".repeat(200);
        let progress = Progress::new(0.5, message);
        let answer = store.apply(*id, Change::Progress { attempt: 1, progress }).await;
        if let Err(error) = answer {
            assert!(matches!(&error, ApplyError::Store(error) if is_full(error)), "{error:?}");
        }
    }
    assert!(length(&reserve) > 0, "the reserve went for progress");
    // Work ends, out of the reserve. What is new gets none of it, however often it comes, as long as no
    // more than that is free inside the database, where the inputs of what has ended were.
    let mut refused = 0;
    for (ended, id) in accepted.iter().enumerate() {
        let head = OutcomeHead::new(http::StatusCode::OK, None);
        let change = Change::Succeed { attempt: 1, head };
        store.apply(*id, change).await.unwrap();
        if length(&reserve) == 0 && ended < 30 {
            for bytes in [1_000, 200_000] {
                let error = submit(bytes).await.expect_err("the reserve is for what was accepted");
                assert!(is_full(&error), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "the reserve was never used");
    // So the end of its retention is recorded too, which makes room.
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
    // The reserve comes first, and it is looked for room for it every ten seconds.
    let grown = Instant::now();
    while let Err(error) = submit(200_000).await {
        assert!(is_full(&error) && grown.elapsed() < Duration::from_secs(30), "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(length(&reserve) > 0, "it is not kept back again");
    store.close().await;
    let connection = Connection::open(&path).unwrap();
    let is_whole: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(is_whole, "ok");
}

const BOUNDED: &str = "SQLITE_BOUNDED";

/// Shown by a bound on the length of files, beyond which a write fails as beyond a quota: not for want of space.
#[test]
fn a_quota_that_is_used_up_is_a_full_disk() {
    let folder = TempDir::new().unwrap();
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["disk::within_a_bound", "--exact", "--ignored", "--test-threads=1"])
        .env(BOUNDED, folder.path().join("some.db"))
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test]
#[ignore = "it is the child of another test"]
async fn within_a_bound() {
    let Ok(path) = std::env::var(BOUNDED) else { return };
    let store = SqliteStore::builder(path).reserve_bytes(64 << 10).open().unwrap();
    let mut accepted = Vec::new();
    let error = loop {
        let id = OperationId::generate(SystemClock.now()).unwrap();
        let new = NewOperation::new(id).held(Duration::from_secs(600), true);
        match store.submit(Submission::new(new).with_input(vec![7; 100_000])).await {
            Ok(_) => accepted.push(id),
            Err(error) => break error,
        }
        assert!(accepted.len() < 1_000, "there is no bound");
    };
    assert!(is_full(&error), "{error:?}");
    for id in accepted {
        let head = OutcomeHead::new(http::StatusCode::OK, None);
        store.apply(id, Change::Succeed { attempt: 1, head }).await.expect("work ends");
    }
}

/// Whoever has used the reserve, and whether or not its own is kept, a store takes in nothing new until
/// it is there again, or as much is free inside the database.
#[tokio::test]
async fn without_its_reserve_a_store_takes_in_nothing_new_but_what_fits_beside_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("some.db");
    let clock = Arc::new(ManualClock::default());
    let builder = SqliteStore::builder(&path).clock(Arc::clone(&clock));
    let store = builder.reserve_bytes(64 << 10).open().unwrap();
    let submission = || {
        let id = OperationId::generate(SystemClock.now()).unwrap();
        let new = NewOperation::new(id).held(Duration::from_secs(600), true);
        Submission::new(new.with_retention(Duration::ZERO)).with_input(vec![7; 300_000])
    };
    let first = submission();
    let id = first.operation.id();
    store.submit(first).await.unwrap();

    // Another process has used it.
    fs::remove_file(beside(&path, "-reserve")).unwrap();
    let error = store.submit(submission()).await.unwrap_err();
    assert!(is_full(&error), "{error}");
    let progress = Progress::new(0.5, "on");
    store.apply(id, Change::Progress { attempt: 1, progress }).await.expect("work goes on");
    let head = OutcomeHead::new(http::StatusCode::OK, None);
    store.apply(id, Change::Succeed { attempt: 1, head }).await.expect("work ends");
    assert_eq!(store.purge(10).await.unwrap(), 1);
    // What it left is more than the reserve, until this has taken it.
    let small = NewOperation::new(OperationId::generate(SystemClock.now()).unwrap());
    store.submit(Submission::new(small)).await.expect("there is room inside");
    let error = store.submit(submission()).await.unwrap_err();
    assert!(is_full(&error), "{error}");
}

/// One reserve is kept for all handles on a database: none takes from it what another has put there.
#[test]
fn another_handle_takes_nothing_from_the_reserve() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("some.db");
    let open = |bytes| SqliteStore::builder(&path).reserve_bytes(bytes).open().unwrap();
    let reserve = || length(&beside(&path, "-reserve"));
    let one = open(100_000);
    assert_eq!(reserve(), 100_000);
    for (bytes, kept) in [(0, 100_000), (50_000, 100_000), (100_000, 100_000), (200_001, 200_001)] {
        drop(open(bytes));
        assert_eq!(reserve(), kept, "after one of {bytes}");
    }
    drop(one);
}

#[cfg(unix)]
#[test]
fn the_reserve_is_beside_the_file_that_a_link_leads_to() {
    let (links, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (link, path) = (links.path().join("link.db"), files.path().join("some.db"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let _store = SqliteStore::open(&link).unwrap();
    assert!(length(&beside(&path, "-reserve")) > 0);
    assert!(!beside(&link, "-reserve").exists());
}
