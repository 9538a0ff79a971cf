//! TLS as a server: a certificate, its key, and the authority of client certificates, made from files.
//!
//! - [`files`](self): what the files hold, and what is wrong with them
//! - [`names`]: the names in a client's certificate
//! - [`private`]: who can read a file with a secret

mod files;
pub mod names;
pub mod private;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;

/// Where the files are, all of them PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, followed by those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of client certificates, if clients are asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether a client may come without one all the same.
    pub client_certificate_optional: bool,
}

/// Which of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The certificate.
    Certificate,
    /// The private key.
    Key,
    /// The authorities of client certificates.
    ClientCa,
}

/// What is wrong with one of the files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Which.
    pub role: Role,
    /// What is wrong, with the file's name and, if there is one, the mend.
    pub message: String,
}

/// A server's side of TLS, as it is at present.
#[derive(Clone)]
pub struct Identity {
    /// What handshakes are made with.
    pub config: Arc<ServerConfig>,
    /// When the served certificate, or one of those between it and its authority, ends.
    pub expiry: SystemTime,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("expiry", &self.expiry).finish_non_exhaustive()
    }
}

impl Files {
    /// Reads them, for a server that speaks `protocol`, an ALPN name.
    ///
    /// # Errors
    /// The first file with which something is wrong.
    pub fn read(&self, protocol: &[u8]) -> Result<Identity, Error> {
        files::read(self, protocol)
    }

    /// Each of them.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten()
    }
}

impl Identity {
    /// The seconds from 1970 to its expiry.
    #[must_use]
    pub fn expiry_seconds(&self) -> u64 {
        self.expiry.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
    }
}
