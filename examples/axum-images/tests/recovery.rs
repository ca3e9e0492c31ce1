//! A process is killed in the middle of an image, and the image still gets done: by the same service when it
//! is started again, or by another process of a cluster.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

#[path = "../../../tests/servers/mod.rs"]
mod servers;

use servers::{Server, Sort};

/// Pixels a side of an image that takes a second or more.
const LARGE: u32 = 2_500;
/// Of one that is done while its client waits, on the busiest machine.
const SMALL: u32 = 100;

/// A process, and its address if it listens.
struct Service(Child, String);

impl Service {
    fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_axum-images"))
            .env("LISTEN", "127.0.0.1:0")
            .env("DATA_DIR", folder)
            .env_remove("DATABASE_URL")
            .env_remove("REDIS_URL")
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let base = first.split_whitespace().find(|word| word.starts_with("http://"));
        Self(process, base.unwrap_or_default().trim_end_matches('.').to_owned())
    }

    /// Uploads an image of so many pixels a side, and gives the address of what is answered with.
    fn upload(&self, folder: &Path, side: u32, prefer: &str) -> String {
        let photo = folder.join("photo.jpg");
        let pixels = image::RgbImage::from_fn(side, side, |x, y| {
            image::Rgb([x, y, x * y / 64].map(|value| u8::try_from(value % 256).unwrap()))
        });
        let mut jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode_image(&pixels).unwrap();
        fs::write(&photo, jpeg).unwrap();
        let (photo, prefer) = (format!("@{}", photo.display()), format!("Prefer: {prefer}"));
        let upload = ["-H", &prefer, "-H", "Content-Type: image/jpeg", "--data-binary", &photo];
        let answer = self.curl("/images", &upload);
        let location = answer.lines().find_map(|line| line.strip_prefix("content-location: "));
        location.unwrap_or_else(|| panic!("{answer}")).trim().to_owned()
    }

    /// Asks the monitor until it says that.
    fn until(&self, monitor: &str, word: &str) -> String {
        let began = Instant::now();
        loop {
            let answer = self.curl(monitor, &[]);
            if answer.contains(word) {
                return answer;
            }
            // Long enough for a machine that is at ten other things: it is begun twice, and computes.
            assert!(began.elapsed() < Duration::from_secs(300), "{answer}");
            thread::sleep(Duration::from_millis(5));
        }
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
    let data = folder.path().join("data");
    let service = Service::start(&data, &[]);
    let monitor = service.upload(folder.path(), LARGE, "respond-async");
    service.until(&monitor, "\"running\"");
    drop(service);

    let service = Service::start(&data, &[]);
    let ended = service.until(&monitor, "\"finished\"");
    assert!(ended.contains("\"succeeded\"") && ended.contains("\"attempt\":2"), "{ended}");
    let result = service.curl(&format!("{monitor}/result"), &[]);
    assert!(result.starts_with("HTTP/1.1 201"), "{result}");
}

#[test]
#[ignore = "needs PostgreSQL: run ./tests/all"]
fn a_cluster_on_postgres_survives_its_processes() {
    a_cluster_survives_its_processes(&Server::start(Sort::Postgres), "DATABASE_URL");
}

#[test]
#[ignore = "needs Redis: run ./tests/all"]
fn a_cluster_on_redis_survives_its_processes() {
    a_cluster_survives_its_processes(&Server::start(Sort::Redis), "REDIS_URL");
}

/// Two replicas and a worker: the one that accepted is killed, then the one that works.
fn a_cluster_survives_its_processes(server: &Server, variable: &str) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let url = server.url();
    let start = |role| Service::start(&data, &[(variable, &url), ("ROLE", role)]);
    let (one, other, worker) = (start("gateway"), start("gateway"), start("worker"));
    let monitor = one.upload(folder.path(), LARGE, "respond-async");
    drop(one);
    // Any replica answers for any other.
    other.until(&monitor, "\"running\"");
    drop(worker);
    let _worker = start("worker");
    let ended = other.until(&monitor, "\"finished\"");
    assert!(ended.contains("\"succeeded\"") && ended.contains("\"attempt\":2"), "{ended}");
    let result = other.curl(&format!("{monitor}/result"), &[]);
    assert!(result.starts_with("HTTP/1.1 201"), "{result}");
    // What a worker elsewhere finishes in time is the plain answer.
    let image = other.upload(folder.path(), SMALL, "respond-async, wait=60");
    assert!(image.starts_with("/images/"), "{image}");
}
