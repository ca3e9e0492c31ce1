//! How a delivery is made.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::Secrets;
use super::address::Rules;
use super::hosts::Hosts;
use super::sign::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, sign};
use crate::header::read_retry_after;
use crate::operation::Owner;
use crate::operations::{Context, Job, WEBHOOK};
use crate::problem::{Problem, types};
use crate::time::{Clock, SystemClock};

/// How much of an answer is read. It is shown to nobody.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// How many names are looked up at once.
const MAX_LOOKUPS: usize = 64;
/// How many addresses a name may have.
const MAX_ADDRESSES: usize = 64;

/// What is to be told, and where: the job that follows from a change.
#[derive(Serialize, Deserialize)]
pub(super) struct Deliver {
    pub(super) url: String,
    pub(super) owner: Option<String>,
    pub(super) content_type: String,
    /// As it is signed and sent, each time.
    pub(super) body: String,
}

impl Job for Deliver {
    const KIND: &'static str = WEBHOOK;
}

pub(super) struct Sender {
    pub(super) client: reqwest::Client,
    pub(super) rules: Rules,
    pub(super) secrets: Secrets,
    /// Names cost nothing, so that one owner may have any number of hosts.
    pub(super) owners: Hosts,
    pub(super) hosts: Hosts,
    /// The longest pause that a receiver may ask for.
    pub(super) longest_pause: Duration,
}

impl Sender {
    /// Tries to deliver it. What a failure says, it says to the operation's owner: so it is the same for all
    /// that can go wrong before there is an answer.
    pub(super) async fn deliver(&self, job: &Deliver, context: &Context) -> Result<(), Problem> {
        // It may be called no more although it might have been when it was accepted.
        let refused = |why: super::address::Refusal| {
            Problem::new(types::CALLBACK_REFUSED).with_detail(why.to_string())
        };
        let url = self.rules.check(&job.url).map_err(refused)?;
        let full = |pause| {
            let detail = "The endpoint has as many calls as it gets at once.";
            Problem::new(types::OVERLOADED).with_detail(detail).with_retry_after(pause)
        };
        let owner = job.owner.as_deref();
        let _of_owner = owner.map(|name| self.owners.enter(name)).transpose().map_err(full)?;
        let host = url.host_str().unwrap_or_default();
        let _to_host = self.hosts.enter(host).map_err(full)?;
        let owner = owner.map_or(Ok(Owner::anonymous()), Owner::new);
        let secrets = owner.map(|owner| self.secrets.of(&owner)).unwrap_or_default();
        let Some(id) = context.operation_id().filter(|_| !secrets.is_empty()) else {
            return Err(failed("There is no secret to sign the call with."));
        };
        let (id, seconds) = (id.to_string(), SystemClock.now().as_unix_millis() / 1_000);
        let signature = sign(&secrets, &id, &seconds.to_string(), job.body.as_bytes());
        let request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, &job.content_type)
            .header(WEBHOOK_ID, id)
            .header(WEBHOOK_TIMESTAMP, seconds)
            .header(WEBHOOK_SIGNATURE, signature)
            .body(job.body.clone());
        let unreachable = |_| failed("The endpoint could not be reached.");
        let answer = request.send().await.map_err(unreachable)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        drain(answer).await;
        self.judge(status, &headers)
    }

    fn judge(&self, status: StatusCode, headers: &HeaderMap) -> Result<(), Problem> {
        let told = format!("The endpoint answered {}.", status.as_u16());
        if status.is_success() {
            Ok(())
        } else if status == StatusCode::GONE {
            Err(Problem::new(types::CALLBACK_GONE).with_detail(told))
        } else {
            let problem = failed(told);
            Err(match read_retry_after(headers, SystemClock.now()) {
                Some(pause) => problem.with_retry_after(pause.min(self.longest_pause)),
                None => problem,
            })
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("rules", &self.rules).finish_non_exhaustive()
    }
}

fn failed(detail: impl Into<String>) -> Problem {
    Problem::new(types::CALLBACK_FAILED).with_detail(detail.into())
}

/// Reads an answer to its end, so that its sender is not cut off in it, unless it is long.
async fn drain(mut answer: reqwest::Response) {
    let mut read = 0;
    while let Ok(Some(piece)) = answer.chunk().await {
        read += piece.len();
        if read > MAX_ANSWER_BYTES {
            return;
        }
    }
}

/// Gives a name's addresses if all of them may be called. They are what is connected to, so no later answer of the
/// name's server matters.
pub(super) struct Guarded {
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) rules: Rules,
    /// Whose name may lead inside: nobody but the service says which it is.
    pub(super) proxy_host: Option<String>,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        if self.proxy_host.as_deref() == Some(name.as_str()) {
            return self.resolver.resolve(name);
        }
        let (resolving, rules) = (self.resolver.resolve(name), self.rules.clone());
        Box::pin(async move {
            let found: Vec<SocketAddr> = resolving.await?.take(MAX_ADDRESSES + 1).collect();
            let may_be_called =
                !found.is_empty() && found.iter().all(|address| rules.allows(address.ip()));
            if !may_be_called || found.len() > MAX_ADDRESSES {
                return Err("a host that is not called".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// The operating system's resolver. It goes on with a look-up that nobody waits for any more, on a thread that others
/// of the process may want.
pub(super) struct System(Arc<Semaphore>);

impl Default for System {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LOOKUPS)))
    }
}

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        let places = Arc::clone(&self.0);
        Box::pin(async move {
            let place = places.acquire_owned().await?;
            let look_up = tokio::task::spawn_blocking(move || {
                let _place = place;
                (name.as_str(), 0).to_socket_addrs()
            });
            Ok(Box::new(look_up.await??) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Gives one answer after another.
    struct Turns(Mutex<Vec<Vec<SocketAddr>>>);

    impl Resolve for Turns {
        fn resolve(&self, _: Name) -> Resolving {
            let next = self.0.lock().unwrap().remove(0);
            Box::pin(async move { Ok(Box::new(next.into_iter()) as Addrs) })
        }
    }

    /// What is connected to is what was looked at, whatever the name's server says next.
    #[tokio::test]
    async fn a_name_gives_the_addresses_that_were_looked_at_or_none() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect()
        };
        let public = addresses(&["8.8.8.8", "2606:4700:4700::1111"]);
        let cases = [
            (public.clone(), true),
            (addresses(&["127.0.0.1"]), false),
            (public.clone(), true),
            (addresses(&["8.8.8.8", "10.0.0.1"]), false),
            (addresses(&["8.8.8.8", "fe80::1"]), false),
            (Vec::new(), false),
            (addresses(&["8.8.8.8"; MAX_ADDRESSES]), true),
            (addresses(&["8.8.8.8"; MAX_ADDRESSES + 1]), false),
        ];
        let turns = cases.iter().map(|(answer, _)| answer.clone()).collect();
        let resolver = Arc::new(Turns(Mutex::new(turns)));
        let guarded = Guarded { resolver, rules: Rules::default(), proxy_host: None };
        for (answer, is_given) in cases {
            let given = guarded.resolve("a.example".parse().unwrap()).await;
            assert_eq!(given.map(Vec::from_iter).ok(), is_given.then_some(answer));
        }
    }
}
