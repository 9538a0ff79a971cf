//! The simulator as a test or the program holds it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::config::{Client, Config};
use crate::connection::Connection;
use crate::control;
use crate::faults::{Rule, RuleId};
use crate::journal::{Entry, Stats};
use crate::limit::{Limit, Limiter};
use crate::server::Server;
use crate::state::{Inner, Shared};
use crate::tally::Tally;
use crate::upstream;

/// A running stand-in for the API. It stops when it is dropped, or in an orderly way by [`Simulator::shutdown`].
pub struct Simulator {
    shared: Arc<Shared>,
    server: Server,
}

/// What was waited for did not come in time.
#[derive(Debug)]
pub struct DeadlinePassed {
    /// How long it was waited for.
    pub waited: Duration,
    /// The journal at the end.
    pub entries: Vec<Entry>,
}

impl fmt::Display for DeadlinePassed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waited, entries } = self;
        write!(formatter, "not seen in the journal within {waited:?}, which has {} entries", entries.len())
    }
}

impl std::error::Error for DeadlinePassed {}

impl Simulator {
    /// Starts to listen and to answer, on the runtime that this is called on.
    ///
    /// # Errors
    /// If the address can't be bound.
    pub async fn start(config: Config) -> io::Result<Self> {
        let listen = config.listen;
        let shared = Arc::new(Shared::new(config));
        let router = control::router().fallback(upstream::handle).with_state(Arc::clone(&shared));
        let server = Server::start(listen, router).await?;
        Ok(Self { shared, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The base URL to configure a client with, version segment included.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}{}", self.address(), self.shared.base_path)
    }

    /// The base URL of the control API.
    #[must_use]
    pub fn control_url(&self) -> String {
        format!("http://{}/_control", self.address())
    }

    /// Makes an API client known; one of the same id is replaced.
    pub fn register_client(&self, client_id: &str, client_secret: &str, organization_id: Uuid) {
        self.shared.lock().tokens.register_client(Client {
            client_id: client_id.to_owned(),
            client_secret: client_secret.to_owned(),
            organization_id,
        });
    }

    /// Makes a token known that never expires.
    pub fn register_token(&self, token: &str, organization_id: Uuid) {
        self.shared.lock().tokens.register_token(token.to_owned(), organization_id);
    }

    /// Takes back all tokens. Using one is answered with 401 but is no violation, since the client can't know.
    pub fn revoke_tokens(&self) {
        self.shared.lock().tokens.revoke(None);
    }

    /// Takes back the tokens of one organisation.
    pub fn revoke_tokens_of(&self, organization: Uuid) {
        self.shared.lock().tokens.revoke(Some(organization));
    }

    /// Tokens that are fetched from now on are valid for so long.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.shared.lock().token_lifetime = lifetime;
    }

    /// Lets so many PATCHes through from now on, or all. What was counted before is forgotten.
    pub fn limit(&self, limit: Option<Limit>) {
        self.shared.lock().limiter = limit.map(Limiter::new);
    }

    /// Makes a connection known, not archived, unless it is known.
    pub fn add_connection(&self, target: Uuid, guest: Uuid) -> Connection {
        self.shared.lock().connection_mut((target, guest)).clone()
    }

    /// Adds a rule behind those there are, and yields its name.
    ///
    /// # Panics
    /// If the rule can't be used, as [`Rule::validate`] says: a mistake of the test that scripts it.
    #[allow(clippy::must_use_candidate, reason = "most rules are never removed")]
    pub fn script(&self, rule: impl Into<Rule>) -> RuleId {
        let rule = rule.into();
        let valid = rule.validate();
        assert!(valid.is_ok(), "invalid rule: {valid:?}");
        self.shared.lock().script.push(rule)
    }

    /// Forgets one rule. Requests that met it stay under its spell.
    pub fn remove_fault(&self, id: RuleId) {
        self.shared.lock().script.remove(id);
    }

    /// Forgets all rules. Requests that met one stay under its spell.
    pub fn clear_faults(&self) {
        self.shared.lock().script.clear();
    }

    /// All requests in the order of arrival.
    #[must_use]
    pub fn journal(&self) -> Vec<Entry> {
        self.shared.lock().journal.as_slice().to_vec()
    }

    /// The violations of all requests in the journal.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut inner = self.shared.lock();
        inner.journal.as_slice().iter().flat_map(|entry| entry.violations.iter().cloned()).collect()
    }

    /// The counts.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.lock().stats()
    }

    /// The PATCHes of the journal, counted.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally::of(self.shared.lock().journal.as_slice())
    }

    /// A connection as it is now.
    #[must_use]
    pub fn connection(&self, target: Uuid, guest: Uuid) -> Option<Connection> {
        self.shared.lock().connections.get(&(target, guest)).cloned()
    }

    /// Forgets journal, faults, limit, connections, counts and late effects; clients and tokens stay.
    pub fn reset(&self) {
        self.shared.reset();
    }

    /// Waits until the journal satisfies the predicate, and returns it as it was then. The predicate is asked
    /// at once and after every change, and must not call the simulator.
    ///
    /// # Errors
    /// If that takes longer than `deadline`.
    pub async fn wait_for(
        &self,
        mut predicate: impl FnMut(&[Entry]) -> bool,
        deadline: Duration,
    ) -> Result<Vec<Entry>, DeadlinePassed> {
        let look = |inner: &mut Inner| {
            let entries = inner.journal.as_slice();
            predicate(entries).then(|| entries.to_vec())
        };
        self.watch(look, deadline).await
    }

    /// Waits until no PATCH is outstanding: each is answered, or its connection was seen closed.
    ///
    /// # Errors
    /// If that takes longer than `deadline`.
    pub async fn wait_until_idle(&self, deadline: Duration) -> Result<(), DeadlinePassed> {
        self.watch(|inner| (inner.stats().outstanding == 0).then_some(()), deadline).await
    }

    /// Looks at the state now and after every change, until there is something to return.
    async fn watch<T>(
        &self,
        mut look: impl FnMut(&mut Inner) -> Option<T>,
        deadline: Duration,
    ) -> Result<T, DeadlinePassed> {
        let seen = async {
            loop {
                // Taken before the look, so that no change between the two is missed.
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let found = look(&mut self.shared.lock());
                if let Some(found) = found {
                    return found;
                }
                changed.await;
            }
        };
        let seen = tokio::time::timeout(deadline, seen).await;
        seen.map_err(|_| DeadlinePassed { waited: deadline, entries: self.journal() })
    }

    /// Refuses new connections and closes idle ones; the port stays taken. Requests under way are answered.
    ///
    /// # Errors
    /// If the port can't be held.
    pub async fn pause_listening(&mut self) -> io::Result<()> {
        self.server.pause().await
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// If the port can't be listened on.
    pub async fn resume_listening(&mut self) -> io::Result<()> {
        self.server.resume().await
    }

    /// Resets every open connection, whatever it is doing.
    pub fn reset_connections(&self) {
        self.server.reset_connections();
    }

    /// Stops: no new connections, open ones are reset, late effects do not come.
    pub async fn shutdown(mut self) {
        self.shared.abort_late();
        self.server.shutdown().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shared.abort_late();
    }
}
