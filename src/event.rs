//! What is told of an operation to other parties: its changes as [CloudEvents](https://cloudevents.io).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::operation::{Operation, Status};
use crate::respond::{MonitorUrls, OperationView};
use crate::time::Timestamp;

/// The media type of an event as JSON.
pub const MEDIA_TYPE: &str = "application/cloudevents+json";

/// One change of one operation, as a CloudEvent 1.0 in JSON.
///
/// It may come more than once, and later ones before earlier ones: [`id`](Self::id) is the same each time, and
/// [`revision`](Self::revision) grows with each change of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationEvent {
    specversion: String,
    id: String,
    source: String,
    /// As it was read, so that one of another version stays what it is.
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    datacontenttype: String,
    /// The revision, as CloudEvents has sequences: text that is in order when it is compared byte by byte
    /// ([extension](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/extensions/sequence.md)).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    sequence: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    data: Value,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventType {
    /// It was accepted.
    Accepted,
    /// It has changed, and has not ended.
    Progressed,
    /// It has ended.
    Finished,
    /// Something that this version does not know: see [`OperationEvent::type_text`].
    Other,
}

/// What begins the type of an operation's event.
const TYPE: &str = "respond-async.operation.";

impl EventType {
    /// The last word of its type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Progressed => "progressed",
            Self::Finished => "finished",
            Self::Other => "other",
        }
    }
}

impl OperationEvent {
    /// What is to be told of an operation that has become so, by a service that calls itself `source` (a
    /// URI reference). `data` is what its monitor says, but of an [acceptance](Self::accepted).
    pub fn of(operation: &Operation, urls: &MonitorUrls, source: &str) -> Self {
        let kind = match operation.status() {
            status if status.is_finished() => EventType::Finished,
            _ if operation.revision() == 1 => return Self::accepted(operation, source),
            _ => EventType::Progressed,
        };
        let data = OperationView::new(operation, operation.updated(), urls).to_json();
        Self::new(operation, source, kind, operation.revision(), operation.updated(), data)
    }

    /// That it was accepted, which can be told at any time later.
    pub fn accepted(operation: &Operation, source: &str) -> Self {
        let data = json!({
            "id": operation.id(),
            "kind": operation.kind().as_str(),
            "status": Status::Pending,
            "created": operation.created(),
        });
        Self::new(operation, source, EventType::Accepted, 1, operation.created(), data)
    }

    fn new(
        operation: &Operation,
        source: &str,
        kind: EventType,
        revision: u64,
        time: Timestamp,
        data: Value,
    ) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id: format!("{}.{revision}", operation.id()),
            source: source.to_owned(),
            kind: format!("{TYPE}{}", kind.as_str()),
            subject: operation.id().to_string(),
            time: Some(time),
            datacontenttype: "application/json".to_owned(),
            sequence: format!("{revision:020}"),
            data,
        }
    }

    /// Its name: together with the [`source`](Self::source) no other event has it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Which service tells it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What has happened.
    pub fn event_type(&self) -> EventType {
        match self.kind.strip_prefix(TYPE) {
            Some("accepted") => EventType::Accepted,
            Some("progressed") => EventType::Progressed,
            Some("finished") => EventType::Finished,
            _ => EventType::Other,
        }
    }

    /// What has happened, as its `type` says it: `respond-async.operation.finished`.
    pub fn type_text(&self) -> &str {
        &self.kind
    }

    /// The operation's id.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Which change of the operation it is; none if whoever wrote it did not say.
    pub fn revision(&self) -> Option<u64> {
        self.sequence.parse().ok()
    }

    /// When it happened; none if whoever wrote it did not say.
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// What the monitor said then; of an [acceptance](EventType::Accepted) the operation's id, kind, status and
    /// time of creation alone. Null if whoever wrote it did not say.
    pub fn data(&self) -> &Value {
        &self.data
    }

    /// Where the operation stands.
    pub fn status(&self) -> Option<Status> {
        serde_json::from_value(self.data.get("status")?.clone()).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::operation::{Change, NewOperation, OperationId};

    #[test]
    fn each_change_is_an_event() {
        let at = |second: i64| Timestamp::from_unix_millis(1_700_000_000_000 + second * 1_000);
        let id = OperationId::from_parts(at(0), [7; 10]);
        let pending = NewOperation::new(id).accept(at(0));
        let claim = Change::Claim { lease: Duration::from_secs(9) };
        let running = pending.apply(&claim, at(1)).unwrap();
        let canceled = pending.apply(&Change::Cancel, at(2)).unwrap();
        let urls = MonitorUrls::default();
        let of = |operation| OperationEvent::of(operation, &urls, "/gateway");
        let told = [&pending, &running, &canceled].map(of);
        let types = told.each_ref().map(|event| (event.event_type(), event.status().unwrap()));
        assert_eq!(
            types,
            [
                (EventType::Accepted, Status::Pending),
                (EventType::Progressed, Status::Running),
                (EventType::Finished, Status::Canceled)
            ]
        );
        assert_eq!(told[0], OperationEvent::accepted(&canceled, "/gateway"), "then as now");
        let json = serde_json::to_value(&told[1]).unwrap();
        assert_eq!(json["id"], format!("{id}.2"));
        assert_eq!(json["type"], "respond-async.operation.progressed");
        // In order as text, of whatever length.
        assert_eq!(json["sequence"], "00000000000000000002");
        assert_eq!(told[1].revision(), Some(2));
        assert_eq!(json["time"], "2023-11-14T22:13:21.000Z");
        assert_eq!(json["data"]["links"]["self"], format!("/operations/{id}"));
        assert_eq!(serde_json::from_value::<OperationEvent>(json).unwrap(), told[1]);
    }

    /// Of a later version, or of another's make.
    #[test]
    fn what_is_not_known_is_kept() {
        let json = json!({
            "specversion": "1.0",
            "id": "a.1",
            "source": "/a",
            "type": "respond-async.operation.suspended",
            "subject": "a",
        });
        let event: OperationEvent = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(event.event_type(), EventType::Other);
        assert_eq!(event.type_text(), "respond-async.operation.suspended");
        assert_eq!((event.revision(), event.time(), event.status()), (None, None, None));
        assert_eq!(serde_json::to_value(&event).unwrap(), json);
    }
}
