//! The proxy in front of a service that writes down what it gets, and does what its paths say.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

const ROUTES: &str = "PUT /slow/{n}, POST /slow/{n}, PUT /refused, PUT /hang";

struct Proxy(Child, SocketAddr);

impl Proxy {
    fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_gateway-proxy"))
            .env("LISTEN", "127.0.0.1:0")
            .env("DATA_DIR", folder)
            .env("ROUTES", ROUTES)
            .env("UPSTREAM_TIMEOUT", "1")
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let address = first.split(' ').next().unwrap().trim_start_matches("http://");
        Self(process, address.parse().unwrap())
    }

    /// Sends a request with these lines below its first, and gives head and content of the answer.
    fn send(&self, request: &str, fields: &str, body: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.1).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let length = body.len();
        let request = format!(
            "{request} HTTP/1.1\r\nhost: front.example\r\nconnection: close, x-hop\r\n\
             content-length: {length}\r\n{fields}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        // One that is broken off is what there is of it.
        let _ = stream.read_to_string(&mut answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        (head.to_owned(), body.to_owned())
    }

    fn accepted(&self, request: &str) -> String {
        let (head, body) = self.send(request, "prefer: respond-async\r\n", "content");
        assert!(head.starts_with("HTTP/1.1 202"), "{head}\n{body}");
        let field = head.lines().find_map(|line| line.strip_prefix("content-location: "));
        field.unwrap().to_owned()
    }

    fn ended(&self, monitor: &str) -> String {
        let began = Instant::now();
        loop {
            let (_, body) = self.send(&format!("GET {monitor}"), "", "");
            if body.contains("\"finished\"") {
                return body;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{body}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGKILL: the process can clear nothing up.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A service, and what it was sent.
fn upstream() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            thread::spawn(move || answer(stream.unwrap(), |request| sender.send(request).unwrap()));
        }
    });
    (url, receiver)
}

fn answer(mut stream: TcpStream, note: impl Fn(String)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    note(head + "\n" + &String::from_utf8(body).unwrap());
    let fields = "x-own: 1\r\nx-hop: 1\r\nkeep-alive: 9\r\nconnection: close, x-hop\r\n";
    let mut say = |text: String| {
        // The proxy may be dead.
        let _ = stream.write_all(text.as_bytes());
    };
    match path.trim_start_matches('/').split('/').next().unwrap() {
        "hang" => thread::sleep(Duration::from_secs(20)),
        "break" => say(format!("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n{fields}\r\nhalf")),
        "nonsense" => say("nonsense\r\n\r\n".to_owned()),
        "stall" => {
            say(format!("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n{fields}\r\nhalf"));
            thread::sleep(Duration::from_secs(20));
        }
        what => {
            if what == "slow" {
                thread::sleep(Duration::from_millis(800));
            }
            say(format!("HTTP/1.1 201 Created\r\ncontent-length: 4\r\n{fields}\r\ndone"));
        }
    }
}

#[test]
fn fields_of_a_connection_stay_there() {
    let (url, requests) = upstream();
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(folder.path(), &[("UPSTREAM", &url)]);
    let fields = "x-hop: 1\r\nx-end: 2\r\nte: trailers\r\nupgrade: h2c\r\nprefer: wait=1\r\n\
                  proxy-authorization: x\r\nauthorization: y\r\nvia: 1.0 other\r\n\
                  x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: https\r\n\
                  forwarded: for=10.0.0.1\r\nx-real-ip: 10.0.0.1\r\nx-forwarded-host: forged\r\n";
    let (head, body) = proxy.send("POST /any?q=%2F#", fields, "content");
    assert!(head.starts_with("HTTP/1.1 201") && body == "done", "{head}");
    assert!(head.contains("x-own: 1") && head.contains("via: 1.1 gateway-proxy"), "{head}");
    assert!(!head.contains("x-hop") && !head.contains("keep-alive"), "{head}");

    let request = requests.recv().unwrap();
    assert!(request.starts_with("POST /any?q=%2F HTTP/1.1\r\n"), "{request}");
    for there in [
        "x-end: 2",
        "authorization: y",
        "prefer: wait=1",
        "x-forwarded-host: front.example",
        "via: 1.0 other",
        "via: 1.1 gateway-proxy",
        "\ncontent",
    ] {
        assert!(request.contains(there), "{there}: {request}");
    }
    for not_there in [
        "x-hop",
        "te:",
        "upgrade",
        "proxy-auth",
        "host: front.example\r\nc",
        "10.0.0.1",
        "https",
        "forged",
    ] {
        assert!(!request.contains(not_there), "{not_there}: {request}");
    }
    assert!(request.contains(&url.replace("http://", "\r\nhost: ")), "{request}");
}

