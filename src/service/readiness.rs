//! What is ready and what is not, and why: told by the parts themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

/// The condition of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", content = "detail", rename_all = "snake_case")]
pub enum Condition {
    /// It does its work.
    Ready,
    /// It does its work, but something wants an operator's eye.
    Degraded(String),
    /// It cannot do its work now.
    NotReady(String),
}

/// The conditions of all parts, by name.
pub type Conditions = BTreeMap<&'static str, Condition>;

/// The book in which parts enter their condition. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Readiness {
    conditions: Arc<watch::Sender<Conditions>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { conditions: Arc::new(watch::Sender::new(Conditions::new())) }
    }
}

impl Readiness {
    /// Enters a part, not ready until it says otherwise.
    #[must_use]
    pub fn part(&self, name: &'static str) -> Part {
        let part = Part { name, readiness: self.clone() };
        part.set(Condition::NotReady("starting".to_owned()));
        part
    }

    /// The conditions as they are.
    #[must_use]
    pub fn conditions(&self) -> Conditions {
        self.conditions.borrow().clone()
    }

    /// Follows changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Conditions> {
        self.conditions.subscribe()
    }
}

/// Whether every part is ready or degraded.
#[must_use]
pub fn ready(conditions: &Conditions) -> bool {
    !conditions.values().any(|condition| matches!(condition, Condition::NotReady(_)))
}

/// The parts without which a call cannot be served. A broker that is away holds up events, not calls.
const CALL_PARTS: [&str; 2] = ["grpc", "store"];

/// Whether calls can be served, whatever becomes of events and messages.
#[must_use]
pub fn takes_calls(conditions: &Conditions) -> bool {
    let fits = |name: &str| conditions.get(name).is_some_and(|part| !matches!(part, Condition::NotReady(_)));
    CALL_PARTS.into_iter().all(fits)
}

/// One part's entry.
#[derive(Debug, Clone)]
pub struct Part {
    name: &'static str,
    readiness: Readiness,
}

impl Part {
    /// Enters a condition; watchers are woken if it differs from the last one.
    pub fn set(&self, condition: Condition) {
        self.readiness.conditions.send_if_modified(|conditions| {
            let changed = conditions.get(self.name) != Some(&condition);
            conditions.insert(self.name, condition);
            changed
        });
    }
}
