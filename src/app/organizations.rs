//! Organisations at run time: what the configuration says of them takes effect without a restart.
//!
//! The files are looked at again and again, rather than followed by the system's notices: mounted secrets change by the
//! swap of a symbolic link some levels up, network file systems tell nothing, and a notice that is missed is missed for
//! good. A look costs a few calls of `stat`; nothing is read while they say the same.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::callers::Door;
use super::files::Files;
use super::journal::Journal;
use super::records;
use crate::amqp::{self, access::Access};
use crate::config::sections::Organization;
use crate::config::{Config, Faults, Source};
use crate::domain::command::OrganizationId;
use crate::jwt::keys::Keys;
use crate::mycreditapp::MyCreditApp;
use crate::service::archiver::Archiver;
use crate::service::readiness::{Condition, Part, Readiness};
use crate::telemetry::catalogue as metric;

/// Gives the organisations of `config` to all who go by them, at the start and after every change. If it fails nothing was
/// changed. What was learnt of those in `renewed` is forgotten.
fn apply(
    config: &Config,
    renewed: &HashSet<OrganizationId>,
    upstream: &MyCreditApp,
    archiver: &Archiver,
    door: &Door,
) -> Result<(), Error> {
    upstream.replace(config.upstream()?.organizations)?;
    archiver.configure(&config.gate_organizations(), renewed);
    archiver.set_default_requester(config.default_requester());
    door.configure(config);
    Ok(())
}

/// Follows the files of a configuration.
pub(super) struct Watch {
    /// What holds at present.
    config: Config,
    upstream: Arc<MyCreditApp>,
    archiver: Archiver,
    door: Door,
    part: Part,
    /// As whom to connect to the broker, and whom to let in by it.
    broker: watch::Sender<Arc<Access>>,
    journal: Journal,
}

/// Keys that are followed, besides all those of organisations and principals.
const FOLLOWED: [&str; 11] = [
    "organizations",
    "default_organization",
    "principals",
    "amqp.username",
    "amqp.password_file",
    "amqp.sasl",
    "amqp.ca_file",
    "amqp.certificate_file",
    "amqp.key_file",
    "amqp.identify",
    "amqp.principal",
];

/// What was said last, so that it is not said again.
#[derive(Default)]
struct Told {
    faults: Option<String>,
    restart: BTreeSet<String>,
}

struct Metrics {
    reloads: Counter<u64>,
    configured: Gauge<u64>,
}

impl Metrics {
    fn new() -> Self {
        let reloads = metric::ORGANIZATIONS_RELOADS.counter();
        Self { reloads, configured: metric::ORGANIZATIONS_CONFIGURED.gauge() }
    }

    fn reloaded(&self, result: &'static str) {
        self.reloads.add(1, &[KeyValue::new("result", result)]);
    }

    fn configured(&self, config: &Config) {
        self.configured.record(u64::try_from(config.organizations.len()).unwrap_or(u64::MAX), &[]);
    }
}

impl Watch {
    /// Applies what holds at the start.
    pub(super) fn begin(
        config: &Config,
        upstream: Arc<MyCreditApp>,
        archiver: Archiver,
        door: Door,
        readiness: &Readiness,
        journal: Journal,
    ) -> Result<Self, Error> {
        apply(config, &HashSet::new(), &upstream, &archiver, &door)?;
        let broker = watch::Sender::new(Arc::new(config.broker_access()));
        let part = readiness.part("organizations");
        Ok(Self { config: config.clone(), upstream, archiver, door, part, broker, journal })
    }

    /// What the broker's door and publisher are given, if there is one; what is followed comes to them by itself.
    pub(super) fn broker(&self, flush_timeout: Duration) -> Result<Option<amqp::Settings>, Faults> {
        let settings = self.config.amqp(flush_timeout)?;
        Ok(settings.map(|settings| amqp::Settings { access: self.broker.subscribe(), ..settings }))
    }

