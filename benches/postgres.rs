//! Claims: with 64 clients, more operations are accepted a second than `pgbench` commits rows of the same
//! size one by one with as many clients on the same server; and with 10^6 operations stored, reading,
//! claiming and purging cost at most 1.5 times what they cost with 10^3.
//!
//! The server is private and started for it, with PostgreSQL's own settings for durability. What is compared
//! takes short rounds in turn, and what counts is the median of the ratios of neighbouring rounds.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints what it measured")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

#[path = "../tests/servers/mod.rs"]
mod servers;

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use respond_async::operation::{Change, NewOperation};
use respond_async::store::{
    ClaimRequest, OperationStore, OperationStoreExt, PostgresStore, Submission,
};
use respond_async::time::{Clock, SystemClock};
use respond_async::{OperationId, Outcome};

use servers::{Server, Sort};

const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;
const INPUT: [u8; 100] = [b'x'; 100];

fn main() {
    // `cargo test --benches` only wants to know that it builds: it has no server.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let is_wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    let server = Server::start(Sort::Postgres);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if is_wanted("accept") {
        for clients in [1, 16, 64] {
            accepting(&runtime, &server, clients);
        }
    }
    if is_wanted("cycle") {
        for clients in [16, 64] {
            cycling(&runtime, &server, clients);
        }
    }
    if is_wanted("read") {
        runtime.block_on(reading(&server));
    }
}

/// What one round cost: how many a second, and microseconds of CPU each, ours and the server's.
#[derive(Clone, Copy)]
struct Cost {
    per_second: f64,
    ours: f64,
    theirs: f64,
}

fn measure(server: &Server, work: impl FnOnce() -> u64) -> Cost {
    let (began, ours, theirs) = (Instant::now(), cpu(), server.cpu());
    let count = work().max(1) as f64;
    let micros = |spent: Duration| spent.as_secs_f64() * 1e6 / count;
    Cost {
        per_second: count / began.elapsed().as_secs_f64(),
        ours: micros(cpu().saturating_sub(ours)),
        theirs: micros(server.cpu().saturating_sub(theirs)),
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

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn new_operation() -> NewOperation {
    NewOperation::new(OperationId::generate(SystemClock.now()).unwrap())
}

async fn open(server: &Server, schema: &str) -> PostgresStore {
    PostgresStore::builder(&server.url()).unwrap().schema(schema).open().await.unwrap()
}

/// Has so many clients do it again and again for a round, and says how often it was done.
async fn for_a_round<F>(clients: usize, work: impl Fn() -> F) -> u64
where
    F: Future<Output = u64> + Send + 'static,
{
    let running: Vec<_> = (0..clients).map(|_| tokio::spawn(work())).collect();
    let mut count = 0;
    for client in running {
        count += client.await.unwrap();
    }
    count
}

fn accepting(runtime: &tokio::runtime::Runtime, server: &Server, clients: usize) {
    let store = runtime.block_on(open(server, &format!("accept_{clients}")));
    let bench = PgBench::new(server, clients);
    let (mut of_ours, mut of_raw) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_ours.push(measure(server, || {
            runtime.block_on(for_a_round(clients, || {
                let store = store.clone();
                async move {
                    let (began, mut count) = (Instant::now(), 0);
                    while began.elapsed() < ROUND {
                        let submission = Submission::new(new_operation()).with_input(&INPUT[..]);
                        store.submit(submission).await.unwrap();
                        count += 1;
                    }
                    count
                }
            }))
        }));
        of_raw.push(measure(server, || bench.run()));
    }
    let ratio = median(of_ours.iter().zip(&of_raw).map(|(a, b)| a.per_second / b.per_second));
    let of = |costs: &[Cost], what: fn(&Cost) -> f64| median(costs.iter().map(what));
    println!(
        "accept, {clients:>2} clients: {:>6.0}/s, {:>4.0} + {:>4.0} us of CPU (ours + server); pgbench, \
         {clients} clients: {:>6.0}/s, {:>4.0} us (server); ratio {ratio:.2}",
        of(&of_ours, |cost| cost.per_second),
        of(&of_ours, |cost| cost.ours),
        of(&of_ours, |cost| cost.theirs),
        of(&of_raw, |cost| cost.per_second),
        of(&of_raw, |cost| cost.theirs),
    );
}

/// The same row, committed by itself, by `pgbench` with prepared statements.
struct PgBench {
    url: String,
    clients: usize,
    script: tempfile::NamedTempFile,
}

impl PgBench {
    fn new(server: &Server, clients: usize) -> Self {
        let script = tempfile::NamedTempFile::new().unwrap();
        let record =
            String::from_utf8(new_operation().accept(SystemClock.now()).to_record()).unwrap();
        let insert = format!("INSERT INTO bench VALUES (gen_random_uuid(), 'task', '{record}');\n");
        fs::write(script.path(), insert).unwrap();
        let table =
            "CREATE TABLE IF NOT EXISTS bench (id uuid PRIMARY KEY, kind text, record text)";
        let made = Command::new("psql").args(["-q", "-c", table, &server.url()]).status();
        assert!(made.unwrap().success());
        Self { url: server.url(), clients, script }
    }

    fn run(&self) -> u64 {
        let clients = self.clients.to_string();
        let threads = self.clients.min(2).to_string();
        let seconds = ROUND.as_secs().to_string();
        let output = Command::new("pgbench")
            .args(["-n", "-M", "prepared", "-c", &clients, "-j", &threads, "-T", &seconds, "-f"])
            .arg(self.script.path())
            .arg(&self.url)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.contains("actually processed")).unwrap();
        line.rsplit(' ').next().unwrap().split('/').next().unwrap().parse().unwrap()
    }
}

