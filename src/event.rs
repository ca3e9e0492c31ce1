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
    #[serde(rename = "type")]
    kind: EventType,
    subject: String,
    time: Timestamp,
    datacontenttype: String,
    /// The revision: CloudEvents has sequences as text.
    sequence: String,
    data: Value,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EventType {
    /// It was accepted. Its data are the operation's id, kind, status and time.
    #[serde(rename = "respond-async.operation.accepted")]
    Accepted,
    /// It has changed, and has not ended.
    #[serde(rename = "respond-async.operation.progressed")]
    Progressed,
    /// It has ended.
    #[serde(rename = "respond-async.operation.finished")]
    Finished,
}

impl EventType {
    /// The last word of its type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Progressed => "progressed",
            Self::Finished => "finished",
        }
    }
}

impl OperationEvent {
    /// What is to be told of an operation that has become so, by a service that calls itself `source` (a
    /// URI reference). `data` is what its monitor says.
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
            kind,
            subject: operation.id().to_string(),
            time,
            datacontenttype: "application/json".to_owned(),
            sequence: revision.to_string(),
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
        self.kind
    }

    /// The operation's id.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Which change of the operation it is; none if whoever wrote it did not say.
    pub fn revision(&self) -> Option<u64> {
        self.sequence.parse().ok()
    }

    /// When it happened.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// What the monitor says.
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
        assert_eq!(json["sequence"], "2");
        assert_eq!(json["time"], "2023-11-14T22:13:21.000Z");
        assert_eq!(json["data"]["links"]["self"], format!("/operations/{id}"));
        assert_eq!(serde_json::from_value::<OperationEvent>(json).unwrap(), told[1]);
    }
}
