//! Several processes on one file, and what the system is asked to do before a write is acknowledged.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use respond_async::operation::NewOperation;
use respond_async::store::{
    Acceptance, Fingerprint, Idempotency, IdempotencyKey, OperationStoreExt, Submission,
};
use respond_async::time::{Clock, SystemClock};
use respond_async::{OperationId, Owner};

use super::*;

const PATH: &str = "SQLITE_PATH";
const TASK: &str = "SQLITE_TASK";
/// So many that no process is done before the others get their turn.
const KEYS: usize = 1_000;
const START: &str = "SQLITE_START";

fn child(path: &Path, task: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["processes::run", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(PATH, path)
        .env(TASK, task)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn new_operation() -> NewOperation {
    let id = OperationId::generate(SystemClock.now()).unwrap();
    NewOperation::new(id).with_owner(Owner::new("ann").unwrap())
}

fn under_key(number: usize) -> Submission {
    Submission::new(new_operation()).with_idempotency(Idempotency {
        scope: "POST /".into(),
        key: IdempotencyKey::new(format!("key-{number}")).unwrap(),
        fingerprint: Fingerprint([1; 32]),
    })
}

/// Says each thing that it has done, once it is acknowledged, on a line of its own.
fn say(line: &str) {
    std::io::stderr().write_all(format!("ack {line}\n").as_bytes()).unwrap();
}

#[tokio::test]
#[ignore = "it is the child of the others"]
async fn run() {
    let Ok(path) = std::env::var(PATH) else { return };
    let task = std::env::var(TASK).unwrap();
    let builder = SqliteStore::builder(path).busy_timeout(Duration::from_secs(20));
    match task.as_str() {
        "keys" => {
            let store = builder.open().unwrap();
            // All begin at one instant.
            let start: i64 = std::env::var(START).unwrap().parse().unwrap();
            while SystemClock.now().as_unix_millis() < start {
                std::thread::sleep(Duration::from_millis(1));
            }
            for number in 0..KEYS {
                let answer = store.submit(under_key(number)).await.unwrap();
                let (Acceptance::Created(observed) | Acceptance::Existing(observed)) = &answer
                else {
                    panic!("{answer:?}")
                };
                let word = if matches!(answer, Acceptance::Created(_)) { "new" } else { "old" };
                say(&format!("{word} {number} {}", observed.operation.id()));
            }
        }
        "endless" => {
            let store = builder.open().unwrap();
            loop {
                let operation = new_operation();
                let id = operation.id();
                store.submit(Submission::new(operation).with_input("input")).await.unwrap();
                say(&id.to_string());
            }
        }
        level => {
            let level =
                if level == "full" { Durability::PowerLoss } else { Durability::ProcessCrash };
            let store = builder.durability(level).open().unwrap();
            say("begin");
            for _ in 0..30 {
                store.submit(Submission::new(new_operation())).await.unwrap();
                say("accepted");
            }
        }
    }
}

fn acknowledged(output: impl BufRead) -> Vec<String> {
    let mut told = Vec::new();
    for line in output.lines().map_while(Result::ok) {
        match line.strip_prefix("ack ") {
            Some(line) => told.push(line.to_owned()),
            // What went wrong in a child, for whoever looks why the test failed.
            None => eprintln!("child: {line}"),
        }
    }
    told
}

/// Two replicas that race get one operation.
#[test]
fn one_key_makes_one_operation_in_whatever_process() {
    // On a busy machine one may be done before the others get their turn: then they race again.
    assert!((0..10).any(|_| race_for_keys() > 1), "the processes never met");
}

/// Says how many processes were first with some key.
fn race_for_keys() -> usize {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("some.db");
    let start = SystemClock.now() + Duration::from_secs(1);
    let start = start.as_unix_millis().to_string();
    let spawn = |_| child(&path, "keys").env(START, &start).spawn().unwrap();
    let children: Vec<_> = (0..4).map(spawn).collect();
    let (mut ids, mut new) = (HashMap::<String, HashSet<String>>::new(), 0);
    let mut makers = HashSet::new();
    for (number, mut child) in children.into_iter().enumerate() {
        for line in acknowledged(BufReader::new(child.stderr.take().unwrap())) {
            let [word, key, id] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            ids.entry(key.to_owned()).or_default().insert(id.to_owned());
            if word == "new" {
                new += 1;
                makers.insert(number);
            }
        }
        assert!(child.wait().unwrap().success());
    }
    assert_eq!((ids.len(), new), (KEYS, KEYS), "each key is new once");
    assert!(ids.values().all(|ids| ids.len() == 1));
    makers.len()
}

/// What was acknowledged before the SIGKILL is there after it, whole.
#[tokio::test]
async fn what_a_killed_process_was_told_is_there() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("some.db");
    let mut total = 0;
    for round in 0..50_u64 {
        let mut process = child(&path, "endless").spawn().unwrap();
        let mut output = BufReader::new(process.stderr.take().unwrap());
        let mut first = String::new();
        while !first.starts_with("ack ") {
            first.clear();
            assert!(output.read_line(&mut first).unwrap() > 0, "the child died");
        }
        std::thread::sleep(Duration::from_millis(round % 20));
        process.kill().unwrap();
        process.wait().unwrap();
        let mut told = acknowledged(output);
        told.push(first.trim_start_matches("ack ").trim().to_owned());
        let store = SqliteStore::open(&path).unwrap();
        for id in &told {
            let id: OperationId = id.parse().unwrap();
            assert!(store.get(id).await.unwrap().is_some(), "{id} is lost");
            assert_eq!(store.input(id).await.unwrap().unwrap(), "input");
        }
        total += told.len();
    }
    assert!(total > 100, "only {total} acknowledged");
    let connection = Connection::open(&path).unwrap();
    let is_whole: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(is_whole, "ok");
}

/// Between two acknowledgements of a single client the disk is waited for, at the level that says so;
/// and at the other it is not, or this test could not tell.
#[test]
#[cfg(target_os = "linux")]
fn each_acknowledgement_waits_for_the_disk() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("TESTS_ALL").is_none(), "tests/all installs strace");
        return;
    }
    let unsynced = |task| {
        let folder = TempDir::new().unwrap();
        let trace = folder.path().join("trace");
        let run = child(&folder.path().join("some.db"), task);
        let mut traced = Command::new("strace");
        traced.args(["-f", "-e", "trace=fsync,fdatasync,write", "-o"]).arg(&trace);
        traced.arg(run.get_program()).args(run.get_args());
        traced.envs(run.get_envs().map(|(name, value)| (name, value.unwrap())));
        let status = traced.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success());
        let trace = fs::read_to_string(trace).unwrap();
        let (mut acknowledged, mut unsynced, mut is_synced) = (0, 0, false);
        for line in trace.lines() {
            if line.contains("sync(") || line.contains("sync resumed") {
                is_synced = true;
            } else if line.contains("\"ack accepted") {
                acknowledged += 1;
                unsynced += usize::from(!is_synced);
                is_synced = false;
            } else if line.contains("\"ack begin") {
                is_synced = false;
            }
        }
        assert_eq!(acknowledged, 30);
        unsynced
    };
    assert_eq!(unsynced("full"), 0);
    assert!(unsynced("normal") >= 25);
}

