use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt, thread};

use respond_async::Operations;
use respond_async::operations::JobPolicy;
use respond_async::store::{OperationStore, SqliteStore};
use tracing_subscriber::filter::LevelFilter;

use crate::Images;
use crate::callbacks::Callbacks;
use crate::gallery::Gallery;
use crate::stop::told_to_stop;
use crate::workshop::Workshop;

/// How long running work may go on once the service has been told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// How long after the death of the process its images are taken up again.
const LEASE: Duration = Duration::from_secs(5);
/// How many images wait or are worked on; one more is answered 503. Each is kept as it came until
/// it is done.
const LIVE_LIMIT: usize = 256;
/// How many requests without a preference are worked on or wait for a core, each with its upload in memory: 1 GiB at
/// the most. One more is answered 503. As many others may wait for a core beside those that have one, and one more is
/// stored at once: while its client waits for the end its upload stays in memory too, and counts to [`LIVE_LIMIT`].
pub(crate) const WAITING_LIMIT: usize = 64;

/// Writes to standard error what `tracing` tells of, from the level on that `LOG` names (default `info`: warnings and
/// errors, with the operation that they are about).
///
/// # Errors
/// If `LOG` is no level.
pub fn log() -> Result<(), Box<dyn Error>> {
    let level = env::var("LOG").unwrap_or_else(|_| "info".to_owned());
    let level: LevelFilter = level
        .parse()
        .map_err(|_| format!("LOG is {level:?}, not error, warn, info, debug, trace or off"))?;
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).init();
    Ok(())
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Serves requests, and works.
    #[default]
    Replica,
    /// Serves requests, and leaves accepted images to others.
    Gateway,
    /// Works, and listens nowhere.
    Worker,
}

/// How a process of the service is set up.
#[derive(Clone, Default)]
pub struct Settings {
    /// The address to listen on; port 0 takes a free one.
    pub listen: String,
    /// The folder that images are kept in, and operations too if nothing else is said.
    pub data: PathBuf,
    /// What the process does.
    pub role: Role,
    /// What calls to clients' URLs are signed with (`whsec_…`); without it there are none.
    pub webhook_secret: Option<String>,
    /// Where clients see the service (`https://images.example`), so that links are absolute: calls to their URLs
    /// need it.
    pub public_url: Option<String>,
    /// Whether such calls may go to this machine and this network too: for trying it out.
    pub webhooks_stay_here: bool,
    /// The server that operations are kept on, which any number of processes share; they need one
    /// folder of images in common.
    pub server: Option<String>,
}

/// Without the secret, and without the server's URL, which may have a password in it.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("data", &self.data)
            .field("role", &self.role)
            .field("public_url", &self.public_url)
            .field("webhooks_stay_here", &self.webhooks_stay_here)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// `LISTEN` (default 127.0.0.1:3000), `DATA_DIR` (default `data`), `ROLE` (`gateway`, `worker`,
    /// or nothing for both), `DATABASE_URL` (PostgreSQL) or `REDIS_URL`, `WEBHOOK_SECRET` (`whsec_…`),
    /// `PUBLIC_URL` (which that needs) and `WEBHOOKS=local`.
    ///
    /// # Errors
    /// If `ROLE` is none.
    pub fn from_env() -> Result<Self, String> {
        let role = env::var("ROLE").unwrap_or_default();
        Ok(Self {
            listen: env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned()),
            data: env::var_os("DATA_DIR").unwrap_or_else(|| "data".into()).into(),
            role: match role.as_str() {
                "" => Role::Replica,
                "gateway" => Role::Gateway,
                "worker" => Role::Worker,
                _ => return Err(format!("ROLE is {role:?}, neither gateway nor worker")),
            },
            webhook_secret: env::var("WEBHOOK_SECRET").ok(),
            public_url: env::var("PUBLIC_URL").ok(),
            webhooks_stay_here: env::var("WEBHOOKS").is_ok_and(|where_to| where_to == "local"),
            server: env::var("DATABASE_URL").or_else(|_| env::var("REDIS_URL")).ok(),
        })
    }

    /// Where clients see the monitors, if that is said. Whoever is called knows no other base than this.
    fn monitors(&self) -> Result<Option<String>, String> {
        let Some(base) = &self.public_url else {
            let missing = "WEBHOOK_SECRET wants PUBLIC_URL, where clients see this service";
            return if self.webhook_secret.is_some() { Err(missing.to_owned()) } else { Ok(None) };
        };
        let url = base.parse::<http::Uri>().ok();
        let is_absolute = url.is_some_and(|url| matches!(url.scheme_str(), Some("http" | "https")));
        if !is_absolute || base.contains(['?', '#']) {
            return Err(format!("PUBLIC_URL is {base:?}, not such as https://images.example"));
        }
        Ok(Some(format!("{}/operations", base.trim_end_matches('/'))))
    }
}

