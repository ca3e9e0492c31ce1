use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::Resolve;
use reqwest::redirect;
use url::Url;

use super::address::Rules;
use super::hosts::Hosts;
use super::send::{Guarded, Sender, System};
use super::{Allow, Inner, Payload, Secrets, Webhooks};
use crate::operation::Owner;
use crate::operations::JobPolicy;
use crate::problem::types;

/// How often one delivery is begun at the most, those times included that there is no room for it: its deadline comes
/// before.
const ATTEMPTS: u32 = 1_000_000;
/// How long one waits at the most before it looks again whether there is room for it.
const LONGEST_WAIT_FOR_ROOM: Duration = Duration::from_secs(60);

/// Sets what may be called and how. Each bound has a name and a default.
#[must_use]
pub struct WebhooksBuilder {
    secrets: Secrets,
    allow: Allow,
    rules: Rules,
    payload: Payload,
    concurrency: usize,
    owner_concurrency: usize,
    host_concurrency: usize,
    host_rate: u32,
    deadline: Duration,
    first_backoff: Duration,
    longest_backoff: Duration,
    connect_timeout: Duration,
    timeout: Duration,
    resolver: Arc<dyn Resolve>,
    egress_proxy: Option<Url>,
    client: Option<Box<SetClient>>,
}

type SetClient = dyn FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send;

impl WebhooksBuilder {
    /// The default of [`concurrency`](Self::concurrency).
    pub const DEFAULT_CONCURRENCY: usize = 256;
    /// The default of [`owner_concurrency`](Self::owner_concurrency).
    pub const DEFAULT_OWNER_CONCURRENCY: usize = 64;
    /// The default of [`host_concurrency`](Self::host_concurrency).
    pub const DEFAULT_HOST_CONCURRENCY: usize = 8;
    /// The default of [`host_rate`](Self::host_rate).
    pub const DEFAULT_HOST_RATE: u32 = 50;
    /// The default of [`deadline`](Self::deadline): three days.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(3 * 24 * 60 * 60);
    /// The default of `first` in [`backoff`](Self::backoff).
    pub const DEFAULT_FIRST_BACKOFF: Duration = Duration::from_secs(5);
    /// The default of `longest` in [`backoff`](Self::backoff): six hours.
    pub const DEFAULT_LONGEST_BACKOFF: Duration = Duration::from_secs(6 * 60 * 60);
    /// The default of [`connect_timeout`](Self::connect_timeout).
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// The default of [`timeout`](Self::timeout).
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

    pub(super) fn new(secrets: Secrets) -> Self {
        Self {
            secrets,
            allow: Allow(Arc::new(|_, _| true)),
            rules: Rules::default(),
            payload: Payload::Operation,
            concurrency: Self::DEFAULT_CONCURRENCY,
            owner_concurrency: Self::DEFAULT_OWNER_CONCURRENCY,
            host_concurrency: Self::DEFAULT_HOST_CONCURRENCY,
            host_rate: Self::DEFAULT_HOST_RATE,
            deadline: Self::DEFAULT_DEADLINE,
            first_backoff: Self::DEFAULT_FIRST_BACKOFF,
            longest_backoff: Self::DEFAULT_LONGEST_BACKOFF,
            connect_timeout: Self::DEFAULT_CONNECT_TIMEOUT,
            timeout: Self::DEFAULT_TIMEOUT,
            resolver: Arc::new(System::default()),
            egress_proxy: None,
            client: None,
        }
    }

    /// What is sent (default: the operation).
    pub fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    /// Which URLs an owner may have called, of those that may be called at all (default: all of them): a list of
    /// hosts that were shown to be the owner's, for one. It is asked when a callback is accepted.
    pub fn allow(mut self, allow: impl Fn(&Url, &Owner) -> bool + Send + Sync + 'static) -> Self {
        self.allow = Allow(Arc::new(allow));
        self
    }

    /// Lets `http` URLs be called too: anybody on the way reads and changes what is sent. By default only
    /// `https` is called.
    pub fn allow_http(mut self) -> Self {
        self.rules.allows_http = true;
        self
    }

    /// Lets addresses be called that are not of the public internet. Whoever can name a callback can then have
    /// this process call whatever it reaches: for networks whose receivers are all your own, together with
    /// [`allow`](Self::allow). By default only public addresses are called.
    pub fn allow_private_addresses(mut self) -> Self {
        self.rules.allows_private = true;
        self
    }

