//! What was received, answered and applied.

use std::collections::VecDeque;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a request asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `PATCH /guest-connections/{guest_org_id}`
    Patch,
    /// `POST /oauth2/token`
    Token,
    /// Anything else, which is always a violation.
    Other,
}

/// Where a request comes from.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The trace context as it was sent.
    pub(crate) traceparent: Option<String>,
    /// The address that its connection came from.
    pub(crate) peer: Option<IpAddr>,
}

/// One request, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts the requests from 1; it goes on after a reset.
    pub seq: u64,
    /// What was asked for.
    pub endpoint: Endpoint,
    /// When the head of the request was read.
    pub received_at: DateTime<Utc>,
    /// When the status line was given out; none if there was none.
    #[serde(default)]
    pub status_at: Option<DateTime<Utc>>,
    /// When the answer was complete; none while it is not, or if it never was.
    pub answered_at: Option<DateTime<Utc>>,
    /// When it was answered, or its connection was seen closed; none while it is outstanding.
    #[serde(default)]
    pub ended_at: Option<DateTime<Utc>>,
    /// `Requester-Organization-ID`, or the organisation of the client that asked for a token.
    pub requester: Option<Uuid>,
    /// `Target-Organization-ID`
    pub target: Option<Uuid>,
    /// The guest of the path.
    pub guest: Option<Uuid>,
    /// The value that the body asked for.
    pub archived: Option<bool>,
    /// The organisation that the token or the credentials belong to.
    pub client_organization: Option<Uuid>,
    /// The trace context as it was sent.
    pub traceparent: Option<String>,
    /// The status line sent; none if there was none.
    pub status: Option<u16>,
    /// Whether the PATCH took effect, or a token was issued.
    pub applied: bool,
    /// The place of this PATCH among all applied ones, from 1; it goes on after a reset.
    pub applied_seq: Option<u64>,
    /// When it took effect.
    pub applied_at: Option<DateTime<Utc>>,
    /// The kinds of the faults used, joined by `+`.
    pub fault: Option<String>,
    /// How the request breaks the contract.
    pub violations: Vec<String>,
    /// The address that its connection came from.
    #[serde(default)]
    pub peer: Option<IpAddr>,
}

impl Entry {
    /// Whether this is a PATCH of the guest.
    #[must_use]
    pub fn is_patch_of(&self, guest: Uuid) -> bool {
        self.endpoint == Endpoint::Patch && self.guest == Some(guest)
    }
}

/// Counts since the start or the last reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// PATCH requests received.
    pub patches: u64,
    /// PATCH requests applied.
    pub applied: u64,
    /// Token requests received.
    pub tokens: u64,
    /// Violations of all requests.
    pub violations: u64,
    /// PATCH requests that are neither answered nor seen closed.
    pub outstanding: u64,
    /// The most PATCH requests that were outstanding at once.
    pub max_outstanding: u64,
    /// The most PATCH requests that were outstanding at once for one connection.
    pub max_outstanding_per_connection: u64,
    /// Entries that the journal had no room for.
    pub journal_dropped: u64,
}

/// The newest entries, without gaps in `seq`.
#[derive(Debug)]
pub(crate) struct Journal {
    entries: VecDeque<Entry>,
    next_seq: u64,
    capacity: usize,
    pub(crate) dropped: u64,
}

impl Journal {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), next_seq: 1, capacity: capacity.max(1), dropped: 0 }
    }

    /// Adds an entry under the next number, which it returns.
    pub(crate) fn push(&mut self, mut entry: Entry) -> u64 {
        if self.entries.len() >= self.capacity {
            self.entries.pop_front();
            self.dropped += 1;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        entry.seq = seq;
        self.entries.push_back(entry);
        seq
    }

    /// The entry with this number, unless it was dropped or cleared.
    pub(crate) fn get_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        let first = self.entries.front()?.seq;
        let index = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.entries.get_mut(index)
    }

    pub(crate) fn as_slice(&mut self) -> &[Entry] {
        self.entries.make_contiguous()
    }

    /// The entries with a greater number than `seq`.
    pub(crate) fn after(&mut self, seq: u64) -> &[Entry] {
        let entries = self.as_slice();
        let start = entries.partition_point(|entry| entry.seq <= seq);
        &entries[start..]
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.dropped = 0;
    }
}
