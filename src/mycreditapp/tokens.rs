//! Bearer tokens, one slot for each organisation: cached, replaced ahead of expiry, one request at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::http::HeaderValue;
use reqwest::Client;
use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument as _;
use url::Url;

use super::failure::Failure;
use super::http;
use super::wire::{self, IssuedToken, TokenRequest};
use super::{Credentials, Error, Settings};
use crate::domain::command::OrganizationId;
use crate::domain::reply::Unauthorized;
use crate::service::ports::Authorization;
use crate::telemetry::drift;

/// The most of a token answer that is read, in bytes.
const BODY_LENGTH_MAX: usize = 64 * 1024;

/// So many tokens refused in a row, none of them ever accepted, count as a failure of the token endpoint: whatever it
/// gives out is of no use, and asking on at once would only hammer it.
const REFUSALS_MAX: u32 = 2;

type Fetched = Result<Authorization, Unauthorized>;

/// What a look into a slot finds.
enum Held {
    /// A token, or the reason why there is none.
    Known(Fetched),
    /// A request under way, to be waited for.
    Fetching(watch::Receiver<Option<Fetched>>),
}

/// The tokens of all organisations. Cloning shares them.
#[derive(Clone)]
pub struct Tokens {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    settings: Arc<Settings>,
    url: Url,
    slots: HashMap<OrganizationId, Mutex<Slot>>,
}

/// What is known of one organisation's token.
#[derive(Default)]
struct Slot {
    token: Option<Token>,
    /// The serial of the last token that was given out.
    serial: u64,
    /// Tells when the request under way has ended.
    fetch: Option<watch::Receiver<Option<Fetched>>>,
    /// Failed requests in a row.
    failures: u32,
    /// Refused tokens in a row.
    refusals: u32,
    /// No request is made before this, and why.
    pause: Option<(Instant, Unauthorized)>,
}

struct Token {
    authorization: Authorization,
    /// From here on a new one is got in the background.
    refresh_at: Instant,
    /// From here on it is not used any more. `None`: for ever.
    usable_until: Option<Instant>,
}

impl Tokens {
    /// Sets up a slot for each organisation. Nothing is sent yet.
    pub(super) fn new(client: Client, settings: Arc<Settings>) -> Result<Self, Error> {
        let url = http::endpoint(&settings.base_url, &["oauth2", "token"])?;
        let mut slots = HashMap::new();
        for (organization, credentials) in &settings.organizations {
            let mut slot = Slot::default();
            if let Credentials::StaticToken(token) = credentials {
                let header = wire::bearer(token.expose_secret()).ok_or(Error::StaticToken(*organization))?;
                slot.hold(header, Instant::now(), None);
            }
            slots.insert(*organization, Mutex::new(slot));
        }
        Ok(Self { shared: Arc::new(Shared { client, settings, url, slots }) })
    }

    /// A good token, from the cache if there is one.
    pub(super) async fn authorize(&self, requester: OrganizationId) -> Fetched {
        let mut fetch = match self.look(requester) {
            Held::Known(known) => return known,
            Held::Fetching(fetch) => fetch,
        };
        let fetched = fetch.wait_for(Option::is_some).await.ok().and_then(|fetched| fetched.clone());
        // Without an answer the task was lost together with its runtime.
        fetched.unwrap_or(Err(Unauthorized::Unavailable { retry_after: None }))
    }

    fn look(&self, requester: OrganizationId) -> Held {
        let Some((mut slot, credentials)) = self.slot(requester) else {
            return Held::Known(Err(Unauthorized::NotConfigured));
        };
        let now = Instant::now();
        let paused = slot.pause.clone().filter(|(until, _)| *until > now);
        let good = slot.token.as_ref().filter(|token| token.usable_until.is_none_or(|until| until > now));
        if let Some(token) = good {
            let authorization = token.authorization.clone();
            return Held::Known(match (credentials, paused) {
                (Credentials::StaticToken(_), Some((_, why))) => Err(why),
                (Credentials::Client { .. }, None) if token.refresh_at <= now => {
                    self.fetch(&mut slot, requester);
                    Ok(authorization)
                }
                _ => Ok(authorization),
            });
        }
        match paused {
            None => Held::Fetching(self.fetch(&mut slot, requester)),
            Some((until, Unauthorized::Unavailable { .. })) => {
                Held::Known(Err(Unauthorized::Unavailable { retry_after: Some(until - now) }))
            }
            Some((until, Unauthorized::Unreachable { obstacle, .. })) => {
                Held::Known(Err(Unauthorized::Unreachable { obstacle, retry_after: Some(until - now) }))
            }
            Some((_, why)) => Held::Known(Err(why)),
        }
    }

    /// Drops the token with this serial, if it is still the one in use.
    pub(super) fn refuse(&self, requester: OrganizationId, serial: u64) {
        let Some((mut slot, credentials)) = self.slot(requester) else { return };
        if slot.token.as_ref().is_none_or(|token| token.authorization.serial != serial) {
            return;
        }
        slot.refusals += 1;
        match credentials {
            // There is no other: it is tried again after a pause, since the API may have been at fault.
            Credentials::StaticToken(_) => self.pause(&mut slot, Unauthorized::Refused),
            Credentials::Client { .. } => {
                slot.token = None;
                if slot.refusals >= REFUSALS_MAX {
                    self.pause(&mut slot, Unauthorized::Refused);
                }
            }
        }
        tracing::warn!(organization = %requester, "the upstream refused a token");
    }

