//! As whom the adapter connects to the broker, and whom it lets in by it. Both can change under way.

use std::fmt;
use std::sync::Arc;

use lapin::BasicProperties;
use lapin::tcp::{Identity as TlsIdentity, TLSConfig};
use secrecy::{ExposeSecret as _, SecretString};

use super::properties;
use crate::domain::access::{AskedBy, Identity, Method, Policy, Principal};
use crate::domain::command::Command;
use crate::domain::error::{Reason, Refusal};

/// What is followed while the adapter runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Access {
    /// As whom it connects.
    pub credentials: Credentials,
    /// Whom it lets in.
    pub senders: Senders,
}

/// How the adapter proves to the broker who it is, and what it asks of the broker's own proof.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The user. Not sent if `external`.
    pub username: String,
    /// The password of `username`.
    pub password: SecretString,
    /// Whether the client certificate says who it is (SASL EXTERNAL), and not a password.
    pub external: bool,
    /// Certificate authorities beside those of the system, in PEM form.
    pub authorities: Option<String>,
    /// The client certificate and its private key, in PEM form.
    pub certificate: Option<(String, SecretString)>,
}

impl Credentials {
    /// What connections are encrypted with.
    pub(super) fn tls(&self) -> TLSConfig<'_, '_, '_> {
        let identity = self.certificate.as_ref().map(|(certificate, key)| TlsIdentity::PKCS8 {
            pem: certificate.as_bytes(),
            key: key.expose_secret().as_bytes(),
        });
        TLSConfig { identity, cert_chain: self.authorities.as_deref() }
    }

    /// Whether both name the same user, as far as that is known here. Another password or certificate concerns the next
    /// connection only.
    pub(super) fn is_same_user(&self, other: &Self) -> bool {
        self.external == other.external && (self.external || self.username == other.username)
    }

    fn key(&self) -> Option<&str> {
        self.certificate.as_ref().map(|(_, key)| key.expose_secret())
    }
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        let certificate = |of: &Self| of.certificate.as_ref().map(|(certificate, _)| certificate.clone());
        (&self.username, self.external, &self.authorities)
            == (&other.username, other.external, &other.authorities)
            && self.password.expose_secret() == other.password.expose_secret()
            && certificate(self) == certificate(other)
            && self.key() == other.key()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { username, external, .. } = self;
        f.debug_struct("Credentials")
            .field("username", username)
            .field("external", external)
            .finish_non_exhaustive()
    }
}

/// Who may send commands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Senders {
    /// Who is who.
    pub policy: Arc<Policy>,
    /// Whether a message has to say who sent it, by the `user_id` that the broker checks.
    pub by_user_id: bool,
    /// Who sends what comes without a `user_id`.
    pub unnamed: Option<Arc<Principal>>,
}

/// Who sent a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Sender {
    /// Absent where nobody has to prove who they are.
    principal: Option<Arc<Principal>>,
    user: Option<String>,
}

impl Senders {
    /// Who sent the message with these properties. A user whom nobody knows is not the unnamed one.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`: nobody who is known.
    pub fn sender(&self, properties: &BasicProperties) -> Result<Sender, Refusal> {
        let user = properties::some(properties.user_id()).filter(|_| self.by_user_id);
        let known = match user {
            Some(user) => self.policy.principal(&Identity::AmqpUser(user.to_owned())),
            None => self.unnamed.as_ref(),
        };
        if known.is_none() && self.by_user_id {
            let text = match user {
                Some(_) => "the message's user_id is that of no principal",
                None => "the message has no user_id",
            };
            return Err(Refusal::new(Reason::Unauthenticated, text));
        }
        Ok(Sender { principal: known.cloned(), user: user.map(str::to_owned) })
    }
}

impl Sender {
    /// Whether it may ask for `command`.
    ///
    /// # Errors
    /// `NOT_PERMITTED`.
    pub fn permit(&self, command: &Command) -> Result<(), Refusal> {
        match &self.principal {
            Some(principal) => principal.permit(Method::setting(command.archived), command.requester),
            None => Ok(()),
        }
    }

    /// As it is kept with a command.
    #[must_use]
    pub fn asked_by(&self) -> AskedBy {
        let principal = self.principal.as_ref().map(|principal| principal.name.clone());
        // Some name users after people's addresses.
        let address = self.user.clone().filter(|user| !user.contains('@'));
        AskedBy { principal, address }
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
