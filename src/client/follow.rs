//! One poll after another, without I/O: what to ask, what an answer means, and when to ask again.

mod events;
mod glance;
mod links;

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use url::Url;

pub(super) use self::glance::{Glance, untaken};
pub(super) use self::links::{MAX_REDIRECTS, begins_operation, moved};
use self::links::{monitor_of, redirect};
use super::error::{ClientError, ClientErrorKind};
use super::finished::{ASYNC_RESULT, Finished};
use super::origin::Origins;
use super::policy::PollPolicy;
use super::snapshot::Snapshot;
use super::transport::{MadeUp, TransportError, TransportErrorKind};
use crate::header::read_retry_after;
use crate::operation::{IntoOutcome, Status};
use crate::prefer::{PREFER, PreferField, PreferenceApplied};
use crate::problem::Problem;
use crate::time::Timestamp;

/// What polls accept, without and with a stream.
const DOCUMENT: &str = "application/json, */*;q=0.1";
const EVENTS_OR_DOCUMENT: &str = "text/event-stream, application/json;q=0.9, */*;q=0.1";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// A replica may not have heard of an operation yet that another has just accepted.
const UNKNOWN_AT_FIRST: u32 = 3;

/// What a monitor's answers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Style {
    /// Not known yet.
    Unknown,
    /// 200 with a document of the operation, in every state.
    Document,
    /// 202 while it runs, and then the answer itself, as OData, FHIR and Azure's `Location` have it.
    Replay,
    /// 202 with a document while it runs, and then one of those two.
    Either,
}

impl Style {
    fn may_replay(self) -> bool {
        matches!(self, Self::Replay | Self::Either)
    }

    /// What is known of the answers where a 302 of the monitor leads: that is the monitor itself for this once,
    /// or the outcome.
    fn found(self) -> Self {
        if self == Self::Document { Self::Unknown } else { self }
    }

    /// The document of an operation that a 2xx of the monitor is; none if it is the replayed answer of an
    /// operation that has ended.
    fn document(self, answer: &Response<Bytes>) -> Result<Option<Snapshot>, ClientError> {
        let (headers, surely) = (answer.headers(), self == Self::Document);
        let is_replayed = self == Self::Replay
            || headers.contains_key(ASYNC_RESULT)
            || !(surely || is_json(headers));
        if is_replayed {
            return Ok(None);
        }
        // Whoever says when to come again has not ended, by whatever word. Clients have to bear new ones
        // (https://google.aip.dev/216).
        let goes_on = headers.contains_key(header::RETRY_AFTER);
        match Snapshot::read(answer.body(), surely || goes_on) {
            Ok(Some(snapshot)) => Ok(Some(snapshot)),
            Ok(None) if !surely => Ok(None),
            _ => Err(bad(ClientErrorKind::Unreadable, answer)),
        }
    }
}

/// An operation that is followed. All that another process needs to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Follow {
    pub(super) monitor: Url,
    /// Where the monitor is for the next poll alone, if it was moved for a time.
    #[serde(skip)]
    detour: Option<Url>,
    /// Whether what is there may as well be the outcome (302).
    #[serde(skip)]
    found: bool,
    /// Where the outcome is, once that is known. Another process asks the monitor again, which tells the
    /// error and the status of the outcome too.
    #[serde(skip)]
    result: Option<Url>,
    pub(super) snapshot: Snapshot,
    style: Style,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    /// The id of the last event of its stream that was understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_event_id: Option<String>,
    #[serde(skip)]
    streams: Streams,
    #[serde(skip)]
    error: Option<Problem>,
    #[serde(skip)]
    result_status: Option<u16>,
    /// Polls since the last that was told when to come again; failures since the last that was none.
    #[serde(skip)]
    unasked: u32,
    #[serde(skip)]
    failures: u32,
    #[serde(skip)]
    seen: bool,
    #[serde(skip)]
    redirects: u8,
}

/// Whether a monitor tells of changes by an event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Streams {
    #[default]
    Unknown,
    Yes,
    /// It does not, or something between holds the stream back.
    No,
}

/// What follows from an answer.
#[derive(Debug)]
pub(super) enum Step {
    /// Wait for the next event.
    Listen,
    /// Ask again after that time.
    Again(Duration),
    Finished(Finished),
    /// No other answer is to be had.
    Failed(ClientError),
    /// It was tried often enough; who tries on waits so long first.
    GaveUp(ClientError, Duration),
}

