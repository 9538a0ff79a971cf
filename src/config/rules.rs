//! Bounds and relations: each fault names the key, its value and the rule.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use secrecy::ExposeSecret;
use url::Url;

use super::fault::Faults;
use super::sections::{Amqp, Config, Organization};
use super::{admin, broker, doors, jwt, principals, store, telemetry};
use crate::mycreditapp::roots;
use crate::mycreditapp::wire::TOKEN_LENGTH_MAX;

/// The broker's acknowledgement timeout as it comes; a delivery must not be held that long.
const ACK_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// A connection that is lost without a word should be noticed some day.
const HEARTBEAT_MAX_SECONDS: u64 = 600;

/// A longer drain is a mistake in the unit.
const DRAIN_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// Notes every rule that `config` breaks.
pub(super) fn check(config: &Config, faults: &mut Faults) {
    numbers(config, faults);
    durations(config, faults);
    relations(config, faults);
    upstream(config, faults);
    organizations(config, faults);
    principals::check(config, faults);
    jwt::check(config, faults);
    doors::check(config, faults);
    admin::check(&config.admin, faults);
    store::check(&config.store, faults);
    if let Some(amqp) = &config.amqp {
        self::amqp(amqp, faults);
    }
    broker::check(config, faults);
    events(config, faults);
    telemetry::check(config, faults);
}

pub(super) fn within<T: PartialOrd + Copy + fmt::Display>(
    key: &str,
    value: T,
    min: T,
    max: T,
    faults: &mut Faults,
) {
    if value < min || value > max {
        faults.push(key, format!("is {value}, must be from {min} to {max}"));
    }
}

fn numbers(config: &Config, faults: &mut Faults) {
    const LENGTH_MAX: usize = 16 * 1024 * 1024;
    within("grpc.in_flight_max", config.grpc.in_flight_max, 1, 100_000, faults);
    within("grpc.message_length_max", config.grpc.message_length_max, 1024, LENGTH_MAX, faults);
    within("upstream.body_length_max", config.upstream.body_length_max, 1024, LENGTH_MAX, faults);
    within("upstream.idle_connections_max", config.upstream.idle_connections_max, 0, 10_000, faults);
    within("upstream.in_flight_max", config.upstream.in_flight_max, 1, 100_000, faults);
    within("upstream.retry_share", config.upstream.retry_share, 0.0, 1.0, faults);
    within("upstream.retry_floor", config.upstream.retry_floor, 0, 1_000, faults);
    within("upstream.breaker_failures", config.upstream.breaker_failures, 1, 1_000, faults);
    within("upstream.breaker_failure_share", config.upstream.breaker_failure_share, 0.05, 1.0, faults);
    let limits = &config.limits;
    within("limits.in_flight_max", limits.in_flight_max, 1, 1_000_000, faults);
    within("limits.in_flight_bytes_max", limits.in_flight_bytes_max, 64 * 1024, 64 * LENGTH_MAX, faults);
    within("limits.lane_depth_max", limits.lane_depth_max, 1, 100_000, faults);
    within("limits.backlog_max", limits.backlog_max, 1, 1_000_000_000, faults);
    if let Some(threads) = limits.worker_threads {
        within("limits.worker_threads", threads, 1, 1_024, faults);
    }
    within("relay.batch", config.relay.batch, 1, 10_000, faults);
    for (key, share) in [
        ("upstream.retry_share", config.upstream.retry_share),
        ("upstream.breaker_failure_share", config.upstream.breaker_failure_share),
    ] {
        if share.is_nan() {
            faults.push(key, "is not a number");
        }
    }
    if let Some(amqp) = &config.amqp {
        within("amqp.prefetch", amqp.prefetch, 1, u16::MAX, faults);
        within("amqp.body_length_max", amqp.body_length_max, 1024, LENGTH_MAX, faults);
        if amqp.body_length_max > limits.in_flight_bytes_max {
            let (length, bound) = (amqp.body_length_max, limits.in_flight_bytes_max);
            let rule = format!("is {length}, must not be more than `limits.in_flight_bytes_max` ({bound})");
            faults.push("amqp.body_length_max", rule);
        }
    }
    if config.grpc.listen == config.admin.listen && config.grpc.listen.port() != 0 {
        faults.push("admin.listen", format!("is {}, as `grpc.listen` is", config.admin.listen));
    }
}