/// Each handle learns of the others' writes without asking for any operation in particular, from the
/// moment at which it listens.
#[tokio::test]
async fn another_process_is_heard_of() {
    use std::future::poll_fn;

    let folder = TempDir::new().unwrap();
    for round in 0..20 {
        let path = folder.path().join(format!("{round}.db"));
        let open = || SqliteStore::builder(&path).reserve_bytes(0).open().unwrap();
        let (other, one) = (open(), open());
        // Its writer is at work, and about to rest.
        one.purge(1).await.unwrap();
        let mut hints = one.hints().unwrap();
        other.submit(Submission::new(new_operation())).await.unwrap();
        let hint = tokio::time::timeout(Duration::from_secs(5), poll_fn(|cx| hints.poll_hint(cx)));
        assert_eq!(hint.await.expect("a hint"), Some(respond_async::store::Hint::Missed));
    }
}

/// However many calls wait, none waits for another process for longer than it was told to, and none of
/// those that were given up is made afterwards.
#[tokio::test]
async fn a_queue_waits_once_for_another_process() {
    use respond_async::store::StoreErrorKind;

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("some.db");
    let timeout = SqliteStore::DEFAULT_BUSY_TIMEOUT;
    let store = SqliteStore::builder(&path).busy_timeout(timeout).open().unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = std::time::Instant::now();
    // Five groups.
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..1_200 {
        let store = store.clone();
        calls.spawn(async move { store.submit(Submission::new(new_operation())).await });
    }
    for answer in calls.join_all().await {
        assert_eq!(answer.unwrap_err().kind(), StoreErrorKind::Unavailable);
    }
    let waited = began.elapsed();
    assert!((timeout..timeout * 2).contains(&waited), "they waited {waited:?}");
    connection.execute_batch("ROLLBACK").unwrap();
    store.submit(Submission::new(new_operation())).await.unwrap();
    let count: i64 =
        connection.query_row("SELECT count(*) FROM operations", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
}
