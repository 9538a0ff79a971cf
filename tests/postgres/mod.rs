//! The PostgreSQL store as the conformance suite wants it, and tests of what is its own.

mod held;
mod outage;
mod peers;
mod plans;
mod rules;
mod tls;
mod trips;

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use guest_connection_adapter::domain::Timestamp;
use guest_connection_adapter::service::ports::{Clock as _, Store};
use guest_connection_adapter::store::postgres::{PostgresStore, Settings, Target};
use harness::Database;

use crate::conformance::world::{Harness, ManualClock, RETENTION, TERMS};

/// A store in a database of its own.
pub struct PostgresHarness {
    pub database: Database,
    pub clock: Arc<ManualClock>,
    store: Arc<PostgresStore>,
}

impl PostgresHarness {
    pub async fn new() -> Self {
        let (database, clock) = (Database::create().await, ManualClock::new());
        let store = Arc::new(open(&database, &clock).await);
        Self { database, clock, store }
    }
}

/// A server at `url` that has so long for a statement.
pub fn settings_at(url: &str, statement_timeout: Duration) -> Settings {
    let target =
        Target::new(url, None, None, Duration::from_secs(10), statement_timeout).expect("an address");
    Settings { follows_server: false, instance_lease: None, ..Settings::new(target) }
}

pub fn settings(database: &Database) -> Settings {
    settings_at(database.url(), Duration::from_secs(10))
}

pub async fn open(database: &Database, clock: &Arc<ManualClock>) -> PostgresStore {
    PostgresStore::open(settings(database), TERMS, RETENTION, Arc::clone(clock) as _).await.expect("a store")
}

impl PostgresHarness {
    pub fn postgres(&self) -> Arc<PostgresStore> {
        Arc::clone(&self.store)
    }
}

impl Harness for PostgresHarness {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as _
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn advance(&self, span: TimeDelta) {
        self.clock.advance(span);
    }

    /// Other instances cannot know that one is dead before what it had taken upon itself has run out.
    async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        self.clock.advance(TERMS.lease.max(TERMS.hold));
        self.store = Arc::new(open(&self.database, &self.clock).await);
    }
}
