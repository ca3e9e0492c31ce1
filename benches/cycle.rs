//! Claim: a whole asynchronous cycle costs at most 1.3 times the CPU of the same cycle written by
//! hand: POST answered 202, GET of the monitor, GET of the result.
//!
//! Three services over HTTP/1.1 on the loopback interface: one that does it by hand, one with this
//! crate on its `MemoryStore`, and one that sends the same answers from constants, which is what the
//! HTTP itself costs. The work is an answer that is ready at once. That all three send the same
//! statuses, fields and members is checked before anything is measured.
#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod by_hand;
mod loopback;

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};
use respond_async::Operations;
use respond_async::prefer::Preferences;
use respond_async::respond;
use respond_async::store::MemoryStore;
use serde_json::Value;

use crate::loopback::{
    Answer, Connection, Contender, Plan, Server, compare, serve, serve_if_asked,
};

const CONTENDERS: &[Contender] = &[
    Contender { name: "by hand", serve: |at| serve(at, by_hand()), turn: cycle },
    Contender { name: "respond-async", serve: |at| serve(at, with_the_crate()), turn: cycle },
    Contender { name: "constants", serve: |at| serve(at, constants()), turn: cycle },
];

/// How long what has finished is kept: long enough for its client, short enough for the services to
/// have something to remove in every round.
const RETENTION: Duration = Duration::from_secs(10);

/// The work: a 201 with a document of a hundred bytes.
async fn create() -> http::Response<String> {
    let body = r#"{"id":17,"name":"a thing","text":"as much text as it takes to make it one hundred bytes of JSON .."}"#;
    let mut response = http::Response::new(body.to_owned());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static("/things/17"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn by_hand() -> Router {
    by_hand::routes(create, RETENTION)
}

fn with_the_crate() -> Router {
    async fn negotiate(
        State(operations): State<Operations>,
        preferences: Preferences,
    ) -> respond::Response {
        operations.respond_with(&preferences, |_| create()).await
    }
    let operations = Operations::builder(MemoryStore::new()).retention(RETENTION).start();
    Router::new()
        .route("/things", post(negotiate))
        .nest("/operations", respond_async::axum::monitor(&operations))
        .with_state(operations)
}

fn constants() -> Router {
    const JSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/json");
    const SUNSET: (&str, &str) = ("sunset", "Mon, 23 Nov 2026 06:00:00 GMT");
    let accepted = || async {
        let monitor = "/operations/0198c0de-7a5b-7c3d-9e1f-0123456789ab";
        let fields = [
            JSON,
            (header::LOCATION, monitor),
            (header::CONTENT_LOCATION, monitor),
            (header::LINK, "</operations/0198c0de-7a5b-7c3d-9e1f-0123456789ab>; rel=\"monitor\""),
            (header::RETRY_AFTER, "1"),
            (header::VARY, "Prefer"),
            (header::CACHE_CONTROL, "no-store"),
        ];
        let applied = [("preference-applied", "respond-async")];
        (StatusCode::ACCEPTED, fields, applied, include_str!("by_hand/accepted.json"))
            .into_response()
    };
    let monitor = || async {
        let fields = [
            JSON,
            (header::ETAG, "\"2\""),
            (header::VARY, "Accept, Prefer"),
            (header::CACHE_CONTROL, "private, max-age=10"),
        ];
        (fields, [SUNSET], include_str!("by_hand/succeeded.json")).into_response()
    };
    let result = || async {
        let fields = [
            (header::CACHE_CONTROL, "private, max-age=10"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (fields, [SUNSET], create().await).into_response()
    };
    Router::new()
        .route("/things", post(accepted))
        .route("/operations/{id}", get(monitor))
        .route("/operations/{id}/result", get(result))
}

fn cycle(connection: &mut Connection) -> io::Result<()> {
    walk(connection, |_| ())
}

/// Takes one cycle, and shows its three answers: that of the monitor once the work has ended.
fn walk(connection: &mut Connection, mut see: impl FnMut(&Answer<'_>)) -> io::Result<()> {
    let post = b"POST /things HTTP/1.1\r\nhost: localhost\r\nprefer: respond-async\r\ncontent-length: 0\r\n\r\n";
    let accepted = connection.send(post)?;
    accepted.expect(202)?;
    see(&accepted);
    let monitor = accepted.field("location").unwrap_or_default();
    let get = format!("GET {monitor} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let get_result = format!("GET {monitor}/result HTTP/1.1\r\nhost: localhost\r\n\r\n");
    loop {
        let status = connection.send(get.as_bytes())?;
        status.expect(200)?;
        if status.body.windows(11).any(|bytes| bytes == br#""succeeded""#) {
            see(&status);
            break;
        }
    }
    let result = connection.send(get_result.as_bytes())?;
    result.expect(201)?;
    see(&result);
    Ok(())
}

/// The statuses, names of fields and names of members that a service answers with.
fn shape(name: &str) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let server = Server::start(name)?;
    let mut seen = BTreeSet::new();
    walk(&mut server.connect()?, |answer| {
        let at = answer.status;
        seen.extend(answer.fields().map(|(name, _)| format!("{at} {}:", name.to_lowercase())));
        if let Ok(Value::Object(document)) = serde_json::from_slice(answer.body) {
            seen.extend(document.keys().map(|name| format!("{at} {{{name}}}")));
        }
    })?;
    Ok(seen)
}

fn main() -> Result<(), Box<dyn Error>> {
    serve_if_asked(CONTENDERS)?;
    if !cfg!(target_os = "linux") {
        println!("Reads /proc: Linux only.");
        return Ok(());
    }
    let first = shape(CONTENDERS[0].name)?;
    for contender in &CONTENDERS[1..] {
        let other = shape(contender.name)?;
        let different: Vec<_> = first.symmetric_difference(&other).collect();
        if !different.is_empty() {
            return Err(format!("{} differs in {different:?}", contender.name).into());
        }
    }
    println!("Over the loopback interface; one turn is POST, GET monitor and GET result");
    compare(Plan::from_args(), CONTENDERS)
}
