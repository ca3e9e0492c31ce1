//! Event streams of monitors and lists.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Answer, Service};

const EVENTS: (&str, &str) = ("accept", "text/event-stream");
const ANN: (&str, &str) = ("owner", "ann");

struct Told {
    id: String,
    operation: Value,
}

/// The events of a stream that has ended, and how many comments are between them.
fn told(answer: &Answer) -> (Vec<Told>, usize) {
    assert_eq!((answer.status, answer.field("content-type")), (StatusCode::OK, EVENTS.1));
    assert_eq!(answer.field("cache-control"), "no-store");
    assert_eq!(answer.field("x-accel-buffering"), "no");
    assert_eq!(answer.field("vary"), "Accept, Prefer");
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert!(text.is_empty() || text.ends_with("\n\n"));
    let (mut events, mut comments) = (Vec::new(), 0);
    for block in text.split_terminator("\n\n") {
        let field =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        match field("data") {
            Some(data) => {
                assert_eq!(field("event"), Some("operation"));
                let operation = serde_json::from_str(data).unwrap();
                events.push(Told { id: field("id").unwrap().to_owned(), operation });
            }
            None if block == ":" => comments += 1,
            None => assert!(field("retry").or(field("id")).is_some(), "{block:?}"),
        }
    }
    (events, comments)
}

fn states(events: &[Told]) -> Vec<&str> {
    events.iter().map(|event| event.operation["status"].as_str().unwrap()).collect()
}

impl Service {
    async fn events(&self, uri: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, uri, &[fields, &[EVENTS]].concat()).await
    }
}

async fn a_stream_tells_each_state_and_ends_with_the_last() {
    let service = Service::with(|builder| builder.concurrency(1));
    let first = service.post("thing5", "respond-async").await.monitor();
    let queued = service.post("thing40", "respond-async").await.monitor();
    let start = Instant::now();
    let answer = service.events(&queued, &[]).await;
    assert_eq!(start.elapsed().as_secs(), 45);
    let (events, comments) = told(&answer);
    assert_eq!(states(&events), ["pending", "running", "succeeded"]);
    // 15 and 30 s after it began to run.
    assert_eq!(comments, 2);
    let revisions: Vec<u64> = events.iter().map(|event| event.id.parse().unwrap()).collect();
    assert!(revisions.is_sorted_by(|one, next| one < next), "{revisions:?}");
    let monitor = service.get(&queued).await;
    assert_eq!(events[2].operation, monitor.json());
    assert_eq!(format!("\"{}\"", events[2].id), monitor.field("etag"));
    assert!(answer.body.starts_with(b"event: operation\nid: 1\ndata: {"));
    service.get(&first).await;
}

async fn a_client_that_comes_again_gets_what_it_has_not_seen() {
    let service = Service::new();
    let monitor = service.post("thing5", "respond-async").await.monitor();
    sleep(Duration::from_millis(1)).await;
    let tag = service.get(&monitor).await.field("etag").trim_matches('"').to_owned();
    let known = service.events(&monitor, &[("last-event-id", &tag)]).await;
    assert_eq!(states(&told(&known).0), ["succeeded"]);
    // What is no revision of it says nothing.
    for seen in ["0", "99", "x", ""] {
        let monitor = service.post("thing5", "respond-async").await.monitor();
        sleep(Duration::from_millis(1)).await;
        let answer = service.events(&monitor, &[("last-event-id", seen)]).await;
        assert_eq!(states(&told(&answer).0), ["running", "succeeded"], "after {seen:?}");
    }
    let ended = service.get(&monitor).await.field("etag").trim_matches('"').to_owned();
    // It has seen the end: it need not come again.
    let over = service.events(&monitor, &[("last-event-id", &ended)]).await;
    assert_eq!((over.status, over.body.len()), (StatusCode::NO_CONTENT, 0));
    let late = service.events(&monitor, &[("last-event-id", &tag)]).await;
    assert_eq!(states(&told(&late).0), ["succeeded"]);
}

async fn a_stream_beyond_the_bound_tells_how_it_stands_and_ends() {
    let service = Service::with(|builder| builder.streams(1));
    let monitor = service.post("thing5", "respond-async").await.monitor();
    sleep(Duration::from_millis(1)).await;
    let second = async {
        sleep(Duration::from_secs(1)).await;
        let start = Instant::now();
        let answer = service.events(&monitor, &[]).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        answer
    };
    let (first, second) = tokio::join!(service.events(&monitor, &[]), second);
    assert_eq!(states(&told(&first).0), ["running", "succeeded"]);
    assert_eq!(states(&told(&second).0), ["running"]);
    assert!(String::from_utf8_lossy(&second.body).contains("\nretry: "));
    let list = service.events("/operations", &[ANN]);
    let _open = tokio::time::timeout(Duration::from_secs(1), list).await;
    let head = service.send(Method::HEAD, &monitor, &[EVENTS]).await;
    assert_eq!((head.status, head.field("content-type")), (StatusCode::OK, EVENTS.1));
}

async fn json_is_for_who_does_not_prefer_events() {
    let service = Service::new();
    let monitor = service.post("ignore", "respond-async").await.monitor();
    for accept in ["*/*", "", "application/json", "text/event-stream;q=0.5, */*", "image/png"] {
        let answer = service.send(Method::GET, &monitor, &[("accept", accept)]).await;
        assert_eq!(answer.field("content-type"), "application/json", "{accept:?}");
        assert_eq!(answer.field("vary"), "Accept, Prefer");
    }
    service.events("/operations/x", &[]).await.is_problem(404, "not-found");
    service.events("/operations", &[]).await.is_problem(404, "owner-required");
    let own = service.send(Method::POST, "/tasks/thing5", &[ANN, ("prefer", "respond-async")]);
    let own = own.await.monitor();
    service.events(&own, &[]).await.is_problem(404, "not-found");
    service.events(&own, &[("owner", "bob")]).await.is_problem(404, "not-found");
}

