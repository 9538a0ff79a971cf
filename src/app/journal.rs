//! Changes of files that took effect are acts of administrators, and are recorded as such.

use std::collections::BTreeMap;

use super::records;
use crate::domain::act::Act;
use crate::service::custody::Custodian;

/// Files do not tell who changed them.
const ACTOR: &str = "files";

/// Records changes. Cloning shares it.
#[derive(Clone)]
pub(super) struct Journal {
    custodian: Custodian,
}

impl Journal {
    pub(super) const fn new(custodian: Custodian) -> Self {
        Self { custodian }
    }

    /// Records what has changed, by names alone; what is empty has not. Nothing waits for it: a change that is under way must
    /// not be held up by a store that is. If that does not take it, the log has it.
    pub(super) fn note<const N: usize>(&self, changes: [(&'static str, String); N]) {
        let changes = changes.into_iter().filter(|(_, names)| !names.is_empty());
        let subject: BTreeMap<_, _> = changes.map(|(name, names)| (name.to_owned(), names)).collect();
        let act = Act { actor: ACTOR.to_owned(), address: None, act: "configure".to_owned(), subject };
        let custodian = self.custodian.clone();
        tokio::spawn(async move {
            if let Err(error) = custodian.note(act).await {
                records::ChangeUnrecorded { error: &error }.log();
            }
        });
    }
}
