//! Keys from a URL, fetched again and again; what was got last holds for as long as nothing better is got.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use reqwest::Client;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use url::Url;

use super::keys::{Keys, LENGTH_MAX};
use super::records;
use crate::mycreditapp::roots;
use crate::service::readiness::{Condition, Part};

/// The time for one fetch, from the connection to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The wait after a first failure; it doubles up to the usual interval.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Fetches for the sake of unknown keys: one in this time on average, and a few at once. Callers make key ids up freely.
const ASKED_INTERVAL: Duration = Duration::from_secs(5);
const ASKED_BURST: u32 = 5;

/// Where keys come from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The URL of the key set.
    pub url: Url,
    /// How often it is fetched.
    pub interval: Duration,
    /// Certificate authorities that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate authorities cannot be used.
    #[error(transparent)]
    Roots(#[from] roots::Error),
    /// The HTTP client cannot be made.
    #[error("the HTTP client for keys cannot be made")]
    Client(#[from] reqwest::Error),
}

/// The numbers of fetches.
#[derive(Default)]
struct Rounds {
    /// Of the last one that was begun.
    begun: u64,
    /// Of the last one that is wanted.
    asked: u64,
}

/// Fetches keys by the clock, and when a token names one that is not known.
pub struct Refresh {
    settings: Settings,
    client: Client,
    rounds: Mutex<Rounds>,
    wanted: Notify,
    /// The number of the last fetch that ended.
    ended: watch::Sender<u64>,
    limiter: DefaultDirectRateLimiter,
}

impl Refresh {
    /// Fetches nothing yet.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let mut builder = Client::builder();
        if let Some(file) = &settings.ca_file {
            builder = builder.tls_certs_merge(roots::read(file)?);
        }
        let client = builder
            .user_agent(concat!("guest-connection-adapter/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .timeout(FETCH_TIMEOUT)
            .build()?;
        let quota = Quota::with_period(ASKED_INTERVAL).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let burst = NonZeroU32::new(ASKED_BURST).unwrap_or(NonZeroU32::MIN);
        Ok(Self {
            settings,
            client,
            rounds: Mutex::default(),
            wanted: Notify::new(),
            ended: watch::Sender::new(0),
            limiter: RateLimiter::direct(quota.allow_burst(burst)),
        })
    }

    /// Asks for a fetch and waits for its end, whatever that is. Does nothing if it has been asked for too often.
    pub(super) async fn ask(&self) {
        let Some(number) = self.number() else { return };
        let mut ended = self.ended.subscribe();
        // One that is under way may have to end first. Nobody fetches any more while the adapter stops.
        let _ = timeout(2 * FETCH_TIMEOUT, ended.wait_for(|ended| *ended >= number)).await;
    }

    /// The number of the fetch to wait for.
    fn number(&self) -> Option<u64> {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        if rounds.asked > rounds.begun {
            return Some(rounds.asked);
        }
        if self.limiter.check().is_ok() {
            rounds.asked = rounds.begun + 1;
            self.wanted.notify_one();
            return Some(rounds.asked);
        }
        // One that was begun before may still bring the key.
        (rounds.begun > *self.ended.borrow()).then_some(rounds.begun)
    }

    /// Fetches for ever, and gives good keys to `take`.
    pub(super) async fn run(&self, take: impl Fn(Keys), part: &Part) {
        let mut failures = 0_u32;
        let mut is_known = false;
        loop {
            let number = {
                let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
                rounds.begun += 1;
                rounds.begun
            };
            match self.fetch().await {
                Ok(keys) => {
                    take(keys);
                    is_known = true;
                    if failures > 0 {
                        records::KeysFetched.log();
                    }
                    failures = 0;
                    part.set(Condition::Ready);
                }
                Err(cause) => {
                    if failures == 0 {
                        records::KeysUnfetched { cause: &cause }.log();
                    }
                    failures = failures.saturating_add(1);
                    part.set(condition(&cause, is_known));
                }
            }
            self.ended.send_replace(number);
            let delay = match failures {
                0 => self.settings.interval,
                _ => RETRY_DELAY.saturating_mul(1 << (failures - 1).min(16)).min(self.settings.interval),
            };
            // Whether the time is over or someone asked makes no difference.
            let _ = timeout(delay, self.wanted.notified()).await;
        }
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let failed = |error: reqwest::Error| match error.is_timeout() {
            true => "no answer in time".to_owned(),
            // Its own text holds the address.
            false => root(&error.without_url()),
        };
        let mut response = self.client.get(self.settings.url.clone()).send().await.map_err(failed)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!("the answer is {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > LENGTH_MAX {
                return Err("the answer is larger than 256 KiB".to_owned());
            }
            body.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(body).map_err(|_| "the answer is not UTF-8".to_owned())?;
        Keys::parse(&text).map_err(|rule| format!("the answer {rule}"))
    }
}

/// Without any keys nobody can prove anything by a token.
fn condition(cause: &str, is_known: bool) -> Condition {
    let text = "the keys of bearer tokens cannot be fetched";
    if is_known {
        Condition::Degraded(format!("{text}, those that were got before still hold: {cause}"))
    } else {
        Condition::NotReady(format!("{text}, none were got yet: {cause}"))
    }
}

/// The cause at the end of the chain.
fn root(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
