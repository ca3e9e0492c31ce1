//! How an operation is stored: one JSON object, the same for every store.
//!
//! Two versions of a service may share one store. So a member that this version does not know is kept
//! and written again, and a status that it does not know is left alone.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Callback, Ending, Kind, Operation, OperationId, Outcome, OutcomeHead, Owner, Progress, Stage,
    State, Status, TraceContext, UnknownStatus,
};
use crate::header::UriReference;
use crate::problem::Problem;
use crate::time::Timestamp;

/// The number of this form. It grows when a record can no longer be understood by who knows only the
/// form before; new members alone do not make it grow.
const SCHEMA: u16 = 1;

/// A record that cannot be read. Its text says where and why.
#[derive(Debug, thiserror::Error)]
#[error("not the record of an operation")]
pub struct RecordError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl RecordError {
    #[cfg(feature = "sqlite")]
    pub(crate) fn new(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(reason.into())
    }
}

impl Operation {
    /// The operation as a store keeps it: a JSON object, to be read by
    /// [`from_record`](Self::from_record) of this version of the crate or another.
    pub fn to_record(&self) -> Vec<u8> {
        if let Stage::Unknown(record) = &self.0.stage {
            return record.to_vec();
        }
        let mut record = Vec::with_capacity(512);
        match serde_json::to_writer(&mut record, &Record(self)) {
            Ok(()) => record,
            // Every member has a JSON form, and a vector takes all that is written.
            Err(_) => Vec::new(),
        }
    }

    /// The operation of a record.
    ///
    /// What another version of the crate wrote is read too: a member that this one does not know is
    /// kept by every [change](Self::apply) and written again. An operation whose status it does not know
    /// is shown as running; it is [due](Self::is_due) for nothing, and no change is made to it
    /// ([`TransitionError::UnknownState`](super::TransitionError::UnknownState)).
    ///
    /// # Errors
    /// If it is no such record, or a member has a value that it cannot have.
    pub fn from_record(record: &[u8]) -> Result<Self, RecordError> {
        let parsed: Parsed =
            serde_json::from_slice(record).map_err(|error| RecordError(Box::new(error)))?;
        parsed.into_operation(record).map_err(|missing| RecordError(missing.into()))
    }
}

struct Record<'a>(&'a Operation);

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let operation = self.0;
        let state = &operation.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("schema", &SCHEMA)?;
        map.serialize_entry("id", &state.id)?;
        map.serialize_entry("kind", state.kind.as_str())?;
        if let Some(owner) = state.owner.name() {
            map.serialize_entry("owner", owner)?;
        }
        map.serialize_entry("version", &state.version)?;
        map.serialize_entry("revision", &state.revision)?;
        map.serialize_entry("status", operation.status().as_str())?;
        if let Some(lease) = operation.lease_expires() {
            map.serialize_entry("lease_ms", &lease.as_unix_millis())?;
        }
        if let Stage::Finished { at, ending } = &state.stage {
            map.serialize_entry("finished_ms", &at.as_unix_millis())?;
            if let Ending::Succeeded(head) | Ending::Failed(head, _) = ending {
                map.serialize_entry("code", &head.status().as_u16())?;
                if let Some(location) = head.location() {
                    map.serialize_entry("location", location.as_str())?;
                }
            }
            if let Ending::Failed(_, error) = ending {
                map.serialize_entry("error", error)?;
                if let Some(delay) = error.retry_after() {
                    map.serialize_entry("error_retry_ms", &millis(delay))?;
                }
            }
        }
        if let Some(progress) = &state.progress {
            map.serialize_entry("progress", progress)?;
        }
        if state.cancel_requested {
            map.serialize_entry("cancel_requested", &true)?;
        }
        map.serialize_entry("attempt", &state.attempt)?;
        map.serialize_entry("attempt_limit", &state.attempt_limit)?;
        map.serialize_entry("attempts_left", &state.attempts_left)?;
        if state.released {
            map.serialize_entry("released", &true)?;
        }
        map.serialize_entry("created_ms", &state.created.as_unix_millis())?;
        map.serialize_entry("updated_ms", &state.updated.as_unix_millis())?;
        if let Some(started) = state.started {
            map.serialize_entry("started_ms", &started.as_unix_millis())?;
        }
        map.serialize_entry("available_ms", &state.available.as_unix_millis())?;
        if let Some(deadline) = state.deadline {
            map.serialize_entry("deadline_ms", &deadline.as_unix_millis())?;
        }
        map.serialize_entry("retention_ms", &millis(state.retention))?;
        if let Some(trace) = &state.trace {
            map.serialize_entry("trace_parent", trace.parent())?;
            if !trace.state().is_empty() {
                map.serialize_entry("trace_state", trace.state())?;
            }
        }
        if let Some(callback) = &state.callback {
            map.serialize_entry("callback_url", callback.url())?;
            if !callback.also().is_empty() {
                map.serialize_entry("callback_also", callback.also())?;
            }
        }
        if let Some(error) = &state.last_error {
            map.serialize_entry("last_error", error)?;
        }
        for (name, value) in state.unknown.iter().flat_map(|unknown| unknown.iter()) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The members of a record as they stand there.
