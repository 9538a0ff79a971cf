//! How the adapter proves to the broker who it is, and what it asks of the senders of messages: the rules.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::ExposeSecret as _;

use super::fault::Faults;
use super::sections::{Amqp, Config, Identify, Sasl};
use crate::mycreditapp::roots;

impl Config {
    /// Whether the senders of messages without a `user_id` count as the principal of this name.
    pub(super) fn is_unnamed_sender(&self, name: &str) -> bool {
        self.amqp.as_ref().is_some_and(|amqp| amqp.principal.as_deref() == Some(name))
    }
}

/// Notes every rule that is broken.
pub(super) fn check(config: &Config, faults: &mut Faults) {
    let Some(amqp) = &config.amqp else { return };
    encryption(amqp, faults);
    login(amqp, faults);
    if let Some(name) = amqp.principal.as_ref().filter(|name| !config.principals.contains_key(*name)) {
        faults.push("amqp.principal", format!("is `{name}`, must be a name under `principals`"));
    }
    let has_users = config.principals.values().any(|principal| !principal.amqp_users.is_empty());
    if amqp.identify == Identify::UserId && amqp.principal.is_none() && !has_users {
        let rule = "is `user_id`, but no principal has `amqp_users`: every message would be refused";
        faults.push("amqp.identify", rule);
    }
}

fn encryption(amqp: &Amqp, faults: &mut Faults) {
    let files = [
        ("ca_file", amqp.ca_file.is_some()),
        ("certificate_file", amqp.certificate_file.is_some()),
        ("key_file", amqp.key_file.is_some()),
    ];
    if !amqp.uri.starts_with("amqps:") {
        for (name, _) in files.into_iter().filter(|(_, given)| *given) {
            faults.push(format!("amqp.{name}"), "is for an `amqp.uri` that begins with amqps:// only");
        }
    }
    for (name, other) in [(1, 2), (2, 1)].map(|(one, other)| (files[one], files[other])) {
        if name.1 && !other.1 {
            faults.push(format!("amqp.{}", name.0), format!("needs `amqp.{}` beside it", other.0));
        }
    }
    if let Some(Err(error)) = amqp.ca_file.as_deref().map(roots::read) {
        faults.push("amqp.ca_file", error.to_string());
    }
    if let (Some(certificate), Some(key)) = (&amqp.pem.certificate, &amqp.pem.key)
        && let Err((name, rule)) = pair(certificate, key.expose_secret())
    {
        faults.push(format!("amqp.{name}"), rule);
    }
}

/// Whether a certificate and a key, both in PEM form, can be used together.
fn pair(certificate: &str, key: &str) -> Result<(), (&'static str, String)> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| ("certificate_file", "holds no certificate in PEM form".to_owned()))?;
    // What the parser says of it could quote it.
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| ("key_file", "holds no private key in PEM form".to_owned()))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map(drop)
        .map_err(|error| ("key_file", format!("cannot be used with `amqp.certificate_file`: {error}")))
}

fn login(amqp: &Amqp, faults: &mut Faults) {
    match amqp.sasl {
        Sasl::Plain if amqp.password().is_none() && amqp.password_file.is_none() => {
            faults.push("amqp.password_file", format!("must be given for the user `{}`", amqp.username));
        }
        Sasl::Plain => {}
        Sasl::External => {
            if amqp.certificate_file.is_none() {
                faults.push("amqp.sasl", "is `external`, which needs `amqp.certificate_file`");
            }
            if amqp.password_file.is_some() || amqp.password.is_some() {
                faults.push("amqp.sasl", "is `external`, which takes no password beside it");
            }
        }
    }
}
