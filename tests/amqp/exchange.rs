//! A request and its reply, each way that they can go.

use super::*;

fn amqp_is_needed() -> &'static str {
    "needs RabbitMQ: run ./tests/all"
}

work!(Greet, "test.greet");

async fn greet(job: Greet, context: Context) -> Result<Created, Problem> {
    context.progress(0.5, "half");
    match job.say.as_str() {
        "taken" => {
            Err(Problem::from_status(StatusCode::CONFLICT).with_detail("The name is taken."))
        }
        "panic" => panic!("{}", amqp_is_needed()),
        "slowly" => {
            tokio::time::sleep(Duration::from_millis(400)).await;
            Ok(Created::at("/slow"))
        }
        say => Ok(Created::at(format!("/greetings/{say}")).json(&job)),
    }
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn the_same_answers_now_and_later() {
    let amqp = connect("test.greet").await;
    let _worker = worker(&amqp).job(greet).start();
    let gateway = Gateway::start::<Greet>(&amqp, "test-greet", &MemoryStore::new());
    // The queue is there once the worker is.
    let now = eventually(async || {
        let answer = gateway.send("", Greet::new("ann")).await;
        Some(answer).filter(|answer| answer.status != StatusCode::SERVICE_UNAVAILABLE)
    })
    .await;
    assert_eq!(now.status, StatusCode::CREATED, "{}", now.text);
    assert_eq!(now.headers["location"], "/greetings/ann");
    assert_eq!(now.headers["content-type"], "application/json");
    assert_eq!(now.text, r#"{"say":"ann"}"#);
    let taken = gateway.send("", Greet::new("taken")).await;
    assert_eq!(
        (taken.status, &taken.json()["detail"]),
        (StatusCode::CONFLICT, &"The name is taken.".into())
    );

    let in_time = gateway.send("respond-async, wait=10", Greet::new("bob")).await;
    assert_eq!((in_time.status, &*in_time.text), (StatusCode::CREATED, r#"{"say":"bob"}"#));
    let late = gateway.send("respond-async, wait=0", Greet::new("slowly")).await;
    assert_eq!(late.status, StatusCode::ACCEPTED);
    let id = late.json()["id"].as_str().unwrap().parse().unwrap();
    let halfway = gateway.until(id, |seen| seen.operation.progress().is_some()).await;
    assert_eq!(halfway.operation.progress().unwrap().message(), Some("half"));
    let done = gateway.finished(id).await.operation;
    assert_eq!(done.status(), Status::Succeeded);
    assert_eq!(done.outcome_head().unwrap().location().unwrap().as_str(), "/slow");

    let failed = gateway.submit(Greet::new("taken")).await;
    let failed = gateway.finished(failed).await.operation;
    assert_eq!(failed.error().unwrap().detail(), Some("The name is taken."));
    assert_eq!(failed.attempt(), 1);
}

work!(Nobody, "test.nobody");

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_queue_that_is_not_there_is_a_503_and_loses_nothing() {
    let amqp = connect("test.nobody").await;
    let gateway = Gateway::start::<Nobody>(&amqp, "test-nobody", &MemoryStore::new());
    let refused = gateway.send("", Nobody::new("x")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    refused.is_problem("no-worker");
    assert!(refused.headers.contains_key("retry-after"));
    let refused = gateway.send("respond-async, wait=5", Nobody::new("x")).await;
    refused.is_problem("no-worker");

    let id = gateway.submit(Nobody::new("x")).await;
    gateway.until(id, |seen| seen.operation.attempt() > 1).await;
    let _worker =
        worker(&amqp).job(async |_: Nobody, _| Ok::<_, Problem>(Created::at("/x"))).start();
    assert_eq!(gateway.finished(id).await.operation.status(), Status::Succeeded);
}

work!(Missing, "test.missing");
work!(Present, "test.present");

/// What no queue takes comes back among the confirms of what goes through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_queue_that_is_not_there_is_no_other_kinds_concern() {
    let amqp = connect("test.missing").await;
    let working =
        worker(&amqp).job(async |_: Present, _| Ok::<_, Problem>(Created::at("/x"))).start();
    working.ready().await;
    let requests = Requests::builder(&amqp, "test-missing").start();
    let operations = Operations::builder(MemoryStore::new())
        .job(requests.handler::<Missing>())
        .job(requests.handler::<Present>())
        .start();
    let operations = std::sync::Arc::new(operations);
    let preferences = Preferences::default();
    eventually(async || {
        let answer = operations.respond(&preferences, Present::new("first")).await;
        (answer.status() == StatusCode::CREATED).then_some(())
    })
    .await;
    for _ in 0..20 {
        let mut sending = tokio::task::JoinSet::new();
        for number in 0..40 {
            let operations = operations.clone();
            sending.spawn(async move {
                let preferences = Preferences::default();
                let (answer, expected) = if number % 2 == 0 {
                    (operations.respond(&preferences, Present::new("x")).await, 201)
                } else {
                    (operations.respond(&preferences, Missing::new("x")).await, 503)
                };
                assert_eq!(answer.status(), expected);
            });
        }
        while let Some(sent) = sending.join_next().await {
            sent.unwrap();
        }
    }
}

work!(Endless, "test.endless");

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_cancellation_reaches_the_worker() {
    let amqp = connect("test.endless").await;
    let (stops, stopped) = std::sync::mpsc::channel();
    let stops = std::sync::Mutex::new(stops);
    let stops = std::sync::Arc::new(stops);
    let endless = move |job: Endless, context: Context| {
        let stops = stops.clone();
        async move {
            context.progress(0.1, &job.say);
            context.canceled().await;
            stops.lock().unwrap().send(job.say.clone()).unwrap();
            if job.say == "deaf" {
                std::future::pending::<()>().await;
            }
            context.check()?;
            Ok::<_, Problem>(Created::at("/never"))
        }
    };
    let _worker = worker(&amqp).job(endless).start();
    let gateway = Gateway::start::<Endless>(&amqp, "test-endless", &MemoryStore::new());
    for say in ["obedient", "deaf"] {
        let id = gateway.submit(Endless::new(say)).await;
        gateway.until(id, |seen| seen.operation.progress().is_some()).await;
        gateway.operations.cancel(&Owner::anonymous(), id).await.unwrap();
        let canceled = gateway.finished(id).await.operation;
        assert_eq!(canceled.status(), Status::Canceled);
        assert_eq!(stopped.recv_timeout(Duration::from_secs(5)).unwrap(), say);
    }
}

work!(Panics, "test.panics");

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_panic_tells_nothing_and_leaves_its_message_to_be_looked_at() {
    let amqp = connect("test.panics").await;
    let panics =
        async |job: Panics, _| -> Result<Created, Problem> { panic!("secret {}", job.say) };
    let _worker = worker(&amqp).job(panics).start();
    let gateway = Gateway::start::<Panics>(&amqp, "test-panics", &MemoryStore::new());
    let word = unique("word");
    let id = gateway.submit(Panics::new(&word)).await;
    let failed = gateway.finished(id).await.operation;
    let told = serde_json::to_string(failed.error().unwrap()).unwrap();
    assert!(told.contains(":internal") && !told.contains("secret"), "{told}");
    let raw = raw::Raw::connect(&servers::shared("AMQP_URL")).await;
    eventually(async || {
        raw.take("test.panics.dead").await.filter(|dead| dead.text().contains(&word))
    })
    .await;
}

work!(Sudden, "test.sudden");

/// Before its first await a handler is not polled yet.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_handler_that_panics_at_once_has_answered_too() {
    let amqp = connect("test.sudden").await;
    let panics = |job: Sudden, _| {
        assert_ne!(job.say, "panic");
        async { Ok::<_, Problem>(Created::at("/calm")) }
    };
    let _worker = worker(&amqp).concurrency(1).job(panics).start();
    let gateway = Gateway::start::<Sudden>(&amqp, "test-sudden", &MemoryStore::new());
    let id = gateway.submit(Sudden::new("panic")).await;
    let failed = gateway.finished(id).await.operation;
    assert!(failed.error().unwrap().type_uri().ends_with(":internal"), "{failed:?}");
    // Its place is free again.
    let id = gateway.submit(Sudden::new("calm")).await;
    assert_eq!(gateway.finished(id).await.operation.status(), Status::Succeeded);
}

work!(Large, "test.large");

/// A broker closes the channel of who sends it too much, and who would send the same again would close it again.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn what_is_too_large_for_a_message_is_not_sent() {
    let amqp = connect("test.large").await.with_max_message_bytes(1_000);
    let echo = async |job: Large, _| {
        let body = job.say.repeat(if job.say.len() > 100 { 10 } else { 1 });
        Ok::<_, Problem>(respond_async::Outcome::json(StatusCode::OK, &body))
    };
    let _worker = worker(&amqp).job(echo).start();
    let gateway = Gateway::start::<Large>(&amqp, "test-large", &MemoryStore::new());
    eventually(async || {
        let answer = gateway.send("", Large::new("x")).await;
        (answer.status == StatusCode::OK).then_some(())
    })
    .await;
    let refused = gateway.send("", Large::new(&"x".repeat(2_000))).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", refused.text);
    let answer = gateway.send("", Large::new(&"x".repeat(200))).await;
    answer.is_problem("result-too-large");
    let id = gateway.submit(Large::new(&"x".repeat(2_000))).await;
    let failed = gateway.finished(id).await.operation;
    assert_eq!(failed.error().unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    let id = gateway.submit(Large::new(&"x".repeat(200))).await;
    let failed = gateway.finished(id).await.operation;
    assert!(failed.error().unwrap().type_uri().ends_with(":result-too-large"), "{failed:?}");
}

work!(Fields, "test.fields");
work!(Beside, "test.beside");

/// The fields of a message go into one frame, and a broker closes the connection of who sends it a larger one.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn fields_that_are_too_large_are_not_sent() {
    let amqp = connect("test.fields").await;
    raw::Raw::connect(&servers::shared("AMQP_URL")).await.remove("test.beside").await;
    let fields = async |job: Fields, _| {
        let mut outcome = respond_async::Outcome::new(StatusCode::OK);
        match job.say.as_str() {
            "long" => {
                let value = "x".repeat(200 << 10).parse().unwrap();
                outcome.headers.insert("x-long", value);
            }
            _ => {
                for number in 0..20_000 {
                    let name: http::HeaderName = format!("{number:x}").parse().unwrap();
                    outcome.headers.insert(name, http::HeaderValue::from_static(""));
                }
            }
        }
        outcome
    };
    let beside = async |_: Beside, _| Ok::<_, Problem>(Created::at("/beside"));
    let working = worker(&amqp).job(fields).job(beside).start();
    working.ready().await;
    let gateway = Gateway::start::<Fields>(&amqp, "test-fields", &MemoryStore::new());
    let other = Gateway::start::<Beside>(&amqp, "test-beside", &MemoryStore::new());
    for say in ["long", "many"] {
        let id = gateway.submit(Fields::new(say)).await;
        let failed = gateway.finished(id).await.operation;
        assert!(failed.error().unwrap().type_uri().ends_with(":result-too-large"), "{failed:?}");
        let answer = other.send("", Beside::new("x")).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    }
}

work!(First, "test.first");
work!(Second, "test.second");

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_worker_that_shuts_down_begins_nothing() {
    let amqp = connect("test.first").await;
    raw::Raw::connect(&servers::shared("AMQP_URL")).await.remove("test.second").await;
    let begun = std::sync::Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let work = |kind: usize| {
        let begun = begun.clone();
        async move || {
            begun[kind].fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok::<_, Problem>(Created::at("/"))
        }
    };
    let (one, other) = (work(0), work(1));
    let working = worker(&amqp)
        .concurrency(1)
        .job(move |_: First, _| {
            let one = one.clone();
            async move { one().await }
        })
        .job(move |_: Second, _| {
            let other = other.clone();
            async move { other().await }
        })
        .start();
    working.ready().await;
    let first = Gateway::start::<First>(&amqp, "test-first", &MemoryStore::new());
    let second = Gateway::start::<Second>(&amqp, "test-second", &MemoryStore::new());
    let running = first.submit(First::new("x")).await;
    eventually(async || (begun[0].load(Ordering::Relaxed) == 1).then_some(())).await;
    // It has come to the worker, and waits for the place.
    second.submit(Second::new("x")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(working.shutdown(Duration::from_secs(10)).await);
    assert_eq!(begun[1].load(Ordering::Relaxed), 0);
    assert_eq!(first.finished(running).await.operation.status(), Status::Succeeded);
}

work!(Slow, "test.slow");
work!(Stale, "test.stale");

/// It has come to the worker in time, and waits there for its place.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn what_nobody_waits_for_any_more_is_not_begun() {
    let amqp = connect("test.slow").await;
    let raw = raw::Raw::connect(&servers::shared("AMQP_URL")).await;
    raw.remove("test.stale").await;
    raw.remove("test.stale.dead").await;
    let begun = std::sync::Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let (slow, stale) = (begun.clone(), begun.clone());
    let working = worker(&amqp)
        .concurrency(1)
        .job(move |_: Slow, _| {
            slow[0].fetch_add(1, Ordering::Relaxed);
            async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok::<_, Problem>(Created::at("/slow"))
            }
        })
        .job(move |_: Stale, _| {
            stale[1].fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, Problem>(Created::at("/stale")) }
        })
        .start();
    working.ready().await;
    let slow = Gateway::start::<Slow>(&amqp, "test-slow", &MemoryStore::new());
    let builder = Requests::builder(&amqp, "test-stale").timeout(Duration::from_millis(300));
    let stale = Gateway::start_with::<Stale>(&MemoryStore::new(), builder);
    let running = slow.submit(Slow::new("x")).await;
    eventually(async || (begun[0].load(Ordering::Relaxed) == 1).then_some(())).await;
    stale.send("", Stale::new("x")).await.is_problem("reply-overdue");
    slow.finished(running).await;
    // As if it had expired at the broker.
    eventually(async || raw.take("test.stale.dead").await).await;
    assert_eq!(begun[1].load(Ordering::Relaxed), 0);
    let answer = stale.send("", Stale::new("y")).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
}

