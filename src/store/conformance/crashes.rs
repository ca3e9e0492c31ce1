//! What was acknowledged outlives the processes; what was not is there whole or not at all.

use bytes::Bytes;

use super::Fixture;
use super::crash::{Called, after_kill, kill_amid, surviving};
use super::lossy::{Fate, Lossy};
use super::race::race;
use super::samples::{
    LONG, created, existing, found, handles, idempotency, listed, new_operation, new_running,
    owner, whole,
};
use crate::operation::{Due, Kind, OperationId};
use crate::store::{
    Acceptance, DueQuery, OperationStore, OperationStoreExt, StoreErrorKind, Submission,
};

const SCOPE: &str = "POST /images";

/// An operation of that owner and of a kind of the same name, with input and key, both `name`.
fn named(by: &str, name: &str) -> Submission {
    Submission::new(new_operation().with_owner(owner(by)).with_kind(Kind::new(by).unwrap()))
        .with_input(Bytes::copy_from_slice(name.as_bytes()))
        .with_idempotency(idempotency(SCOPE, name, 1))
}

/// The same request once more: another operation, should there be no first.
fn again(submission: &Submission) -> Submission {
    let mut again = submission.clone();
    again.operation = new_operation().with_owner(submission.operation.owner().clone());
    again
}

/// What was accepted before all processes died is found afterwards, with its input and its key, in
/// its list and among what is due; so it is after the next crash.
///
/// Of a volatile store nothing is left: no key, no count towards a limit.
pub async fn c02_what_was_acknowledged_survives_a_crash<F: Fixture>(fixture: &F) {
    let ada = owner("ada");
    let mut submissions = Vec::new();
    for round in 0..3 {
        let [store, other, _] = handles(fixture).await;
        for (number, new) in [new_operation(), new_operation().with_delay(LONG), new_running(LONG)]
            .into_iter()
            .enumerate()
        {
            let mut submission = named("ada", &format!("{round}.{number}"));
            submission.operation = new.with_owner(ada.clone());
            let store = if number == 0 { &other } else { &store };
            let accepted = created(store.accept(submission.clone()).await.unwrap());
            submissions.push((submission, accepted.operation));
        }
        let ([store, other, _], survives) = after_kill(fixture).await;
        for (submission, accepted) in &submissions {
            let before = (Some(accepted.clone()), submission.input.clone(), None);
            assert_eq!(whole(&*store, accepted.id()).await, surviving(before, survives));
        }
        let (all, due) = if survives { (submissions.len(), round + 1) } else { (0, 0) };
        assert_eq!(listed(&*other, &ada).await.len(), all);
        assert_eq!(store.due(&DueQuery::new(Due::Claim, 100)).await.unwrap().len(), due);
        let limits = crate::store::Limits::default().with_owner(all).with_total(all);
        let one_more = again(&named("ada", "one more")).with_limits(limits);
        assert!(matches!(store.accept(one_more).await.unwrap(), Acceptance::Full(_)));
        if !survives {
            submissions.clear();
        }
        for (submission, accepted) in &submissions {
            let answer = existing(other.accept(again(submission)).await.unwrap());
            assert_eq!(answer.operation, *accepted);
        }
    }
}

