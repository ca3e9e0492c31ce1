//! A service that is killed again and again while clients use it, and what they were promised.
//!
//! The service is this program, started anew as a child, on a SQLite file that outlives it.
//! `CRASH_KILLS` says how often it is killed (default 25); docs/testing.md has a long run.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]
#![allow(clippy::print_stdout, reason = "a long run says how it goes")]

#[path = "../interposed/mod.rs"]
mod interposed;
#[path = "../servers/mod.rs"]
mod servers;

mod client;
mod kill;
mod points;
mod service;
mod stop;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What the child is told by its environment.
const FOLDER: &str = "CRASH_FOLDER";
const LISTEN: &str = "CRASH_LISTEN";
const POINT: &str = "CRASH_POINT";
/// The URL of the server that has the operations; without it they are in a file in the folder.
const STORE: &str = "CRASH_STORE";

/// A service in a process of its own, and the folder that outlives it.
struct Service {
    child: Child,
    address: String,
    folder: PathBuf,
}

impl Service {
    /// Starts it, and waits until it answers or has died. `point` says where it dies by itself.
    fn start(folder: &Path, address: &str, point: &str) -> Self {
        Self::start_on("", folder, address, point)
    }

    /// The same with its operations on a server.
    fn start_on(store: &str, folder: &Path, address: &str, point: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["service::run", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder)
            .env(LISTEN, address)
            .env(POINT, point)
            .env(STORE, store)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut service = Self { child, address: address.to_owned(), folder: folder.to_owned() };
        let began = Instant::now();
        while client::get(&service.address, "/").is_err() && service.is_running() {
            assert!(began.elapsed() < Duration::from_secs(30), "the service does not start");
            thread::sleep(Duration::from_millis(5));
        }
        service
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success(), "kill {name}");
    }

    /// What the handlers did, in order.
    fn effects(&self) -> Vec<service::Effect> {
        service::effects(&self.folder)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that nobody listens on, for a service that comes and goes.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Asks until it is so.
#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}
