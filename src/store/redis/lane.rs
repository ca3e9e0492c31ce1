//! A connection, and the calls that go over it together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Script, Value};

use super::error::Failure;
use super::open::Settings;
use super::scripts::Scripts;
use crate::operation::{Due, Operation, OperationId, Outcome};
use crate::store::server::{Answer, Lane, ServerClock};
use crate::store::{Acceptance, Full, Idempotency, Observed, Submission, Swap, Swapped};
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

/// What a script says of several operations.
pub(super) type Found = (Timestamp, Vec<Vec<u8>>);

/// A call.
pub(super) enum Call {
    Get(OperationId, Answer<Option<Observed>>),
    Input(OperationId, Answer<Option<Bytes>>),
    Outcome(OperationId, Answer<Option<Outcome>>),
    Now(Answer<Timestamp>),
    Accept(Box<Accept>, Answer<Acceptance>),
    Swap(Box<Swap>, Vec<u8>, Vec<Accept>, Answer<Swapped>),
    Remove(OperationId, u64, Answer<Swapped>),
    Purge(usize, Answer<usize>),
    /// How many, for how long to keep them from others, and of which kinds.
    ToClaim(usize, Duration, Option<Vec<String>>, Answer<Found>),
    /// Which, how many, how many to pass over.
    Due(Due, usize, usize, Answer<Found>),
    /// Whose, from where on, how many.
    List(String, Option<OperationId>, usize, Answer<Found>),
}

/// A new operation, as it is accepted.
#[derive(Debug)]
pub(super) struct Accept {
    pub(super) submission: Submission,
    pub(super) operation: Operation,
    pub(super) value: Vec<u8>,
}

impl Accept {
    pub(super) fn new(submission: Submission, now: Timestamp) -> Self {
        let operation = submission.operation.accept(now);
        Self { value: value(&operation, 0), operation, submission }
    }

    /// Adds the arguments that the scripts' `accept` reads.
    fn add_to(&self, cmd: &mut Cmd) {
        let Submission { input, idempotency, limits, .. } = &self.submission;
        let limit = |limit: Option<usize>| limit.map_or("-".to_owned(), |limit| limit.to_string());
        let owner = self.operation.owner().name().unwrap_or_default();
        cmd.arg(name(self.operation.id())).arg(self.operation.kind().as_str()).arg(owner);
        add_due(cmd, &self.operation);
        cmd.arg(&self.value);
        cmd.arg(u8::from(input.is_some())).arg(input.as_deref().unwrap_or_default());
        match idempotency {
            Some(Idempotency { scope, key, fingerprint }) => {
                // Each part with its length, so that no two keys run into one.
                let lengths = format!("{}:{}:", owner.len(), scope.len());
                let key = [lengths.as_str(), owner, scope, key.as_str()].concat();
                cmd.arg(key).arg(&fingerprint.0[..]);
            }
            None => {
                cmd.arg("").arg("");
            }
        }
        cmd.arg(limit(limits.total)).arg(limit(limits.owner));
    }
}

/// An operation as its key holds it: a line for the scripts, then its record.
pub(super) fn value(operation: &Operation, write_id: u64) -> Vec<u8> {
    let [settle, expire] = [Due::Settle, Due::Expire].map(|due| due_at(operation, due));
    let (kind, owner) = (operation.kind().as_str(), operation.owner().name().unwrap_or_default());
    let line = format!("{} {write_id} {settle} {expire} {kind} {owner}\n", operation.version());
    let mut value = line.into_bytes();
    value.extend_from_slice(&operation.to_record());
    value
}

/// The operation of such a value.
pub(super) fn observe(value: &[u8], now: Timestamp) -> Result<Observed, Failure> {
    let end = value.iter().position(|byte| *byte == b'\n').ok_or(Failure::Unexpected)?;
    let (line, record) = value.split_at(end + 1);
    let line = std::str::from_utf8(line).map_err(|_| Failure::Unexpected)?;
    let write_id = line.split(' ').nth(1).and_then(|text| text.parse().ok());
    let operation = Operation::from_record(record)?;
    Ok(Observed { operation, now, write_id: write_id.ok_or(Failure::Unexpected)? })
}

