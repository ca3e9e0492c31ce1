//! Drives the gateway at a steady rate of all five patterns, kills RabbitMQ in the middle, and tells what became
//! of each request. It starts a broker, the service of users and the gateway, each a process of its own, and
//! ends with an error if a request got no answer or an operation that was accepted did not succeed.
//!
//! - `RATE` is how many requests a second (default 2000), `SECONDS` how long (default 60).
//! - `RESTART`, if it is `no`, leaves the broker alone.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use microservices::setting;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

type Failure = Box<dyn Error + Send + Sync>;

/// What a client sends; each as often as the others.
const PATTERNS: [&str; 6] = [
    "a  GET /users/N",
    "a  POST /users",
    "b  POST /users, respond-async",
    "c  GET /model/users/N",
    "d  GET /cached/users/N",
    "e  GET /snapshot/users/N",
];
/// How many users there are before it begins.
const USERS: u64 = 500;
/// How often requests are sent: so many at once as the rate says.
const TICK: Duration = Duration::from_millis(5);
/// How long accepted operations may take to end once all is sent.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What became of the requests of one pattern.
#[derive(Default)]
struct Tally {
    micros: Vec<u32>,
    answers: BTreeMap<String, u64>,
}

struct Load {
    client: Client,
    base: String,
    tallies: [Mutex<Tally>; PATTERNS.len()],
    accepted: Mutex<Vec<String>>,
    created: AtomicU64,
    next: AtomicU64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let rate: u64 = setting("RATE", "2000").parse()?;
    let seconds: u64 = setting("SECONDS", "60").parse()?;
    let restarts = setting("RESTART", "yes") != "no";
    let folder = tempfile::tempdir()?;
    // None of those that the system gives to connections: it would give it away while the broker is not there.
    let amqp_port = u16::try_from(20_000 + std::process::id() % 5_000 * 2)?;
    let port = free_port()?;
    let base = format!("http://127.0.0.1:{port}");
    let broker = broker(folder.path(), amqp_port)?;
    let amqp = format!("amqp://127.0.0.1:{amqp_port}");
    let start = |name: &str| {
        let program = std::env::current_exe()?.with_file_name(name);
        let child = Command::new(program)
            .env("AMQP_URL", &amqp)
            .env("LISTEN", format!("127.0.0.1:{port}"))
            .env("DATA_DIR", folder.path().join("gateway"))
            .env("USERS_DB", folder.path().join("users.db"))
            .stdout(Stdio::null())
            .spawn()?;
        Ok::<_, io::Error>(Process(child))
    };
    let _users = start("user-service")?;
    let _gateway = start("gateway")?;

    let client = Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
    let load = Arc::new(Load {
        client,
        base,
        tallies: Default::default(),
        accepted: Mutex::default(),
        created: AtomicU64::new(0),
        next: AtomicU64::new(0),
    });
    say("Filling.")?;
    load.fill().await?;
    say(&format!("{rate} requests a second for {seconds} s."))?;
    // The broker's own start is not part of what is measured, its absence is.
    let mut broker = Some(broker);
    let restart = Duration::from_secs(seconds / 2);
    let began = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sending = JoinSet::new();
    let mut sent = 0;
    let mut restarting = None;
    while began.elapsed() < Duration::from_secs(seconds) {
        let due = ticks.tick().await;
        let wanted = rate * u64::try_from(due.duration_since(began).as_millis())? / 1_000;
        while sent < wanted {
            sent += 1;
            sending.spawn(Arc::clone(&load).send(usize::try_from(sent)? % PATTERNS.len(), due));
        }
        while sending.try_join_next().is_some() {}
        if restarts && restarting.is_none() && began.elapsed() > restart {
            // SIGKILL, and at once another on the same files.
            drop(broker.take());
            say("RabbitMQ was killed, and is started again.")?;
            restarting = Some(self::broker(folder.path(), amqp_port)?);
        }
    }
    while sending.join_next().await.is_some() {}
    let unanswered = load.report(sent)?;
    let lost = load.settle().await?;
    if unanswered > 0 || lost > 0 {
        return Err(format!("{unanswered} requests without answer, {lost} operations lost").into());
    }
    Ok(())
}