/// No time is nothing, and none so long that adding it to a clock could fail.
fn durations(config: &Config, faults: &mut Faults) {
    const MIN: Duration = Duration::from_millis(1);
    const MAX: Duration = Duration::from_secs(366 * 24 * 3600);
    let interval = config.organizations_check_interval;
    if !(MIN..=MAX).contains(&interval) {
        let rule = format!("is {}, must be from 1ms to 366days", shown(interval));
        faults.push("organizations_check_interval", rule);
    }
    let half = config.shutdown.drain_timeout / 2;
    if config.shutdown.notice > half {
        let (notice, half) = (shown(config.shutdown.notice), shown(half));
        let rule = format!("is {notice}, must not be longer than half of `shutdown.drain_timeout` ({half})");
        faults.push("shutdown.notice", rule);
    }
    let Ok(tree) = serde_json::to_value(config) else { return };
    let sections = tree
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !["organizations", "principals"].contains(&name.as_str()));
    for (section, keys) in sections {
        for (name, value) in keys.as_object().into_iter().flatten() {
            let text = value.as_str().filter(|_| super::reference::is_duration(section, name));
            let Some(duration) =
                text.and_then(|text| humantime_serde::re::humantime::parse_duration(text).ok())
            else {
                continue;
            };
            if duration < MIN || duration > MAX {
                faults.push(
                    format!("{section}.{name}"),
                    format!("is {}, must be from 1ms to 366days", shown(duration)),
                );
            }
        }
    }
}

fn shown(duration: Duration) -> String {
    humantime_serde::re::humantime::format_duration(duration).to_string()
}

/// The order of times on which the promises rest.
fn relations(config: &Config, faults: &mut Faults) {
    let Config { upstream, store, shutdown, grpc, relay, .. } = config;
    let mut less = |(key, value): (&str, Duration), (other, bound): (&str, Duration), or_equal: bool| {
        if value > bound || (value == bound && !or_equal) {
            let relation = if or_equal { "must not be longer" } else { "must be shorter" };
            let (value, bound) = (shown(value), shown(bound));
            let other = if other.contains(' ') { other.to_owned() } else { format!("`{other}`") };
            faults.push(key, format!("is {value}, {relation} than {other} ({bound})"));
        }
    };
    let attempt = ("upstream.attempt_timeout", upstream.attempt_timeout);
    let command = ("upstream.command_timeout", upstream.command_timeout);
    let lease = ("store.lease", store.lease);
    less(("upstream.connect_timeout", upstream.connect_timeout), attempt, false);
    less(attempt, command, false);
    less(command, lease, false);
    // A file has no other instances, and may have any lease.
    if store.url.is_some() {
        less(("store.instance_lease", store.instance_lease), lease, true);
        less(("one second", Duration::from_secs(1)), ("store.instance_lease", store.instance_lease), true);
    }
    less(("store.give_up_after", store.give_up_after), ("store.retention", store.retention), false);
    less(lease, ("store.give_up_after", store.give_up_after), false);
    less(
        ("upstream.retry_delay_base", upstream.retry_delay_base),
        ("upstream.retry_delay_max", upstream.retry_delay_max),
        true,
    );
    less(
        ("upstream.defer_delay_base", upstream.defer_delay_base),
        ("upstream.defer_delay_max", upstream.defer_delay_max),
        true,
    );
    less(
        ("upstream.breaker_delay_base", upstream.breaker_delay_base),
        ("upstream.breaker_delay_max", upstream.breaker_delay_max),
        true,
    );
    less(
        ("upstream.token_delay_base", upstream.token_delay_base),
        ("upstream.token_delay_max", upstream.token_delay_max),
        true,
    );
    less(
        ("relay.retry_delay_base", relay.retry_delay_base),
        ("relay.retry_delay_max", relay.retry_delay_max),
        true,
    );
    less(attempt, ("grpc.answer_timeout", grpc.answer_timeout), true);
    less(("shutdown.drain_timeout", shutdown.drain_timeout), ("the longest drain", DRAIN_TIMEOUT_MAX), true);
    if let Some(amqp) = &config.amqp {
        less(("amqp.delivery_hold", amqp.delivery_hold), ("the broker's ack timeout", ACK_TIMEOUT), false);
        less(
            ("amqp.reconnect_delay_base", amqp.reconnect_delay_base),
            ("amqp.reconnect_delay_max", amqp.reconnect_delay_max),
            true,
        );
    }
}

/// An absolute address of one of `schemes`, without credentials. The value is not shown if it may hold some.
pub(super) fn address(key: &str, text: &str, schemes: &[&str], faults: &mut Faults) {
    let schemes_shown = schemes.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>().join(" or ");
    let rule = format!("must be an address that begins with {schemes_shown} and has a host");
    match Url::parse(text) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            faults.push(key, "must not hold a user or a password (its value is not shown)");
        }
        Ok(url) if schemes.contains(&url.scheme()) && url.has_host() => {
            if url.query().is_some() || url.fragment().is_some() {
                faults.push(key, format!("is `{text}`, must not have a query or a fragment"));
            }
        }
        _ if text.contains('@') => faults.push(key, format!("{rule} (its value is not shown)")),
        _ => faults.push(key, format!("is `{text}`, {rule}")),
    }
}

fn upstream(config: &Config, faults: &mut Faults) {
    address("upstream.base_url", &config.upstream.base_url, &["https", "http"], faults);
    if let Some(Err(error)) = config.upstream.ca_file.as_deref().map(roots::read) {
        faults.push("upstream.ca_file", error.to_string());
    }
}

