//! What a look at the monitor says to whoever is about to cancel: it takes nothing from what is followed.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use url::Url;

use super::{DOCUMENT, Follow, bad, is_passing};
use crate::client::error::{ClientError, ClientErrorKind};

/// How an operation stands.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::client) enum Glance {
    /// It has ended, or is about to.
    Finished,
    /// It is at work. With the tag of what was seen, where the monitor gives one that can be compared.
    Live(Option<HeaderValue>),
}

impl Follow {
    /// The tag of what was seen last of an operation at work.
    pub(in crate::client) fn tag(&self) -> Option<HeaderValue> {
        self.etag.as_deref().and_then(strong)
    }

    /// The fields with which to ask how it stands now, and to cancel it.
    pub(in crate::client) fn plain_fields() -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(DOCUMENT))])
    }

    /// What the answer to a plain GET of the monitor says, which came from there; `found` says that a 302 led
    /// there.
    pub(in crate::client) fn glance(
        &self,
        answer: &Response<Bytes>,
        url: &Url,
        found: bool,
    ) -> Result<Glance, ClientError> {
        let status = answer.status();
        if status == StatusCode::SEE_OTHER {
            return Ok(Glance::Finished);
        }
        if status == StatusCode::ACCEPTED {
            return Ok(Glance::Live(None));
        }
        if !status.is_success() {
            // What leads on shows no state: to delete after it may be to forget what has ended.
            let has_failed = self.style.may_replay()
                && status.is_client_error()
                && !is_passing(status)
                && !matches!(status.as_u16(), 401 | 403 | 404 | 410);
            return if has_failed { Ok(Glance::Finished) } else { Err(untaken(answer, url)) };
        }
        let style = if found { self.style.found() } else { self.style };
        let document = style.document(answer).map_err(|it| it.with_url(url.clone()))?;
        let is_finished = document.is_none_or(|document| document.status().is_finished());
        let tag = answer.headers().get(header::ETAG).and_then(|tag| strong(tag.to_str().ok()?));
        Ok(if is_finished { Glance::Finished } else { Glance::Live(tag) })
    }
}

/// Why a monitor did not take what it was asked for.
pub(in crate::client) fn untaken(answer: &Response<Bytes>, url: &Url) -> ClientError {
    let kind = match answer.status() {
        StatusCode::NOT_FOUND | StatusCode::GONE => ClientErrorKind::Gone,
        // It has changed each time that it was asked.
        StatusCode::PRECONDITION_FAILED => ClientErrorKind::PollFailed,
        status if is_passing(status) => ClientErrorKind::PollFailed,
        _ => ClientErrorKind::Refused,
    };
    bad(kind, answer).with_url(url.clone())
}

/// `If-Match` compares strongly, so a weak tag never matches
/// ([RFC 9110 §13.1.1](https://www.rfc-editor.org/rfc/rfc9110#section-13.1.1)).
fn strong(tag: &str) -> Option<HeaderValue> {
    tag.starts_with('"').then(|| HeaderValue::from_str(tag).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{follow, give, url};
    use super::*;

    #[test]
    fn what_has_ended_is_told_from_what_goes_on() {
        let json = ("content-type", "application/json");
        let tag = || Some(HeaderValue::from_static("\"2\""));
        let live = Glance::Live;
        for (status, fields, body, expected) in [
            (200, &[json, ("etag", "\"2\"")][..], r#"{"status":"running"}"#, live(tag())),
            (200, &[json, ("etag", "W/\"2\"")], r#"{"status":"running"}"#, live(None)),
            (200, &[json], r#"{"status":"running"}"#, live(None)),
            (200, &[json, ("etag", "\"2\"")], r#"{"status":"succeeded"}"#, Glance::Finished),
            (200, &[("content-type", "image/png")], "x", Glance::Finished),
            (200, &[json, ("asyncresult", "200")], r#"{"status":"running"}"#, Glance::Finished),
            (202, &[], "", live(None)),
            (303, &[("location", "/r")], "", Glance::Finished),
        ] {
            let mut answer = Response::builder().status(status);
            for (name, value) in fields {
                answer = answer.header(*name, *value);
            }
            let answer = answer.body(Bytes::from_static(body.as_bytes())).unwrap();
            let glance = follow().glance(&answer, &url(), false).unwrap();
            assert_eq!(glance, expected, "{status} {fields:?} {body}");
        }
        for (status, kind) in [
            (404, ClientErrorKind::Gone),
            (403, ClientErrorKind::Refused),
            (400, ClientErrorKind::Refused),
            (302, ClientErrorKind::Refused),
            (307, ClientErrorKind::Refused),
            (503, ClientErrorKind::PollFailed),
        ] {
            let answer = Response::builder().status(status).body(Bytes::new()).unwrap();
            let error = follow().glance(&answer, &url(), false).unwrap_err();
            assert_eq!((error.kind(), error.url().is_some()), (kind, true), "{status}");
        }
        // The replayed answer of an operation that failed.
        let mut replays = follow();
        give(&mut replays, 202, &[], "");
        let answer = Response::builder().status(400).body(Bytes::new()).unwrap();
        assert_eq!(replays.glance(&answer, &url(), false).unwrap(), Glance::Finished);
        // Of a monitor that has documents, an outcome is none where a 302 leads alone.
        let mut follow = follow();
        give(&mut follow, 200, &[json], r#"{"status":"running"}"#);
        let answer = Response::new(Bytes::from("it"));
        assert_eq!(follow.glance(&answer, &url(), true).unwrap(), Glance::Finished);
        let error = follow.glance(&answer, &url(), false).unwrap_err();
        assert_eq!(error.kind(), ClientErrorKind::Unreadable);
    }
}
