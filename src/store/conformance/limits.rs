//! The limits of unfinished work hold in the step that accepts.

use std::time::Duration;

use super::Fixture;
use super::race::race;
use super::samples::{
    LONG, accept, answer, claim_one, created, existing, failed, handles, idempotency,
    new_operation, new_running, owner, retried, succeeded, whole,
};
use crate::operation::{Change, NewOperation, OperationId};
use crate::store::{Acceptance, Full, Limits, OperationStore, OperationStoreExt, Submission};

fn total(limit: usize) -> Limits {
    Limits::default().with_total(limit)
}

fn per_owner(limit: usize) -> Limits {
    Limits::default().with_owner(limit)
}

async fn try_accept(store: &impl OperationStore, new: NewOperation, limits: Limits) -> Acceptance {
    store.accept(Submission::new(new).with_limits(limits)).await.unwrap()
}

/// With room for 20, 20 of 64 requests at once are accepted: never more, and no room is left over.
/// Of the others nothing is stored.
pub async fn c96_a_limit_holds_under_a_rush<F: Fixture>(fixture: &F) {
    const LIMIT: usize = 20;
    let handles = handles(fixture).await;
    // The owner's rush comes first; what it left counts towards the total of the second.
    for (limits, full, room) in
        [(per_owner(LIMIT), Full::Owner, LIMIT), (total(2 * LIMIT), Full::Total, LIMIT)]
    {
        let answers = race((0..64).map(|runner| {
            let store = handles[runner % 3].clone();
            let new = new_operation().with_owner(owner("ada"));
            async move { (new.id(), try_accept(&*store, new, limits).await) }
        }))
        .await;
        let mut accepted = 0;
        for (id, answer) in answers {
            let is_stored = handles[0].get(id).await.unwrap().is_some();
            match answer {
                Acceptance::Created(_) => {
                    assert!(is_stored);
                    accepted += 1;
                }
                other => {
                    assert_eq!(other, Acceptance::Full(full));
                    assert!(!is_stored, "refused and stored");
                }
            }
        }
        assert_eq!(accepted, room);
    }
}

/// What one owner has does not count against another, and the anonymous owner, who is many, has no
/// limit as an owner.
pub async fn c97_an_owners_limit_is_its_own<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let by = |name: &str| new_operation().with_owner(owner(name));
    created(try_accept(&*store, by("ada"), per_owner(1)).await);
    let refused = try_accept(&*other, by("ada"), per_owner(1)).await;
    assert_eq!(refused, Acceptance::Full(Full::Owner));
    for name in ["bob", "Ada", "ada ", "ad", "adaa", "anonymous"] {
        created(try_accept(&*other, by(name), per_owner(1)).await);
    }
    for limit in [1, 1, 0] {
        created(try_accept(&*store, new_operation(), per_owner(limit)).await);
    }
    let answers = race((0..32).map(|runner| {
        let (store, limit) = ([&store, &other][runner % 2].clone(), runner % 3);
        async move { try_accept(&*store, new_operation(), per_owner(limit)).await }
    }))
    .await;
    for answer in answers {
        created(answer);
    }
    created(try_accept(&*store, by("ada"), per_owner(2)).await);
}

