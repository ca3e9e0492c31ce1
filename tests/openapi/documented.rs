//! Holds an answer against a document: its status, its fields, its media type, its content.
#![allow(dead_code, reason = "not every test that has this module wants all of it")]

use std::collections::HashMap;
use std::sync::Mutex;

use http::{HeaderMap, Method, StatusCode};
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

/// What servers add to any answer, and what no client of an API reads.
const OF_SERVERS: [&str; 7] = [
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "referrer-policy",
    "x-accel-buffering",
    "x-content-type-options",
];

pub(crate) struct Documented {
    document: Value,
    /// Those that were made, by their schemas.
    validators: Mutex<HashMap<String, Validator>>,
}

impl Documented {
    pub(crate) fn new(document: &OpenApi) -> Self {
        let mut document = serde_json::to_value(document).unwrap();
        for (name, schema) in document["components"]["schemas"].as_object_mut().unwrap() {
            // Members of their own are what a problem's type is free to have.
            if name != "Problem" {
                close(schema);
            }
        }
        Self { document, validators: Mutex::default() }
    }

    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    /// What a reference leads to; itself, if it is none.
    pub(crate) fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => {
                let place = self.document.pointer(reference.trim_start_matches('#'));
                place.unwrap_or_else(|| panic!("{reference} leads nowhere"))
            }
            None => value,
        }
    }

    /// Whether a value is as its schema says; if not, why.
    pub(crate) fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let mut validators = self.validators.lock().unwrap();
        let validator = validators.entry(schema.to_string()).or_insert_with(|| {
            let schema = json!({ "allOf": [schema], "components": self.document["components"] });
            jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
        });
        let error = validator.iter_errors(value).next();
        error.map_or(Ok(()), |error| Err(format!("{error} at {}: {value}", error.instance_path())))
    }

    /// The description of a request: none if its path knows no such method.
    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let path = path.split('?').next().unwrap();
        let segments: Vec<&str> = path.split('/').collect();
        let paths = self.document["paths"].as_object().unwrap();
        let (_, item) = paths.iter().find(|(template, _)| {
            let template: Vec<&str> = template.split('/').collect();
            template.len() == segments.len()
                && template.iter().zip(&segments).all(|(t, s)| t.starts_with('{') || t == s)
        })?;
        let method = if method == Method::HEAD { &Method::GET } else { method };
        item.get(method.as_str().to_lowercase())
    }

    /// Panics if the document does not say that a request may be answered so.
    pub(crate) fn allows(
        &self,
        (method, path): (&Method, &str),
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) {
        let name = format!("{method} {path}: {status}");
        let answer = match self.operation(method, path) {
            Some(operation) => match operation["responses"].get(status.as_str()) {
                Some(answer) => self.resolved(answer),
                // A result may be anything that a handler answers.
                None if operation["responses"].get("default").is_some() => return,
                None => panic!("{name} is not documented"),
            },
            None if status == StatusCode::METHOD_NOT_ALLOWED => {
                &self.document["components"]["responses"]["MethodNotAllowed"]
            }
            None => {
                assert_eq!(status, StatusCode::NOT_FOUND, "{name}");
                return;
            }
        };
        self.allows_fields(&name, answer, headers);
        // Of a result nothing is known but that it is one.
        if status == StatusCode::NOT_MODIFIED
            || method == Method::HEAD
            || answer["content"].is_null()
        {
            return;
        }
        let media_type = headers.get("content-type").map_or("", |value| value.to_str().unwrap());
        let media_type = media_type.split(';').next().unwrap();
        let Some(content) = answer["content"].get(media_type) else {
            panic!("{name} with {media_type:?} is not documented");
        };
        let schema = &content["schema"];
        match media_type {
            "text/event-stream" => {
                let operation = json!({ "$ref": "#/components/schemas/Operation" });
                let blocks = std::str::from_utf8(body).unwrap().split("\n\n");
                for event in blocks.map(event) {
                    self.check(schema, &event).unwrap_or_else(|error| panic!("{name}: {error}"));
                    let Some(data) = event["data"].as_str() else { continue };
                    let told = serde_json::from_str(data).unwrap();
                    self.check(&operation, &told).unwrap_or_else(|error| panic!("{name}: {error}"));
                }
            }
            media_type if media_type.ends_with("json") => {
                let value = serde_json::from_slice(body).unwrap();
                self.check(schema, &value).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            _ => assert_eq!(schema["type"], "string", "{name}"),
        }
    }

    fn allows_fields(&self, name: &str, answer: &Value, headers: &HeaderMap) {
        let none = Map::new();
        let documented = answer["headers"].as_object().unwrap_or(&none);
        for (field, described) in documented {
            let described = self.resolved(described);
            let value = headers.get(field).map(|value| value.to_str().unwrap());
            assert!(value.is_some() || described["required"] != true, "{name} has no {field}");
            let Some(value) = value else { continue };
            let value = match described["schema"]["type"].as_str() {
                Some("integer") => Value::from(value.parse::<u64>().unwrap()),
                _ => Value::from(value),
            };
            let checked = self.check(&described["schema"], &value);
            checked.unwrap_or_else(|error| panic!("{name}: {field}: {error}"));
        }
        for field in headers.keys().map(http::HeaderName::as_str) {
            let is_known = OF_SERVERS.contains(&field)
                || documented.keys().any(|known| known.eq_ignore_ascii_case(field));
            assert!(is_known, "{name}: the field {field} is not documented");
        }
    }
}

/// Takes from a schema what a later version may add.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(close);
            if members.get("properties").is_some_and(Value::is_object) {
                members.insert("additionalProperties".to_owned(), false.into());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// The fields of an event; a comment has none.
fn event(block: &str) -> Value {
    let fields = block.lines().filter_map(|line| line.split_once(": "));
    let fields = fields.map(|(name, text)| match name {
        "retry" => (name.to_owned(), text.parse::<u64>().unwrap().into()),
        name => (name.to_owned(), text.into()),
    });
    Value::Object(fields.collect())
}
