//! Bearer tokens of all organisations: cached, replaced ahead of expiry, one request at a time for each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use reqwest::Client;
use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::failure::Failure;
use super::http;
use super::slot::{Ended, Fetch, Fetched, Held, Member, Proof, Slot};
use super::wire::{self, IssuedToken, TokenRequest};
use super::{Credentials, Error, Organization, Settings, records};
use crate::domain::command::OrganizationId;
use crate::domain::reply::Unauthorized;
use crate::telemetry::drift;
use crate::telemetry::span::Span;

/// The most of a token answer that is read, in bytes.
const BODY_LENGTH_MAX: usize = 64 * 1024;

/// Organisations and their tokens. Cloning shares them.
#[derive(Clone)]
pub struct Tokens {
    shared: Arc<Shared>,
}

/// The tokens in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Organisations that have one.
    pub valid: u64,
    /// Organisations that got none when they asked last.
    pub failing: u64,
    /// The age of the oldest one that was got and is in use.
    pub oldest: Option<Duration>,
}

struct Shared {
    client: Client,
    settings: Arc<Settings>,
    members: RwLock<Arc<Members>>,
    /// The number of the next member. Held while members are replaced.
    next: Mutex<u64>,
}

type Members = HashMap<OrganizationId, Arc<Member>>;

impl Tokens {
    /// Without organisations yet.
    pub(super) fn new(client: Client, settings: Arc<Settings>) -> Self {
        let (members, next) = (RwLock::default(), Mutex::new(0));
        Self { shared: Arc::new(Shared { client, settings, members, next }) }
    }

    /// The organisation as it is configured now.
    pub(super) fn member(&self, requester: OrganizationId) -> Option<Arc<Member>> {
        self.members().get(&requester).cloned()
    }

