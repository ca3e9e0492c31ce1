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
