//! The service is killed in the middle of an image, and finishes it when it is started again.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

struct Service(Child, String);

impl Service {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_axum-images"))
            .env("LISTEN", "127.0.0.1:0")
            .env("DATA_DIR", folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let base = first.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
        Self(process, base.trim_end_matches('.').to_owned())
    }

    fn curl(&self, target: &str, more: &[&str]) -> String {
        let target = format!("{}{target}", self.1);
        let output = Command::new("curl").args(["-sSi", &target]).args(more).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // SIGKILL: the process can clear nothing up.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_image_is_finished_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let photo = folder.path().join("photo.jpg");
    // Large enough that it takes a second or more.
    let pixels = image::RgbImage::from_fn(3_000, 2_000, |x, y| {
        image::Rgb([x, y, x * y / 64].map(|value| u8::try_from(value % 256).unwrap()))
    });
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode_image(&pixels).unwrap();
    fs::write(&photo, jpeg).unwrap();

    let data = folder.path().join("data");
    let service = Service::start(&data);
    let photo = format!("@{}", photo.display());
    let upload =
        ["-H", "Prefer: respond-async", "-H", "Content-Type: image/jpeg", "--data-binary", &photo];
    let answer = service.curl("/images", &upload);
    let location = answer.lines().find_map(|line| line.strip_prefix("content-location: "));
    let monitor = location.unwrap_or_else(|| panic!("{answer}")).trim().to_owned();
    let began = Instant::now();
    while !service.curl(&monitor, &[]).contains("\"running\"") {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", service.curl(&monitor, &[]));
        thread::sleep(Duration::from_millis(2));
    }
    drop(service);

    let service = Service::start(&data);
    let began = Instant::now();
    let ended = loop {
        let answer = service.curl(&monitor, &[]);
        if answer.contains("\"finished\"") {
            break answer;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{answer}");
        thread::sleep(Duration::from_millis(100));
    };
    assert!(ended.contains("\"succeeded\"") && ended.contains("\"attempt\":2"), "{ended}");
    let result = service.curl(&format!("{monitor}/result"), &[]);
    assert!(result.starts_with("HTTP/1.1 201"), "{result}");
}
