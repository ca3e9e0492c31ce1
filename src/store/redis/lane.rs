//! A connection, and the calls that go over it together.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Script, Value};

use super::answers::{Answers, Told, parsed};
use super::call::{Call, add_due, name, packed};
use super::error::Failure;
use super::open::{RedisOpenErrorKind, Settings, is_replica};
use super::scripts::Scripts;
use crate::lock::lock;
use crate::operation::{Due, OperationId};
use crate::store::server::{AtOnce, Lane, ServerClock};
use crate::time::Timestamp;

/// What all lanes of a store have in common.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) settings: Settings,
    pub(super) prefix: String,
    pub(super) scripts: Scripts,
    pub(super) clock: ServerClock,
    /// How many replicas must have a write, and for how long to wait for them.
    pub(super) replicas: Option<(usize, Duration)>,
    pub(super) doubtful: Doubtful,
}

/// Acceptances of which it is not known that enough replicas have them, until somebody who asks for one learns that
/// they do. Whoever asks waits for the replicas too: what the primary alone has is no answer.
#[derive(Debug, Default)]
pub(super) struct Doubtful(Mutex<VecDeque<OperationId>>);

impl Doubtful {
    /// As many as can wait to be asked for; of more, those that have waited longest are let go.
    const MAX: usize = 10_000;

    fn add(&self, new: &[OperationId]) {
        if new.is_empty() {
            return;
        }
        let mut ids = lock(&self.0);
        ids.extend(new);
        let over = ids.len().saturating_sub(Self::MAX);
        ids.drain(..over);
    }

    fn has(&self, id: OperationId) -> bool {
        lock(&self.0).contains(&id)
    }

    fn remove(&self, id: OperationId) {
        let mut ids = lock(&self.0);
        if let Some(place) = ids.iter().rposition(|doubtful| *doubtful == id) {
            ids.remove(place);
        }
    }
}

/// How many bodies are read at once at the most.
const MAX_BODIES: usize = 64;

/// For how long a server is taken to be set as it was, when something is accepted.
const CHECKED_FOR: Duration = Duration::from_secs(2);

/// A lane of its own for a connection.
pub(super) struct Connected {
    line: Arc<Line>,
    bodies_at_once: AtOnce,
    /// When the server of this connection was looked at last.
    checked: Option<Instant>,
}

impl Connected {
    pub(super) fn new(line: Arc<Line>) -> Self {
        Self { line, bodies_at_once: AtOnce::new(MAX_BODIES), checked: None }
    }

    /// Looks now and then whether the server still keeps what it is told, before it is given more. If not, what was to
    /// be accepted is refused, and the rest goes on. False if the connection is lost.
    async fn check(
        &mut self,
        connection: &mut MultiplexedConnection,
        calls: &mut Vec<Call>,
    ) -> bool {
        let accepts = calls.iter().any(|call| matches!(call, Call::Accept(..)));
        if !accepts || self.checked.is_some_and(|at| at.elapsed() < CHECKED_FOR) {
            return true;
        }
        let kind = match self.line.settings.durability(connection).await {
            Ok(_) => {
                self.checked = Some(Instant::now());
                return true;
            }
            Err(error) => error.kind(),
        };
        if kind == RedisOpenErrorKind::Unreachable {
            return false;
        }
        let (refused, rest) = calls.drain(..).partition(|call| matches!(call, Call::Accept(..)));
        *calls = rest;
        let refused: Vec<Call> = refused;
        for call in refused.into_iter().filter(Call::begin) {
            call.fail(&Failure::Weaker(kind));
        }
        true
    }

    /// Makes the calls at once, and says whether the connection can be used any longer.
    async fn make(&mut self, connection: &mut MultiplexedConnection, calls: Vec<Call>) -> bool {
        let Self { line, bodies_at_once, .. } = self;
        let bodies = calls.iter().filter(|call| call.reads_body()).count();
        let calls: Vec<Call> = calls.into_iter().filter(Call::begin).collect();
        if calls.is_empty() {
            return true;
        }
        let batch = Batch::new(line, &calls);
        // Whoever finds no answer asks at once, maybe over the other connection.
        let accepted = calls.iter().filter_map(|call| match call {
            Call::Accept(accept, _) if line.replicas.is_some() => Some(accept.operation.id()),
            _ => None,
        });
        let accepted: Vec<OperationId> = accepted.collect();
        line.doubtful.add(&accepted);
        let mut answers = match batch.send(line, connection).await {
            Ok(answers) => answers,
            Err(failure) => {
                if bodies > 0 {
                    bodies_at_once.failed(bodies);
                }
                for call in calls {
                    call.fail(&failure);
                }
                return false;
            }
        };
        if bodies > 0 {
            bodies_at_once.went_well();
        }
        let mut settled = answers.settle();
        if answers.doubt.is_none() {
            settled.extend(accepted);
        }
        for id in settled {
            line.doubtful.remove(id);
        }
        let mut goes_on = true;
        for call in calls {
            goes_on &= answers.give(call);
        }
        goes_on
    }
}