#[derive(Default)]
struct Parsed {
    schema: Option<u16>,
    id: Option<OperationId>,
    kind: Option<Kind>,
    owner: Option<Owner>,
    version: Option<u64>,
    revision: Option<u64>,
    status: Option<Result<Status, UnknownStatus>>,
    lease: Option<Timestamp>,
    finished: Option<Timestamp>,
    code: Option<StatusCode>,
    location: Option<UriReference>,
    error: Option<Problem>,
    error_retry: Option<Duration>,
    progress: Option<Progress>,
    cancel_requested: Option<bool>,
    attempt: Option<u32>,
    attempt_limit: Option<u32>,
    attempts_left: Option<u32>,
    released: Option<bool>,
    created: Option<Timestamp>,
    updated: Option<Timestamp>,
    started: Option<Timestamp>,
    available: Option<Timestamp>,
    deadline: Option<Timestamp>,
    retention: Option<Duration>,
    trace_parent: Option<String>,
    trace_state: Option<String>,
    callback_url: Option<String>,
    callback_also: Option<String>,
    last_error: Option<Problem>,
    unknown: Map<String, Value>,
}

impl Parsed {
    /// # Errors
    /// The name of a member that must be there and is not.
    fn into_operation(self, record: &[u8]) -> Result<Operation, &'static str> {
        let schema = self.schema.ok_or("schema is missing")?;
        let code = self.code;
        let head =
            |location| code.map(|code| OutcomeHead::new(code, location)).ok_or("code is missing");
        let stage = match self.status.ok_or("status is missing")? {
            // Its members may mean something else by then.
            _ if schema > SCHEMA => Stage::Unknown(record.into()),
            Err(_) => Stage::Unknown(record.into()),
            Ok(Status::Pending) => Stage::Pending { lease: self.lease },
            Ok(Status::Running) => {
                Stage::Running { lease: self.lease.ok_or("lease_ms is missing")? }
            }
            Ok(finished) => {
                let ending = match finished {
                    Status::Succeeded => Ending::Succeeded(head(self.location)?),
                    Status::Failed => {
                        let head = head(self.location)?;
                        let error = self.error.ok_or("error is missing")?;
                        let error = error.with_status(head.status());
                        let error = match self.error_retry {
                            Some(delay) => error.with_retry_after(delay),
                            None => error,
                        };
                        Ending::Failed(head, error)
                    }
                    _ => Ending::Canceled,
                };
                Stage::Finished { at: self.finished.ok_or("finished_ms is missing")?, ending }
            }
        };
        Ok(Operation(Arc::new(State {
            id: self.id.ok_or("id is missing")?,
            kind: self.kind.ok_or("kind is missing")?,
            owner: self.owner.unwrap_or_default(),
            version: self.version.ok_or("version is missing")?,
            revision: self.revision.ok_or("revision is missing")?,
            stage,
            progress: self.progress,
            cancel_requested: self.cancel_requested.unwrap_or(false),
            attempt: self.attempt.ok_or("attempt is missing")?,
            attempt_limit: self.attempt_limit.ok_or("attempt_limit is missing")?,
            attempts_left: self.attempts_left.ok_or("attempts_left is missing")?,
            released: self.released.unwrap_or(false),
            created: self.created.ok_or("created_ms is missing")?,
            updated: self.updated.ok_or("updated_ms is missing")?,
            started: self.started,
            available: self.available.ok_or("available_ms is missing")?,
            deadline: self.deadline,
            retention: self.retention.ok_or("retention_ms is missing")?,
            trace: self.trace_parent.and_then(|parent| {
                TraceContext::new(&parent, self.trace_state.as_deref().unwrap_or_default())
            }),
            callback: self.callback_url.and_then(|url| {
                let callback = Callback::new(&url)?;
                Some(callback.with_also(self.callback_also.as_deref().unwrap_or_default()))
            }),
            last_error: self.last_error,
            unknown: (!self.unknown.is_empty()).then(|| Arc::new(self.unknown)),
        })))
    }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

/// A name or a word of a record, borrowed from it where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

