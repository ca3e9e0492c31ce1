//! Word of changes between processes, and keys that go to several of them.

use std::collections::HashSet;
use std::future::poll_fn;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use respond_async::Owner;
use respond_async::operation::Change;
use respond_async::store::{
    Fingerprint, Hint, Hints, Idempotency, IdempotencyKey, ListQuery, OperationStoreExt, Submission,
};

use super::{Cut, NAME, OnServer, new};

/// Listens until that hint comes.
async fn hear(hints: &mut Box<dyn Hints>, wanted: Hint) {
    let heard = async { while poll_fn(|cx| hints.poll_hint(cx)).await != Some(wanted) {} };
    let heard = tokio::time::timeout(Duration::from_secs(5), heard).await;
    assert!(heard.is_ok(), "{wanted:?} is not heard");
}

async fn until_heard(store: &impl OnServer) {
    let began = Instant::now();
    while !store.is_listening() {
        assert!(began.elapsed() < Duration::from_secs(10), "it does not hear itself");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn another_process_learns_of_each_change_by_its_id<S: OnServer>() {
    let cut = Cut::start::<S>();
    let (one, other): (S, S) = (cut.direct().await, cut.direct().await);
    let mut hints = other.hints().unwrap();
    until_heard(&one).await;
    until_heard(&other).await;
    let new = new();
    let id = new.id();
    one.accept(Submission::new(new)).await.unwrap();
    hear(&mut hints, Hint::Claimable).await;
    one.apply(id, Change::Cancel).await.unwrap();
    hear(&mut hints, Hint::Changed(id)).await;
}

pub(crate) async fn a_listener_that_was_cut_off_says_so_and_hears_again<S: OnServer>() {
    let cut = Cut::start::<S>();
    let (one, other): (S, S) = (cut.direct().await, cut.by_proxy().await);
    until_heard(&one).await;
    until_heard(&other).await;
    for _ in 0..2 {
        let mut hints = other.hints().unwrap();
        cut.proxy.cut();
        hear(&mut hints, Hint::Missed).await;
        let began = Instant::now();
        loop {
            let new = new();
            let id = new.id();
            one.submit(Submission::new(new)).await.unwrap();
            let heard =
                tokio::time::timeout(Duration::from_secs(1), hear(&mut hints, Hint::Changed(id)));
            if heard.await.is_ok() {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "it stays deaf");
        }
    }
}

const KEYS: usize = 10_000;
/// How long a key is sent again.
const PATIENCE: Duration = Duration::from_secs(60);
const URL: &str = "SENDER_URL";
const WHICH: &str = "SENDER";

fn owner() -> Owner {
    Owner::new("sender").unwrap()
}

/// What the children of the test below do: send two thirds of the keys.
pub(crate) async fn send<S: OnServer>() {
    let Ok(url) = std::env::var(URL) else { return };
    let which: usize = std::env::var(WHICH).unwrap().parse().unwrap();
    let store = S::at(&url, NAME).await;
    let mut calls = Vec::new();
    for number in (0..KEYS).filter(|number| number % 3 != which) {
        let store = store.clone();
        let idempotency = Idempotency {
            scope: "POST /".into(),
            key: IdempotencyKey::new(format!("key {number}")).unwrap(),
            fingerprint: Fingerprint([7; 32]),
        };
        let submission = Submission::new(new().with_owner(owner())).with_idempotency(idempotency);
        calls.push(tokio::spawn(async move {
            // On a machine that is busy some get no answer in time, and are sent once more.
            let began = Instant::now();
            while let Err(error) = store.submit(submission.clone()).await {
                assert!(error.is_retryable() && began.elapsed() < PATIENCE, "{error:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }));
        if calls.len() == 200 {
            for call in calls.drain(..) {
                call.await.unwrap();
            }
        }
    }
    for call in calls {
        call.await.unwrap();
    }
}

pub(crate) async fn three_processes_that_are_sent_each_key_twice_make_one_operation_of_it<
    S: OnServer,
>() {
    let cut = Cut::start::<S>();
    let store: S = cut.direct().await;
    let senders: Vec<_> = (0..3)
        .map(|which| {
            Command::new(std::env::current_exe().unwrap())
                .args(["on_its_server::sender", "--exact", "--ignored"])
                .env(URL, cut.server.url())
                .env(WHICH, which.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for sender in senders {
        let ended = sender.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    }
    let (mut ids, mut query) = (HashSet::new(), ListQuery::default());
    loop {
        let page = store.list(&owner(), &query).await.unwrap();
        ids.extend(page.operations.iter().map(respond_async::Operation::id));
        query.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(ids.len(), KEYS);
}