#[test]
fn what_is_broken_behind_is_a_problem() {
    let (url, _requests) = upstream();
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(folder.path(), &[("UPSTREAM", &url)]);
    for (path, status) in [("/hang", 504), ("/nonsense", 502)] {
        let (head, body) = proxy.send(&format!("GET {path}"), "", "");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert!(body.contains(&format!("\"status\":{status}")), "{body}");
    }
    let settings = [("UPSTREAM", &*url), ("UPSTREAM_TIMEOUT", "18446744073709551615")];
    let patient = Proxy::start(&folder.path().join("patient"), &settings);
    let (head, _) = patient.send("GET /any", "", "");
    assert!(head.starts_with("HTTP/1.1 201"), "a time longer than clocks can bear: {head}");
    // What has begun can only be broken off.
    for path in ["/break", "/stall"] {
        let (head, body) = proxy.send(&format!("GET {path}"), "", "");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 9"), "{head}");
        assert_eq!(body, "half");
    }
    let (head, _) = proxy.send("CONNECT a.example:80", "", "");
    assert!(head.starts_with("HTTP/1.1 501"), "{head}");
    drop(proxy);

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::start(folder.path(), &[("UPSTREAM", &format!("http://{free}"))]);
    let (head, body) = proxy.send("GET /any", "", "");
    assert!(head.starts_with("HTTP/1.1 502") && body.contains("cannot be reached"), "{head}");
}

/// How long the service behind may take is one thing, and how long a client takes another.
#[test]
fn a_slow_client_is_not_the_fault_of_the_service_behind() {
    let (url, requests) = upstream();
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(folder.path(), &[("UPSTREAM", &url)]);
    let mut stream = TcpStream::connect(proxy.1).unwrap();
    stream
        .write_all(
            b"POST /any HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 4\r\n\r\nco",
        )
        .unwrap();
    // UPSTREAM_TIMEOUT is a second.
    thread::sleep(Duration::from_millis(1_500));
    stream.write_all(b"nt").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(requests.recv().unwrap().ends_with("cont"));
}

#[test]
fn a_name_that_is_none_is_refused() {
    let (url, _requests) = upstream();
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(folder.path(), &[("UPSTREAM", &url)]);
    let (head, body) = proxy.send("PUT /slow/1", "x-user: a\u{e9}\r\n", "");
    assert!(head.starts_with("HTTP/1.1 400") && body.contains("X-User"), "{head} {body}");
}

#[test]
fn a_bad_setting_is_told() {
    for (name, value) in [
        ("UPSTREAM", "https://x.example"),
        ("UPSTREAM", "http://x.example/path"),
        ("UPSTREAM", "nothing"),
        ("ROUTES", "/path"),
        ("ROUTES", "P(T /path"),
        ("KEEP", "a b"),
        ("UPSTREAM_TIMEOUT", "soon"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_gateway-proxy"))
            .env("LISTEN", "127.0.0.1:0")
            .env("DATA_DIR", folder.path())
            .env(name, value)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{name}={value}");
        assert!(!output.stderr.is_empty());
    }
}

/// A PUT that was begun is begun again by the next process; a POST is not, and says so.
#[test]
fn a_kill_loses_nothing() {
    let (url, requests) = upstream();
    let folder = tempfile::tempdir().unwrap();
    let settings = [("UPSTREAM", &*url), ("KEEP", "x-end")];
    let proxy = Proxy::start(folder.path(), &settings);
    let (put, post) = (proxy.accepted("PUT /slow/1"), proxy.accepted("POST /slow/2"));
    let begun = [requests.recv().unwrap(), requests.recv().unwrap()].concat();
    assert!(begun.contains("PUT /slow/1") && begun.contains("POST /slow/2"));
    drop(proxy);

    let proxy = Proxy::start(folder.path(), &settings);
    let ended = proxy.ended(&put);
    assert!(ended.contains("\"succeeded\"") && ended.contains("\"attempt\":2"), "{ended}");
    let (head, body) = proxy.send(&format!("GET {put}/result"), "", "");
    assert!(head.starts_with("HTTP/1.1 201") && head.contains("x-own: 1"), "{head}");
    assert_eq!(body, "done");
    let again = requests.recv().unwrap();
    assert!(again.starts_with("PUT /slow/1") && again.ends_with("\ncontent"), "{again}");

    let ended = proxy.ended(&post);
    assert!(ended.contains("\"failed\"") && ended.contains("interrupted"), "{ended}");
    assert!(requests.try_recv().is_err());
}
