//! Chromium, driven through its debugging pipe: messages of JSON that end with a zero byte, read from its
//! file descriptor 3 and written to 4.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Chromium {
    process: Child,
    input: File,
    output: Receiver<Value>,
    sent: u64,
    session: Option<String>,
    /// What the page complained of: errors of its script, and what its policy forbade.
    pub(crate) complaints: Vec<String>,
}

impl Chromium {
    /// A browser with one page, which sends `X-User: ann` with each request.
    pub(crate) fn start(folder: &Path) -> Self {
        let pipes = ["in", "out"].map(|name| folder.join(name));
        assert!(Command::new("mkfifo").args(&pipes).status().unwrap().success());
        let process = Command::new("sh")
            .arg("-c")
            .arg(
                "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
                 --remote-debugging-pipe --window-size=900,700 --user-data-dir=\"$0/profile\" \
                 about:blank 3<\"$0/in\" 4>\"$0/out\"",
            )
            .arg(folder)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Each waits until the other side opens it too, so the order is the shell's.
        let input = File::options().write(true).open(&pipes[0]).unwrap();
        let output = BufReader::new(File::open(&pipes[1]).unwrap());
        let (messages, receiver) = mpsc::channel();
        thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                if messages.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
            }
        });
        let (session, complaints) = (None, Vec::new());
        let mut browser = Self { process, input, output: receiver, sent: 0, session, complaints };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Network", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser.call("Network.setExtraHTTPHeaders", &json!({ "headers": { "X-User": "ann" } }));
        browser
    }

    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.input.write_all(message.to_string().as_bytes()).unwrap();
        self.input.write_all(b"\0").unwrap();
        loop {
            let mut answer = self.output.recv_timeout(PATIENCE).expect("an answer");
            if answer["id"] == self.sent {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            match answer["method"].as_str() {
                Some("Runtime.exceptionThrown") => self.complaints.push(answer.to_string()),
                Some("Log.entryAdded") => {
                    // A server that is away is no mistake of the page.
                    let entry = &answer["params"]["entry"];
                    if entry["level"] == "error" && entry["source"] != "network" {
                        self.complaints.push(entry["text"].to_string());
                    }
                }
                _ => {}
            }
        }
    }

    /// Runs that in each page before anything of its own.
    pub(crate) fn before_each_page(&mut self, script: &str) {
        self.call("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": script }));
    }

    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", &json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{opened}");
        self.until(&format!("location.href === {url:?} && document.readyState === 'complete'"));
    }

    /// What the expression gives, or what its promise does.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", &asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until that is so.
    pub(crate) fn until(&mut self, expression: &str) {
        let began = Instant::now();
        while self.evaluate(expression) != true {
            let shown = self.evaluate("document.body?.innerText");
            assert!(began.elapsed() < PATIENCE, "never {expression}: {shown}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses what the selector finds, as a hand does.
    pub(crate) fn press(&mut self, selector: &str) {
        let place = self.evaluate(&format!(
            "(() => {{ const at = document.querySelector({selector:?}).getBoundingClientRect(); \
             return [at.x + at.width / 2, at.y + at.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", &event);
        }
    }

    /// Keeps how the page looks, in light and in dark, for people, if `SCREENSHOTS` names a folder.
    pub(crate) fn show(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("SCREENSHOTS") else { return };
        for scheme in ["light", "dark"] {
            let feature = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
            self.call("Emulation.setEmulatedMedia", &json!({ "features": feature }));
            let picture = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
            let picture = decoded(picture["data"].as_str().unwrap());
            fs::write(Path::new(&folder).join(format!("{name}-{scheme}.png")), picture).unwrap();
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Undoes base64.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: &u8| match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u32> = text.as_bytes().iter().filter_map(digit).collect();
    let mut bytes = Vec::new();
    for four in digits.chunks(4) {
        let number = (0..4).fold(0, |number, at| number << 6 | four.get(at).copied().unwrap_or(0));
        bytes.extend(&number.to_be_bytes()[1..four.len()]);
    }
    bytes
}
