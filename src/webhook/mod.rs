//! Webhooks: an operation's end, and more if that is asked for, told to a URL of the client's.
//!
//! A client says where: `Prefer: respond-async, callback; url="https://client.example/done"`
//! ([OData 4.01](https://docs.oasis-open.org/odata/odata/v4.01/odata-v4.01-part1-protocol.html#sec_Preferencecallbackodatacallback)),
//! or the service knows ([`Webhooks::check`]). The call is a POST with the operation as its monitor shows it, signed as
//! [Standard Webhooks](https://www.standardwebhooks.com) has it.
//!
//! - It is accepted in the step that writes the change, so it is made if and only if the change took place, at least
//!   once, whatever process dies. Each try has the same `webhook-id`.
//! - It is tried again, later each time, until the receiver answers 2xx; 410 ends it at once. After the
//!   [deadline](WebhooksBuilder::deadline) it is dead. [`Operations::delivery`](crate::Operations::delivery), and the
//!   monitor's `/callback`, say how it goes.
//! - Only `https` URLs of the public internet are called, at two ports. The address that is connected to is the one that
//!   was looked at; redirects are not followed; answers are shown to nobody.
//!
//! [The guide](crate::guide::webhooks) has the settings, their limits, and the receiver's side.
//!
//! ```
//! use respond_async::prefer::Preferences;
//! use respond_async::respond::{Created, Response};
//! use respond_async::store::MemoryStore;
//! use respond_async::webhook::{Secret, Webhooks};
//! use respond_async::{Operations, Owner, Problem};
//!
//! async fn upload(
//!     operations: &Operations,
//!     webhooks: &Webhooks,
//!     preferences: &Preferences,
//!     owner: Owner,
//! ) -> Result<Response, Problem> {
//!     let callback = webhooks.preferred(preferences, &owner)?;
//!     let kick_off = operations.kick_off(preferences).owner(owner).callback(callback);
//!     Ok(kick_off.respond_with(async |_| Created::at("/images/17")).await)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let secret = Secret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")?;
//! let webhooks = Webhooks::builder(move |_: &Owner| vec![secret.clone()]).build()?;
//! let operations = webhooks
//!     .tell(Operations::builder(MemoryStore::new()).base_url("https://images.example/operations"))
//!     .start();
//!
//! let preferences = r#"respond-async, callback; url="https://client.example/done""#;
//! let preferences = Preferences::parse(preferences)?;
//! let accepted = upload(&operations, &webhooks, &preferences, Owner::anonymous()).await.unwrap();
//! assert_eq!(accepted.headers()["preference-applied"], "respond-async, callback");
//!
//! let preferences = r#"respond-async, callback; url="https://169.254.169.254/latest""#;
//! let preferences = Preferences::parse(preferences)?;
//! let problem = upload(&operations, &webhooks, &preferences, Owner::anonymous()).await.unwrap_err();
//! assert_eq!(problem.status(), 400);
//! # Ok(())
//! # }
//! ```

mod address;
mod builder;
mod hosts;
mod send;
mod sign;

use std::fmt;
use std::sync::Arc;

use url::Url;

use self::send::{Deliver, Sender};
use crate::event::{MEDIA_TYPE, OperationEvent};
use crate::operation::{Callback, Operation, Outcome, Owner};
use crate::operations::{Context, JobPolicy, OperationsBuilder};
use crate::prefer::Preferences;
use crate::problem::{Problem, types};
use crate::respond::{MonitorUrls, OperationView};

pub use self::builder::WebhooksBuilder;
pub use self::sign::{
    InvalidSecret, Secret, Verified, Verifier, VerifyError, WEBHOOK_ID, WEBHOOK_SIGNATURE,
    WEBHOOK_TIMESTAMP,
};

/// Calls the receivers of operations. A clone is the same.
#[derive(Debug, Clone)]
pub struct Webhooks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sender: Sender,
    allow: Allow,
    payload: Payload,
    policy: JobPolicy,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Payload {
    /// The operation, as its monitor shows it (`application/json`).
    Operation,
    /// A CloudEvent, with the operation as its data (`application/cloudevents+json`).
    CloudEvent {
        /// How the service calls itself: a URI reference such as `/images`.
        source: String,
    },
}

/// The secrets that calls to an owner's receivers are signed with.
#[derive(Clone)]
struct Secrets(Arc<SecretsOf>);

