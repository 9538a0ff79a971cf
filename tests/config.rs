//! The configuration: everything has a default, every fault is told at once, and no secret shows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guest_connection_adapter::config::{Config, Faults, load, reference};
use guest_connection_adapter::mycreditapp::Credentials;
use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

const ID: &str = "0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a77";

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn load(&self, text: &str, environment: &[(&str, &str)]) -> Result<Config, Faults> {
        from(Some(&self.file("config.toml", text)), environment)
    }

    fn faults(&self, text: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let faults = self.load(text, environment).expect_err("faults");
        faults.to_string().lines().map(str::to_owned).collect()
    }
}

fn from(file: Option<&Path>, environment: &[(&str, &str)]) -> Result<Config, Faults> {
    load(file, environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

fn tree(config: &Config) -> serde_json::Value {
    serde_json::to_value(config).unwrap()
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let config = from(None, &[("PATH", "/bin"), ("GCA_AMQP__URI", "")]).unwrap();
    assert_eq!(tree(&config), tree(&Config::default()));
    assert_eq!(config.grpc.listen.to_string(), "127.0.0.1:50051");
    assert!(config.amqp.is_none());
    assert_eq!(config.upstream.base_url, "https://api.mycreditapp.ai/v1-beta");
    assert!(config.upstream().unwrap().organizations.is_empty());
    assert!(config.telemetry().unwrap().otlp_endpoint.is_none());
}

#[test]
fn the_environment_has_the_last_word() {
    let place = Place::new();
    let environment = [
        ("GCA_GRPC__LISTEN", "[::1]:1"),
        ("GCA_UPSTREAM__ATTEMPT_TIMEOUT", "1s 500ms"),
        ("GCA_UPSTREAM__CONNECT_TIMEOUT", "1s"),
        ("GCA_AMQP__PREFETCH", "7"),
        ("GCA_AMQP__ACCEPT_WITHOUT_KEY", "true"),
        ("GCA_AMQP__URI", "amqp://someone:p%40ss+word@broker/vhost"),
        ("GCA_ORGANIZATIONS__ACME__ID", ID),
        ("GCA_ORGANIZATIONS__ACME__CLIENT_ID", "12345"),
        ("GCA_ORGANIZATIONS__ACME__CLIENT_SECRET", "678"),
    ];
    let config = place.load("[grpc]\nlisten = '127.0.0.1:2'\nin_flight_max = 3\n", &environment).unwrap();
    assert_eq!((config.grpc.listen.to_string().as_str(), config.grpc.in_flight_max), ("[::1]:1", 3));
    assert_eq!(config.upstream.attempt_timeout, Duration::from_millis(1500));
    let amqp = config.amqp.clone().unwrap();
    assert_eq!((amqp.prefetch, amqp.accept_without_key), (7, true));
    assert_eq!((amqp.uri.as_str(), amqp.username.as_str()), ("amqp://broker/vhost", "someone"));
    assert_eq!(amqp.password().unwrap().expose_secret(), "p@ss+word");
    let settings = config.upstream().unwrap();
    let credentials = settings.organizations.values().next().map(|organization| &organization.credentials);
    let Some(Credentials::Client { client_id, client_secret }) = credentials else { panic!("{settings:?}") };
    assert_eq!((client_id.as_str(), client_secret.expose_secret()), ("12345", "678"));
    let shown = format!("{config:?} {settings:?} {}", tree(&config));
    assert!(!shown.contains("678") && !shown.contains("p@ss") && !shown.contains("p%40"), "{shown}");
}

#[test]
fn every_fault_is_told_at_once() {
    let place = Place::new();
    let text = r#"
        typo = 1
        [grpc]
        listen = "everywhere"
        in_flight_max = "many"
        [upstream]
        base_url = "ftp://x"
        attempt_timeout = "40s"
        comand_timeout = "1s"
        [amqp]
        prefetch = -1
        delivery_hold = "1h"
        heartbeat = "1500ms"
        [events]
        mode = "loud"
        [telemetry]
        sample_ratio = 2.0
        log_filter = "a=loud"
        [store]
        give_up_after = "8days"
        retention = "0s"
        [organizations.acme]
        id = "acme"
        [shutdown]
        drain_timeout = 25
        [limits]
        worker_threads = 0
    "#;
    let faults = place.faults(text, &[("GCA_RELAY__BATCH", "x"), ("GCA_FOO", "bar")]);
    for start in [
        "typo: is not a key",
        "foo: is not a key (from GCA_FOO)",
        "grpc.listen: is `everywhere`: invalid socket address",
        "grpc.in_flight_max: invalid value: string \"many\"",
        "upstream.base_url: is `ftp://x`, must be an address that begins with https:// or http://",
        "upstream.attempt_timeout: is 40s, must be shorter than `upstream.command_timeout` (30s)",
        "upstream.comand_timeout: is not a key; did you mean `upstream.command_timeout`?",
        "amqp.prefetch: ",
        "amqp.delivery_hold: is 1h, must be shorter than the broker's ack timeout",
        "amqp.heartbeat: is 1s 500ms, must be whole seconds, from 1s to 600s",
        "events.mode: is `loud`, must be one of `structured`, `binary`",
        "telemetry.sample_ratio: is 2, must be from 0 to 1",
        "telemetry.log_filter: is `a=loud`",
        "store.give_up_after: is 8days, must be shorter than `store.retention` (0s)",
        "store.retention: is 0s, must be from 1ms to 366days",
        "organizations.acme.id: is `acme`, must be a UUID",
        "organizations.acme: must have",
        "shutdown.drain_timeout: ",
        "relay.batch: ",
        "limits.worker_threads: is 0, must be from 1 to 1024",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(start)), "{start}\n{faults:#?}");
    }
    let of_batch = faults.iter().filter(|fault| fault.starts_with("relay.batch"));
    assert!(of_batch.into_iter().all(|fault| fault.ends_with("(from GCA_RELAY__BATCH)")));
    assert_eq!(faults.len(), 21, "{faults:#?}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault() {
    let place = Place::new();
    let missing = from(Some(&place.0.path().join("none.toml")), &[]).unwrap_err().to_string();
    assert!(missing.contains("none.toml: cannot be read"), "{missing}");
    let faults = place.faults("[grpc]\n\npassword = \"s3cret\n", &[]);
    assert!(
        faults[0].contains("config.toml, line 3: is not TOML") && !faults[0].contains("s3cret"),
        "{faults:?}"
    );
    assert!(place.faults("grpc = 1", &[])[0].starts_with("grpc: "));
}

#[test]
fn secrets_in_the_file_are_refused_and_not_shown() {
    let place = Place::new();
    let text = format!(
        "[organizations.acme]\nid = '{ID}'\nclient_id = 'c'\nclient_secret = 's3cret'\n\
         [organizations.other]\nid = '{ID}'\ntoken = ['s3cret']\n\
         [amqp]\nuri = 'amqp://u:s3cret@h'\npassword = 's3cret'\n\
         [upstream]\nbase_url = 'https://u:s3cret@h'\n"
    );
    let faults = place.faults(&text, &[]);
    let all = faults.join("\n");
    assert!(!all.contains("s3cret"), "{all}");
    for text in [
        "organizations.acme.client_secret: a secret must not stand in this file",
        "`organizations.acme.client_secret_file`",
        "GCA_ORGANIZATIONS__ACME__CLIENT_SECRET",
        "organizations.other.token: a secret",
        "organizations.other.id: is ",
        "amqp.password: a secret",
        "amqp.uri: a password must not stand in this file",
        "upstream.base_url: a password",
    ] {
        assert!(all.contains(text), "{text}\n{all}");
    }
    let environment =
        [("GCA_UPSTREAM__BASE_URL", "https://u:s3cret@h"), ("GCA_TELEMETRY__OTLP_ENDPOINT", "x@s3cret")];
    let faults = place.faults("", &environment);
    assert_eq!(faults.len(), 2);
    assert!(!faults.join("\n").contains("s3cret"), "{faults:?}");
}

#[test]
fn secret_files_are_read_or_faulted() {
    let place = Place::new();
    let secret = place.file("secret", "s3cret\r\n");
    let organization = |path: &Path| {
        format!(
            "[organizations.acme]\nid = '{ID}'\nclient_id = 'c'\nclient_secret_file = '{}'\n",
            path.display()
        )
    };
    let config = place.load(&organization(&secret), &[]).unwrap();
    let secret_read = config.organizations["acme"].client_secret.as_ref().unwrap();
    assert_eq!(secret_read.expose_secret(), "s3cret");

    let one = |text: &str, environment: &[(&str, &str)]| {
        let faults = place.faults(text, environment);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(!faults[0].contains("s3cret"), "{faults:?}");
        faults[0].clone()
    };
    let twice = one(&organization(&secret), &[("GCA_ORGANIZATIONS__ACME__CLIENT_SECRET", "s3cret")]);
    assert!(twice.contains("given twice"), "{twice}");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(one(&organization(&secret), &[]).contains("chmod 600"));
    assert!(one(&organization(&place.file("empty", "\n")), &[]).contains("is empty"));
    assert!(one(&organization(&place.0.path().join("none")), &[]).contains("cannot be read"));
    assert!(one(&organization(place.0.path()), &[]).contains("not a file"));
    let broker = format!("[amqp]\npassword_file = '{}'\n", place.file("password", "pw\n").display());
    assert_eq!(place.load(&broker, &[]).unwrap().amqp.unwrap().password().unwrap().expose_secret(), "pw");
    assert!(one("[amqp]\nusername = 'someone'\n", &[]).contains("amqp.password_file: must be given"));
}

#[test]
fn an_organisation_has_a_place_and_limits_of_its_own_and_one_is_the_default() {
    let place = Place::new();
    let secret = place.file("secret", "s3cret").display().to_string();
    let other = "0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a78";
    let one = format!("[organizations.one]\nid = '{ID}'\nclient_id = 'c'\nclient_secret_file = '{secret}'\n");
    let two = format!(
        "[organizations.two]\nid = '{other}'\ntoken_file = '{secret}'\nbase_url = 'https://x/v1'\n\
         in_flight_max = 8\nrequests_per_second = 5\n"
    );
    let requester = |text: &str, environment: &[(&str, &str)]| {
        place.load(text, environment).unwrap().default_requester().map(|requester| requester.to_string())
    };
    assert_eq!(requester(&one, &[]).as_deref(), Some(ID), "there is no other");
    assert_eq!(requester(&format!("{one}{two}"), &[]), None);
    assert_eq!(requester("", &[]), None);
    let chosen = format!("default_organization = 'two'\n{one}{two}");
    assert_eq!(requester(&chosen, &[]).as_deref(), Some(other));
    assert_eq!(requester(&chosen, &[("GCA_DEFAULT_ORGANIZATION", "one")]).as_deref(), Some(ID));

    let config = place.load(&chosen, &[("GCA_ORGANIZATIONS__ONE__REQUESTS_PER_SECOND", "0.5")]).unwrap();
    let limits = |name: &str| {
        let organization = &config.organizations[name];
        (organization.in_flight_max, organization.requests_per_second)
    };
    assert_eq!((limits("one"), limits("two")), ((None, Some(0.5)), (Some(8), Some(5.0))));
    let mut urls: Vec<_> = config.upstream().unwrap().organizations.into_values().collect();
    urls.sort_by_key(|organization| organization.base_url.to_string());
    assert_eq!(urls[0].base_url.as_str(), "https://api.mycreditapp.ai/v1-beta");
    assert_eq!(urls[1].base_url.as_str(), "https://x/v1");

    let text = format!(
        "default_organization = 'three'\norganizations_check_interval = '0s'\n{one}base_url = 'x'\n\
         in_flight_max = 0\nrequests_per_second = 0.001\nlimit = 1\n"
    );
    let faults = place.faults(&text, &[("GCA_ORGANIZATIONS_CHECK_INTERVALL", "1s")]);
    for start in [
        "default_organization: is `three`, must be the name of one of the organisations",
        "organizations_check_interval: is 0s, must be from 1ms",
        "organizations.one.base_url: is `x`, must be an address",
        "organizations.one.in_flight_max: is 0, must be from 1 to 100000",
        "organizations.one.requests_per_second: is 0.001, must be from 0.01 to 100000",
        "organizations.one.limit: is not a key",
        "organizations_check_intervall: is not a key (from GCA_ORGANIZATIONS_CHECK_INTERVALL); did you mean",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(start)), "{start}\n{faults:#?}");
    }
    assert_eq!(faults.len(), 7, "{faults:#?}");
    assert!(place.faults(&format!("{one}requests_per_second = nan"), &[])[0].contains("is NaN"));
    let long = place.file("long", &"t".repeat(16 * 1024 + 1)).display().to_string();
    let text = format!("[organizations.one]\nid = '{ID}'\ntoken_file = '{long}'\n");
    assert!(place.faults(&text, &[])[0].starts_with("organizations.one.token: must be at most 16384"));
}