/// Of 200 acceptances that are under way when all processes die, those that were acknowledged are
/// found, those that were refused are not, and of every one there is all or nothing: operation,
/// input, key, place in the list, place among what is due.
pub async fn c03_of_a_cut_acceptance_there_is_all_or_nothing<F: Fixture>(fixture: &F) {
    for (round, answered) in [0, 1, 20, 100, 200].into_iter().enumerate() {
        let handles = handles(fixture).await;
        let by = format!("round-{round}");
        let submissions: Vec<Submission> =
            (0..200).map(|number| named(&by, &number.to_string())).collect();
        let calls = submissions.iter().enumerate().map(|(number, submission)| {
            let (store, submission) = (handles[number % 3].clone(), submission.clone());
            async move { store.accept(submission).await }
        });
        let called = kill_amid(fixture, answered, calls.collect::<Vec<_>>()).await;

        let ([store, other, _], survives) = super::crash::reopen(fixture).await;
        let mut left = Vec::new();
        for (submission, called) in submissions.iter().zip(&called) {
            let id = submission.operation.id();
            let is_there = store.get(id).await.unwrap().is_some();
            match called {
                Called::Before(Ok(_)) => assert_eq!(is_there, survives, "it was acknowledged"),
                Called::Before(Err(error)) | Called::After(Err(error)) => {
                    let is_unknown = error.kind() == StoreErrorKind::Ambiguous;
                    assert!(is_unknown || !is_there, "it is there although {error:?}");
                }
                Called::After(Ok(_)) | Called::Never => {}
            }
            assert!(survives || !is_there, "a volatile store keeps something");
            if is_there {
                left.push(id);
            }
        }
        is_whole_or_absent(&*other, &submissions).await;
        left.sort_unstable();
        let mut query = DueQuery::new(Due::Claim, 1_000);
        query.kinds = Some(vec![Kind::new(&by).unwrap()]);
        let due = store.due(&query).await.unwrap();
        let mut due: Vec<OperationId> = due.iter().map(|due| due.operation.id()).collect();
        due.sort_unstable();
        assert_eq!(due, left, "what is due is not what is there");
        let mut own = listed(&*store, &owner(&by)).await;
        own.reverse();
        assert_eq!(own, left, "what is listed is not what is there");

        keys_agree(&*other, &submissions).await;
    }
}

/// Operation and input of each submission are as they were given, or neither is there.
async fn is_whole_or_absent(store: &impl OperationStore, submissions: &[Submission]) {
    for submission in submissions {
        let id = submission.operation.id();
        let (operation, input, outcome) = whole(store, id).await;
        let expected = operation.as_ref().map(|found| submission.operation.accept(found.created()));
        assert_eq!(operation, expected);
        assert_eq!(input, operation.and(submission.input.clone()), "the input of {id}");
        assert_eq!(outcome, None);
    }
}

/// A key stands for its operation if that is there, else it is free.
async fn keys_agree(store: &impl OperationStore, submissions: &[Submission]) {
    for submission in submissions {
        let id = submission.operation.id();
        let is_there = store.get(id).await.unwrap().is_some();
        let second = again(submission);
        let second_id = second.operation.id();
        match store.accept(second).await.unwrap() {
            Acceptance::Existing(first) if is_there => assert_eq!(first.operation.id(), id),
            Acceptance::Created(second) if !is_there => {
                assert_eq!(second.operation.id(), second_id);
                found(store, second_id).await;
            }
            answer => panic!("the operation is there: {is_there}, and its key gave {answer:?}"),
        }
    }
}

/// A key and its operation come in one step and go in one step, whenever the processes die:
/// several that are at one key at once leave one operation or none, and a removal takes both.
pub async fn c83_a_key_never_stands_without_its_operation<F: Fixture>(fixture: &F) {
    super::idempotency::keys_and_operations_agree(fixture).await;
    for round in 0..F::ROUNDS.div_ceil(20) {
        let stores = handles(fixture).await;
        let by = format!("round-{round}");
        let mut first = Vec::new();
        for number in 0..30 {
            let submission = named(&by, &number.to_string());
            if number % 3 == 0 {
                let operation = created(stores[0].accept(submission.clone()).await.unwrap());
                first.push(operation.operation);
            }
        }
        let names: Vec<String> = (0..30).map(|number: usize| number.to_string()).collect();
        let submissions: Vec<Submission> =
            names.iter().flat_map(|name| [named(&by, name), named(&by, name)]).collect();
        let accepts = submissions.iter().cloned().map(|new| (Some(new), None));
        let removals = first.iter().map(|old| (None, Some((old.id(), old.version()))));
        let calls = accepts.chain(removals).enumerate().map(|(number, (accept, remove))| {
            let store = stores[number % 3].clone();
            async move {
                if let Some(submission) = accept {
                    drop(store.accept(submission).await);
                }
                if let Some((id, version)) = remove {
                    drop(store.remove(id, version).await);
                }
            }
        });
        kill_amid(fixture, round * 10, calls.collect::<Vec<_>>()).await;

        let ([store, other, _], _) = super::crash::reopen(fixture).await;
        let own = listed(&*store, &owner(&by)).await;
        is_whole_or_absent(&*store, &submissions).await;
        for name in &names {
            let second = again(&named(&by, name));
            let new_id = second.operation.id();
            let answer = other.accept(second).await.unwrap();
            let (Acceptance::Existing(stands_for) | Acceptance::Created(stands_for)) = answer
            else {
                panic!("{name} gave {answer:?}");
            };
            let id = stands_for.operation.id();
            assert_eq!(found(&*store, id).await, stands_for.operation, "{name} stands for nothing");
            assert!(id == new_id || own.contains(&id), "{name}");
            let input = store.input(id).await.unwrap();
            assert_eq!(input.as_deref(), Some(name.as_bytes()), "{name} is of another");
        }
        // Each operation has its key: there are no more operations than keys.
        assert_eq!(listed(&*store, &owner(&by)).await.len(), names.len());
    }
}