    fn members(&self) -> Arc<Members> {
        Arc::clone(&self.shared.members.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `organizations` in the place of those there are, all or none of them. One that stays where it was keeps its
    /// token. Must be called within a runtime.
    ///
    /// # Errors
    /// A base URL or a static token cannot be used.
    pub(super) fn replace(&self, organizations: HashMap<OrganizationId, Organization>) -> Result<(), Error> {
        let mut next = self.shared.next.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.members();
        let (mut members, mut renewals) = (HashMap::new(), Vec::new());
        for (id, organization) in organizations {
            let stays = present.get(&id).filter(|member| member.is_at(&organization.base_url));
            let member = if let Some(member) = stays {
                renewals.push((Arc::clone(member), Proof::new(id, organization.credentials)?));
                Arc::clone(member)
            } else {
                *next += 1;
                Arc::new(Member::new(*next - 1, id, organization)?)
            };
            members.insert(id, member);
        }
        *self.shared.members.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(members);
        for (member, proof) in renewals {
            let mut slot = member.slot();
            if slot.renew(proof, Instant::now()) {
                self.fetch(&mut slot, &member);
            }
        }
        Ok(())
    }

    /// A good token, from the cache if there is one. With `anew` it is asked for at once also after failures.
    pub(super) async fn authorize(&self, requester: OrganizationId, anew: bool) -> Fetched {
        loop {
            let mut fetch = {
                let member = self.member(requester).ok_or(Unauthorized::NotConfigured)?;
                let mut slot = member.slot();
                match slot.look(Instant::now()) {
                    Held::Good(authorization, is_due) => {
                        if is_due {
                            self.fetch(&mut slot, &member);
                        }
                        return Ok(authorization);
                    }
                    Held::Paused(Unauthorized::Unavailable { .. } | Unauthorized::Unreachable { .. })
                        if anew =>
                    {
                        self.fetch(&mut slot, &member)
                    }
                    Held::Paused(why) => return Err(why),
                    Held::Empty => self.fetch(&mut slot, &member),
                }
            };
            let ended = fetch.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
            match ended {
                Some(Ended::Fetched(fetched)) => return fetched,
                Some(Ended::Outdated) => {}
                // Without an answer the task was lost together with its runtime.
                None => return Err(Unauthorized::Unavailable { retry_after: None }),
            }
        }
    }

    /// How many there are, and how old.
    pub(super) fn census(&self) -> Census {
        let now = Instant::now();
        let mut census = Census::default();
        for member in self.members().values() {
            let slot = member.slot();
            census.valid += u64::from(slot.has_token(now));
            census.failing += u64::from(slot.is_failing());
            census.oldest = census.oldest.max(slot.age(now));
        }
        census
    }

    /// Whether [`Self::authorize`] would yield a token without waiting.
    pub(super) fn is_ready(&self, requester: OrganizationId) -> bool {
        self.member(requester)
            .is_some_and(|member| matches!(member.slot().look(Instant::now()), Held::Good(..)))
    }

    /// Drops the token with this serial, if it is still the one in use.
    pub(super) fn refuse(&self, requester: OrganizationId, serial: u64) {
        let Some(member) = self.member(requester) else { return };
        if member.slot().refuse(serial, Instant::now(), &self.shared.settings) {
            records::TokenRefused { organization: requester }.log();
        }
    }

    /// Notes that the API took the token with this serial.
    pub(super) fn accepted(&self, requester: OrganizationId, serial: u64) {
        if let Some(member) = self.member(requester) {
            member.slot().accepted(serial);
        }
    }

    /// Joins the request under way or starts one. It runs on its own: no waiter's end ends it.
    fn fetch(&self, slot: &mut Slot, member: &Arc<Member>) -> Fetch {
        if let Some(fetch) = slot.fetch.as_ref().filter(|fetch| fetch.has_changed().is_ok()) {
            return fetch.clone();
        }
        let (done, fetch) = watch::channel(None);
        slot.fetch = Some(fetch.clone());
        let (tokens, member) = (self.clone(), Arc::clone(member));
        let (generation, credentials) = (slot.generation, slot.proof.credentials.clone());
        let task = async move {
            let started = Instant::now();
            let issued = tokens.request(&member, &credentials).await;
            done.send_replace(Some(tokens.enter(&member, generation, started, issued)));
        };
        tokio::spawn(Span::present().around(task));
        fetch
    }

    /// Enters the result of a request into the slot.
    fn enter(
        &self,
        member: &Member,
        generation: u64,
        started: Instant,
        issued: Result<IssuedToken, Unauthorized>,
    ) -> Ended {
        let mut slot = member.slot();
        if slot.generation != generation {
            return Ended::Outdated;
        }
        slot.fetch = None;
        let settings = &self.shared.settings;
        Ended::Fetched(match issued {
            Ok(IssuedToken { header, lifetime }) => Ok(slot.issued(header, lifetime, started, settings)),
            Err(why) => Err(slot.rest(why, Instant::now(), settings)),
        })
    }

    /// One token request.
    async fn request(&self, member: &Member, credentials: &Credentials) -> Result<IssuedToken, Unauthorized> {
        let Shared { client, settings, .. } = self.shared.as_ref();
        let (url, requester) = (&member.token_url, member.organization);
        let Credentials::Client { client_id, client_secret } = credentials else {
            return Err(Unauthorized::Refused);
        };
        let about = http::about("POST", url, url.path().into(), 0);
        let span = about.span.clone();
        let body = TokenRequest { client_id, client_secret: client_secret.expose_secret() };
        let request = client.post(url.clone()).json(&body);
        let deadline = Instant::now() + settings.attempt_timeout;
        let sent = http::send(request, deadline, BODY_LENGTH_MAX, about);
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
        span.within(|| {
            let issued = answer.body.as_deref().and_then(wire::issued_token);
            match (answer.status, issued) {
                (200..=299, Some(issued)) => Ok(issued),
                (200..=299, None) => {
                    records::TokenUnreadable { organization: requester }.log();
                    unavailable(None)
                }
                (status @ (400 | 401 | 403 | 422), _) => {
                    records::CredentialsRefused { organization: requester, status }.log();
                    Err(Unauthorized::Refused)
                }
                (status, _) => {
                    records::TokenDenied { organization: requester, status }.log();
                    unavailable(answer.retry_after)
                }
            }
        })
    }
}
