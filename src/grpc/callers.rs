//! Who calls: what a call proves, whose identity that is, and how often it may.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use tonic::transport::server::TcpConnectInfo;

use super::peer::Peer;
use super::records;
use crate::domain::access::{AskedBy, Identity, Method, Policy, Principal, not_permitted};
use crate::domain::command::OrganizationId;
use crate::domain::error::{Reason, Refusal};
use crate::jwt::Verifier;
use crate::telemetry::catalogue as metric;

/// Of refusals one is logged in this time, at most. All of them are counted.
const LOG_INTERVAL: Duration = Duration::from_millis(200);

/// Who calls, kept in the request's extensions.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The principal. Absent where nobody has to prove who they are.
    pub principal: Option<Arc<Principal>>,
    /// What is kept of it with a command.
    pub asked_by: AskedBy,
}

impl Caller {
    /// Whether it may do this, whatever the store says.
    ///
    /// # Errors
    /// `NOT_PERMITTED`.
    pub fn permit(&self, method: Method, organization: OrganizationId) -> Result<(), Refusal> {
        self.principal.as_ref().map_or(Ok(()), |principal| principal.permit(method, organization))
    }

    /// Whether it may use the method at all.
    ///
    /// # Errors
    /// `NOT_PERMITTED`.
    pub fn permit_some(&self, method: Method) -> Result<(), Refusal> {
        let may = self.principal.as_ref().is_none_or(|principal| principal.methods.contains(&method));
        may.then_some(()).ok_or_else(not_permitted)
    }

    /// Whether what is the organisation's may be shown to it.
    #[must_use]
    pub fn sees(&self, organization: OrganizationId) -> bool {
        self.principal.as_ref().is_none_or(|principal| principal.organizations.holds(organization))
    }
}

/// Why a call is refused. Callers are not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It proves nothing.
    Nothing,
    /// Its `authorization` is none, or not one, bearer token.
    Authorization,
    /// It has a token where none are taken.
    TokenNotTaken,
    /// Its token is not good.
    Token(crate::jwt::Fault),
    /// What it proves is nobody's here.
    Unknown,
}

impl Fault {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing_proved",
            Self::Authorization => "authorization_malformed",
            Self::TokenNotTaken => "token_not_taken",
            Self::Token(fault) => fault.as_str(),
            Self::Unknown => "identity_unknown",
        }
    }
}

/// What may change while the adapter runs.
#[derive(Default)]
struct Known {
    /// Whether callers must prove who they are.
    is_asking: bool,
    policy: Policy,
    limiters: HashMap<String, Arc<Limiter>>,
}

struct Limiter {
    requests_per_second: f64,
    limiter: DefaultDirectRateLimiter,
}

/// Knows callers. Cloning shares it.
#[derive(Clone)]
pub struct Callers {
    inner: Arc<Inner>,
}

struct Inner {
    known: RwLock<Known>,
    verifier: Option<Arc<Verifier>>,
    refused: Counter<u64>,
    log: DefaultDirectRateLimiter,
}

impl Callers {
    /// Nobody is asked yet. Who is will have to prove who it is by a certificate or, with a `verifier`, by a token.
    #[must_use]
    pub fn new(verifier: Option<Arc<Verifier>>) -> Self {
        let refused = metric::UNAUTHENTICATED.counter();
        let quota = Quota::with_period(LOG_INTERVAL).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let log = RateLimiter::direct(quota);
        Self { inner: Arc::new(Inner { known: RwLock::default(), verifier, refused, log }) }
    }

