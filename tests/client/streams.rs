//! Event streams that break off, fall silent, or are none, on paused time.

use std::time::Duration;

use respond_async::client::{
    Answer, Client, ClientErrorKind, Finished, PollPolicy, Poller, TransportErrorKind, Update,
};
use tokio::time::{Instant, sleep};

use crate::scripted::{Script, Turn, accepted, document, post, say};

const QUARTER: &str =
    "event: operation\nid: 2\ndata: {\"status\":\"running\",\"progress\":{\"fraction\":0.25}}\n\n";
const HALF: &str =
    "event: operation\nid: 3\ndata: {\"status\":\"running\",\"progress\":{\"fraction\":0.5}}\n\n";
const DONE: &str = "event: operation\nid: 4\ndata: {\"status\":\"succeeded\",\"result\":{\"href\":\"/o/1/result\"}}\n\n";
const BEAT: &str = ":\n\n";

fn stream<const N: usize>(told: [(u64, &'static str); N]) -> Turn {
    Turn::Stream(told.map(|(seconds, text)| (Duration::from_secs(seconds), Ok(text))).into())
}

fn breaking(told: &'static str) -> Turn {
    let lost = Err(TransportErrorKind::Ambiguous);
    Turn::Stream(vec![(Duration::ZERO, Ok(told)), (Duration::ZERO, lost)])
}

/// Which beats for half a minute, and then is cut off.
fn cut() -> Turn {
    let lost = Err(TransportErrorKind::Ambiguous);
    Turn::Stream(vec![(Duration::from_secs(5), Ok(BEAT)), (Duration::from_secs(25), lost)])
}

fn result() -> Turn {
    say(201, &[], "17")
}

async fn follow(client: &Client) -> Poller {
    let answer = client.send(post()).respond_async().await.unwrap();
    let Answer::Accepted(poller) = answer else { panic!("{answer:?}") };
    poller
}

/// How often it is news, and what the end is.
async fn watch(client: &Client) -> (usize, Finished) {
    let mut poller = follow(client).await;
    let mut news = 0;
    while let Some(update) = poller.next().await {
        match update.unwrap() {
            Update::Progress(_) => news += 1,
            Update::Finished(finished) => return (news, finished),
        }
    }
    panic!("it did not end")
}

/// Which events each request said that it had seen; `-` for one that asks for no stream.
fn seen(script: &Script) -> Vec<String> {
    let asked = script.asked();
    let seen = asked[1..].iter().map(|one| {
        let headers = one.request.headers();
        assert_eq!(headers["authorization"], "Bearer x");
        let accepts = headers
            .get("accept")
            .is_some_and(|accept| accept.to_str().unwrap().starts_with("text/event-stream,"));
        let id = headers.get("last-event-id").map_or("", |id| id.to_str().unwrap());
        if accepts { id.to_owned() } else { "-".to_owned() }
    });
    seen.collect()
}

#[tokio::test(start_paused = true)]
async fn changes_are_told_when_they_come() {
    let told = [(0, QUARTER), (7, BEAT), (7, HALF), (0, BEAT), (0, HALF), (40, DONE)];
    let (script, client) = Script::streaming([accepted(), stream(told), result()]);
    let began = Instant::now();
    let (news, finished) = watch(&client).await;
    assert_eq!((news, finished.json::<u32>().unwrap()), (3, 17));
    let took = began.elapsed().as_secs();
    assert!((56..=57).contains(&took), "{took}: the pause that was asked for, and the stream");
    assert_eq!(seen(&script), ["", "-"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_where_it_broke_off() {
    let (script, client) = Script::streaming([
        accepted(),
        breaking(QUARTER),
        Turn::Lost(TransportErrorKind::NotSent),
        say(503, &[("retry-after", "3")], ""),
        stream([(0, HALF), (0, "id: 9\ndata: {\"status\":\"succ")]),
        stream([(0, "retry: 2000\n\n")]),
        stream([(0, DONE)]),
        result(),
    ]);
    assert_eq!(watch(&client).await.0, 3);
    assert_eq!(seen(&script), ["", "2", "2", "2", "3", "3", "-"]);
}

/// Something on the way ends each stream after its time, and nothing is new for a while.
#[tokio::test(start_paused = true)]
async fn streams_that_are_cut_off_again_and_again_are_no_failures() {
    let cuts = (0..25).map(|_| cut());
    let turns = [accepted(), stream([(0, QUARTER)])].into_iter().chain(cuts);
    let (script, client) = Script::streaming(turns.chain([stream([(0, DONE)]), result()]));
    assert_eq!(watch(&client).await.0, 2);
    let asked = script.asked();
    let longest = asked[2..].windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap();
    assert!(longest < Duration::from_secs(33), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_broke_off_is_asked_for_when_the_server_says() {
    let (script, client) = Script::streaming([
        accepted(),
        stream([(0, QUARTER)]),
        breaking("retry: 7000\n\n"),
        stream([(0, DONE)]),
        result(),
    ]);
    watch(&client).await;
    let asked = script.asked();
    assert!((asked[3].at - asked[2].at).as_secs() >= 7);
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_connection_that_is_gone() {
    let (script, client) = Script::streaming([
        accepted(),
        stream([(0, QUARTER), (59, BEAT), (61, DONE)]),
        stream([(9, DONE)]),
        result(),
    ]);
    let began = Instant::now();
    assert_eq!(watch(&client).await.0, 2);
    let took = began.elapsed().as_secs();
    assert!((59 + 60 + 9..59 + 60 + 15).contains(&took), "{took}");
    assert_eq!(seen(&script), ["", "2", "-"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_held_back_is_left() {
    let (script, client) = Script::streaming([
        accepted(),
        stream([(11, QUARTER), (0, DONE)]),
        document("1", r#"{"status":"running"}"#),
        document("1", r#"{"status":"succeeded","result":{"href":"/o/1/result"}}"#),
        result(),
    ]);
    watch(&client).await;
    assert_eq!(seen(&script), ["", "-", "-", "-"]);
    // As one that tells of something else.
    let (script, client) = Script::streaming([
        accepted(),
        stream([(0, "data: hello\n\n"), (0, "event: log\ndata: {\"status\":\"done\"}\n\n")]),
        document("1", r#"{"status":"canceled"}"#),
    ]);
    assert_eq!(watch(&client).await.1, Finished::Canceled);
    assert_eq!(seen(&script), ["", "-"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_streams_is_polled() {
    let (script, client) = Script::streaming([
        accepted(),
        document("1", r#"{"status":"running"}"#),
        document("1", r#"{"status":"canceled"}"#),
    ]);
    watch(&client).await;
    let asked = script.asked();
    assert_eq!(asked[2].request.headers()["prefer"], "wait=20");
    assert_eq!(asked[2].request.headers()["accept"], "application/json, */*;q=0.1");
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_bounds() {
    // Of what is kept of it.
    let large: &str = format!("data: {}", "x".repeat(1 << 20)).leak();
    let canceled = document("1", r#"{"status":"canceled"}"#);
    let (_, client) = Script::streaming([accepted(), stream([(0, large)]), canceled]);
    assert_eq!(watch(&client).await.1, Finished::Canceled);
    // And of the time, however much it talks.
    let talk = (0..1_000).map(|_| (Duration::from_secs(1), Ok(BEAT))).collect();
    let (_, client) = Script::streaming([accepted(), Turn::Stream(talk)]);
    let poller = follow(&client).await.deadline(Duration::from_secs(60));
    let began = Instant::now();
    let error = poller.await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::DeadlinePassed);
    assert_eq!(began.elapsed().as_secs(), 60);
    // A stream that breaks each time is given up.
    let turns = (0..PollPolicy::DEFAULT_FAILURE_LIMIT).map(|_| breaking(BEAT));
    let first = stream([(0, QUARTER)]);
    let (_, client) = Script::streaming([accepted(), first].into_iter().chain(turns));
    let error = follow(&client).await.await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::PollFailed);
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_half_way_loses_nothing() {
    let told = [
        (0, QUARTER),
        (5, "event: operation\nid: 3\nda"),
        (5, "ta: {\"status\":\"canceled\"}\n\n"),
    ];
    let (script, client) = Script::streaming([accepted(), stream(told)]);
    let mut poller = follow(&client).await;
    poller.next().await.unwrap().unwrap();
    let mut ends = None;
    while ends.is_none() {
        tokio::select! {
            update = poller.next() => ends = update,
            () = sleep(Duration::from_millis(900)) => {}
        }
    }
    assert_eq!(ends.unwrap().unwrap(), Update::Finished(Finished::Canceled));
    assert_eq!(seen(&script), [""]);
    // Nor is silence longer than it is.
    let canceled = || document("1", r#"{"status":"canceled"}"#);
    for (told, seconds) in [(vec![(99, DONE)], 10), (vec![(0, QUARTER), (99, DONE)], 60)] {
        let told = told.into_iter().map(|(seconds, text)| (Duration::from_secs(seconds), Ok(text)));
        let (script, client) =
            Script::streaming([accepted(), Turn::Stream(told.collect()), canceled()]);
        let mut poller = follow(&client).await;
        let began = Instant::now();
        let mut ends = None;
        while !matches!(ends, Some(Ok(Update::Finished(_)))) {
            tokio::select! {
                update = poller.next() => ends = update,
                () = sleep(Duration::from_millis(900)) => {}
            }
        }
        let took = began.elapsed().as_secs();
        assert!((seconds + 2..seconds + 6).contains(&took), "{took}");
        assert_eq!(script.asked().len(), 3);
    }
}
