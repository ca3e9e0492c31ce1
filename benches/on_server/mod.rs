//! What is measured of a store on a server, beside a raw client of the same server.
//!
//! What is compared takes short rounds in turn, and what counts is the median of the ratios of neighbouring
//! rounds. CPU is that of all threads of this process, clients included, and that of the server.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use respond_async::operation::{Change, NewOperation};
use respond_async::store::{ClaimRequest, OperationStore, OperationStoreExt, Submission};
use respond_async::time::{Clock, SystemClock};
use respond_async::{OperationId, Outcome};
use tokio::runtime::Runtime;

use crate::servers::Server;

pub(crate) const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;
const INPUT: [u8; 100] = [b'x'; 100];

/// A server, and how to make an empty store on it.
pub(crate) struct Place<O> {
    pub(crate) server: Server,
    pub(crate) runtime: Runtime,
    pub(crate) open: O,
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Whether that part was asked for, `cargo bench --bench NAME [-- PART]`; none is when it is only run as a
/// test, which has no server.
pub(crate) fn is_wanted(name: &str) -> bool {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    is_bench && part.as_deref().is_none_or(|part| part == name)
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

pub(crate) fn new_operation() -> NewOperation {
    NewOperation::new(OperationId::generate(SystemClock.now()).unwrap())
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

/// Accepted operations a second, beside what `raw` does on the same server with as many clients.
pub(crate) fn accepting<S: OperationStore + Clone>(
    place: &Place<impl AsyncFn(&Server, &str) -> S>,
    clients: usize,
    name: &str,
    raw: impl Fn() -> u64,
) {
    let Place { server, runtime, open } = place;
    let store = runtime.block_on(open(server, &format!("accept_{clients}")));
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
        of_raw.push(measure(server, &raw));
    }
    let ratio = median(of_ours.iter().zip(&of_raw).map(|(a, b)| a.per_second / b.per_second));
    let of = |costs: &[Cost], what: fn(&Cost) -> f64| median(costs.iter().map(what));
    println!(
        "accept, {clients:>2} clients: {:>6.0}/s, {:>4.0} + {:>4.0} us of CPU (ours + server); {name}, \
         {clients} clients: {:>6.0}/s, {:>4.0} us (server); ratio {ratio:.2}",
        of(&of_ours, |cost| cost.per_second),
        of(&of_ours, |cost| cost.ours),
        of(&of_ours, |cost| cost.theirs),
        of(&of_raw, |cost| cost.per_second),
        of(&of_raw, |cost| cost.theirs),
    );
}

/// Accepted, claimed by one of two workers, finished with an outcome, read.
pub(crate) fn cycling<S: OperationStore + Clone>(
    place: &Place<impl AsyncFn(&Server, &str) -> S>,
    clients: usize,
) {
    let Place { server, runtime, open } = place;
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
                                // As the facade's attempts do.
                                let none = |_: &_| Vec::new();
                                store
                                    .apply_to(observed, change, Some(outcome), none)
                                    .await
                                    .unwrap();
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

/// What it costs to get, claim and purge with so many stored. `settle` is called once they are.
pub(crate) fn reading<S: OperationStore + Clone>(
    place: &Place<impl AsyncFn(&Server, &str) -> S>,
    settle: impl Fn(),
) {
    place.runtime.block_on(read(place, settle));
}

async fn read<S: OperationStore + Clone>(
    Place { server, open, .. }: &Place<impl AsyncFn(&Server, &str) -> S>,
    settle: impl Fn(),
) {
    let sizes = [1_000, 100_000, 1_000_000];
    let mut places = Vec::new();
    for size in sizes {
        let store = open(server, &format!("read_{size}")).await;
        places.push((fill(&store, size).await, store));
    }
    settle();
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
async fn fill<S: OperationStore + Clone>(store: &S, size: usize) -> Vec<OperationId> {
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
