//! One connection that has more to do than the API lets it, beside all others.

use std::time::Duration;

use harness::Upstream;
use lapin::BasicProperties;
use uuid::Uuid;

/// The guest of the connection.
pub const GUEST: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0407);

/// How long the API takes with each of its PATCHes.
pub const DELAY: Duration = Duration::from_millis(20);

/// For each of its messages there are so many of others. With 4,000 of others in a second, 80 are more than the API's 50.
const SHARE: usize = 50;

/// Callers for it.
pub const CALLERS: usize = 16;

/// A message: routing key, properties and body.
type Message = (String, BasicProperties, Vec<u8>);

/// Puts its messages among others.
pub fn mixed(upstream: &Upstream, others: Vec<Message>) -> Vec<Message> {
    let mut all = Vec::with_capacity(others.len() + others.len() / SHARE + 1);
    for (number, other) in others.into_iter().enumerate() {
        if number.is_multiple_of(SHARE) {
            let body = upstream.message(GUEST, (number / SHARE).is_multiple_of(2), &format!("hot-{number}"));
            let properties = BasicProperties::default().with_delivery_mode(2);
            all.push((GUEST.to_string(), properties, body.to_string().into_bytes()));
        }
        all.push(other);
    }
    all
}

/// Whether a routing key names it.
pub fn is_named(routing_key: &str) -> bool {
    routing_key.ends_with(&GUEST.to_string())
}
