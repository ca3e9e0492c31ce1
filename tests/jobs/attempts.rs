//! What is tried again, how often, and what is not.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_temporary_failure_is_tried_again_after_a_pause() {
    let place = Place::new();
    let operations = place.process("one");
    let id = submit(&operations, act("busy until 3", 1)).await;
    let ended = place.ended(id).await;
    assert_eq!((ended.status(), ended.attempt()), (Status::Succeeded, 3));
    let begun: Vec<_> = place.begun().into_iter().map(|(_, _, _, at)| at).collect();
    // Its problem said after 40 s, which is longer than the pauses of 1 s and 2 s at the most.
    assert!(begun[1] >= 40 && begun[2] - begun[1] >= 40 && begun[2] <= 85, "{begun:?}");
}

#[tokio::test(start_paused = true)]
async fn after_the_last_attempt_the_problem_says_so() {
    let place = Place::new();
    let policy = JobPolicy::new().with_attempt_limit(4).with_backoff(seconds(8), seconds(16));
    let operations = place.process_with("one", policy, |builder| builder);
    let id = submit(&operations, act("busy", 1)).await;
    let ended = place.ended(id).await;
    assert_failed(&ended, types::ATTEMPTS_EXHAUSTED);
    let error = ended.error().unwrap();
    assert_eq!(error.extension("attempts").unwrap(), 4);
    assert_eq!(error.extension("last_error").unwrap()["status"], 503);
    // The result says the same as the operation.
    assert_eq!(place.store.outcome(id).await.unwrap().unwrap().problem().as_ref(), Some(error));
    let begun = place.begun();
    assert_eq!(begun.iter().map(|(_, _, attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 3, 4]);
    // At most 8 s, 16 s, 16 s; each may be a poll interval late.
    for (pair, most) in begun.windows(2).zip([8, 16, 16]) {
        assert!(pair[1].3 - pair[0].3 <= most + 1, "{begun:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_attempt_would_not_mend_is_not_tried_again() {
    let place = Place::new();
    let operations = place.process("one");
    for (what, status) in [("wrong", 422), ("panic", 500)] {
        let ended = place.ended(submit(&operations, act(what, 1)).await).await;
        assert_eq!((ended.status(), ended.attempt()), (Status::Failed, 1));
        let error = ended.error().unwrap();
        assert_eq!(error.status(), status);
        assert!(!format!("{error:?}").contains("secret"));
    }
    // Unless the policy says so.
    let policy = JobPolicy::new().with_attempt_limit(2).with_retry_if(|_| true);
    let place = Place::new();
    let operations = place.process_with("one", policy, |builder| builder);
    let ended = place.ended(submit(&operations, act("panic", 1)).await).await;
    assert_failed(&ended, types::ATTEMPTS_EXHAUSTED);
    assert_eq!(place.begun().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_panics_has_asked_for_no_other_attempt() {
    let place = Place::new();
    let policy = JobPolicy::new().with_retry_if(|_| panic!("on purpose"));
    let operations = place.process_with("one", policy, |builder| builder);
    let id = submit(&operations, act("busy", 1)).await;
    sleep(seconds(2)).await;
    assert_failed(&place.get(id).await, types::OVERLOADED);
    assert_eq!(place.begun().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_run_twice_does_not() {
    let place = Place::new();
    let operations = place.process_with("one", JobPolicy::new().never_twice(), |builder| builder);
    let ended = place.ended(submit(&operations, act("busy", 1)).await).await;
    // Its own problem: that it was tried once says nothing.
    assert_failed(&ended, types::OVERLOADED);
    assert_eq!(place.begun().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_input_that_cannot_be_read_fails_that_operation_only() {
    #[derive(Serialize, Deserialize)]
    struct Other(u8);
    impl Job for Other {
        const KIND: &'static str = Act::KIND;
    }
    let place = Place::new();
    let older = place
        .builder(place.store.clone())
        .job_with(JobPolicy::new().with_concurrency(0), async |_: Other, _| Outcome::default())
        .start();
    let none = Preferences::default();
    let wrong = older.kick_off(&none).submit(Other(7)).await.unwrap().operation.id();
    let operations = place.process("one");
    let right = submit(&operations, act("work", 1)).await;
    assert_failed(&place.ended(wrong).await, types::UNREADABLE_INPUT);
    assert_eq!(place.ended(right).await.status(), Status::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_what_waits_and_what_runs() {
    let place = Place::new();
    let policy = JobPolicy::new().with_concurrency(1).with_deadline(seconds(20));
    let operations = place.process_with("one", policy, |builder| builder.cancel_grace(seconds(1)));
    let running = submit(&operations, act("stop", 1_000)).await;
    sleep(Duration::from_millis(10)).await;
    let waiting = submit(&operations, act("work", 1)).await;
    for id in [running, waiting] {
        let ended = place.ended(id).await;
        assert_failed(&ended, types::DEADLINE_PASSED);
        let took = ended.finished().unwrap().duration_since(ended.created());
        assert!((seconds(20)..seconds(22)).contains(&took), "{took:?}");
    }
    // The handler was told, so that there is room again.
    let next = submit(&operations, act("work", 1)).await;
    assert_eq!(place.ended(next).await.status(), Status::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn each_kind_has_places_of_its_own() {
    #[derive(Serialize, Deserialize)]
    struct Quick;
    impl Job for Quick {
        const KIND: &'static str = "tests.quick";
    }
    let place = Place::new();
    let operations = place.process_with("one", JobPolicy::new().with_concurrency(2), |builder| {
        builder.job(async |_: Quick, _: Context| Outcome::default())
    });
    let mut slow = Vec::new();
    for _ in 0..5 {
        slow.push(submit(&operations, act("work", 60)).await);
    }
    sleep(seconds(1)).await;
    assert_eq!(place.begun().len(), 2, "two at a time");
    let none = Preferences::default();
    let quick = operations.kick_off(&none).submit(Quick).await.unwrap().operation.id();
    sleep(seconds(1)).await;
    assert_eq!(place.get(quick).await.status(), Status::Succeeded, "it waits for the slow ones");
    for id in slow {
        place.ended(id).await;
    }
    // As soon as one ends, the next begins.
    let begun: Vec<_> = place.begun().into_iter().map(|(_, _, _, at)| at).collect();
    assert_eq!(begun, [0, 0, 60, 60, 120]);
}

#[tokio::test(start_paused = true)]
async fn many_jobs_run_once_each() {
    let place = Place::new();
    let one = place.process_with("one", JobPolicy::new().with_concurrency(8), |builder| builder);
    let _two = place.process_with("two", JobPolicy::new().with_concurrency(8), |builder| builder);
    let mut ids = Vec::new();
    for number in 0..500 {
        ids.push(submit(&one, act(&format!("work {number}"), 1)).await);
    }
    for id in ids {
        assert_eq!(place.ended(id).await.status(), Status::Succeeded);
    }
    let begun = place.begun();
    let distinct: std::collections::HashSet<_> = begun.iter().map(|(_, what, ..)| what).collect();
    assert_eq!((begun.len(), distinct.len()), (500, 500));
    for name in ["one", "two"] {
        assert!(begun.iter().any(|(who, ..)| *who == name), "{name} did nothing");
    }
}