impl Lane<Call> for Connected {
    type Session = MultiplexedConnection;

    async fn connect(&mut self) -> Option<MultiplexedConnection> {
        let Self { line, .. } = self;
        let mut connection = line.settings.open().await.ok()?;
        // After a failover its reads may be of long ago.
        if is_replica(&mut connection).await.ok()? {
            return None;
        }
        load(line, &mut connection).await.ok()?;
        self.checked = None;
        Some(connection)
    }

    async fn lost(_: &mut MultiplexedConnection) {
        // The driver tells with the next call.
        std::future::pending::<()>().await;
    }

    async fn serve(
        &mut self,
        connection: &mut MultiplexedConnection,
        mut calls: Vec<Call>,
    ) -> bool {
        if !self.check(connection, &mut calls).await {
            return false;
        }
        let (mut bodies, mut calls): (Vec<_>, Vec<_>) =
            calls.into_iter().partition(Call::reads_body);
        loop {
            let some = bodies.split_off(bodies.len().saturating_sub(self.bodies_at_once.count()));
            calls.extend(some);
            let goes_on = self.make(connection, std::mem::take(&mut calls)).await;
            // What is left once the connection is lost has not begun.
            if !goes_on || bodies.is_empty() {
                return goes_on;
            }
        }
    }
}

/// What the server is asked at once: its time, all that is asked of the same kind with one command each,
/// then the rest.
struct Batch {
    pipe: Pipeline,
    ids: Vec<OperationId>,
    /// Whether any call accepts, changes, and reads by id.
    has: [bool; 3],
    /// Whether the last command waits for replicas.
    waits: bool,
    /// Whether the last command but one is a write: what is told of may be another connection's, and who waits does so
    /// for what its own wrote, and all before.
    marks: bool,
    /// Acceptances of which the reads decide.
    doubtful: Vec<OperationId>,
}

async fn load(line: &Line, connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let mut pipe = Pipeline::new();
    for script in line.scripts.all() {
        pipe.load_script(script).ignore();
    }
    pipe.query_async(connection).await
}

impl Batch {
    fn new(line: &Line, calls: &[Call]) -> Self {
        let [mut accept, mut change] =
            [&line.scripts.accept, &line.scripts.change].map(|script| line.script(script));
        let (mut ids, mut rest, mut has) = (Vec::new(), Vec::new(), [false; 3]);
        let (mut waits, mut doubtful) = (false, Vec::new());
        for call in calls {
            waits |= line.replicas.is_some() && call.writes();
            match call {
                Call::Accept(new, _) => {
                    has[0] = true;
                    new.add_to(&mut accept);
                }
                Call::Swap(swap, value, follows, _) => {
                    has[1] = true;
                    change.arg(name(swap.next.id())).arg(swap.expected);
                    add_due(&mut change, &swap.next);
                    change.arg(value).arg(u8::from(swap.outcome.is_some()));
                    change.arg(swap.outcome.as_ref().map(packed).unwrap_or_default());
                    change.arg(follows.len());
                    for accept in follows {
                        accept.add_to(&mut change);
                    }
                }
                Call::Remove(id, expected, _) => {
                    has[1] = true;
                    change.arg(name(*id)).arg(*expected);
                    for nothing in ["-", "-", "-", "", "0", "", "0"] {
                        change.arg(nothing);
                    }
                }
                Call::Get(id, decides, _) => {
                    has[2] = true;
                    if *decides && line.replicas.is_some() && line.doubtful.has(*id) {
                        doubtful.push(*id);
                        waits = true;
                    }
                    ids.push(*id);
                }
                other => rest.extend(line.commands(other)),
            }
        }
        let mut get = redis::cmd("MGET");
        for id in &ids {
            get.arg(line.key("o:", *id));
        }
        let mut pipe = Pipeline::new();
        pipe.ignore_errors().cmd("TIME");
        let shared = [accept, change, get].into_iter().zip(has);
        for command in shared.filter_map(|(command, has)| has.then_some(command)).chain(rest) {
            pipe.add_command(command);
        }
        // An acceptance may have been made before, under its key.
        let marks = line.replicas.is_some() && (has[0] || !doubtful.is_empty());
        if marks {
            pipe.cmd("SET").arg(format!("{}w", line.prefix)).arg("");
        }
        if let Some((replicas, patience)) = line.replicas.filter(|_| waits) {
            pipe.cmd("WAIT").arg(replicas).arg(millis(patience));
        }
        Self { pipe, ids, has, waits, marks, doubtful }
    }

