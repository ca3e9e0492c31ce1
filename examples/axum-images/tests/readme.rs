//! The README's session, typed as it stands there against the program that it starts.
//!
//! What must differ (ids, times, sizes) is compared by its place: an id that the README shows twice
//! must come twice.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

const README: &str = include_str!("../../../README.md");

struct Service {
    process: Child,
    base: String,
}

impl Service {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_axum-images"))
            .env("LISTEN", "127.0.0.1:0")
            .env("DATA_DIR", folder.join("data"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let base = first.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
        Self { process, base: base.trim_end_matches('.').to_owned() }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The commands of the README's console blocks, each with the output that it shows.
fn session() -> Vec<(String, String)> {
    let blocks = README.split("```console\n$ ").skip(1);
    let blocks = blocks.map(|block| block.split("\n```").next().unwrap());
    blocks
        .map(|block| {
            let (command, output) = block.split_once('\n').unwrap();
            (command.to_owned(), output.to_owned())
        })
        .collect()
}

fn is_id(word: &str) -> bool {
    word.len() == 36 && word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// The ids of a text in their order, and the text with everything that must differ taken out.
fn normalized(text: &str) -> (Vec<String>, String) {
    let mut ids = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = line.trim_end();
        let field = line.split_once(": ").map(|(name, _)| name);
        if let Some(name @ ("date" | "sunset" | "retry-after" | "content-length" | "etag")) = field
        {
            lines.push(format!("{name}: …"));
            continue;
        }
        if line.starts_with("HTTP/") {
            lines.push(line.to_owned());
            continue;
        }
        let mut words = String::new();
        for word in line.split_inclusive(|c: char| !c.is_ascii_hexdigit() && c != '-') {
            let (core, end) = match word.char_indices().last() {
                Some((at, last)) if !last.is_ascii_hexdigit() && last != '-' => word.split_at(at),
                _ => (word, ""),
            };
            if is_id(core) {
                ids.push(core.to_owned());
                words.push_str("ID");
            } else if core.bytes().any(|byte| byte.is_ascii_digit())
                && core.len() > 1
                && !words.ends_with("\"status\":")
            {
                // A size, an age, a checksum, or a part of a time.
                words.push('N');
            } else {
                words.push_str(core);
            }
            words.push_str(end);
        }
        lines.push(words);
    }
    (ids, lines.join("\n"))
}

/// A picture large enough to be worth the work.
fn photo() -> Vec<u8> {
    let pixels = image::RgbImage::from_fn(640, 427, |x, y| {
        let byte = |value: u32| u8::try_from(value % 256).unwrap();
        image::Rgb([byte(x), byte(y), byte(x * y / 64)])
    });
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode_image(&pixels).unwrap();
    jpeg
}

const SUCCEEDED: &str = "\"status\":\"succeeded\"";

#[test]
fn the_session_of_the_readme() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("photo.jpg"), photo()).unwrap();
    let service = Service::start(folder.path());
    let session = session();
    assert_eq!(session.len(), 6);

    let mut ids = HashMap::<String, String>::new();
    for (command, shown) in session {
        let mut typed = command.replace("http://127.0.0.1:3000", &service.base);
        for (theirs, ours) in &ids {
            typed = typed.replace(theirs, ours);
        }
        let typed = typed.replace("curl ", "curl -sS ");
        let began = Instant::now();
        let printed = loop {
            let mut shell = Command::new("sh");
            shell.args(["-c", &typed]).current_dir(folder.path());
            let output = shell.output().expect("a shell");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{typed}: {error}");
            let printed = String::from_utf8(output.stdout).unwrap();
            // Who typed it took longer than the work.
            let is_early = shown.contains(SUCCEEDED) && !printed.contains(SUCCEEDED);
            if !is_early || began.elapsed() > Duration::from_secs(60) {
                break printed;
            }
            thread::sleep(Duration::from_millis(100));
        };
        let (head, content) = shown.split_once("\n\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\n", content.len())), "{shown}");

        let ((shown_ids, shown), (printed_ids, printed)) =
            (normalized(&shown), normalized(&printed));
        assert_eq!(printed, shown, "{typed}");
        for (theirs, ours) in shown_ids.into_iter().zip(printed_ids) {
            let known = ids.entry(theirs).or_insert_with(|| ours.clone());
            assert_eq!(*known, ours, "{typed}");
        }
        // As long as the 202 asks a client to wait.
        thread::sleep(Duration::from_secs(2));
    }
}
