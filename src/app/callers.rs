//! What the gRPC door knows of callers, at the start and after changes of the configuration.

use std::sync::Arc;

use super::Error;
use crate::config::Config;
use crate::grpc::callers::Callers;
use crate::jwt::Verifier;
use crate::jwt::fetch::Refresh;

/// The verifier of bearer tokens, if they are taken.
pub(super) fn tokens(config: &Config) -> Result<Option<Arc<Verifier>>, Error> {
    let Some(jwt) = &config.jwt else { return Ok(None) };
    let refresh = jwt.fetch().map(Refresh::new).transpose()?;
    let keys = jwt.keys.clone().unwrap_or_default();
    Ok(Some(Arc::new(Verifier::new(jwt.settings(), keys, refresh))))
}

/// The callers of the gRPC door.
pub(super) struct Door {
    pub(super) callers: Callers,
    tokens: Option<Arc<Verifier>>,
}

impl Door {
    pub(super) fn new(tokens: Option<Arc<Verifier>>) -> Self {
        Self { callers: Callers::new(tokens.clone()), tokens }
    }

    /// Takes over principals and keys.
    pub(super) fn configure(&self, config: &Config) {
        let rates = config.principals.iter();
        let rates = rates.map(|(name, principal)| (name.as_str(), principal.requests_per_second));
        self.callers.configure(config.policy(), rates);
        let keys = config.jwt.as_ref().and_then(|jwt| jwt.keys.clone());
        if let (Some(tokens), Some(keys)) = (&self.tokens, keys) {
            tokens.set_keys(keys);
        }
    }
}
