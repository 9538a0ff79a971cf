//! The embedded store as the conformance suite wants it, and tests of what is its own.

mod files;
mod kept;
mod pauses;
mod rows;
mod threads;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::TimeDelta;
use guest_connection_adapter::domain::Timestamp;
use guest_connection_adapter::service::ports::{Clock as _, Store};
use guest_connection_adapter::store::sqlite::{OpenError, Settings, SqliteStore};
use tempfile::TempDir;

use crate::conformance::world::{Harness, ManualClock, RETENTION, TERMS};

/// A store in a folder of its own.
pub struct SqliteHarness {
    folder: TempDir,
    pub clock: Arc<ManualClock>,
    store: Arc<SqliteStore>,
}

impl SqliteHarness {
    #[allow(clippy::unused_async, reason = "the suite awaits it: other stores need time to come up")]
    pub async fn new() -> Self {
        let folder = harness::private_folder();
        let clock = ManualClock::new();
        let store = Arc::new(open(folder.path().join("store.db"), &clock).unwrap());
        Self { folder, clock, store }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }
}

/// Gives a file that was not made by a store the permissions that one wants.
pub fn close_to_others(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

pub fn open(path: PathBuf, clock: &Arc<ManualClock>) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(Settings::new(path), TERMS, RETENTION, Arc::clone(clock) as _)
}

impl Harness for SqliteHarness {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as _
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn advance(&self, span: TimeDelta) {
        self.clock.advance(span);
    }

    /// What a killed process leaves behind are the files as they are: they are copied while the store has them open
    /// and nothing is under way.
    async fn reopen(&mut self) {
        let folder = harness::private_folder();
        for name in ["store.db", "store.db-wal"] {
            if fs::exists(self.folder.path().join(name)).unwrap() {
                fs::copy(self.folder.path().join(name), folder.path().join(name)).unwrap();
            }
        }
        self.store.close().await.unwrap();
        self.store = Arc::new(open(folder.path().join("store.db"), &self.clock).unwrap());
        self.folder = folder;
    }
}
