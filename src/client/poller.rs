mod cancel;

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::error::{ClientError, ClientErrorKind};
use super::finished::Finished;
use super::follow::{Follow, Step};
use super::listen::Listening;
use super::shared::{Shared, random};
use super::snapshot::Snapshot;
use super::transport::{Opened, TransportError};
use crate::time::{Clock, SystemClock};

/// Follows an operation to its end.
///
/// Await it for the end, or take [`updates`](Self::updates) one by one. Its [`state`](Self::state) can be
/// kept, and taken up by another process tomorrow: [`Client::resume`](super::Client::resume).
#[must_use = "an operation is followed only while its poller is awaited"]
pub struct Poller {
    shared: Arc<Shared>,
    follow: Box<Follow>,
    /// The request that is under way: who drops a future of this poller's does not drop it.
    sent: Option<Sent>,
    /// Its monitor's event stream, while there is one.
    stream: Option<Box<Listening>>,
    /// The client's own fields, for each poll.
    headers: HeaderMap,
    due: Instant,
    deadline: Option<Instant>,
    ended: bool,
}

/// A request under way, and whether it may be answered by a stream.
struct Sent {
    answer: BoxFuture<'static, Result<Opened, TransportError>>,
    may_stream: bool,
}

/// What another process needs to take up an operation: no credentials are in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PollerState(Follow);

impl PollerState {
    /// The operation's status monitor.
    pub fn monitor(&self) -> &str {
        self.0.monitor.as_str()
    }

    /// How the operation stood when it was last asked for.
    pub fn snapshot(&self) -> &Snapshot {
        &self.0.snapshot
    }
}

/// What is new about an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// It stands so now.
    Progress(Snapshot),
    /// It has ended.
    Finished(Finished),
}

impl Poller {
    pub(super) fn new(
        shared: Arc<Shared>,
        follow: Follow,
        headers: HeaderMap,
        pause: Duration,
        deadline: Option<Instant>,
    ) -> Self {
        let due = Instant::now() + pause;
        Self {
            shared,
            follow: Box::new(follow),
            sent: None,
            stream: None,
            headers,
            due,
            deadline,
            ended: false,
        }
    }

    pub(super) fn resume(shared: Arc<Shared>, state: PollerState, headers: HeaderMap) -> Self {
        Self::new(shared, state.0, headers, Duration::ZERO, None)
    }

    /// The operation's status monitor.
    pub fn monitor(&self) -> &str {
        self.follow.monitor.as_str()
    }

    /// How the operation stood when it was last asked for.
    pub fn snapshot(&self) -> &Snapshot {
        &self.follow.snapshot
    }

    /// What another process needs to go on.
    pub fn state(&self) -> PollerState {
        PollerState(Follow::clone(&self.follow))
    }

