//! The queue's door from a producer's side.

use std::time::Duration;

use chrono::SecondsFormat;
use guest_connection_adapter::proto;
use harness::Names;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::calls::timestamp;
use crate::history::{Answer, Time};
use crate::plan::{Form, Garbage, Wish};
use crate::stage::REPLIES_QUEUE;

/// The header by which a dead letter is known as the copy of a sending.
pub const NUMBER_HEADER: &str = "chaos-id";

/// How long a producer waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a producer waits for a confirm.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(6);

/// A message to the command queue.
pub struct Message {
    routing_key: String,
    properties: BasicProperties,
    body: Vec<u8>,
}

fn properties(content_type: &str, number: usize, trace: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(NUMBER_HEADER.into(), AMQPValue::LongString(number.to_string().into()));
    let span = &Uuid::new_v4().simple().to_string()[..16];
    headers.insert("traceparent".into(), AMQPValue::LongString(format!("00-{trace}-{span}-01").into()));
    BasicProperties::default()
        .with_content_type(content_type.into())
        .with_delivery_mode(2)
        .with_headers(headers)
}

fn json(wish: &Wish, times: (Option<Time>, Option<Time>)) -> Value {
    let mut body = json!({
        "requester_organization_id": wish.requester,
        "guest_organization_id": wish.guest,
        "archived": wish.archived,
        "idempotency_key": wish.key,
    });
    for (name, time) in [("issue_time", times.0), ("expire_time", times.1)] {
        if let Some(time) = time {
            body[name] = json!(time.to_rfc3339_opts(SecondsFormat::Micros, true));
        }
    }
    body
}

/// Both requests have the same fields.
fn protobuf(wish: &Wish, times: (Option<Time>, Option<Time>)) -> Vec<u8> {
    let request = proto::ArchiveGuestConnectionRequest {
        guest_organization_id: wish.guest.to_string(),
        requester_organization_id: wish.requester.to_string(),
        target_organization_id: String::new(),
        idempotency_key: wish.key.clone(),
        issue_time: times.0.map(timestamp),
        expire_time: times.1.map(timestamp),
    };
    request.encode_to_vec()
}

impl Message {
    /// The command of a wish. `times` are its issue and expire times.
    #[must_use]
    pub fn of_wish(wish: &Wish, times: (Option<Time>, Option<Time>), form: Form, number: usize) -> Self {
        let (content_type, kind, body) = match form {
            Form::Json => ("application/json", None, json(wish, times).to_string().into_bytes()),
            Form::CloudEvent => {
                let event = json!({
                    "specversion": "1.0",
                    "id": format!("{number}"),
                    "source": "/chaos",
                    "type": "chaos.wish",
                    "data": json(wish, times),
                });
                ("application/cloudevents+json", None, event.to_string().into_bytes())
            }
            Form::Protobuf => {
                let name = if wish.archived { "ArchiveGuestConnection" } else { "UnarchiveGuestConnection" };
                let kind = format!("guestconnections.v1.{name}Request");
                ("application/x-protobuf", Some(kind), protobuf(wish, times))
            }
        };
        let mut properties = properties(content_type, number, &wish.trace);
        if let Some(kind) = kind {
            properties = properties.with_type(kind.into());
        }
        Self { routing_key: wish.guest.to_string(), properties, body }
    }

    /// Garbage.
    #[must_use]
    pub fn of_garbage(garbage: &Garbage, number: usize) -> Self {
        Self {
            routing_key: "garbage".to_owned(),
            properties: properties(&garbage.content_type, number, &Uuid::new_v4().simple().to_string()),
            body: garbage.body.clone(),
        }
    }

    /// Asks for a reply.
    #[must_use]
    pub fn with_reply(mut self, number: usize) -> Self {
        self.properties = self
            .properties
            .with_reply_to(REPLIES_QUEUE.into())
            .with_correlation_id(number.to_string().into());
        self
    }
}

/// A producer that connects anew whenever it has to.
pub struct Publisher {
    uri: String,
    session: tokio::sync::Mutex<Option<(Connection, Channel)>>,
}

impl Publisher {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(uri: &str) -> Self {
        Self { uri: uri.to_owned(), session: tokio::sync::Mutex::default() }
    }

    /// Publishes once and waits for the confirm.
    pub async fn publish(&self, message: &Message) -> Answer {
        let channel = match timeout(CONNECT_TIMEOUT, self.channel()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Answer::NotSent(error.to_string()),
            Err(_) => return Answer::NotSent("no connection in time".to_owned()),
        };
        let sent = timeout(CONFIRM_TIMEOUT, publish(&channel, message)).await;
        match sent {
            Ok(Ok(Confirmation::Ack(None))) => Answer::Confirmed,
            Ok(Ok(other)) => Answer::Unknown(format!("{other:?}")),
            Ok(Err(error)) => Answer::Unknown(error.to_string()),
            Err(_) => Answer::Unknown("no confirm in time".to_owned()),
        }
    }

    async fn channel(&self) -> lapin::Result<Channel> {
        let mut session = self.session.lock().await;
        if let Some((_, channel)) = session
            .as_ref()
            .filter(|(connection, channel)| connection.status().connected() && channel.status().connected())
        {
            return Ok(channel.clone());
        }
        let connection = Connection::connect(&self.uri, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        *session = Some((connection, channel.clone()));
        Ok(channel)
    }
}

async fn publish(channel: &Channel, message: &Message) -> lapin::Result<Confirmation> {
    let publish = channel.basic_publish(
        Names::usual().commands.as_str().into(),
        message.routing_key.as_str().into(),
        BasicPublishOptions { mandatory: true, ..<_>::default() },
        &message.body,
        message.properties.clone(),
    );
    publish.await?.await
}
