//! What people see: the pages of the monitor in a real browser.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod chromium;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use chromium::Chromium;
use serde_json::Value;

/// Notes each state that the page shows.
const NOTE_STATES: &str = "
    window.states = [];
    window.fractions = [];
    new MutationObserver(() => {
        const status = document.querySelector('main [data-is=status]');
        if (status && states.at(-1) !== status.textContent) states.push(status.textContent);
        const progress = document.querySelector('main [data-is=progress]');
        if (progress && progress.position > (fractions.at(-1) ?? -1)) fractions.push(progress.position);
    }).observe(document, { attributes: true, childList: true, characterData: true, subtree: true });
";

/// Notes each event of the page's own stream.
const NOTE_EVENTS: &str = "
    window.told = [];
    new EventSource(location.href).addEventListener('operation', (event) => {
        told.push([event.lastEventId, event.data]);
    });
";

/// The program, and its address.
struct Service(Child, String);

impl Service {
    fn start(folder: &Path, listen: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_axum-images"))
            .env("LISTEN", listen)
            .env("DATA_DIR", folder.join("data"))
            .env_remove("DATABASE_URL")
            .env_remove("REDIS_URL")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let base = first.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
        Self(process, base.trim_end_matches('.').to_owned())
    }

    /// Dies without a word, and begins anew at the same address.
    fn restart(mut self, folder: &Path) -> Self {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let listen = self.1.trim_start_matches("http://").to_owned();
        Self::start(folder, &listen)
    }

    /// Uploads an image that takes a second or more, and gives the address of its operation.
    fn upload(&self, folder: &Path) -> String {
        let photo = folder.join("photo.jpg");
        if !photo.exists() {
            let pixels = image::RgbImage::from_fn(3_000, 2_000, |x, y| {
                image::Rgb([x, y, x * y / 64].map(|value| u8::try_from(value % 256).unwrap()))
            });
            let mut jpeg = Vec::new();
            image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode_image(&pixels).unwrap();
            fs::write(&photo, jpeg).unwrap();
        }
        let output = Command::new("curl")
            .args(["-sSi", &format!("{}/images", self.1), "-H", "X-User: ann"])
            .args(["-H", "Prefer: respond-async", "-H", "Content-Type: image/jpeg"])
            .arg("--data-binary")
            .arg(format!("@{}", photo.display()))
            .output()
            .unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        let location = answer.lines().find_map(|line| line.strip_prefix("content-location: "));
        let location = location.unwrap_or_else(|| panic!("{answer}"));
        format!("{}{}", self.1, location.trim())
    }

    /// More than are worked on at once; the last has to wait.
    fn upload_more_than_enough(&self, folder: &Path) -> Vec<String> {
        let cores = std::thread::available_parallelism().unwrap().get();
        (0..=cores).map(|_| self.upload(folder)).collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shows(state: &str) -> String {
    format!("document.querySelector('main [data-is=status]')?.textContent === {state:?}")
}

#[test]
#[ignore = "needs Chromium: run ./tests/all"]
fn a_page_follows_an_image_from_upload_to_result() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), "127.0.0.1:0");
    let mut browser = Chromium::start(folder.path());
    browser.before_each_page(NOTE_STATES);
    let monitor = service.upload_more_than_enough(folder.path()).pop().unwrap();
    browser.open(&monitor);
    browser.show("waiting");
    browser.until(&shows("Running"));
    browser.until("fractions.length > 1");
    browser.show("running");
    browser.until(&shows("Done"));
    // It is the same page all the time, and it has told of each state.
    assert_eq!(browser.evaluate("states"), serde_json::json!(["Waiting", "Running", "Done"]));
    assert_eq!(browser.evaluate("document.title"), "images.enhance: Done");
    assert_eq!(
        browser.evaluate("document.querySelector('[data-is=cancel]').checkVisibility()"),
        false
    );
    browser.show("done");
    let made = browser.evaluate(
        "fetch(document.querySelector('[data-is=location]').href).then(async (answer) => \
         [answer.status, answer.headers.get('content-type'), (await answer.blob()).size > 1000])",
    );
    assert_eq!(made, serde_json::json!([200, "image/jpeg", true]));
    browser.press("[data-is=result]");
    browser.until("location.pathname.endsWith('/result')");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
