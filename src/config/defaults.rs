//! The defaults: they work on one machine, against the API itself and a broker beside it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::sections::{
    Admin, Amqp, Config, EventMode, Events, Grpc, Identify, Limits, Pem, Principal, Relay, Sasl, Shutdown,
    Store, Telemetry, Upstream, WhenUnroutable,
};
use crate::domain::access::Method;

const KIB: usize = 1024;

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn minutes(count: u64) -> Duration {
    secs(60 * count)
}

const fn hours(count: u64) -> Duration {
    minutes(60 * count)
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default_organization: None,
            organizations_check_interval: secs(2),
            grpc: Grpc::default(),
            admin: Admin::default(),
            upstream: Upstream::default(),
            organizations: BTreeMap::new(),
            principals: BTreeMap::new(),
            jwt: None,
            amqp: None,
            events: Events::default(),
            store: Store::default(),
            limits: Limits::default(),
            relay: Relay::default(),
            telemetry: Telemetry::default(),
            shutdown: Shutdown::default(),
        }
    }
}

impl Default for Principal {
    fn default() -> Self {
        Self {
            certificate_names: Vec::new(),
            jwt_subjects: Vec::new(),
            amqp_users: Vec::new(),
            organizations: Vec::new(),
            methods: Method::ALL.map(|method| method.as_str().to_owned()).to_vec(),
            requests_per_second: None,
        }
    }
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            insecure: false,
            certificate_file: None,
            key_file: None,
            client_ca_file: None,
            client_certificates: None,
            connections_max: 1024,
            connections_per_address_max: 256,
            in_flight_max: 512,
            message_length_max: 64 * KIB,
            answer_timeout: secs(30),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            token_file: None,
            token: None,
            insecure: false,
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            base_url: "https://api.mycreditapp.ai/v1-beta".to_owned(),
            ca_file: None,
            attempt_timeout: secs(5),
            command_timeout: secs(30),
            connect_timeout: secs(2),
            body_length_max: 1024 * KIB,
            idle_connections_max: 256,
            idle_timeout: secs(60),
            settle: secs(30),
            retry_delay_base: ms(200),
            retry_delay_max: secs(5),
            retry_share: 0.2,
            retry_floor: 2,
            in_flight_max: 256,
            breaker_failures: 5,
            breaker_failure_share: 0.5,
            breaker_delay_base: ms(500),
            breaker_delay_max: secs(3),
            defer_delay_base: secs(5),
            defer_delay_max: minutes(5),
            token_refresh_margin: secs(60),
            token_delay_base: secs(1),
            token_delay_max: secs(60),
        }
    }
}

impl Default for Amqp {
    fn default() -> Self {
        Self {
            uri: "amqp://127.0.0.1:5672/%2f".to_owned(),
            username: Self::DEFAULT_USER.to_owned(),
            password_file: None,
            password: None,
            sasl: Sasl::Plain,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            pem: Pem::default(),
            identify: Identify::None,
            principal: None,
            declare: true,
            partitions: 0,
            partitions_from: None,
            prefetch: 256,
            commands_exchange: "guest-connections.commands".to_owned(),
            commands_queue: "guest-connections.commands".to_owned(),
            dead_letters_exchange: "guest-connections.dead-letters".to_owned(),
            dead_letters_queue: "guest-connections.dead-letters".to_owned(),
            events_exchange: "guest-connections.events".to_owned(),
            body_length_max: 64 * KIB,
            delivery_hold: secs(60),
            connect_timeout: secs(10),
            heartbeat: secs(10),
            check_interval: secs(30),
            confirm_timeout: secs(10),
            accept_without_key: false,
            reconnect_delay_base: ms(500),
            reconnect_delay_max: secs(5),
        }
    }
}

impl Amqp {
    /// The user, and the password, that every broker comes with. It takes them from its own machine only.
    pub(super) const DEFAULT_USER: &str = "guest";
}

impl Default for Events {
    fn default() -> Self {
        Self {
            source: "/guest-connection-adapter".to_owned(),
            type_prefix: "ai.mycreditapp".to_owned(),
            mode: EventMode::Structured,
            when_unroutable: WhenUnroutable::Hold,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: "var/guest-connection-adapter.db".into(),
            url: None,
            password_file: None,
            password: None,
            ca_file: None,
            connect_timeout: secs(5),
            statement_timeout: secs(10),
            instance_lease: secs(10),
            retention: hours(7 * 24),
            lease: secs(60),
            give_up_after: hours(24),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight_max: 4_096,
            in_flight_bytes_max: 32 * 1024 * KIB,
            lane_depth_max: 256,
            backlog_max: 100_000,
            worker_threads: None,
        }
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self { batch: 256, retry_delay_base: ms(500), retry_delay_max: secs(30) }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { notice: Duration::from_millis(100), drain_timeout: secs(25) }
    }
}
