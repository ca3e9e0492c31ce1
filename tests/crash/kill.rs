//! SIGKILL at random moments, and clients that remember each 202 and each key.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{self, Answer};
use super::servers::{Server, Sort};
use super::{Service, eventually, free_address};

const CLIENTS: usize = 8;

/// What the clients were told.
#[derive(Default)]
struct Promises {
    /// The operation of each key, and what kind of work it is.
    named: Mutex<HashMap<String, (String, &'static str)>>,
    /// The operations that were accepted without a key.
    unnamed: Mutex<HashMap<String, &'static str>>,
    /// How many reached a process.
    calls: AtomicUsize,
    succeeded: AtomicUsize,
}

#[test]
fn nothing_that_was_accepted_is_lost_or_stuck_or_done_twice() {
    run(1, None);
}

/// Three processes share a store; now and then it is the server that is killed.
#[test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
fn nor_by_three_processes_on_postgres() {
    run(3, Some(Server::start(Sort::Postgres)));
}

/// As those on PostgreSQL.
#[test]
#[ignore = "needs Redis: run ./tests/all"]
fn nor_by_three_processes_on_redis() {
    run(3, Some(Server::start(Sort::Redis)));
}

fn run(replicas: usize, mut server: Option<Server>) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kills = number("CRASH_KILLS").unwrap_or(25);
    let seed = number("RA_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("RA_SEED={seed} CRASH_KILLS={kills}");
    let folder = tempfile::tempdir().unwrap();
    let store = server.as_ref().map(Server::url).unwrap_or_default();
    let start = |address: &str| Service::start_on(&store, folder.path(), address, "");
    let addresses: Vec<String> = (0..replicas).map(|_| free_address()).collect();
    let mut services: Vec<Service> = addresses.iter().map(|address| start(address)).collect();

    let (promises, over) = (Arc::new(Promises::default()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (promises, over) = (Arc::clone(&promises), Arc::clone(&over));
            let addresses = addresses.clone();
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(1 + client as u64));
            thread::spawn(move || {
                for number in 0.. {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    promises.ask(&addresses, &format!("key-{client}-{number}"), &mut random);
                }
            })
        })
        .collect();

    let mut random = fastrand::Rng::with_seed(seed);
    let began = Instant::now();
    let mut of_server = 0;
    for kill in 1..=kills {
        thread::sleep(Duration::from_millis(random.u64(0..250)));
        match &mut server {
            Some(server) if kill % 8 == 0 => {
                server.kill();
                thread::sleep(Duration::from_millis(random.u64(0..1_000)));
                server.start_again();
                of_server += 1;
            }
            _ => {
                let which = random.usize(..replicas);
                assert!(services[which].is_running(), "it ended by itself");
                drop(services.remove(which));
                services.insert(which, start(&addresses[which]));
            }
        }
        if kill % 50 == 0 {
            let known = promises.named.lock().unwrap().len();
            println!("{kill} kills in {:?}, {known} keys", began.elapsed());
        }
    }
    over.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    if server.is_some() {
        println!("{of_server} of the kills were of the server");
    }
    promises.check(&services[0], kills);
}

impl Promises {
    /// Asks for one piece of work until there is an answer, sometimes twice.
    fn ask(&self, addresses: &[String], key: &str, random: &mut fastrand::Rng) {
        let kind = ["repeat", "repeat", "once", "ephemeral"][random.usize(..4)];
        let prefer =
            ["respond-async", "respond-async", "respond-async, wait=1", ""][random.usize(..4)];
        let target = format!("/{kind}/{}", random.u64(0..60));
        // Without a key nobody can tell whether a request without an answer was accepted.
        if random.u8(..5) == 0 {
            let address = &addresses[random.usize(..addresses.len())];
            if let Some(answer) = self.call(address, &target, "", prefer) {
                if answer.status == 202 {
                    self.unnamed.lock().unwrap().insert(answer.operation(), kind);
                }
            }
            return;
        }
        for _ in 0..=random.u8(..2) {
            let began = Instant::now();
            let answer = loop {
                let address = &addresses[random.usize(..addresses.len())];
                match self.call(address, &target, key, prefer) {
                    // Work that was interrupted for good is an answer of its own.
                    Some(answer) if answer.status != 503 => break answer,
                    _ => thread::sleep(Duration::from_millis(random.u64(1..30))),
                }
                assert!(began.elapsed() < Duration::from_secs(60), "{key} gets no answer");
            };
            match answer.status {
                201 | 202 => self.learn(key, &answer, kind),
                500 if kind != "repeat" => assert!(answer.content.contains("interrupted")),
                _ => panic!("{key}: {answer:?}"),
            }
        }
    }