impl Load {
    /// Creates the users to read, which also waits until all is up.
    async fn fill(&self) -> Result<(), Failure> {
        let began = Instant::now();
        while self.created.load(Ordering::Relaxed) < USERS {
            let answer = self.post(false).await;
            if answer.is_err() || answer.is_ok_and(|answer| answer.status() != 201) {
                if began.elapsed() > PATIENCE {
                    return Err("the gateway does not come up".into());
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    async fn post(&self, is_async: bool) -> reqwest::Result<reqwest::Response> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let user =
            json!({"name": format!("user {number}"), "email": format!("{number}@example.com")});
        let mut request = self.client.post(format!("{}/users", self.base)).json(&user);
        if is_async {
            request = request.header("prefer", "respond-async");
        }
        let answer = request.send().await?;
        if answer.status() == 201 {
            self.created.fetch_add(1, Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// Sends one request that was due at that time, and notes its answer.
    async fn send(self: Arc<Self>, pattern: usize, due: Instant) {
        let id = self.next.load(Ordering::Relaxed) % USERS + 1;
        let get = |path: &str| self.client.get(format!("{}{path}/{id}", self.base)).send();
        let answer = match pattern {
            0 => get("/users").await,
            1 => self.post(false).await,
            2 => self.post(true).await,
            3 => get("/model/users").await,
            4 => get("/cached/users").await,
            _ => get("/snapshot/users").await,
        };
        let word = match answer {
            Err(error) => {
                format!("none ({})", if error.is_timeout() { "timeout" } else { "error" })
            }
            Ok(answer) => {
                let (status, monitor) = (answer.status(), monitor(&answer));
                match (answer.bytes().await, monitor) {
                    (Err(_), _) => "none (cut off)".to_owned(),
                    (Ok(_), Some(monitor)) if status == 202 => {
                        lock(&self.accepted).push(monitor);
                        "202".to_owned()
                    }
                    (Ok(_), _) => status.as_u16().to_string(),
                }
            }
        };
        let micros = u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX);
        let mut tally = lock(&self.tallies[pattern]);
        tally.micros.push(micros);
        *tally.answers.entry(word).or_default() += 1;
    }

    /// Prints what became of all, and says how many got no answer.
    fn report(&self, sent: u64) -> Result<u64, Failure> {
        let mut unanswered = 0;
        say(&format!(
            "\n{:<32}{:>8}{:>9}{:>9}{:>9}{:>9}  answers",
            "milliseconds", "sent", "p50", "p99", "p99.9", "max"
        ))?;
        for (pattern, tally) in PATTERNS.iter().zip(&self.tallies) {
            let mut tally = lock(tally);
            tally.micros.sort_unstable();
            let mut line = format!("{pattern:<32}{:>8}", tally.micros.len());
            for part in [500, 990, 999, 1_000] {
                let place = (tally.micros.len() * part / 1_000).saturating_sub(1);
                let micros = tally.micros.get(place).copied().unwrap_or_default();
                write!(line, "{:>9.1}", f64::from(micros) / 1_000.0)?;
            }
            line.push(' ');
            for (answer, count) in &tally.answers {
                write!(line, " {answer}: {count}")?;
                if answer.starts_with("none") {
                    unanswered += count;
                }
            }
            say(&line)?;
        }
        say(&format!("{sent} sent, {unanswered} without answer"))?;
        Ok(unanswered)
    }

    /// Waits for the end of all that was accepted, and says how much did not succeed.
    async fn settle(&self) -> Result<u64, Failure> {
        let mut left = std::mem::take(&mut *lock(&self.accepted));
        let all = left.len();
        let (mut failed, began) = (Vec::new(), Instant::now());
        while !left.is_empty() && began.elapsed() < PATIENCE {
            let mut live = Vec::new();
            for monitor in left {
                let answer = self.client.get(format!("{}{monitor}", self.base)).send().await?;
                let document: Value = answer.json().await?;
                match document["status"].as_str() {
                    Some("succeeded") => {}
                    Some("pending" | "running") => live.push(monitor),
                    _ => failed.push(document.to_string()),
                }
            }
            left = live;
            sleep(Duration::from_millis(200)).await;
        }
        let waited = began.elapsed().as_secs_f64();
        say(&format!(
            "{all} operations accepted, {} failed, {} unfinished {waited:.1} s after the last request",
            failed.len(),
            left.len()
        ))?;
        for document in failed.iter().take(3) {
            say(document)?;
        }
        Ok(u64::try_from(failed.len() + left.len())?)
    }
}

fn monitor(answer: &reqwest::Response) -> Option<String> {
    answer.headers().get("content-location")?.to_str().ok().map(str::to_owned)
}

fn broker(folder: &Path, port: u16) -> io::Result<Process> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/servers/run");
    let child = Command::new(script)
        .arg("rabbitmq")
        .arg(folder.join("rabbitmq"))
        .arg(port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Process(child))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}
