//! What is known of one organisation: where its API is, how it proves itself, and its token.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::http::HeaderValue;
use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use super::wire;
use super::{Credentials, Error, Organization, Settings, http};
use crate::domain::command::OrganizationId;
use crate::domain::reply::Unauthorized;
use crate::service::ports::Authorization;

/// The resource's place under the base URL.
const COLLECTION: &str = "guest-connections";

/// So many tokens refused in a row, none of them ever accepted, count as a failure of the token endpoint: whatever it
/// gives out is of no use, and asking on at once would only hammer it.
const REFUSALS_MAX: u32 = 2;

/// Serials of one member's tokens lie within so many bits; the member's number stands above.
const SERIAL_BITS: u32 = 32;

/// A token, or why there is none.
pub type Fetched = Result<Authorization, Unauthorized>;

/// How a token request ended, for those who wait for it.
#[derive(Clone)]
pub enum Ended {
    /// As it did.
    Fetched(Fetched),
    /// The credentials were replaced meanwhile: what they gave says nothing of the new ones.
    Outdated,
}

/// A token request under way.
pub type Fetch = watch::Receiver<Option<Ended>>;

/// An organisation at one API. One that moves to another base URL becomes another member: a token of the one API must
/// not be sent to the other.
pub struct Member {
    /// Which one, among all that ever were.
    number: u64,
    pub organization: OrganizationId,
    base_url: Url,
    /// The path with the guest's name in the place of its id, for spans.
    pub template: Arc<str>,
    /// The token endpoint.
    pub token_url: Url,
    slot: Mutex<Slot>,
}

/// How an organisation proves itself, ready for use.
#[derive(Clone)]
pub struct Proof {
    pub credentials: Credentials,
    /// The header of a static token.
    header: Option<HeaderValue>,
}

/// The token, and what happened to the last ones.
pub struct Slot {
    pub proof: Proof,
    /// Counts changes of the credentials.
    pub generation: u64,
    token: Option<Token>,
    /// The serial of the last token that was given out.
    serial: u64,
    /// Tells when the request under way has ended.
    pub fetch: Option<Fetch>,
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
    issued_at: Instant,
}

/// What a look into a slot finds.
pub enum Held {
    /// A token; and whether it is time for the next.
    Good(Authorization, bool),
    /// The reason why there is none.
    Paused(Unauthorized),
    /// Nothing.
    Empty,
}

impl Proof {
    /// # Errors
    /// The static token cannot be put into a header.
    pub fn new(organization: OrganizationId, credentials: Credentials) -> Result<Self, Error> {
        let header = match &credentials {
            Credentials::Client { .. } => None,
            Credentials::StaticToken(token) => {
                Some(wire::bearer(token.expose_secret()).ok_or(Error::StaticToken(organization))?)
            }
        };
        Ok(Self { credentials, header })
    }

    const fn is_static(&self) -> bool {
        self.header.is_some()
    }
}

impl Member {
    /// # Errors
    /// The base URL or the static token cannot be used.
    pub fn new(number: u64, organization: OrganizationId, settings: Organization) -> Result<Self, Error> {
        let Organization { base_url, credentials } = settings;
        let collection = http::endpoint(&base_url, &[COLLECTION])?;
        let template = format!("{}/{{guest_org_id}}", collection.path()).into();
        let token_url = http::endpoint(&base_url, &["oauth2", "token"])?;
        let slot = Mutex::new(Slot::new(number << SERIAL_BITS, Proof::new(organization, credentials)?));
        Ok(Self { number, organization, base_url, template, token_url, slot })
    }

    /// Whether it is the one for an API at `base_url`.
    pub fn is_at(&self, base_url: &Url) -> bool {
        self.base_url == *base_url
    }

    /// The address of a guest connection.
    ///
    /// # Errors
    /// None: the same base was extended in `new`.
    pub fn url(&self, guest: OrganizationId) -> Result<Url, Error> {
        http::endpoint(&self.base_url, &[COLLECTION, &guest.to_string()])
    }

    /// Whether a token is one of this member's.
    pub const fn has_issued(&self, serial: u64) -> bool {
        serial >> SERIAL_BITS == self.number
    }

