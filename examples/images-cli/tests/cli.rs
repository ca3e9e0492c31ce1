//! The command line against the real service, which is killed and started again in the middle.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use images::{Images, Settings};

/// What the service is told by its environment.
const DATA: &str = "CLI_TEST_DATA";
const LISTEN: &str = "CLI_TEST_LISTEN";

/// The service in a process of its own: this program. Dropped, it is killed.
struct Service(Child, SocketAddr);

impl Service {
    fn start(data: &Path, address: SocketAddr) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", "--exact", "--ignored", "--test-threads=1"])
            .env(DATA, data)
            .env(LISTEN, address.to_string())
            .stdout(Stdio::null())
            .spawn();
        let service = Self(child.unwrap(), address);
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "the service does not start");
            thread::sleep(Duration::from_millis(10));
        }
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
#[ignore = "the service that the other tests kill"]
async fn serve() {
    let Ok(data) = std::env::var(DATA) else { return };
    let settings = Settings { data: data.into(), ..Settings::default() };
    let images = Images::start(&settings).await.unwrap();
    let listener = tokio::net::TcpListener::bind(std::env::var(LISTEN).unwrap()).await.unwrap();
    axum::serve(listener, axum_images::app(images)).await.unwrap();
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

struct Place {
    folder: tempfile::TempDir,
    server: String,
}

impl Place {
    fn new(service: &Service) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, server: format!("http://{}", service.1) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn photo(&self, name: &str, side: u32) {
        let pixels = image::RgbImage::from_fn(side, side, |x, y| {
            image::Rgb([x, y, x * y / 64].map(|value| u8::try_from(value % 256).unwrap()))
        });
        let mut jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode_image(&pixels).unwrap();
        fs::write(self.path(name), jpeg).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_images-cli"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("IMAGES_SERVER", &self.server)
            .env("IMAGES_USER", "ann")
            .env("IMAGES_FOLDER", self.path("state"));
        command
    }

    /// Runs it, and gives its exit code and what it printed.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let printed = [stdout, stderr].concat();
        (status.code().unwrap(), String::from_utf8_lossy(&printed).into_owned())
    }

    /// Starts it, and waits until a line says that. With the lines that follow.
    fn until(&self, arguments: &[&str], word: &str) -> (Child, impl Iterator<Item = String>) {
        let mut child = self.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains(word)), "{word}");
        (child, lines)
    }
}

fn interrupt(child: &Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
}

#[test]
fn several_at_once_each_with_its_end() {
    let data = tempfile::tempdir().unwrap();
    let service = Service::start(data.path(), free_address());
    let place = Place::new(&service);
    place.photo("a.jpg", 64);
    place.photo("b.jpg", 64);
    let (code, printed) = place.run(&["upload", "a.jpg", "b.jpg", "--output", "made"]);
    assert_eq!(code, 0, "{printed}");
    for name in ["a.jpg", "b.jpg"] {
        assert!(printed.contains(&format!("{name}: {}/images/", place.server)), "{printed}");
        assert!(image::open(place.path("made").join(name)).is_ok());
    }
    fs::write(place.path("bad.jpg"), "no picture").unwrap();
    let (code, printed) = place.run(&["upload", "a.jpg", "bad.jpg"]);
    assert!(code == 1 && printed.contains("bad.jpg: Not an image"), "{code} {printed}");
    for (arguments, says) in [
        (&["upload", "nothing.jpg"][..], "No such file"),
        (&["upload", "text.txt"], ".jpg"),
        (&["upload"], "required"),
        (&["list", "--user", "a\nb"], "no name"),
    ] {
        let (code, printed) = place.run(arguments);
        assert!(code == 2 && printed.contains(says), "{arguments:?}: {code} {printed}");
    }
    drop(service);
    let (code, printed) = place.run(&["get", "/images/x"]);
    assert!(code == 3 && printed.contains("See --server"), "{code} {printed}");
}

#[test]
fn what_was_left_is_taken_up_after_the_service_was_started_again() {
    let data = tempfile::tempdir().unwrap();
    let service = Service::start(data.path(), free_address());
    let address = service.1;
    let place = Place::new(&service);
    place.photo("a.jpg", 1_500);
    let upload = ["--json", "upload", "a.jpg", "--wait", "0", "--detach"];
    let (code, printed) = place.run(&upload);
    assert!(code == 4 && printed.contains("\"event\":\"accepted\""), "{code} {printed}");
    drop(service);
    let (code, printed) = place.run(&["list"]);
    assert!(code == 0 && printed.contains("a.jpg: "), "{printed}");

    let service = Service::start(data.path(), address);
    let (code, printed) = place.run(&["--json", "resume", "--output", "made"]);
    assert!(code == 0 && printed.contains("\"status\":\"succeeded\""), "{code} {printed}");
    assert!(image::open(place.path("made/a.jpg")).is_ok());
    assert_eq!(place.run(&["list"]), (0, String::new()));
    let done = printed.split("\"location\":\"").nth(1).unwrap().split('"').next().unwrap();

    // Offline there is what was gotten, and no more.
    drop(service);
    let (code, _) = place.run(&["get", done, "--offline", "--output", "again.jpg"]);
    assert_eq!(code, 0);
    let bytes = |name: &str| fs::read(place.path(name)).unwrap();
    assert_eq!(bytes("again.jpg"), bytes("made/a.jpg"));
    let (code, printed) = place.run(&["get", "/images/other", "--offline"]);
    assert!(code == 3 && printed.contains("not kept"), "{code} {printed}");
}