/// Whoever never got the answer to an acceptance finds out whether it took place, and may ask
/// again under the same id or the same key: there is one operation in the end.
pub async fn c05_an_acceptance_without_an_answer_can_be_repeated<F: Fixture>(fixture: &F) {
    let [store, other, _] = handles(fixture).await;
    for fate in [Fate::AnswerLost, Fate::NotMade] {
        let is_made = fate == Fate::AnswerLost;
        for same_id in [true, false] {
            let line = Lossy::new(&store, [fate]);
            let by = format!("{fate:?}-{same_id}");
            let first = named(&by, "key");
            let id = first.operation.id();
            match line.submit(first.clone()).await {
                Ok(answer) if is_made => assert_eq!(created(answer).operation.id(), id),
                Err(error) if !is_made => {
                    assert_eq!(error.kind(), StoreErrorKind::Ambiguous);
                    assert_eq!(whole(&*other, id).await, (None, None, None));
                }
                answer => panic!("{fate:?} gave {answer:?}"),
            }
            let second = if same_id { first.clone() } else { again(&first) };
            let answer = other.accept(second.clone()).await.unwrap();
            let stands_for =
                if is_made { existing(answer) } else { created(answer) }.operation.id();
            assert_eq!(stands_for, if is_made { id } else { second.operation.id() });
            let third = existing(store.accept(again(&first)).await.unwrap());
            assert_eq!(third.operation.id(), stands_for);
            assert_eq!(listed(&*store, &owner(&by)).await, [stands_for]);
        }
    }

    // The key was somebody else's already: that nobody heard so leaves nothing behind.
    let first = named("ada", "taken");
    created(store.accept(first.clone()).await.unwrap());
    let line = Lossy::new(&store, [Fate::AnswerLost]);
    let second = again(&first);
    let id = second.operation.id();
    let error = line.submit(second.clone()).await.expect_err("nobody knows");
    assert_eq!(error.kind(), StoreErrorKind::Ambiguous);
    assert_eq!(whole(&*other, id).await, (None, None, None));
    let answer = existing(line.submit(second).await.unwrap());
    assert_eq!(answer.operation.id(), first.operation.id());

    // Many who ask again at once, half of them over a line that loses every other answer.
    let contested = named("ada", "contested");
    let answers = race((0..32).map(|runner: usize| {
        let fates = [Fate::AnswerLost, Fate::NotMade].into_iter().skip(runner % 2).take(runner % 3);
        let line = Lossy::new(&store, fates.collect::<Vec<_>>());
        let submission = contested.clone();
        async move {
            loop {
                match line.submit(submission.clone()).await {
                    Ok(answer) => return answer,
                    Err(error) => assert_eq!(error.kind(), StoreErrorKind::Ambiguous),
                }
            }
        }
    }))
    .await;
    for answer in answers {
        let (Acceptance::Created(one) | Acceptance::Existing(one)) = answer else {
            panic!("expected an operation, not {answer:?}");
        };
        assert_eq!(one.operation.id(), contested.operation.id());
    }
    assert_eq!(listed(&*other, &owner("ada")).await.len(), 2);
}