/// Whoever is refused is told whether the owner's limit or that of all is reached, that of all if both
/// are, because one is the client's to mend and the other is not. A limit of nothing accepts nothing, and a store that is
/// full still knows what it has: the same request again gives its operation.
pub async fn c98_a_refusal_says_whose_limit_is_reached<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let by_ada = || new_operation().with_owner(owner("ada"));
    let none = try_accept(&*store, by_ada(), total(0)).await;
    assert_eq!(none, Acceptance::Full(Full::Total));
    let none = try_accept(&*store, by_ada(), per_owner(0)).await;
    assert_eq!(none, Acceptance::Full(Full::Owner));

    created(try_accept(&*store, by_ada(), per_owner(1).with_total(1)).await);
    let answer = try_accept(&*other, by_ada(), per_owner(1).with_total(2)).await;
    assert_eq!(answer, Acceptance::Full(Full::Owner));
    let answer = try_accept(&*other, by_ada(), per_owner(1).with_total(1)).await;
    assert_eq!(answer, Acceptance::Full(Full::Total), "the total first");
    let answer = try_accept(&*other, by_ada(), per_owner(2).with_total(1)).await;
    assert_eq!(answer, Acceptance::Full(Full::Total));
    created(try_accept(&*other, by_ada(), per_owner(2).with_total(2)).await);

    let keyed = |new: NewOperation| {
        let key = idempotency("POST /images", "key", 1);
        Submission::new(new).with_input("input").with_idempotency(key)
    };
    let first = created(store.accept(keyed(by_ada())).await.unwrap()).operation;
    for limits in [total(0), per_owner(0), total(3), per_owner(3)] {
        let same_key = keyed(by_ada()).with_limits(limits);
        assert_eq!(existing(other.accept(same_key).await.unwrap()).operation, first);
        let same_id = Submission::new(NewOperation::new(first.id())).with_limits(limits);
        assert_eq!(existing(other.accept(same_id).await.unwrap()).operation, first);
        let new = Submission::new(by_ada()).with_input("input").with_limits(limits);
        let id = new.operation.id();
        assert!(matches!(other.accept(new).await.unwrap(), Acceptance::Full(_)));
        assert_eq!(whole(&*store, id).await, (None, None, None), "refused and stored");
    }
}

/// However work ends, its place is free at once: by success, failure or cancellation, by its
/// deadline, and by a worker that vanished. While it waits for another attempt it keeps its place.
pub async fn c99_the_end_of_work_makes_room<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    let ada = owner("ada");
    let confirm = Change::ConfirmCancel { attempt: 1 };
    let running = || new_running(F::UNIT);
    let ends: [(NewOperation, Vec<Change>, bool); 7] = [
        (running(), vec![succeeded(1, &answer("done"))], false),
        (running(), vec![failed(1)], false),
        (new_operation(), vec![Change::Cancel], false),
        (running(), vec![Change::Cancel, confirm], false),
        (running().with_attempt_limit(1), vec![retried(1, Duration::ZERO)], false),
        (new_operation().with_deadline(F::UNIT), vec![Change::Settle], true),
        (running().with_attempt_limit(1), vec![Change::Settle], true),
    ];
    for (new, changes, is_late) in ends {
        let id = new.id();
        let both = total(1).with_owner(1);
        created(try_accept(&*store, new.with_owner(ada.clone()), both).await);
        if is_late {
            fixture.advance(F::UNIT).await;
        }
        assert_full(&*other).await;
        let last = changes.len() - 1;
        for (number, change) in changes.into_iter().enumerate() {
            let after = store.apply(id, change).await.unwrap().operation;
            assert_eq!(after.finished().is_some(), number == last);
        }
        let next = created(try_accept(&*other, by(&ada), both).await);
        end(&*store, next.operation.id()).await;
    }

    let id = accept(&*store, by(&ada)).await.operation.id();
    claim_one(&*store, LONG).await;
    store.apply(id, retried(1, LONG)).await.unwrap();
    assert_full(&*other).await;
    end(&*store, id).await;
    let ended = created(try_accept(&*other, by(&ada), total(1)).await).operation.id();
    let version = end(&*store, ended).await;
    store.remove(ended, version).await.unwrap();
    created(try_accept(&*other, by(&ada), total(1).with_owner(1)).await);
    assert_full(&*other).await;
}

fn by(owner: &crate::operation::Owner) -> NewOperation {
    new_operation().with_owner(owner.clone())
}

/// Ada has one unfinished operation, the only one of all: there is no room for a second.
async fn assert_full(store: &impl OperationStore) {
    let ada = owner("ada");
    let answer = try_accept(store, by(&ada), total(1)).await;
    assert_eq!(answer, Acceptance::Full(Full::Total));
    let answer = try_accept(store, by(&ada), per_owner(1)).await;
    assert_eq!(answer, Acceptance::Full(Full::Owner));
}

/// Ends a pending operation; gives its last version.
async fn end(store: &impl OperationStore, id: OperationId) -> u64 {
    store.apply(id, Change::Cancel).await.unwrap().operation.version()
}
