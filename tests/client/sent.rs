//! What is sent, how often, and what counts as accepted, by a server that says what it is told to.

use bytes::Bytes;
use http::{Method, Request};
use respond_async::client::{Answer, ClientErrorKind, Finished, Poller, TransportErrorKind};
use std::time::Duration;

use crate::scripted::{Script, Turn, accepted, document, post, say};

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_again_by_the_same_name() {
    let (script, client) = Script::new([
        Turn::Lost(TransportErrorKind::NotSent),
        Turn::Lost(TransportErrorKind::Ambiguous),
        say(503, &[("retry-after", "7")], ""),
        say(201, &[], ""),
    ]);
    let client = client.trust_idempotency_keys(true);
    let answer = client.send(post()).respond_async().await.unwrap();
    assert!(matches!(answer, Answer::Answered(answer) if answer.status() == 201));
    let asked = script.asked();
    assert!(asked.iter().all(|one| one.request.headers()["idempotency-key"]
        == asked[0].request.headers()["idempotency-key"]));
    assert!((asked[3].at - asked[2].at).as_secs() >= 7);
    // A client's own name is kept.
    let (script, client) =
        Script::new([Turn::Lost(TransportErrorKind::Ambiguous), say(201, &[], "")]);
    let mut request = post();
    request.headers_mut().insert("idempotency-key", "\"mine\"".parse().unwrap());
    client.send(request).await.unwrap();
    for asked in script.asked() {
        assert_eq!(asked.request.headers()["idempotency-key"], "\"mine\"");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_twice_that_may_have_arrived_at_a_server_that_may_not_know_names() {
    for named in [true, false] {
        let (script, client) = Script::new([Turn::Lost(TransportErrorKind::Ambiguous)]);
        let client = client.idempotency_keys(named);
        let error = client.send(post()).respond_async().await.unwrap_err();
        assert_eq!(error.kind(), ClientErrorKind::Transport);
        assert_eq!(script.asked()[0].request.headers().contains_key("idempotency-key"), named);
        // 503 too, with or without `Retry-After`: a proxy says it when its connection breaks, and a server
        // when its store does not answer.
        for (status, fields) in
            [(502, &[][..]), (503, &[]), (503, &[("retry-after", "1")]), (504, &[])]
        {
            let (_, client) = Script::new([say(status, fields, "")]);
            let answer = client.idempotency_keys(named).send(post()).await.unwrap();
            assert!(matches!(answer, Answer::Answered(answer) if answer.status() == status));
        }
    }
    // Trust alone names nothing.
    let (_, client) = Script::new([say(502, &[], "")]);
    let client = client.idempotency_keys(false).trust_idempotency_keys(true);
    assert!(matches!(client.send(post()).await.unwrap(), Answer::Answered(_)));
    // But what was surely not taken, and what is idempotent.
    let (_, client) = Script::new([Turn::Lost(TransportErrorKind::NotSent), say(201, &[], "")]);
    client.idempotency_keys(false).send(post()).await.unwrap();
    let (script, client) =
        Script::new([Turn::Lost(TransportErrorKind::Ambiguous), say(201, &[], "")]);
    let mut request = post();
    *request.method_mut() = Method::PUT;
    client.send(request).await.unwrap();
    assert!(!script.asked()[0].request.headers().contains_key("idempotency-key"));
    // And not for ever.
    let (_, client) = Script::new([1, 2, 3].map(|_| say(429, &[], "")));
    let answer = client.tries(3).send(post()).await.unwrap();
    assert!(matches!(answer, Answer::Answered(answer) if answer.status() == 429));
    let (_, client) = Script::new([1, 2, 3].map(|_| say(503, &[("retry-after", "1")], "")));
    let client = client.trust_idempotency_keys(true);
    let answer = client.tries(3).send(post()).await.unwrap();
    assert!(matches!(answer, Answer::Answered(answer) if answer.status() == 503));
}

/// Sent twice, it would begin two operations, which run side by side.
#[tokio::test(start_paused = true)]
async fn what_may_begin_an_operation_has_a_name_whatever_its_method() {
    for method in [Method::PUT, Method::DELETE] {
        for prefer in ["respond-async", "wait=5"] {
            let (script, client) =
                Script::new([Turn::Lost(TransportErrorKind::Ambiguous), say(204, &[], "")]);
            let mut request = post();
            *request.method_mut() = method.clone();
            request.headers_mut().insert("prefer", prefer.parse().unwrap());
            client.send(request).await.unwrap();
            let asked = script.asked();
            let key = |at: usize| asked[at].request.headers().get("idempotency-key");
            assert_eq!(key(0).is_some(), prefer == "respond-async", "{method} {prefer}");
            assert_eq!(key(0), key(1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_ready_for_a_202_follows_it() {
    let ended = || document("1", r#"{"status":"canceled"}"#);
    // Nobody else.
    let (_, client) = Script::new([accepted()]);
    assert!(matches!(client.send(post()).await.unwrap(), Answer::Answered(_)));
    for prefer in ["", "respond-async", "wait=5"] {
        let (_, client) = Script::new([accepted()]);
        let mut request = post();
        request.headers_mut().append("prefer", prefer.parse().unwrap());
        let answer = client.send(request).await.unwrap();
        assert_eq!(matches!(answer, Answer::Accepted(_)), !prefer.is_empty(), "{prefer}");
    }
    // An overdue answer, to which a route may have changed by itself.
    let wait = Duration::from_secs(5);
    let (_, client) = Script::new([accepted(), ended()]);
    let finished = client.send(post()).wait(wait).finished().await.unwrap();
    assert_eq!(finished, Finished::Canceled);
    // The end is the end.
    let (_, client) = Script::new([accepted(), ended()]);
    assert_eq!(client.send(post()).finished().await.unwrap(), Finished::Canceled);
    // Without a monitor, who has asked for one is told, and others have an answer.
    let (_, client) = Script::new([say(202, &[], "")]);
    let error = client.send(post()).respond_async().await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::NoMonitor);
    let (_, client) = Script::new([say(202, &[], "")]);
    let answer = client.send(post()).wait(wait).await.unwrap();
    assert!(matches!(answer, Answer::Answered(answer) if answer.status() == 202));
}

#[tokio::test(start_paused = true)]
async fn other_standards_begin_operations_otherwise() {
    for (status, fields) in [
        (201, [("location", "/jobs/1"), ("preference-applied", "respond-async")]),
        (201, [("location", "/things/1"), ("operation-location", "/jobs/1")]),
        (200, [("x", ""), ("azure-asyncoperation", "/jobs/1")]),
    ] {
        let (_, client) = Script::new([say(status, &fields, "{}")]);
        let answer = client.send(post()).respond_async().await.unwrap();
        let Answer::Accepted(poller) = answer else { panic!("{fields:?}: {answer:?}") };
        assert_eq!(poller.monitor(), "http://api.example/jobs/1");
    }
    let made = [("location", "/things/1"), ("preference-applied", "wait=5")];
    let (_, client) = Script::new([say(201, &made, "{}")]);
    let answer = client.send(post()).respond_async().await.unwrap();
    assert!(matches!(answer, Answer::Answered(_)));
}

#[tokio::test(start_paused = true)]
async fn what_speaks_of_the_request_stays_with_it_and_the_result_is_what_is_accepted() {
    let (script, client) = Script::new([
        accepted(),
        document("1", r#"{"status":"succeeded","result":{"href":"/o/1/result"}}"#),
        say(200, &[], "it"),
    ]);
    let mut request = post();
    let of_it = ["content-digest", "content-md5", "repr-digest", "digest", "if-range", "if-match"];
    for name in of_it {
        request.headers_mut().insert(name, "x".parse().unwrap());
    }
    request.headers_mut().insert("accept", "image/png".parse().unwrap());
    client.send(request).respond_async().finished().await.unwrap();
    let asked = script.asked();
    assert_eq!(asked[0].request.headers()["if-range"], "x");
    for asked in &asked[1..] {
        let headers = asked.request.headers();
        assert!(!of_it.iter().any(|name| headers.contains_key(*name)), "{headers:?}");
        assert_eq!(headers["authorization"], "Bearer x");
    }
    assert!(asked[1].request.headers()["accept"].to_str().unwrap().starts_with("application/json"));
    assert_eq!(asked[2].request.headers()["accept"], "image/png");
}

#[tokio::test]
async fn what_is_shown_of_a_request_is_no_secret() {
    let (_, client) = Script::new([]);
    let shown = format!("{:?}", client.send(post()).respond_async());
    assert!(shown.contains("http://api.example/images") && shown.contains("authorization"));
    assert!(!shown.contains("Bearer") && !shown.contains("picture"), "{shown}");
}

#[test]
fn what_is_sent_and_followed_can_go_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<respond_async::client::Sending>();
    is_send::<Poller>();
}

#[tokio::test]
async fn a_target_is_absolute() {
    let (_, client) = Script::new([]);
    for target in ["/images", "ftp://h/", "*"] {
        let request = Request::get(target).body(Bytes::new()).unwrap();
        let error = client.send(request).await.unwrap_err();
        assert_eq!(error.kind(), ClientErrorKind::InvalidRequest, "{target}");
    }
}
