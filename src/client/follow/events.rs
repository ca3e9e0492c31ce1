//! What follows from the events of a monitor that tells of changes by a stream.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use super::{Follow, Origins, PollPolicy, Snapshot, Step, Streams, Style};
use crate::client::error::{ClientError, ClientErrorKind};
use crate::client::events::ServerEvent;
use crate::client::transport::{TransportError, TransportErrorKind};
use crate::time::Timestamp;

/// What events of operations are called: as this crate does, or not at all.
const NAMES: [&str; 3] = ["operation", "message", ""];

impl Follow {
    /// Whether the next request may be answered by a stream.
    pub(in crate::client) fn takes_stream(&self, policy: &PollPolicy) -> bool {
        policy.events
            && self.result.is_none()
            && !self.found
            && self.style != Style::Replay
            && self.streams != Streams::No
    }

    /// The request that might have been answered by a stream was not, whatever its answer is.
    pub(in crate::client) fn no_stream(
        &mut self,
        answer: &Result<Response<Bytes>, TransportError>,
    ) {
        let passes = answer.as_ref().is_ok_and(|answer| answer.status().is_server_error());
        if self.streams == Streams::Unknown && !passes {
            self.streams = Streams::No;
        }
    }

    /// What follows from an event.
    pub(in crate::client) fn heard(
        &mut self,
        event: ServerEvent,
        origins: &Origins,
        policy: &PollPolicy,
        now: Timestamp,
        random: u32,
    ) -> Step {
        let is_operation = NAMES.contains(&&*event.name)
            && matches!(Snapshot::read(&event.data, false), Ok(Some(_)));
        if !is_operation {
            return Step::Listen;
        }
        // The monitor would have answered so.
        let mut answer = Response::new(event.data);
        let json = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(header::CONTENT_TYPE, json);
        (self.streams, self.last_event_id) = (Streams::Yes, event.id);
        self.redirects = 0;
        // The detour holds for as long as the stream.
        let base = self.target().clone();
        let step =
            self.told(answer, &base, origins, policy, now, random).unwrap_or_else(Step::Failed);
        self.unasked = 0;
        match step {
            Step::Again(_) if self.result.is_none() => Step::Listen,
            step => step,
        }
    }

