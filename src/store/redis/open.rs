//! Opens connections, and refuses a server that would lose what it acknowledged.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};

use crate::store::Durability;

/// The oldest server that has all commands that the scripts use.
const OLDEST: [u32; 2] = [6, 2];

/// Why a server could not be used. What the driver said is its source.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the Redis store: {kind}")]
pub struct RedisOpenError {
    kind: RedisOpenErrorKind,
    #[source]
    source: Option<RedisError>,
}

/// What is in the way of using a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RedisOpenErrorKind {
    /// The URL cannot be understood.
    #[error("the URL cannot be understood")]
    Config,
    /// The URL asks for TLS, and the crate `redis` was built without it: turn on one of its features for TLS
    /// with tokio, such as `tokio-rustls-comp`.
    #[error("the crate redis was built without TLS; turn on its feature tokio-rustls-comp")]
    NoTls,
    /// Nobody answers there, or not in time.
    #[error("the server cannot be reached")]
    Unreachable,
    /// The server does not let this user in, or not do what it takes.
    #[error("the server refuses the user or the password")]
    Refused,
    /// The server throws keys away when its memory is used up (`maxmemory-policy`). Set `noeviction`.
    #[error(
        "the server evicts keys when its memory is used up; set maxmemory-policy to noeviction"
    )]
    Evicts,
    /// The server keeps less than was asked for: see `appendonly` and `appendfsync`.
    #[error("the server keeps less than was asked for; see appendonly and appendfsync")]
    Weaker,
    /// The server is a replica.
    #[error("the server is a replica")]
    Replica,
    /// The server is older than 6.2.
    #[error("the server is older than 6.2")]
    TooOld,
    /// The server does not tell how it is set, as some managed ones do; say what it keeps
    /// ([`assume`](crate::store::RedisStoreBuilder::assume)).
    #[error("the server does not tell how it is set; say what it keeps")]
    Untold,
    /// Anything else; the source tells.
    #[error("the server failed")]
    Failed,
}

impl RedisOpenError {
    /// What is in the way.
    pub fn kind(&self) -> RedisOpenErrorKind {
        self.kind
    }

    /// Whether the same may succeed later, without anybody's help.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, RedisOpenErrorKind::Unreachable | RedisOpenErrorKind::Replica)
    }

    fn new(kind: RedisOpenErrorKind) -> Self {
        Self { kind, source: None }
    }

    pub(super) fn config(url: &str, source: RedisError) -> Self {
        // Whether TLS is all that is in the way.
        let plain = url.strip_prefix("rediss:").or_else(|| url.strip_prefix("valkeys:"));
        let is_sound = plain.is_some_and(|rest| Client::open(format!("redis:{rest}")).is_ok());
        let kind = if is_sound { RedisOpenErrorKind::NoTls } else { RedisOpenErrorKind::Config };
        Self { kind, source: Some(source) }
    }
}

impl From<RedisError> for RedisOpenError {
    fn from(source: RedisError) -> Self {
        let is_refused = source.kind() == redis::ErrorKind::AuthenticationFailed
            || matches!(source.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
        let kind = match source.code() {
            _ if is_refused => RedisOpenErrorKind::Refused,
            None | Some("LOADING") => RedisOpenErrorKind::Unreachable,
            Some(_) => RedisOpenErrorKind::Failed,
        };
        Self { kind, source: Some(source) }
    }
}

/// What every connection to one server has in common.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) client: Client,
    pub(super) client_name: String,
    pub(super) connect_timeout: Duration,
    pub(super) call_timeout: Duration,
    /// The least that the server must keep.
    pub(super) least: Durability,
    /// What it keeps, if it is not to be asked.
    pub(super) assumed: Option<Durability>,
}

impl Settings {
    pub(super) async fn open(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.call_timeout));
        let mut connection =
            self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let named = redis::cmd("CLIENT").arg("SETNAME").arg(&self.client_name).to_owned();
        named.query_async::<()>(&mut connection).await?;
        Ok(connection)
    }

    /// Looks whether the server will do, and how it is: how durably it keeps what it acknowledges, and
    /// whether it is 7.0 or later.
    pub(super) async fn check(&self) -> Result<(Durability, bool), RedisOpenError> {
        let mut connection = self.open().await?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        let version = field(&info, "redis_version");
        let version: Vec<u32> = version.split('.').map(|part| part.parse().unwrap_or(0)).collect();
        if version[..] < OLDEST[..] {
            return Err(RedisOpenError::new(RedisOpenErrorKind::TooOld));
        }
        if is_replica(&mut connection).await? {
            return Err(RedisOpenError::new(RedisOpenErrorKind::Replica));
        }
        let durability = self.durability(&mut connection).await?;
        Ok((durability, version.first().is_some_and(|major| *major >= 7)))
    }

    /// How durably the server keeps what it acknowledges, if that will do.
    pub(super) async fn durability(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Durability, RedisOpenError> {
        let durability = match self.assumed {
            Some(durability) => durability,
            None => told_durability(connection).await?,
        };
        if durability < self.least {
            return Err(RedisOpenError::new(RedisOpenErrorKind::Weaker));
        }
        Ok(durability)
    }
}

async fn told_durability(
    connection: &mut MultiplexedConnection,
) -> Result<Durability, RedisOpenError> {
    let mut settings: HashMap<String, String> = HashMap::new();
    for name in ["append*", "no-append*", "maxmemory*"] {
        let told = redis::cmd("CONFIG").arg("GET").arg(name).to_owned();
        match told.query_async::<HashMap<String, String>>(connection).await {
            Ok(told) => settings.extend(told),
            Err(error) if error.code().is_some() => {
                let kind = RedisOpenErrorKind::Untold;
                return Err(RedisOpenError { kind, source: Some(error) });
            }
            Err(error) => return Err(error.into()),
        }
    }
    let is = |name: &str, value: &str| settings.get(name).is_some_and(|is| is == value);
    if !is("maxmemory-policy", "noeviction") {
        return Err(RedisOpenError::new(RedisOpenErrorKind::Evicts));
    }
    // With another setting, nothing waits for the disk while the log is rewritten.
    let is_always = is("appendfsync", "always") && is("no-appendfsync-on-rewrite", "no");
    Ok(match (is("appendonly", "yes"), is_always) {
        (false, _) => Durability::Volatile,
        (true, false) => Durability::ProcessCrash,
        (true, true) => Durability::PowerLoss,
    })
}

/// Whether the server is a replica: it takes no writes, and what it says may be of long ago.
pub(super) async fn is_replica(connection: &mut MultiplexedConnection) -> RedisResult<bool> {
    let info: String = redis::cmd("INFO").arg("replication").query_async(connection).await?;
    Ok(field(&info, "role") == "slave")
}

/// A field of what `INFO` says.
fn field<'a>(info: &'a str, name: &str) -> &'a str {
    let line = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    info.lines().find_map(line).unwrap_or_default().trim()
}
