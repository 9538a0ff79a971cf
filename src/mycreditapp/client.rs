//! The one call: `PATCH {base}/guest-connections/{guest_org_id}`.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use reqwest::dns::Resolve;
use reqwest::{Client, header};
use tokio::time::Instant;
use tracing::Instrument as _;
use url::Url;

use super::failure::Failure;
use super::http;
use super::tokens::Tokens;
use super::wire::{self, PatchBody};
use super::{Error, Settings};
use crate::domain::command::OrganizationId;
use crate::domain::obstacle::Obstacle;
use crate::domain::reply::{self, Reply, Unauthorized};
use crate::service::ports::{Authorization, Patch, Upstream};
use crate::telemetry::drift;

/// The resource's place under the base URL.
const COLLECTION: &str = "guest-connections";

/// The API as the service's [`Upstream`]. Cloning shares connections and tokens.
#[derive(Clone)]
pub struct MyCreditApp {
    client: Client,
    settings: Arc<Settings>,
    /// The path with the guest's name in the place of its id, for spans.
    template: Arc<str>,
    tokens: Tokens,
}

impl MyCreditApp {
    /// Sets the client up. Nothing is sent yet.
    ///
    /// # Errors
    /// The settings cannot be used as they are.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Self::with(http::client(&settings)?, settings)
    }

    /// The same with a resolver of names of one's own.
    ///
    /// # Errors
    /// The settings cannot be used as they are.
    pub fn with_resolver<R: Resolve + 'static>(settings: Settings, resolver: R) -> Result<Self, Error> {
        let client = http::builder(&settings)?.dns_resolver(resolver).build().map_err(Error::Client)?;
        Self::with(client, settings)
    }

    fn with(client: Client, settings: Settings) -> Result<Self, Error> {
        let collection = http::endpoint(&settings.base_url, &[COLLECTION])?;
        let template = format!("{}/{{guest_org_id}}", collection.path());
        let settings = Arc::new(settings);
        let tokens = Tokens::new(client.clone(), Arc::clone(&settings))?;
        Ok(Self { client, settings, template: template.into(), tokens })
    }

    async fn send(&self, patch: Patch, authorization: Authorization) -> Reply {
        let deadline = Instant::now() + self.settings.attempt_timeout;
        let Ok(url) = self.url(&patch) else {
            // The same base was extended in `new`.
            return Reply::Unreachable(Obstacle::Unsent);
        };
        let span = http::span("PATCH", &url, &self.template, patch.resend_count);
        let serial = authorization.serial;
        let request = self
            .client
            .patch(url)
            .header(header::AUTHORIZATION, authorization.header)
            .header(wire::REQUESTER, patch.requester.to_string())
            .header(wire::TARGET, patch.connection.target.to_string())
            .json(&PatchBody { archived: patch.archived });
        let sent = http::send(request, deadline, self.settings.body_length_max, &span);
        match sent.instrument(span.clone()).await {
            Ok(answer) => {
                if answer.status != 401 {
                    self.tokens.accepted(patch.requester, serial);
                }
                drift::note(reply::drifts(&answer, patch.archived));
                Reply::Answered(answer)
            }
            Err(Failure::Unreachable(obstacle)) => Reply::Unreachable(obstacle),
            Err(Failure::Unanswered(_)) => Reply::Unanswered,
        }
    }

    fn url(&self, patch: &Patch) -> Result<Url, Error> {
        http::endpoint(&self.settings.base_url, &[COLLECTION, &patch.connection.guest.to_string()])
    }
}

impl Upstream for MyCreditApp {
    fn knows(&self, requester: OrganizationId) -> bool {
        self.settings.organizations.contains_key(&requester)
    }

    fn authorize(&self, requester: OrganizationId) -> BoxFuture<'_, Result<Authorization, Unauthorized>> {
        self.tokens.authorize(requester).boxed()
    }

    fn refuse(&self, requester: OrganizationId, authorization: &Authorization) {
        self.tokens.refuse(requester, authorization.serial);
    }

    fn patch(&self, patch: Patch, authorization: Authorization) -> BoxFuture<'_, Reply> {
        self.send(patch, authorization).boxed()
    }
}