    /// What follows from the end of a stream before that of its operation: it has ended, was cut off, or
    /// has been silent for too long. `retry` is the least pause.
    pub(in crate::client) fn hushed(
        &mut self,
        error: Option<TransportError>,
        has_lasted: bool,
        retry: Option<Duration>,
        policy: &PollPolicy,
        random: u32,
    ) -> Step {
        (self.redirects, self.detour) = (0, None);
        if self.streams == Streams::Unknown {
            // Without an event that was understood: polls are.
            self.streams = Streams::No;
        }
        let asked = retry.map(|pause| policy.asked(pause, random));
        let is_cut = error.as_ref().is_none_or(|it| it.kind() == TransportErrorKind::Ambiguous);
        if has_lasted && is_cut {
            // Something on the way may end each stream after its time.
            (self.failures, self.unasked) = (0, 0);
        } else if let Some(error) = error {
            let failed = ClientError::new(ClientErrorKind::PollFailed).with_source(error);
            let failed = failed.with_status(StatusCode::OK);
            let least = asked.unwrap_or_default();
            return match self.failed(failed, None, policy, random) {
                Step::Again(pause) => Step::Again(pause.max(least)),
                Step::GaveUp(error, pause) => Step::GaveUp(error, pause.max(least)),
                step => step,
            };
        }
        let pause = asked.unwrap_or_else(|| policy.unasked(self.unasked, random));
        self.unasked += 1;
        Step::Again(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{failed, finished, follow, give, now};
    use super::*;
    use crate::client::Finished;
    use crate::operation::{Progress, Status};

    const HALF: &str = r#"{"status":"running","progress":{"fraction":0.5}}"#;

    fn hear(follow: &mut Follow, name: &str, data: &'static str, id: Option<&str>) -> Step {
        let (name, data, id) = (name.to_owned(), data.into(), id.map(str::to_owned));
        let event = ServerEvent { name, data, id };
        follow.heard(event, &Origins::default(), &PollPolicy::new(), now(), 0)
    }

    #[track_caller]
    fn listens(step: &Step) {
        assert!(matches!(step, Step::Listen), "{step:?}");
    }

    fn pause(step: &Step) -> u64 {
        let Step::Again(pause) = step else { panic!("{step:?}") };
        u64::try_from(pause.as_millis()).unwrap()
    }

    fn lost() -> TransportError {
        TransportError::new(TransportErrorKind::Ambiguous, "lost")
    }

    #[test]
    fn an_event_is_what_the_monitor_says() {
        let mut follow = follow();
        listens(&hear(&mut follow, "operation", HALF, Some("2")));
        assert_eq!(follow.snapshot.progress(), Some(&Progress::new(0.5, "")));
        let (_, fields) = follow.request(&PollPolicy::new(), true);
        assert_eq!(
            fields[header::ACCEPT].to_str().unwrap().split(',').next(),
            Some("text/event-stream")
        );
        assert_eq!(fields["last-event-id"], "2");
        let (_, fields) = follow.request(&PollPolicy::new(), false);
        assert!(
            !fields.contains_key("last-event-id")
                && fields[header::ACCEPT] == super::super::DOCUMENT
        );

        let canceled = hear(&mut follow.clone(), "", r#"{"status":"canceled"}"#, None);
        assert_eq!(finished(canceled), Finished::Canceled);
        let error = r#"{"status":"failed","error":{"title":"No image"}}"#;
        let Finished::Failed(problem, _) =
            finished(hear(&mut follow.clone(), "message", error, None))
        else {
            panic!()
        };
        assert_eq!(problem.title(), Some("No image"));

        let done = r#"{"status":"succeeded","result":{"href":"/o/1/result"}}"#;
        assert_eq!(pause(&hear(&mut follow, "operation", done, Some("3"))), 0);
        assert_eq!(follow.snapshot.status(), Status::Succeeded);
        assert!(!follow.takes_stream(&PollPolicy::new()));
        assert_eq!(follow.request(&PollPolicy::new(), false).0.path(), "/o/1/result");
        // Of a stream that is elsewhere for a time, links are relative to that place.
        let mut moved = self::follow();
        give(&mut moved, 307, &[("location", "/there/1")], "");
        listens(&hear(&mut moved, "", HALF, None));
        let done = r#"{"status":"succeeded","result":{"href":"result"}}"#;
        assert_eq!(pause(&hear(&mut moved, "", done, None)), 0);
        assert_eq!(moved.request(&PollPolicy::new(), false).0.path(), "/there/result");
        let done = r#"{"status":"succeeded","result":{"href":"//evil.example/"}}"#;
        failed(hear(&mut self::follow(), "", done, None), ClientErrorKind::ForeignOrigin);
    }

    #[test]
    fn what_is_no_operations_event_says_nothing() {
        let mut follow = follow();
        for (name, data) in [
            ("log", HALF),
            ("operation", "{"),
            ("operation", "half"),
            ("operation", r#"{"status":"shipped"}"#),
            ("", "[]"),
        ] {
            listens(&hear(&mut follow, name, data, Some("9")));
        }
        assert_eq!((follow.last_event_id.as_deref(), follow.streams), (None, Streams::Unknown));
    }

    #[test]
    fn a_stream_that_ends_is_taken_up_again() {
        let policy = PollPolicy::new();
        let mut follow = follow();
        hear(&mut follow, "operation", HALF, Some("2"));
        let second = Some(Duration::from_secs(1));
        assert_eq!(pause(&follow.hushed(None, false, second, &policy, 0)), 1_000);
        let none = Some(Duration::ZERO);
        assert_eq!(pause(&follow.hushed(None, false, none, &policy, 0)), 500);
        let days = Some(Duration::MAX);
        assert_eq!(pause(&follow.hushed(None, false, days, &policy, 0)), 300_000);
        // Without a word, the pause grows until there is news.
        let mut follow = self::follow();
        hear(&mut follow, "operation", HALF, Some("2"));
        for expected in [750, 1_125, 1_687] {
            assert_eq!(pause(&follow.hushed(None, false, None, &policy, 0)), expected);
        }
        hear(&mut follow, "operation", HALF, Some("3"));
        assert_eq!(pause(&follow.hushed(None, false, None, &policy, 0)), 750);
        assert!(follow.takes_stream(&policy));
        // A connection that breaks is a failure, of which there may be so many.
        for _ in 1..PollPolicy::DEFAULT_FAILURE_LIMIT {
            pause(&follow.hushed(Some(lost()), false, None, &policy, 0));
        }
        let mut news = follow.clone();
        hear(&mut news, "operation", HALF, Some("4"));
        pause(&news.hushed(Some(lost()), false, None, &policy, 0));
        // But not of one that has lasted.
        let mut cut = follow.clone();
        for _ in 0..3 {
            assert_eq!(pause(&cut.hushed(Some(lost()), true, None, &policy, 0)), 750);
        }
        assert_eq!(pause(&cut.hushed(Some(lost()), false, None, &policy, 0)), 750);
        let large = Some(TransportError::new(TransportErrorKind::TooLarge, "large"));
        let step = follow.clone().hushed(large, true, None, &policy, 0);
        failed(step, ClientErrorKind::PollFailed);
        failed(follow.hushed(Some(lost()), false, None, &policy, 0), ClientErrorKind::PollFailed);
        // The server's pause is the least.
        for (has_lasted, next) in [(true, 1_000), (false, 1_125)] {
            let mut follow = self::follow();
            let retry = Some(Duration::from_secs(7));
            assert_eq!(pause(&follow.hushed(Some(lost()), has_lasted, retry, &policy, 0)), 7_000);
            assert_eq!(pause(&follow.hushed(Some(lost()), false, second, &policy, 0)), next);
        }
    }

    #[test]
    fn who_has_no_streams_is_polled() {
        let policy = PollPolicy::new();
        assert!(follow().takes_stream(&policy));
        assert!(!follow().takes_stream(&PollPolicy::new().with_events(false)));
        // A stream that tells nothing.
        for error in [None, Some(lost())] {
            let mut follow = follow();
            pause(&follow.hushed(error, false, None, &policy, 0));
            assert!(!follow.takes_stream(&policy));
        }
        // Another answer; but not a server that has its trouble.
        for (status, takes) in [(200, false), (202, false), (404, false), (503, true)] {
            let answer = || Ok(Response::builder().status(status).body(Bytes::new()).unwrap());
            let mut follow = follow();
            follow.no_stream(&answer());
            assert_eq!(follow.takes_stream(&policy), takes, "{status}");
            let mut follow = self::follow();
            hear(&mut follow, "operation", HALF, None);
            follow.no_stream(&answer());
            assert!(follow.takes_stream(&policy), "it had one");
        }
        let mut lost_one = follow();
        lost_one.no_stream(&Err(lost()));
        assert!(!lost_one.takes_stream(&policy));
        // Whose monitor becomes the answer itself.
        let mut replays = follow();
        give(&mut replays, 202, &[], "");
        assert!(!replays.takes_stream(&policy));
    }
}
