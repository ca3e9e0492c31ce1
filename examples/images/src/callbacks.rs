//! Calls of URLs that clients name (`Prefer: callback; url="…"`), with the feature `webhooks`.

use std::error::Error;

use respond_async::operation::Callback;
use respond_async::operations::OperationsBuilder;
use respond_async::prefer::Preferences;
use respond_async::{Owner, Problem};

use crate::settings::Settings;

/// What calls them, if anything does. A clone is the same.
#[cfg(feature = "webhooks")]
#[derive(Debug, Clone)]
pub(crate) struct Callbacks(Option<respond_async::webhook::Webhooks>);

#[cfg(feature = "webhooks")]
impl Callbacks {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Box<dyn Error>> {
        use respond_async::webhook::{Secret, Webhooks};
        let Some(secret) = &settings.webhook_secret else { return Ok(Self(None)) };
        let secret = Secret::parse(secret).map_err(|why| format!("WEBHOOK_SECRET: {why}"))?;
        // One secret for all; a service with accounts gives each its own.
        let mut webhooks = Webhooks::builder(move |_: &Owner| vec![secret.clone()]);
        if settings.webhooks_stay_here {
            webhooks = webhooks.allow_http().allow_private_addresses().ports([]);
        }
        Ok(Self(Some(webhooks.build()?)))
    }

    pub(crate) fn tell(&self, operations: OperationsBuilder) -> OperationsBuilder {
        match &self.0 {
            Some(webhooks) => webhooks.tell(operations),
            None => operations,
        }
    }

    pub(crate) fn preferred(
        &self,
        preferences: &Preferences,
        owner: &Owner,
    ) -> Result<Option<Callback>, Problem> {
        match &self.0 {
            Some(webhooks) => webhooks.preferred(preferences, owner),
            None => Ok(None),
        }
    }
}

#[cfg(not(feature = "webhooks"))]
#[derive(Debug, Clone)]
pub(crate) struct Callbacks;

#[cfg(not(feature = "webhooks"))]
#[expect(
    clippy::unused_self,
    clippy::unnecessary_wraps,
    reason = "it is called as with the feature"
)]
impl Callbacks {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Box<dyn Error>> {
        match settings.webhook_secret {
            Some(_) => Err("WEBHOOK_SECRET wants `--features webhooks`".into()),
            None => Ok(Self),
        }
    }

    pub(crate) fn tell(&self, operations: OperationsBuilder) -> OperationsBuilder {
        operations
    }

    pub(crate) fn preferred(
        &self,
        _: &Preferences,
        _: &Owner,
    ) -> Result<Option<Callback>, Problem> {
        Ok(None)
    }
}