#[test]
fn what_bounds_the_traffic_to_the_upstream_is_checked() {
    let place = Place::new();
    let least = "[upstream]\nretry_share = 0.0\nretry_floor = 0\nin_flight_max = 1\nbreaker_failures = 1\n\
                 breaker_failure_share = 0.05\nbreaker_delay_base = '1ms'\nbreaker_delay_max = '1ms'\n";
    let upstream = place.load(least, &[]).unwrap().upstream;
    assert_eq!((upstream.retry_share, upstream.retry_floor), (0.0, 0));
    assert_eq!((upstream.in_flight_max, upstream.breaker_failures), (1, 1));
    assert_eq!(upstream.breaker_delay_max, Duration::from_millis(1));
    for (lines, fault) in [
        ("retry_share = 1.1", "upstream.retry_share: is 1.1, must be from 0 to 1"),
        ("retry_share = -0.1", "upstream.retry_share: is -0.1, must be from 0 to 1"),
        ("retry_share = nan", "upstream.retry_share: is not a number"),
        ("retry_floor = 1001", "upstream.retry_floor: is 1001, must be from 0 to 1000"),
        ("retry_floor = -1", "upstream.retry_floor: "),
        ("in_flight_max = 0", "upstream.in_flight_max: is 0, must be from 1 to 100000"),
        ("in_flight_max = 100001", "upstream.in_flight_max: is 100001, must be from 1 to 100000"),
        ("breaker_failures = 0", "upstream.breaker_failures: is 0, must be from 1 to 1000"),
        ("breaker_failures = 1001", "upstream.breaker_failures: is 1001, must be from 1 to 1000"),
        ("breaker_failure_share = 0.01", "upstream.breaker_failure_share: is 0.01, must be from 0.05 to 1"),
        ("breaker_failure_share = 1.5", "upstream.breaker_failure_share: is 1.5, must be from 0.05 to 1"),
        ("breaker_failure_share = nan", "upstream.breaker_failure_share: is not a number"),
        ("breaker_delay_base = '0s'", "upstream.breaker_delay_base: is 0s, must be from 1ms to 366days"),
        (
            "breaker_delay_base = '4s'",
            "upstream.breaker_delay_base: is 4s, must not be longer than `upstream.breaker_delay_max` (3s)",
        ),
        (
            "breaker_delay_max = '100ms'",
            "upstream.breaker_delay_base: is 500ms, must not be longer than `upstream.breaker_delay_max` (100ms)",
        ),
        ("breaker_delay = '1s'", "upstream.breaker_delay: is not a key"),
    ] {
        let faults = place.faults(&format!("[upstream]\n{lines}\n"), &[]);
        assert_eq!(faults.len(), 1, "{lines}: {faults:#?}");
        assert!(faults[0].starts_with(fault), "{lines}: {faults:#?}");
    }
}