async fn shutdown_ends_streams_at_once() {
    let service = Service::new();
    let monitor = service.post("ignore", "respond-async").await.monitor();
    let shutdown = async {
        sleep(Duration::from_secs(1)).await;
        service.operations.shutdown(Duration::from_secs(5)).await
    };
    let start = Instant::now();
    let ended = async {
        let streams =
            tokio::join!(service.events(&monitor, &[]), service.events("/operations", &[ANN]));
        assert_eq!(start.elapsed().as_secs(), 1);
        streams
    };
    let ((one, list), _) = tokio::join!(ended, shutdown);
    assert_eq!(states(&told(&one).0), ["running"]);
    assert_eq!(told(&list).0.len(), 0);
    // Later ones are told how it stands.
    assert_eq!(told(&service.events(&monitor, &[]).await).0.len(), 1);
}

async fn who_follows_an_empty_list_misses_nothing_while_away() {
    let service = Service::with(|builder| builder.stream_lifetime(Duration::from_secs(3)));
    let list = "/operations?status=pending";
    let first = service.events(list, &[ANN]).await;
    assert_eq!(told(&first).0.len(), 0);
    let text = std::str::from_utf8(&first.body).unwrap();
    let id = text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap();
    service.clock.advance(Duration::from_secs(5));
    let fields = [ANN, ("prefer", "respond-async")];
    let monitor = service.send(Method::POST, "/tasks/thing0", &fields).await.monitor();
    sleep(Duration::from_secs(1)).await;
    let again = service.events(list, &[ANN, ("last-event-id", id)]).await;
    let (events, _) = told(&again);
    assert_eq!(states(&events), ["succeeded"]);
    assert_eq!(events[0].operation["links"]["self"], monitor);
}

async fn the_list_tells_what_is_new_and_what_changes_and_nobody_elses() {
    let lifetime = Duration::from_secs(20);
    let service = Service::with(|builder| builder.stream_lifetime(lifetime));
    let post = async |owner: &str, what: &str| {
        let fields = [("owner", owner), ("prefer", "respond-async")];
        let uri = format!("/tasks/{what}");
        let monitor = service.send(Method::POST, &uri, &fields).await.monitor();
        service.clock.advance(Duration::from_millis(1));
        sleep(Duration::from_millis(10)).await;
        monitor
    };
    let old = post("ann", "thing0").await;
    let running = post("ann", "thing5").await;
    post("bob", "thing5").await;
    let later = async {
        sleep(Duration::from_secs(2)).await;
        service.clock.advance(Duration::from_secs(2));
        post("bob", "thing1").await;
        post("ann", "thing1").await
    };
    let (answer, new) = tokio::join!(service.events("/operations", &[ANN]), later);
    let (events, comments) = told(&answer);
    assert_eq!(comments, 1);
    let of = |monitor: &str| -> Vec<&str> {
        let of = events.iter().filter(|event| event.operation["links"]["self"] == monitor);
        of.map(|event| event.operation["status"].as_str().unwrap()).collect()
    };
    assert_eq!(of(&old), ["succeeded"]);
    assert_eq!(of(&running), ["running", "succeeded"]);
    assert_eq!(of(&new).last(), Some(&"succeeded"));
    assert_eq!(events.len(), 3 + of(&new).len());

    // Whoever comes again with one of the ids gets what came after it.
    for (place, event) in events.iter().enumerate() {
        let again = service.events("/operations", &[ANN, ("last-event-id", &event.id)]).await;
        let (again, _) = told(&again);
        let mut last: Vec<_> = events.iter().map(|event| &event.operation).collect();
        // Of each operation that has changed since, the last state.
        let missed = last.split_off(place + 1);
        let missed = missed.iter().enumerate().filter(|(at, operation)| {
            missed[at + 1..].iter().all(|later| later["id"] != operation["id"])
        });
        let mut missed: Vec<_> = missed.map(|(_, operation)| *operation).collect();
        let mut again: Vec<_> = again.iter().map(|event| &event.operation).collect();
        // Several have changed at the same time.
        for operations in [&mut missed, &mut again] {
            operations.sort_by_key(|operation| operation["id"].as_str());
        }
        assert_eq!(again, missed);
    }
    let other_kind = service.events("/operations?kind=x", &[ANN]).await;
    assert_eq!(told(&other_kind).0.len(), 0);
    let page = service.events("/operations?limit=1", &[ANN, ("last-event-id", "nonsense")]).await;
    assert_eq!(told(&page).0[0].operation["links"]["self"], new);
    service.events("/operations?limit=x", &[ANN]).await.is_problem(400, "invalid-query");
}

contract! {
    a_stream_tells_each_state_and_ends_with_the_last
    a_client_that_comes_again_gets_what_it_has_not_seen
    a_stream_beyond_the_bound_tells_how_it_stands_and_ends
    json_is_for_who_does_not_prefer_events
    shutdown_ends_streams_at_once
    who_follows_an_empty_list_misses_nothing_while_away
    the_list_tells_what_is_new_and_what_changes_and_nobody_elses
}
