//! What administrators ask of the store, each act recorded before it begins and when it is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::ports::{Store, StoreError};
use crate::domain::act::{Act, ActRecord};
use crate::domain::erasure::{Forgotten, Whose};

/// Commands looked at in one step: so few that claims never wait long behind it.
const STEP_LENGTH: usize = 250;

/// Why an act was not done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another one is under way.
    #[error("another act is under way: wait for its end")]
    Busy,
    /// The store failed. What was erased until then is erased.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Does what administrators ask for. Cloning shares it.
#[derive(Clone)]
pub struct Custodian {
    store: Arc<dyn Store>,
    one: Arc<Mutex<()>>,
}

impl Custodian {
    /// One for this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, one: Arc::default() }
    }

    /// Erases the bodies that are kept of someone, a few commands at a time. May be done again, and must be if it was cut
    /// off or commands were not final.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn forget(
        &self,
        whose: Whose,
        actor: &str,
        address: Option<String>,
    ) -> Result<Forgotten, Error> {
        let _one = self.one.try_lock().map_err(|_| Error::Busy)?;
        let (kind, id) = match whose {
            Whose::Guest(id) => ("guest_organization_id", id),
            Whose::Organization(id) => ("requester_organization_id", id),
        };
        let subject = BTreeMap::from([(kind.to_owned(), id.to_string())]);
        let act = Act { actor: actor.to_owned(), address, act: "forget".to_owned(), subject };
        let number = self.store.begin_act(act).await?;
        let mut forgotten = Forgotten::default();
        let mut next = Some(0);
        while let Some(after) = next {
            let step = self.store.forget(whose, after, STEP_LENGTH).await?;
            forgotten += step.forgotten;
            next = step.next;
        }
        self.store.end_act(number, counts(&forgotten)).await?;
        Ok(forgotten)
    }

    /// Records an act that is done already, and that nobody waits for.
    ///
    /// # Errors
    /// The store does not take it.
    pub async fn note(&self, act: Act) -> Result<(), StoreError> {
        let number = self.store.begin_act(act).await?;
        self.store.end_act(number, BTreeMap::new()).await
    }

    /// The newest acts with numbers below `before`, the newest first.
    ///
    /// # Errors
    /// The store gives none.
    pub async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<ActRecord>, StoreError> {
        self.store.acts(before, limit).await
    }
}

fn counts(forgotten: &Forgotten) -> BTreeMap<String, u64> {
    let Forgotten { commands, outcomes, events, dead_letters, replies, not_final } = *forgotten;
    let counts = [
        ("commands", commands),
        ("outcomes", outcomes),
        ("events", events),
        ("dead_letters", dead_letters),
        ("replies", replies),
        ("not_final", not_final),
    ];
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}
