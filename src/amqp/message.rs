//! What a message is: docs/amqp.md is the contract in words.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::Deserialize;

use crate::operation::{Outcome, Progress, TRACEPARENT, TRACESTATE, TraceContext};

/// The header of a reply with the status of the answer; without it 200.
const STATUS: &str = "status";
/// What begins the name of a message's header that is a field of the answer: `http.location`.
const FIELD: &str = "http.";
/// The `type` of a message that reports progress.
const PROGRESS: &str = "progress";
/// The exchange on which all workers hear what is to be canceled.
pub(super) const CANCEL: &str = "respond-async.cancel";
/// `delivery_mode`: kept on disk, or in memory only.
pub(super) const PERSISTENT: u8 = 2;
pub(super) const TRANSIENT: u8 = 1;

/// What comes back for a request.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    Progress(Progress),
    Outcome(Outcome),
}

/// What a worker says of how far it is.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    fraction: Option<f64>,
    message: String,
}

/// Reads a reply. Whatever it is, it is an answer: what cannot be read in it is left out.
pub(super) fn read_reply(delivery: &Delivery) -> Reply {
    let properties = &delivery.properties;
    if properties.kind().as_ref().is_some_and(|kind| kind.as_str() == PROGRESS) {
        let told: Told = serde_json::from_slice(&delivery.data).unwrap_or_default();
        return Reply::Progress(Progress::new(told.fraction.unwrap_or(f64::NAN), told.message));
    }
    let mut outcome = Outcome::new(StatusCode::OK);
    if let Some(media_type) = properties.content_type() {
        if let Ok(value) = HeaderValue::try_from(media_type.as_str()) {
            outcome.headers.insert(header::CONTENT_TYPE, value);
        }
    }
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        if name.as_str() == STATUS {
            let status = integer(value).and_then(|status| u16::try_from(status).ok());
            // A status that is none is not taken for a success.
            outcome.status = status
                .and_then(|status| StatusCode::from_u16(status).ok())
                .filter(|status| !status.is_informational())
                .unwrap_or(StatusCode::BAD_GATEWAY);
        } else if let Some(name) = name.as_str().strip_prefix(FIELD) {
            let value = text(value).and_then(|value| HeaderValue::from_bytes(value).ok());
            if let (Ok(name), Some(value)) = (HeaderName::try_from(name), value) {
                outcome.headers.append(name, value);
            }
        }
    }
    outcome.body = delivery.data.clone().into();
    Reply::Outcome(outcome)
}

/// Says which trace a message belongs to.
pub(super) fn insert_trace(headers: &mut FieldTable, trace: Option<&TraceContext>) {
    let Some(trace) = trace else { return };
    let fields = [(TRACEPARENT, trace.parent()), (TRACESTATE, trace.state())];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        headers.insert(name.as_str().into(), AMQPValue::LongString(value.into()));
    }
}

/// Which trace a message belongs to.
pub(super) fn read_trace(delivery: &Delivery) -> Option<TraceContext> {
    let headers = delivery.properties.headers().as_ref()?.inner();
    let read = |name: &str| std::str::from_utf8(text(headers.get(name)?)?).ok();
    let state = read(TRACESTATE.as_str()).unwrap_or_default();
    TraceContext::new(read(TRACEPARENT.as_str())?, state)
}

/// The properties of a reply that is an outcome.
pub(super) fn outcome_properties(outcome: &Outcome) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(STATUS.into(), AMQPValue::LongInt(outcome.status.as_u16().into()));
    insert_fields(&mut headers, &outcome.headers);
    let properties = BasicProperties::default().with_headers(headers);
    match outcome.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) {
        Some(media_type) => properties.with_content_type(short(media_type)),
        None => properties,
    }
}

/// All but `Content-Type`, which is a property. A message's headers have no name twice: the last value counts.
fn insert_fields(headers: &mut FieldTable, fields: &HeaderMap) {
    for (name, value) in fields.iter().filter(|(name, _)| **name != header::CONTENT_TYPE) {
        headers.insert(
            short(&format!("{FIELD}{name}")),
            AMQPValue::LongString(value.as_bytes().into()),
        );
    }
}

/// The properties and the body of a reply that reports progress.
pub(super) fn progress_message(progress: &Progress) -> (BasicProperties, Vec<u8>) {
    let properties = BasicProperties::default()
        .with_type(PROGRESS.into())
        .with_content_type("application/json".into());
    (properties, serde_json::to_vec(progress).unwrap_or_default())
}

