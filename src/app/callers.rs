//! What the gRPC door knows of callers, at the start and after changes of the configuration.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Error;
use crate::config::Config;
use crate::grpc::callers::Callers;
use crate::jwt::Verifier;
use crate::jwt::fetch::Refresh;
use crate::service::readiness::Readiness;

/// The name of the keys of bearer tokens among the parts.
const PART: &str = "jwt";

/// The callers of the gRPC door. Cloning shares them.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) callers: Callers,
    tokens: Option<Arc<Verifier>>,
}

impl Door {
    /// One that knows nobody yet.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let tokens = config.jwt.as_ref().map(|jwt| {
            let refresh = jwt.fetch().map(Refresh::new).transpose()?;
            let keys = jwt.keys.clone().unwrap_or_default();
            Ok::<_, Error>(Arc::new(Verifier::new(jwt.settings(), keys, refresh)))
        });
        let tokens = tokens.transpose()?;
        Ok(Self { callers: Callers::new(tokens.clone()), tokens })
    }

    /// Takes over principals and keys.
    pub(super) fn configure(&self, config: &Config) {
        let rates = config.callers().map(|(name, principal)| (name, principal.requests_per_second));
        self.callers.configure(config.policy(), rates);
        let keys = config.jwt.as_ref().and_then(|jwt| jwt.keys.clone());
        if let (Some(tokens), Some(keys)) = (&self.tokens, keys) {
            tokens.set_keys(keys);
        }
    }

    /// Keeps keys fresh that come from a URL, until `stop`.
    pub(super) fn keep_keys(
        &self,
        readiness: &Readiness,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let fetching = self.tokens.clone().filter(|tokens| tokens.is_fetching());
        let fetching = fetching.map(|tokens| (tokens, readiness.part(PART)));
        async move {
            match fetching {
                Some((tokens, part)) => tokens.run(part, stop).await,
                None => stop.cancelled().await,
            }
        }
    }
}
