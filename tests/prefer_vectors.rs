//! The cases under `tests/data/prefer`, one file for each subject.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::fs;
use std::path::Path;

use http::{HeaderMap, HeaderValue};
use respond_async::prefer::{Handling, PREFER, Parameter, Preference, Preferences, Return};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// Field lines; a character up to U+00FF stands for the byte of that number.
    lines: Vec<String>,
    /// The preferences: name, value and parameters as `Debug` writes them.
    list: Vec<String>,
    /// What was dropped, in words.
    #[serde(default)]
    dropped: Vec<String>,
    /// The registered preferences, where the case is about them.
    registered: Option<Registered>,
}

#[derive(Deserialize, Debug, PartialEq, Default)]
#[serde(default, deny_unknown_fields)]
struct Registered {
    respond_async: bool,
    wait: Option<u64>,
    r#return: Option<String>,
    handling: Option<String>,
}

#[track_caller]
fn run(file: &str, at_least: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/prefer").join(file);
    let cases: Vec<Case> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert!(cases.len() >= at_least, "{file}: only {} cases", cases.len());
    for case in cases {
        let mut headers = HeaderMap::new();
        for line in &case.lines {
            let bytes: Vec<u8> = line.chars().map(|byte| u8::try_from(byte).unwrap()).collect();
            headers.append(PREFER, HeaderValue::from_bytes(&bytes).unwrap());
        }
        check(file, &case, &Preferences::from_headers(&headers));
    }
}

#[track_caller]
fn check(file: &str, case: &Case, preferences: &Preferences) {
    let name = format!("{file}: {}", case.name);
    let list: Vec<String> = preferences.iter().map(|preference| write(&preference)).collect();
    assert_eq!(list, case.list, "{name}");
    assert_eq!(preferences.len(), case.list.len(), "{name}");
    assert_eq!(preferences.is_empty(), case.list.is_empty(), "{name}");
    let dropped: Vec<String> = preferences.dropped().map(|reason| reason.to_string()).collect();
    assert_eq!(dropped, case.dropped, "{name}");
    if let Some(expected) = &case.registered {
        let registered = Registered {
            respond_async: preferences.respond_async(),
            wait: preferences.wait().map(|time| time.as_secs()),
            r#return: preferences.return_().map(Return::as_str).map(Into::into),
            handling: preferences.handling().map(Handling::as_str).map(Into::into),
        };
        assert_eq!(&registered, expected, "{name}");
    }
}

fn write(preference: &Preference<'_>) -> String {
    let head = write_pair(preference.name(), preference.value());
    let parameters =
        preference.parameters().map(|it: Parameter<'_>| write_pair(it.name(), it.value()));
    std::iter::once(head).chain(parameters).collect::<Vec<_>>().join("; ")
}

fn write_pair(name: &str, value: Option<respond_async::prefer::Value<'_>>) -> String {
    match value {
        Some(value) => format!(
            "{name}={}",
            value.to_bytes().iter().map(|&byte| char::from(byte)).collect::<String>()
        ),
        None => name.to_owned(),
    }
}

#[test]
fn lists() {
    run("lists.json", 12);
}

#[test]
fn values() {
    run("values.json", 12);
}

#[test]
fn registered() {
    run("registered.json", 20);
}

#[test]
fn malformed() {
    run("malformed.json", 18);
}