/// How often a message was delivered before and given back, by a quorum queue's own count.
pub(super) fn deliveries_before(delivery: &Delivery) -> u32 {
    let headers = delivery.properties.headers().as_ref();
    let count = headers.and_then(|table| table.inner().get("x-delivery-count")).and_then(integer);
    count.map_or(u32::from(delivery.redelivered), |count| u32::try_from(count).unwrap_or(u32::MAX))
}

pub(super) fn integer(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::ShortShortInt(value) => (*value).into(),
        AMQPValue::ShortShortUInt(value) => (*value).into(),
        AMQPValue::ShortInt(value) => (*value).into(),
        AMQPValue::ShortUInt(value) => (*value).into(),
        AMQPValue::LongInt(value) => (*value).into(),
        AMQPValue::LongUInt(value) => (*value).into(),
        AMQPValue::LongLongInt(value) => *value,
        AMQPValue::ShortString(_) | AMQPValue::LongString(_) => {
            std::str::from_utf8(text(value)?).ok()?.trim().parse().ok()?
        }
        _ => return None,
    })
}

fn text(value: &AMQPValue) -> Option<&[u8]> {
    match value {
        AMQPValue::LongString(text) => Some(text.as_bytes()),
        AMQPValue::ShortString(text) => Some(text.as_str().as_bytes()),
        _ => None,
    }
}

/// A short string, which AMQP bounds at 255 bytes: what is longer is cut off.
pub(super) fn short(text: &str) -> ShortString {
    let end = (0..=text.len().min(255)).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or_default()].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(properties: BasicProperties, body: &[u8]) -> Delivery {
        let mut delivery = Delivery::mock(1, "".into(), "".into(), false, body.to_vec());
        delivery.properties = properties;
        delivery
    }

    #[test]
    fn an_outcome_is_read_as_it_was_written() {
        let mut outcome = Outcome::with_body(
            StatusCode::CREATED,
            HeaderValue::from_static("application/json"),
            &b"{}"[..],
        );
        outcome.headers.insert(header::LOCATION, HeaderValue::from_static("/users/1"));
        let odd = HeaderValue::from_bytes(b"caf\xe9").unwrap();
        outcome.headers.insert(HeaderName::from_static("x-odd"), odd);
        let written = delivery(outcome_properties(&outcome), &outcome.body);
        assert_eq!(read_reply(&written), Reply::Outcome(outcome));
    }

    #[test]
    fn a_reply_of_another_make_is_an_answer_too() {
        let plain = read_reply(&delivery(BasicProperties::default(), b"hello"));
        let expected = Outcome { body: "hello".into(), ..Outcome::new(StatusCode::OK) };
        assert_eq!(plain, Reply::Outcome(expected));

        for (status, read) in [
            (AMQPValue::LongLongInt(409), 409),
            (AMQPValue::ShortShortUInt(204), 204),
            (AMQPValue::LongString("422".into()), 422),
            (AMQPValue::LongString("fine".into()), 502),
            (AMQPValue::LongInt(100), 502),
            (AMQPValue::LongInt(-1), 502),
            (AMQPValue::Void, 502),
        ] {
            let mut headers = FieldTable::default();
            headers.insert("status".into(), status);
            headers.insert("http.bad name".into(), AMQPValue::LongString("x".into()));
            headers.insert("http.x-bad".into(), AMQPValue::LongString("a\r\nb".into()));
            headers.insert("__TypeId__".into(), AMQPValue::LongString("java.lang.String".into()));
            let properties = BasicProperties::default().with_headers(headers);
            let Reply::Outcome(outcome) = read_reply(&delivery(properties, b"")) else { panic!() };
            assert_eq!(outcome.status.as_u16(), read);
            assert!(outcome.headers.is_empty(), "{:?}", outcome.headers);
        }
    }

    #[test]
    fn progress_is_bounded() {
        let (properties, body) = progress_message(&Progress::new(0.5, "half"));
        let half = read_reply(&delivery(properties.clone(), &body));
        assert_eq!(half, Reply::Progress(Progress::new(0.5, "half")));
        let loud = format!(r#"{{"fraction":7,"message":"{}","more":1}}"#, "x".repeat(9_999));
        let Reply::Progress(loud) = read_reply(&delivery(properties.clone(), loud.as_bytes()))
        else {
            panic!()
        };
        assert_eq!(loud.fraction(), Some(1.0));
        assert_eq!(loud.message().unwrap().len(), Progress::MAX_MESSAGE_BYTES);
        let nothing = read_reply(&delivery(properties, b"no JSON"));
        assert_eq!(nothing, Reply::Progress(Progress::default()));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(short("kind").as_str(), "kind");
        assert_eq!(short(&"\u{e4}".repeat(200)).as_str().len(), 254);
    }
}
