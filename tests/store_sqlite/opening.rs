//! What happens to a file that is not what it should be: never a new, empty database in its place.

use std::sync::Barrier;
use std::thread;

use respond_async::operation::NewOperation;
use respond_async::store::{OperationStoreExt, SqliteOpenErrorKind, Submission};
use respond_async::time::{Clock, SystemClock};
use respond_async::{OperationId, Owner};

use super::*;

#[track_caller]
fn refused(path: &Path, kind: SqliteOpenErrorKind) {
    let before = fs::read(path).ok();
    let error = SqliteStore::open(path).expect_err("it is opened");
    assert_eq!(error.kind(), kind, "{error}: {:?}", std::error::Error::source(&error));
    assert!(error.to_string().contains(&path.display().to_string()));
    assert_eq!(fs::read(path).ok(), before, "the file was changed");
}

#[test]
fn a_file_that_is_something_else_is_left_as_it_is() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("some.db");
    refused(&folder.path().join("missing/some.db"), SqliteOpenErrorKind::Inaccessible);
    refused(folder.path(), SqliteOpenErrorKind::Inaccessible);

    fs::write(&path, "this is a text of some length, and no database at all".repeat(50)).unwrap();
    refused(&path, SqliteOpenErrorKind::NotADatabase);

    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    refused(&path, SqliteOpenErrorKind::Foreign);
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("PRAGMA application_id = 7").unwrap();
    refused(&path, SqliteOpenErrorKind::Foreign);

    fs::remove_file(&path).unwrap();
    drop(SqliteStore::open(&path).unwrap());
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert_eq!(error.kind(), SqliteOpenErrorKind::Newer);
}

/// Root may write everything, so for root a file that may not be written is no such file.
#[test]
fn a_file_that_may_not_be_written_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("some.db");
    drop(SqliteStore::open(&path).unwrap());
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    let may_write_all_the_same = fs::OpenOptions::new().append(true).open(&path).is_ok();
    match SqliteStore::open(&path) {
        Ok(_) => assert!(may_write_all_the_same),
        Err(error) => assert_eq!(error.kind(), SqliteOpenErrorKind::ReadOnly, "{error}"),
    }
}

#[tokio::test]
async fn a_damaged_page_is_an_error_and_no_panic() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("some.db");
    let id = OperationId::generate(SystemClock.now()).unwrap();
    {
        let store = SqliteStore::builder(&path).open().unwrap();
        for number in 0..200 {
            let id =
                if number == 0 { id } else { OperationId::generate(SystemClock.now()).unwrap() };
            store.submit(Submission::new(NewOperation::new(id))).await.unwrap();
        }
    }
    let connection = Connection::open(&path).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    let mut bytes = fs::read(&path).unwrap();
    for byte in &mut bytes[8_192..] {
        *byte = 0xA5;
    }
    fs::write(&path, bytes).unwrap();
    // Opening may find it out, or the first call does.
    if let Ok(store) = SqliteStore::open(&path) {
        let error = store.get(id).await.unwrap_err();
        assert_eq!(error.kind(), respond_async::store::StoreErrorKind::Corrupt, "{error}");
    }
}

/// One row that cannot be understood is told by its name, and stands in nobody's way (C49).
#[tokio::test]
async fn a_row_that_cannot_be_understood_blocks_no_other() {
    use respond_async::operation::{Change, Due};
    use respond_async::store::{ClaimRequest, DueQuery, ListQuery, StoreErrorKind};

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("some.db");
    let store = SqliteStore::open(&path).unwrap();
    let ann = Owner::new("ann").unwrap();
    let mut ids = Vec::new();
    for _ in 0..120 {
        let id = OperationId::generate(SystemClock.now()).unwrap();
        let new = NewOperation::new(id).with_owner(ann.clone()).with_attempt_limit(1);
        store.submit(Submission::new(new)).await.unwrap();
        ids.push(id);
    }
    let poisoned = 20;
    for id in &ids[..poisoned] {
        let connection = Connection::open(&path).unwrap();
        let changed = connection
            .execute(
                "UPDATE operations SET record = x'7B' WHERE id = ?1",
                [&id.as_uuid().as_bytes()[..]],
            )
            .unwrap();
        assert_eq!(changed, 1);
    }
    assert_eq!(store.get(ids[0]).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    let listed = store.list(&ann, &ListQuery::default()).await.unwrap();
    assert!(!listed.operations.is_empty());

    let mut claimed = 0;
    loop {
        let request = ClaimRequest::new(10, Duration::from_millis(1));
        let batch = store.claim(&request).await.unwrap();
        if batch.is_empty() {
            break;
        }
        claimed += batch.len();
    }
    assert_eq!(claimed, ids.len() - poisoned);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let due = store.due(&DueQuery::new(Due::Settle, 1_000)).await.unwrap();
    assert_eq!(due.len(), ids.len() - poisoned);
    for observed in due {
        store.apply(observed.operation.id(), Change::Settle).await.unwrap();
    }
}

/// Many that open a new file at once, again and again, and those that come later (C109).
#[test]
fn the_tables_are_made_once_however_many_open_the_file_at_once() {
    for _ in 0..20 {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("some.db");
        let barrier = Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    SqliteStore::builder(&path)
                        .busy_timeout(Duration::from_secs(20))
                        .open()
                        .unwrap()
                });
            }
        });
        let connection = Connection::open(&path).unwrap();
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(tables, 5);
    }
}

/// What it says of itself is what the database is set to (C04).
#[test]
fn it_is_as_durable_as_it_says() {
    let folder = TempDir::new().unwrap();
    for (asked, kept) in [
        (Durability::PowerLoss, Durability::PowerLoss),
        (Durability::ProcessCrash, Durability::ProcessCrash),
        (Durability::Volatile, Durability::ProcessCrash),
    ] {
        let store =
            SqliteStore::builder(folder.path().join("some.db")).durability(asked).open().unwrap();
        assert_eq!(store.capabilities().durability, kept);
        assert!(store.capabilities().shared);
    }
}

