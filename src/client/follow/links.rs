//! Where links lead: to the monitor, and on from it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, Response, StatusCode};
use url::Url;

use super::{Follow, Origins, Step};
use crate::client::error::{ClientError, ClientErrorKind};
use crate::header::Link;
use crate::operation::Status;
use crate::prefer::PreferenceApplied;

/// How often links may lead on before there is an answer.
pub(in crate::client) const MAX_REDIRECTS: u8 = 5;
/// Azure's names of a monitor, which no other answer has.
const AZURE: [&str; 2] = ["operation-location", "azure-asyncoperation"];

impl Follow {
    pub(super) fn redirected(
        &mut self,
        status: StatusCode,
        target: &str,
        origins: &Origins,
    ) -> Step {
        self.redirects += 1;
        if self.redirects > MAX_REDIRECTS {
            let error = ClientError::new(ClientErrorKind::TooManyRedirects).with_status(status);
            return Step::Failed(error.with_url(self.monitor.clone()));
        }
        match origins.join(self.target(), target) {
            Err(_) if self.result.is_some() && self.snapshot.status() == Status::Failed => {
                return self.failed_without_outcome(None);
            }
            Err(error) => return Step::Failed(error.with_status(status)),
            Ok(url) if self.result.is_some() => self.result = Some(url),
            Ok(url) => self.lead_on(status, url),
        }
        Step::Again(Duration::ZERO)
    }

    fn lead_on(&mut self, status: StatusCode, url: Url) {
        match status {
            // The answer is elsewhere (RFC 9110 §15.4.4).
            StatusCode::SEE_OTHER => {
                self.result = Some(url);
                // Another process asks the monitor again, and wants to hear this again.
                (self.etag, self.last_event_id, self.detour) = (None, None, None);
            }
            // For this once (§15.4.3); but many say it in place of 303.
            StatusCode::FOUND => {
                self.style = self.style.found();
                (self.etag, self.last_event_id) = (None, None);
                (self.detour, self.found) = (Some(url), true);
            }
            // For good (§15.4.2, §15.4.9), unless what came before holds for this poll alone.
            StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT
                if self.detour.is_none() =>
            {
                self.monitor = url;
            }
            // For this once (§15.4.8).
            _ => self.detour = Some(url),
        }
    }
}

/// Whether an answer says that the work goes on: 202, or what other standards have in its place.
///
/// - OGC API Processes: 201 with `Preference-Applied: respond-async`.
/// - Azure: 200 or 201 with a field that names the monitor.
pub(in crate::client) fn begins_operation(answer: &Response<Bytes>) -> bool {
    let headers = answer.headers();
    match answer.status() {
        StatusCode::ACCEPTED => true,
        StatusCode::OK | StatusCode::CREATED
            if AZURE.iter().any(|it| headers.contains_key(*it)) =>
        {
            true
        }
        StatusCode::CREATED => PreferenceApplied::from_headers(headers).contains("respond-async"),
        _ => false,
    }
}

/// Where an answer says that the operation is: what RFC 9110 §15.3.3 and §8.7 have a 202 say, what most
/// servers say, and what Azure's say.
pub(super) fn monitor_of(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Link::monitor_in(headers)
        .or_else(|| AZURE.into_iter().find_map(text))
        .or_else(|| text("content-location"))
        .or_else(|| text("location"))
        .map(str::to_owned)
}

pub(super) fn redirect(answer: &Response<Bytes>) -> Option<String> {
    let is_redirect = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = answer.headers().get(header::LOCATION).filter(|_| is_redirect)?;
    location.to_str().ok().map(str::to_owned)
}

