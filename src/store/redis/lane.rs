//! A connection, and the calls that go over it together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Script, Value};

use super::answers::{Answers, Told, parsed};
use super::call::{Call, add_due, name, packed};
use super::error::Failure;
use super::open::Settings;
use super::scripts::Scripts;
use crate::operation::{Due, OperationId};
use crate::store::server::{Lane, ServerClock};
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
}

/// A lane of its own for a connection.
pub(super) struct Connected(pub(super) Arc<Line>);

impl Lane<Call> for Connected {
    type Session = MultiplexedConnection;

    async fn connect(&mut self) -> Option<MultiplexedConnection> {
        let Self(line) = self;
        let mut connection = line.settings.open().await.ok()?;
        load(line, &mut connection).await.ok()?;
        Some(connection)
    }

    async fn lost(_: &mut MultiplexedConnection) {
        // The driver tells with the next call.
        std::future::pending::<()>().await;
    }

    async fn serve(&mut self, connection: &mut MultiplexedConnection, calls: Vec<Call>) -> bool {
        let Self(line) = self;
        let calls: Vec<Call> = calls.into_iter().filter(Call::begin).collect();
        if calls.is_empty() {
            return true;
        }
        let batch = Batch::new(line, &calls);
        let mut answers = match batch.send(line, connection).await {
            Ok(answers) => answers,
            Err(failure) => {
                for call in calls {
                    call.fail(&failure);
                }
                return false;
            }
        };
        let mut goes_on = true;
        for call in calls {
            goes_on &= answers.give(call);
        }
        goes_on
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
        let mut waits = false;
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
                Call::Get(id, _) => {
                    has[2] = true;
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
        if let Some((replicas, patience)) = line.replicas.filter(|_| waits) {
            pipe.cmd("WAIT").arg(replicas).arg(millis(patience));
        }
        Self { pipe, ids, has, waits }
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
            load(line, connection).await?;
            let wait = if self.waits { answers.len() - 1 } else { usize::MAX };
            for (at, (answer, command)) in answers.iter_mut().zip(self.pipe.cmd_iter()).enumerate()
            {
                if is_forgotten(answer) || at == wait {
                    *answer = command.query_async(connection).await.map_err(Failure::from);
                }
            }
        }
        let mut doubt = None;
        if let Some((replicas, _)) = line.replicas.filter(|_| self.waits) {
            let count = answers.pop().and_then(|count| parsed::<usize>(count.ok()?).ok());
            doubt = count.is_none_or(|count| count < replicas).then_some(Failure::TooFewReplicas);
        }
        let mut answers = answers.into_iter();
        let (seconds, micros): (i64, i64) = parsed(answers.next().ok_or(Failure::Unexpected)??)?;
        let now = Timestamp::from_unix_millis(seconds * 1_000 + micros / 1_000);
        line.clock.learn(now, asked);
        let [accepted, changed, found] =
            self.has.map(|has| if has { answers.next() } else { None });
        let found: Vec<Option<Vec<u8>>> = match found {
            Some(found) => parsed(found?)?,
            None => Vec::new(),
        };
        let found = self.ids.into_iter().zip(found);
        Ok(Answers {
            now,
            accepted: Told::new(accepted),
            changed: Told::new(changed),
            found: found.filter_map(|(id, value)| Some((id, value?))).collect(),
            rest: answers.collect::<Vec<_>>().into_iter(),
            doubt,
        })
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
