//! A problem as JSON ([RFC 9457 §3](https://www.rfc-editor.org/rfc/rfc9457#section-3)).

use std::borrow::Cow;

use http::StatusCode;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Members, Problem};

/// The members that RFC 9457 §3.1 defines; all others are extensions.
pub(super) const REGISTERED: [&str; 5] = ["type", "title", "status", "detail", "instance"];

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let members = &*self.0;
        let mut map = serializer.serialize_map(None)?;
        let [uri, title, status, detail, instance] = REGISTERED;
        for (name, value) in [(uri, &members.uri), (title, &members.title)] {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        if members.status.is_some() {
            // What it is answered with (RFC 9457 §3.1.2), whatever a foreign document says.
            map.serialize_entry(status, &self.status().as_u16())?;
        }
        for (name, value) in [(detail, &members.detail), (instance, &members.instance)] {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        for (name, value) in &members.extensions {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Problem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut extensions = Map::<String, Value>::deserialize(deserializer)?;
        let mut members = Members::default();
        for name in REGISTERED {
            // RFC 9457 §3.1: a value that does not match the specified type is ignored.
            let Some(value) = extensions.remove(name) else { continue };
            match (name, value) {
                ("type", Value::String(text)) => members.uri = Some(Cow::Owned(text)),
                ("title", Value::String(text)) => members.title = Some(Cow::Owned(text)),
                ("detail", Value::String(text)) => members.detail = Some(Cow::Owned(text)),
                ("instance", Value::String(text)) => members.instance = Some(Cow::Owned(text)),
                ("status", Value::Number(number)) => {
                    let code = number.as_u64().and_then(|code| u16::try_from(code).ok());
                    members.status = code
                        .filter(|code| (100..=599).contains(code))
                        .and_then(|code| StatusCode::from_u16(code).ok());
                }
                _ => {}
            }
        }
        members.extensions = extensions;
        Ok(Self(std::sync::Arc::new(members)))
    }
}