#[test]
fn an_interruption_detaches_or_cancels() {
    let data = tempfile::tempdir().unwrap();
    let service = Service::start(data.path(), free_address());
    let place = Place::new(&service);
    place.photo("a.jpg", 3_000);
    let upload = ["--json", "upload", "a.jpg", "--wait", "0"];
    let (mut child, lines) = place.until(&upload, "accepted");
    interrupt(&child);
    assert!(lines.collect::<String>().contains("\"event\":\"left\""));
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert!(place.run(&["list"]).1.contains("a.jpg"));
    let (code, printed) = place.run(&["resume"]);
    assert_eq!(code, 0, "{printed}");

    let cancel = [&upload[..], &["--on-interrupt", "cancel"]].concat();
    let (mut child, lines) = place.until(&cancel, "accepted");
    interrupt(&child);
    let told: String = lines.collect();
    assert!(told.contains("\"status\":\"canceled\"") && !told.contains("location"), "{told}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(place.run(&["list"]), (0, String::new()));
}

#[test]
fn two_files_of_one_name_are_two_and_are_named_after_what_they_are() {
    let data = tempfile::tempdir().unwrap();
    let service = Service::start(data.path(), free_address());
    let place = Place::new(&service);
    for folder in ["one", "other"] {
        fs::create_dir(place.path(folder)).unwrap();
    }
    place.photo("one/x.jpg", 64);
    place.photo("other/x.jpg", 96);
    // Without anything transparent it becomes a JPEG.
    image::RgbImage::new(48, 48).save(place.path("y.png")).unwrap();
    let upload = ["upload", "one/x.jpg", "other/x.jpg", "y.png", "--output", "made"];
    let (code, printed) = place.run(&upload);
    assert_eq!(code, 0, "{printed}");
    let mut names: Vec<_> = fs::read_dir(place.path("made"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["x-2.jpg", "x.jpg", "y.jpg"]);
    for name in names {
        let picture = image::ImageReader::open(place.path("made").join(name)).unwrap();
        assert_eq!(picture.with_guessed_format().unwrap().format(), Some(image::ImageFormat::Jpeg));
    }
}

#[test]
fn what_is_at_another_service_is_not_asked_for_there() {
    let data = tempfile::tempdir().unwrap();
    let service = Service::start(data.path(), free_address());
    let mut place = Place::new(&service);
    place.photo("a.jpg", 1_500);
    let (code, printed) = place.run(&["upload", "a.jpg", "--wait", "0", "--detach"]);
    assert_eq!(code, 4, "{printed}");
    let here = std::mem::replace(&mut place.server, format!("http://{}", free_address()));
    let (code, printed) = place.run(&["resume", "--user", "bob"]);
    assert!(code == 0 && printed.contains("left at another service"), "{code} {printed}");
    place.server = here;
    let (code, printed) = place.run(&["resume", "--at-once", "1"]);
    assert!(code == 0 && printed.contains("/images/"), "{code} {printed}");
}

#[test]
fn a_service_in_trouble_has_refused_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let place = Place { folder: tempfile::tempdir().unwrap(), server };
    place.photo("a.jpg", 64);
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = Vec::new();
            // As long as there is something of it.
            connection.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let _ = connection.read_to_end(&mut request);
            let answer = "HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            connection.write_all(answer.as_bytes()).unwrap();
        }
    });
    for arguments in [&["upload", "a.jpg"][..], &["get", "/images/17"]] {
        let (code, printed) = place.run(arguments);
        assert!(code == 3 && printed.contains("Unavailable"), "{arguments:?}: {code} {printed}");
    }
}

/// A service does not tell somebody else's operation from one that never was.
#[test]
fn what_another_user_asks_for_or_what_cannot_be_saved_is_not_forgotten() {
    let data = tempfile::tempdir().unwrap();
    let service = Service::start(data.path(), free_address());
    let place = Place::new(&service);
    place.photo("a.jpg", 300);
    let (code, printed) = place.run(&["upload", "a.jpg", "--wait", "0", "--detach"]);
    assert_eq!(code, 4, "{printed}");
    let (code, printed) = place.run(&["resume", "--user", "bob"]);
    assert!(code == 3 && printed.contains("another user's"), "{code} {printed}");
    assert!(place.run(&["list"]).1.contains("a.jpg"));
    // There is a file where the folder should be.
    let (code, printed) = place.run(&["resume", "--output", "a.jpg"]);
    assert!(code != 0 && place.run(&["list"]).1.contains("a.jpg"), "{code} {printed}");
    let (code, printed) = place.run(&["resume", "--output", "made"]);
    assert_eq!(code, 0, "{printed}");
    assert!(image::open(place.path("made/a.jpg")).is_ok());
    assert_eq!(place.run(&["list"]), (0, String::new()));
}

#[test]
fn what_was_not_sent_is_told() {
    let data = tempfile::tempdir().unwrap();
    let service = Service::start(data.path(), free_address());
    let place = Place::new(&service);
    for name in ["a.jpg", "b.jpg"] {
        place.photo(name, 3_000);
    }
    let upload = ["--json", "upload", "a.jpg", "b.jpg", "--wait", "0", "--at-once", "1"];
    let mut command = place.command(&upload);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut unsent = 0;
    for line in lines.map(Result::unwrap) {
        if line.contains("accepted") {
            interrupt(&child);
        }
        unsent += usize::from(line.contains("\"event\":\"unsent\""));
    }
    assert_eq!((child.wait().unwrap().code(), unsent), (Some(4), 1));
}
