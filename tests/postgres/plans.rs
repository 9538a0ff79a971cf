//! Rows are looked up by indexes from the first command on, whatever the server knows of its tables.

use guest_connection_adapter::domain::lifecycle::Finish;
use guest_connection_adapter::service::ports::{Accepted, Begun, DueCursor, Store as _};
use guest_connection_adapter::service::tenure::Slots;
use harness::{DEADLINE, look_again};
use tokio::time::timeout;
use tokio_postgres::Client;
use uuid::Uuid;

use super::PostgresHarness;
use crate::conformance::world::{applied, wish};

/// Rows that were read by going through a whole table.
async fn gone_through(client: &Client) -> i64 {
    let sql = "SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables
        WHERE relname IN ('commands', 'connections', 'outbox')";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// A server counts what a session read when that ends.
async fn sessions_ended(client: &Client) {
    let sql = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'guest-connection-adapter'";
    let waiting = async {
        while client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            look_again().await;
        }
    };
    timeout(DEADLINE, waiting).await.expect("the sessions of a store that is closed end");
}

#[tokio::test]
async fn no_table_is_gone_through() {
    let harness = PostgresHarness::new().await;
    let (store, client) = (harness.postgres(), harness.database.connect().await);
    // The server keeps a plan from the sixth time on.
    for guest in 1..=20 {
        let wish = wish(guest, &format!("key-{guest}"));
        let accepted = store.accept(wish.acceptance(), Some(Uuid::now_v7())).await;
        let Ok(Accepted::Fresh(_, Some(Begun::Claimed(record)))) = accepted else { panic!("{accepted:?}") };
        store.finish(Finish { id: record.id, epoch: record.epoch, ..applied() }).await.unwrap();
        let rows = store.outbox(0, 10, Slots::ALL).await.unwrap();
        store.confirm(rows.iter().map(|row| row.number).collect()).await.unwrap();
        store.line(record.command.connection, 10).await.unwrap();
        store.due(DueCursor::default(), 10).await.unwrap();
        store.backlog().await.unwrap();
        let (requester, key) = (record.command.requester, record.command.key);
        assert!(store.command_by_key(requester, key).await.unwrap().is_some());
        store.purge(10).await.unwrap();
    }
    store.close().await.unwrap();
    sessions_ended(&client).await;
    let inserted = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'commands'";
    assert_eq!(client.query_one(inserted, &[]).await.unwrap().get::<_, i64>(0), 20, "it is counted");
    assert_eq!(gone_through(&client).await, 0);
}
