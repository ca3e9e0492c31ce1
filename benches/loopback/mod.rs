//! A service in a process of its own on the loopback interface, clients that keep it busy, and what
//! each of their turns costs it.
//!
//! Services are compared by the CPU time of their process, not by the clock on the wall: that of the
//! clients is not in it. They take short rounds in turn, first to last, then last to first, and what
//! counts is the median of their ratios round by round: whoever else uses the machine makes a turn
//! dearer, at times by half, but does so to neighbouring rounds alike.

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use axum::Router;
use tokio::net::TcpListener;

/// How many connections are kept open, each with one request at a time.
const CLIENTS: usize = 8;
/// The unit of the times in `/proc/<pid>/stat`: 100 a second on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// A service to compare, and what a client does with it in one turn.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) serve: fn(TcpListener) -> Serving,
    pub(crate) turn: fn(&mut Connection) -> io::Result<()>,
}

/// A service that runs until its process ends.
pub(crate) type Serving = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// How long to measure.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    round: Duration,
}

/// What the turns of one round cost.
#[derive(Clone, Copy, Default)]
struct Cost {
    turns: u64,
    cpu: Duration,
    wall: Duration,
}

/// A service that runs. Dropping it ends it.
pub(crate) struct Server {
    process: Child,
    address: SocketAddr,
}

/// A connection that is kept open, with one request at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// What came back.
#[derive(Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) head: &'a str,
    pub(crate) body: &'a [u8],
}

impl Plan {
    /// What `cargo bench` measures, or, without its `--bench`, just enough to see that all works.
    pub(crate) fn from_args() -> Self {
        if env::args().any(|arg| arg == "--bench") {
            Self { rounds: 21, round: Duration::from_secs(1) }
        } else {
            Self { rounds: 1, round: Duration::from_millis(50) }
        }
    }
}

/// If this process was started to be one of the services, it is that until its parent goes.
pub(crate) fn serve_if_asked(contenders: &[Contender]) -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip_while(|arg| arg != "--serve").skip(1);
    let Some(name) = args.next() else { return Ok(()) };
    let contender = contenders.iter().find(|contender| contender.name == name);
    let serve = contender.ok_or("no such service")?.serve;
    thread::spawn(|| {
        // Nothing is ever sent: the end of it is the end of the parent.
        let _ = io::stdin().read(&mut [0]);
        process::exit(0);
    });
    // One thread for the service, and a core for its clients: with more, what a turn costs hangs on
    // which thread happens to wake which.
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(
        async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            println!("{}", listener.local_addr()?);
            Ok(serve(listener).await?)
        },
    )
}

/// Serves a router.
pub(crate) fn serve(listener: TcpListener, app: Router) -> Serving {
    Box::pin(async move { axum::serve(listener, app).await })
}

/// Has clients take turns with all of them, and prints what a turn costs each and how that compares
/// with the first.
pub(crate) fn compare(plan: Plan, contenders: &[Contender]) -> Result<(), Box<dyn Error>> {
    let servers =
        contenders.iter().map(|it| Server::start(it.name)).collect::<io::Result<Vec<_>>>()?;
    let mut rounds = Vec::new();
    for round in 0..=plan.rounds {
        let mut costs = vec![Cost::default(); contenders.len()];
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            costs[at] = servers[at].round(plan.round, contenders[at].turn)?;
        }
        rounds.push(costs);
    }
    // The first warms up caches, allocators and connections.
    rounds.remove(0);

    println!("{:<14} {:>9} {:>14}  CPU, ratio (quartiles)", "", "turns/s", "CPU us a turn");
    for (at, contender) in contenders.iter().enumerate() {
        let of = |value: fn(&Cost) -> f64| Figure::of(rounds.iter().map(|costs| value(&costs[at])));
        let ratio = Figure::of(rounds.iter().map(|costs| costs[at].micros() / costs[0].micros()));
        let (rate, micros) = (of(Cost::rate).median, of(Cost::micros).median);
        println!("{:<14} {rate:>9.0} {micros:>14.2}  {ratio}", contender.name);
    }
    Ok(())
}

/// What a number of rounds say together: their median and quartiles.
pub(crate) struct Figure {
    pub(crate) median: f64,
    quartiles: [f64; 2],
}

impl Figure {
    pub(crate) fn of(rounds: impl Iterator<Item = f64>) -> Self {
        let mut rounds: Vec<f64> = rounds.collect();
        rounds.sort_by(f64::total_cmp);
        let at = |quarter| rounds[(rounds.len() - 1) * quarter / 4];
        Self { median: at(2), quartiles: [at(1), at(3)] }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, third] = self.quartiles;
        write!(f, "{:.3} ({first:.3} to {third:.3})", self.median)
    }
}

impl Cost {
    fn turns(&self) -> f64 {
        f64::from(u32::try_from(self.turns).unwrap_or(u32::MAX))
    }

    fn micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.turns()
    }

    fn rate(&self) -> f64 {
        self.turns() / self.wall.as_secs_f64()
    }
}

impl Server {
    /// Starts this program again, to be the service of that name.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .args(["--serve", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().parse().map_err(io::Error::other)?;
        Ok(Self { process, address })
    }

    pub(crate) fn connect(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Connection { stream, received: Vec::new() })
    }

    fn round(
        &self,
        time: Duration,
        turn: fn(&mut Connection) -> io::Result<()>,
    ) -> io::Result<Cost> {
        let before = self.cpu()?;
        let start = Instant::now();
        let turns = thread::scope(|scope| {
            let client = || {
                let mut connection = self.connect()?;
                let mut turns = 0;
                while start.elapsed() < time {
                    turn(&mut connection)?;
                    turns += 1;
                }
                Ok(turns)
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            clients
                .into_iter()
                .map(|client| client.join().map_err(|_| io::Error::other("a client panicked"))?)
                .sum::<io::Result<u64>>()
        })?;
        Ok(Cost { turns, cpu: self.cpu()?.saturating_sub(before), wall: start.elapsed() })
    }

    /// The CPU time that the process has used, in its own code and in the kernel on its behalf.
    fn cpu(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The second field is the program's name in parentheses, whatever is in it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        let ticks = ticks.sum::<Result<u32, _>>().map_err(io::Error::other)?;
        Ok(TICK * ticks)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Connection {
    /// Sends a request and reads its answer, which says how long it is.
    pub(crate) fn send(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.stream.write_all(request)?;
        self.received.clear();
        while Answer::parse(&self.received).is_none() {
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.received.extend_from_slice(&chunk[..read]),
            }
        }
        Answer::parse(&self.received).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl<'a> Answer<'a> {
    /// The answer, once it is there as a whole.
    fn parse(received: &'a [u8]) -> Option<Self> {
        let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        let (head, body) = received.split_at(end + 4);
        let head = std::str::from_utf8(head).ok()?;
        let status = head.get(9..12)?.parse().ok()?;
        let answer = Self { status, head, body };
        let length: usize = answer.field("content-length")?.parse().ok()?;
        (body.len() >= length).then_some(answer)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head.lines().filter_map(|line| line.split_once(": "))
    }

    pub(crate) fn expect(&self, status: u16) -> io::Result<()> {
        if self.status == status {
            return Ok(());
        }
        Err(io::Error::other(format!("{status} was expected, and came:\n{}", self.head)))
    }
}
