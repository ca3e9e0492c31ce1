//! Servers of a test's own, which may be killed, stopped and started again, and the ones that many tests
//! share.

#![allow(dead_code, reason = "not every test that has this module wants all of it")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "to panic is how a test fails")]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The server that `./tests/all` started for all tests, or that is yours.
pub(crate) fn shared(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run ./tests/all"))
}

/// What `tests/servers/run` can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Postgres,
    /// Its settings are the port of the PostgreSQL behind it and the mode of its pool.
    PgBouncer,
    Redis,
    RabbitMq,
}

/// A server of this test's own. It ends, and its data go, when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    sort: Sort,
    folder: TempDir,
    port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts it and waits until it answers.
    pub(crate) fn start(sort: Sort) -> Self {
        Self::start_with(sort, &[])
    }

    /// Starts it with settings of its own, and waits until it answers.
    pub(crate) fn start_with(sort: Sort, settings: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let port = if sort == Sort::RabbitMq { free_pair() } else { free_port() };
        let mut server = Self { sort, folder, port, settings, child: None };
        server.start_again();
        server
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        match self.sort {
            Sort::Postgres | Sort::PgBouncer => {
                format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
            }
            Sort::Redis => format!("redis://127.0.0.1:{}", self.port),
            Sort::RabbitMq => format!("amqp://127.0.0.1:{}", self.port),
        }
    }

    /// The port that it listens on, on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The CPU time that all of it has used.
    pub(crate) fn cpu(&self) -> Duration {
        let Some(child) = &self.child else { return Duration::ZERO };
        // Of the threads that live, to the nanosecond.
        let threads = |id: u32| {
            let tasks =
                std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
            let nanos = tasks.filter_map(|task| {
                let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
                stat.split_whitespace().next()?.parse::<u64>().ok()
            });
            nanos.sum::<u64>()
        };
        let live: u64 = children(child.id()).into_iter().chain([child.id()]).map(threads).sum();
        // Of the children that have ended, in hundredths of a second.
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        // The name, which may have spaces in it, ends with the last bracket.
        let after = stat.rsplit_once(')').map(|(_, after)| after).unwrap_or_default();
        let fields = after.split_whitespace().skip(13).take(2);
        let ended: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_nanos(live) + Duration::from_millis(ended * 10)
    }

    /// Ends it with SIGKILL, and waits until it and what it started are gone.
    pub(crate) fn kill(&mut self) {
        self.end("-KILL");
    }

    /// Ends it with SIGTERM and starts it again. What it knows is on disk then: RabbitMQ writes its list of
    /// queues up to five seconds late, more on a busy machine, and one that is killed before that has lost
    /// them with all that was in them.
    pub(crate) fn restart(&mut self) {
        self.end("-TERM");
        self.start_again();
    }

    fn end(&mut self, name: &str) {
        let Some(mut child) = self.child.take() else { return };
        let children = children(child.id());
        signal(name, child.id());
        child.wait().unwrap();
        // Without their parent the server's children end by themselves, in their own time; one that is
        // stopped does not.
        if name == "-KILL" {
            for id in &children {
                signal(name, *id);
            }
        }
        eventually("a server's process stays", || {
            children.iter().all(|id| !Path::new(&format!("/proc/{id}")).exists())
        });
    }

    /// Has RabbitMQ's own tool set something.
    pub(crate) fn rabbitmqctl(&self, arguments: &[&str]) {
        let status = Command::new("/usr/lib/rabbitmq/bin/rabbitmqctl")
            .args(["-n", &format!("test{}@localhost", self.port)])
            .args(arguments)
            .env("HOME", self.folder.path())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "{arguments:?}");
    }

    /// Starts it after it was killed, on the same data and port.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        // Also from the tests of an example.
        let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let script = folders.find_map(|folder| {
            Some(folder.join("tests/servers/run")).filter(|script| script.exists())
        });
        let sort = format!("{:?}", self.sort).to_lowercase();
        let mut command = Command::new(script.unwrap());
        command.arg(sort).arg(self.folder.path()).arg(self.port.to_string()).args(&self.settings);
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        eventually("a server does not start", || self.answers());
    }

    /// Stops all of it (SIGSTOP), or lets it go on.
    pub(crate) fn pause(&self, pause: bool) {
        let Some(child) = &self.child else { return };
        let name = if pause { "-STOP" } else { "-CONT" };
        let mut all = children(child.id());
        all.push(child.id());
        for id in &all {
            signal(name, *id);
        }
        if pause {
            // On a busy machine a thread may go on for a while.
            eventually("a server does not stand still", || all.iter().all(|id| is_stopped(*id)));
        }
    }

    /// Whether it takes questions: to accept a connection is not enough while it recovers.
    fn answers(&mut self) -> bool {
        let status = self.child.as_mut().unwrap().try_wait().unwrap();
        assert!(status.is_none(), "{:?} has ended: {status:?}", self.sort);
        match self.sort {
            Sort::Postgres | Sort::PgBouncer => Command::new("pg_isready")
                .args(["-q", "-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()])
                .status()
                .is_ok_and(|status| status.success()),
            Sort::Redis => {
                use std::io::{Read, Write};
                let ping = || {
                    let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
                    stream.write_all(b"PING\r\n")?;
                    let mut answer = [0; 5];
                    stream.read_exact(&mut answer)?;
                    Ok::<_, std::io::Error>(&answer == b"+PONG")
                };
                ping().unwrap_or(false)
            }
            Sort::RabbitMq => {
                use std::io::{Read, Write};
                let greet = || {
                    let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
                    stream.write_all(b"AMQP\0\0\x09\x01")?;
                    let mut answer = [0];
                    stream.read_exact(&mut answer)?;
                    // The frame of a method: what it can do.
                    Ok::<_, std::io::Error>(answer == [1])
                };
                greet().unwrap_or(false)
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn signal(name: &str, process: u32) {
    // It may have ended by itself.
    let _ = Command::new("kill").args([name, &process.to_string()]).stderr(Stdio::null()).status();
}

fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Whether all threads of a process are stopped.
fn is_stopped(id: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{id}/task")) else { return true };
    threads.filter_map(Result::ok).all(|thread| {
        // One that has just ended has no state.
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['T', 'Z', 'X']))
    })
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A port that nobody listens on, nor on the next. Not of those that the system gives to connections: it
/// would give one away while the server is not there.
fn free_pair() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let random = (0_u32..).map(|number| RandomState::new().hash_one(number) % 5_000);
    let mut ports = random.filter_map(|place| u16::try_from(20_000 + 2 * place).ok());
    ports.find(|port| is_free(*port) && is_free(port + 1)).unwrap()
}

/// Asks until it is so.
#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}