    /// Sends all in one go. What fails only because the server has forgotten its scripts is sent again.
    async fn send(
        self,
        line: &Line,
        connection: &mut MultiplexedConnection,
    ) -> Result<Answers, Failure> {
        let asked = Instant::now();
        let answers: Vec<RedisResult<Value>> = self.pipe.query_async(connection).await?;
        let mut answers: Vec<Result<Value, Failure>> =
            answers.into_iter().map(|answer| answer.map_err(Failure::from)).collect();
        let is_forgotten = |answer: &Result<Value, Failure>| {
            answer.as_ref().is_err_and(Failure::is_unknown_script)
        };
        if answers.iter().any(is_forgotten) {
            // Of what is done already, nothing is taken back by a failure here.
            let loaded = load(line, connection).await;
            let wait = answers.len() - usize::from(self.waits) - usize::from(self.marks);
            for (at, (answer, command)) in answers.iter_mut().zip(self.pipe.cmd_iter()).enumerate()
            {
                if is_forgotten(answer) || at >= wait {
                    let again = match &loaded {
                        Ok(()) => command.query_async(connection).await,
                        Err(error) => Err(error.clone()),
                    };
                    *answer = again.map_err(Failure::from);
                }
            }
        }
        Ok(self.understand(line, asked, answers))
    }