/// Where a monitor is that has moved, for good or for this once: the same is asked there, by the same method.
/// By 302 that is where it can be looked at.
pub(in crate::client) fn moved(answer: &Response<Bytes>, method: &Method) -> Option<String> {
    redirect(answer).filter(|_| match answer.status().as_u16() {
        301 | 307 | 308 => true,
        // To delete what is there unseen may be to delete the outcome.
        302 => *method == Method::GET,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{again, failed, finished, follow, give};
    use super::super::{Finished, PollPolicy};
    use super::*;

    const RUNNING: &str = r#"{"status":"running"}"#;

    fn path(follow: &Follow) -> &str {
        follow.request(&PollPolicy::new(), false).0.path()
    }

    #[test]
    fn redirects_are_followed_a_few_times_and_never_abroad() {
        for (status, is_for_good) in [(301, true), (307, false), (308, true)] {
            let mut follow = follow();
            again(give(&mut follow, status, &[("location", "/moved")], ""), 0);
            assert_eq!(path(&follow), "/moved");
            assert!(follow.result.is_none());
            let kept = serde_json::to_string(&follow).unwrap();
            assert_eq!(kept.contains("/moved"), is_for_good, "{kept}");
            give(&mut follow, 200, &[("content-type", "application/json")], RUNNING);
            assert_eq!(path(&follow), if is_for_good { "/moved" } else { "/o/1" });
        }
        // What a temporary place says holds no longer than that place.
        let mut follow = follow();
        give(&mut follow, 307, &[("location", "/moved")], "");
        give(&mut follow, 308, &[("location", "/on")], "");
        assert_eq!((path(&follow), follow.monitor.path()), ("/on", "/o/1"));
        for status in [302, 303] {
            let mut follow = self::follow();
            again(give(&mut follow, status, &[("location", "/images/17")], ""), 0);
            let ended = finished(give(&mut follow, 200, &[], "it"));
            assert!(matches!(ended, Finished::Succeeded(outcome) if outcome.body == "it"));
            let foreign = [("location", "https://bucket.example/x")];
            failed(give(&mut self::follow(), status, &foreign, ""), ClientErrorKind::ForeignOrigin);
        }
        // Its links are relative to it.
        let done = r#"{"status":"succeeded","result":{"href":"result"}}"#;
        let json = [("content-type", "application/json")];
        let relative = [("location", "later")];
        for (status, fields, body, leads_to) in
            [(200, json, done, "/there/result"), (202, relative, "", "/there/later")]
        {
            let mut follow = self::follow();
            give(&mut follow, 307, &[("location", "/there/1")], "");
            give(&mut follow, status, &fields, body);
            assert_eq!(path(&follow), leads_to);
        }
        // Any answer between begins the count anew.
        let mut follow = self::follow();
        for _ in 0..3 * MAX_REDIRECTS {
            again(give(&mut follow, 307, &[("location", "/moved")], ""), 0);
            assert!(matches!(give(&mut follow, 304, &[], ""), Step::Again(_)));
        }
        for _ in 0..MAX_REDIRECTS {
            again(give(&mut follow, 307, &[("location", "/o/1")], ""), 0);
        }
        let step = give(&mut follow, 307, &[("location", "/o/1")], "");
        failed(step, ClientErrorKind::TooManyRedirects);
    }

    /// 302 says that for this once it is elsewhere: the monitor, or, with many servers, the outcome.
    #[test]
    fn what_a_302_leads_to_is_told_by_what_is_there() {
        let json = [("content-type", "application/json")];
        let (found, done) = ([("location", "/there/1")], r#"{"status":"succeeded"}"#);
        for before in ["", RUNNING] {
            let moved = || {
                let mut follow = follow();
                if !before.is_empty() {
                    give(&mut follow, 200, &json, before);
                }
                again(give(&mut follow, 302, &found, ""), 0);
                let (url, fields) = follow.request(&PollPolicy::new(), true);
                assert_eq!((url.path(), fields.len()), ("/there/1", 0));
                follow
            };
            let mut follow = moved();
            for _ in 0..3 {
                let step = give(&mut follow, 200, &json, RUNNING);
                assert!(matches!(step, Step::Again(pause) if !pause.is_zero()), "{step:?}");
                assert_eq!(path(&follow), "/o/1");
                again(give(&mut follow, 302, &found, ""), 0);
            }
            let ended = finished(give(&mut follow, 200, &json, r#"{"status":"failed"}"#));
            assert!(matches!(ended, Finished::Failed(..)), "{ended:?}");
            let step = give(&mut moved(), 202, &[], "");
            assert!(matches!(step, Step::Again(pause) if !pause.is_zero()), "{step:?}");
            // The outcome.
            for (fields, body) in [(&json[..], done), (&json, r#"{"id":17}"#), (&[], "it")] {
                let ended = finished(give(&mut moved(), 200, fields, body));
                assert!(matches!(ended, Finished::Succeeded(outcome) if outcome.body == body));
            }
            // On from there.
            let mut follow = moved();
            again(give(&mut follow, 303, &[("location", "result")], ""), 0);
            assert_eq!(path(&follow), "/there/result");
            let ended = finished(give(&mut follow, 200, &json, RUNNING));
            assert!(matches!(ended, Finished::Succeeded(_)), "{ended:?}");
        }
    }

    #[test]
    fn a_redirect_that_is_the_outcome_is_not_followed() {
        let document = r#"{"status":"succeeded","result":{"status":303,"href":"/o/1/result"}}"#;
        let mut follow = follow();
        give(&mut follow, 200, &[("content-type", "application/json")], document);
        let elsewhere = [("location", "https://cdn.example/x")];
        // What has moved is not the outcome yet.
        again(give(&mut follow, 307, &[("location", "/r")], ""), 0);
        let ended = finished(give(&mut follow, 303, &elsewhere, ""));
        let Finished::Succeeded(outcome) = ended else { panic!("{ended:?}") };
        assert_eq!(outcome.headers["location"], "https://cdn.example/x");
    }

    #[test]
    fn what_goes_on_is_known_by_status_and_fields() {
        let applied = ("preference-applied", "respond-async");
        for (status, fields, begins) in [
            (202, &[][..], true),
            (201, &[("location", "/jobs/1"), applied], true),
            (201, &[("location", "/images/1")], false),
            (201, &[("location", "/images/1"), ("preference-applied", "wait")], false),
            (201, &[("operation-location", "/o/1")], true),
            (200, &[("azure-asyncoperation", "/o/1")], true),
            (200, &[("location", "/o/1"), applied], false),
            (409, &[("operation-location", "/o/1")], false),
        ] {
            let mut answer = Response::builder().status(status);
            for (name, value) in fields {
                answer = answer.header(*name, *value);
            }
            let answer = answer.body(Bytes::new()).unwrap();
            assert_eq!(begins_operation(&answer), begins, "{status} {fields:?}");
        }
    }
}