impl<'de> Visitor<'de> for Members {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the record of an operation")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed, A::Error> {
        let mut parsed = Parsed::default();
        while let Some(Text(name)) = map.next_key()? {
            match &*name {
                "schema" => parsed.schema = Some(map.next_value()?),
                "id" => parsed.id = Some(map.next_value()?),
                "kind" => parsed.kind = Some(valid(&mut map, Kind::new)?),
                "owner" => parsed.owner = Some(valid(&mut map, Owner::of_record)?),
                "version" => parsed.version = Some(map.next_value()?),
                "revision" => parsed.revision = Some(map.next_value()?),
                "status" => {
                    let Text(word) = map.next_value()?;
                    parsed.status = Some(word.parse());
                }
                "lease_ms" => parsed.lease = Some(instant(&mut map)?),
                "finished_ms" => parsed.finished = Some(instant(&mut map)?),
                "code" => parsed.code = Some(code(&mut map)?),
                "location" => {
                    let Text(location) = map.next_value()?;
                    parsed.location = Some(UriReference::new(location));
                }
                "error" => parsed.error = Some(map.next_value()?),
                "error_retry_ms" => parsed.error_retry = Some(duration(&mut map)?),
                "progress" => parsed.progress = Some(map.next_value()?),
                "cancel_requested" => parsed.cancel_requested = Some(map.next_value()?),
                "attempt" => parsed.attempt = Some(map.next_value()?),
                "attempt_limit" => parsed.attempt_limit = Some(map.next_value()?),
                "attempts_left" => parsed.attempts_left = Some(map.next_value()?),
                "released" => parsed.released = Some(map.next_value()?),
                "created_ms" => parsed.created = Some(instant(&mut map)?),
                "updated_ms" => parsed.updated = Some(instant(&mut map)?),
                "started_ms" => parsed.started = Some(instant(&mut map)?),
                "available_ms" => parsed.available = Some(instant(&mut map)?),
                "deadline_ms" => parsed.deadline = Some(instant(&mut map)?),
                "retention_ms" => parsed.retention = Some(duration(&mut map)?),
                "trace_parent" => parsed.trace_parent = Some(map.next_value()?),
                "trace_state" => parsed.trace_state = Some(map.next_value()?),
                "callback_url" => parsed.callback_url = Some(map.next_value()?),
                "callback_also" => parsed.callback_also = Some(map.next_value()?),
                "last_error" => parsed.last_error = Some(map.next_value()?),
                _ if parsed.unknown.contains_key(&*name) => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ => {
                    let value = map.next_value()?;
                    parsed.unknown.insert(name.into_owned(), value);
                }
            }
        }
        Ok(parsed)
    }
}

fn valid<'de, A: MapAccess<'de>, T, E: fmt::Display>(
    map: &mut A,
    make: impl FnOnce(std::borrow::Cow<'de, str>) -> Result<T, E>,
) -> Result<T, A::Error> {
    let Text(text) = map.next_value()?;
    make(text).map_err(de::Error::custom)
}

fn instant<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Timestamp, A::Error> {
    map.next_value().map(Timestamp::from_unix_millis)
}

fn duration<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Duration, A::Error> {
    map.next_value().map(Duration::from_millis)
}

fn code<'de, A: MapAccess<'de>>(map: &mut A) -> Result<StatusCode, A::Error> {
    StatusCode::from_u16(map.next_value()?).map_err(de::Error::custom)
}

impl Outcome {
    /// The outcome without its body as a store keeps it: the status on the first line, then a line for
    /// each field, its value byte for byte.
    pub fn to_record(&self) -> Vec<u8> {
        let mut record = self.status.as_str().as_bytes().to_vec();
        for (name, value) in &self.headers {
            record.push(b'\n');
            record.extend_from_slice(name.as_str().as_bytes());
            record.push(b':');
            // No value can have a line end in it.
            record.extend_from_slice(value.as_bytes());
        }
        record
    }

    /// The outcome of a record and its body.
    ///
    /// # Errors
    /// If it is no such record.
    pub fn from_record(record: &[u8], body: impl Into<bytes::Bytes>) -> Result<Self, RecordError> {
        let mut lines = record.split(|byte| *byte == b'\n');
        let status = lines.next().unwrap_or_default();
        let mut outcome =
            Self::new(StatusCode::from_bytes(status).map_err(|error| RecordError(error.into()))?);
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':');
            let (name, value) = line.split_at(colon.ok_or_else(|| RecordError("no colon".into()))?);
            let name = HeaderName::from_bytes(name).map_err(|error| RecordError(error.into()))?;
            let value =
                HeaderValue::from_bytes(&value[1..]).map_err(|error| RecordError(error.into()))?;
            outcome.headers.append(name, value);
        }
        outcome.body = body.into();
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests;
