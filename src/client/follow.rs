//! One poll after another, without I/O: what to ask, what an answer means, and when to ask again.

mod events;

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

use super::error::{ClientError, ClientErrorKind};
use super::origin::Origins;
use super::policy::PollPolicy;
use super::snapshot::Snapshot;
use super::transport::{TransportError, TransportErrorKind};
use crate::header::{Link, read_retry_after};
use crate::operation::{IntoOutcome, Outcome, Status};
use crate::prefer::{PREFER, PreferField, PreferenceApplied};
use crate::problem::{Problem, types};
use crate::time::Timestamp;

/// How often links may lead on, for the monitor and for the result.
const MAX_REDIRECTS: u8 = 5;
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
}

/// An operation that is followed. All that another process needs to go on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Follow {
    pub(super) monitor: Url,
    /// Where the outcome is, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// How an operation ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Finished {
    /// It succeeded, and this is the answer that a client that waits would have got.
    Succeeded(Outcome),
    /// It failed: why, and the answer that a client that waits would have got, if the server has it.
    Failed(Problem, Option<Outcome>),
    /// It was canceled.
    Canceled,
}

impl Finished {
    /// What an answer at once amounts to: succeeded below 400.
    pub(super) fn of(answer: Response<Bytes>) -> Self {
        if answer.status().as_u16() < 400 {
            Self::Succeeded(answer.into_outcome())
        } else {
            failed_with(None, answer)
        }
    }

    /// The content of the answer as JSON.
    ///
    /// # Errors
    /// The problem, if the operation failed; one of the type [`CANCELED`](types::CANCELED), if it was
    /// canceled; a 502, if the content is no such JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        match self {
            Self::Succeeded(answer) => serde_json::from_slice(&answer.body).map_err(|error| {
                Problem::from_status(StatusCode::BAD_GATEWAY).detail(error.to_string())
            }),
            Self::Failed(problem, _) => Err(problem.clone()),
            Self::Canceled => Err(Problem::new(types::CANCELED)),
        }
    }
}

/// What follows from an answer.
#[derive(Debug)]
pub(super) enum Step {
    /// Wait for the next event.
    Listen,
    /// Ask again after that time.
    Again(Duration),
    Finished(Finished),
    Failed(ClientError),
}