impl Images {
    /// Starts the service: from here on it works on what was accepted before.
    ///
    /// # Errors
    /// If a setting is wrong, or the folder or the store cannot be opened.
    pub async fn start(settings: &Settings) -> Result<Self, Box<dyn Error>> {
        let monitors = settings.monitors()?;
        let gallery = Gallery::open(&settings.data)?;
        let store = store(settings.server.as_deref(), &settings.data).await?;
        let cores = thread::available_parallelism()?.get();
        let accepted_here = if settings.role == Role::Gateway { 0 } else { cores };
        let workshop = Workshop::new(gallery, cores, WAITING_LIMIT);
        let enhance = {
            let workshop = workshop.clone();
            move |upload, context| workshop.clone().enhance(upload, context)
        };
        let callbacks = Callbacks::new(settings)?;
        let operations = Operations::builder(store)
            .job_with(JobPolicy::new().with_concurrency(accepted_here), enhance)
            .queue(WAITING_LIMIT)
            .live_limit(LIVE_LIMIT)
            .progress_interval(Duration::from_millis(200))
            .lease(LEASE);
        let operations = match monitors {
            Some(url) => operations.base_url(url),
            None => operations,
        };
        let operations = callbacks.tell(operations).start();
        Ok(Self { operations, workshop, callbacks })
    }

    /// The operations, for the monitor.
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Returns when the process has been told to stop and its work is done or given back. Polls and
    /// downloads should be answered meanwhile.
    pub async fn stopped(&self) {
        told_to_stop().await;
        self.operations.shutdown(SHUTDOWN_GRACE).await;
    }

    /// Says what the process does, and what to try.
    pub fn say_what_to_try(&self, address: Option<SocketAddr>) {
        // A service whose output nobody reads serves all the same.
        let Some(address) = address else {
            let _ = writeln!(io::stdout(), "Working on what the replicas accept.");
            return;
        };
        let base = format!("http://{address}");
        let _ = writeln!(
            io::stdout(),
            "Images at {base}. With a JPEG or PNG of yours, try:

  curl -i {base}/images -H 'Content-Type: image/jpeg' --data-binary @photo.jpg
  curl -i {base}/images -H 'Content-Type: image/jpeg' --data-binary @photo.jpg \\
       -H 'Prefer: respond-async' -H 'X-User: ann'
  curl -i {base}/operations/ID -H 'X-User: ann'         # the Content-Location of the 202
  curl -i {base}/operations/ID/result -H 'X-User: ann'  # what the first command got at once
  curl -i {base}/operations -H 'X-User: ann'
  curl -i {base}/health                                 # of the store and the workers
  curl -i {base}/openapi.json                           # all of this, for programs
"
        );
    }
}

/// Where operations are kept. Killed in the middle of an image, the service finishes it: once it is started
/// again, or by another replica.
#[cfg_attr(
    not(feature = "cluster"),
    expect(clippy::unused_async, reason = "only servers are waited for")
)]
async fn store(
    server: Option<&str>,
    data: &Path,
) -> Result<Arc<dyn OperationStore>, Box<dyn Error>> {
    Ok(match server {
        #[cfg(feature = "cluster")]
        Some(url) if url.starts_with("redis") => {
            Arc::new(respond_async::store::RedisStore::open(url).await?)
        }
        #[cfg(feature = "cluster")]
        Some(url) => Arc::new(respond_async::store::PostgresStore::open(url).await?),
        #[cfg(not(feature = "cluster"))]
        Some(_) => return Err("a server for operations wants `--features cluster`".into()),
        None => Arc::new(SqliteStore::open(data.join("operations.db"))?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_the_settings_is_no_secret() {
        let settings = Settings {
            webhook_secret: Some("whsec_x".to_owned()),
            server: Some("postgres://ann:word@db".to_owned()),
            ..Settings::default()
        };
        let shown = format!("{settings:?}");
        assert!(!shown.contains("whsec") && !shown.contains("word"), "{shown}");
    }

    /// Whoever is called knows no base of its own.
    #[tokio::test]
    async fn calls_need_links_that_are_absolute() {
        let folder = tempfile::tempdir().unwrap();
        let settings = |public_url: Option<&str>, secret: Option<&str>| Settings {
            data: folder.path().to_owned(),
            webhook_secret: secret.map(str::to_owned),
            public_url: public_url.map(str::to_owned),
            ..Settings::default()
        };
        let images = Images::start(&settings(Some("https://images.example/"), None)).await.unwrap();
        let monitors = images.operations().urls().list();
        assert_eq!(monitors.as_str(), "https://images.example/operations");
        for (url, secret) in [
            (None, Some("whsec_x")),
            (Some("images.example"), None),
            (Some("/images"), None),
            (Some("http://images.example?x"), None),
        ] {
            let error = Images::start(&settings(url, secret)).await.unwrap_err().to_string();
            assert!(error.contains("PUBLIC_URL"), "{error}");
        }
    }
}
