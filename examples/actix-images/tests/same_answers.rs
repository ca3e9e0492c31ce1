//! The image service answers the same on actix as on axum: status, fields and content of each
//! answer, as they come over the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use images::{Images, Settings};

struct Actix(Child, SocketAddr);

impl Actix {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_actix-images"))
            .env("LISTEN", "127.0.0.1:0")
            .env("DATA_DIR", folder)
            .env_remove("DATABASE_URL")
            .env_remove("REDIS_URL")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let address = first.split("http://").nth(1).unwrap().split(". ").next().unwrap();
        Self(process, address.parse().unwrap())
    }
}

impl Drop for Actix {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn axum(folder: &Path) -> SocketAddr {
    let settings = Settings { data: folder.to_owned(), ..Settings::default() };
    let (say, said) = std::sync::mpsc::channel();
    thread::spawn(move || {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
            let images = Images::start(&settings).await.unwrap();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            say.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, axum_images::app(images)).await.unwrap();
        });
    });
    said.recv().unwrap()
}

/// What a service answers, and what it has said so far that another would say otherwise.
struct Client {
    address: SocketAddr,
    ids: Vec<String>,
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: String,
    fields: Vec<String>,
    body: Vec<u8>,
}

impl Client {
    fn send(&mut self, request: &str, fields: &[&str], body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut request = self.with_own_ids(request);
        request.push_str(" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        for field in fields {
            request.push_str(field);
            request.push_str("\r\n");
        }
        if !body.is_empty() {
            let length = body.len().to_string();
            request.extend(["content-length: ", &length, "\r\n"]);
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        // A server may answer before it has read all, and close.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().to_owned();
        let mut fields: Vec<_> = lines.filter_map(|line| self.field(line, &request)).collect();
        fields.sort();
        let mut body = answer.split_off(end + 4);
        if let Ok(text) = std::str::from_utf8(&body) {
            body = self.normalized(text).into_bytes();
        }
        Answer { status, fields, body }
    }

    /// The field in a form that is the same for both; none if it is the connection's own.
    fn field(&mut self, line: &str, request: &str) -> Option<String> {
        let (name, value) = line.split_once(": ").unwrap();
        let name = name.to_ascii_lowercase();
        let is_monitor = request.contains(" /operations");
        Some(match &*name {
            "date" | "connection" => return None,
            "retry-after" | "sunset" => format!("{name}: …"),
            // The number of progress reports is a matter of time, and with it the length.
            "etag" | "content-length" if is_monitor => format!("{name}: …"),
            // Seconds that are left, and one of both was asked first: so in tens of minutes.
            "cache-control" if is_monitor => match value.rsplit_once("max-age=") {
                Some((before, age)) => {
                    format!("{name}: {before}{}0 min", (age.parse::<u64>().unwrap() + 300) / 600)
                }
                None => format!("{name}: {value}"),
            },
            _ => format!("{name}: {}", self.normalized(value)),
        })
    }

    /// The text with ids by their order, and without times.
    fn normalized(&mut self, text: &str) -> String {
        let mut normalized = String::new();
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.');
        for word in text.split_inclusive(|c| !is_part(c)) {
            let core = word.trim_end_matches(|c| !is_part(c));
            let is_id = core.len() == 36 && core.matches('-').count() == 4;
            let is_time = core.len() == 24 && core.ends_with('Z') && core.contains('T');
            if is_id {
                let place = self.ids.iter().position(|id| id == core).unwrap_or_else(|| {
                    self.ids.push(core.to_owned());
                    self.ids.len() - 1
                });
                normalized.push_str(&word.replace(core, &format!("ID{place}")));
            } else if is_time {
                normalized.push_str(&word.replace(core, "TIME"));
            } else {
                normalized.push_str(word);
            }
        }
        normalized
    }

    fn with_own_ids(&self, text: &str) -> String {
        let ids = self.ids.iter().enumerate().rev();
        ids.fold(text.to_owned(), |text, (place, id)| text.replace(&format!("ID{place}"), id))
    }

    fn until_finished(&mut self, monitor: &str) {
        let began = Instant::now();
        loop {
            let answer = self.send(&format!("GET {monitor}"), &["x-user: ann"], b"");
            if String::from_utf8_lossy(&answer.body).contains("\"finished\"") {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{answer:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn photo(side: u32) -> Vec<u8> {
    let pixels = image::RgbImage::from_fn(side, side, |x, y| {
        image::Rgb([x, y, x * y / 64].map(|value| u8::try_from(value % 256).unwrap()))
    });
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode_image(&pixels).unwrap();
    jpeg
}

#[test]
fn both_answer_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let process = Actix::start(&folder.path().join("actix"));
    let client = |address| Client { address, ids: Vec::new() };
    let mut axum = client(axum(&folder.path().join("axum")));
    let mut actix = client(process.1);
    let mut both = |request: &str, fields: &[&str], body: &[u8], status: u16| -> Answer {
        let (theirs, ours) = (axum.send(request, fields, body), actix.send(request, fields, body));
        let name = format!("{request} {fields:?} {} bytes", body.len());
        assert!(ours.status.contains(&format!(" {status} ")), "{name}: {ours:?}");
        assert_eq!(theirs.status, ours.status, "{name}");
        assert_eq!(theirs.fields, ours.fields, "{name}");
        assert_eq!(
            String::from_utf8_lossy(&theirs.body),
            String::from_utf8_lossy(&ours.body),
            "{name}"
        );
        assert_eq!(theirs.body, ours.body, "{name}");
        if request.starts_with("POST") && status == 202 {
            let monitor = format!("/operations/ID{}", axum.ids.len() - 1);
            axum.until_finished(&monitor);
            actix.until_finished(&monitor);
        }
        ours
    };
    let (jpeg, kind) = (photo(200), "content-type: image/jpeg");
    let (prefer, ann) = ("prefer: respond-async", "x-user: ann");

    both("POST /images", &[kind], &jpeg, 201);
    both("GET /images/ID0", &[], b"", 200);
    both("HEAD /images/ID0", &[], b"", 200);
    both("GET /images/ID0", &["accept: application/json"], b"", 200);
    both("POST /images", &[kind, "prefer: respond-async, wait=20"], &jpeg, 201);
    both("POST /images", &[kind, prefer, ann], &jpeg, 202);
    for monitor in ["GET /operations/ID2", "HEAD /operations/ID2", "GET /operations/ID2/result"] {
        both(monitor, &[ann], b"", 200 + u16::from(monitor.ends_with("result")));
        both(monitor, &["x-user: bob"], b"", 404);
        both(monitor, &["x-user: "], b"", 400);
    }
    both("GET /operations/ID2", &[ann, "if-none-match: *"], b"", 304);
    both("GET /operations", &[ann], b"", 200);
    both("GET /operations?limit=1&status=succeeded", &[ann], b"", 200);
    both("GET /operations?limit=x", &[ann], b"", 400);
    both("GET /operations/", &[ann], b"", 404);
    both("GET /operations", &[], b"", 404);
    both("DELETE /operations/ID2", &[ann], b"", 204);
    both("GET /operations/ID2", &[ann], b"", 404);
    both("POST /operations/ID2", &[ann], b"", 405);
    both("PUT /operations", &[ann], b"", 405);
    both("GET /operations/x/y/z", &[], b"", 404);

    let key = "idempotency-key: \"k-1\"";
    both("POST /images", &[kind, prefer, ann, key], &jpeg, 202);
    both("POST /images", &[kind, prefer, ann, key], &jpeg, 201);
    both("POST /images", &[kind, ann, key], &photo(8), 422);
    both("POST /images", &[kind, "idempotency-key: a b"], &jpeg, 400);

    both("POST /images", &["content-type: text/plain", prefer], b"hello", 415);
    both("POST /images", &[kind], b"hello", 422);
    both("POST /images", &[kind], b"", 422);
    both("POST /images", &[kind, prefer, ann], &jpeg[..jpeg.len() / 2], 202);
    both("POST /images", &[kind], &vec![0; (16 << 20) + 1], 413);
    both("GET /images", &[], b"", 405);
    both("POST /images/ID0", &[], b"", 405);
    both("GET /images/nothing", &[], b"", 404);
    both("GET /images/%00", &[], b"", 404);
    both("GET /openapi.json", &[], b"", 200);
    both("HEAD /openapi.json", &[], b"", 200);
    both("HEAD /health", &[], b"", 200);
    both("POST /openapi.json", &[], b"", 405);
    both("GET /nothing", &[], b"", 404);
    both("GET /", &[], b"", 404);
    both("GET /", &["x-user: \u{e9}"], b"", 400);
    let nameless = both("POST /images", &[kind, "x-user: "], &jpeg, 400);
    assert!(nameless.fields.contains(&"vary: Prefer".to_owned()), "{nameless:?}");
}