    /// Which answer is whose. One that is an error, or of another form, fails nothing but what it is of.
    fn understand(
        self,
        line: &Line,
        asked: Instant,
        mut answers: Vec<Result<Value, Failure>>,
    ) -> Answers {
        let mut doubt = None;
        if let Some((replicas, _)) = line.replicas.filter(|_| self.waits) {
            let count = answers.pop().and_then(|count| parsed::<usize>(count.ok()?).ok());
            let is_written = !self.marks || answers.pop().is_some_and(|it| it.is_ok());
            let is_sure = is_written && count.is_some_and(|count| count >= replicas);
            doubt = (!is_sure).then_some(Failure::TooFewReplicas);
        }
        let mut answers = answers.into_iter();
        let time = answers.next().unwrap_or(Err(Failure::Unexpected));
        let now = time
            .and_then(parsed::<(i64, i64)>)
            .map(|(seconds, micros)| Timestamp::from_unix_millis(seconds * 1_000 + micros / 1_000));
        if let Ok(now) = now {
            line.clock.learn(now, asked);
        }
        let [accepted, changed, found] =
            self.has.map(|has| if has { answers.next() } else { None });
        let found = found.unwrap_or_else(|| Ok(Value::Array(Vec::new())));
        let found = found.and_then(parsed::<Vec<Option<Vec<u8>>>>).map(|found| {
            let found = self.ids.into_iter().zip(found);
            found.filter_map(|(id, value)| Some((id, value?))).collect()
        });
        Answers {
            now,
            accepted: Told::new(accepted),
            changed: Told::new(changed),
            found,
            rest: answers.collect::<Vec<_>>().into_iter(),
            doubt,
            doubtful: self.doubtful,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Line {
    fn key(&self, what: &str, id: OperationId) -> String {
        format!("{}{what}{}", self.prefix, name(id))
    }

    fn script(&self, script: &Script) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(script.get_hash()).arg(1).arg(&self.prefix);
        cmd
    }

    /// What a call asks of the server, one or two commands.
    fn commands(&self, call: &Call) -> Vec<Cmd> {
        let get = |what: &str, id: OperationId| {
            let mut cmd = redis::cmd("GET");
            cmd.arg(self.key(what, id));
            cmd
        };
        let scripts = &self.scripts;
        let mut cmd;
        match call {
            Call::Input(id, _) => return vec![get("o:", *id), get("i:", *id)],
            Call::Outcome(id, _) => return vec![get("o:", *id), get("u:", *id)],
            Call::Purge(limit, _) => {
                cmd = self.script(&scripts.purge);
                cmd.arg(*limit);
            }
            Call::ToClaim(limit, kept, kinds, _) => {
                cmd = self.script(&scripts.to_claim);
                cmd.arg(*limit).arg(millis(*kept));
                cmd.arg(if kinds.is_some() { "these" } else { "all" });
                for kind in kinds.iter().flatten() {
                    cmd.arg(kind);
                }
            }
            Call::Due(due, limit, passed, _) => {
                cmd = self.script(&scripts.due);
                cmd.arg(if *due == Due::Settle { "s" } else { "x" }).arg(*limit).arg(*passed);
            }
            Call::List(owner, before, limit, _) => {
                cmd = self.script(&scripts.list);
                let from = before.map_or("+".to_owned(), |id| format!("({}", name(id)));
                cmd.arg(owner).arg(from).arg(*limit);
            }
            // The time is asked for with every batch, the rest together.
            Call::Now(_) | Call::Get(..) | Call::Accept(..) | Call::Swap(..) | Call::Remove(..) => {
                return Vec::new();
            }
        }
        vec![cmd]
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::Accept;
    use super::*;
    use crate::operation::{Change, NewOperation};
    use crate::store::server::Calls;
    use crate::store::{Acceptance, Durability, StoreErrorKind, Submission, Swap, Swapped};
    use crate::time::{Clock, SystemClock};

    /// A server that gives these answers to whatever it is asked at once.
    struct Scripted(Arc<Line>, Vec<Result<Value, Failure>>);

    impl Lane<Call> for Scripted {
        type Session = ();

        async fn connect(&mut self) -> Option<()> {
            Some(())
        }

        async fn lost((): &mut ()) {
            std::future::pending::<()>().await;
        }

        async fn serve(&mut self, (): &mut (), calls: Vec<Call>) -> bool {
            let Self(line, answers) = self;
            assert!(calls.iter().all(Call::begin));
            let batch = Batch::new(line, &calls);
            let mut answers = batch.understand(line, Instant::now(), answers.clone());
            for call in calls {
                answers.give(call);
            }
            true
        }
    }

    fn error(line: &str) -> Result<Value, Failure> {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let Value::ServerError(error) = value else { panic!("{line}") };
        Err(Failure::Driver(error.into()))
    }

    fn said(word: &str) -> Value {
        Value::Array(vec![Value::BulkString(word.into())])
    }

    #[tokio::test]
    async fn an_error_to_one_question_is_not_the_answer_to_another() {
        let time = || Ok(Value::Array(vec![Value::Int(1_800_000_000), Value::Int(0)]));
        let busy = || error("BUSY Redis is busy running a script.");
        // To TIME, to the script that accepts, to the one that changes, to MGET; and what comes of it: of the
        // two writes, of the read, and of a question for the time.
        let (fine, away, doubt) =
            (None, Some(StoreErrorKind::Unavailable), Some(StoreErrorKind::Ambiguous));
        let told = [
            ([time(), Ok(said("created")), Ok(said("changed")), busy()], [fine, fine, away, fine]),
            ([busy(), Ok(said("created")), Ok(said("changed")), busy()], [fine, fine, away, away]),
            ([busy(), busy(), Ok(said("changed")), busy()], [away, fine, away, away]),
            ([time(), Ok(Value::Nil), busy(), busy()], [doubt, away, away, fine]),
        ];
        for (answers, expected) in told {
            let line = Arc::new(Line {
                settings: Settings {
                    client: redis::Client::open("redis://127.0.0.1").unwrap(),
                    client_name: String::new(),
                    connect_timeout: Duration::from_secs(1),
                    call_timeout: Duration::from_secs(1),
                    least: Durability::Volatile,
                    assumed: None,
                },
                prefix: String::new(),
                scripts: Scripts::new(true),
                clock: ServerClock::default(),
                replicas: None,
                doubtful: Doubtful::default(),
            });
            let scripted = Scripted(line, answers.to_vec());
            let calls = Calls::start([scripted], 9, Duration::from_secs(1), Duration::ZERO);
            let now = SystemClock.now();
            let id = OperationId::generate(now).unwrap();
            let accept = Accept::new(Submission::new(NewOperation::new(id)), now);
            let next = accept.operation.apply(&Change::Cancel, now).unwrap();
            let swap = Box::new(Swap::new(next, 1));
            let (accepted, swapped, found, time) = tokio::join!(
                calls.ask(true, |answer| Call::Accept(Box::new(accept), answer)),
                calls.ask(true, |answer| Call::Swap(swap, Vec::new(), Vec::new(), answer)),
                calls.ask(false, |answer| Call::Get(id, true, answer)),
                calls.ask(false, Call::Now),
            );
            assert!(matches!(accepted, Ok(Acceptance::Created(_)) | Err(_)), "{accepted:?}");
            assert!(matches!(swapped, Ok(Swapped::Swapped) | Err(_)), "{swapped:?}");
            let kinds = [accepted.err(), swapped.err(), found.err(), time.err()]
                .map(|error| error.map(|error| error.kind()));
            assert_eq!(kinds, expected);
        }
    }
}
