//! All that a simulator knows, under one lock that is held for microseconds.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::config::Config;
use crate::connection::{Connection, ConnectionKey, Style};
use crate::contract::PatchHead;
use crate::journal::{Endpoint, Entry, Journal, Origin, Stats};
use crate::limit::Limiter;
use crate::script::Script;
use crate::tokens::Tokens;

/// The state, and the signal that it changed.
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    /// Told after every change of the journal.
    pub(crate) changed: Notify,
    pub(crate) base_path: String,
    pub(crate) delay: Duration,
    pub(crate) style: Style,
}

pub(crate) struct Inner {
    pub(crate) tokens: Tokens,
    pub(crate) script: Script,
    pub(crate) limiter: Option<Limiter>,
    pub(crate) journal: Journal,
    pub(crate) connections: HashMap<ConnectionKey, Connection>,
    pub(crate) loads: HashMap<ConnectionKey, Load>,
    pub(crate) stats: Stats,
    /// Effects that are still to come.
    late: Vec<AbortHandle>,
    /// Counts resets, so that what began before one does not count after it.
    generation: u64,
    next_applied_seq: u64,
    connections_created: u32,
    pub(crate) auto_create: bool,
    pub(crate) token_lifetime: Duration,
}

/// How many PATCH requests of a connection are and were outstanding at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Now.
    pub outstanding: u64,
    /// At most.
    pub max_outstanding: u64,
}

/// What an admitted request does when it is applied.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Effect {
    Patch { key: ConnectionKey, archived: bool },
    Token { organization: Uuid },
}

/// One PATCH that counts as outstanding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outstanding {
    key: Option<ConnectionKey>,
    generation: u64,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        let mut tokens = Tokens::default();
        config.clients.into_iter().for_each(|client| tokens.register_client(client));
        config.tokens.into_iter().for_each(|token| tokens.register_token(token.token, token.organization_id));
        let inner = Inner {
            tokens,
            script: Script::default(),
            limiter: config.limit.map(Limiter::new),
            journal: Journal::new(config.journal_capacity),
            connections: HashMap::new(),
            loads: HashMap::new(),
            stats: Stats::default(),
            late: Vec::new(),
            generation: 0,
            next_applied_seq: 1,
            connections_created: 0,
            auto_create: config.auto_create,
            token_lifetime: config.token_lifetime,
        };
        Self {
            inner: Mutex::new(inner),
            changed: Notify::new(),
            base_path: config.base_path,
            delay: config.delay,
            style: Style {
                time_form: config.time_form,
                extra_fields: config.extra_fields,
                wrong_archived: false,
            },
        }
    }

    /// The state. No code of ours panics while it holds the lock; a test's predicate that does leaves it usable.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the entry of a request, if the journal still has it, and tells the waiting.
    pub(crate) fn amend(&self, seq: u64, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().journal.get_mut(seq) {
            change(entry);
        }
        self.changed.notify_waiters();
    }

    /// Lets a request take effect and returns the body that says so.
    pub(crate) fn apply(&self, seq: u64, effect: Effect, style: Style) -> Vec<u8> {
        let body = self.lock().apply(seq, effect, style);
        self.changed.notify_waiters();
        body
    }

    /// Forgets journal, faults, limit, connections and effects to come; clients and tokens stay.
    pub(crate) fn reset(&self) {
        let mut inner = self.lock();
        inner.late.drain(..).for_each(|task| task.abort());
        inner.generation += 1;
        inner.journal.clear();
        inner.script.clear();
        inner.limiter = None;
        inner.connections.clear();
        inner.loads.clear();
        inner.stats = Stats::default();
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Keeps hold of an effect to come, so that a reset can stop it.
    pub(crate) fn keep_late(&self, task: AbortHandle) {
        let mut inner = self.lock();
        inner.late.retain(|task| !task.is_finished());
        inner.late.push(task);
    }

    /// Stops all effects to come.
    pub(crate) fn abort_late(&self) {
        self.lock().late.drain(..).for_each(|task| task.abort());
    }
}

impl Inner {
    /// Enters a request that has arrived. For a PATCH it counts as outstanding from now on.
    pub(crate) fn arrive(
        &mut self,
        endpoint: Endpoint,
        head: &PatchHead,
        origin: Origin,
    ) -> (u64, Option<Outstanding>) {
        let seq = self.journal.push(Entry {
            seq: 0,
            endpoint,
            received_at: Utc::now(),
            status_at: None,
            answered_at: None,
            ended_at: None,
            requester: head.requester,
            target: head.target,
            guest: head.guest,
            archived: None,
            client_organization: None,
            traceparent: origin.traceparent,
            status: None,
            applied: false,
            applied_seq: None,
            applied_at: None,
            fault: None,
            violations: Vec::new(),
            peer: origin.peer,
        });
        match endpoint {
            Endpoint::Patch => self.stats.patches += 1,
            Endpoint::Token => self.stats.tokens += 1,
            Endpoint::Other => {}
        }
        let outstanding = (endpoint == Endpoint::Patch).then(|| self.begin(head.target.zip(head.guest)));
        (seq, outstanding)
    }

    fn begin(&mut self, key: Option<ConnectionKey>) -> Outstanding {
        let stats = &mut self.stats;
        stats.outstanding += 1;
        stats.max_outstanding = stats.max_outstanding.max(stats.outstanding);
        if let Some(key) = key {
            let load = self.loads.entry(key).or_default();
            load.outstanding += 1;
            load.max_outstanding = load.max_outstanding.max(load.outstanding);
            stats.max_outstanding_per_connection =
                stats.max_outstanding_per_connection.max(load.max_outstanding);
        }
        Outstanding { key, generation: self.generation }
    }

    /// The PATCH is answered, or its connection is gone.
    pub(crate) fn end(&mut self, outstanding: Outstanding) {
        if outstanding.generation != self.generation {
            return;
        }
        self.stats.outstanding -= 1;
        if let Some(load) = outstanding.key.and_then(|key| self.loads.get_mut(&key)) {
            load.outstanding -= 1;
        }
    }

    fn apply(&mut self, seq: u64, effect: Effect, style: Style) -> Vec<u8> {
        let now = Utc::now();
        let (body, applied_seq) = match effect {
            Effect::Patch { key, archived } => {
                let applied_seq = self.next_applied_seq;
                self.next_applied_seq += 1;
                self.stats.applied += 1;
                let connection = self.connection_mut(key);
                connection.set_archived(archived, now);
                (connection.render(style), Some(applied_seq))
            }
            Effect::Token { organization } => {
                let token = self.tokens.issue(organization, self.token_lifetime);
                let body = json!({ "access_token": token, "expires_in": self.token_lifetime.as_secs() });
                (body.to_string().into_bytes(), None)
            }
        };
        if let Some(entry) = self.journal.get_mut(seq) {
            entry.applied = true;
            entry.applied_seq = applied_seq;
            entry.applied_at = Some(now);
        }
        body
    }

    /// The connection, which is created if it is new.
    pub(crate) fn connection_mut(&mut self, key: ConnectionKey) -> &mut Connection {
        self.connections.entry(key).or_insert_with(|| {
            self.connections_created = self.connections_created.wrapping_add(1);
            Connection::plausible(key, self.connections_created, Utc::now())
        })
    }

    /// The counts, with those that are kept elsewhere.
    pub(crate) fn stats(&self) -> Stats {
        Stats { journal_dropped: self.journal.dropped, ..self.stats }
    }
}