impl Follow {
    /// Follows the operation that a request to that URL has begun.
    pub(super) fn accepted(
        request: &Url,
        accepted: &Response<Bytes>,
        origins: &Origins,
    ) -> Result<Self, ClientError> {
        let headers = accepted.headers();
        let link = monitor_of(headers).ok_or_else(|| {
            ClientError::new(ClientErrorKind::NoMonitor).with_url(request.clone())
        })?;
        let monitor = origins.join(request, &link)?;
        // By RFC 9110 §8.7 the content is the monitor's own where `Content-Location` names that.
        let document = Snapshot::read(accepted.body(), false).ok().flatten();
        let is_the_monitors = accepted.status() == StatusCode::ACCEPTED
            && headers.contains_key(header::CONTENT_LOCATION);
        let style = match document {
            Some(_) if is_the_monitors => Style::Document,
            _ => Style::Unknown,
        };
        let snapshot = document.unwrap_or_else(Snapshot::running);
        Ok(Self { snapshot, style, ..Self::at(monitor) })
    }

    /// Follows an operation of which the monitor alone is known.
    pub(super) fn at(monitor: Url) -> Self {
        Self {
            monitor,
            detour: None,
            found: false,
            result: None,
            snapshot: Snapshot::running(),
            style: Style::Unknown,
            etag: None,
            last_event_id: None,
            streams: Streams::Unknown,
            error: None,
            result_status: None,
            unasked: 0,
            failures: 0,
            seen: false,
            redirects: 0,
        }
    }

    /// What to ask next: where, and the fields besides the client's own. `streams` says that the answer may
    /// be an event stream.
    pub(super) fn request(&self, policy: &PollPolicy, streams: bool) -> (&Url, HeaderMap) {
        let mut headers = HeaderMap::new();
        // As the outcome is asked for, which may be there too.
        if self.result.is_none() && !self.found {
            let accept = if streams { EVENTS_OR_DOCUMENT } else { DOCUMENT };
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            let seen = self.last_event_id.as_ref().filter(|_| streams);
            if let Some(Ok(id)) = seen.map(|id| HeaderValue::from_bytes(id.as_bytes())) {
                headers.insert(LAST_EVENT_ID, id);
            }
            if let Some(Ok(etag)) = self.etag.as_deref().map(HeaderValue::from_str) {
                headers.insert(header::IF_NONE_MATCH, etag);
                // Only for what is newer than what was seen: what changed before the poll would be waited
                // for in vain.
                if !policy.wait.is_zero() {
                    let wait = PreferField::new().wait(policy.wait).to_header_value();
                    headers.extend(wait.map(|wait| (PREFER, wait)));
                }
            }
        }
        (self.target(), headers)
    }

    /// Where the next request goes.
    fn target(&self) -> &Url {
        self.result.as_ref().or(self.detour.as_ref()).unwrap_or(&self.monitor)
    }