    /// Looks at the files of `source` until `stop`. The first look finds what changed since the start.
    pub(super) async fn run(mut self, source: Source, stop: CancellationToken) {
        let metrics = Metrics::new();
        metrics.configured(&self.config);
        self.part.set(Condition::Ready);
        let mut told = Told::default();
        let mut files = Files::new(source.clone());
        let mut looks = interval(self.config.organizations_check_interval.max(Duration::from_millis(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            // A file system that hangs takes a thread of its own with it, and no other work.
            let look = tokio::task::spawn_blocking(move || {
                let reading = files.look();
                (files, reading)
            });
            match stop.run_until_cancelled(look).await {
                None => return,
                Some(Ok((kept, reading))) => {
                    files = kept;
                    if let Some(reading) = reading {
                        self.take(reading, &mut told, &metrics);
                    }
                }
                Some(Err(panic)) => {
                    records::LookLost { panic: &panic }.log();
                    files = Files::new(source.clone());
                }
            }
        }
    }

    fn take(&mut self, reading: Result<Config, Faults>, told: &mut Told, metrics: &Metrics) {
        let taken = reading.map_err(Error::Config).and_then(|config| self.enter(config, told, metrics));
        let Err(error) = taken else {
            if told.faults.take().is_some() {
                records::ConfigurationGood.log();
            }
            self.part.set(Condition::Ready);
            return;
        };
        let faults = match &error {
            Error::Config(faults) => faults.to_string().replace('\n', "; "),
            error => std::error::Error::source(error)
                .map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
        };
        if told.faults.as_ref() != Some(&faults) {
            records::ConfigurationFaulty { faults: &faults }.log();
            metrics.reloaded("refused");
            let text =
                format!("the changed configuration is at fault, what held before it still holds: {faults}");
            self.part.set(Condition::Degraded(text));
            told.faults = Some(faults);
        }
    }

    /// Takes a good configuration, as far as that goes without a restart.
    fn enter(&mut self, config: Config, told: &mut Told, metrics: &Metrics) -> Result<(), Error> {
        let restart = needing_restart(&self.config, &config);
        if !restart.is_empty() && restart != told.restart {
            let keys = restart.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            records::RestartNeeded { keys: &keys }.log();
        }
        told.restart = restart;
        if config.organizations.is_empty() && !self.config.organizations.is_empty() {
            // More likely a file that was emptied by mistake than a service that nobody is to use.
            return Err(Error::NoOrganizations);
        }
        let next = self.config.following(config);
        let changes =
            Changes::between(&self.config.organizations, &next.organizations, Organization::is_same);
        let principals = Changes::between(&self.config.principals, &next.principals, PartialEq::eq);
        let is_same_for_callers =
            next.principals == self.config.principals && keys(&next) == keys(&self.config);
        if changes.is_none()
            && next.default_organization == self.config.default_organization
            && is_same_for_callers
        {
            self.follow_broker(&next);
            self.config = next;
            return Ok(());
        }
        let renewed = next.organizations.iter().filter(|(name, now)| {
            self.config.organizations.get(*name).is_none_or(|before| !before.has_same_credentials(now))
        });
        let renewed = renewed.filter_map(|(_, organization)| organization.organization_id().ok()).collect();
        apply(&next, &renewed, &self.upstream, &self.archiver, &self.door)?;
        self.follow_broker(&next);
        let are_keys_changed = keys(&next) != keys(&self.config);
        let default = match &next.default_organization {
            default if *default == self.config.default_organization => String::new(),
            default => default.clone().unwrap_or_else(|| "none".to_owned()),
        };
        self.config = next;
        records::OrganizationsChanged {
            added: &changes.added,
            changed: &changes.changed,
            removed: &changes.removed,
            default: self.config.default_organization.as_deref(),
            callers: !is_same_for_callers,
        }
        .log();
        self.journal.note([
            ("organizations_added", changes.added),
            ("organizations_changed", changes.changed),
            ("organizations_removed", changes.removed),
            ("default_organization", default),
            ("principals_added", principals.added),
            ("principals_changed", principals.changed),
            ("principals_removed", principals.removed),
            ("jwt_keys", changed(are_keys_changed)),
        ]);
        metrics.reloaded("applied");
        metrics.configured(&self.config);
        Ok(())
    }

    fn follow_broker(&self, next: &Config) {
        let access = next.broker_access();
        let before = self.broker.borrow().clone();
        if access == *before {
            return;
        }
        let (credentials, senders) =
            (access.credentials != before.credentials, access.senders != before.senders);
        records::BrokerAccessChanged { credentials, senders }.log();
        // What principals may is recorded under their names.
        let are_senders_changed = senders && next.principals == self.config.principals;
        if credentials || are_senders_changed {
            self.journal.note([
                ("broker_credentials", changed(credentials)),
                ("broker_senders", changed(are_senders_changed)),
            ]);
        }
        self.broker.send_replace(Arc::new(access));
    }
}

/// The keys of bearer tokens that come from a file.
fn keys(config: &Config) -> Option<&Keys> {
    config.jwt.as_ref()?.keys.as_ref()
}

fn changed(is_changed: bool) -> String {
    if is_changed { "changed" } else { "" }.to_owned()
}

/// Names of organisations or principals, for the log and the record of acts.
struct Changes {
    added: String,
    changed: String,
    removed: String,
}

impl Changes {
    fn between<T>(
        old: &BTreeMap<String, T>,
        new: &BTreeMap<String, T>,
        is_same: impl Fn(&T, &T) -> bool,
    ) -> Self {
        let names = |of: &BTreeMap<String, T>, wanted: &dyn Fn(&str, &T) -> bool| {
            let names = of.iter().filter(|(name, one)| wanted(name, one));
            names.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
        };
        Self {
            added: names(new, &|name, _| !old.contains_key(name)),
            changed: names(new, &|name, now| old.get(name).is_some_and(|before| !is_same(before, now))),
            removed: names(old, &|name, _| !new.contains_key(name)),
        }
    }

    fn is_none(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// The keys that differ and are read at the start only.
fn needing_restart(old: &Config, new: &Config) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    if let (Ok(old), Ok(new)) = (serde_json::to_value(old), serde_json::to_value(new)) {
        differing("", &old, &new, &mut keys);
    }
    if new.callers().next().is_none() && old.callers().next().is_some() {
        // Until then nobody is let in, rather than everybody.
        keys.insert("principals".to_owned());
    }
    keys
}

fn differing(at: &str, old: &serde_json::Value, new: &serde_json::Value, keys: &mut BTreeSet<String>) {
    if old == new || FOLLOWED.contains(&at) {
        return;
    }
    match (old.as_object(), new.as_object()) {
        (Some(old), Some(new)) => {
            for name in old.keys().chain(new.keys()) {
                let key = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                let of = |table: &serde_json::Map<_, _>| table.get(name).cloned().unwrap_or_default();
                differing(&key, &of(old), &of(new), keys);
            }
        }
        _ => {
            keys.insert(at.to_owned());
        }
    }
}
