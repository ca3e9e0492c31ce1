use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use tokio::time::{Instant, sleep, timeout_at};

use super::error::{ClientError, ClientErrorKind};
use super::follow::{Finished, Follow};
use super::origin::{Origins, absolute};
use super::policy::PollPolicy;
use super::poller::{Poller, PollerState};
use super::reqwest::ReqwestTransport;
use super::shared::{Shared, random, untransported};
use super::transport::{Transport, TransportError, TransportErrorKind};
use crate::header::read_retry_after;
use crate::prefer::{PREFER, PreferField};
use crate::store::IDEMPOTENCY_KEY;
use crate::time::{Clock, SystemClock};

/// Fields that speak of one request, and not of its client: polls do not carry them.
const OF_THE_REQUEST: [HeaderName; 16] = [
    header::ACCEPT,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
    header::TRANSFER_ENCODING,
    IDEMPOTENCY_KEY,
    // A poll that carried it would begin a new operation, with some servers.
    HeaderName::from_static("prefer"),
];

/// Sends requests, and follows the operations that they begin. A clone is the same.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// How often a request is tried if nothing else is said.
    pub const DEFAULT_TRIES: u32 = 4;

    /// A client on reqwest.
    ///
    /// # Errors
    /// If it cannot be set up.
    pub fn new() -> Result<Self, TransportError> {
        Ok(Self::with(ReqwestTransport::new()?))
    }

    /// A client on any transport.
    pub fn with(transport: impl Transport) -> Self {
        let shared = Shared {
            transport: Arc::new(transport),
            origins: Origins::default(),
            policy: PollPolicy::new(),
            tries: Self::DEFAULT_TRIES,
            names_requests: true,
        };
        Self { shared: Arc::new(shared) }
    }

    /// How monitors are asked.
    #[must_use]
    pub fn poll_policy(mut self, policy: PollPolicy) -> Self {
        Arc::make_mut(&mut self.shared).policy = policy;
        self
    }

    /// How often a request is tried, at least once. Repeated is what was not sent, what was answered 429 or
    /// 503, and, if that is [safe](Self::idempotency_keys), what may have arrived.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        Arc::make_mut(&mut self.shared).tries = tries.max(1);
        self
    }

    /// Whether requests whose method is not idempotent get an `Idempotency-Key`, unless they have one
    /// (default: yes), so that one that may have arrived can be sent again. Say no for servers that do not
    /// know the field: such a request is then sent again only if it was surely not taken.
    #[must_use]
    pub fn idempotency_keys(mut self, are_given: bool) -> Self {
        Arc::make_mut(&mut self.shared).names_requests = are_given;
        self
    }

    /// Lets links lead to that origin too, with the credentials that requests carry. Without this, an
    /// operation whose monitor is at another origin than its request is not followed.
    ///
    /// # Errors
    /// If it is no absolute `http` or `https` URL.
    pub fn allow_origin(mut self, origin: &Uri) -> Result<Self, ClientError> {
        let url = absolute(origin)?;
        Arc::make_mut(&mut self.shared).origins.allow(&url);
        Ok(self)
    }

    /// Sends a request, whose target is absolute. Await what this gives.
    pub fn send(&self, request: Request<impl Into<Bytes>>) -> Send {
        Send {
            shared: Arc::clone(&self.shared),
            request: request.map(Into::into),
            prefers_async: false,
            wait: None,
            deadline: None,
        }
    }

    /// Takes up an operation that was followed before, with the fields that its polls need: credentials
    /// are not in a [`PollerState`].
    pub fn resume(&self, state: PollerState, headers: HeaderMap) -> Poller {
        Poller::resume(Arc::clone(&self.shared), state, headers)
    }
}

/// A request that is about to be sent: await it.
#[derive(Debug)]
#[must_use = "it is sent when it is awaited"]
pub struct Send {
    shared: Arc<Shared>,
    request: Request<Bytes>,
    prefers_async: bool,
    wait: Option<Duration>,
    deadline: Option<Duration>,
}

/// What a request was answered.
pub enum Answer {
    /// The answer itself, whether the server has never heard of preferences or was done in time.
    Answered(Response<Bytes>),
    /// The work goes on.
    Accepted(Poller),
}

impl Send {
    /// Prefers `respond-async`: the server may answer before the work is done.
    pub fn respond_async(mut self) -> Self {
        self.prefers_async = true;
        self
    }

