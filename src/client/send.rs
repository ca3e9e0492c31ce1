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
use super::finished::Finished;
use super::follow::{Follow, begins_operation};
use super::origin::{Origins, absolute};
use super::policy::PollPolicy;
use super::poller::{Poller, PollerState};
use super::reqwest::ReqwestTransport;
use super::shared::{Shared, random, untransported};
use super::transport::{MadeUp, Transport, TransportError, TransportErrorKind};
use crate::header::read_retry_after;
use crate::prefer::{PREFER, PreferField, Preferences};
use crate::store::IDEMPOTENCY_KEY;
use crate::time::{Clock, SystemClock};

/// Fields that speak of one request, and not of its client: polls do not carry them. `Accept` is no such
/// field: it is for the result, and polls have their own.
const OF_THE_REQUEST: [HeaderName; 20] = [
    HeaderName::from_static("content-digest"),
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    HeaderName::from_static("content-md5"),
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    HeaderName::from_static("digest"),
    header::EXPECT,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
    HeaderName::from_static("repr-digest"),
    header::TRANSFER_ENCODING,
    IDEMPOTENCY_KEY,
    // A poll that carried it would begin a new operation, with some servers.
    PREFER,
];

/// Sends requests, and follows the operations that they begin. A clone is the same.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// The default of [`tries`](Self::tries).
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
            trusts_names: false,
        };
        Self { shared: Arc::new(shared) }
    }

    /// How monitors are asked.
    #[must_use]
    pub fn poll_policy(mut self, policy: PollPolicy) -> Self {
        Arc::make_mut(&mut self.shared).policy = policy;
        self
    }

    /// How often a request is tried, at least once (default: [`DEFAULT_TRIES`](Self::DEFAULT_TRIES)). A request
    /// is repeated if it was not sent, or was answered 429.
    ///
    /// One that may have taken effect (no answer, 502, 503, 504) is repeated only if that does no harm
    /// ([RFC 9110 §9.2.2](https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2)): if its method is idempotent,
    /// if it has an `Idempotency-Key` of your own, or if the server is
    /// [trusted](Self::trust_idempotency_keys) to know the one that it is given. `Retry-After` on a 503 says
    /// when to come again, and not that nothing was done.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        Arc::make_mut(&mut self.shared).tries = tries.max(1);
        self
    }

    /// Whether requests whose method is not idempotent, and those that prefer `respond-async`, get an
    /// `Idempotency-Key`, unless they have one (default: yes), so that a server that knows the field takes
    /// what is sent twice for one. A server that does not ignores it.
    #[must_use]
    pub fn idempotency_keys(mut self, are_given: bool) -> Self {
        Arc::make_mut(&mut self.shared).names_requests = are_given;
        self
    }

    /// Whether all servers that this client sends to are known to heed `Idempotency-Key` for each request
    /// whose method is not idempotent (default: no). If so, such a request is sent again when it may have
    /// arrived. A server that does not heed it does its work once for each [try](Self::tries).
    #[must_use]
    pub fn trust_idempotency_keys(mut self, are_known: bool) -> Self {
        Arc::make_mut(&mut self.shared).trusts_names = are_known;
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
    ///
    /// These answers begin an operation, which is then followed:
    ///
    /// - 202 with a monitor;
    /// - 201 with `Preference-Applied: respond-async`, as OGC API Processes has it;
    /// - 200 or 201 with `Operation-Location` or `Azure-AsyncOperation`.
    ///
    /// They do so if the request prefers `respond-async` or `wait`, by [these](Sending::respond_async)
    /// [methods](Sending::wait) or a field of its own, or if you call [`finished`](Sending::finished). Otherwise
    /// you get them as they are.
    pub fn send(&self, request: Request<impl Into<Bytes>>) -> Sending {
        Sending {
            shared: Arc::clone(&self.shared),
            request: request.map(Into::into),
            prefers_async: false,
            wait: None,
            deadline: None,
            to_the_end: false,
        }
    }

    /// Follows an operation by the URL of its monitor alone, which is absolute, as a webhook or a mail has it.
    /// Its polls have these fields: they go to that URL's origin, so see that it is one to trust.
    ///
    /// # Errors
    /// If it is no absolute `http` or `https` URL.
    pub fn follow(&self, monitor: &Uri, headers: HeaderMap) -> Result<Poller, ClientError> {
        let follow = Follow::at(absolute(monitor)?);
        let shared = Arc::clone(&self.shared);
        Ok(Poller::new(shared, follow, headers, Duration::ZERO, None))
    }

    /// Takes up an operation that was followed before, with the fields that its polls need: credentials
    /// are not in a [`PollerState`].
    ///
    /// These fields go to the origin of the [monitor](PollerState::monitor) and to those that are
    /// [allowed](Self::allow_origin), whichever server you have in mind: see that they are meant for it.
    pub fn resume(&self, state: PollerState, headers: HeaderMap) -> Poller {
        Poller::resume(Arc::clone(&self.shared), state, headers)
    }
}