#[ignore = "needs Chromium: run ./tests/all"]
fn its_button_cancels_with_script_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), "127.0.0.1:0");
    let mut browser = Chromium::start(folder.path());
    service.upload_more_than_enough(folder.path());
    browser.before_each_page(NOTE_STATES);
    let monitor = service.upload(folder.path());
    browser.open(&monitor);
    browser.press("[data-is=cancel] button");
    browser.until(&shows("Canceled"));
    assert_eq!(browser.evaluate("states"), serde_json::json!(["Waiting", "Canceled"]));
    // Who pressed it by the keyboard is not left where there is nothing any more.
    assert_eq!(browser.evaluate("document.activeElement.dataset.is"), "status");
    browser.show("canceled");

    browser.call("Emulation.setScriptExecutionDisabled", &serde_json::json!({ "value": true }));
    let monitor = service.upload(folder.path());
    browser.open(&monitor);
    assert_eq!(browser.evaluate("document.querySelector('noscript meta').content > 0"), true);
    browser.press("[data-is=cancel] button");
    browser.until(&shows("Canceled"));
    assert_eq!(browser.evaluate("location.href"), monitor);
    browser.open(&format!("{}/operations", service.1));
    assert_eq!(browser.evaluate("document.querySelectorAll('.canceled').length"), 2);
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
#[ignore = "needs Chromium: run ./tests/all"]
fn a_page_survives_a_restart_without_a_missed_or_repeated_state() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), "127.0.0.1:0");
    let mut browser = Chromium::start(folder.path());
    let monitor = service.upload_more_than_enough(folder.path()).pop().unwrap();
    browser.open(&monitor);
    browser.evaluate(NOTE_EVENTS);
    browser.until(&shows("Running"));
    browser.until("told.some(([, data]) => JSON.parse(data).status === 'running')");
    let before = browser.evaluate("told.length").as_u64().unwrap();
    let service = service.restart(folder.path());
    browser.until(&shows("Done"));
    browser.until("JSON.parse(told.at(-1)[1]).status === 'succeeded'");
    let told = browser.evaluate("told.map(([id, data]) => [Number(id), JSON.parse(data)])");
    let told: Vec<(u64, Value)> = serde_json::from_value(told).unwrap();
    assert!(told.is_sorted_by(|(one, _), (next, _)| one < next), "{told:?}");
    assert!(told.len() as u64 > before, "{told:?}");
    let states: Vec<_> = told.iter().map(|(_, operation)| operation["status"].as_str()).collect();
    assert!(states.contains(&Some("running")) && states.last() == Some(&Some("succeeded")));
    let now = browser.evaluate(
        "fetch(location.href, { headers: { Accept: 'application/json' } }).then((it) => it.json())",
    );
    assert_eq!(now, told.last().unwrap().1);

    // The list, too: what is new, what changes, and over another restart.
    let list = format!("{}/operations", service.1);
    browser.open(&list);
    browser.evaluate(NOTE_EVENTS);
    let monitors = service.upload_more_than_enough(folder.path());
    browser.until("document.querySelectorAll('.running').length > 0");
    browser.show("list");
    let service = service.restart(folder.path());
    let all = monitors.len() * 2;
    browser.until(&format!("document.querySelectorAll('.succeeded').length === {all}"));
    browser.until(&format!(
        "told.filter(([, data]) => JSON.parse(data).status === 'succeeded').length === {all}"
    ));
    let told = browser.evaluate("told.map(([, data]) => JSON.parse(data))");
    let mut of_each: HashMap<String, Vec<Value>> = HashMap::new();
    for state in told.as_array().unwrap() {
        let states = of_each.entry(state["id"].to_string()).or_default();
        assert!(!states.contains(state), "told twice: {state}");
        let order = |state: &Value| state["updated"].as_str().unwrap().to_owned();
        assert!(states.last().is_none_or(|last| order(last) <= order(state)));
        states.push(state.clone());
    }
    assert_eq!(of_each.len(), all);
    assert!(of_each.values().all(|states| states.last().unwrap()["status"] == "succeeded"));
    assert!(service.1 == list.trim_end_matches("/operations"));
    assert_eq!(browser.complaints, [""; 0]);
}
