//! What the parts are given of the configuration, for those parts that the configuration must not know.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;

use crate::amqp::access::{Access, Credentials, Senders};
use crate::config::sections::{Amqp, EventMode, Identify, Sasl, WhenUnroutable};
use crate::config::{Config, Fault, Faults};
use crate::domain::command::OrganizationId;
use crate::domain::lifecycle::Terms;
use crate::domain::retry::Backoff;
use crate::grpc::deadline::Bounds;
use crate::service::readiness::Condition;
use crate::wire::cloudevents::Origin;
use crate::{admin, amqp, grpc, service};

/// The share of what may be in flight that recovery may work on besides.
const RECOVERY_DIVISOR: usize = 4;

/// The longest wait of a call, whatever deadline it brings.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(300);

/// For whom the upstream is not called.
pub(super) fn upstream_condition(condition: &service::gate::Condition) -> Condition {
    let mut texts = Vec::new();
    if !condition.down.is_empty() {
        texts.push(format!(
            "the upstream fails, nothing is sent until it is back: {}",
            condition.down.join(", ")
        ));
    }
    if !condition.closed.is_empty() {
        let names: Vec<_> = condition.closed.iter().map(ToString::to_string).collect();
        texts.push(format!(
            "nothing is sent for requester organisations that fail or are to wait: {}",
            names.join(", ")
        ));
    }
    if texts.is_empty() { Condition::Ready } else { Condition::Degraded(texts.join("; ")) }
}