    pub fn slot(&self) -> MutexGuard<'_, Slot> {
        // Every change of a slot is complete at each step, so a panic elsewhere leaves nothing half done.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn new(serial: u64, proof: Proof) -> Self {
        let mut slot = Self {
            proof,
            generation: 0,
            token: None,
            serial,
            fetch: None,
            failures: 0,
            refusals: 0,
            pause: None,
        };
        slot.hold_static(Instant::now());
        slot
    }

    /// Takes other credentials on. A client's old token serves until there is a new one. Yields whether one is to be got
    /// at once: whoever never needed a token needs none now.
    pub fn renew(&mut self, proof: Proof, now: Instant) -> bool {
        if self.proof.credentials.is_same(&proof.credentials) {
            return false;
        }
        let is_used = self.token.is_some() || self.pause.is_some() || self.fetch.is_some();
        // A static token that was refused stays in its place until it may be tried again.
        if self.proof.is_static() && self.refusals > 0 {
            self.token = None;
        }
        if let Some(token) = &mut self.token {
            token.refresh_at = now;
        }
        self.proof = proof;
        self.generation += 1;
        (self.fetch, self.pause, self.failures, self.refusals) = (None, None, 0, 0);
        self.hold_static(now);
        is_used && !self.proof.is_static()
    }

    pub fn look(&self, now: Instant) -> Held {
        let paused = self.pause.as_ref().filter(|(until, _)| *until > now);
        if let Some(token) = self.usable(now) {
            let is_due = !self.proof.is_static() && paused.is_none() && token.refresh_at <= now;
            return Held::Good(token.authorization.clone(), is_due);
        }
        match paused {
            None => Held::Empty,
            Some((until, Unauthorized::Unreachable { obstacle, .. })) => {
                let (obstacle, retry_after) = (*obstacle, Some(*until - now));
                Held::Paused(Unauthorized::Unreachable { obstacle, retry_after })
            }
            Some((until, Unauthorized::Unavailable { .. })) => {
                Held::Paused(Unauthorized::Unavailable { retry_after: Some(*until - now) })
            }
            Some((_, why)) => Held::Paused(why.clone()),
        }
    }

    /// The age of the token, if there is one that was issued here.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let token = self.usable(now).filter(|_| !self.proof.is_static())?;
        Some(now.saturating_duration_since(token.issued_at))
    }

    /// Whether the last request for one failed.
    pub const fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether there is a token that can be sent now.
    pub fn has_token(&self, now: Instant) -> bool {
        self.usable(now).is_some()
    }

    /// The token, if it can be sent now. A static one that was refused rests.
    fn usable(&self, now: Instant) -> Option<&Token> {
        let rests = self.proof.is_static() && self.pause.as_ref().is_some_and(|(until, _)| *until > now);
        let token = self.token.as_ref().filter(|_| !rests)?;
        token.usable_until.is_none_or(|until| until > now).then_some(token)
    }

    /// Drops the token with this serial, if it is still the one in use. Yields whether it was.
    pub fn refuse(&mut self, serial: u64, now: Instant, settings: &Settings) -> bool {
        if self.token.as_ref().is_none_or(|token| token.authorization.serial != serial) {
            return false;
        }
        self.refusals += 1;
        if self.proof.is_static() {
            // There is no other: it is tried again after a pause, since the API may have been at fault.
            self.rest(Unauthorized::Refused, now, settings);
        } else {
            self.token = None;
            if self.refusals >= REFUSALS_MAX {
                self.rest(Unauthorized::Refused, now, settings);
            }
        }
        true
    }

    /// Notes that the API took the token with this serial.
    pub fn accepted(&mut self, serial: u64) {
        if self.refusals > 0 && self.token.as_ref().is_some_and(|token| token.authorization.serial == serial)
        {
            self.refusals = 0;
            self.failures = 0;
        }
    }

    /// Enters a token that was given out. Its lifetime is counted from `started`, when it was asked for.
    pub fn issued(
        &mut self,
        header: HeaderValue,
        lifetime: Duration,
        started: Instant,
        settings: &Settings,
    ) -> Authorization {
        if self.refusals == 0 {
            self.failures = 0;
        }
        self.pause = None;
        // It must last for the attempt that it is given out for.
        let usable = lifetime.saturating_sub(settings.attempt_timeout.min(lifetime / 10));
        let margin = settings.token_refresh_margin.min(lifetime / 4);
        let jitter = 0.5 + rand::random::<f64>() / 2.0;
        self.hold(header, started + usable - margin.mul_f64(jitter), Some(started + usable))
    }

    /// Makes no request for a while; the wait grows from failure to failure. Yields why, and for how long.
    pub fn rest(&mut self, why: Unauthorized, now: Instant, settings: &Settings) -> Unauthorized {
        self.failures = self.failures.saturating_add(1);
        let hint = match &why {
            Unauthorized::Unavailable { retry_after } => *retry_after,
            _ => None,
        };
        let delay = settings.token_backoff.deferral(self.failures, hint, rand::random());
        self.pause = Some((now + delay, why.clone()));
        match why {
            Unauthorized::Unavailable { .. } => Unauthorized::Unavailable { retry_after: Some(delay) },
            Unauthorized::Unreachable { obstacle, .. } => {
                Unauthorized::Unreachable { obstacle, retry_after: Some(delay) }
            }
            why => why,
        }
    }

    fn hold_static(&mut self, now: Instant) {
        if let Some(header) = self.proof.header.clone() {
            self.hold(header, now, None);
        }
    }

    fn hold(
        &mut self,
        header: HeaderValue,
        refresh_at: Instant,
        usable_until: Option<Instant>,
    ) -> Authorization {
        self.serial += 1;
        let authorization = Authorization { header, serial: self.serial };
        let issued_at = Instant::now();
        self.token =
            Some(Token { authorization: authorization.clone(), refresh_at, usable_until, issued_at });
        authorization
    }
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
