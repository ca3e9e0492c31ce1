//! What a message is: docs/amqp.md is the contract in words.

use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::Deserialize;

use crate::operation::{Outcome, Progress, TRACEPARENT, TRACESTATE, TraceContext};
use crate::text::floor_char_boundary;
use crate::time::Timestamp;

/// The header of a reply with the status of the answer; without it 200.
const STATUS: &str = "status";
/// What begins the name of a message's header that is a field of the answer: `http.location`.
const FIELD: &str = "http.";
/// The `type` of a message that reports progress.
const PROGRESS: &str = "progress";
/// The header of a job that says until when its answer is wanted.
const DEADLINE: &str = "deadline";
/// By how much the clock of who asks may be ahead of a worker's before work is left undone.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(5);
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
    message: Option<String>,
}

/// Reads a reply. Whatever it is, it is an answer: what cannot be read in it is left out.
pub(super) fn read_reply(delivery: &Delivery) -> Reply {
    let properties = &delivery.properties;
    if properties.kind().as_ref().is_some_and(|kind| kind.as_str() == PROGRESS) {
        let told: Told = serde_json::from_slice(&delivery.data).unwrap_or_default();
        return Reply::Progress(Progress::new(told.fraction, told.message.unwrap_or_default()));
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
            let Ok(name) = HeaderName::try_from(name) else { continue };
            // Of two media types the property counts.
            if name == header::CONTENT_TYPE && outcome.headers.contains_key(&name) {
                continue;
            }
            let values = match value {
                AMQPValue::FieldArray(values) => values.as_slice(),
                one => std::slice::from_ref(one),
            };
            let values = values.iter().filter_map(text);
            for value in values.filter_map(|value| HeaderValue::from_bytes(value).ok()) {
                outcome.headers.append(&name, value);
            }
        }
    }
    outcome.body = delivery.data.clone().into();
    // How this process's own answer is framed is not the worker's to say.
    Reply::Outcome(outcome.without_connection_fields())
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

/// All but `Content-Type`, which is a property. A message's headers have no name twice, so that the values of a
/// field that comes more than once are an array.
fn insert_fields(headers: &mut FieldTable, fields: &HeaderMap) {
    for name in fields.keys().filter(|name| **name != header::CONTENT_TYPE) {
        let text = |value: &HeaderValue| AMQPValue::LongString(value.as_bytes().into());
        let values: Vec<_> = fields.get_all(name).iter().map(text).collect();
        let value = match <[AMQPValue; 1]>::try_from(values) {
            Ok([only]) => only,
            Err(several) => AMQPValue::FieldArray(several.into()),
        };
        headers.insert(short(&format!("{FIELD}{name}")), value);
    }
}

/// The properties and the body of a reply that reports progress.
pub(super) fn progress_message(progress: &Progress) -> (BasicProperties, Vec<u8>) {
    let properties = BasicProperties::default()
        .with_type(PROGRESS.into())
        .with_content_type("application/json".into());
    (properties, serde_json::to_vec(progress).unwrap_or_default())
}

/// Says until when an answer is wanted, in milliseconds since 1970: what the broker counts of an expiration it
/// tells nobody.
pub(super) fn insert_deadline(headers: &mut FieldTable, deadline: Timestamp) {
    headers.insert(DEADLINE.into(), AMQPValue::LongLongInt(deadline.as_unix_millis()));
}

/// How long the answer to a job that has come now is still wanted: by the expiration, from which the time in the queue
/// is not taken off, and by when that ends, whose clock may be another.
pub(super) fn time_left(delivery: &Delivery, now: Timestamp) -> Option<Duration> {
    [expiration(delivery), until_deadline(delivery, now)].into_iter().flatten().min()
}

/// How long a job that has come now may wait to be begun: until nobody wants its answer, whichever clock is right. One
/// whose deadline had passed when the broker gave it out tells of another clock.
pub(super) fn longest_wait(delivery: &Delivery, now: Timestamp) -> Option<Duration> {
    let left = until_deadline(delivery, now).filter(|left| !left.is_zero());
    let left = left.map(|left| left.saturating_add(CLOCK_DIFFERENCE));
    [expiration(delivery), left].into_iter().flatten().min()
}

fn expiration(delivery: &Delivery) -> Option<Duration> {
    let millis = delivery.properties.expiration().as_ref()?.as_str().parse().ok()?;
    Some(Duration::from_millis(millis))
}

fn until_deadline(delivery: &Delivery, now: Timestamp) -> Option<Duration> {
    let headers = delivery.properties.headers().as_ref()?.inner();
    let end = integer(headers.get(DEADLINE)?)?;
    Some(Timestamp::from_unix_millis(end).duration_since(now))
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
    text[..floor_char_boundary(text, 255)].into()
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
        for link in ["</users>; rel=\"collection\"", "</>; rel=\"index\""] {
            outcome.headers.append(header::LINK, HeaderValue::from_static(link));
        }
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

    /// With two lengths or two media types in one answer, its readers differ in what it is.
    #[test]
    fn a_reply_says_nothing_of_how_the_answer_is_framed() {
        let mut headers = FieldTable::default();
        for (name, value) in [
            ("http.transfer-encoding", "chunked"),
            ("http.content-length", "3"),
            ("http.connection", "x-own"),
            ("http.x-own", "1"),
            ("http.content-type", "text/html"),
            ("http.etag", "\"1\""),
        ] {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        let properties = BasicProperties::default().with_headers(headers);
        for (properties, media_type) in [
            (properties.clone(), "text/html"),
            (properties.with_content_type("text/plain".into()), "text/plain"),
        ] {
            let Reply::Outcome(outcome) = read_reply(&delivery(properties, b"")) else { panic!() };
            assert_eq!(outcome.headers.len(), 2, "{:?}", outcome.headers);
            assert_eq!(outcome.headers["content-type"], media_type);
            assert_eq!(outcome.headers["etag"], "\"1\"");
        }
    }

    #[test]
    fn the_time_in_the_queue_is_taken_off() {
        let at = Timestamp::from_unix_millis;
        let left = |expiration: Option<&str>, deadline: Option<i64>, now| {
            let mut headers = FieldTable::default();
            if let Some(deadline) = deadline {
                insert_deadline(&mut headers, at(deadline));
            }
            let properties = BasicProperties::default().with_headers(headers);
            let properties = match expiration {
                Some(millis) => properties.with_expiration(millis.into()),
                None => properties,
            };
            time_left(&delivery(properties, b""), at(now)).map(|left| left.as_millis())
        };
        assert_eq!(left(Some("5000"), Some(65_000), 63_000), Some(2_000));
        assert_eq!(left(Some("5000"), Some(65_000), 70_000), Some(0));
        // A clock that is behind gives no more time than there was.
        assert_eq!(left(Some("5000"), Some(65_000), 1_000), Some(5_000));
        assert_eq!(left(Some("5000"), None, 1_000), Some(5_000));
        assert_eq!(left(None, None, 1_000), None);
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
        let silent = br#"{"fraction":0.4,"message":null}"#;
        let silent = read_reply(&delivery(properties.clone(), silent));
        assert_eq!(silent, Reply::Progress(Progress::new(0.4, "")));
        let nothing = read_reply(&delivery(properties, b"no JSON"));
        assert_eq!(nothing, Reply::Progress(Progress::default()));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(short("kind").as_str(), "kind");
        assert_eq!(short(&"\u{e4}".repeat(200)).as_str().len(), 254);
    }
}