impl Follow {
    /// Follows the operation of a 202 to a request to that URL.
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
        let (style, snapshot) = match document {
            Some(snapshot) if headers.contains_key(header::CONTENT_LOCATION) => {
                (Style::Document, snapshot)
            }
            snapshot => (Style::Unknown, snapshot.unwrap_or_else(Snapshot::running)),
        };
        Ok(Self {
            monitor,
            result: None,
            snapshot,
            style,
            etag: None,
            last_event_id: None,
            streams: Streams::Unknown,
            error: None,
            result_status: None,
            unasked: 0,
            failures: 0,
            seen: false,
            redirects: 0,
        })
    }

    /// What to ask next: where, and the fields besides the client's own. `streams` says that the answer may
    /// be an event stream.
    pub(super) fn request(&self, policy: &PollPolicy, streams: bool) -> (&Url, HeaderMap) {
        let mut headers = HeaderMap::new();
        let Some(result) = &self.result else {
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
                    headers.extend(wait.map(|wait| (PREFER.clone(), wait)));
                }
            }
            return (&self.monitor, headers);
        };
        (result, headers)
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
        if let Some(target) = redirect(&answer) {
            return self.redirected(answer.status(), &target, origins);
        }
        let step = match self.result {
            None => self.polled(answer, origins, policy, now, random),
            Some(_) => self.fetched(answer, policy, now, random),
        };
        step.unwrap_or_else(Step::Failed)
    }

    /// What a monitor answered.
    fn polled(
        &mut self,
        answer: Response<Bytes>,
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
                    // Whatever it says of itself: it is not finished while it is a 202.
                    let status = Some(snapshot.status()).filter(|status| !status.is_finished());
                    self.snapshot = if status.is_some() { snapshot } else { Snapshot::running() };
                }
                if let Some(moved) = headers.get(header::LOCATION).and_then(|url| url.to_str().ok())
                {
                    self.monitor = origins.join(&self.monitor, moved)?;
                }
                Ok(Step::Again(self.pause(headers, policy, now, random)))
            }
            status if status.is_success() => self.told(answer, origins, policy, now, random),
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
            _ if self.style == Style::Replay => Ok(Step::Finished(failed_with(None, answer))),
            _ => Err(bad(ClientErrorKind::Refused, &answer)),
        }
    }

    /// What a monitor told with a 2xx.
    fn told(
        &mut self,
        answer: Response<Bytes>,
        origins: &Origins,
        policy: &PollPolicy,
        now: Timestamp,
        random: u32,
    ) -> Result<Step, ClientError> {
        let surely = self.style == Style::Document;
        // What is no document of an operation is its replayed answer.
        let is_answer = self.style == Style::Replay || !(surely || is_json(answer.headers()));
        let read = if is_answer { Ok(None) } else { Snapshot::read(answer.body(), surely) };
        let mut snapshot = match read {
            Ok(Some(snapshot)) => snapshot,
            Ok(None) if !surely => {
                return Ok(Step::Finished(Finished::Succeeded(answer.into_outcome())));
            }
            _ => {
                let failed = bad(ClientErrorKind::Unreadable, &answer);
                return Ok(self.failed(failed, Some((answer.headers(), now)), policy, random));
            }
        };
        (self.style, self.seen, self.failures) = (Style::Document, true, 0);
        let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
        self.etag = etag.map(str::to_owned);
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
                _ => failed_with(error, answer),
            }));
        };
        self.error = error;
        self.result = Some(origins.join(&self.monitor, &link)?);
        Ok(Step::Again(Duration::ZERO))
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
        if self.result_status == Some(status.as_u16()) || status.is_success() {
            return Ok(Step::Finished(match self.snapshot.status() {
                Status::Failed => failed_with(self.error.take(), answer),
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
            // Why it failed is known; the answer that told it at length is gone.
            let error = self.error.take().unwrap_or_else(|| Problem::from_status(status));
            return Ok(Step::Finished(Finished::Failed(error, None)));
        }
        Err(bad(
            match status {
                StatusCode::NOT_FOUND | StatusCode::GONE => ClientErrorKind::Gone,
                _ => ClientErrorKind::Refused,
            },
            &answer,
        ))
    }

    fn redirected(&mut self, status: StatusCode, target: &str, origins: &Origins) -> Step {
        self.redirects += 1;
        if self.redirects > MAX_REDIRECTS {
            let error = ClientError::new(ClientErrorKind::TooManyRedirects).with_status(status);
            return Step::Failed(error.with_url(self.monitor.clone()));
        }
        let base = self.result.as_ref().unwrap_or(&self.monitor);
        match origins.join(base, target) {
            Err(error) => return Step::Failed(error.with_status(status)),
            // The answer is elsewhere (RFC 9110 §15.4.4), or what was asked for is.
            Ok(url) => match status {
                StatusCode::FOUND | StatusCode::SEE_OTHER => self.result = Some(url),
                _ if self.result.is_some() => self.result = Some(url),
                _ => self.monitor = url,
            },
        }
        Step::Again(Duration::ZERO)
    }

    /// A poll that failed, which says nothing of the operation.
    fn failed(
        &mut self,
        error: ClientError,
        told: Option<(&HeaderMap, Timestamp)>,
        policy: &PollPolicy,
        random: u32,
    ) -> Step {
        self.failures += 1;
        if self.failures >= policy.failure_limit {
            let url = self.result.as_ref().unwrap_or(&self.monitor);
            return Step::Failed(error.with_url(url.clone()));
        }
        let asked = told.and_then(|(headers, now)| read_retry_after(headers, now));
        Step::Again(match asked {
            Some(pause) => policy.asked(pause, random),
            None => policy.unasked(self.failures - 1, random),
        })
    }

    /// How long to wait before the next poll, by what the last answer says.
    pub(super) fn pause(
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
        if let Some(pause) = read_retry_after(headers, now) {
            self.unasked = 0;
            return policy.asked(pause, random);
        }
        let pause = policy.unasked(self.unasked, random);
        self.unasked += 1;
        pause
    }
}

/// Where a 202 says that the operation is: what RFC 9110 §15.3.3 and §8.7 have it say, what most
/// servers say, and what Azure's say.
fn monitor_of(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Link::monitor_in(headers)
        .or_else(|| text("operation-location"))
        .or_else(|| text("azure-asyncoperation"))
        .or_else(|| text("content-location"))
        .or_else(|| text("location"))
        .map(str::to_owned)
}

fn redirect(answer: &Response<Bytes>) -> Option<String> {
    let is_redirect = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = answer.headers().get(header::LOCATION).filter(|_| is_redirect)?;
    location.to_str().ok().map(str::to_owned)
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

fn failed_with(error: Option<Problem>, answer: Response<Bytes>) -> Finished {
    let outcome = answer.into_outcome();
    let error = error.or_else(|| outcome.problem());
    let error = error.unwrap_or_else(|| Problem::from_status(StatusCode::INTERNAL_SERVER_ERROR));
    Finished::Failed(error, Some(outcome))
}

#[cfg(test)]
mod tests;
