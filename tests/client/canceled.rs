//! Cancellation: of what is at work, and of nothing that has ended meanwhile.

use std::time::Duration;

use http::Method;
use respond_async::client::{
    Answer, Client, ClientErrorKind, Finished, Poller, TransportErrorKind, Update,
};
use tokio::time::Instant;

use crate::scripted::{Script, Turn, accepted, document, post, say};

const RUNNING: &str = r#"{"status":"running"}"#;
const HALF: &str = r#"{"status":"running","progress":{"fraction":0.5}}"#;
const JSON: (&str, &str) = ("content-type", "application/json");

fn is_send<T: Send>(future: T) -> T {
    future
}

async fn begin(client: &Client) -> Poller {
    let sending = client.send(post()).respond_async().deadline(Duration::from_secs(60));
    let Answer::Accepted(poller) = sending.await.unwrap() else { panic!() };
    poller
}

fn tagged(tag: &'static str, body: &'static str) -> Turn {
    say(200, &[JSON, ("etag", tag)], body)
}

/// Method, and the tag that it is bound to.
fn seen(script: &Script) -> Vec<(Method, Option<String>)> {
    let tag = |headers: &http::HeaderMap| {
        headers.get("if-match").map(|tag| tag.to_str().unwrap().to_owned())
    };
    let asked = script.asked();
    asked.iter().map(|it| (it.request.method().clone(), tag(it.request.headers()))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_is_asked_for_and_seen() {
    let (script, client) = Script::new([
        accepted(),
        tagged("\"2\"", RUNNING),
        say(202, &[], ""),
        document("1", r#"{"status":"canceled"}"#),
    ]);
    let mut poller = begin(&client).await;
    // On any thread.
    is_send(poller.cancel()).await.unwrap();
    assert_eq!(poller.await.unwrap(), Finished::Canceled);
    let asked = script.asked();
    assert_eq!(asked[2].request.method(), Method::DELETE);
    // Bound to what was seen, and by fields of its own.
    assert_eq!(asked[2].request.headers()["if-match"], "\"2\"");
    assert!(!asked[1].request.headers().contains_key("prefer"));
    assert_eq!(asked[2].request.headers()["authorization"], "Bearer x");
    assert_eq!(asked[3].at, asked[2].at);
}

/// Servers forget what has ended and is deleted.
#[tokio::test(start_paused = true)]
async fn a_result_that_came_meanwhile_is_not_lost() {
    let succeeded = r#"{"status":"succeeded","result":{"href":"/o/1/result"}}"#;
    let end = || [tagged("\"3\"", succeeded), say(201, &[], "made")];
    // The tag is that of the last poll.
    let turns = [accepted(), tagged("\"2\"", HALF), say(412, &[], ""), tagged("\"3\"", succeeded)];
    let (script, client) = Script::new(turns.into_iter().chain(end()));
    let mut poller = begin(&client).await;
    let Some(Ok(Update::Progress(_))) = poller.next().await else { panic!() };
    poller.cancel().await.unwrap();
    let Finished::Succeeded(outcome) = poller.await.unwrap() else { panic!() };
    assert_eq!(outcome.body, "made");
    let tag = |tag: &str| Some(tag.to_owned());
    assert_eq!(seen(&script)[2], (Method::DELETE, tag("\"2\"")));

    // It had ended before.
    let (script, client) =
        Script::new([accepted(), tagged("\"3\"", succeeded)].into_iter().chain(end()));
    let mut poller = begin(&client).await;
    poller.cancel().await.unwrap();
    assert!(matches!(poller.await.unwrap(), Finished::Succeeded(_)));
    assert!(seen(&script).iter().all(|(method, _)| method != Method::DELETE));
}

#[tokio::test(start_paused = true)]
async fn what_changes_and_goes_on_is_canceled_by_its_new_tag() {
    let (script, client) = Script::new([
        accepted(),
        tagged("\"2\"", RUNNING),
        say(412, &[], ""),
        tagged("\"3\"", RUNNING),
        say(202, &[], ""),
    ]);
    begin(&client).await.cancel().await.unwrap();
    assert_eq!(seen(&script)[4], (Method::DELETE, Some("\"3\"".to_owned())));
    // However often it reports, if one request comes in time.
    let changing = |times| (0..times).flat_map(|_| [tagged("\"2\"", RUNNING), say(412, &[], "")]);
    let turns = [accepted()].into_iter().chain(changing(20));
    let (script, client) = Script::new(turns.chain([tagged("\"3\"", RUNNING), say(202, &[], "")]));
    begin(&client).await.cancel().await.unwrap();
    assert_eq!(seen(&script).last().unwrap().1.as_deref(), Some("\"3\""));
    // But not for ever.
    let (_, client) = Script::new([accepted()].into_iter().chain(changing(2_000)));
    let mut poller = begin(&client).await;
    let began = Instant::now();
    let error = poller.cancel().await.unwrap_err();
    assert!(error.kind() == ClientErrorKind::PollFailed && error.is_retryable());
    assert!((30..32).contains(&began.elapsed().as_secs()));
    // A server without tags is asked without.
    let (script, client) = Script::new([accepted(), say(202, &[], ""), say(204, &[], "")]);
    begin(&client).await.cancel().await.unwrap();
    assert_eq!(seen(&script)[2], (Method::DELETE, None));
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_has_moved_is_canceled_where_it_is() {
    let led = |status, to| say(status, &[("location", to)], "");
    for status in [301, 307, 308] {
        // The whole monitor, or the reading of it alone.
        for (deletion, last) in [(Some(led(status, "/moved")), "/moved"), (None, "/o/1")] {
            let turns = [accepted(), led(status, "/moved"), tagged("\"2\"", RUNNING)];
            let turns = turns.into_iter().chain(deletion).chain([say(202, &[], "")]);
            let (script, client) = Script::new(turns);
            begin(&client).await.cancel().await.unwrap();
            let asked = script.asked();
            let deletion = &asked.last().unwrap().request;
            assert_eq!((deletion.method(), deletion.uri().path()), (&Method::DELETE, last));
            assert_eq!(deletion.headers()["if-match"], "\"2\"");
        }
    }
    // By 302 it is deleted where it was seen: an outcome may be there as well.
    let found = || led(302, "/moved");
    let look = || [found(), tagged("\"2\"", RUNNING), say(202, &[], "")];
    let (script, client) = Script::new([accepted()].into_iter().chain(look()));
    begin(&client).await.cancel().await.unwrap();
    let asked = script.asked();
    let deletion = &asked.last().unwrap().request;
    assert_eq!((deletion.method(), deletion.uri().path()), (&Method::DELETE, "/moved"));
    assert_eq!(deletion.headers()["if-match"], "\"2\"");
    // A tag is known already.
    let turns = [accepted(), tagged("\"2\"", HALF), found()];
    let (script, client) = Script::new(turns.into_iter().chain(look()));
    let mut poller = begin(&client).await;
    poller.next().await.unwrap().unwrap();
    poller.cancel().await.unwrap();
    assert_eq!(script.asked().last().unwrap().request.uri().path(), "/moved");
    let turns = [accepted(), tagged("\"2\"", HALF), found(), found(), say(200, &[], "made")];
    let (script, client) = Script::new(turns);
    let mut poller = begin(&client).await;
    poller.next().await.unwrap().unwrap();
    poller.cancel().await.unwrap();
    assert!(
        script.asked().iter().all(|it| {
            it.request.method() != Method::DELETE || it.request.uri().path() == "/o/1"
        })
    );
    // What has ended is left as it is there too.
    let succeeded = r#"{"status":"succeeded","result":{"href":"/o/1/result"}}"#;
    let (script, client) =
        Script::new([accepted(), led(307, "/moved"), tagged("\"3\"", succeeded)]);
    begin(&client).await.cancel().await.unwrap();
    assert!(seen(&script).iter().all(|(method, _)| method != Method::DELETE));
    // Not abroad, not for ever, and not without having seen anything.
    for (turns, kind) in [
        (vec![led(307, "http://evil.example/o/1")], ClientErrorKind::ForeignOrigin),
        ((0..6).map(|_| led(307, "/o/1")).collect(), ClientErrorKind::TooManyRedirects),
        (vec![say(307, &[], "")], ClientErrorKind::Refused),
    ] {
        let (script, client) = Script::new([accepted()].into_iter().chain(turns));
        let error = begin(&client).await.cancel().await.unwrap_err();
        assert!(error.kind() == kind && error.url().is_some(), "{error}");
        assert!(seen(&script).iter().all(|(method, _)| method != Method::DELETE));
    }
}

#[tokio::test(start_paused = true)]
async fn why_there_is_no_cancellation_is_told() {
    let problem = r#"{"title":"Not now"}"#;
    for (status, kind, is_retryable) in [
        (404, ClientErrorKind::Gone, false),
        (405, ClientErrorKind::Refused, false),
        (429, ClientErrorKind::PollFailed, true),
        (503, ClientErrorKind::PollFailed, true),
    ] {
        let fields = [("content-type", "application/problem+json")];
        let refused = say(status, &fields, problem);
        let (_, client) = Script::new([accepted(), tagged("\"2\"", RUNNING), refused]);
        let error = begin(&client).await.cancel().await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (kind, is_retryable), "{status}");
        assert_eq!(error.url(), Some("http://api.example/o/1"));
        assert_eq!(error.problem().and_then(|it| it.title()), Some("Not now"));
    }
    let (_, client) = Script::new([accepted(), Turn::Lost(TransportErrorKind::NotSent)]);
    let error = begin(&client).await.cancel().await.unwrap_err();
    assert!(error.kind() == ClientErrorKind::Transport && error.url().is_some());
    // Its time is the poller's.
    let (_, client) = Script::new([accepted(), tagged("\"2\"", RUNNING), Turn::Silence]);
    let began = Instant::now();
    let error = begin(&client).await.cancel().await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::DeadlinePassed);
    assert_eq!(began.elapsed().as_secs(), 60);
}
