//! A server that says what it is told to, on paused time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, Request, Response};
use respond_async::client::{
    Answer, Client, ClientErrorKind, Finished, Opened, PollPolicy, PollerState, StreamTransport,
    Transport, TransportError, TransportErrorKind, Update,
};
use respond_async::{Progress, Status};
use tokio::time::{Instant, sleep};

pub(crate) enum Turn {
    Answer(Response<Bytes>),
    /// After that time.
    Late(Duration, Response<Bytes>),
    Lost(TransportErrorKind),
    Silence,
    /// An event stream: what it tells after which time, or that it breaks.
    Stream(Vec<(Duration, Result<&'static str, TransportErrorKind>)>),
}

/// What was asked, and when.
pub(crate) struct Asked {
    pub(crate) request: Request<Bytes>,
    pub(crate) at: Instant,
}

#[derive(Clone)]
pub(crate) struct Script {
    streams: bool,
    turns: Arc<Mutex<VecDeque<Turn>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

#[async_trait]
impl Transport for Script {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let at = Instant::now();
        self.asked.lock().unwrap().push(Asked { request, at });
        let turn = self.turns.lock().unwrap().pop_front().expect("one more request than expected");
        match turn {
            Turn::Answer(answer) => Ok(answer),
            Turn::Late(pause, answer) => {
                sleep(pause).await;
                Ok(answer)
            }
            Turn::Lost(kind) => Err(TransportError::new(kind, "lost")),
            Turn::Silence => std::future::pending().await,
            Turn::Stream(_) => panic!("it was not asked for a stream"),
        }
    }

    fn streaming(&self) -> Option<&dyn StreamTransport> {
        self.streams.then_some(self)
    }
}

#[async_trait]
impl StreamTransport for Script {
    async fn open(&self, request: Request<Bytes>) -> Result<Opened, TransportError> {
        let is_stream = matches!(self.turns.lock().unwrap().front(), Some(Turn::Stream(_)));
        if !is_stream {
            return self.send(request).await.map(Opened::Whole);
        }
        let at = Instant::now();
        self.asked.lock().unwrap().push(Asked { request, at });
        let Some(Turn::Stream(told)) = self.turns.lock().unwrap().pop_front() else { panic!() };
        let pieces = stream::iter(told).then(async |(pause, piece)| {
            sleep(pause).await;
            piece.map(Bytes::from).map_err(|kind| TransportError::new(kind, "broken"))
        });
        Ok(Opened::Stream(Response::new(pieces.boxed())))
    }
}

impl Script {
    pub(crate) fn new(turns: impl IntoIterator<Item = Turn>) -> (Self, Client) {
        Self::with(turns, false)
    }

    /// Of a server that has event streams.
    pub(crate) fn streaming(turns: impl IntoIterator<Item = Turn>) -> (Self, Client) {
        Self::with(turns, true)
    }

    fn with(turns: impl IntoIterator<Item = Turn>, streams: bool) -> (Self, Client) {
        let script = Self {
            streams,
            turns: Arc::new(Mutex::new(turns.into_iter().collect())),
            asked: Arc::default(),
        };
        (script.clone(), Client::with(script))
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        assert!(self.turns.lock().unwrap().is_empty(), "fewer requests than expected");
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

pub(crate) fn say(status: u16, fields: &[(&str, &str)], body: &'static str) -> Turn {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    Turn::Answer(response.body(Bytes::from_static(body.as_bytes())).unwrap())
}

pub(crate) fn document(retry_after: &str, body: &'static str) -> Turn {
    let fields =
        [("content-type", "application/json"), ("retry-after", retry_after), ("etag", "\"1\"")];
    say(200, &fields, body)
}

pub(crate) fn accepted() -> Turn {
    say(202, &[("location", "/o/1"), ("retry-after", "2")], "")
}

pub(crate) fn post() -> Request<Bytes> {
    Request::post("http://api.example/images")
        .header("authorization", "Bearer x")
        .header("content-type", "image/png")
        .header("prefer", "return=minimal")
        .body(Bytes::from_static(b"a picture"))
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_whole_conversation() {
    let (script, client) = Script::new([
        accepted(),
        document("3", r#"{"status":"running","progress":{"fraction":0.5,"message":"half"}}"#),
        document("3", r#"{"status":"running","progress":{"fraction":0.5,"message":"half"}}"#),
        document("3", r#"{"status":"succeeded","result":{"href":"/o/1/result"}}"#),
        say(201, &[("location", "/images/17")], r#"{"id":17}"#),
    ]);
    let wait = Duration::from_millis(1_500);
    let answer = client.send(post()).respond_async().wait(wait).await.unwrap();
    let Answer::Accepted(mut poller) = answer else { panic!("{answer:?}") };
    assert_eq!(poller.monitor(), "http://api.example/o/1");

    let Some(Ok(Update::Progress(snapshot))) = poller.next().await else { panic!() };
    assert_eq!(snapshot.progress(), Some(&Progress::new(0.5, "half")));
    let Some(Ok(Update::Progress(snapshot))) = poller.next().await else { panic!() };
    assert_eq!(snapshot.status(), Status::Succeeded);
    let Some(Ok(Update::Finished(finished))) = poller.next().await else { panic!() };
    assert_eq!(finished.json::<serde_json::Value>().unwrap()["id"], 17);
    assert!(poller.next().await.is_none());

    let asked = script.asked();
    let first = &asked[0].request;
    let prefer: Vec<_> = first.headers().get_all("prefer").iter().collect();
    assert_eq!(prefer, ["respond-async, wait=2", "return=minimal"]);
    assert_eq!(first.headers()["idempotency-key"].len(), 38);
    for (at, poll) in asked[1..4].iter().enumerate() {
        let headers = poll.request.headers();
        assert_eq!(poll.request.method(), Method::GET);
        // The first has nothing to compare with what is there.
        let wait = headers.get("prefer").map(|wait| wait.to_str().unwrap());
        assert_eq!(wait, (at > 0).then_some("wait=20"));
        assert_eq!(headers["authorization"], "Bearer x");
        assert!(!headers.contains_key("idempotency-key") && !headers.contains_key("content-type"));
    }
    assert!(!asked[4].request.headers().contains_key("prefer"));
    // As long as the server asked for, or a little longer; the result at once.
    for (pair, least, most) in [(0, 2_000, 2_200), (1, 3_000, 3_300), (2, 3_000, 3_300), (3, 0, 0)]
    {
        let pause = (asked[pair + 1].at - asked[pair].at).as_millis();
        assert!((least..=most).contains(&pause), "{pair}: {pause}");
    }
}

#[tokio::test(start_paused = true)]
async fn servers_without_preferences_are_answered_from() {
    for status in [200, 201, 204, 404, 422] {
        let (_, client) = Script::new([say(status, &[], "plain")]);
        let answer = client.send(post()).respond_async().await.unwrap();
        assert!(matches!(answer, Answer::Answered(answer) if answer.status() == status));
    }
    let (_, client) = Script::new([say(422, &[], "")]);
    let finished = client.send(post()).respond_async().finished().await.unwrap();
    assert!(matches!(finished, Finished::Failed(problem, Some(_)) if problem.status() == 422));
}

#[tokio::test(start_paused = true)]
async fn an_endless_202_ends_with_the_clients_time() {
    let (_, client) = Script::new((0..100).map(|_| accepted()));
    let time = Duration::from_secs(60);
    let sending = client.send(post()).respond_async().deadline(time);
    let began = Instant::now();
    let error = sending.finished().await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::DeadlinePassed);
    assert_eq!(began.elapsed().as_secs(), 60);
    assert!(error.is_retryable());

    // A server that says nothing at all.
    for before in [0, 1] {
        let turns = (0..before).map(|_| accepted()).chain([Turn::Silence]);
        let (_, client) = Script::new(turns);
        let began = Instant::now();
        let sending = client.send(post()).respond_async().deadline(time);
        let error = sending.finished().await.unwrap_err();
        assert_eq!(error.kind(), ClientErrorKind::DeadlinePassed);
        assert_eq!(began.elapsed().as_secs(), 60);
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_errors_is_ridden_out() {
    let storm = (0..15).map(|turn| match turn % 3 {
        0 => say(503, &[], "<html>"),
        1 => Turn::Lost(TransportErrorKind::Ambiguous),
        _ => document("1", r#"{"status":"runn"#),
    });
    let end = document("1", r#"{"status":"failed","error":{"title":"No image"}}"#);
    let (script, client) = Script::new([accepted()].into_iter().chain(storm).chain([end]));
    let finished = client.send(post()).respond_async().finished().await.unwrap();
    assert!(
        matches!(finished, Finished::Failed(problem, _) if problem.title() == Some("No image"))
    );
    let asked = script.asked();
    let longest = asked.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap();
    assert!(longest > Duration::from_secs(15), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn credentials_stay_at_home() {
    for fields in [
        [("location", "https://evil.example/o/1"), ("x", "")],
        [("location", "/o/1"), ("link", "<//evil.example/o>; rel=monitor")],
    ] {
        let (script, client) = Script::new([say(202, &fields, "")]);
        let error = client.send(post()).respond_async().await.unwrap_err();
        assert_eq!(error.kind(), ClientErrorKind::ForeignOrigin);
        assert!(error.url().unwrap().contains("evil.example"));
        assert_eq!(script.asked().len(), 1);
    }
    // Unless that is allowed.
    let elsewhere = [("location", "http://jobs.example/o/1")];
    let done = document("1", r#"{"status":"canceled"}"#);
    let (script, client) = Script::new([say(202, &elsewhere, ""), done]);
    let client = client.allow_origin(&"http://jobs.example".parse().unwrap()).unwrap();
    client.send(post()).respond_async().finished().await.unwrap();
    let asked = script.asked();
    assert_eq!(asked[1].request.uri(), "http://jobs.example/o/1");
    assert_eq!(asked[1].request.headers()["authorization"], "Bearer x");
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_taken_up_tomorrow() {
    let (_, client) = Script::new([
        accepted(),
        document("1", r#"{"status":"running","progress":{"fraction":0.5}}"#),
    ]);
    let Answer::Accepted(mut poller) = client.send(post()).respond_async().await.unwrap() else {
        panic!()
    };
    poller.next().await.unwrap().unwrap();
    let kept = serde_json::to_string(&poller.state()).unwrap();
    assert!(!kept.contains("Bearer"));

    let state: PollerState = serde_json::from_str(&kept).unwrap();
    assert_eq!(state.monitor(), "http://api.example/o/1");
    assert_eq!(state.snapshot().status(), Status::Running);
    let (script, client) = Script::new([document("1", r#"{"status":"canceled"}"#)]);
    let headers =
        HeaderMap::from_iter([("authorization".parse().unwrap(), "Bearer y".parse().unwrap())]);
    assert_eq!(client.resume(state, headers).await.unwrap(), Finished::Canceled);
    assert_eq!(script.asked()[0].request.headers()["authorization"], "Bearer y");
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_half_way_goes_on() {
    let late = |turn| match turn {
        Turn::Answer(answer) => Turn::Late(Duration::from_secs(8), answer),
        _ => panic!(),
    };
    let done = r#"{"status":"succeeded","result":{"href":"/o/1/result"}}"#;
    for streams in [false, true] {
        let turns = [accepted(), late(document("1", done)), late(say(201, &[], "made"))];
        let (script, client) = Script::with(turns, streams);
        let answer = client.send(post()).respond_async().await.unwrap();
        let Answer::Accepted(mut poller) = answer else { panic!() };
        let (began, mut ends) = (Instant::now(), None);
        // In its pause, in its poll, and in its fetching of the result.
        while !matches!(ends, Some(Ok(Update::Finished(_)))) {
            tokio::select! {
                update = poller.next() => ends = update,
                () = sleep(Duration::from_millis(900)) => {}
            }
        }
        let took = began.elapsed().as_secs();
        assert!((18..19).contains(&took), "{took}");
        assert_eq!(script.asked().len(), 3);
    }
    // A held poll is not waited for by whoever has canceled.
    let turns = [
        accepted(),
        document("2", r#"{"status":"running"}"#),
        Turn::Silence,
        say(202, &[], ""),
        document("1", r#"{"status":"canceled"}"#),
    ];
    let (script, client) = Script::new(turns);
    let Answer::Accepted(mut poller) = client.send(post()).respond_async().await.unwrap() else {
        panic!()
    };
    tokio::select! {
        _ = poller.next() => panic!(),
        () = sleep(Duration::from_secs(10)) => {}
    }
    poller.cancel().await.unwrap();
    assert_eq!(poller.await.unwrap(), Finished::Canceled);
    assert_eq!(script.asked().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_server_is_asked_to_hold_no_poll_where_the_policy_has_no_wait() {
    let running = || document("1", r#"{"status":"running"}"#);
    let (script, client) =
        Script::new([accepted(), running(), document("1", r#"{"status":"canceled"}"#)]);
    let client = client.poll_policy(PollPolicy::new().with_wait(Duration::ZERO));
    client.send(post()).respond_async().finished().await.unwrap();
    assert!(script.asked()[1..].iter().all(|it| !it.request.headers().contains_key("prefer")));
}

/// Whoever goes on after an error asks no more often than before.
#[tokio::test(start_paused = true)]
async fn after_an_error_there_is_a_pause_and_after_the_deadline_nothing() {
    let broken = || say(503, &[], "");
    let (script, client) = Script::new([
        accepted(),
        broken(),
        broken(),
        broken(),
        say(503, &[("retry-after", "40")], ""),
        document("1", r#"{"status":"canceled"}"#),
    ]);
    let client = client.poll_policy(PollPolicy::new().with_failure_limit(2));
    let Answer::Accepted(mut poller) = client.send(post()).respond_async().await.unwrap() else {
        panic!()
    };
    for _ in 0..2 {
        let error = poller.next().await.unwrap().unwrap_err();
        assert!(error.kind() == ClientErrorKind::PollFailed && error.is_retryable());
    }
    let end = poller.next().await.unwrap().unwrap();
    assert_eq!(end, Update::Finished(Finished::Canceled));
    assert!(poller.next().await.is_none());
    let asked = script.asked();
    assert!(asked.windows(2).all(|pair| (pair[1].at - pair[0].at).as_millis() >= 500));
    assert!((asked[5].at - asked[4].at).as_secs() >= 40);

    let (_, client) = Script::new([accepted(), Turn::Silence]);
    let sending = client.send(post()).respond_async().deadline(Duration::from_secs(9));
    let Answer::Accepted(mut poller) = sending.await.unwrap() else { panic!() };
    let error = poller.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::DeadlinePassed);
    assert!(poller.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_monitor_is_followed_by_its_url_alone() {
    let (script, client) = Script::new([
        document("1", r#"{"status":"succeeded","result":{"href":"/o/1/result"}}"#),
        say(201, &[], "made"),
    ]);
    let headers =
        HeaderMap::from_iter([("authorization".parse().unwrap(), "Bearer y".parse().unwrap())]);
    let monitor = "http://api.example/o/1".parse().unwrap();
    let poller = client.follow(&monitor, headers.clone()).unwrap();
    let Finished::Succeeded(outcome) = poller.await.unwrap() else { panic!() };
    assert_eq!(outcome.body, "made");
    let asked = script.asked();
    assert_eq!(asked[0].request.uri(), &monitor);
    assert!(asked.iter().all(|one| one.request.headers()["authorization"] == "Bearer y"));
    for monitor in ["/o/1", "http://ann:word@api.example/o/1"] {
        let error = client.follow(&monitor.parse().unwrap(), headers.clone()).unwrap_err();
        assert_eq!(error.kind(), ClientErrorKind::InvalidRequest, "{monitor}");
    }
}
