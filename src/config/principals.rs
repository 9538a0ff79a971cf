//! Who may ask, as it is configured: the rules, and the policy that comes of it.

use std::collections::HashMap;

use super::fault::Faults;
use super::rules::within;
use super::sections::{Config, Principal};
use crate::domain::access::{self, Identity, Method, Policy, Scope};

/// Stands for every organisation.
const EVERY: &str = "*";

/// The longest identity, in bytes: that of a `user_id`; also what a certificate or a token may hold.
const IDENTITY_LENGTH_MAX: usize = 255;

impl Principal {
    /// By what it is known, each with the key that says so.
    fn identities(&self) -> impl Iterator<Item = (&'static str, Identity)> {
        let names = self.certificate_names.iter().cloned().map(Identity::CertificateName);
        let subjects = self.jwt_subjects.iter().cloned().map(Identity::JwtSubject);
        let users = self.amqp_users.iter().cloned().map(Identity::AmqpUser);
        names
            .map(|identity| ("certificate_names", identity))
            .chain(subjects.map(|identity| ("jwt_subjects", identity)))
            .chain(users.map(|identity| ("amqp_users", identity)))
    }
}

impl Config {
    /// Who is who, and what they are granted. What is at fault in it is left out: the rules tell of that.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy::new(self.principals.iter().map(|(name, principal)| {
            let identities = principal.identities().map(|(_, identity)| identity).collect();
            (self.granted(name, principal), identities)
        }))
    }

    /// Those who can prove who they are at the gRPC door. With one of them, everyone who calls has to.
    pub fn callers(&self) -> impl Iterator<Item = (&str, &Principal)> {
        let is_caller = |principal: &Principal| {
            !principal.certificate_names.is_empty() || !principal.jwt_subjects.is_empty()
        };
        let principals = self.principals.iter().filter(move |(_, principal)| is_caller(principal));
        principals.map(|(name, principal)| (name.as_str(), principal))
    }

    /// A principal by its name under `principals`.
    #[must_use]
    pub fn principal(&self, name: &str) -> Option<access::Principal> {
        self.principals.get(name).map(|principal| self.granted(name, principal))
    }

    fn granted(&self, name: &str, principal: &Principal) -> access::Principal {
        let named = principal.organizations.iter().filter_map(|name| self.organizations.get(name));
        let organizations = if principal.organizations.iter().any(|name| name == EVERY) {
            Scope::All
        } else {
            Scope::Only(named.filter_map(|organization| organization.organization_id().ok()).collect())
        };
        access::Principal {
            name: name.to_owned(),
            organizations,
            methods: principal.methods.iter().filter_map(|name| Method::parse(name)).collect(),
            requests_per_second: principal.requests_per_second,
        }
    }
}

/// The longest name of a principal.
const NAME_LENGTH_MAX: usize = 64;

/// Whether a principal may be called so: no address of a person, and nothing that has to be escaped anywhere.
fn is_name(name: &str) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
    (1..=NAME_LENGTH_MAX).contains(&name.len()) && name.chars().all(is_good)
}

/// Notes every rule that the principals break.
pub(super) fn check(config: &Config, faults: &mut Faults) {
    let mut known = HashMap::new();
    for (name, principal) in &config.principals {
        let key = format!("principals.{name}");
        if !is_name(name) {
            let rule = format!(
                "must have a name of 1 to {NAME_LENGTH_MAX} letters, digits, `.`, `_` and `-`: it is kept with commands"
            );
            faults.push(key.clone(), rule);
        }
        let mut is_known = config.is_unnamed_sender(name);
        for (list, identity) in principal.identities() {
            is_known = true;
            let text = match &identity {
                Identity::CertificateName(text) | Identity::JwtSubject(text) | Identity::AmqpUser(text) => {
                    text
                }
            };
            if !(1..=IDENTITY_LENGTH_MAX).contains(&text.len()) || text.chars().any(char::is_control) {
                let rule =
                    format!("must be 1 to {IDENTITY_LENGTH_MAX} bytes without control characters each");
                faults.push(format!("{key}.{list}"), rule);
            }
            if let Some(other) = known.insert(identity.clone(), name).filter(|other| *other != name) {
                let rule = format!("holds `{text}`, as that of `principals.{other}` does");
                faults.push(format!("{key}.{list}"), rule);
            }
        }
        if !is_known {
            let rule = "must have `certificate_names`, `jwt_subjects` or `amqp_users`, or be `amqp.principal`: nobody could be it";
            faults.push(key.clone(), rule);
        }
        grants(config, &key, principal, faults);
    }
}

fn grants(config: &Config, key: &str, principal: &Principal, faults: &mut Faults) {
    if principal.organizations.is_empty() {
        faults.push(format!("{key}.organizations"), "must name an organisation, or be [\"*\"]");
    }
    for name in &principal.organizations {
        if name != EVERY && !config.organizations.contains_key(name) {
            let rule = format!("holds `{name}`, must be names of organisations, or `*`");
            faults.push(format!("{key}.organizations"), rule);
        }
    }
    if principal.methods.is_empty() {
        faults.push(format!("{key}.methods"), "must name a method");
    }
    for method in &principal.methods {
        if Method::parse(method).is_none() {
            let rule = format!("holds `{method}`, must be `archive`, `unarchive` or `get` each");
            faults.push(format!("{key}.methods"), rule);
        }
    }
    if let Some(rate) = principal.requests_per_second {
        within(&format!("{key}.requests_per_second"), rate, 0.01, 100_000.0, faults);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_not_called_like_a_person() {
        let told = |name: &str| {
            let (mut config, mut faults) = (Config::default(), Faults::default());
            config.principals.insert(name.to_owned(), Principal::default());
            check(&config, &mut faults);
            faults.to_string().contains("must have a name of 1 to 64 letters")
        };
        let long = "x".repeat(65);
        for name in ["anna@example.org", "a b", "a/b", "", &long] {
            assert!(told(name), "{name}");
        }
        assert!(!told("Billing_2.eu-west"));
    }
}