fn due_at(operation: &Operation, due: Due) -> String {
    operation.due_at(due).map_or("-".to_owned(), |at| at.as_unix_millis().to_string())
}

fn add_due(cmd: &mut Cmd, operation: &Operation) {
    for due in [Due::Claim, Due::Settle, Due::Expire] {
        cmd.arg(due_at(operation, due));
    }
}

/// The id as it stands in keys: 32 digits, in the order of time.
pub(super) fn name(id: OperationId) -> String {
    id.as_uuid().simple().to_string()
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

/// What the server answered, each in the order of the calls.
struct Answers {
    now: Timestamp,
    accepted: Told,
    changed: Told,
    found: HashMap<OperationId, Vec<u8>>,
    rest: std::vec::IntoIter<Result<Value, Failure>>,
    /// Why what was written may be lost after all.
    doubt: Option<Failure>,
}

/// What one script says to many calls.
struct Told(Result<std::vec::IntoIter<Value>, Failure>);

impl Told {
    fn new(answer: Option<Result<Value, Failure>>) -> Self {
        let answer = answer.unwrap_or(Ok(Value::Array(Vec::new())));
        Self(answer.and_then(parsed::<Vec<Value>>).map(Vec::into_iter))
    }

    fn next(&mut self) -> Result<Value, Failure> {
        match self {
            Self(Ok(values)) => values.next().ok_or(Failure::Unexpected),
            Self(Err(failure)) => Err(failure.clone()),
        }
    }
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
        line.clock.learn(now);
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

impl Call {
    /// Whether it is to be made.
    fn begin(&self) -> bool {
        match self {
            Self::Get(_, answer) => answer.begin(),
            Self::Input(_, answer) => answer.begin(),
            Self::Outcome(_, answer) => answer.begin(),
            Self::Now(answer) => answer.begin(),
            Self::Accept(_, answer) => answer.begin(),
            Self::Swap(.., answer) | Self::Remove(.., answer) => answer.begin(),
            Self::Purge(_, answer) => answer.begin(),
            Self::ToClaim(.., answer) | Self::Due(.., answer) | Self::List(.., answer) => {
                answer.begin()
            }
        }
    }

    pub(super) fn writes(&self) -> bool {
        matches!(self, Self::Accept(..) | Self::Swap(..) | Self::Remove(..) | Self::Purge(..))
    }

    fn fail(self, failure: &Failure) {
        let (read, written) = (failure.to_error(), failure.to_write_error());
        match self {
            Self::Get(_, answer) => answer.send(Err(read)),
            Self::Input(_, answer) => answer.send(Err(read)),
            Self::Outcome(_, answer) => answer.send(Err(read)),
            Self::Now(answer) => answer.send(Err(read)),
            Self::Accept(_, answer) => answer.send(Err(written)),
            Self::Swap(.., answer) | Self::Remove(.., answer) => answer.send(Err(written)),
            Self::Purge(_, answer) => answer.send(Err(written)),
            Self::ToClaim(.., answer) | Self::Due(.., answer) | Self::List(.., answer) => {
                answer.send(Err(read));
            }
        }
    }
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

impl Answers {
    /// Gives a call its answer; false if the connection is to be given up.
    fn give(&mut self, call: Call) -> bool {
        let Self { now, accepted, changed, found, rest, doubt } = self;
        let now = *now;
        let mut next = || rest.next().unwrap_or(Err(Failure::Unexpected));
        let mut goes_on = true;
        // Of a read, and of a write.
        macro_rules! read {
            ($answer:ident, $result:expr) => {{
                let result = $result;
                goes_on = !result.as_ref().is_err_and(Failure::is_fatal);
                $answer.send(result.map_err(|failure| failure.to_error()));
            }};
        }
        macro_rules! write {
            ($answer:ident, $result:expr) => {{
                let result = match doubt {
                    Some(doubt) => $result.and(Err(doubt.clone())),
                    None => $result,
                };
                goes_on = !result.as_ref().is_err_and(Failure::is_fatal);
                $answer.send(result.map_err(|failure| failure.to_write_error()));
            }};
        }
        match call {
            Call::Get(id, answer) => {
                let found = found.get(&id).map(|value| observe(value, now)).transpose();
                let is_visible = |observed: &Observed| !observed.operation.is_expired(now);
                read!(answer, found.map(|found| found.filter(is_visible)));
            }
            Call::Input(_, answer) => {
                let (operation, body) = (next(), next());
                read!(answer, body_of(operation, body, now));
            }
            Call::Outcome(_, answer) => {
                let (operation, body) = (next(), next());
                let outcome = body_of(operation, body, now);
                read!(answer, outcome.and_then(|body| body.as_ref().map(unpacked).transpose()));
            }
            Call::Now(answer) => answer.send(Ok(now)),
            Call::Accept(accept, answer) => {
                write!(answer, accepted.next().and_then(|told| acceptance(&accept, told, now)));
            }
            Call::Swap(.., answer) | Call::Remove(.., answer) => {
                write!(answer, changed.next().and_then(|told| swapped(told, now)));
            }
            Call::Purge(_, answer) => {
                write!(answer, next().and_then(parsed::<usize>));
            }
            Call::ToClaim(.., answer) | Call::Due(.., answer) | Call::List(.., answer) => {
                read!(answer, next().and_then(several));
            }
        }
        goes_on
    }
}

fn parsed<T: FromRedisValue>(value: Value) -> Result<T, Failure> {
    T::from_redis_value(value).map_err(|_| Failure::Unexpected)
}

/// A body, if its operation is there and has not expired.
fn body_of(
    operation: Result<Value, Failure>,
    body: Result<Value, Failure>,
    now: Timestamp,
) -> Result<Option<Bytes>, Failure> {
    let operation: Option<Vec<u8>> = parsed(operation?)?;
    let body: Option<Vec<u8>> = parsed(body?)?;
    let (Some(operation), Some(body)) = (operation, body) else { return Ok(None) };
    let is_expired = observe(&operation, now)?.operation.is_expired(now);
    Ok((!is_expired).then(|| body.into()))
}

/// An outcome as its key holds it: the length of its head, the head, the body.
fn packed(outcome: &Outcome) -> Vec<u8> {
    let head = outcome.to_record();
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[..], &head, &outcome.body].concat()
}

fn unpacked(packed: &Bytes) -> Result<Outcome, Failure> {
    let Some((length, rest)) = packed.split_first_chunk::<4>() else {
        return Err(Failure::Unexpected);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let head = rest.get(..length).ok_or(Failure::Unexpected)?;
    Ok(Outcome::from_record(head, packed.slice(4 + length..))?)
}

/// A word, and an operation where there is one to tell of.
fn told(value: Value) -> Result<(String, Option<Vec<u8>>), Failure> {
    match value {
        Value::Array(_) => parsed(value),
        word => Ok((parsed(word)?, None)),
    }
}

fn acceptance(accept: &Accept, value: Value, now: Timestamp) -> Result<Acceptance, Failure> {
    let (word, value) = told(value)?;
    Ok(match (word.as_str(), value) {
        ("created", _) => {
            let operation = accept.operation.clone();
            let now = operation.created();
            Acceptance::Created(Box::new(Observed { operation, now, write_id: 0 }))
        }
        ("existing", Some(value)) => Acceptance::Existing(Box::new(observe(&value, now)?)),
        ("reused", _) => Acceptance::KeyReused,
        ("full", _) => Acceptance::Full(Full::Total),
        ("owner is full", _) => Acceptance::Full(Full::Owner),
        _ => return Err(Failure::Unexpected),
    })
}

fn swapped(value: Value, now: Timestamp) -> Result<Swapped, Failure> {
    let (word, value) = told(value)?;
    Ok(match (word.as_str(), value) {
        ("changed", _) => Swapped::Swapped,
        ("gone", _) => Swapped::Gone,
        ("conflict", Some(value)) => Swapped::Conflict(Box::new(observe(&value, now)?)),
        _ => return Err(Failure::Unexpected),
    })
}

/// The time, then values.
fn several(value: Value) -> Result<Found, Failure> {
    let parts: Vec<Value> = parsed(value)?;
    let mut parts = parts.into_iter();
    let now: i64 = parsed(parts.next().ok_or(Failure::Unexpected)?)?;
    let values = parts.map(parsed).collect::<Result<_, _>>()?;
    Ok((Timestamp::from_unix_millis(now), values))
}
