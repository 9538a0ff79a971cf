//! The program with the Kubernetes configuration, really started.

use std::net::SocketAddr;

use harness::{DEADLINE, Database, Setup, http};
use tokio::time::timeout;
use toml::Value;

use crate::PROGRAM;
use crate::manifests::{Objects, string, text};
use crate::mounted::{CONFIG, Mounted};

/// Its keys with dots, a line each.
fn flat(prefix: &str, table: &toml::Table) -> String {
    table
        .iter()
        .map(|(name, value)| match value {
            Value::Table(section) => flat(&format!("{prefix}{name}."), section),
            value => format!("{prefix}{name} = {value}\n"),
        })
        .collect()
}

/// The configuration, but for addresses: nobody is where the broker is said to be, and the database speaks no TLS.
fn setup(mounted: &Mounted, database: &Database) -> Setup {
    let config = toml::from_str(&mounted.moved(&text(CONFIG))).unwrap();
    let elsewhere = format!(
        "grpc.listen = \"0.0.0.0:0\"\nadmin.listen = \"0.0.0.0:0\"\namqp.uri = \"amqps://127.0.0.1:1/%2f\"\n\
         store.url = \"{}\"\nupstream.base_url = \"http://127.0.0.1:1\"\n\
         telemetry.otlp_endpoint = \"http://127.0.0.1:1\"",
        database.url()
    );
    Setup::with_organizations(PROGRAM, "http://127.0.0.1:1", &[])
        .without("store.path")
        .config(&flat("", &config))
        .without("store.ca_file")
        .config(&elsewhere)
}

async fn answers(admin: SocketAddr, path: &str, status: u16) {
    let answered = async {
        while http::get(admin, path).await.is_none_or(|(found, _)| found != status) {
            harness::look_again().await;
        }
    };
    timeout(DEADLINE, answered).await.unwrap_or_else(|_| panic!("{path} does not answer {status}"));
}

#[tokio::test]
async fn it_starts_and_every_probe_is_answered_while_the_broker_is_away() {
    let (objects, database) = (Objects::read(), Database::create().await);
    let mounted = Mounted::write(&objects);
    let adapter = setup(&mounted, &database).start().await;
    let admin = SocketAddr::from(([127, 0, 0, 1], adapter.admin.port()));
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        answers(admin, string(&objects.container()[probe]["httpGet"]["path"]), 200).await;
    }
    // All parts together are not ready without the broker, and metrics are for those with the token.
    answers(admin, "/readyz", 503).await;
    answers(admin, "/metrics", 401).await;

    let ready = string(&objects.container()["readinessProbe"]["httpGet"]["path"]);
    database.read_only(true).await;
    answers(admin, ready, 503).await;
    answers(admin, string(&objects.container()["livenessProbe"]["httpGet"]["path"]), 200).await;
    database.read_only(false).await;
    answers(admin, ready, 200).await;
    let (status, log) = adapter.terminate().await;
    assert!(status.success(), "{}", log.join("\n"));
}