fn organizations(config: &Config, faults: &mut Faults) {
    let mut names = HashMap::new();
    for (name, organization) in &config.organizations {
        let key = format!("organizations.{name}");
        match organization.organization_id() {
            Ok(id) => {
                if let Some(other) = names.insert(id, name) {
                    faults
                        .push(format!("{key}.id"), format!("is {id}, as that of `organizations.{other}` is"));
                }
            }
            Err(rule) => faults.push(format!("{key}.id"), format!("is `{}`, {rule}", organization.id)),
        }
        credentials(&key, organization, faults);
        if let Some(base_url) = &organization.base_url {
            address(&format!("{key}.base_url"), base_url, &["https", "http"], faults);
        }
        if let Some(in_flight_max) = organization.in_flight_max {
            within(&format!("{key}.in_flight_max"), in_flight_max, 1, 100_000, faults);
        }
        let rate = organization.requests_per_second;
        if let Some(rate) = rate.filter(|rate| !(0.01..=100_000.0).contains(rate)) {
            faults.push(
                format!("{key}.requests_per_second"),
                format!("is {rate}, must be from 0.01 to 100000"),
            );
        }
    }
    let default = config.default_organization.as_ref();
    if let Some(name) = default.filter(|name| !config.organizations.contains_key(*name)) {
        let rule = format!("is `{name}`, must be the name of one of the organisations");
        faults.push("default_organization", rule);
    }
}

fn credentials(key: &str, organization: &Organization, faults: &mut Faults) {
    let secret = organization.client_secret.is_some() || organization.client_secret_file.is_some();
    let token = organization.token.is_some() || organization.token_file.is_some();
    // A file that could not be read is a fault already; one fault is enough.
    let unread = (secret && organization.client_secret.is_none()) || (token && organization.token.is_none());
    if let (Err(rule), false) = (organization.credentials(), unread) {
        faults.push(key, rule);
    }
    if let Some(client_id) = &organization.client_id
        && !(1..=128).contains(&client_id.chars().count())
    {
        faults.push(format!("{key}.client_id"), "must have 1 to 128 characters");
    }
    let length = organization.client_secret.as_ref().map(|secret| secret.expose_secret().chars().count());
    if length.is_some_and(|length| !(1..=64).contains(&length)) {
        faults.push(format!("{key}.client_secret"), "must have 1 to 64 characters (its value is not shown)");
    }
    let token = organization.token.as_ref().map(ExposeSecret::expose_secret);
    let fits =
        |token: &str| token.len() <= TOKEN_LENGTH_MAX && token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.is_some_and(|token| !fits(token)) {
        faults.push(
            format!("{key}.token"),
            format!(
                "must be at most {TOKEN_LENGTH_MAX} visible ASCII characters without spaces (its value is not shown)"
            ),
        );
    }
}

fn amqp(amqp: &Amqp, faults: &mut Faults) {
    address("amqp.uri", &amqp.uri, &["amqp", "amqps"], faults);
    let heartbeat = amqp.heartbeat;
    if heartbeat.subsec_nanos() != 0 || !(1..=HEARTBEAT_MAX_SECONDS).contains(&heartbeat.as_secs()) {
        let rule = format!("must be whole seconds, from 1s to {HEARTBEAT_MAX_SECONDS}s");
        faults.push("amqp.heartbeat", format!("is {}, {rule}", shown(heartbeat)));
    }
    for (name, value) in [
        ("commands_exchange", &amqp.commands_exchange),
        ("commands_queue", &amqp.commands_queue),
        ("dead_letters_exchange", &amqp.dead_letters_exchange),
        ("dead_letters_queue", &amqp.dead_letters_queue),
        ("events_exchange", &amqp.events_exchange),
    ] {
        if !(1..=255).contains(&value.len()) || value.starts_with("amq.") {
            let rule = "must have 1 to 255 bytes and not begin with `amq.`";
            faults.push(format!("amqp.{name}"), format!("is `{value}`, {rule}"));
        }
    }
    if amqp.commands_queue == amqp.dead_letters_queue {
        faults.push(
            "amqp.dead_letters_queue",
            format!("is `{}`, as `amqp.commands_queue` is", amqp.commands_queue),
        );
    }
    let exchanges = [&amqp.commands_exchange, &amqp.dead_letters_exchange, &amqp.events_exchange];
    if exchanges[0] == exchanges[1] || exchanges[0] == exchanges[2] || exchanges[1] == exchanges[2] {
        faults.push("amqp.events_exchange", "must differ from the other exchanges, as each of them must");
    }
}

fn events(config: &Config, faults: &mut Faults) {
    let visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    for (key, value) in
        [("events.source", &config.events.source), ("events.type_prefix", &config.events.type_prefix)]
    {
        if !visible(value) {
            faults.push(key, format!("is `{value}`, must be visible ASCII characters without spaces"));
        }
    }
}
