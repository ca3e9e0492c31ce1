//! Requests that their client may repeat.

use http::{HeaderMap, Method, Uri};
use respond_async::store::{Idempotency, OperationStoreExt};

use super::*;

/// A request that says all that a named one can.
#[derive(Clone, Copy)]
struct Named<'a> {
    key: &'a str,
    prefer: &'a str,
    owner: &'a str,
    target: &'static str,
    what: &'a str,
    seconds: u64,
}

const FIRST: Named<'static> = Named {
    key: "\"order-17\"",
    prefer: "respond-async",
    owner: "ann",
    target: "/images",
    what: "work",
    seconds: 3,
};

async fn send(operations: &Operations, named: Named<'_>) -> Response {
    match try_send(operations, named).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn try_send(operations: &Operations, named: Named<'_>) -> Result<Response, Problem> {
    let mut headers = HeaderMap::new();
    if !named.key.is_empty() {
        headers.insert("idempotency-key", named.key.parse().unwrap());
    }
    let preferences = Preferences::parse(named.prefer.as_bytes()).unwrap();
    let target = Uri::from_static(named.target);
    let content = format!("{} {}", named.what, named.seconds);
    let key = Idempotency::from_request(&Method::POST, &target, &headers, content.as_bytes())?;
    let kick_off = operations
        .kick_off(&preferences)
        .owner(Owner::new(named.owner).unwrap())
        .require_idempotency_key()
        .idempotency(key);
    Ok(if named.what == "ephemeral" {
        kick_off
            .respond_with(move |context| handle("one", act("work", named.seconds), context))
            .await
    } else {
        kick_off.respond(act(named.what, named.seconds)).await
    })
}

fn is_replay(response: &Response) -> bool {
    response.headers().get("idempotency-replayed").is_some_and(|value| value == "true")
}

/// What a client sees of an answer, but for the mark.
fn seen(mut response: Response) -> (StatusCode, HeaderMap, Vec<u8>) {
    response.headers_mut().remove("idempotency-replayed");
    (response.status(), response.headers().clone(), response.body().as_bytes().to_vec())
}

#[tokio::test(start_paused = true)]
async fn in_flight_the_same_202_and_finished_the_first_outcome() {
    for what in ["work", "ephemeral"] {
        let place = Place::new();
        let operations = place.process("one");
        let named = Named { what, ..FIRST };
        let first = send(&operations, named).await;
        let id = accepted(&first);
        assert!(!is_replay(&first));
        for key in ["\"order-17\"", "order-17"] {
            let again = send(&operations, Named { key, ..named }).await;
            assert_eq!(accepted(&again), id, "{what}");
            assert!(is_replay(&again));
        }
        // In flight, whoever did not ask for a 202 gets the link all the same, and may wait.
        let plain = send(&operations, Named { prefer: "", ..named }).await;
        assert_eq!(accepted(&plain), id);
        let waited = send(&operations, Named { prefer: "respond-async, wait=9", ..named }).await;
        assert_eq!((waited.status().as_u16(), is_replay(&waited)), (201, true));

        place.ended(id).await;
        let expected = seen(waited);
        for prefer in ["", "respond-async", "wait=3"] {
            let replay = send(&operations, Named { prefer, ..named }).await;
            assert!(is_replay(&replay));
            assert_eq!(seen(replay), expected, "{what} {prefer}");
        }
        assert_eq!(place.store.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_plain_answer_is_kept_for_its_key() {
    for what in ["work", "ephemeral"] {
        let place = Place::new();
        let operations = place.process("one");
        let named = Named { what, prefer: "", ..FIRST };
        let first = send(&operations, named).await;
        assert_eq!((first.status().as_u16(), is_replay(&first)), (201, false), "{what}");
        let expected = seen(first);
        let replay = send(&operations, named).await;
        assert!(is_replay(&replay));
        assert_eq!(seen(replay), expected);
        // The same answer as without a key, but for the attempt's own words.
        let without = ask(&operations, "", act("work", 3)).await;
        assert_eq!(seen(without).1, expected.1);
        assert_eq!(place.store.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn with_wait_the_first_answer_comes_in_time_or_a_202() {
    let place = Place::new();
    let operations = place.process("one");
    let named = Named { prefer: "respond-async, wait=5", ..FIRST };
    let first = send(&operations, named).await;
    assert_eq!((first.status().as_u16(), is_replay(&first)), (201, false));
    let late = Named { key: "late", seconds: 8, ..named };
    let id = accepted(&send(&operations, late).await);
    let again = send(&operations, late).await;
    assert_eq!((again.status().as_u16(), is_replay(&again)), (201, true));
    assert_eq!(place.ended(id).await.attempt(), 1);
    assert_eq!(place.begun().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn another_payload_is_refused_and_other_owners_and_targets_are_apart() {
    let place = Place::new();
    let operations = place.process("one");
    let id = accepted(&send(&operations, FIRST).await);
    for prefer in ["", "respond-async"] {
        let reused = send(&operations, Named { seconds: 4, prefer, ..FIRST }).await;
        assert_eq!(reused.status(), 422);
        assert_eq!(reused.headers()["content-type"], "application/problem+json");
    }
    for other in [
        Named { owner: "bob", ..FIRST },
        Named { target: "/images?size=2", ..FIRST },
        Named { key: "order-18", ..FIRST },
    ] {
        let answer = send(&operations, other).await;
        assert_ne!(accepted(&answer), id);
        assert!(!is_replay(&answer));
    }
    assert_eq!(place.store.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_bad_key_or_none_is_a_400() {
    let place = Place::new();
    let operations = place.process("one");
    let long = "k".repeat(256);
    for key in ["\"open", "a b", "a,b", &long, "\"\""] {
        let refused = send(&operations, Named { key, ..FIRST }).await;
        assert_eq!(refused.status(), 400, "{key:?}");
    }
    for prefer in ["", "respond-async"] {
        let missing = try_send(&operations, Named { key: "", prefer, ..FIRST }).await.unwrap();
        assert_eq!(missing.status(), 400);
    }
    assert!(place.store.is_empty() && place.begun().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_replayed_and_a_cancellation_told() {
    let place = Place::new();
    let operations = place.process("one");
    for prefer in ["", "respond-async, wait=5"] {
        let named = Named { key: "wrong", what: "wrong", prefer, ..FIRST };
        let (first, again) = (send(&operations, named).await, send(&operations, named).await);
        assert_eq!(first.status(), 422);
        assert_eq!(seen(first), seen(again));
    }
    let named = Named { key: "stop", what: "stop", seconds: 60, ..FIRST };
    let id = accepted(&send(&operations, named).await);
    operations.cancel(&Owner::new("ann").unwrap(), id).await.unwrap();
    place.ended(id).await;
    assert_eq!(send(&operations, named).await.status(), 409);
}

#[tokio::test(start_paused = true)]
async fn many_at_once_in_two_processes_make_one_operation() {
    for prefer in ["", "respond-async", "respond-async, wait=20"] {
        let place = Place::new();
        let processes = [place.process("one"), place.process("two")];
        let sent = (0..64).map(|number| {
            let operations = processes[number % 2].clone();
            tokio::spawn(async move { send(&operations, Named { prefer, ..FIRST }).await })
        });
        let mut firsts = 0;
        for answer in sent.collect::<Vec<_>>() {
            let answer = answer.await.unwrap();
            assert!([201, 202].contains(&answer.status().as_u16()));
            firsts += usize::from(!is_replay(&answer));
        }
        assert_eq!((firsts, place.store.len()), (1, 1), "{prefer}");
        sleep(seconds(60)).await;
        assert_eq!(place.begun().len(), 1, "{prefer}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_key_is_free_again_when_its_operation_is_gone() {
    let place = Place::new();
    let operations = place.process("one");
    let id = accepted(&send(&operations, FIRST).await);
    place.ended(id).await;
    place.store.forget(&Owner::new("ann").unwrap(), id).await.unwrap();
    let second = accepted(&send(&operations, FIRST).await);
    assert_ne!(second, id);
    place.ended(second).await;
    sleep(HOUR).await;
    let third = send(&operations, FIRST).await;
    assert_ne!(accepted(&third), second);
    assert!(!is_replay(&third));
}

/// The client hangs up while it waits for a plain answer: the work goes on, and its repetition gets
/// the answer.
#[tokio::test(start_paused = true)]
async fn work_that_has_a_name_outlives_its_connection() {
    for what in ["work", "ephemeral"] {
        let place = Place::new();
        let operations = place.process("one");
        let named = Named { what, prefer: "", seconds: 20, ..FIRST };
        let request = send(&operations, named);
        assert!(tokio::time::timeout(seconds(5), request).await.is_err());
        let waiting = send(&operations, Named { prefer: "respond-async, wait=25", ..named }).await;
        assert_eq!((waiting.status().as_u16(), is_replay(&waiting)), (201, true), "{what}");
        assert_eq!(place.begun().len(), usize::from(what == "work"));
    }
}