    /// What follows from the whole answer to the last [request](Self::request).
    pub(super) fn received(
        &mut self,
        answer: Result<Response<Bytes>, TransportError>,
        origins: &Origins,
        policy: &PollPolicy,
        now: Timestamp,
        random: u32,
    ) -> Step {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error)
                if error.kind() == TransportErrorKind::Ambiguous
                    || error.kind() == TransportErrorKind::NotSent =>
            {
                let failed = ClientError::new(ClientErrorKind::PollFailed).with_source(error);
                return self.failed(failed, None, policy, random);
            }
            Err(error) => {
                let failed = ClientError::new(ClientErrorKind::PollFailed);
                return Step::Failed(failed.with_source(error));
            }
        };
        if answer.extensions().get::<MadeUp>().is_some() {
            // Nobody was asked, so asking again is of no use.
            self.failures = policy.failure_limit - 1;
        }
        // The outcome may be a redirect itself, which is not this client's to follow.
        let is_outcome = self.result.is_some() && self.is_outcome(&answer);
        if let Some(target) = redirect(&answer).filter(|_| !is_outcome) {
            return self.redirected(answer.status(), &target, origins);
        }
        // Links are relative to where they were read (RFC 3986 §5.1.3).
        let base = self.target().clone();
        (self.redirects, self.detour, self.found) = (0, None, false);
        let step = match self.result {
            None => self.polled(answer, &base, origins, policy, now, random),
            Some(_) => self.fetched(answer, policy, now, random),
        };
        step.unwrap_or_else(Step::Failed)
    }

    /// What a monitor answered, there.
    fn polled(
        &mut self,
        answer: Response<Bytes>,
        base: &Url,
        origins: &Origins,
        policy: &PollPolicy,
        now: Timestamp,
        random: u32,
    ) -> Result<Step, ClientError> {
        let status = answer.status();
        let headers = answer.headers();
        match status {
            StatusCode::NOT_MODIFIED => {
                self.failures = 0;
                Ok(Step::Again(self.pause(headers, policy, now, random)))
            }
            StatusCode::ACCEPTED => {
                (self.style, self.seen, self.failures) = (Style::Replay, true, 0);
                if let Ok(Some(snapshot)) = Snapshot::read(answer.body(), false) {
                    self.style = Style::Either;
                    // Whatever it says of itself: it is not finished while it is a 202.
                    let status = Some(snapshot.status()).filter(|status| !status.is_finished());
                    self.snapshot = if status.is_some() { snapshot } else { Snapshot::running() };
                }
                if let Some(moved) = headers.get(header::LOCATION).and_then(|url| url.to_str().ok())
                {
                    self.monitor = origins.join(base, moved)?;
                }
                Ok(Step::Again(self.pause(headers, policy, now, random)))
            }
            status if status.is_success() => self.told(answer, base, origins, policy, now, random),
            StatusCode::NOT_FOUND if !self.seen && self.failures + 1 < UNKNOWN_AT_FIRST => Ok(self
                .failed(bad(ClientErrorKind::Gone, &answer), Some((headers, now)), policy, random)),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(bad(ClientErrorKind::Gone, &answer)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(bad(ClientErrorKind::Refused, &answer))
            }
            status if is_passing(status) => {
                let failed = bad(ClientErrorKind::PollFailed, &answer);
                Ok(self.failed(failed, Some((headers, now)), policy, random))
            }
            // The replayed answer of an operation that failed.
            _ if self.style.may_replay() => Ok(Step::Finished(Finished::failed(None, answer))),
            _ => Err(bad(ClientErrorKind::Refused, &answer)),
        }
    }

    /// What a monitor told with a 2xx, there.
    fn told(
        &mut self,
        answer: Response<Bytes>,
        base: &Url,
        origins: &Origins,
        policy: &PollPolicy,
        now: Timestamp,
        random: u32,
    ) -> Result<Step, ClientError> {
        let mut snapshot = match self.style.document(&answer) {
            Ok(Some(snapshot)) => snapshot,
            Ok(None) => return Ok(Step::Finished(Finished::replayed(answer))),
            Err(failed) => {
                return Ok(self.failed(failed, Some((answer.headers(), now)), policy, random));
            }
        };
        (self.style, self.seen, self.failures) = (Style::Document, true, 0);
        let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
        self.etag = etag.map(str::to_owned);
        if snapshot.status().is_finished() {
            // Whoever asks again wants to hear it again, and not that there is nothing new.
            (self.etag, self.last_event_id) = (None, None);
        }
        let (error, link) = (snapshot.error.take(), snapshot.result.take());
        let location = snapshot.location.take();
        self.result_status = snapshot.result_status.take();
        let status = snapshot.status();
        self.snapshot = snapshot;
        if !status.is_finished() {
            return Ok(Step::Again(self.pause(answer.headers(), policy, now, random)));
        }
        if status == Status::Canceled {
            return Ok(Step::Finished(Finished::Canceled));
        }
        let link = link.or_else(|| location.filter(|_| status == Status::Succeeded));
        let Some(link) = link else {
            return Ok(Step::Finished(match status {
                Status::Succeeded => Finished::Succeeded(answer.into_outcome()),
                _ => Finished::failed(error, answer),
            }));
        };
        self.error = error;
        match origins.join(base, &link) {
            Ok(url) => self.result = Some(url),
            Err(_) if status == Status::Failed => return Ok(self.failed_without_outcome(None)),
            Err(error) => return Err(error),
        }
        Ok(Step::Again(Duration::ZERO))
    }

    /// Whether that is the outcome that the monitor told of: by its status, and where whatever is on the way
    /// may answer with the same, by its problem's type too.
    fn is_outcome(&self, answer: &Response<Bytes>) -> bool {
        let has_its_status = self.result_status == Some(answer.status().as_u16());
        if !has_its_status || answer.extensions().get::<MadeUp>().is_some() {
            return false;
        }
        let may_be_anothers = matches!(answer.status().as_u16(), 502..=504);
        let Some(error) = self.error.as_ref().filter(|_| may_be_anothers) else { return true };
        let problem = answer.clone().into_outcome().problem();
        problem.is_none_or(|problem| problem.type_uri() == error.type_uri())
    }

    /// What was answered where the outcome is.
    fn fetched(
        &mut self,
        answer: Response<Bytes>,
        policy: &PollPolicy,
        now: Timestamp,
        random: u32,
    ) -> Result<Step, ClientError> {
        let status = answer.status();
        // The outcome may be an error itself: then it is the one that the monitor told of.
        if self.is_outcome(&answer) || status.is_success() {
            return Ok(Step::Finished(match self.snapshot.status() {
                Status::Failed => Finished::failed(self.error.take(), answer),
                _ => Finished::Succeeded(answer.into_outcome()),
            }));
        }
        if is_passing(status)
            || (status == StatusCode::NOT_FOUND
                && answer.headers().contains_key(header::RETRY_AFTER))
        {
            let failed = bad(ClientErrorKind::PollFailed, &answer);
            return Ok(self.failed(failed, Some((answer.headers(), now)), policy, random));
        }
        if self.snapshot.status() == Status::Failed {
            return Ok(self.failed_without_outcome(Some(status)));
        }
        Err(bad(
            match status {
                StatusCode::NOT_FOUND | StatusCode::GONE => ClientErrorKind::Gone,
                _ => ClientErrorKind::Refused,
            },
            &answer,
        ))
    }

    /// Why it failed is known; the answer that told it at length is gone, or is not this client's to ask for.
    fn failed_without_outcome(&mut self, answered: Option<StatusCode>) -> Step {
        let status = answered.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let error = self.error.take().unwrap_or_else(|| Problem::from_status(status));
        Step::Finished(Finished::Failed(error, None))
    }

    /// A poll that failed, which says nothing of the operation.
    fn failed(
        &mut self,
        error: ClientError,
        told: Option<(&HeaderMap, Timestamp)>,
        policy: &PollPolicy,
        random: u32,
    ) -> Step {
        let asked = told.and_then(|(headers, now)| read_retry_after(headers, now));
        let pause = match asked {
            Some(pause) => policy.asked(pause, random),
            None => policy.unasked(self.failures, random),
        };
        self.failures += 1;
        if self.failures < policy.failure_limit {
            return Step::Again(pause);
        }
        self.failures = 0;
        Step::GaveUp(error.with_url(self.target().clone()), pause)
    }

    /// How long to wait before the next poll, by what the last says.
    fn pause(
        &mut self,
        headers: &HeaderMap,
        policy: &PollPolicy,
        now: Timestamp,
        random: u32,
    ) -> Duration {
        // It has been waited for on the other side.
        if PreferenceApplied::from_headers(headers).contains("wait") {
            self.unasked = 0;
            return policy.shortest;
        }
        self.first_pause(headers, policy, now, random)
    }

    /// How long to wait before the first poll, by what accepted the operation: that it was held for `wait`
    /// says nothing of the poll.
    pub(super) fn first_pause(
        &mut self,
        headers: &HeaderMap,
        policy: &PollPolicy,
        now: Timestamp,
        random: u32,
    ) -> Duration {
        if let Some(pause) = read_retry_after(headers, now) {
            self.unasked = 0;
            return policy.asked(pause, random);
        }
        let pause = policy.unasked(self.unasked, random);
        self.unasked += 1;
        pause
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("json"))
    })
}

/// Whether the same may be answered otherwise later, whoever sent it.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        )
}

fn bad(kind: ClientErrorKind, answer: &Response<Bytes>) -> ClientError {
    let error = ClientError::new(kind).with_status(answer.status());
    error.with_problem(answer.clone().into_outcome().problem())
}

#[cfg(test)]
mod tests;
