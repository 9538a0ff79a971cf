//! A configuration file and environment variables: read or refused with faults, never a panic. No fault shows a secret, and what
//! is read can be used.

#![no_main]

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use guest_connection_adapter::config::{self, PREFIX};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// What every secret here begins with.
const SECRET: &str = "hidden-9f3a";

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    variables: Vec<(Name, &'a str)>,
    admin_token: Option<&'a str>,
    client_secret: Option<&'a str>,
    file: &'a str,
}

#[derive(Debug, Arbitrary)]
enum Name {
    GrpcListen,
    AmqpUri,
    AmqpPrefetch,
    UpstreamBaseUrl,
    StorePath,
    DefaultOrganization,
    Other(String),
}

impl Name {
    fn text(&self) -> String {
        let key = match self {
            Self::GrpcListen => "GRPC__LISTEN",
            Self::AmqpUri => "AMQP__URI",
            Self::AmqpPrefetch => "AMQP__PREFETCH",
            Self::UpstreamBaseUrl => "UPSTREAM__BASE_URL",
            Self::StorePath => "STORE__PATH",
            Self::DefaultOrganization => "DEFAULT_ORGANIZATION",
            Self::Other(text) => text,
        };
        format!("{PREFIX}{key}")
    }
}

/// A file that belongs to this process.
static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("fuzz-{}.toml", std::process::id())));

fuzz_target!(|input: Input<'_>| {
    let environment = || {
        let named = input.variables.iter().map(|(name, value)| (name.text(), (*value).to_owned()));
        let secrets = [
            ("GCA_ADMIN__TOKEN", input.admin_token),
            ("GCA_ORGANIZATIONS__ACME__CLIENT_SECRET", input.client_secret),
        ];
        let secrets =
            secrets.into_iter().filter_map(|(name, value)| Some((name.to_owned(), format!("{SECRET}{}", value?))));
        named.chain(secrets).map(|(name, value)| (OsString::from(name), OsString::from(value)))
    };
    if input.file.contains(SECRET) || input.variables.iter().any(|(_, value)| value.contains(SECRET)) {
        return;
    }
    fs::write(&*FILE, input.file).expect("a file");
    match config::load(Some(&FILE), environment()) {
        Ok(config) => {
            assert!(!format!("{config:?}").contains(SECRET), "a secret is shown");
            assert!(!serde_json::to_string(&config).expect("JSON").contains(SECRET), "a secret is written");
            config.upstream().expect("it was checked");
            config.telemetry().expect("it was checked");
            drop(config.policy());
        }
        Err(faults) => {
            let text = faults.to_string();
            assert!(!text.is_empty() && !text.contains(SECRET), "faults are told, and no secret");
            assert!(text.len() <= 64 * (input.file.len() + 1024), "they are in proportion: {}", text.len());
        }
    }
});