type SecretsOf = dyn Fn(&Owner) -> Vec<Secret> + Send + Sync;

impl Secrets {
    fn of(&self, owner: &Owner) -> Vec<Secret> {
        (self.0)(owner)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

/// Which URLs an owner may have called.
#[derive(Clone)]
struct Allow(Arc<IsAllowed>);

type IsAllowed = dyn Fn(&Url, &Owner) -> bool + Send + Sync;

impl fmt::Debug for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Allow")
    }
}

impl Webhooks {
    /// Sets up webhooks. `secrets` gives those that calls to an owner's receivers are signed with: one, and while
    /// one follows another both, the newer first. It is asked for each call, and what it gives is kept nowhere; with
    /// none, nothing is called.
    pub fn builder(
        secrets: impl Fn(&Owner) -> Vec<Secret> + Send + Sync + 'static,
    ) -> WebhooksBuilder {
        WebhooksBuilder::new(Secrets(Arc::new(secrets)))
    }

    /// Has changes of the operations told to their callbacks, by this process and all others that are set up so. Give
    /// the operations an absolute [`base_url`](OperationsBuilder::base_url): receivers know no other.
    pub fn tell(&self, builder: OperationsBuilder) -> OperationsBuilder {
        let (told, inner) = (Arc::clone(&self.inner), Arc::clone(&self.inner));
        builder
            .follow_up_with(move |operation, urls| told.delivery(operation, urls))
            .job_with(self.inner.policy, move |job: Deliver, context: Context| {
                let inner = Arc::clone(&inner);
                async move {
                    inner.sender.deliver(&job, &context).await.map(|()| Outcome::default())
                }
            })
    }

    /// The callback that a client prefers, if it prefers one; for [`KickOff::callback`](crate::operations::KickOff::callback).
    ///
    /// # Errors
    /// A problem of the type [`CALLBACK_REFUSED`](types::CALLBACK_REFUSED), if it may not be called.
    pub fn preferred(
        &self,
        preferences: &Preferences,
        owner: &Owner,
    ) -> Result<Option<Callback>, Problem> {
        let Some(preference) = preferences.callback() else { return Ok(None) };
        let url =
            preference.parameter("url").and_then(|url| url.value().and_then(|url| url.to_str()));
        let Some(url) = url else {
            let detail = "The preference \"callback\" needs a parameter \"url\".";
            return Err(Problem::new(types::CALLBACK_REFUSED).with_detail(detail));
        };
        self.check(&url, owner).map(Some)
    }

    /// A callback to that URL, which the service knows from elsewhere: from the owner's settings, for one.
    ///
    /// Whether its name leads where it may is looked at when it is called, each time. An owner without secrets has
    /// none called.
    ///
    /// # Errors
    /// As [`preferred`](Self::preferred).
    pub fn check(&self, url: &str, owner: &Owner) -> Result<Callback, Problem> {
        let refused = |detail: String| Problem::new(types::CALLBACK_REFUSED).with_detail(detail);
        let checked = self.inner.sender.rules.check(url).map_err(|why| refused(why.to_string()))?;
        if !(self.inner.allow.0)(&checked, owner) {
            return Err(refused(address::Refusal::Host.to_string()));
        }
        if self.inner.sender.secrets.of(owner).is_empty() {
            return Err(refused("There is no secret to sign calls with.".to_owned()));
        }
        // As it was read, so that it is read in one way only.
        Callback::new(checked.as_str()).ok_or_else(|| {
            refused(format!("The callback's URL is longer than {} bytes.", Callback::MAX_URL_BYTES))
        })
    }
}

impl Inner {
    fn delivery(&self, operation: &Operation, urls: &MonitorUrls) -> Option<Deliver> {
        let callback = operation.callback().filter(|callback| callback.wants(operation))?;
        let view = OperationView::new(operation, operation.updated(), urls);
        let (content_type, body) = match &self.payload {
            Payload::Operation => ("application/json", view.to_json().to_string()),
            Payload::CloudEvent { source } => {
                let event = OperationEvent::of(operation, urls, source);
                (MEDIA_TYPE, serde_json::to_string(&event).ok()?)
            }
        };
        Some(Deliver {
            url: callback.url().to_owned(),
            owner: operation.owner().name().map(str::to_owned),
            content_type: content_type.to_owned(),
            body,
        })
    }
}