    /// The ports that may be called (default: 443 and 8443); with none, all of them.
    pub fn ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.rules.ports = ports.into_iter().collect();
        self
    }

    /// How many calls this process makes at once, at least 1. The default is [256](Self::DEFAULT_CONCURRENCY).
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = calls.max(1);
        self
    }

    /// How many calls this process makes at once for one owner with a name, at least 1; what is more is tried later. Keep
    /// it well below the [concurrency](Self::concurrency): an owner can have any number of hosts. The default is
    /// [64](Self::DEFAULT_OWNER_CONCURRENCY).
    pub fn owner_concurrency(mut self, calls: usize) -> Self {
        self.owner_concurrency = calls.max(1);
        self
    }

    /// How many calls this process makes to one host at once, at least 1; what is more is tried later. Keep it
    /// well below the [concurrency](Self::concurrency), so that a slow host holds up no other. The default is
    /// [8](Self::DEFAULT_HOST_CONCURRENCY).
    pub fn host_concurrency(mut self, calls: usize) -> Self {
        self.host_concurrency = calls.max(1);
        self
    }

    /// How many calls a second this process makes to one host, at least 1; what is more is tried later. The
    /// default is [50](Self::DEFAULT_HOST_RATE).
    pub fn host_rate(mut self, calls_per_second: u32) -> Self {
        self.host_rate = calls_per_second.max(1);
        self
    }

    /// For how long a delivery is tried; then it is dead. Until then it counts as an unfinished operation of
    /// the [store's](crate::operations::OperationsBuilder::live_limit). The default is
    /// [three days](Self::DEFAULT_DEADLINE).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The longest pauses before the second and before any try: they double in between, and each is a random
    /// part of that. A `Retry-After` of the receiver is kept to up to the second. The defaults are
    /// [5 s](Self::DEFAULT_FIRST_BACKOFF) and [six hours](Self::DEFAULT_LONGEST_BACKOFF).
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.first_backoff, self.longest_backoff) = (first, longest);
        self
    }

    /// How long a connection may take to be made, the look-up of its name included. The default is
    /// [5 s](Self::DEFAULT_CONNECT_TIMEOUT).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take in all. The default is [20 s](Self::DEFAULT_TIMEOUT).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What looks names up (default: the operating system's resolver). What it finds is looked at all the same.
    pub fn resolver(mut self, resolver: impl Resolve + 'static) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// Has all calls, of both schemes, made by the HTTP proxy of that URL, which then has to see to it where
    /// they go: this process connects to the proxy alone. Its scheme is `http` or `https`, and it may have a
    /// user name and a password. No proxy is taken from the environment. By default there is none.
    ///
    /// # Panics
    /// If it is of another scheme, or names no host: calls would be made without it.
    pub fn egress_proxy(mut self, proxy: Url) -> Self {
        let is_proxy = matches!(proxy.scheme(), "http" | "https") && proxy.has_host();
        assert!(is_proxy, "an egress proxy of the scheme {:?} is none", proxy.scheme());
        self.egress_proxy = Some(proxy);
        self
    }

    /// Sets more of the HTTP client: certificates, for one. Redirects, proxies, the resolver and the timeouts are set
    /// after it.
    pub fn http_client(
        mut self,
        set: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + 'static,
    ) -> Self {
        self.client = Some(Box::new(set));
        self
    }

    /// The webhooks. [`tell`](Webhooks::tell) the operations of them.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn build(self) -> Result<Webhooks, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("respond-async/", env!("CARGO_PKG_VERSION")))
            // There would be one to each host that anybody names.
            .pool_max_idle_per_host(0);
        let client = match self.client {
            Some(set) => set(client),
            None => client,
        };
        let client = client
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .https_only(!self.rules.allows_http)
            .connect_timeout(self.connect_timeout)
            .timeout(self.timeout);
        let proxy_host = self.egress_proxy.as_ref().and_then(Url::host_str).map(str::to_owned);
        let client = client.dns_resolver(Arc::new(Guarded {
            resolver: self.resolver,
            rules: self.rules.clone(),
            proxy_host,
        }));
        let client = match self.egress_proxy {
            Some(proxy) => client.proxy(reqwest::Proxy::all(proxy)?),
            None => client,
        };
        let policy = JobPolicy::new()
            .with_concurrency(self.concurrency)
            .with_attempt_limit(ATTEMPTS)
            .with_backoff(self.first_backoff, self.longest_backoff)
            .with_longest_wait_for_room(LONGEST_WAIT_FOR_ROOM)
            .with_retry_if(|problem| {
                problem.is(types::CALLBACK_FAILED) || problem.is(types::OVERLOADED)
            })
            .with_deadline(self.deadline);
        let sender = Sender {
            client: client.build()?,
            rules: self.rules,
            secrets: self.secrets,
            owners: Hosts::at_once(self.owner_concurrency),
            hosts: Hosts::new(self.host_concurrency, self.host_rate),
            longest_pause: self.longest_backoff,
        };
        let Self { allow, payload, .. } = self;
        Ok(Webhooks { inner: Arc::new(Inner { sender, allow, payload, policy }) })
    }
}

impl fmt::Debug for WebhooksBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhooksBuilder").field("rules", &self.rules).finish_non_exhaustive()
    }
}
