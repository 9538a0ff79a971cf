//! Rows are looked up by indexes from the first command on, whatever the server knows of its tables.

use std::sync::Arc;

use guest_connection_adapter::domain::lifecycle::Finish;
use guest_connection_adapter::service::ports::{Accepted, Begun, DueCursor, Store as _};
use guest_connection_adapter::service::tenure::Slots;
use guest_connection_adapter::store::postgres::PostgresStore;
use harness::{DEADLINE, Database, look_again};
use tokio::time::timeout;
use tokio_postgres::Client;
use uuid::Uuid;

use super::open;
use crate::conformance::world::{ManualClock, applied, wish};

/// Commands that stand in line, and were not there when the server made its plans.
const BACKLOG: i64 = 5_000;

/// Rows that were read by going through a whole table, and entries that were read of indexes.
async fn read(client: &Client) -> (i64, i64) {
    let tables = "SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables
        WHERE relname IN ('commands', 'connections', 'outbox')";
    let indexes = "SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes
        WHERE relname IN ('commands', 'connections', 'outbox')";
    let table = client.query_one(tables, &[]).await.unwrap().get(0);
    (table, client.query_one(indexes, &[]).await.unwrap().get(0))
}

/// A server counts what a session read when that ends.
async fn sessions_ended(client: &Client, name: &str) {
    let sql = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = $1";
    let waiting = async {
        while client.query_one(sql, &[&name]).await.unwrap().get::<_, i64>(0) > 0 {
            look_again().await;
        }
    };
    timeout(DEADLINE, waiting).await.expect("the sessions end");
}

/// One command from its acceptance until its event is confirmed, and what is asked of it.
async fn go_through(store: &Arc<PostgresStore>, guest: u128) {
    let wish = wish(guest, &format!("key-{guest}"));
    let accepted = store.accept(wish.acceptance(), Some(Uuid::now_v7())).await;
    let Ok(Accepted::Fresh(_, Some(Begun::Claimed(record)))) = accepted else { panic!("{accepted:?}") };
    store.finish(Finish { id: record.id, epoch: record.epoch, ..applied() }).await.unwrap();
    let rows = store.outbox(0, 10, Slots::ALL).await.unwrap();
    store.confirm(rows.iter().map(|row| row.number).collect()).await.unwrap();
    store.line(record.command.connection, 10).await.unwrap();
    store.due(DueCursor::default(), 10).await.unwrap();
    store.due_next().await.unwrap();
    store.suspects(10).await.unwrap();
    store.release(vec![record.id]).await.unwrap();
    assert_eq!(store.finals(vec![record.id]).await.unwrap().len(), 1);
    let (requester, key) = (record.command.requester, record.command.key);
    assert!(store.command_by_key(requester, key).await.unwrap().is_some());
    store.purge(10).await.unwrap();
}

/// Puts a backlog behind the connection of the first command.
async fn fill(client: &Client) {
    let sql = "INSERT INTO commands SELECT (jsonb_populate_record(c, jsonb_build_object(
            'arrival', 1000000 + n, 'id', gen_random_uuid(), 'key', 'backlog-' || n, 'state', 'accepted', 'in_line', true,
            'due_time', 9000000000000000, 'finished_time', null, 'outcome', null, 'event_id', null,
            'event_sequence', null, 'event_confirmed_time', null))).*
        FROM commands c, generate_series(1, $1::bigint) n WHERE c.arrival = (SELECT min(arrival) FROM commands)";
    assert_eq!(client.execute(sql, &[&BACKLOG]).await.unwrap(), BACKLOG.unsigned_abs());
}

#[tokio::test]
async fn what_is_read_does_not_grow_with_a_backlog() {
    let database = Database::create().await;
    let client = database.connect().await;
    // Plans are made when the tables are empty, and kept.
    let mode = "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET plan_cache_mode = force_generic_plan', current_database()); END$$";
    client.batch_execute(mode).await.unwrap();
    let store = Arc::new(open(&database, &ManualClock::new()).await);
    for guest in 1..=10 {
        go_through(&store, guest).await;
    }
    let filler = database.connect().await;
    filler.batch_execute("SET application_name = 'filler'").await.unwrap();
    fill(&filler).await;
    drop(filler);
    sessions_ended(&client, "filler").await;
    let before = read(&client).await;
    for guest in 11..=20 {
        go_through(&store, guest).await;
    }
    store.close().await.unwrap();
    sessions_ended(&client, "guest-connection-adapter").await;
    let inserted = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'commands'";
    assert_eq!(
        client.query_one(inserted, &[]).await.unwrap().get::<_, i64>(0),
        BACKLOG + 20,
        "it is counted"
    );
    let (by_tables, by_indexes) = read(&client).await;
    assert_eq!(by_tables, before.0);
    assert!(by_indexes - before.1 < BACKLOG, "{by_indexes} after {}", before.1);
}