/// Accepted, claimed by one of two workers, finished with an outcome, read.
fn cycling(runtime: &tokio::runtime::Runtime, server: &Server, clients: usize) {
    let store = runtime.block_on(open(server, &format!("cycle_{clients}")));
    let is_over = Arc::new(AtomicBool::new(false));
    let finished = Arc::new(AtomicU64::new(0));
    let cost = measure(server, || {
        runtime.block_on(async {
            let mut workers = Vec::new();
            for _ in 0..2 {
                let (store, is_over) = (store.clone(), Arc::clone(&is_over));
                let finished = Arc::clone(&finished);
                workers.push(tokio::spawn(async move {
                    let request = ClaimRequest::new(64, Duration::from_secs(60));
                    loop {
                        let claimed = store.claim(&request).await.unwrap();
                        if claimed.is_empty() && is_over.load(Ordering::SeqCst) {
                            return;
                        }
                        let ends = claimed.into_iter().map(|observed| {
                            let store = store.clone();
                            tokio::spawn(async move {
                                let outcome = Outcome::json(StatusCode::CREATED, &"done");
                                let attempt = observed.operation.attempt();
                                let change = Change::Succeed { attempt, head: outcome.head() };
                                let id = observed.operation.id();
                                store.apply_with_outcome(id, change, Some(outcome)).await.unwrap();
                            })
                        });
                        for end in ends.collect::<Vec<_>>() {
                            end.await.unwrap();
                            finished.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }));
            }
            for_a_round(clients, || {
                let store = store.clone();
                async move {
                    let began = Instant::now();
                    while began.elapsed() < ROUND * 2 {
                        let submission = Submission::new(new_operation()).with_input(&INPUT[..]);
                        store.submit(submission).await.unwrap();
                    }
                    0
                }
            })
            .await;
            is_over.store(true, Ordering::SeqCst);
            for worker in workers {
                worker.await.unwrap();
            }
        });
        finished.load(Ordering::SeqCst)
    });
    println!(
        "cycle,  {clients:>2} clients: {:>6.0}/s accepted, claimed and finished, {:>4.0} + {:>4.0} us of \
         CPU (ours + server)",
        cost.per_second, cost.ours, cost.theirs,
    );
}

const CALLS: usize = 1_000;
const CLAIMS: usize = 20;
const BATCH: usize = 10;

async fn reading(server: &Server) {
    let sizes = [1_000, 100_000, 1_000_000];
    let mut places = Vec::new();
    for size in sizes {
        let store = open(server, &format!("read_{size}")).await;
        places.push((fill(&store, size).await, store));
    }
    let vacuumed =
        Command::new("psql").args(["-q", "-c", "VACUUM ANALYZE", &server.url()]).status();
    assert!(vacuumed.unwrap().success());
    let mut costs = vec![[const { Vec::new() }; 3]; sizes.len()];
    for round in 0..ROUNDS {
        for (at, (ids, store)) in places.iter().enumerate() {
            let cost = |count: usize, began: (Instant, Duration, Duration)| {
                let spent = (cpu() + server.cpu()).saturating_sub(began.1 + began.2);
                let wall = began.0.elapsed();
                [wall, spent].map(|spent| spent.as_secs_f64() * 1e6 / count as f64)
            };
            let now = || (Instant::now(), cpu(), server.cpu());
            let began = now();
            for number in 0..CALLS {
                let id = ids[(round * CALLS + number).wrapping_mul(7_919_993) % ids.len()];
                assert!(store.get(id).await.unwrap().is_some());
            }
            costs[at][0].push(cost(CALLS, began));
            let began = now();
            let mut claimed = Vec::new();
            let request = ClaimRequest::new(BATCH, Duration::from_secs(3_600));
            for _ in 0..CLAIMS {
                claimed.extend(store.claim(&request).await.unwrap());
            }
            costs[at][1].push(cost(CLAIMS, began));
            for observed in claimed {
                let change = Change::Release { attempt: observed.operation.attempt() };
                store.apply(observed.operation.id(), change).await.unwrap();
            }
            let began = now();
            for _ in 0..CLAIMS {
                assert_eq!(store.purge(BATCH).await.unwrap(), BATCH);
            }
            costs[at][2].push(cost(CLAIMS, began));
        }
    }
    for (what, name) in ["get", "claim of 10", "purge of 10"].iter().enumerate() {
        for (at, size) in sizes.iter().enumerate() {
            let [wall, cpu] = [0, 1].map(|of| {
                let here = median(costs[at][what].iter().map(|cost| cost[of]));
                (here, here / median(costs[0][what].iter().map(|cost| cost[of])))
            });
            println!(
                "{name:>11}, {size:>7} stored: {:>5.0} us of CPU, {:.2} of the first; {:>5.0} us, {:.2}",
                cpu.0, cpu.1, wall.0, wall.1,
            );
        }
    }
}

/// Stores so many, and some that have expired.
async fn fill(store: &PostgresStore, size: usize) -> Vec<OperationId> {
    let mut ids = Vec::with_capacity(size);
    while ids.len() < size {
        let mut calls = Vec::new();
        for _ in 0..2_000.min(size - ids.len()) {
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
    for _ in 0..ROUNDS * CLAIMS * BATCH {
        let new = new_operation().with_retention(Duration::ZERO);
        let new = new.held(Duration::from_secs(60), true);
        let id = new.id();
        store.submit(Submission::new(new)).await.unwrap();
        let head = Outcome::new(StatusCode::OK).head();
        store.apply(id, Change::Succeed { attempt: 1, head }).await.unwrap();
    }
    ids
}
