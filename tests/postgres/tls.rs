//! Encrypted connections: with a server that can prove who it is, and with nobody else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use guest_connection_adapter::service::ports::Store as _;
use guest_connection_adapter::store::postgres::{OpenError, PostgresStore, Settings, Target};
use harness::tls::{Authority, SERVER};
use harness::{DEADLINE, Database, Server};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::conformance::world::{ManualClock, RETENTION, TERMS};

/// A server with a certificate for [`SERVER`], a database on it, and the files of two authorities: of its own and another.
struct Place {
    _server: Server,
    database: Database,
    folder: TempDir,
}

impl Place {
    async fn new() -> Self {
        let (server, authority) = (Server::start().await, Authority::new());
        server.encrypt(&authority.server()).await;
        let folder = harness::private_folder();
        std::fs::write(folder.path().join("own.pem"), authority.pem()).unwrap();
        std::fs::write(folder.path().join("other.pem"), Authority::new().pem()).unwrap();
        Self { database: server.database().await, _server: server, folder }
    }

    fn authority(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The database under the name of a host, found at the server's address.
    fn url(&self, host: &str, sslmode: &str) -> String {
        let address = self.database.address();
        let url = self.database.url().replace(&address.ip().to_string(), host);
        format!("{url}?hostaddr={}{sslmode}", address.ip())
    }
}

async fn open(url: &str, ca_file: Option<&Path>) -> Result<PostgresStore, OpenError> {
    let patience = Duration::from_secs(10);
    let target = Target::new(url, None, ca_file, patience, patience).expect("an address");
    let settings =
        Settings { instance_lease: Some(patience), follows_server: false, ..Settings::new(target) };
    PostgresStore::open(settings, TERMS, RETENTION, ManualClock::new()).await
}

/// How many connections of stores there are, and how many of them are encrypted.
async fn connections(database: &Database) -> (i64, i64) {
    let sql =
        "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
        WHERE datname = current_database() AND application_name = 'guest-connection-adapter'";
    let row = database.connect().await.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

#[track_caller]
fn is_refused(opened: Result<PostgresStore, OpenError>, words: &str) {
    let error = opened.err().expect("it is refused");
    assert!(matches!(&error, OpenError::Connect(text) if text.contains(words)), "{error}");
}

#[tokio::test]
async fn a_server_is_believed_by_its_authority_and_its_name() {
    let place = Place::new().await;
    trusted(&place).await;
    offered(&place).await;
    let (own, other) = (place.authority("own.pem"), place.authority("other.pem"));
    let url = place.url(SERVER, "&sslmode=require");
    is_refused(open(&url, Some(&other)).await, "invalid peer certificate: UnknownIssuer");
    is_refused(open(&url, None).await, "invalid peer certificate: UnknownIssuer");
    let elsewhere = place.url("other.example", "&sslmode=require");
    is_refused(open(&elsewhere, Some(&own)).await, "not valid for name");
    // Without a name it is the address that counts.
    let nameless = format!("{}?sslmode=require", place.database.url());
    is_refused(open(&nameless, Some(&own)).await, "not valid for name");
}

/// Every connection is encrypted.
async fn trusted(place: &Place) {
    let url = place.url(SERVER, "&sslmode=require");
    let store = Arc::new(open(&url, Some(&place.authority("own.pem"))).await.expect("a store"));
    store.probe().await.unwrap();
    store.due_next().await.unwrap();
    store.backlog().await.unwrap();
    // README.md tells how many.
    let all = async {
        while connections(&place.database).await != (5, 5) {
            harness::look_again().await;
        }
    };
    timeout(DEADLINE, all).await.expect("each of its tasks has one, encrypted");
    store.close().await.unwrap();
}

/// One that offers encryption is not talked to in the clear for want of trust.
async fn offered(place: &Place) {
    // The address does not ask for encryption; what is offered is used, or nothing.
    let url = place.url(SERVER, "");
    is_refused(open(&url, Some(&place.authority("other.pem"))).await, "UnknownIssuer");
    let store = Arc::new(open(&url, Some(&place.authority("own.pem"))).await.expect("it is trusted"));
    let (all, encrypted) = connections(&place.database).await;
    assert!(all >= 1 && all == encrypted, "{encrypted} of {all}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_server_without_encryption_is_refused_where_that_is_required() {
    let (database, authority) = (Database::create().await, Authority::new());
    let folder = harness::private_folder();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let url = format!("{}?sslmode=require", database.url());
    is_refused(open(&url, Some(&file)).await, "server does not support TLS");
    assert_eq!(connections(&database).await, (0, 0));
}
