use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, thread};

use respond_async::operations::JobPolicy;
use respond_async::store::{OperationStore, PostgresStore, RedisStore, SqliteStore};
use respond_async::webhook::{Secret, Webhooks};
use respond_async::{Operations, Owner};

use crate::gallery::Gallery;
use crate::{Images, Workshop};

/// How long running work may go on once the service has been told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// How long after the death of the process its images are taken up again.
const LEASE: Duration = Duration::from_secs(5);
/// How many images wait or are worked on; one more is answered 503. Each is kept as it came until
/// it is done.
const LIVE_LIMIT: usize = 256;

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
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The address to listen on; port 0 takes a free one.
    pub listen: String,
    /// The folder that images are kept in, and operations too if nothing else is said.
    pub data: PathBuf,
    /// What the process does.
    pub role: Role,
    /// What calls to clients' URLs are signed with; without it there are none.
    pub webhook_secret: Option<Secret>,
    /// Whether such calls may go to this machine and this network too: for trying it out.
    pub webhooks_stay_here: bool,
    /// The server that operations are kept on, which any number of processes share; they need one
    /// folder of images in common.
    pub server: Option<String>,
}

impl Settings {
    /// `LISTEN` (default 127.0.0.1:3000), `DATA_DIR` (default `data`), `ROLE` (`gateway`, `worker`,
    /// or nothing for both), `DATABASE_URL` (PostgreSQL) or `REDIS_URL`, `WEBHOOK_SECRET` (`whsec_…`) and
    /// `WEBHOOKS=local`.
    ///
    /// # Errors
    /// If `ROLE` or `WEBHOOK_SECRET` is none.
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
            webhook_secret: match env::var("WEBHOOK_SECRET") {
                Ok(secret) => {
                    Some(Secret::parse(&secret).map_err(|why| format!("WEBHOOK_SECRET: {why}"))?)
                }
                Err(_) => None,
            },
            webhooks_stay_here: env::var("WEBHOOKS").is_ok_and(|where_to| where_to == "local"),
            server: env::var("DATABASE_URL").or_else(|_| env::var("REDIS_URL")).ok(),
        })
    }
}

impl Images {
    /// Starts the service: from here on it works on what was accepted before.
    ///
    /// # Errors
    /// If the folder or the store cannot be opened.
    pub async fn start(settings: &Settings) -> Result<Self, Box<dyn Error>> {
        let gallery = Gallery::open(&settings.data)?;
        let store = store(settings.server.as_deref(), &settings.data).await?;
        let cores = thread::available_parallelism()?.get();
        let accepted_here = if settings.role == Role::Gateway { 0 } else { cores };
        let workshop = Workshop::new(gallery, cores);
        let enhance = {
            let workshop = workshop.clone();
            move |upload, context| workshop.clone().enhance(upload, context)
        };
        let webhooks = webhooks(settings)?;
        let operations = Operations::builder(store)
            .job_with(JobPolicy::new().with_concurrency(accepted_here), enhance)
            .live_limit(LIVE_LIMIT)
            .progress_interval(Duration::from_millis(200))
            .lease(LEASE);
        let operations = match &webhooks {
            Some(webhooks) => webhooks.tell(operations).start(),
            None => operations.start(),
        };
        Ok(Self { operations, workshop, webhooks })
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

/// What calls the URLs that clients name.
fn webhooks(settings: &Settings) -> Result<Option<Webhooks>, Box<dyn Error>> {
    let Some(secret) = settings.webhook_secret.clone() else { return Ok(None) };
    // One secret for all; a service with accounts gives each its own.
    let mut webhooks = Webhooks::builder(move |_: &Owner| vec![secret.clone()]);
    if settings.webhooks_stay_here {
        webhooks = webhooks.allow_http().allow_private_addresses().ports([]);
    }
    Ok(Some(webhooks.build()?))
}

/// Where operations are kept. Killed in the middle of an image, the service finishes it: once it is started
/// again, or by another replica.
async fn store(
    server: Option<&str>,
    data: &Path,
) -> Result<Arc<dyn OperationStore>, Box<dyn Error>> {
    Ok(match server {
        Some(url) if url.starts_with("redis") => Arc::new(RedisStore::open(url).await?),
        Some(url) => Arc::new(PostgresStore::open(url).await?),
        None => Arc::new(SqliteStore::open(data.join("operations.db"))?),
    })
}

async fn told_to_stop() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    // Without a signal to wait for there is nothing to stop for.
    if interrupt.await.is_err() {
        std::future::pending::<()>().await;
    }
}
