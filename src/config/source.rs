//! Where a configuration comes from, so that it can be read again.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::{Config, Faults, PREFIX, load};

/// A file, or none, and the environment as it was at the start.
#[derive(Clone)]
pub struct Source {
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
}

/// A configuration as it was read.
#[derive(Debug)]
pub struct Reading {
    /// Every file that has a say in it, whether or not it could be read.
    pub files: Vec<PathBuf>,
    /// The configuration, or everything that is wrong with it.
    pub config: Result<Config, Faults>,
}

impl Source {
    /// Keeps of the `environment` what is meant for the configuration.
    #[must_use]
    pub fn new(file: Option<PathBuf>, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let ours = |name: &OsString| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
        let environment = environment.into_iter().filter(|(name, _)| ours(name)).collect();
        Self { file, environment }
    }

    /// The file, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the configuration. What files hold may be another thing each time.
    #[must_use]
    pub fn read(&self) -> Reading {
        load::read(self.file(), self.environment.iter().cloned())
    }
}

/// The environment may hold secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("file", &self.file).finish_non_exhaustive()
    }
}