#[test]
fn the_example_holds_every_key_and_changes_nothing() {
    let example = reference::example();
    let place = Place::new();
    assert_eq!(tree(&place.load(&example, &[]).unwrap()), tree(&Config::default()));
    let mut section = String::new();
    let mut found = Vec::new();
    for line in example.lines() {
        let line = line.trim_start_matches(['#', ' ']);
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').replace(".acme", ".<name>").replace(".billing", ".<name>");
        } else if let Some((name, _)) = line.split_once(" = ") {
            found.push(if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") });
        } else if let Some(variable) = line.strip_prefix("GCA_") {
            found.push(
                variable
                    .to_lowercase()
                    .replace("__", ".")
                    .replace(".acme.", ".<name>.")
                    .replace(".billing.", ".<name>."),
            );
        }
    }
    assert_eq!(found, reference::keys());
    assert!(found.len() > 50);
    for key in serde_json::to_value(Config::default()).unwrap().as_object().unwrap().keys() {
        let below = format!("{key}.");
        assert!(found.iter().any(|found| found == key || found.starts_with(&below)), "{key}");
    }
}

#[test]
fn the_example_works_once_its_marks_are_taken_away() {
    let place = Place::new();
    place.file("secret", "s3cret");
    let own = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap();
    place.file("ca.pem", &own.cert.pem());
    let key = place.file("key.pem", &own.signing_key.serialize_pem()).display().to_string();
    let example = reference::example();
    let settings = example.lines().map(|line| {
        let bare = line.trim_start_matches("# ");
        let is_setting =
            bare.starts_with('[') || bare.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let both = bare.starts_with("token_file") || bare.starts_with("keys_file");
        if is_setting && !both { bare } else { "" }
    });
    let text = settings.collect::<Vec<_>>().join("\n");
    let secret = place.0.path().join("secret").display().to_string();
    let text = ["secrets/client_secret", "secrets/amqp_password", "secrets/store_password"]
        .into_iter()
        .fold(text, |text, file| text.replace(file, &secret));
    let authorities = place.0.path().join("ca.pem").display().to_string();
    let text = ["/etc/ssl/private-ca.pem", "tls/certificate.pem", "tls/client_ca.pem", "tls/store-ca.pem"]
        .into_iter()
        .fold(text, |text, file| text.replace(file, &authorities));
    let text = text.replace("tls/key.pem", &key);
    // Certificates are for an encrypted connection.
    let text = text.replace("amqp://", "amqps://");
    let config = place.load(&text, &[]).unwrap();
    assert!(config.store.database().unwrap().is_some());
    assert!(config.amqp.is_some() && config.organizations.len() == 1);
    assert!(config.principals.len() == 1);
}

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, reference::page()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == reference::page(), "run: UPDATE_DOCS=1 cargo test --test config the_page");
}

