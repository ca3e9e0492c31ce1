//! Claims: at full durability, accepting operations reaches at least 0.7 of raw grouped inserts of the
//! same rows; and with 10^6 operations stored, reading and claiming cost at most 1.3 times what they
//! cost with 10^3.
//!
//! What is compared takes short rounds in turn, and what counts is the median of the ratios of
//! neighbouring rounds. CPU is that of all threads of this process, clients included.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints what it measured")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use respond_async::OperationId;
use respond_async::operation::{Change, Due, Kind, NewOperation, OutcomeHead};
use respond_async::store::{
    ClaimRequest, Durability, OperationStore, OperationStoreExt, SqliteStore, Submission,
};
use respond_async::time::{Clock, SystemClock};
use rusqlite::{Connection, params};

const ROUND: Duration = Duration::from_millis(700);
const INPUT: [u8; 100] = [b'x'; 100];

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let is_short = !std::env::args().any(|argument| argument == "--bench");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    // `accept` or `read` runs only that part.
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let is_wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    for clients in [1, 16, 64].into_iter().filter(|_| is_wanted("accept")) {
        accepting(&runtime, clients, if is_short { 1 } else { 9 });
        if is_short {
            break;
        }
    }
    let sizes: &[usize] = if is_short { &[100] } else { &[1_000, 100_000, 1_000_000] };
    if !is_wanted("read") {
        return;
    }
    runtime.block_on(reading(sizes, if is_short { 1 } else { 9 }));
}

/// What one round cost.
#[derive(Clone, Copy)]
struct Cost {
    per_second: f64,
    cpu_micros: f64,
}

fn measure(work: impl FnOnce() -> u64) -> Cost {
    let (began, cpu) = (Instant::now(), cpu());
    let count = work().max(1) as f64;
    Cost {
        per_second: count / began.elapsed().as_secs_f64(),
        cpu_micros: self::cpu().saturating_sub(cpu).as_secs_f64() * 1e6 / count,
    }
}

/// The CPU time of this process's threads; zero where the kernel does not tell.
fn cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = tasks.filter_map(|task| {
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn new_operation() -> NewOperation {
    NewOperation::new(OperationId::generate(SystemClock.now()).unwrap())
}

fn accepting(runtime: &tokio::runtime::Runtime, clients: usize, rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (ours, raw) = (folder.path().join("ours.db"), folder.path().join("raw.db"));
    let store = SqliteStore::open(&ours).unwrap();
    drop(SqliteStore::open(&raw).unwrap());

    let (mut of_ours, mut of_raw) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        of_ours.push(measure(|| runtime.block_on(accept_for_a_round(&store, clients))));
        of_raw.push(measure(|| insert_for_a_round(&raw, clients)));
    }
    let ratio = of_ours.iter().zip(&of_raw).map(|(ours, raw)| ours.per_second / raw.per_second);
    let ratio = median(ratio.collect());
    let of = |costs: &[Cost], what: fn(&Cost) -> f64| median(costs.iter().map(what).collect());
    println!(
        "accept, {clients:>2} clients: {:>6.0}/s, {:>4.0} us of CPU; raw groups of {clients}: \
         {:>6.0}/s, {:>4.0} us; ratio {ratio:.2}",
        of(&of_ours, |cost| cost.per_second),
        of(&of_ours, |cost| cost.cpu_micros),
        of(&of_raw, |cost| cost.per_second),
        of(&of_raw, |cost| cost.cpu_micros),
    );
}

async fn accept_for_a_round(store: &SqliteStore, clients: usize) -> u64 {
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let (store, over, count) = (store.clone(), Arc::clone(&over), Arc::clone(&count));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let submission = Submission::new(new_operation()).with_input(&INPUT[..]);
                    store.submit(submission).await.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(ROUND).await;
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    count.load(Ordering::Relaxed)
}

/// The same rows into the same tables, encoded beforehand, by one thread that does nothing else.
///
/// Opened for the round: the SQLite that is built along has one cache for all connections of a process,
/// and those of two busy databases take it from each other.
fn insert_for_a_round(path: &Path, group: usize) -> u64 {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -65536").unwrap();
    let mut operation = connection
        .prepare(
            "INSERT INTO operations (id, kind, owner, status, version, write_id, claim_at_ms,
             settle_at_ms, expire_at_ms, record)
             VALUES (?1, 'task', NULL, 'pending', 1, 0, ?2, NULL, NULL, ?3)",
        )
        .unwrap();
    let mut input = connection.prepare("INSERT INTO inputs (row, body) VALUES (?1, ?2)").unwrap();
    let mut live = connection
        .prepare(
            "INSERT INTO live (owner, count) VALUES ('', ?1)
             ON CONFLICT (owner) DO UPDATE SET count = count + excluded.count",
        )
        .unwrap();
    let record = new_operation().accept(SystemClock.now()).to_record();
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < ROUND {
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        for _ in 0..group {
            let now = SystemClock.now();
            let id = OperationId::generate(now).unwrap();
            let row = operation
                .insert(params![&id.as_uuid().as_bytes()[..], now.as_unix_millis(), record])
                .unwrap();
            input.execute(params![row, &INPUT[..]]).unwrap();
        }
        live.execute(params![i64::try_from(group).unwrap()]).unwrap();
        connection.execute_batch("COMMIT").unwrap();
        count += group as u64;
    }
    count
}

