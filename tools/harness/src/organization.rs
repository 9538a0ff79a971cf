//! An organisation that the upstream knows and the adapter is configured for, and what is asked for in its name.

use guest_connection_adapter::proto;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{CLIENT_ID, CLIENT_SECRET};

/// An organisation with an API client of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Its name in the adapter's configuration.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// The id of its API client.
    pub client_id: String,
    /// The secret of that.
    pub client_secret: String,
}

impl Organization {
    /// Number `number` of a test's organisations, from 0; the first has the client that every test setup has.
    #[must_use]
    pub fn numbered(number: usize, id: Uuid) -> Self {
        let text = |text: &str| if number == 0 { text.to_owned() } else { format!("{text}-{number}") };
        let (name, client_id, client_secret) = (text("test"), text(CLIENT_ID), text(CLIENT_SECRET));
        Self { name, id, client_id, client_secret }
    }

    /// A call to archive the connection of `guest`.
    #[must_use]
    pub fn archive(&self, guest: Uuid, key: &str) -> proto::ArchiveGuestConnectionRequest {
        proto::ArchiveGuestConnectionRequest {
            guest_organization_id: guest.to_string(),
            requester_organization_id: self.id.to_string(),
            idempotency_key: key.to_owned(),
            ..<_>::default()
        }
    }

    /// A call to unarchive the connection of `guest`.
    #[must_use]
    pub fn unarchive(&self, guest: Uuid, key: &str) -> proto::UnarchiveGuestConnectionRequest {
        proto::UnarchiveGuestConnectionRequest {
            guest_organization_id: guest.to_string(),
            requester_organization_id: self.id.to_string(),
            idempotency_key: key.to_owned(),
            ..<_>::default()
        }
    }

    /// The same as a message on the queue.
    #[must_use]
    pub fn message(&self, guest: Uuid, archived: bool, key: &str) -> Value {
        json!({
            "requester_organization_id": self.id,
            "guest_organization_id": guest,
            "archived": archived,
            "idempotency_key": key,
        })
    }

    /// The question for the command under `key`.
    #[must_use]
    pub fn lookup(&self, key: &str) -> proto::GetCommandRequest {
        let key = proto::CommandKey {
            requester_organization_id: self.id.to_string(),
            idempotency_key: key.to_owned(),
        };
        proto::GetCommandRequest { lookup: Some(proto::get_command_request::Lookup::Key(key)) }
    }
}