/// A request that is about to be sent: await it.
#[must_use = "it is sent when it is awaited"]
pub struct Sending {
    shared: Arc<Shared>,
    request: Request<Bytes>,
    prefers_async: bool,
    wait: Option<Duration>,
    deadline: Option<Duration>,
    /// Whether a caller who has stated no preference waits for the end all the same.
    to_the_end: bool,
}

/// What a request was answered.
#[derive(Debug)]
pub enum Answer {
    /// The answer itself, whether the server has never heard of preferences or was done in time.
    Answered(Response<Bytes>),
    /// The work goes on.
    Accepted(Poller),
}

impl Sending {
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

    /// Sends it, and follows the operation to its end, if there is one: a 202 with a monitor is no end, whether
    /// it was preferred or not. An answer at once counts as succeeded below 400, and as failed from there on.
    ///
    /// # Errors
    /// As when it is awaited, and as [`Poller::next`].
    ///
    /// # Cancel safety
    /// Dropping it loses the way to the operation, which goes on. Await the request alone, and keep the
    /// [`state`](Poller::state) of its poller, if it has to be found again.
    pub async fn finished(mut self) -> Result<Finished, ClientError> {
        self.to_the_end = true;
        match self.await? {
            Answer::Answered(response) => Ok(Finished::of(response)),
            Answer::Accepted(poller) => poller.await,
        }
    }

    async fn run(mut self) -> Result<Answer, ClientError> {
        let url = absolute(self.request.uri())?;
        let deadline = self.deadline.and_then(|time| Instant::now().checked_add(time));
        self.prefer();
        let prefers_async = Preferences::from_headers(self.request.headers()).respond_async();
        let is_idempotent = self.request.method().is_idempotent();
        // Whoever names a request does so because the server knows such names.
        let has_own_name = self.request.headers().contains_key(IDEMPOTENCY_KEY);
        // An idempotent request that is sent twice may begin two operations, which run side by side.
        let is_named = !has_own_name && (!is_idempotent || prefers_async) && self.name();
        let is_repeatable = is_idempotent || has_own_name || (is_named && self.shared.trusts_names);
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
        let waits = Preferences::from_headers(self.request.headers()).wait().is_some();
        let is_followed = prefers_async || waits || self.to_the_end;
        if !is_followed || !begins_operation(&answer) {
            return Ok(Answer::Answered(answer));
        }
        let mut follow = match Follow::accepted(&url, &answer, &self.shared.origins) {
            // A server that was asked to has to say where the operation is.
            Err(error)
                if error.kind() == ClientErrorKind::NoMonitor
                    && !(prefers_async && answer.status() == StatusCode::ACCEPTED) =>
            {
                return Ok(Answer::Answered(answer));
            }
            follow => follow?,
        };
        let policy = &self.shared.policy;
        let pause = follow.first_pause(answer.headers(), policy, SystemClock.now(), random());
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
        let stated: Vec<_> = headers.get_all(PREFER).iter().cloned().collect();
        headers.insert(PREFER, field);
        for line in stated {
            headers.append(PREFER, line);
        }
    }

    /// Gives the request a name, and says whether it has one now.
    fn name(&mut self) -> bool {
        let mut bytes = [0; 16];
        // Without random numbers there is no name, and nothing ambiguous is sent again.
        if !self.shared.names_requests || getrandom::fill(&mut bytes).is_err() {
            return false;
        }
        let key = format!("\"{}\"", uuid::Builder::from_random_bytes(bytes).into_uuid());
        let key = HeaderValue::try_from(key).ok();
        key.is_some_and(|key| {
            self.request.headers_mut().insert(IDEMPOTENCY_KEY, key);
            true
        })
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
                let headers = answer.headers();
                let again = match answer.status() {
                    // Nobody was asked, so asking again is of no use.
                    _ if answer.extensions().get::<MadeUp>().is_some() => false,
                    StatusCode::TOO_MANY_REQUESTS => true,
                    // Said too of what has arrived: by an intermediary whose connection broke, and by a
                    // server whose store did not answer.
                    StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT => is_repeatable,
                    _ => false,
                };
                let asked = read_retry_after(headers, SystemClock.now());
                again.then(|| asked.map_or_else(unasked, |pause| policy.asked(pause, random())))
            }
        }
    }
}

impl IntoFuture for Sending {
    type Output = Result<Answer, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// Without the values of its fields and its content, which may be secrets.
impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("method", self.request.method())
            .field("uri", self.request.uri())
            .field("headers", &self.request.headers().keys().collect::<Vec<_>>())
            .field("bytes", &self.request.body().len())
            .finish_non_exhaustive()
    }
}
