//! Nobody sees another owner's operations, and names are never interpreted.

use super::Fixture;
use super::samples::{
    LONG, accept, accept_running, claim, created, existing, found, handles, idempotency, listed,
    new_id, new_operation, new_running, owner, reported, succeed,
};
use crate::operation::{Kind, NewOperation, Operation, OperationId, Owner, Status};
use crate::store::{ApplyError, ListQuery, OperationStore, OperationStoreExt, Submission};
use crate::time::{Clock, SystemClock};

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

/// Pages give an owner's operations newest first, each once, in any size of page and under any
/// filter; a page is no longer than was asked for, and never longer than the longest.
pub async fn c113_pages_hold_everything_once<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let ada = owner("ada");
    let now = SystemClock.now();
    let mut ids = Vec::new();
    for number in 0..ListQuery::MAX_LIMIT + 10 {
        // Several of one millisecond each, and not accepted in the order of their ids.
        let millis = u64::try_from(number * 7 % 50).unwrap();
        let at = now + std::time::Duration::from_millis(millis);
        let id = OperationId::generate(at).expect("the operating system gives random bytes");
        let kind = Kind::new(if number % 3 == 0 { "third" } else { "other" }).unwrap();
        let new = NewOperation::new(id).with_owner(ada.clone()).with_kind(kind.clone());
        accept(&*store, new).await;
        ids.push((id, kind));
    }
    ids.sort_unstable();
    ids.reverse();
    let claimed = claim(&*store, 10, LONG).await.len();

    let by_kind = ListQuery { kind: Some(Kind::new("third").unwrap()), ..ListQuery::default() };
    let running = ListQuery { status: Some(Status::Running), ..ListQuery::default() };
    for (query, count) in
        [(ListQuery::default(), ids.len()), (by_kind, ids.len().div_ceil(3)), (running, claimed)]
    {
        for limit in [0, 1, 7, ListQuery::MAX_LIMIT, usize::MAX] {
            let mut query = ListQuery { limit, ..query.clone() };
            let mut walked = Vec::new();
            loop {
                let page = other.list(&ada, &query).await.unwrap();
                assert!(page.operations.len() <= query.page_size());
                assert!(page.operations.iter().all(|operation| query.selects(operation)));
                walked.extend(page.operations.iter().map(Operation::id));
                let Some(next) = page.next else { break };
                assert!(query.before.is_none_or(|before| next < before), "pages lead back");
                query.before = Some(next);
            }
            assert_eq!(walked.len(), count, "pages of {limit}");
            assert!(walked.is_sorted_by(|newer, older| newer > older));
        }
    }
    let everything: Vec<OperationId> = ids.into_iter().map(|(id, _)| id).collect();
    assert_eq!(listed(&*other, &ada).await, everything);
}
