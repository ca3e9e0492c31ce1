//! Nobody sees another owner's operations, and names are never interpreted.

use super::Fixture;
use super::samples::{
    LONG, accept, accept_running, created, existing, found, handles, idempotency, listed, new_id,
    new_operation, new_running, owner, reported, succeed,
};
use crate::operation::{Kind, Operation, OperationId, Owner, Status};
use crate::store::{ApplyError, ListQuery, OperationStore, OperationStoreExt, Submission};

/// Every call that knows an owner treats somebody else's operation as one that does not exist.
pub async fn c110_a_foreign_operation_is_an_unknown_one<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let ada = owner("ada");
    let new = new_running(LONG).with_owner(ada.clone());
    let begun = accept(&*store, new).await.operation;
    let ended = succeed(&*store, &begun).await;
    let strangers = [owner("bob"), owner("Ada"), owner("ada "), owner("%"), Owner::anonymous()];
    for stranger in strangers {
        for id in [ended.id(), new_id()] {
            assert_eq!(other.find(&stranger, id).await.unwrap(), None, "{stranger:?}");
            let answer = other.forget(&stranger, id).await;
            assert!(matches!(answer, Err(ApplyError::Gone)), "{stranger:?}: {answer:?}");
        }
        assert_eq!(listed(&*other, &stranger).await, [], "{stranger:?}");
    }
    let found = other.find(&ada, ended.id()).await.unwrap().expect("its owner finds it");
    assert_eq!(found.operation, ended);
}

/// A list holds its owner's operations and no other's, whatever is asked for. The anonymous owner
/// has none, although it has operations.
pub async fn c111_lists_do_not_cross_owners<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let names = ["ada", "bob", "ada%", "ad_"];
    let mut ids = Vec::new();
    for _ in 0..3 {
        for name in names {
            let new = new_operation().with_owner(owner(name));
            ids.push((name, accept(&*store, new).await.operation.id()));
        }
        accept_running(&*store).await;
    }
    for name in names {
        let mut own: Vec<OperationId> =
            ids.iter().filter(|(by, _)| *by == name).map(|(_, id)| *id).collect();
        own.sort_unstable();
        own.reverse();
        assert_eq!(listed(&*other, &owner(name)).await, own);
        for status in Status::ALL {
            let query = ListQuery { status: Some(status), ..ListQuery::default() };
            let page = other.list(&owner(name), &query).await.unwrap();
            let expected = if status == Status::Pending { own.len() } else { 0 };
            assert_eq!(page.operations.len(), expected, "{name} {status}");
        }
        // A cursor is only a place in the order: somebody else's id tells nothing.
        for (_, before) in &ids {
            let query = ListQuery { before: Some(*before), ..ListQuery::default() };
            let page = other.list(&owner(name), &query).await.unwrap();
            let expected: Vec<OperationId> = own.iter().copied().filter(|id| id < before).collect();
            let listed: Vec<OperationId> = page.operations.iter().map(Operation::id).collect();
            assert_eq!(listed, expected);
        }
    }
    assert_eq!(listed(&*other, &Owner::anonymous()).await, []);
}

/// Texts that mean something to a database are stored as any other, in every place that takes text:
/// owner, scope, key, kind, and what progress says.
pub async fn c112_names_are_never_interpreted<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let texts = [
        "'; DROP TABLE operations; --",
        "\" OR 1=1",
        "\\",
        "\\'",
        "%",
        "_",
        "*",
        "?",
        "[a-z]",
        "{a}",
        "$1",
        ":owner",
        "${HOME}",
        "a:b",
        "a/b",
        "a|b",
        "NULL",
        "null",
        "0",
        "-1",
        " ",
        "return redis.call('FLUSHALL')",
        "{\"$gt\": \"\"}",
    ];
    let foreign = ["é", "e\u{301}", "\u{1F600}", "\u{202E}owner", "\u{FEFF}", "\u{10FFFF}"];
    let longest = "x".repeat(Owner::MAX_BYTES);
    let names: Vec<&str> = texts.into_iter().chain(foreign).chain([longest.as_str()]).collect();
    let submission = |name: &str| {
        // A key is ASCII; a scope is any text, of any length.
        let key = if name.is_ascii() { name } else { "key" };
        let scope = format!("{name}\r\n\0{}", "'%_".repeat(1_365));
        Submission::new(new_operation().with_owner(owner(name)))
            .with_idempotency(idempotency(&scope, key, 1))
    };
    let mut ids = Vec::new();
    for name in &names {
        let accepted = created(store.accept(submission(name)).await.unwrap()).operation;
        assert_eq!(accepted.owner().name(), Some(*name));
        assert_eq!(found(&*other, accepted.id()).await, accepted);
        ids.push(accepted.id());
    }
    for (name, id) in names.iter().zip(&ids) {
        assert_eq!(listed(&*other, &owner(name)).await, [*id], "{name:?}");
        let again = existing(other.accept(submission(name)).await.unwrap()).operation;
        assert_eq!(again.id(), *id, "{name:?}");
    }

    let begun = accept_running(&*store).await.operation;
    for name in names {
        let written = store.apply(begun.id(), reported(1, name)).await.unwrap().operation;
        let read = found(&*other, begun.id()).await;
        assert_eq!(read, written);
        assert_eq!(read.progress().and_then(|progress| progress.message()), Some(name));
    }

    let kinds = ["a_b", "axb", "a-b", "a.b", "a:b", "a/b", "A_B"]
        .map(|name| Kind::new(name).expect("a valid kind"));
    let eve = owner("eve");
    for kind in &kinds {
        accept(&*store, new_operation().with_owner(eve.clone()).with_kind(kind.clone())).await;
    }
    for kind in &kinds {
        let query = ListQuery { kind: Some(kind.clone()), ..ListQuery::default() };
        let page = other.list(&eve, &query).await.unwrap();
        let listed: Vec<&Kind> = page.operations.iter().map(Operation::kind).collect();
        assert_eq!(listed, [kind]);
    }
}
