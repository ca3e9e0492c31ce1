//! One job, answered as its client prefers.

use super::*;

#[tokio::test(start_paused = true)]
async fn without_preference_it_runs_at_once_and_nothing_is_stored() {
    let place = Place::new();
    let operations = place.process("one");
    for prefer in ["", "wait=1", "handling=lenient"] {
        let response = ask(&operations, prefer, act("work", 30)).await;
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["location"], "/made/by/one");
        assert_eq!(response.headers()["vary"], "Prefer");
        assert!(response.headers().get("preference-applied").is_none());
    }
    assert!(place.store.is_empty());
    let response = ask(&operations, "", act("panic", 0)).await;
    assert_eq!((response.status().as_u16(), place.store.len()), (500, 0));
}

#[tokio::test(start_paused = true)]
async fn with_respond_async_it_is_stored_and_a_worker_runs_it() {
    let place = Place::new();
    let operations = place.process("one");
    let response = ask(&operations, "respond-async", act("work", 3)).await;
    let id = accepted(&response);
    assert_eq!(response.headers()["preference-applied"], "respond-async");
    let stored = place.get(id).await;
    assert_eq!((stored.status(), stored.kind().as_str()), (Status::Pending, "tests.act"));
    assert_eq!(place.store.input(id).await.unwrap().unwrap(), r#"{"what":"work","seconds":3}"#);

    let ended = place.ended(id).await;
    assert_eq!((ended.status(), ended.attempt()), (Status::Succeeded, 1));
    let outcome = place.store.outcome(id).await.unwrap().unwrap();
    let plain = ask(&operations, "", act("work", 3)).await;
    assert_eq!(
        (&outcome.headers, &*outcome.body),
        (&without_vary(&plain), plain.body().as_bytes())
    );
    assert_eq!(outcome.status, 201);
}

#[tokio::test(start_paused = true)]
async fn what_another_process_finishes_in_time_is_the_plain_answer() {
    let place = Place::new();
    let gateway = place.process_with("gateway", JobPolicy::new().with_concurrency(0), |b| b);
    let _worker = place.process("worker");
    let began = Instant::now();
    let response = ask(&gateway, "respond-async, wait=5", act("work", 3)).await;
    assert_eq!((response.status().as_u16(), began.elapsed().as_secs()), (201, 3));
    assert_eq!(response.headers()["location"], "/made/by/worker");

    let began = Instant::now();
    let response = ask(&gateway, "respond-async, wait=5", act("work", 8)).await;
    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!(place.get(accepted(&response)).await.status(), Status::Running);
}

#[tokio::test(start_paused = true)]
async fn clients_are_asked_to_poll_no_faster_than_the_service_wants_wherever_the_work_waits() {
    let place = Place::new();
    let policy = JobPolicy::new().with_concurrency(0);
    let gateway = place.process_with("gateway", policy, |builder| builder.poll_rate(10));
    let mut polls = std::collections::HashMap::new();
    for _ in 0..300 {
        let response = ask(&gateway, "respond-async", act("work", 0)).await;
        accepted(&response);
        let delay: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        *polls.entry(delay).or_insert(0) += 1;
    }
    assert!(polls.values().all(|polls| *polls <= 10), "{polls:?}");
    assert!(polls.keys().all(|delay| *delay <= 32), "{polls:?}");
}

fn without_vary(response: &Response) -> http::HeaderMap {
    let mut headers = response.headers().clone();
    headers.remove("vary");
    headers
}

#[tokio::test(start_paused = true)]
async fn with_wait_it_is_stored_only_when_it_becomes_a_202() {
    let place = Place::new();
    let operations = place.process("one");
    let response = ask(&operations, "respond-async, wait=5", act("work", 4)).await;
    assert_eq!((response.status().as_u16(), place.store.len()), (201, 0));

    let response = ask(&operations, "respond-async, wait=5", act("work", 8)).await;
    let id = accepted(&response);
    let running = place.get(id).await;
    assert_eq!((running.status(), running.attempt()), (Status::Running, 1));
    assert_eq!(running.progress().unwrap().message(), Some("work"));
    assert!(place.store.input(id).await.unwrap().is_some(), "another process could not run it");
    assert_eq!(place.ended(id).await.status(), Status::Succeeded);
    // It began once, with the request, and not again with the 202.
    let begun: Vec<_> = place.begun().into_iter().map(|(_, _, _, at)| at).collect();
    assert_eq!(begun, [0, 4]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_begin_in_time_is_left_to_the_workers() {
    let place = Place::new();
    let policy = JobPolicy::new().with_concurrency(1);
    let operations = place.process_with("one", policy, |builder| builder);
    let first = accepted(&ask(&operations, "respond-async", act("work", 10)).await);
    sleep(seconds(1)).await;
    let second = accepted(&ask(&operations, "respond-async, wait=2", act("work", 1)).await);
    assert_eq!(place.get(second).await.status(), Status::Pending);
    assert_eq!(place.get(second).await.lease_expires(), None, "nobody else could claim it");
    assert_eq!(place.ended(first).await.status(), Status::Succeeded);
    assert_eq!(place.ended(second).await.status(), Status::Succeeded);
    let begun: Vec<_> = place.begun().into_iter().map(|(_, _, _, at)| at).collect();
    assert_eq!(begun, [0, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_job_nobody_registered_is_told_to_whoever_wrote_the_service() {
    let place = Place::new();
    let operations = place.builder(place.store.clone()).start();
    for prefer in ["", "respond-async"] {
        let response = ask(&operations, prefer, act("work", 1)).await;
        assert_eq!(response.status(), 500);
        let body = String::from_utf8_lossy(response.body().as_bytes()).into_owned();
        assert!(body.contains("tests.act"), "{body}");
    }
    assert!(place.store.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_delayed_job_begins_when_its_time_has_come() {
    let place = Place::new();
    let operations = place.process("one");
    let none = Preferences::default();
    let kick_off = ann(operations.kick_off(&none)).delay(seconds(90));
    let id = accepted(&kick_off.respond(act("work", 1)).await);
    assert_eq!(place.ended(id).await.status(), Status::Succeeded);
    let (_, _, attempt, at) = place.begun()[0].clone();
    assert_eq!(attempt, 1);
    assert!((90..=92).contains(&at), "began after {at} s");
}

#[tokio::test(start_paused = true)]
async fn retention_is_the_requests_the_jobs_or_the_builders() {
    let place = Place::new();
    let policy = JobPolicy::new().with_retention(2 * HOUR);
    let operations =
        place.process_with("one", policy, |builder| builder.retention_bounds(HOUR / 2, 3 * HOUR));
    let none = Preferences::default();
    for (asked, given) in [
        (None, 2 * HOUR),
        (Some(HOUR), HOUR),
        (Some(seconds(1)), HOUR / 2),
        (Some(Duration::MAX), 3 * HOUR),
    ] {
        let mut kick_off = operations.kick_off(&none);
        if let Some(retention) = asked {
            kick_off = kick_off.retention(retention);
        }
        let id = kick_off.submit(act("work", 1)).await.unwrap().operation.id();
        let ended = place.ended(id).await;
        let kept = ended.expires().unwrap().duration_since(ended.finished().unwrap());
        assert_eq!(kept, given, "{asked:?}");
    }
    // Gone, once it could have expired: no trace of it is needed.
    let id = submit(&operations, act("work", 1)).await;
    let ended = place.ended(id).await;
    sleep(ended.expires().unwrap().duration_since(ended.finished().unwrap())).await;
    let gone = operations.get(&Owner::anonymous(), id).await.unwrap_err();
    assert!(gone.is(types::EXPIRED), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn too_much_unfinished_work_is_refused_and_nothing_of_it_stored() {
    let place = Place::new();
    let operations =
        place.process_with("one", JobPolicy::new(), |builder| builder.live_limit(3).owner_limit(2));
    for _ in 0..2 {
        accepted(&ask(&operations, "respond-async", act("work", 60)).await);
    }
    let refused = ask(&operations, "respond-async", act("work", 60)).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    submit(&operations, act("work", 60)).await;
    let none = Preferences::default();
    let refused = operations.kick_off(&none).submit(act("work", 60)).await.unwrap_err();
    assert!(refused.is(types::OVERLOADED) && refused.retry_after().is_some(), "{refused}");
    assert_eq!(place.store.len(), 3);
}