    fn call(&self, address: &str, target: &str, key: &str, prefer: &str) -> Option<Answer> {
        let answer = client::post(address, target, key, prefer);
        let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if answer.as_ref().err().is_some_and(is_refused) {
            // Nobody listens yet again: how long that takes is the machine's business.
            return None;
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        let answer = answer.ok()?;
        self.succeeded.fetch_add(1, Ordering::SeqCst);
        Some(answer)
    }

    /// One key, one operation.
    fn learn(&self, key: &str, answer: &Answer, kind: &'static str) {
        let operation = answer.operation();
        let mut named = self.named.lock().unwrap();
        let (known, _) = named.entry(key.to_owned()).or_insert((operation.clone(), kind));
        assert_eq!(*known, operation, "{key} stands for two operations");
    }

    fn check(&self, service: &Service, kills: u64) {
        let address = &service.address;
        let named = self.named.lock().unwrap();
        let unnamed = self.unnamed.lock().unwrap();
        let distinct: HashSet<_> = named.values().map(|(operation, _)| operation).collect();
        assert_eq!(distinct.len(), named.len(), "two keys stand for one operation");
        let effects = service.effects();
        let mut began: HashMap<&str, Vec<u32>> = HashMap::new();
        for effect in effects.iter().filter(|effect| effect.word == "began") {
            began.entry(&effect.operation).or_default().push(effect.attempt);
        }
        let (mut again, mut interrupted) = (0, 0);
        let all = named.values().map(|(operation, kind)| (operation, *kind));
        for (id, kind) in all.chain(unnamed.iter().map(|(operation, kind)| (operation, *kind))) {
            let monitor = format!("/operations/{id}");
            let mut ended = serde_json::Value::Null;
            eventually(&format!("{id} ({kind}) is stuck"), || {
                let answer = client::get(address, &monitor).unwrap();
                if answer.status == 503 {
                    // The server was killed last, and has just come back.
                    return false;
                }
                assert_eq!(answer.status, 200, "{id} ({kind}) is lost: {answer:?}");
                ended = answer.json();
                ended.get("finished").is_some()
            });
            let attempt = ended["attempt"].as_u64().unwrap();
            let result = format!("{monitor}/result");
            let first = client::get(address, &result).unwrap();
            assert_eq!(client::get(address, &result).unwrap().content, first.content);
            if ended["status"] == "succeeded" {
                // What is recorded is what the attempt of record answered.
                let answer = (id.as_str(), attempt);
                assert_eq!(first.content, serde_json::to_string(&answer).unwrap());
                let done = |effect: &super::service::Effect| {
                    effect.word == "ended"
                        && effect.operation == *id
                        && u64::from(effect.attempt) == attempt
                };
                assert!(effects.iter().chain(&service.effects()).any(done), "{id} was not done");
            } else {
                assert_eq!(ended["status"], "failed", "{id} ({kind}): {ended}");
                let error = ended["error"]["type"].as_str().unwrap();
                assert!(error.ends_with(":interrupted") && kind != "repeat", "{kind}: {ended}");
                interrupted += 1;
            }
            let attempts = began.get(id.as_str()).map_or(&[][..], |attempts| attempts);
            let once: HashSet<_> = attempts.iter().collect();
            assert_eq!(once.len(), attempts.len(), "{id} ({kind}): an attempt began twice");
            if kind != "repeat" {
                assert!(attempts.len() <= 1, "{id} ({kind}) ran {} times", attempts.len());
            }
            again += usize::from(attempts.len() > 1);
        }
        check_list(address, &distinct);

        let (calls, succeeded) =
            (self.calls.load(Ordering::SeqCst), self.succeeded.load(Ordering::SeqCst));
        println!(
            "{kills} kills: {} operations accepted, 0 lost, 0 stuck, 0 doubled; {again} were done \
             again by another process, {interrupted} ended as interrupted; {succeeded} of {calls} \
             calls were answered",
            named.len() + unnamed.len(),
        );
        // Else it shows nothing: kills that hit nobody, or a service that answers nobody.
        assert!(calls > succeeded, "no call was ever cut off");
        assert!(again > 0 && interrupted > 0, "no work was ever cut off");
        assert!(succeeded * 5 >= calls, "only {succeeded} of {calls} calls were answered");
    }
}

/// The list holds each operation of a key, and none twice.
fn check_list(address: &str, distinct: &HashSet<&String>) {
    let mut listed = HashSet::new();
    let mut page = "/operations?limit=100".to_owned();
    loop {
        let answer = client::get(address, &page).unwrap();
        for operation in answer.json()["operations"].as_array().unwrap() {
            let id = operation["id"].as_str().unwrap().to_owned();
            assert!(listed.insert(id), "the list repeats itself");
        }
        let Some(link) = answer.field("link").map(str::to_owned) else { break };
        link.split(['<', '>']).nth(1).unwrap().clone_into(&mut page);
    }
    for id in distinct {
        assert!(listed.contains(*id), "{id} is in no list");
    }
}
