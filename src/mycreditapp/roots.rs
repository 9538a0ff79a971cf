//! Certificate authorities beside those of the system.

use std::path::{Path, PathBuf};

use reqwest::Certificate;

/// Why a file of certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("`{0}` cannot be read: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// It has no certificate in PEM form.
    #[error("`{0}` holds no certificate in PEM form")]
    Empty(PathBuf),
    /// A certificate in it is damaged.
    #[error("`{0}` holds a certificate that cannot be read")]
    Damaged(PathBuf),
}

/// Reads the certificates in the PEM file at `path`, at least one.
///
/// # Errors
/// It cannot be read, has none, or a damaged one.
pub fn read(path: &Path) -> Result<Vec<Certificate>, Error> {
    let pem = std::fs::read(path).map_err(|error| Error::Unreadable(path.to_owned(), error))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|_| Error::Damaged(path.to_owned()))?;
    if certificates.is_empty() {
        return Err(Error::Empty(path.to_owned()));
    }
    // What stands between the lines of PEM is looked at only when it is used.
    let probe = reqwest::Client::builder().no_proxy().tls_certs_only(certificates.clone()).build();
    probe.map_err(|_| Error::Damaged(path.to_owned()))?;
    Ok(certificates)
}