work!(Again, "test.again");

/// It is the handler's name for what it does.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_request_without_operation_has_the_same_id_each_time_that_it_comes() {
    use respond_async::amqp::lapin::BasicProperties;

    let amqp = connect("test.again").await;
    let raw = raw::Raw::connect(&servers::shared("AMQP_URL")).await;
    let named = async |_: Again, context: Context| {
        let id = context.operation_id().unwrap().to_string();
        Ok::<_, Problem>(respond_async::Outcome::json(StatusCode::OK, &id))
    };
    let working = worker(&amqp).job(named).start();
    working.ready().await;
    raw.remove("test.again.replies").await;
    raw.declare("test.again.replies").await;
    let name = async |message_id: &str| {
        let asked = BasicProperties::default()
            .with_message_id(message_id.into())
            .with_reply_to("test.again.replies".into());
        raw.publish("test.again", asked, br#"{"say":"x"}"#).await;
        eventually(async || raw.take("test.again.replies").await).await.text()
    };
    let (one, other) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
    let first = name(&one).await;
    assert_eq!(first, name(&one).await);
    assert_ne!(first, name(&other).await);
}

work!(Traced, "test.traced");

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn the_trace_and_the_time_that_is_left_reach_the_worker() {
    let amqp = connect("test.traced").await;
    let traced = async |_: Traced, context: Context| {
        let trace =
            context.trace().map(|trace| (trace.parent().to_owned(), trace.state().to_owned()));
        let left = context.time_left().map(|left| left.as_secs());
        respond_async::Outcome::json(StatusCode::OK, &(trace, left))
    };
    let _worker = worker(&amqp).job(traced).start();
    let gateway = Gateway::start::<Traced>(&amqp, "test-traced", &MemoryStore::new());
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trace = respond_async::operation::TraceContext::new(parent, "a=1");
    for (prefer, least, most) in [("", 20, 25), ("respond-async, wait=9", 50, 60)] {
        let preferences = Preferences::parse(prefer.as_bytes()).unwrap();
        let answer = eventually(async || {
            let kick_off = gateway.operations.kick_off(&preferences).trace(trace.clone());
            let kick_off = kick_off.deadline(Duration::from_secs(60));
            let answer = Answer::of(kick_off.respond(Traced::new("x")).await);
            Some(answer).filter(|answer| answer.status != StatusCode::SERVICE_UNAVAILABLE)
        })
        .await;
        let told: ((String, String), u64) = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(told.0, (parent.to_owned(), "a=1".to_owned()));
        assert!((least..=most).contains(&told.1), "{told:?}");
    }
}

