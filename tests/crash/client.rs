//! A client that does not give up.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// An answer: its status, its fields as text, its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: String,
    pub(crate) content: String,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.lines().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.content).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The operation that it is about: that of the 202's link, or of the answer's own words.
    pub(crate) fn operation(&self) -> String {
        match self.status {
            202 => self.field("content-location").unwrap().rsplit('/').next().unwrap().to_owned(),
            _ => self.json()[0].as_str().unwrap_or_default().to_owned(),
        }
    }
}

pub(crate) fn get(address: &str, target: &str) -> io::Result<Answer> {
    send(address, &format!("GET {target} HTTP/1.1\r\n"))
}

/// Posts, under a key and with a preference if they are not empty.
pub(crate) fn post(address: &str, target: &str, key: &str, prefer: &str) -> io::Result<Answer> {
    let key = if key.is_empty() { String::new() } else { format!("Idempotency-Key: {key}\r\n") };
    let prefer = if prefer.is_empty() { String::new() } else { format!("Prefer: {prefer}\r\n") };
    send(address, &format!("POST {target} HTTP/1.1\r\nContent-Length: 0\r\n{key}{prefer}"))
}

fn send(address: &str, head: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(format!("{head}Host: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let cut_off = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (fields, content) = text.split_once("\r\n\r\n").ok_or_else(cut_off)?;
    let status = fields.split(' ').nth(1).and_then(|status| status.parse().ok());
    let answer = Answer {
        status: status.ok_or_else(cut_off)?,
        fields: fields.to_owned(),
        content: content.to_owned(),
    };
    let length = answer.field("content-length").and_then(|length| length.parse().ok());
    if length.is_some_and(|length: usize| length != content.len()) {
        return Err(cut_off());
    }
    Ok(answer)
}
