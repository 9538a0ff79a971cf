//! Who asks, and what they may ask for.
//!
//! A door proves who is there (a certificate, a token, a user that the broker vouches for); that is an [`Identity`]. The
//! [`Policy`] knows whose identity it is: a [`Principal`], with the requester organisations and methods that are granted to
//! it. Nothing is granted by default.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::command::OrganizationId;
use super::error::{Reason, Refusal};

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// To archive a connection.
    Archive,
    /// To take that back.
    Unarchive,
    /// To see a command.
    Get,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 3] = [Self::Archive, Self::Unarchive, Self::Get];

    /// Its name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::Unarchive => "unarchive",
            Self::Get => "get",
        }
    }

    /// The method of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// The method that sets a connection's value.
    #[must_use]
    pub const fn setting(archived: bool) -> Self {
        if archived { Self::Archive } else { Self::Unarchive }
    }
}

/// What a door has proved of someone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A subject alternative name of a client certificate: a DNS name or a URI (SPIFFE ids are URIs).
    CertificateName(String),
    /// The `sub` claim of a JWT.
    JwtSubject(String),
    /// A user of the broker.
    AmqpUser(String),
}

/// The requester organisations in whose name someone may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Each that is configured.
    All,
    /// These.
    Only(HashSet<OrganizationId>),
}

impl Scope {
    /// Whether it holds `organization`.
    #[must_use]
    pub fn holds(&self, organization: OrganizationId) -> bool {
        match self {
            Self::All => true,
            Self::Only(organizations) => organizations.contains(&organization),
        }
    }
}

/// Someone who may ask, and for what.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    /// The name in the configuration. It is kept with what the principal asked for.
    pub name: String,
    /// In whose name.
    pub organizations: Scope,
    /// What.
    pub methods: BTreeSet<Method>,
    /// How often, at most; calls per second.
    pub requests_per_second: Option<f64>,
}

impl Principal {
    /// Whether it may do this. To be asked before the store is: the refusal is the same whether the organisation is
    /// configured or not.
    ///
    /// # Errors
    /// `NOT_PERMITTED`.
    pub fn permit(&self, method: Method, organization: OrganizationId) -> Result<(), Refusal> {
        if self.methods.contains(&method) && self.organizations.holds(organization) {
            return Ok(());
        }
        Err(not_permitted())
    }
}

/// The refusal of what is not granted. It names nothing, so that it tells nothing.
#[must_use]
pub fn not_permitted() -> Refusal {
    Refusal::new(Reason::NotPermitted, "the caller may not ask for this in the name of this organisation")
}

/// Who is who.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policy {
    principals: HashMap<Identity, Arc<Principal>>,
}

impl Policy {
    /// One that knows these. An identity that two have is the last one's: the configuration's rules forbid that.
    #[must_use]
    pub fn new(principals: impl IntoIterator<Item = (Principal, Vec<Identity>)>) -> Self {
        let mut known = HashMap::new();
        for (principal, identities) in principals {
            let principal = Arc::new(principal);
            known.extend(identities.into_iter().map(|identity| (identity, Arc::clone(&principal))));
        }
        Self { principals: known }
    }

    /// Whose identity it is.
    #[must_use]
    pub fn principal(&self, identity: &Identity) -> Option<&Arc<Principal>> {
        self.principals.get(identity)
    }
}

/// Who asked, as it is kept with a command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AskedBy {
    /// The principal's name. Absent where nobody has to prove who they are.
    pub principal: Option<String>,
    /// The network address of a call's sender, or the user that the broker vouches for.
    pub address: Option<String>,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn nothing_is_granted_but_what_is_named() {
        let (ours, theirs) = (OrganizationId(Uuid::from_u128(1)), OrganizationId(Uuid::from_u128(2)));
        let principal = Principal {
            name: "billing".to_owned(),
            organizations: Scope::Only(HashSet::from([ours])),
            methods: BTreeSet::from([Method::Archive]),
            requests_per_second: None,
        };
        assert_eq!(principal.permit(Method::Archive, ours), Ok(()));
        for (method, organization) in [(Method::Get, ours), (Method::Archive, theirs)] {
            assert_eq!(principal.permit(method, organization), Err(not_permitted()));
        }
        let identity = Identity::JwtSubject("billing".to_owned());
        let policy = Policy::new([(principal, vec![identity.clone()])]);
        assert_eq!(policy.principal(&identity).map(|found| found.name.as_str()), Some("billing"));
        assert_eq!(policy.principal(&Identity::AmqpUser("billing".to_owned())), None);
    }

    #[test]
    fn methods_have_names() {
        for method in Method::ALL {
            assert_eq!(Method::parse(method.as_str()), Some(method));
        }
        assert_eq!(Method::parse("delete"), None);
    }
}