    /// Prefers the answer itself if the server has it within that time (`wait`, whole seconds, rounded up).
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Gives up after that time, the following of the operation included.
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = Some(time);
        self
    }

    /// Sends it, and follows the operation to its end, if there is one. An answer at once counts as
    /// succeeded below 400, and as failed from there on.
    ///
    /// # Errors
    /// As when it is awaited, and as [`Poller::next`].
    pub async fn finished(self) -> Result<Finished, ClientError> {
        match self.await? {
            Answer::Answered(response) => Ok(Finished::of(response)),
            Answer::Accepted(poller) => poller.await,
        }
    }

    async fn run(mut self) -> Result<Answer, ClientError> {
        let url = absolute(self.request.uri())?;
        let deadline = self.deadline.and_then(|time| Instant::now().checked_add(time));
        self.prefer();
        self.name();
        let is_repeatable = self.request.method().is_idempotent()
            || self.request.headers().contains_key(IDEMPOTENCY_KEY);
        let mut tries = 1;
        let answer = loop {
            let sent = self.shared.transport.send(self.request.clone());
            let answer = match deadline {
                None => sent.await,
                Some(deadline) => timeout_at(deadline, sent)
                    .await
                    .map_err(|_| ClientError::new(ClientErrorKind::DeadlinePassed))?,
            };
            let pause = self.pause(&answer, is_repeatable, tries);
            let Some(pause) = pause.filter(|_| tries < self.shared.tries) else { break answer };
            if deadline.is_some_and(|deadline| Instant::now() + pause >= deadline) {
                break answer;
            }
            sleep(pause).await;
            tries += 1;
        };
        let answer = answer.map_err(|error| untransported(error).with_url(url.clone()))?;
        if answer.status() != StatusCode::ACCEPTED || !self.prefers_async {
            return Ok(Answer::Answered(answer));
        }
        let mut follow = Follow::accepted(&url, &answer, &self.shared.origins)?;
        let policy = &self.shared.policy;
        let pause = follow.pause(answer.headers(), policy, SystemClock.now(), random());
        let mut headers = std::mem::take(self.request.headers_mut());
        for name in &OF_THE_REQUEST {
            headers.remove(name);
        }
        Ok(Answer::Accepted(Poller::new(self.shared, follow, headers, pause, deadline)))
    }

    /// States what the client prefers, before whatever the request states already.
    fn prefer(&mut self) {
        let mut field = PreferField::new();
        if self.prefers_async {
            field = field.respond_async();
        }
        if let Some(wait) = self.wait {
            field = field.wait(wait);
        }
        let Some(field) = field.to_header_value() else { return };
        let headers = self.request.headers_mut();
        let stated: Vec<_> = headers.get_all(&PREFER).iter().cloned().collect();
        headers.insert(PREFER.clone(), field);
        for line in stated {
            headers.append(PREFER.clone(), line);
        }
    }

    /// Gives the request a name, if it needs one to be sent again.
    fn name(&mut self) {
        let needs_one = !self.request.method().is_safe() && !self.request.method().is_idempotent();
        if !needs_one || !self.shared.names_requests {
            return;
        }
        let mut bytes = [0; 16];
        // Without random numbers there is no name, and nothing ambiguous is sent again.
        if getrandom::fill(&mut bytes).is_ok() {
            let key = format!("\"{}\"", uuid::Builder::from_random_bytes(bytes).into_uuid());
            if let Ok(key) = HeaderValue::try_from(key) {
                self.request.headers_mut().entry(IDEMPOTENCY_KEY).or_insert(key);
            }
        }
    }

    /// How long to wait before the request is sent again, if it may be.
    fn pause(
        &self,
        answer: &Result<Response<Bytes>, TransportError>,
        is_repeatable: bool,
        tries: u32,
    ) -> Option<Duration> {
        let policy = &self.shared.policy;
        let unasked = || policy.unasked(tries - 1, random());
        match answer {
            Err(error) => match error.kind() {
                TransportErrorKind::NotSent => Some(unasked()),
                TransportErrorKind::Ambiguous if is_repeatable => Some(unasked()),
                _ => None,
            },
            Ok(answer) => {
                let refused = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
                let broken = [StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT];
                let again = refused.contains(&answer.status())
                    || (is_repeatable && broken.contains(&answer.status()));
                let asked = read_retry_after(answer.headers(), SystemClock.now());
                again.then(|| asked.map_or_else(unasked, |pause| policy.asked(pause, random())))
            }
        }
    }
}

impl IntoFuture for Send {
    type Output = Result<Answer, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + std::marker::Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(response) => f.debug_tuple("Answered").field(response).finish(),
            Self::Accepted(poller) => f.debug_tuple("Accepted").field(poller).finish(),
        }
    }
}
