//! What can be set.

use std::sync::Arc;
use std::time::Duration;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;

use super::access::{Access, Credentials as Login};
use crate::domain::retry::Backoff;
use crate::telemetry::context::Across;
use crate::wire::cloudevents::Origin;

/// The settings of the door and of the publisher.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the broker is.
    pub address: Address,
    /// As whom to connect and whom to let in, as it is at present.
    pub access: watch::Receiver<Arc<Access>>,
    /// The name that the broker shows of a connection; the connection's purpose is added.
    pub connection_name: String,
    /// Names of exchanges and queues.
    pub names: Names,
    /// Whether exchanges, queues and bindings are declared. Otherwise they are looked for.
    pub declare: bool,
    /// Over how many queues commands are spread by their connection; 0 for one queue that all instances share.
    pub partitions: u16,
    /// The number that is being left for this one.
    pub partitions_from: Option<u16>,
    /// Messages that the broker hands out ahead of their acknowledgement, at least 1.
    pub prefetch: u16,
    /// How long a message is held before it is settled one way or another.
    pub delivery_hold: Duration,
    /// How long messages under way may take to end after consuming had to stop.
    pub grace: Duration,
    /// How long messages under way may take to end when the service is shut down.
    pub drain: Duration,
    /// How long the broker may take to confirm a batch, and a publisher to get a channel.
    pub confirm_timeout: Duration,
    /// How long connecting may take, and each step of opening a channel.
    pub connect_timeout: Duration,
    /// The interval of heartbeats, in whole seconds.
    pub heartbeat: Duration,
    /// How often the topology is looked at.
    pub check_interval: Duration,
    /// Waits between attempts to connect.
    pub backoff: Backoff,
    /// The largest body that is read, in bytes.
    pub body_length_max: usize,
    /// Whether a message from which no idempotency key can be taken is accepted; each delivery of it is then a command
    /// of its own.
    pub accept_without_key: bool,
    /// The origin of events.
    pub origin: Origin,
    /// The form of events.
    pub event_mode: EventMode,
    /// How the trace of a message goes on.
    pub across_queue: Across,
}

/// Names of exchanges and queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The topic exchange to which producers send commands.
    pub commands_exchange: String,
    /// The quorum queue of commands.
    pub commands_queue: String,
    /// The topic exchange of dead letters.
    pub dead_letters_exchange: String,
    /// The quorum queue of dead letters.
    pub dead_letters_queue: String,
    /// The topic exchange of events.
    pub events_exchange: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            commands_exchange: "guest-connections.commands".to_owned(),
            commands_queue: "guest-connections.commands".to_owned(),
            dead_letters_exchange: "guest-connections.dead-letters".to_owned(),
            dead_letters_queue: "guest-connections.dead-letters".to_owned(),
            events_exchange: "guest-connections.events".to_owned(),
        }
    }
}

/// The form of events on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventMode {
    /// Attributes and data in one JSON object.
    Structured,
    /// Attributes as headers, data as the body.
    Binary,
}

/// Where a broker is: an AMQP URI without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The virtual host.
    pub vhost: String,
    /// Whether the connection is encrypted (`amqps`).
    pub encrypted: bool,
}

/// A user name and a password that stood in a URI.
pub type Credentials = (String, SecretString);

impl Address {
    /// Reads `amqp://[user:password@]host[:port]/vhost` (or `amqps://`); the virtual host is percent-encoded, `/` is
    /// written `%2f`. Credentials are handed back apart, so that the address can be shown.
    ///
    /// # Errors
    /// What is wrong, without the text of the URI.
    pub fn parse(uri: &str) -> Result<(Self, Option<Credentials>), String> {
        let url = url::Url::parse(uri).map_err(|error| format!("is not a URI: {error}"))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must not have a query or a fragment: there are settings for that".to_owned());
        }
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        // The reason of a failure may quote the URI, password and all, so it is not handed on.
        let uri: AMQPUri = uri.parse().map_err(|_| "is not an AMQP URI".to_owned())?;
        let address = Self {
            host: uri.authority.host,
            port: uri.authority.port,
            vhost: uri.vhost,
            encrypted: uri.scheme == AMQPScheme::AMQPS,
        };
        let AMQPUserInfo { username, password } = uri.authority.userinfo;
        Ok((address, has_credentials.then(|| (username, SecretString::from(password)))))
    }
}

impl Settings {
    /// The settings with their usual values.
    #[must_use]
    pub fn new(address: Address, username: String, password: SecretString, origin: Origin) -> Self {
        let credentials = Login { username, password, ..Login::default() };
        let access = Arc::new(Access { credentials, ..Access::default() });
        Self {
            address,
            access: watch::Sender::new(access).subscribe(),
            connection_name: env!("CARGO_PKG_NAME").to_owned(),
            names: Names::default(),
            declare: true,
            partitions: 0,
            partitions_from: None,
            prefetch: 256,
            delivery_hold: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            drain: Duration::from_secs(20),
            confirm_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(10),
            check_interval: Duration::from_secs(30),
            backoff: Backoff { delay_base: Duration::from_millis(200), delay_max: Duration::from_secs(5) },
            body_length_max: 64 * 1024,
            accept_without_key: false,
            origin,
            event_mode: EventMode::Structured,
            across_queue: Across::Link,
        }
    }

    /// What lapin connects to. Holds the password, so it must not be shown.
    pub(super) fn uri(&self, login: &Login, frame_max: Option<u32>) -> AMQPUri {
        let address = &self.address;
        AMQPUri {
            scheme: if address.encrypted { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: login.username.clone(),
                    password: login.password.expose_secret().to_owned(),
                },
                host: address.host.clone(),
                port: address.port,
            },
            vhost: address.vhost.clone(),
            query: AMQPQueryString {
                auth_mechanism: login.external.then_some(SASLMechanism::External),
                heartbeat: Some(u16::try_from(self.heartbeat.as_secs()).unwrap_or(u16::MAX)),
                frame_max,
                ..AMQPQueryString::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_taken_apart_and_its_password_is_not_shown() {
        let (address, credentials) = Address::parse("amqp://user:s3cret@broker:5673/%2f").expect("a URI");
        assert_eq!((address.host.as_str(), address.port, address.vhost.as_str()), ("broker", 5673, "/"));
        let (username, password) = credentials.expect("credentials");
        let origin = Origin { source: "/adapter".into(), type_prefix: "com.example".into() };
        let settings = Settings::new(address, username, password, origin);
        assert!(!format!("{settings:?}").contains("s3cret"));
        let access = settings.access.borrow();
        assert_eq!(settings.uri(&access.credentials, None).authority.userinfo.password, "s3cret");
        let sizes = [None, Some(16 * 1024)];
        assert_eq!(sizes.map(|size| settings.uri(&access.credentials, size).query.frame_max), sizes);
        assert!(Address::parse("amqp://broker/%2f?heartbeat=3").is_err());
        let fault = Address::parse("http://user:s3cret@broker/").expect_err("not AMQP");
        assert!(!fault.contains("s3cret"));
    }
}