work!(Silent, "test.silent");

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn a_worker_that_never_replies_is_a_504() {
    let amqp = connect("test.silent").await;
    let silent = async |_: Silent, _| -> Result<Created, Problem> { std::future::pending().await };
    let _worker = worker(&amqp).job(silent).start();
    let builder = Requests::builder(&amqp, "test-silent").timeout(Duration::from_millis(300));
    let gateway = Gateway::start_with::<Silent>(&MemoryStore::new(), builder);
    let overdue = eventually(async || {
        let answer = gateway.send("", Silent::new("x")).await;
        Some(answer).filter(|answer| answer.status != StatusCode::SERVICE_UNAVAILABLE)
    })
    .await;
    assert_eq!(overdue.status, StatusCode::GATEWAY_TIMEOUT);
    overdue.is_problem("reply-overdue");
}

work!(Crowded, "test.crowded");

#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn what_is_too_much_is_refused() {
    let amqp = connect("test.crowded").await;
    let stuck = async |_: Crowded, _| -> Result<Created, Problem> { std::future::pending().await };
    let _worker = worker(&amqp).concurrency(1).queue_limit(3).job(stuck).start();
    let builder = Requests::builder(&amqp, "test-crowded").timeout(Duration::from_secs(20));
    let gateway = std::sync::Arc::new(Gateway::start_with::<Crowded>(&MemoryStore::new(), builder));
    // The broker counts what waits a little late, so it may take some more.
    let refused = eventually(async || {
        let sending = tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.send("", Crowded::new("x")).await }
        });
        let answer = tokio::time::timeout(Duration::from_millis(300), sending).await.ok()?.unwrap();
        Some(answer)
            .filter(|answer| answer.json()["type"].as_str().unwrap().ends_with(":overloaded"))
    })
    .await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);

    let few = Requests::builder(&amqp, "test-crowded").in_flight_limit(1);
    let few = Gateway::start_with::<Crowded>(&MemoryStore::new(), few);
    let waiting = few.submit(Crowded::new("x")).await;
    few.until(waiting, |seen| seen.operation.status() == Status::Running).await;
    few.send("", Crowded::new("x")).await.is_problem("overloaded");
}