/// The configuration's rules keep spans far below what this cannot hold.
fn span(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

impl Config {
    pub(super) fn service(&self) -> service::Settings {
        let upstream = &self.upstream;
        service::Settings {
            attempt_timeout: upstream.attempt_timeout,
            command_timeout: upstream.command_timeout,
            lease: self.store.lease,
            retry: Backoff { delay_base: upstream.retry_delay_base, delay_max: upstream.retry_delay_max },
            deferral: Backoff { delay_base: upstream.defer_delay_base, delay_max: upstream.defer_delay_max },
            retention: self.retention(),
            lane_depth_max: self.limits.lane_depth_max,
            load: service::load::Limits {
                commands_max: self.limits.in_flight_max,
                bytes_max: self.limits.in_flight_bytes_max,
                backlog_max: self.limits.backlog_max,
                calls_max: self.grpc.in_flight_max,
                messages_max: self
                    .amqp
                    .as_ref()
                    .map_or(0, |amqp| usize::from(amqp.prefetch.max(amqp.partitions))),
                recovered_max: self.limits.in_flight_max.div_ceil(RECOVERY_DIVISOR),
            },
            gate: service::gate::Settings {
                failures_max: upstream.breaker_failures,
                failure_share: upstream.breaker_failure_share,
                delay: Backoff {
                    delay_base: upstream.breaker_delay_base,
                    delay_max: upstream.breaker_delay_max,
                },
                concurrency_max: upstream.in_flight_max,
                retry_share: upstream.retry_share,
                retry_floor: upstream.retry_floor,
            },
        }
    }

    /// The requester organisations and their limits.
    pub(super) fn gate_organizations(&self) -> HashMap<OrganizationId, service::gate::Organization> {
        let organizations = self.organizations.values().filter_map(|organization| {
            let upstream = organization.base_url.as_ref().unwrap_or(&self.upstream.base_url).clone();
            let (in_flight_max, requests_per_second) =
                (organization.in_flight_max, organization.requests_per_second);
            let limits = service::gate::Organization { upstream, in_flight_max, requests_per_second };
            // Configuration that was checked has ids.
            Some((organization.organization_id().ok()?, limits))
        });
        organizations.collect()
    }

    pub(super) fn retention(&self) -> TimeDelta {
        span(self.store.retention)
    }

    pub(super) fn terms(&self) -> Terms {
        Terms {
            lease: span(self.store.lease),
            settle: span(self.upstream.settle),
            hold: span(self.store.lease),
            give_up_after: span(self.store.give_up_after),
        }
    }

    pub(super) fn admin(&self) -> admin::Settings {
        let is_open = self.admin.is_beyond_loopback();
        admin::Settings {
            token: self.admin.token.clone(),
            is_guarded: is_open && !self.admin.insecure,
            is_insecure: is_open && self.admin.insecure,
        }
    }

    pub(super) fn grpc(&self) -> grpc::server::Settings {
        grpc::server::Settings {
            in_flight_max: self.grpc.in_flight_max,
            message_length_max: self.grpc.message_length_max,
            bounds: Bounds { wait_default: self.grpc.answer_timeout, wait_max: ANSWER_WAIT_MAX },
            drain_notice: self.shutdown.notice,
            incoming: grpc::incoming::Settings {
                connections_max: self.grpc.connections_max,
                connections_per_address_max: self.grpc.connections_per_address_max,
                ..grpc::incoming::Settings::default()
            },
            ..grpc::server::Settings::default()
        }
    }

    pub(super) fn relay(&self, share: service::relay::Share) -> service::relay::Settings {
        service::relay::Settings {
            share,
            batch_max: self.relay.batch,
            backoff: Backoff {
                delay_base: self.relay.retry_delay_base,
                delay_max: self.relay.retry_delay_max,
            },
            when_unroutable: match self.events.when_unroutable {
                WhenUnroutable::Hold => service::relay::WhenUnroutable::Hold,
                WhenUnroutable::Discard => service::relay::WhenUnroutable::Discard,
            },
        }
    }

    /// The door and publisher of the broker, if there is one. `flush_timeout` is what the drain leaves to others.
    pub(super) fn amqp(&self, flush_timeout: Duration) -> Result<Option<amqp::Settings>, Faults> {
        let Some(amqp) = &self.amqp else { return Ok(None) };
        let fault = |key: &str, message: String| Faults(vec![Fault { key: key.to_owned(), message }]);
        let (address, _) = amqp::Address::parse(&amqp.uri).map_err(|rule| fault("amqp.uri", rule))?;
        let password = amqp.password().unwrap_or_default();
        let usual = amqp::Settings::new(address, amqp.username.clone(), password, self.origin());
        Ok(Some(amqp::Settings {
            names: amqp::Names {
                commands_exchange: amqp.commands_exchange.clone(),
                commands_queue: amqp.commands_queue.clone(),
                dead_letters_exchange: amqp.dead_letters_exchange.clone(),
                dead_letters_queue: amqp.dead_letters_queue.clone(),
                events_exchange: amqp.events_exchange.clone(),
            },
            declare: amqp.declare,
            partitions: amqp.partitions,
            partitions_from: amqp.partitions_from,
            prefetch: amqp.prefetch,
            delivery_hold: amqp.delivery_hold,
            drain: self.shutdown.drain_timeout.saturating_sub(flush_timeout),
            connect_timeout: amqp.connect_timeout,
            heartbeat: amqp.heartbeat,
            check_interval: amqp.check_interval,
            confirm_timeout: amqp.confirm_timeout,
            backoff: Backoff { delay_base: amqp.reconnect_delay_base, delay_max: amqp.reconnect_delay_max },
            body_length_max: amqp.body_length_max,
            accept_without_key: amqp.accept_without_key,
            event_mode: match self.events.mode {
                EventMode::Structured => amqp::EventMode::Structured,
                EventMode::Binary => amqp::EventMode::Binary,
            },
            across_queue: self.telemetry.across_queue,
            ..usual
        }))
    }

    /// As whom to connect to the broker, and whom to let in by it.
    pub(super) fn broker_access(&self) -> Access {
        let Some(amqp) = &self.amqp else { return Access::default() };
        let unnamed = amqp.principal.as_ref().and_then(|name| self.principal(name)).map(Arc::new);
        Access {
            credentials: Credentials {
                username: amqp.username.clone(),
                password: amqp.password().unwrap_or_default(),
                external: amqp.sasl == Sasl::External,
                authorities: amqp.pem.ca.clone(),
                certificate: amqp.pem.certificate.clone().zip(amqp.pem.key.clone()),
            },
            senders: Senders {
                policy: Arc::new(self.policy()),
                by_user_id: amqp.identify == Identify::UserId,
                unnamed,
            },
        }
    }

    /// This configuration with what is followed of another: organisations, principals, the broker's credentials and its
    /// senders.
    pub(super) fn following(&self, new: Self) -> Self {
        let amqp = match (&self.amqp, new.amqp) {
            (Some(old), Some(new)) => Some(Amqp {
                username: new.username,
                password_file: new.password_file,
                password: new.password,
                sasl: new.sasl,
                ca_file: new.ca_file,
                certificate_file: new.certificate_file,
                key_file: new.key_file,
                pem: new.pem,
                identify: new.identify,
                principal: new.principal,
                ..old.clone()
            }),
            (old, _) => old.clone(),
        };
        let mut jwt = self.jwt.clone();
        if let (Some(jwt), Some(keys)) = (&mut jwt, new.jwt.and_then(|jwt| jwt.keys)) {
            jwt.keys = Some(keys);
        }
        Self {
            organizations: new.organizations,
            default_organization: new.default_organization,
            principals: new.principals,
            jwt,
            amqp,
            ..self.clone()
        }
    }

    pub(super) fn origin(&self) -> Origin {
        Origin { source: self.events.source.clone(), type_prefix: self.events.type_prefix.clone() }
    }
}
