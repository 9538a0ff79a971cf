//! A guest connection, and how a 200 shows it.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

/// Names a connection: the organisation it lives with (the target) and the guest of the path.
pub(crate) type ConnectionKey = (Uuid, Uuid);

/// A guest connection with the 16 fields of the contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// The organisation that the connection lives with.
    pub host_organization_id: Uuid,
    /// The guest.
    pub guest_organization_id: Uuid,
    /// `connected` or `disconnected`.
    pub status: String,
    /// 1 to 300 characters.
    pub guest_name: String,
    /// An e-mail address of the guest.
    pub guest_email: String,
    /// An e-mail address of the owner.
    pub owner_email: String,
    /// The flag that a PATCH sets.
    pub archived: bool,
    /// When the simulator first heard of the connection.
    pub created_at: DateTime<Utc>,
    /// When a PATCH was last applied.
    pub updated_at: DateTime<Utc>,
    /// Zero or more.
    pub total_score: Option<f64>,
    /// When the score was computed.
    pub score_updated_at: Option<DateTime<Utc>>,
    /// When the flag was set; none while it is not.
    pub archived_at: Option<DateTime<Utc>>,
    /// `analytics_request`.
    pub active_action_type: Option<String>,
    /// When the action was last touched.
    pub active_action_updated_at: Option<DateTime<Utc>>,
    /// The guest's parent.
    pub parent_organization_id: Option<Uuid>,
    /// 1 to 300 characters.
    pub parent_organization_name: Option<String>,
}

impl Connection {
    /// A plausible connection, not archived. `number` makes names and score differ from one to the next.
    pub(crate) fn plausible(key: ConnectionKey, number: u32, now: DateTime<Utc>) -> Self {
        let (host, guest) = key;
        let short = &guest.simple().to_string()[..8];
        let scored = number % 4 != 3;
        let busy = number.is_multiple_of(5);
        let parented = number.is_multiple_of(3);
        Self {
            host_organization_id: host,
            guest_organization_id: guest,
            status: "connected".to_owned(),
            guest_name: format!("Guest {short} Sp. z o.o."),
            guest_email: format!("office@{short}.guest.example"),
            owner_email: format!("owner@{short}.guest.example"),
            archived: false,
            created_at: now,
            updated_at: now,
            total_score: scored.then(|| f64::from(number % 1000) + 0.5),
            score_updated_at: scored.then_some(now),
            archived_at: None,
            active_action_type: busy.then(|| "analytics_request".to_owned()),
            active_action_updated_at: busy.then_some(now),
            parent_organization_id: parented.then_some(host),
            parent_organization_name: parented.then(|| "Parent Holding S.A.".to_owned()),
        }
    }

    /// Sets the flag as a PATCH does.
    pub(crate) fn set_archived(&mut self, archived: bool, now: DateTime<Utc>) {
        self.archived_at = match (archived, self.archived_at) {
            (true, None) => Some(now),
            (true, since) => since,
            (false, _) => None,
        };
        self.archived = archived;
        self.updated_at = now;
    }

    /// The body of a 200.
    pub(crate) fn render(&self, style: Style) -> Vec<u8> {
        let time = |at: DateTime<Utc>| style.time_form.render(at);
        let wire = Wire {
            host_organization_id: self.host_organization_id,
            guest_organization_id: self.guest_organization_id,
            status: if style.extra_fields { "awaiting_review" } else { &self.status },
            guest_name: &self.guest_name,
            guest_email: &self.guest_email,
            owner_email: &self.owner_email,
            archived: self.archived != style.wrong_archived,
            created_at: time(self.created_at),
            updated_at: time(self.updated_at),
            total_score: self.total_score,
            score_updated_at: self.score_updated_at.map(time),
            archived_at: self.archived_at.map(time),
            active_action_type: if style.extra_fields {
                Some("ledger_request")
            } else {
                self.active_action_type.as_deref()
            },
            active_action_updated_at: self.active_action_updated_at.map(time),
            parent_organization_id: self.parent_organization_id,
            parent_organization_name: self.parent_organization_name.as_deref(),
            risk_band: style.extra_fields.then_some("B2"),
            labels: style
                .extra_fields
                .then(|| json!({"tier": "gold", "since": [2024, null, {"quarter": 3}]})),
        };
        // A struct of strings, numbers and options always serialises; an empty body would show at once.
        serde_json::to_vec(&wire).unwrap_or_default()
    }
}

/// The two forms in which the API writes times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeForm {
    /// `2023-11-07T05:31:56Z`
    #[default]
    Zoned,
    /// `2025-12-12T10:30:00.123456`, which means UTC.
    Zoneless,
}

impl TimeForm {
    fn render(self, at: DateTime<Utc>) -> String {
        match self {
            Self::Zoned => at.to_rfc3339_opts(SecondsFormat::Secs, true),
            Self::Zoneless => at.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
        }
    }
}

/// How a 200 is written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Style {
    pub(crate) time_form: TimeForm,
    pub(crate) extra_fields: bool,
    /// Shows the other value of `archived`.
    pub(crate) wrong_archived: bool,
}

#[derive(Serialize)]
struct Wire<'a> {
    host_organization_id: Uuid,
    guest_organization_id: Uuid,
    status: &'a str,
    guest_name: &'a str,
    guest_email: &'a str,
    owner_email: &'a str,
    archived: bool,
    created_at: String,
    updated_at: String,
    total_score: Option<f64>,
    score_updated_at: Option<String>,
    archived_at: Option<String>,
    active_action_type: Option<&'a str>,
    active_action_updated_at: Option<String>,
    parent_organization_id: Option<Uuid>,
    parent_organization_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    risk_band: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<serde_json::Value>,
}
