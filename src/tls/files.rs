//! What the files hold, and what is wrong with them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::parse_x509_certificate;

use super::{Error, Files, Identity, Role, private};

/// The longest file that is read, in bytes.
const LENGTH_MAX: u64 = 1024 * 1024;

pub(super) fn read(files: &Files, protocol: &[u8]) -> Result<Identity, Error> {
    let chain = certificates(&files.certificate, Role::Certificate)?;
    let key = key(&files.key)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let expiry = expiry(&chain, &files.certificate)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|fault| error(Role::Certificate, format!("TLS cannot be set up: {fault}")))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => builder.with_client_cert_verifier(verifier(files, file, provider)?),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|fault| {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        error(Role::Key, format!("`{key}` cannot be used with the certificate `{certificate}`: {fault}"))
    })?;
    config.alpn_protocols = vec![protocol.to_vec()];
    // A session that is resumed is not verified again: a client certificate would outlive its expiry, and its authority.
    // Connections of gRPC are long, so that little is lost.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Identity { config: Arc::new(config), expiry })
}

fn error(role: Role, message: String) -> Error {
    Error { role, message }
}

fn verifier(
    files: &Files,
    file: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let bad = |fault: &dyn std::fmt::Display| {
        error(Role::ClientCa, format!("`{}` cannot be used: {fault}", file.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, Role::ClientCa)? {
        roots.add(certificate).map_err(|fault| bad(&fault))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if files.client_certificate_optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|fault| bad(&fault))
}

/// The certificates of a file, at least one.
fn certificates(path: &Path, role: Role) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = content(path, role)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let shown = path.display();
    let found = found.map_err(|fault| error(role, format!("`{shown}` is not PEM: {fault}")))?;
    if found.is_empty() {
        return Err(error(role, format!("`{shown}` holds no certificate in PEM form")));
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|fault| unreadable(path, Role::Key, &fault))?;
    if private::is_open(&metadata) {
        let mode = metadata.permissions().mode() & 0o777;
        let mend = format!("mend it with `chmod 600 {shown}`");
        return Err(error(Role::Key, format!("`{shown}` can be read by others (mode {mode:o}); {mend}")));
    }
    let text = content(path, Role::Key)?;
    // What the parser says of it could quote it.
    let unusable = |_| error(Role::Key, format!("`{shown}` holds no private key in PEM form"));
    PrivateKeyDer::from_pem_slice(&text).map_err(unusable)
}

fn unreadable(path: &Path, role: Role, fault: &std::io::Error) -> Error {
    error(role, format!("`{}` cannot be read: {fault}", path.display()))
}

fn content(path: &Path, role: Role) -> Result<Vec<u8>, Error> {
    let metadata = std::fs::metadata(path).map_err(|fault| unreadable(path, role, &fault))?;
    let shown = path.display();
    if !metadata.is_file() {
        return Err(error(role, format!("`{shown}` is not a file")));
    }
    if metadata.len() > LENGTH_MAX {
        return Err(error(role, format!("`{shown}` is larger than {LENGTH_MAX} bytes")));
    }
    std::fs::read(path).map_err(|fault| unreadable(path, role, &fault))
}

/// When the first of the chain ends: from then on nobody can verify it.
fn expiry(chain: &[CertificateDer<'_>], path: &Path) -> Result<SystemTime, Error> {
    let mut seconds = u64::MAX;
    for certificate in chain {
        let parsed = parse_x509_certificate(certificate).map_err(|_| {
            error(Role::Certificate, format!("`{}` holds a certificate that cannot be read", path.display()))
        })?;
        let end = parsed.1.validity().not_after.timestamp();
        seconds = seconds.min(u64::try_from(end).unwrap_or_default());
    }
    // Years have four digits in a certificate; the bound is for the clock, which must not overflow.
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(u64::from(u32::MAX) * 64)))
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
