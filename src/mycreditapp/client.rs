//! The one call: `PATCH {base}/guest-connections/{guest_org_id}`.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use opentelemetry::KeyValue;
use reqwest::dns::Resolve;
use reqwest::{Client, header};
use tokio::time::Instant;

use super::failure::Failure;
use super::http;
use super::tokens::{Census, Tokens};
use super::wire::{self, PatchBody};
use super::{Error, Organization, Settings};
use crate::domain::command::OrganizationId;
use crate::domain::obstacle::Obstacle;
use crate::domain::reply::{Reply, Unauthorized};
use crate::service::ports::{Authorization, Patch, Upstream};
use crate::telemetry::instruments::instruments;
use crate::telemetry::metrics::listed;

/// The API as the service's [`Upstream`]. Cloning shares connections, organisations and tokens.
#[derive(Clone)]
pub struct MyCreditApp {
    client: Client,
    settings: Arc<Settings>,
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
        let organizations = settings.organizations.clone();
        let settings = Arc::new(settings);
        let tokens = Tokens::new(client.clone(), Arc::clone(&settings));
        tokens.replace(organizations)?;
        Ok(Self { client, settings, tokens })
    }

    /// Puts `organizations` in the place of those there are, all or none of them. Requests under way go on with what they
    /// have.
    ///
    /// An organisation whose credentials and base URL are as they were keeps its token. With another secret the old token
    /// serves on while one is got with the new secret, at once, even if the old one had failed; another static token is
    /// used from now on. Must be called within a runtime.
    ///
    /// # Errors
    /// A base URL or a static token cannot be used; nothing was changed.
    pub fn replace(&self, organizations: HashMap<OrganizationId, Organization>) -> Result<(), Error> {
        self.tokens.replace(organizations)
    }

    /// The tokens in numbers.
    #[must_use]
    pub fn tokens(&self) -> Census {
        self.tokens.census()
    }

    async fn send(&self, patch: Patch, authorization: Authorization) -> Reply {
        let deadline = Instant::now() + self.settings.attempt_timeout;
        let Some(member) = self.tokens.member(patch.requester) else {
            return Reply::Unauthorized(Unauthorized::NotConfigured);
        };
        let serial = authorization.serial;
        if !member.has_issued(serial) {
            // The organisation has moved since the token was got, which must not go to another API.
            return Reply::Unauthorized(Unauthorized::Unavailable { retry_after: None });
        }
        let Ok(url) = member.url(patch.connection.guest) else { return Reply::Unreachable(Obstacle::Unsent) };
        let about = http::about("PATCH", &url, Arc::clone(&member.template), patch.resend_count);
        http::note_waits(&about.span, patch.retry_wait, patch.gate_wait);
        let token = authorization.header.as_bytes().to_vec();
        let request = self
            .client
            .patch(url)
            .header(header::AUTHORIZATION, authorization.header)
            .header(wire::REQUESTER, patch.requester.to_string())
            .header(wire::TARGET, patch.connection.target.to_string())
            .json(&PatchBody { archived: patch.archived });
        let sent = http::send(request, deadline, self.settings.body_length_max, about).await;
        if let Some(organization) = listed(patch.requester) {
            let status = sent.as_ref().map_or(0, |answer| answer.status);
            let status = KeyValue::new("http.response.status_code", i64::from(status));
            instruments().organization_requests.add(1, &[organization, status]);
        }
        match sent {
            Ok(mut answer) => {
                answer.body = answer.body.map(|body| wire::without(body, &token));
                if answer.status != 401 {
                    self.tokens.accepted(patch.requester, serial);
                }
                Reply::Answered(answer)
            }
            Err(Failure::Unreachable(obstacle)) => Reply::Unreachable(obstacle),
            Err(Failure::Unanswered(_)) => Reply::Unanswered,
        }
    }
}

impl Upstream for MyCreditApp {
    fn knows(&self, requester: OrganizationId) -> bool {
        self.tokens.member(requester).is_some()
    }

    fn is_ready(&self, requester: OrganizationId) -> bool {
        self.tokens.is_ready(requester)
    }

    fn authorize(
        &self,
        requester: OrganizationId,
        anew: bool,
    ) -> BoxFuture<'_, Result<Authorization, Unauthorized>> {
        self.tokens.authorize(requester, anew).boxed()
    }

    fn refuse(&self, requester: OrganizationId, authorization: &Authorization) {
        self.tokens.refuse(requester, authorization.serial);
    }

    fn patch(&self, patch: Patch, authorization: Authorization) -> BoxFuture<'_, Reply> {
        self.send(patch, authorization).boxed()
    }
}