/// A file with so many operations, of which some have expired. It is open only while it is its turn:
/// see [`insert_for_a_round`].
struct Stored {
    path: PathBuf,
    size: usize,
    ids: Vec<OperationId>,
}

/// How many calls of a sort a round makes, and of how many operations one claims or purges.
const CALLS: usize = 2_000;
const CLAIMS: usize = 20;
const BATCH: usize = 10;

async fn reading(sizes: &[usize], rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut stores = Vec::new();
    for size in sizes {
        let purged = rounds * CLAIMS * BATCH;
        stores.push(fill(&folder.path().join(format!("{size}.db")), *size, purged).await);
    }
    let mut costs: Vec<[Vec<[f64; 2]>; 3]> = sizes.iter().map(|_| Default::default()).collect();
    for round in 0..rounds {
        // There and back, so that none is always after the largest.
        let mut order: Vec<usize> = (0..stores.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let Stored { path, ids, .. } = &stores[at];
            let store = SqliteStore::builder(path).durability(Durability::ProcessCrash);
            let store = store.open().unwrap();
            let any = |number: usize| ids[number.wrapping_mul(7_919_993) % ids.len()];
            for number in 0..CALLS {
                store.get(any(number)).await.unwrap();
            }
            let began = Spent::now();
            for number in 0..CALLS {
                assert!(store.get(any((round + 1) * CALLS + number)).await.unwrap().is_some());
            }
            costs[at][0].push(began.micros_each(CALLS));

            let request = ClaimRequest::new(BATCH, Duration::from_secs(3_600));
            let request = request.with_kinds(vec![Kind::default()]);
            let began = Spent::now();
            let mut claimed = Vec::new();
            for _ in 0..CLAIMS {
                claimed.extend(store.claim(&request).await.unwrap());
            }
            costs[at][1].push(began.micros_each(CLAIMS));
            // Given back, so that each round finds the same.
            for observed in claimed {
                let attempt = observed.operation.attempt();
                let change = Change::Release { attempt };
                store.apply(observed.operation.id(), change).await.unwrap();
            }

            let began = Spent::now();
            for _ in 0..CLAIMS {
                assert_eq!(store.purge(BATCH).await.unwrap(), BATCH);
            }
            costs[at][2].push(began.micros_each(CLAIMS));
        }
    }
    for (what, name) in ["get", "claim of 10", "purge of 10"].iter().enumerate() {
        for (at, stored) in stores.iter().enumerate() {
            let [wall, cpu] = [0, 1].map(|of| {
                let here = costs[at][what].iter().map(|cost| cost[of]);
                let first = costs[0][what].iter().map(|cost| cost[of]);
                let ratio = here.clone().zip(first).map(|(here, first)| here / first);
                (median(here.collect()), median(ratio.collect()))
            });
            println!(
                "{name:>11}, {:>7} stored: {:>4.0} us of CPU, {:.2} of the first; {:>4.0} us, {:.2}",
                stored.size, cpu.0, cpu.1, wall.0, wall.1,
            );
        }
    }
}

/// When something began, on the wall and by the CPU.
struct Spent(Instant, Duration);

impl Spent {
    fn now() -> Self {
        Self(Instant::now(), cpu())
    }

    /// What each of so many took: on the wall, and of the CPU.
    fn micros_each(&self, count: usize) -> [f64; 2] {
        let spent = [self.0.elapsed(), cpu().saturating_sub(self.1)];
        spent.map(|spent| spent.as_secs_f64() * 1e6 / count as f64)
    }
}

async fn fill(path: &Path, size: usize, purged: usize) -> Stored {
    let store = SqliteStore::builder(path).durability(Durability::ProcessCrash).open().unwrap();
    let mut ids = Vec::with_capacity(size);
    while ids.len() < size {
        let mut calls = Vec::new();
        for _ in 0..200.min(size - ids.len()) {
            let operation = new_operation().with_attempt_limit(1_000);
            ids.push(operation.id());
            let (store, submission) =
                (store.clone(), Submission::new(operation).with_input(&INPUT[..]));
            calls.push(tokio::spawn(async move { store.submit(submission).await.map(drop) }));
        }
        for call in calls {
            call.await.unwrap().unwrap();
        }
    }
    for _ in 0..purged {
        let new = new_operation().with_retention(Duration::ZERO);
        let new = new.held(Duration::from_secs(60), true);
        let id = new.id();
        store.submit(Submission::new(new)).await.unwrap();
        let head = OutcomeHead::new(http::StatusCode::OK, None);
        store.apply(id, Change::Succeed { attempt: 1, head }).await.unwrap();
    }
    // What filling left to be written shall not be charged to whoever writes next.
    let connection = Connection::open(path).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    fs::File::open(path).unwrap().sync_all().unwrap();
    let due = respond_async::store::DueQuery::new(Due::Expire, 1);
    assert_eq!(store.due(&due).await.unwrap().len(), 1);
    Stored { path: path.to_owned(), size, ids }
}
