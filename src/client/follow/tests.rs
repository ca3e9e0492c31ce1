//! What follows from each answer, as tables: no I/O, no clock.

use http::header::HeaderName;

use super::*;

const DOCUMENT: &[(&str, &str)] = &[("content-type", "application/json")];

fn response(status: u16, fields: &[(&str, &str)], body: &str) -> Response<Bytes> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
}

pub(super) fn url() -> Url {
    Url::parse("https://api.example/images").unwrap()
}

/// An operation that was accepted with just a link.
pub(super) fn follow() -> Follow {
    accepted(&[("location", "/o/1")], "").unwrap()
}

fn accepted(fields: &[(&str, &str)], body: &str) -> Result<Follow, ClientError> {
    Follow::accepted(&url(), &response(202, fields, body), &Origins::default())
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap()
}

pub(super) fn give(follow: &mut Follow, status: u16, fields: &[(&str, &str)], body: &str) -> Step {
    let answer = Ok(response(status, fields, body));
    follow.received(answer, &Origins::default(), &PollPolicy::new(), now(), 0)
}

#[track_caller]
pub(super) fn again(step: Step, millis: u64) {
    match step {
        Step::Again(pause) => assert_eq!(pause, Duration::from_millis(millis)),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(super) fn failed(step: Step, kind: ClientErrorKind) {
    match step {
        Step::Failed(error) | Step::GaveUp(error, _) => assert_eq!(error.kind(), kind),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(super) fn finished(step: Step) -> Finished {
    match step {
        Step::Finished(finished) => finished,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_monitor_is_found_wherever_it_is_named() {
    let monitor = |fields| accepted(fields, "").map(|follow| follow.monitor.to_string());
    for (fields, found) in [
        (&[("location", "/o/1")][..], "https://api.example/o/1"),
        (&[("content-location", "o/1#x")], "https://api.example/o/1"),
        (&[("operation-location", "https://api.example/o/1")], "https://api.example/o/1"),
        (&[("azure-asyncoperation", "/o/1"), ("location", "/x")], "https://api.example/o/1"),
        (&[("location", "/image/1"), ("content-location", "/o/1")], "https://api.example/o/1"),
        (&[("link", "</o/1>; rel=\"monitor\""), ("location", "/x")], "https://api.example/o/1"),
    ] {
        assert_eq!(monitor(fields).unwrap(), found, "{fields:?}");
    }
    assert_eq!(monitor(&[]).unwrap_err().kind(), ClientErrorKind::NoMonitor);
    let foreign = monitor(&[("location", "http://api.example/o/1")]).unwrap_err();
    assert_eq!(foreign.kind(), ClientErrorKind::ForeignOrigin);
}

#[test]
fn pauses_are_the_servers_within_bounds() {
    let running = r#"{"status":"running"}"#;
    let asked = |fields: &[(&str, &str)]| {
        let mut follow = follow();
        give(&mut follow, 200, &[DOCUMENT, fields].concat(), running)
    };
    again(asked(&[("retry-after", "7")]), 7_000);
    again(asked(&[("retry-after", "Sun, 06 Nov 1994 08:49:42 GMT")]), 5_000);
    again(asked(&[("retry-after", "Sun, 06 Nov 1994 00:00:00 GMT")]), 500);
    again(asked(&[("retry-after", "0")]), 500);
    again(asked(&[("retry-after", "99999999999999999999")]), 300_000);
    // It held the poll for us.
    again(asked(&[("retry-after", "7"), ("preference-applied", "wait=20")]), 500);
    // None, or nonsense: a pause that grows. With the smallest random number it is three quarters.
    again(asked(&[("retry-after", "soon")]), 750);
    let mut follow = follow();
    for millis in [750, 1_125, 1_687, 2_531] {
        let Step::Again(pause) = give(&mut follow, 200, DOCUMENT, running) else { panic!() };
        assert_eq!(pause.as_millis(), millis);
    }
}

/// What changed before the poll was made would be waited for in vain.
#[test]
fn a_poll_is_held_only_for_what_is_newer_than_what_was_seen() {
    let policy = PollPolicy::new();
    let mut follow = follow();
    assert!(!follow.request(&policy, false).1.contains_key(PREFER));
    let running = r#"{"status":"running"}"#;
    give(&mut follow, 200, DOCUMENT, running);
    assert!(!follow.request(&policy, false).1.contains_key(PREFER), "no tag to compare with");
    give(&mut follow, 200, &[DOCUMENT[0], ("etag", "\"2\"")], running);
    let (_, fields) = follow.request(&policy, false);
    assert_eq!(
        (&fields[PREFER], &fields[header::IF_NONE_MATCH]),
        (&"wait=20".parse().unwrap(), &"\"2\"".parse().unwrap())
    );
}

#[test]
fn pauses_are_spread_and_bounded() {
    let policy = PollPolicy::new();
    for random in [0, 1, u32::MAX / 2, u32::MAX] {
        for seconds in [0, 1, 60, 299, 300, u64::MAX] {
            let pause = policy.asked(Duration::from_secs(seconds), random);
            let asked = Duration::from_secs(seconds).clamp(policy.shortest, policy.longest);
            // Never earlier than asked.
            assert!(pause >= asked && pause <= policy.longest, "{pause:?}");
        }
        for polls in [0, 1, 10, u32::MAX] {
            let pause = policy.unasked(polls, random);
            assert!(pause >= policy.shortest && pause <= Duration::from_millis(37_500));
        }
    }
    assert!(policy.asked(Duration::from_secs(10), u32::MAX) > Duration::from_secs(10));
}

#[test]
fn a_document_leads_to_its_result() {
    let mut follow = follow();
    let running = r#"{"status":"running","progress":{"fraction":0.5}}"#;
    let step = give(&mut follow, 200, &[DOCUMENT, &[("etag", "\"2\"")]].concat(), running);
    again(step, 750);
    assert_eq!(
        follow.snapshot.progress().and_then(crate::operation::Progress::fraction),
        Some(0.5)
    );
    let (url, fields) = follow.request(&PollPolicy::new(), false);
    assert_eq!(url.as_str(), "https://api.example/o/1");
    assert_eq!(fields[header::IF_NONE_MATCH], "\"2\"");
    assert_eq!(fields["prefer"], "wait=20");
    again(give(&mut follow, 304, &[("retry-after", "3")], ""), 3_000);
    assert_eq!(follow.snapshot.status(), Status::Running);

    let done = r#"{"status":"succeeded","result":{"status":201,"href":"/o/1/result"}}"#;
    again(give(&mut follow, 200, DOCUMENT, done), 0);
    let (url, fields) = follow.request(&PollPolicy::new(), false);
    assert_eq!((url.as_str(), fields.len()), ("https://api.example/o/1/result", 0));
    let Finished::Succeeded(outcome) = finished(give(&mut follow, 201, &[], "made")) else {
        panic!()
    };
    assert_eq!((outcome.status.as_u16(), &*outcome.body), (201, &b"made"[..]));
}

#[test]
fn a_failed_operation_is_no_failed_poll() {
    let document = r#"{"status":"failed","error":{"title":"No image"},
        "result":{"status":503,"href":"/o/1/result"}}"#;
    let failing = || {
        let mut follow = follow();
        again(give(&mut follow, 200, DOCUMENT, document), 0);
        follow
    };
    // The outcome itself, though it is a 503.
    let ended = finished(give(&mut failing(), 503, &[("retry-after", "9")], "x"));
    let Finished::Failed(problem, Some(outcome)) = ended else { panic!("{ended:?}") };
    assert_eq!((problem.title(), &*outcome.body), (Some("No image"), &b"x"[..]));
    // Trouble on the way to it.
    again(give(&mut failing(), 502, &[("retry-after", "9")], ""), 9_000);
    // It is gone, and what was told of it stays.
    let ended = finished(give(&mut failing(), 410, &[], ""));
    assert!(
        matches!(ended, Finished::Failed(problem, None) if problem.title() == Some("No image"))
    );

    // It is at another origin, at once or by a redirect.
    let foreign = r#"{"status":"failed","error":{"title":"No image"},
        "result":{"href":"//other.example/r"}}"#;
    let elsewhere = [("location", "//other.example/r")];
    for step in
        [give(&mut follow(), 200, DOCUMENT, foreign), give(&mut failing(), 307, &elsewhere, "")]
    {
        let ended = finished(step);
        assert!(
            matches!(ended, Finished::Failed(problem, None) if problem.title() == Some("No image"))
        );
    }

    let alone = r#"{"status":"failed","error":{"title":"No image","status":422}}"#;
    let ended = finished(give(&mut follow(), 200, DOCUMENT, alone));
    assert!(matches!(ended, Finished::Failed(problem, Some(_)) if problem.status() == 422));
    let canceled = finished(give(&mut follow(), 200, DOCUMENT, r#"{"status":"canceled"}"#));
    assert_eq!(canceled, Finished::Canceled);
}

/// The outcome may have the status that whatever is on the way has when it has its own trouble.
#[test]
fn an_outage_is_not_taken_for_the_outcome() {
    let problem = [("content-type", "application/problem+json")];
    for status in [502, 503, 504] {
        let document = format!(
            r#"{{"status":"failed","error":{{"type":"urn:x:too-busy"}},"result":{{"status":{status},"href":"/r"}}}}"#
        );
        let mut follow = follow();
        again(give(&mut follow, 200, DOCUMENT, &document), 0);
        let store = r#"{"type":"urn:problem-type:respond-async:store-unavailable"}"#;
        again(give(&mut follow, status, &problem, store), 750);
        again(give(&mut follow, status, &[], "<html>"), 1_125);
        let mut made_up = response(status, &problem, r#"{"type":"urn:x:too-busy"}"#);
        made_up.extensions_mut().insert(MadeUp);
        let step =
            follow.clone().received(Ok(made_up), &Origins::default(), &PollPolicy::new(), now(), 0);
        assert!(matches!(step, Step::GaveUp(..)), "{step:?}");
        let ended = finished(give(&mut follow, status, &problem, r#"{"type":"urn:x:too-busy"}"#));
        let Finished::Failed(problem, Some(_)) = ended else { panic!("{ended:?}") };
        assert_eq!(problem.type_uri(), "urn:x:too-busy");
    }
}

#[test]
fn a_result_that_is_gone_is_told() {
    let done = r#"{"status":"succeeded","result":{"href":"/r"}}"#;
    for (status, kind) in [
        (404, ClientErrorKind::Gone),
        (410, ClientErrorKind::Gone),
        (403, ClientErrorKind::Refused),
    ] {
        let mut follow = follow();
        give(&mut follow, 200, DOCUMENT, done);
        failed(give(&mut follow, status, &[], ""), kind);
    }
    let mut follow = follow();
    give(&mut follow, 200, DOCUMENT, done);
    again(give(&mut follow, 404, &[("retry-after", "1")], ""), 1_000);
}

#[test]
fn a_replayed_answer_is_the_end() {
    let running = |follow: &mut Follow| {
        again(give(follow, 202, &[("retry-after", "2"), ("location", "/o/2")], ""), 2_000);
        assert_eq!(follow.monitor.path(), "/o/2");
    };
    // Whatever its content says: a shop's order has a status too.
    for body in [r#"{"status":"running"}"#, "{", "<html>", ""] {
        let mut follow = follow();
        running(&mut follow);
        let ended = finished(give(&mut follow, 200, DOCUMENT, body));
        assert!(matches!(ended, Finished::Succeeded(outcome) if outcome.body == body));
    }
    let mut follow = follow();
    running(&mut follow);
    let ended = finished(give(&mut follow, 422, &[], ""));
    assert!(matches!(ended, Finished::Failed(problem, Some(_)) if problem.status() == 422));
    // Without a 202 before, too.
    let ended = finished(give(&mut self::follow(), 200, &[("content-type", "image/png")], "x"));
    assert!(matches!(ended, Finished::Succeeded(_)));
    let ended = finished(give(&mut self::follow(), 200, DOCUMENT, r#"{"status":"shipped"}"#));
    assert!(matches!(ended, Finished::Succeeded(_)));
    // But not where the 202 has shown what a monitor says.
    let fields = [("content-location", "/o/1"), DOCUMENT[0]];
    let mut follow = accepted(&fields, r#"{"status":"pending"}"#).unwrap();
    again(give(&mut follow, 200, DOCUMENT, r#"{"status":"shipped"}"#), 750);
    assert_eq!(follow.snapshot.status(), Status::Running);
}

/// Azure's clients read the content of a 202 too.
#[test]
fn a_document_in_a_202_says_nothing_of_how_the_end_is_told() {
    let running = || {
        let mut follow = follow();
        give(&mut follow, 202, &[], "");
        again(give(&mut follow, 202, DOCUMENT, r#"{"status":"InProgress"}"#), 1_125);
        let kept = serde_json::to_string(&follow).unwrap();
        serde_json::from_str::<Follow>(&kept).unwrap()
    };
    let error = r#"{"status":"Failed","error":{"code":"C","message":"No image"}}"#;
    let ended = finished(give(&mut running(), 200, DOCUMENT, error));
    assert!(matches!(ended, Finished::Failed(it, Some(_)) if it.detail() == Some("No image")));
    let ended = finished(give(&mut running(), 200, DOCUMENT, r#"{"status":"Canceled"}"#));
    assert_eq!(ended, Finished::Canceled);
    let mut follow = running();
    again(give(&mut follow, 200, DOCUMENT, r#"{"status":"Running"}"#), 750);
    for (fields, body) in [
        (DOCUMENT, r#"{"status":"shipped"}"#),
        (DOCUMENT, r#"{"id":17}"#),
        (&[("content-type", "image/png")], "x"),
    ] {
        let ended = finished(give(&mut running(), 200, fields, body));
        assert!(matches!(ended, Finished::Succeeded(outcome) if outcome.body == body));
    }
    let ended = finished(give(&mut running(), 422, &[], ""));
    assert!(matches!(ended, Finished::Failed(problem, Some(_)) if problem.status() == 422));
}

#[test]
fn a_poll_that_fails_is_tried_again() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let mut follow = follow();
        again(give(&mut follow, status, &[("retry-after", "4")], ""), 4_000);
        again(give(&mut follow, status, &[], ""), 1_125);
        again(give(&mut follow, 200, DOCUMENT, r#"{"status":"running"}"#), 750);
        // What came between counts no more.
        again(give(&mut follow, status, &[], ""), 750);
    }
    let mut follow = follow();
    for _ in 1..PollPolicy::DEFAULT_FAILURE_LIMIT {
        assert!(matches!(give(&mut follow, 500, &[], ""), Step::Again(_)));
    }
    failed(give(&mut follow, 500, &[], ""), ClientErrorKind::PollFailed);
    // Cut off half-way.
    let mut follow = self::follow();
    again(give(&mut follow, 200, DOCUMENT, r#"{"status":"succ"#), 750);
    again(give(&mut follow, 200, DOCUMENT, r#"{"status":"running"}"#), 750);
    for kind in [TransportErrorKind::NotSent, TransportErrorKind::Ambiguous] {
        let error = Err(TransportError::new(kind, "gone"));
        let policy = PollPolicy::new().with_failure_limit(2);
        let step = follow.received(error, &Origins::default(), &policy, now(), 0);
        again(step, 750);
        let error = Err(TransportError::new(kind, "gone"));
        let step = follow.received(error, &Origins::default(), &policy, now(), 0);
        failed(step, ClientErrorKind::PollFailed);
        give(&mut follow, 304, &[], "");
    }
}

#[test]
fn what_will_not_pass_is_told_at_once() {
    for (status, kind) in [
        (401, ClientErrorKind::Refused),
        (403, ClientErrorKind::Refused),
        (400, ClientErrorKind::Refused),
        (410, ClientErrorKind::Gone),
    ] {
        failed(give(&mut follow(), status, &[], ""), kind);
    }
    // A replica may not know it yet; later it is gone.
    let mut follow = follow();
    again(give(&mut follow, 404, &[], ""), 750);
    again(give(&mut follow, 404, &[], ""), 1_125);
    failed(give(&mut follow, 404, &[], ""), ClientErrorKind::Gone);
    let mut follow = self::follow();
    give(&mut follow, 200, DOCUMENT, r#"{"status":"running"}"#);
    failed(give(&mut follow, 404, &[], ""), ClientErrorKind::Gone);
    for kind in [TransportErrorKind::Invalid, TransportErrorKind::TooLarge] {
        let error = Err(TransportError::new(kind, "no"));
        let step = follow.received(error, &Origins::default(), &PollPolicy::new(), now(), 0);
        failed(step, ClientErrorKind::PollFailed);
    }
}

#[test]
fn what_is_kept_is_all_that_is_needed_and_no_more() {
    let mut follow = follow();
    let running = r#"{"status":"running","progress":{"fraction":0.5}}"#;
    give(&mut follow, 200, &[DOCUMENT, &[("etag", "\"2\"")]].concat(), running);
    let kept = serde_json::to_string(&follow).unwrap();
    assert_eq!(
        kept,
        r#"{"monitor":"https://api.example/o/1","snapshot":{"status":"running","progress":{"fraction":0.5}},"#
            .to_owned()
            + r#""style":"document","etag":"\"2\""}"#
    );
    let read: Follow = serde_json::from_str(&kept).unwrap();
    assert_eq!(
        read.request(&PollPolicy::new(), false).1[HeaderName::from_static("if-none-match")],
        "\"2\""
    );
}

/// Whoever takes it up asks the monitor again, which alone knows the error and the status of the outcome.
#[test]
fn what_ends_as_a_result_that_is_an_error_ends_so_for_another_process_too() {
    for status in [500, 422] {
        let document = format!(
            r#"{{"status":"failed","error":{{"title":"No image"}},"result":{{"status":{status},"href":"/r"}}}}"#
        );
        let fields = [DOCUMENT[0], ("etag", "\"3\"")];
        let mut follow = follow();
        again(give(&mut follow, 200, &fields, &document), 0);
        let kept = serde_json::to_string(&follow).unwrap();
        let mut read: Follow = serde_json::from_str(&kept).unwrap();
        let (url, asked) = read.request(&PollPolicy::new(), false);
        assert_eq!(url.path(), "/o/1");
        assert!(!asked.contains_key(header::IF_NONE_MATCH), "there would be nothing new");
        again(give(&mut read, 200, &fields, &document), 0);
        let ended = finished(give(&mut read, status, &[], "x"));
        let Finished::Failed(problem, Some(outcome)) = ended else { panic!("{ended:?}") };
        assert_eq!((problem.title(), outcome.status.as_u16()), (Some("No image"), status));
    }
}

#[test]
fn whoever_gives_up_says_when_to_go_on_and_may_try_as_often_again() {
    let policy = PollPolicy::new().with_failure_limit(2);
    let mut follow = follow();
    for _ in 0..2 {
        let mut fail = |fields: &[(&str, &str)]| {
            let answer = Ok(response(503, fields, ""));
            follow.received(answer, &Origins::default(), &policy, now(), 0)
        };
        again(fail(&[]), 750);
        let Step::GaveUp(error, pause) = fail(&[("retry-after", "7")]) else { panic!() };
        assert_eq!((error.kind(), pause.as_secs()), (ClientErrorKind::PollFailed, 7));
    }
    // An answer that was made up on this side is not asked for again.
    let mut made_up = response(504, &[], "");
    made_up.extensions_mut().insert(MadeUp);
    let step = follow.received(Ok(made_up), &Origins::default(), &PollPolicy::new(), now(), 0);
    assert!(matches!(step, Step::GaveUp(error, _) if error.is_retryable()));
}

#[test]
fn odata_tells_how_it_ended_in_a_field() {
    for (told, is_well) in [("201", true), ("500", false), ("404", false)] {
        for fields in [&[("asyncresult", told)][..], &[("asyncresult", told), DOCUMENT[0]]] {
            let body = r#"{"status":"running"}"#;
            let outcome = match finished(give(&mut follow(), 200, fields, body)) {
                Finished::Succeeded(outcome) if is_well => outcome,
                Finished::Failed(_, Some(outcome)) if !is_well => outcome,
                other => panic!("{told}: {other:?}"),
            };
            assert_eq!(outcome.status.as_str(), told);
        }
    }
    let Finished::Succeeded(outcome) =
        finished(give(&mut follow(), 200, &[("asyncresult", "soon")], ""))
    else {
        panic!()
    };
    assert_eq!(outcome.status.as_u16(), 200);
}

#[test]
fn a_new_word_with_retry_after_is_no_end() {
    let mut follow = follow();
    let fields = [DOCUMENT[0], ("retry-after", "3")];
    again(give(&mut follow, 200, &fields, r#"{"status":"Reticulating"}"#), 3_000);
    assert_eq!(follow.snapshot.status(), Status::Running);
    again(give(&mut follow, 200, DOCUMENT, r#"{"status":"Splines"}"#), 750);
    let ended = finished(give(&mut self::follow(), 200, &fields, r#"{"id":17}"#));
    assert!(matches!(ended, Finished::Succeeded(_)), "no status at all");
}

#[test]
fn that_a_kick_off_was_held_says_nothing_of_the_first_poll() {
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", "30".parse().unwrap());
    headers.insert("preference-applied", "respond-async, wait".parse().unwrap());
    let pause = follow().first_pause(&headers, &PollPolicy::new(), now(), 0);
    assert_eq!(pause.as_secs(), 30);
}
