//! What `check` says of the database.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use guest_connection_adapter::domain::lifecycle::Terms;
use guest_connection_adapter::service::ports::{Store as _, SystemClock};
use guest_connection_adapter::store::postgres::{PostgresStore, Settings, Target};
use harness::Database;

use crate::support::PROGRAM;

fn check(url: &str) -> Output {
    let folder = harness::private_folder();
    let mut command = Command::new(PROGRAM);
    command.arg("check").env_clear().env("GCA_STORE__URL", url).current_dir(folder.path());
    command.output().unwrap()
}

async fn open(database: &Database) {
    let target = Target::new(database.url(), None, None, Duration::from_secs(10), Duration::from_secs(10));
    let minute = TimeDelta::minutes(1);
    let terms = Terms { lease: minute, settle: minute, hold: minute, give_up_after: minute };
    let settings = Settings::new(target.unwrap());
    let store = PostgresStore::open(settings, terms, minute, Arc::new(SystemClock)).await.unwrap();
    store.close().await.unwrap();
}

#[track_caller]
fn says(url: &str, words: &str) {
    let output = check(url);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains(&format!("{url}{words}")), "{text}");
}

#[tokio::test]
async fn it_tells_the_schema_and_changes_nothing() {
    let database = Database::create().await;
    let url = database.url();
    says(url, ", empty: `serve` makes schema version ");
    says(url, ", empty: `serve` makes schema version ");
    open(&database).await;
    says(url, ", schema version 1, up to date");

    let client = database.connect().await;
    client.batch_execute("UPDATE schema_versions SET version = version - 1").await.unwrap();
    says(url, ", empty: ");
    let newer = "UPDATE schema_versions SET version = 1; INSERT INTO schema_versions (version, needs) VALUES (1000, 1)";
    client.batch_execute(newer).await.unwrap();
    // One that this program can work with all the same.
    says(url, ", schema version 1000, up to date");
    client.batch_execute("UPDATE schema_versions SET needs = 1000 WHERE version = 1000").await.unwrap();
    let output = check(url);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("store.url: the store has schema version 1000")
            && text.contains("run the newer program"),
        "{text}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_or_takes_no_writes_is_no_fault_of_the_configuration() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("postgres://gca@{nobody}/x");
    says(&url, "\n             at present the store cannot be reached: ");
    let database = Database::create().await;
    database.read_only(true).await;
    says(database.url(), "\n             at present the store cannot be reached: ");
}