    /// Notes that the API took the token with this serial.
    pub(super) fn accepted(&self, requester: OrganizationId, serial: u64) {
        let Some((mut slot, _)) = self.slot(requester) else { return };
        if slot.refusals > 0 && slot.token.as_ref().is_some_and(|token| token.authorization.serial == serial)
        {
            slot.refusals = 0;
            slot.failures = 0;
        }
    }

    fn slot(&self, requester: OrganizationId) -> Option<(MutexGuard<'_, Slot>, &Credentials)> {
        let slot = self.shared.slots.get(&requester)?;
        let credentials = self.shared.settings.organizations.get(&requester)?;
        // Every change of a slot is complete at each step, so a panic elsewhere leaves nothing half done.
        Some((slot.lock().unwrap_or_else(PoisonError::into_inner), credentials))
    }

    /// Joins the request under way or starts one. It runs on its own: no waiter's end ends it.
    fn fetch(&self, slot: &mut Slot, requester: OrganizationId) -> watch::Receiver<Option<Fetched>> {
        if let Some(fetch) = slot.fetch.as_ref().filter(|fetch| fetch.has_changed().is_ok()) {
            return fetch.clone();
        }
        let (done, fetch) = watch::channel(None);
        slot.fetch = Some(fetch.clone());
        let tokens = self.clone();
        let task = async move {
            let started = Instant::now();
            let issued = tokens.request(requester).await;
            let fetched = tokens.enter(requester, started, issued);
            done.send_replace(Some(fetched));
        };
        tokio::spawn(task.in_current_span());
        fetch
    }

    /// Enters the result of a request into the slot.
    fn enter(
        &self,
        requester: OrganizationId,
        started: Instant,
        issued: Result<IssuedToken, Unauthorized>,
    ) -> Fetched {
        let Some((mut slot, _)) = self.slot(requester) else {
            return Err(Unauthorized::NotConfigured);
        };
        slot.fetch = None;
        match issued {
            Ok(IssuedToken { header, lifetime }) => {
                if slot.refusals == 0 {
                    slot.failures = 0;
                }
                slot.pause = None;
                Ok(slot.hold(header, started, Some((lifetime, self.shared.settings.as_ref()))))
            }
            Err(why) => {
                self.pause(&mut slot, why.clone());
                Err(why)
            }
        }
    }

    fn pause(&self, slot: &mut Slot, why: Unauthorized) {
        slot.failures = slot.failures.saturating_add(1);
        let hint = match &why {
            Unauthorized::Unavailable { retry_after } => *retry_after,
            _ => None,
        };
        let delay = self.shared.settings.token_backoff.deferral(slot.failures, hint, rand::random());
        slot.pause = Some((Instant::now() + delay, why));
    }

    /// One token request.
    async fn request(&self, requester: OrganizationId) -> Result<IssuedToken, Unauthorized> {
        let Shared { client, settings, url, .. } = self.shared.as_ref();
        let Some(Credentials::Client { client_id, client_secret }) = settings.organizations.get(&requester)
        else {
            return Err(Unauthorized::Refused);
        };
        let span = http::span("POST", url, url.path(), 0);
        let body = TokenRequest { client_id, client_secret: client_secret.expose_secret() };
        let request = client.post(url.clone()).json(&body);
        let deadline = Instant::now() + settings.attempt_timeout;
        let sent = http::send(request, deadline, BODY_LENGTH_MAX, &span).instrument(span.clone());
        let unavailable = |retry_after| Err(Unauthorized::Unavailable { retry_after });
        let answer = match sent.await {
            Ok(answer) => answer,
            Err(Failure::Unreachable(obstacle)) => {
                return Err(Unauthorized::Unreachable { obstacle, retry_after: None });
            }
            Err(Failure::Unanswered(_)) => return unavailable(None),
        };
        drift::note(wire::token_drifts(&answer));
        // What is logged from here on is this request's and not that of the command which set it off.
        let _entered = span.enter();
        let issued = answer.body.as_deref().and_then(wire::issued_token);
        match (answer.status, issued) {
            (200..=299, Some(issued)) => Ok(issued),
            (200..=299, None) => {
                tracing::error!(organization = %requester, "the token endpoint's answer holds no token");
                unavailable(None)
            }
            (status @ (400 | 401 | 403 | 422), _) => {
                tracing::error!(organization = %requester, status, "the token endpoint refused the credentials");
                Err(Unauthorized::Refused)
            }
            (status, _) => {
                tracing::warn!(organization = %requester, status, "the token endpoint gives no token");
                unavailable(answer.retry_after)
            }
        }
    }
}

impl Slot {
    /// Puts a token in the place of the last one. A lifetime is counted from `started`, when it was asked for.
    fn hold(
        &mut self,
        header: HeaderValue,
        started: Instant,
        lifetime: Option<(Duration, &Settings)>,
    ) -> Authorization {
        self.serial += 1;
        let authorization = Authorization { header, serial: self.serial };
        let (refresh_at, usable_until) = match lifetime {
            None => (started, None),
            Some((lifetime, settings)) => {
                // It must last for the attempt that it is given out for.
                let usable = lifetime.saturating_sub(settings.attempt_timeout.min(lifetime / 10));
                let margin = settings.token_refresh_margin.min(lifetime / 4);
                let jitter = 0.5 + rand::random::<f64>() / 2.0;
                (started + usable - margin.mul_f64(jitter), Some(started + usable))
            }
        };
        self.token = Some(Token { authorization: authorization.clone(), refresh_at, usable_until });
        authorization
    }
}
