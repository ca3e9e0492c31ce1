//! What a user sees: bars for people at a terminal, lines for others, JSON for programs.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use respond_async::client::Snapshot;
use respond_async::{Problem, Status};
use serde_json::{Value, json};

use crate::kept::Kept;

const STEPS: u64 = 100;

#[derive(Debug, Clone)]
pub(crate) struct Show {
    json: bool,
    bars: MultiProgress,
}

/// One picture on its way.
#[derive(Debug)]
pub(crate) struct Line {
    show: Show,
    name: String,
    bar: ProgressBar,
}

impl Show {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, bars: MultiProgress::new() }
    }

    pub(crate) fn line(&self, file: &Path) -> Line {
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        let bar = if self.json { ProgressBar::hidden() } else { ProgressBar::new(STEPS) };
        let style = "{prefix:<24!} {bar:30} {percent:>3}% {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        let bar = self.bars.add(bar);
        bar.set_prefix(name.clone());
        bar.enable_steady_tick(Duration::from_millis(200));
        Line { show: self.clone(), name, bar }
    }

    pub(crate) fn error(&self, message: &str) {
        if self.json {
            self.say_json(&json!({ "event": "error", "message": message }));
        } else {
            let _ = writeln!(io::stderr(), "error: {message}");
        }
    }

    pub(crate) fn kept(&self, kept: &Kept) {
        let (file, snapshot) = (kept.file.display(), kept.state.snapshot());
        if self.json {
            let mut event = describe(snapshot);
            event["file"] = json!(kept.file);
            event["monitor"] = json!(kept.state.monitor());
            self.say_json(&event);
        } else {
            let status = snapshot.status();
            self.say(&format!("{file}: {status} when it was left, {}", kept.state.monitor()));
        }
    }

    /// What is left alone, since it is another service's.
    pub(crate) fn elsewhere(&self, kept: &Kept) {
        let (file, monitor) = (kept.file.display(), kept.state.monitor());
        if self.json {
            let (event, file) = ("elsewhere", &kept.file);
            self.say_json(&json!({ "event": event, "file": file, "monitor": monitor }));
        }
        self.say(&format!("{file}: left at another service, {monitor}; see --server"));
    }

    /// A line that stays, above the bars.
    pub(crate) fn say(&self, line: &str) {
        if self.json {
            return;
        }
        self.bars.suspend(|| {
            // Nobody may be reading.
            let _ = writeln!(io::stdout(), "{line}");
        });
    }

    fn say_json(&self, event: &Value) {
        debug_assert!(self.json);
        let _ = writeln!(io::stdout(), "{event}");
    }
}

fn describe(snapshot: &Snapshot) -> Value {
    let mut event = json!({ "status": snapshot.status() });
    if let Some(progress) = snapshot.progress() {
        event["progress"] = json!(progress);
    }
    event
}

impl Line {
    fn event(&self, mut event: Value) {
        event["file"] = json!(self.name);
        self.show.say_json(&event);
    }

    pub(crate) fn uploading(&self) {
        self.bar.set_message("uploading");
    }

    pub(crate) fn accepted(&self, monitor: &str) {
        if self.show.json {
            self.event(json!({ "event": "accepted", "monitor": monitor }));
        }
        self.bar.set_message("accepted");
    }

    pub(crate) fn progress(&self, snapshot: &Snapshot) {
        if self.show.json {
            let mut event = describe(snapshot);
            event["event"] = json!("progress");
            self.event(event);
        }
        let progress = snapshot.progress();
        let message = progress.and_then(|progress| progress.message());
        let status = snapshot.status();
        self.bar.set_message(message.map_or_else(|| status.to_string(), str::to_owned));
        if let Some(fraction) = progress.and_then(respond_async::Progress::fraction) {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a fraction from 0 to 1 of a hundred"
            )]
            self.bar.set_position((fraction * STEPS as f64) as u64);
        }
    }

    pub(crate) fn done(&self, location: &str) {
        if self.show.json {
            self.event(
                json!({ "event": "done", "status": Status::Succeeded, "location": location }),
            );
        }
        self.bar.set_position(STEPS);
        self.bar.finish_with_message(location.to_owned());
        // At a terminal the bar says it.
        if !(io::stderr().is_terminal() && io::stdout().is_terminal()) {
            self.show.say(&format!("{}: {location}", self.name));
        }
    }

    pub(crate) fn saved(&self, file: &Path) {
        if self.show.json {
            self.event(json!({ "event": "saved", "as": file }));
        }
        self.show.say(&format!("{}: saved as {}", self.name, file.display()));
    }

    pub(crate) fn canceled(&self) {
        if self.show.json {
            self.event(json!({ "event": "done", "status": Status::Canceled }));
        }
        self.end("canceled", &format!("{}: canceled", self.name));
    }

    pub(crate) fn failed(&self, problem: &Problem) {
        if self.show.json {
            self.event(json!({ "event": "done", "status": Status::Failed, "error": problem }));
        }
        self.end("failed", &format!("{}: {problem}", self.name));
    }

    pub(crate) fn left(&self, monitor: &str) {
        if self.show.json {
            self.event(json!({ "event": "left", "monitor": monitor }));
        }
        let line = format!("{}: goes on without us; see `images-cli resume`", self.name);
        self.end("left", &line);
    }

    pub(crate) fn unsent(&self) {
        if self.show.json {
            self.event(json!({ "event": "unsent" }));
        }
        self.end("not sent", &format!("{}: not sent", self.name));
    }

    pub(crate) fn trouble(&self, message: &str) {
        if self.show.json {
            self.event(json!({ "event": "error", "message": message }));
        }
        self.end("trouble", &format!("{}: {message}", self.name));
    }

    /// The bar stays where it is, and a line says why.
    fn end(&self, short: &str, line: &str) {
        self.bar.abandon_with_message(short.to_owned());
        self.show.say(line);
    }
}