/// Every key that is a time, with any time.
fn any_time() -> impl Strategy<Value = String> {
    let number = prop_oneof![0u64..100, any::<u64>()];
    let unit = proptest::sample::select(vec!["ns", "us", "ms", "s", "m", "h", "days", "years", "", " 1s"]);
    prop_oneof![4 => (number, unit).prop_map(|(number, unit)| format!("{number}{unit}")), 1 => "[ -!#-\\[\\]-~]{0,20}"]
}

proptest! {
    /// A time is refused by the name of its key, or the relations hold; nothing panics.
    #[test]
    fn any_times_are_refused_or_keep_their_relations(
        times in proptest::collection::vec((proptest::sample::select(TIMES.to_vec()), any_time()), 1..6),
    ) {
        let environment: Vec<_> = times.iter().map(|(key, time)| (*key, time.as_str())).collect();
        match from(None, &environment) {
            Err(faults) => prop_assert!(!faults.to_string().is_empty()),
            Ok(config) => {
                let (upstream, store) = (&config.upstream, &config.store);
                prop_assert!(upstream.connect_timeout < upstream.attempt_timeout);
                prop_assert!(upstream.attempt_timeout < upstream.command_timeout);
                prop_assert!(upstream.command_timeout < store.lease);
                prop_assert!(store.give_up_after < store.retention);
            }
        }
    }
}

const TIMES: &[&str] = &[
    "GCA_UPSTREAM__CONNECT_TIMEOUT",
    "GCA_UPSTREAM__ATTEMPT_TIMEOUT",
    "GCA_UPSTREAM__COMMAND_TIMEOUT",
    "GCA_UPSTREAM__SETTLE",
    "GCA_UPSTREAM__RETRY_DELAY_BASE",
    "GCA_UPSTREAM__RETRY_DELAY_MAX",
    "GCA_STORE__LEASE",
    "GCA_STORE__GIVE_UP_AFTER",
    "GCA_STORE__RETENTION",
    "GCA_SHUTDOWN__DRAIN_TIMEOUT",
];

#[test]
fn times_that_instances_live_by_are_checked() {
    for (lines, fault) in [
        ("[shutdown]\nnotice = \"13s\"", "shutdown.notice: is 13s, must not be longer than half of"),
        ("[store]\nurl = \"postgres://db/x\"\ninstance_lease = \"61s\"", "store.instance_lease: is 1m 1s"),
    ] {
        assert!(Place::new().faults(lines, &[]).join("\n").contains(fault), "{fault}");
    }
}
