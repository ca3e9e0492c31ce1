//! Those who wait at one replica for what another does: polls that are held, and event streams.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use http::Request;
use respond_async::monitor::{Content, Monitor};
use respond_async::operation::Change;
use respond_async::store::{OperationStoreExt, Submission};
use respond_async::{OperationId, Operations, Owner, Progress};
use tokio::time::{sleep, timeout};

use super::proxy::Way;
use super::{Cut, OnServer, new};

fn ann() -> Owner {
    Owner::new("ann").unwrap()
}

/// An operation that another process works on.
async fn begun(store: &impl OnServer) -> OperationId {
    let new = new().with_owner(ann());
    let id = new.id();
    store.submit(Submission::new(new)).await.unwrap();
    store.apply(id, Change::Claim { lease: Duration::from_secs(3_600) }).await.unwrap();
    id
}

async fn progress(store: &impl OnServer, id: OperationId, message: &str) {
    let progress = Progress::new(0.5, message);
    store.apply(id, Change::Progress { attempt: 1, progress }).await.unwrap();
}

/// A replica on which nothing is at work.
fn replica(store: impl OnServer) -> Monitor {
    let builder = Operations::builder(store).poll_interval(Duration::from_millis(100));
    Monitor::new(&builder.start())
}

async fn get(monitor: &Monitor, uri: &str, field: (&str, &str)) -> http::Response<Content> {
    let request = Request::get(uri).header(field.0, field.1).header("if-none-match", "\"2\"");
    monitor.answer(&ann(), &request.body(()).unwrap()).await
}

pub(crate) async fn a_poll_at_one_replica_ends_with_a_change_at_another<S: OnServer>() {
    let at = Cut::start::<S>();
    let (here, there) = (at.by_proxy::<S>().await, at.direct::<S>().await);
    let monitor = replica(here);
    for is_cut in [false, true] {
        let id = begun(&there).await;
        let uri = format!("/operations/{id}");
        let change = async {
            sleep(Duration::from_millis(300)).await;
            if is_cut {
                // Word of the change gets lost.
                at.proxy.cut();
                at.proxy.set(Way::Refused);
            }
            progress(&there, id, "half").await;
            sleep(Duration::from_millis(500)).await;
            at.proxy.set(Way::Open);
        };
        let began = Instant::now();
        let (answer, ()) = tokio::join!(get(&monitor, &uri, ("prefer", "wait=20")), change);
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(300), "{waited:?}");
        assert!(waited < Duration::from_secs(10), "{waited:?}");
        let status = answer.status().as_u16();
        // A poll that is held while the store goes away may be told so.
        assert!(status == 200 || (is_cut && status == 503), "{status}");
        if status == 200 {
            assert_eq!(answer.headers()["etag"], "\"3\"");
        }
    }
}

pub(crate) async fn a_stream_at_one_replica_tells_what_another_does<S: OnServer>() {
    let at = Cut::start::<S>();
    let (here, there) = (at.by_proxy::<S>().await, at.direct::<S>().await);
    let monitor = replica(here);
    let id = begun(&there).await;
    let ids = [begun(&there).await, begun(&there).await];
    let accept = ("accept", "text/event-stream");
    let one = get(&monitor, &format!("/operations/{id}"), accept).await.into_body();
    let list = get(&monitor, "/operations", accept).await.into_body();
    assert!(one.is_stream() && list.is_stream());
    let change = async {
        for turn in 0..60 {
            match turn {
                20 => {
                    at.proxy.cut();
                    at.proxy.set(Way::Refused);
                }
                40 => at.proxy.set(Way::Open),
                _ => {}
            }
            for id in [id, ids[0], ids[1]] {
                progress(&there, id, &format!("turn {turn}")).await;
            }
            sleep(Duration::from_millis(20)).await;
        }
        for id in [id, ids[0], ids[1]] {
            there.apply(id, Change::Cancel).await.unwrap();
            there.apply(id, Change::ConfirmCancel { attempt: 1 }).await.unwrap();
        }
    };
    let (told, listed, ()) = tokio::join!(
        timeout(Duration::from_secs(60), revisions(one, 1)),
        timeout(Duration::from_secs(60), revisions(list, 3)),
        change
    );
    // Two at the beginning, sixty reports, the request, the end.
    for told in [told.unwrap(), listed.unwrap()] {
        for (id, revisions) in told {
            assert!(revisions.is_sorted_by(|one, next| one < next), "{id}: {revisions:?}");
            assert_eq!(revisions.last(), Some(&64), "{id}");
        }
    }
}

/// The revisions that a stream tells of each operation, until so many have ended.
async fn revisions(mut content: Content, mut live: usize) -> Vec<(String, Vec<u64>)> {
    let (mut text, mut told) = (String::new(), Vec::<(String, Vec<u64>)>::new());
    while live > 0 {
        let piece = poll_fn(|cx| content.poll_bytes(cx)).await.expect("it has not ended");
        text.push_str(std::str::from_utf8(&piece).unwrap());
        while let Some(end) = text.find("\n\n") {
            let block: String = text.drain(..end + 2).collect();
            let Some(data) = block.lines().find_map(|line| line.strip_prefix("data: ")) else {
                continue;
            };
            let document: serde_json::Value = serde_json::from_str(data).unwrap();
            let id = document["id"].as_str().unwrap().to_owned();
            let status = document["status"].as_str().unwrap();
            live -= usize::from(status == "canceled");
            // In words, for the list's events have a cursor for their id.
            let message = document["progress"]["message"].as_str().unwrap_or_default();
            let revision = match (status, message.strip_prefix("turn ")) {
                ("canceled", _) => 64,
                _ if document["cancel_requested"] == true => 63,
                (_, Some(turn)) => turn.parse::<u64>().unwrap() + 3,
                (_, None) => 2,
            };
            match told.iter_mut().find(|(known, _)| *known == id) {
                Some((_, revisions)) => revisions.push(revision),
                None => told.push((id, vec![revision])),
            }
        }
    }
    told
}