/// Once it is closed nothing of the file is in use: the log is gone, and all that was asked before is
/// there. Calls that come later are told so.
#[tokio::test]
async fn what_waits_is_written_before_it_is_closed() {
    use respond_async::store::{StoreErrorKind, Swapped};

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("some.db");
    let store = SqliteStore::open(&path).unwrap();
    let ids: Vec<OperationId> =
        (0..500).map(|_| OperationId::generate(SystemClock.now()).unwrap()).collect();
    let mut calls = tokio::task::JoinSet::new();
    for id in ids.clone() {
        let store = store.clone();
        calls.spawn(async move { store.submit(Submission::new(NewOperation::new(id))).await });
    }
    // This thread runs all tasks: once each has had its turn all of them wait.
    for _ in 0..ids.len() * 2 {
        tokio::task::yield_now().await;
    }
    let clone = store.clone();
    tokio::join!(store.close(), clone.close());
    for answer in calls.join_all().await {
        answer.unwrap();
    }
    assert!(!beside(&path, "-wal").exists(), "the log is still in use");
    assert_eq!(store.get(ids[0]).await.unwrap_err().kind(), StoreErrorKind::Unavailable);
    assert_eq!(clone.remove(ids[0], 1).await.unwrap_err().kind(), StoreErrorKind::Unavailable);
    store.close().await;

    let store = SqliteStore::open(&path).unwrap();
    for id in &ids {
        assert!(store.get(*id).await.unwrap().is_some());
    }
    assert_eq!(store.remove(ids[0], 1).await.unwrap(), Swapped::Swapped);
}

/// A clock that goes on with each look, and panics when it is told to.
#[derive(Debug, Default)]
struct OddClock {
    clock: ManualClock,
    is_broken: std::sync::atomic::AtomicBool,
}

impl Clock for OddClock {
    fn now(&self) -> respond_async::time::Timestamp {
        assert!(!self.is_broken.load(std::sync::atomic::Ordering::SeqCst), "a broken clock");
        self.clock.advance(Duration::from_millis(1));
        self.clock.now()
    }
}

/// What panics in a call costs that call its answer, and nobody else.
#[tokio::test]
async fn a_clock_that_panics_ends_no_thread() {
    use respond_async::operation::Change;
    use respond_async::store::StoreErrorKind;
    use std::sync::atomic::Ordering;

    let folder = TempDir::new().unwrap();
    let clock = Arc::new(OddClock::default());
    let builder = SqliteStore::builder(folder.path().join("some.db")).readers(1);
    let store = builder.clock(Arc::clone(&clock)).open().unwrap();
    let id = OperationId::generate(SystemClock.now()).unwrap();
    store.submit(Submission::new(NewOperation::new(id))).await.unwrap();
    for _ in 0..3 {
        clock.is_broken.store(true, Ordering::SeqCst);
        let read = store.get(id).await.map(|_| ());
        let written = store.remove(id, 1).await.map(|_| ());
        for answer in [read, written] {
            assert_eq!(answer.unwrap_err().kind(), StoreErrorKind::Unavailable);
        }
        clock.is_broken.store(false, Ordering::SeqCst);
        assert!(store.get(id).await.unwrap().is_some());
    }
    store.apply(id, Change::Cancel).await.unwrap();
}

/// By a clock that goes on between two looks at it.
#[tokio::test]
async fn a_new_operation_is_created_when_it_is_said_to_be() {
    let folder = TempDir::new().unwrap();
    let builder = SqliteStore::builder(folder.path().join("some.db"));
    let store = builder.clock(Arc::new(OddClock::default())).open().unwrap();
    let new = NewOperation::new(OperationId::generate(SystemClock.now()).unwrap());
    let answer = store.submit(Submission::new(new.clone())).await.unwrap();
    let respond_async::store::Acceptance::Created(created) = answer else { panic!("{answer:?}") };
    assert_eq!(created.operation, new.accept(created.now));
}

/// A row that is not what its record says is given to nobody, and one that cannot be understood is
/// purged with the others once it has expired.
#[tokio::test]
async fn a_damaged_row_is_neither_claimed_nor_kept_for_ever() {
    use respond_async::operation::Change;
    use respond_async::store::ClaimRequest;

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("some.db");
    let store = SqliteStore::open(&path).unwrap();
    let id = OperationId::generate(SystemClock.now()).unwrap();
    let new = NewOperation::new(id).with_retention(Duration::ZERO);
    store.submit(Submission::new(new)).await.unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.execute("UPDATE operations SET version = 7", []).unwrap();
    let request = ClaimRequest::new(10, Duration::from_secs(60));
    assert_eq!(store.claim(&request).await.unwrap(), []);

    connection.execute("UPDATE operations SET version = 1", []).unwrap();
    store.apply(id, Change::Cancel).await.unwrap();
    connection.execute("UPDATE operations SET record = x'7B'", []).unwrap();
    assert_eq!(store.purge(10).await.unwrap(), 1);
}

/// What is more than SQLite or a queue can take counts as the most that it can.
#[tokio::test]
async fn settings_beyond_all_bounds_are_kept_within_them() {
    let folder = TempDir::new().unwrap();
    let builder = SqliteStore::builder(folder.path().join("some.db"));
    let store = builder.busy_timeout(Duration::MAX).queue(usize::MAX).open().unwrap();
    let new = NewOperation::new(OperationId::generate(SystemClock.now()).unwrap());
    store.submit(Submission::new(new)).await.unwrap();
}