    /// Takes over who is who, and how often `principals` may call. May be called again at any time. Once there were
    /// principals, everyone has to be one: what loses them by mistake must not open the door.
    pub fn configure<'a>(&self, policy: Policy, principals: impl Iterator<Item = (&'a str, Option<f64>)>) {
        let mut known = self.inner.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut is_asking = known.is_asking;
        let limiters = principals.inspect(|_| is_asking = true).filter_map(|(name, rate)| {
            let rate = rate?;
            // One that stays as it is keeps what it has counted.
            let same = |kept: &&Arc<Limiter>| kept.requests_per_second.to_bits() == rate.to_bits();
            let kept = known.limiters.get(name).filter(same).cloned();
            Some((name.to_owned(), kept.or_else(|| Limiter::new(rate).map(Arc::new))?))
        });
        let limiters = limiters.collect();
        *known = Known { is_asking, policy, limiters };
    }

    /// Who calls.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, or `OVERLOADED` if it calls too often.
    pub async fn identify(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Caller, Refusal> {
        let peer = extensions.get::<Peer>();
        let transport = || extensions.get::<TcpConnectInfo>()?.remote_addr();
        let address = peer.and_then(|peer| peer.address).or_else(transport);
        let address = address.map(|address| address.to_string());
        let inner = &self.inner;
        let give_proof = || peer.map_or((), |peer| peer.proof.give());
        if !inner.known.read().unwrap_or_else(PoisonError::into_inner).is_asking {
            give_proof();
            return Ok(Caller { principal: None, asked_by: AskedBy { principal: None, address } });
        }
        let names = peer.map_or::<&[String], _>(&[], |peer| &peer.names);
        let principal = inner.principal(headers, names).await.map_err(|fault| {
            let kind = fault.as_str();
            inner.refused.add(1, &[KeyValue::new("reason", kind)]);
            if inner.log.check().is_ok() {
                records::CallRefused { reason: kind, address: address.as_deref() }.log();
            }
            unauthenticated()
        })?;
        give_proof();
        inner.pace(&principal)?;
        let asked_by = AskedBy { principal: Some(principal.name.clone()), address };
        Ok(Caller { principal: Some(principal), asked_by })
    }
}

impl Inner {
    /// A token has the first word: one that is not good is refused whatever else is proved.
    async fn principal(&self, headers: &HeaderMap, names: &[String]) -> Result<Arc<Principal>, Fault> {
        let subject = match (token(headers)?, &self.verifier) {
            (None, _) => None,
            (Some(_), None) => return Err(Fault::TokenNotTaken),
            (Some(token), Some(verifier)) => Some(verifier.subject(token).await.map_err(Fault::Token)?),
        };
        if subject.is_none() && names.is_empty() {
            return Err(Fault::Nothing);
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let names = names.iter().cloned().map(Identity::CertificateName);
        let mut proved = subject.map(Identity::JwtSubject).into_iter().chain(names);
        proved.find_map(|identity| known.policy.principal(&identity).cloned()).ok_or(Fault::Unknown)
    }

    fn pace(&self, principal: &Principal) -> Result<(), Refusal> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let Some(limiter) = known.limiters.get(&principal.name).cloned() else { return Ok(()) };
        drop(known);
        limiter.limiter.check().map_err(|until| {
            let text = "the caller calls more often than it may; nothing was begun";
            Refusal::new(Reason::Overloaded, text)
                .retry_after(until.wait_time_from(DefaultClock::default().now()))
        })
    }
}

impl Limiter {
    /// A second's calls may come at once.
    fn new(requests_per_second: f64) -> Option<Self> {
        let period = Duration::try_from_secs_f64(1.0 / requests_per_second).ok()?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the configuration's rules keep it from 0.01 to 100,000"
        )]
        let burst = NonZeroU32::new(requests_per_second as u32).unwrap_or(NonZeroU32::MIN);
        let limiter = RateLimiter::direct(Quota::with_period(period)?.allow_burst(burst));
        Some(Self { requests_per_second, limiter })
    }
}

/// The bearer token (RFC 6750), if there is an `authorization` at all.
fn token(headers: &HeaderMap) -> Result<Option<&str>, Fault> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Fault::Authorization);
    }
    let text = value.to_str().map_err(|_| Fault::Authorization)?;
    let (scheme, token) = text.split_once(' ').ok_or(Fault::Authorization)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Fault::Authorization);
    }
    Ok(Some(token.trim()))
}

fn unauthenticated() -> Refusal {
    Refusal::new(Reason::Unauthenticated, "the caller has not proved who it is")
}

#[cfg(test)]
#[path = "callers_tests.rs"]
mod tests;
