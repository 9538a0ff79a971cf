//! The mark behind the last message of a queue that is left.
//!
//! When it is put there, the queues of the new generation get everything that comes. So what stands behind it lies there
//! too, and a queue may go with all it holds once everything before it is settled.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::FieldTable;
use uuid::Uuid;

use super::generation::Generation;
use super::properties::{PERSISTENT, header, insert, long};
use super::render::Publishing;
use super::settings::Settings;
use crate::domain::trace::TraceContext;

/// The header of a fence.
const HEADER: &str = "x-guest-connection-adapter-fence";

/// What a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something else than a fence.
    Message,
    /// The fence of the change that this instance is configured for.
    Fence,
    /// That of another change, or an instance that is not configured for one.
    Foreign,
}

/// Which change a fence belongs to.
fn change(from: Generation, to: Generation) -> String {
    format!("{} -> {}", from.0, to.0)
}

/// A fence for `queue`. It comes by the default exchange, which producers need not be able to write to.
#[must_use]
pub fn fence(queue: &str, from: Generation, to: Generation) -> Publishing {
    let message_id = Uuid::now_v7().to_string();
    let mut headers = FieldTable::default();
    insert(&mut headers, HEADER, long(&change(from, to)));
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message_id.as_str().into())
        .with_headers(headers);
    Publishing {
        exchange: String::new(),
        routing_key: queue.to_owned(),
        message_id,
        properties,
        body: Vec::new(),
        trace: TraceContext::default(),
        trace_stamped: false,
    }
}

/// What `delivery` from `queue` is. What has come by an exchange of producers is never a fence, whatever it says.
#[must_use]
pub fn kind(delivery: &Delivery, queue: &str, settings: &Settings) -> Kind {
    let is_direct = delivery.exchange.as_str().is_empty() && delivery.routing_key.as_str() == queue;
    let Some(found) = header(&delivery.properties, HEADER).filter(|_| is_direct) else {
        return Kind::Message;
    };
    match settings.partitions_from {
        Some(from) if found == change(Generation(from), Generation(settings.partitions)) => Kind::Fence,
        _ => Kind::Foreign,
    }
}
