//! What operators did: the acts that change something, as they are kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// An administrative act that is begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// Who did it, by the name that the door knows.
    pub actor: String,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What was done: a stable name.
    pub act: String,
    /// To what, by ids alone.
    pub subject: BTreeMap<String, String>,
}

/// The same as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActRecord {
    /// Its number in the order of beginning.
    pub number: i64,
    /// When it was begun.
    pub time: Timestamp,
    /// The act.
    #[serde(flatten)]
    pub act: Act,
    /// When it was done; absent while it is under way, and if it was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_time: Option<Timestamp>,
    /// What it did, by counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<BTreeMap<String, u64>>,
}