    /// Gives up, with [`DeadlinePassed`](ClientErrorKind::DeadlinePassed), after that time. The operation
    /// goes on.
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = Instant::now().checked_add(time);
        self
    }

    /// Asks until there is something new, and gives it; none after the end. It waits before it asks, and
    /// not after, so what is new is given at once.
    ///
    /// # Errors
    /// If the operation cannot be followed any further. That it failed is no such error. After one that is
    /// [retryable](ClientError::is_retryable) the next call waits as long as polls that fail have it, and
    /// then tries as often again; after any other, and after
    /// [`DeadlinePassed`](ClientErrorKind::DeadlinePassed), there is nothing more.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing: the next call goes on with the request that is under way, or the stream.
    pub async fn next(&mut self) -> Option<Result<Update, ClientError>> {
        if self.ended {
            return None;
        }
        let update = self.until_new().await;
        self.ended = match &update {
            Ok(update) => matches!(update, Update::Finished(_)),
            // Another try may succeed where this one was in vain, unless there is no time for it.
            Err(error) => !error.is_retryable() || error.kind() == ClientErrorKind::DeadlinePassed,
        };
        Some(update)
    }

    async fn until_new(&mut self) -> Result<Update, ClientError> {
        loop {
            let before = self.follow.snapshot.clone();
            let deadline = self.deadline;
            let step = self.step();
            let step = match deadline {
                None => step.await?,
                Some(deadline) => timeout_at(deadline, step).await.map_err(|_| {
                    let late = ClientError::new(ClientErrorKind::DeadlinePassed);
                    late.with_url(self.follow.monitor.clone())
                })??,
            };
            if !matches!(step, Step::Listen) {
                self.stream = None;
            }
            match step {
                Step::Listen => {}
                Step::Finished(finished) => return Ok(Update::Finished(finished)),
                Step::Failed(error) => return Err(error),
                Step::GaveUp(error, pause) => {
                    self.due = Instant::now() + pause;
                    return Err(error);
                }
                Step::Again(pause) => self.due = Instant::now() + pause,
            }
            if self.follow.snapshot != before {
                return Ok(Update::Progress(self.follow.snapshot.clone()));
            }
        }
    }

    /// Waits for the next event, or else asks when it is time to.
    async fn step(&mut self) -> Result<Step, ClientError> {
        let Shared { origins, policy, .. } = &*self.shared;
        if let Some(stream) = &mut self.stream {
            let error = match stream.next().await {
                Ok(Some(event)) => {
                    let now = SystemClock.now();
                    return Ok(self.follow.heard(event, origins, policy, now, random()));
                }
                Ok(None) => None,
                Err(error) => Some(error),
            };
            let (has_lasted, retry) = (stream.has_lasted(), stream.retry());
            return Ok(self.follow.hushed(error, has_lasted, retry, policy, random()));
        }
        if self.sent.is_none() {
            sleep_until(self.due).await;
        }
        let sent = self.sent.take().map_or_else(|| self.send(), Ok)?;
        let sent = self.sent.insert(sent);
        let (answer, may_stream) = ((&mut sent.answer).await, sent.may_stream);
        self.sent = None;
        let answer = match answer {
            Ok(Opened::Stream(stream)) => {
                self.stream = Some(Box::new(Listening::new(stream.into_body())));
                return Ok(Step::Listen);
            }
            Ok(Opened::Whole(answer)) => Ok(answer),
            Err(error) => Err(error),
        };
        if may_stream {
            self.follow.no_stream(&answer);
        }
        Ok(self.follow.received(answer, origins, policy, SystemClock.now(), random()))
    }

    /// Sends the next request.
    fn send(&self) -> Result<Sent, ClientError> {
        let Shared { transport, policy, .. } = &*self.shared;
        let may_stream = transport.streaming().is_some() && self.follow.takes_stream(policy);
        let (url, fields) = self.follow.request(policy, may_stream);
        let request = self.request(Method::GET, url, &fields)?;
        let transport = Arc::clone(transport);
        let answer = async move {
            match transport.streaming().filter(|_| may_stream) {
                Some(streaming) => streaming.open(request).await,
                None => transport.send(request).await.map(Opened::Whole),
            }
        };
        Ok(Sent { answer: Box::pin(answer), may_stream })
    }

    /// All that is new, up to the end.
    pub fn updates(self) -> impl Stream<Item = Result<Update, ClientError>> + Send {
        futures_util::stream::unfold(Some(self), |poller| async {
            let mut poller = poller?;
            let update = poller.next().await?;
            // After an error too, there is no more: the state can be resumed.
            let rest = matches!(update, Ok(Update::Progress(_))).then_some(poller);
            Some((update, rest))
        })
    }

    fn request(
        &self,
        method: Method,
        url: &url::Url,
        fields: &HeaderMap,
    ) -> Result<Request<Bytes>, ClientError> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        *request.uri_mut() = url
            .as_str()
            .parse()
            .map_err(|_| ClientError::new(ClientErrorKind::InvalidRequest).with_url(url.clone()))?;
        *request.headers_mut() = self.headers.clone();
        for (name, value) in fields {
            request.headers_mut().insert(name, value.clone());
        }
        Ok(request)
    }
}

impl IntoFuture for Poller {
    type Output = Result<Finished, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(mut self) -> Self::IntoFuture {
        Box::pin(async move {
            loop {
                if let Update::Finished(finished) = self.until_new().await? {
                    return Ok(finished);
                }
            }
        })
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("follow", &self.follow).finish_non_exhaustive()
    }
}
