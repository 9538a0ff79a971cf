//! Many commands that were ended long ago, made in bulk after one that the store itself has written.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use guest_connection_adapter::service::ports::Store;
use harness::Database;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::series::{FIRST_GUEST, REQUESTER, one};

/// Commands of a connection, on average.
const COMMANDS_PER_CONNECTION: i64 = 10;

/// Rows of one statement.
const CHUNK: i64 = 500_000;

/// The number of the first connection that is made in bulk.
const FIRST_CONNECTION: i64 = 1_000_000_000;

/// How far back the ends of what is kept lie: half of them beyond the retention.
const SPAN_MICROS: i64 = 14 * 24 * 3600 * 1_000_000;

/// What is not as in the template, which is `t`; `g` counts commands. Ids rise with time, keys are any.
const OWN: [(&str, &str); 9] = [
    ("arrival", "$1::bigint + g"),
    ("id", "('01900000-0000-7000-8000-' || lpad(to_hex(g), 12, '0'))::uuid"),
    ("event_id", "('01900000-0000-7000-9000-' || lpad(to_hex(g), 12, '0'))::uuid"),
    ("key", "md5(g::text)"),
    ("connection", "$2::bigint + g % $3::bigint"),
    ("effective_time", "e.ended - 1000000"),
    ("accepted_time", "e.ended - 1000000"),
    ("finished_time", "e.ended"),
    ("event_confirmed_time", "e.ended + 1000000"),
];

/// A command as the store has written it.
const TEMPLATE: &str = "(SELECT * FROM commands WHERE arrival = $1) AS t";

/// The commands that are kept.
pub struct Kept {
    client: Client,
    count: i64,
    /// The arrival of the template, which those in bulk follow.
    template: i64,
    insert: String,
}

impl Kept {
    /// Makes so many, after a template.
    pub async fn make(database: &Database, store: &Arc<dyn Store>, count: i64) -> Self {
        one(store, Uuid::new_v4()).await;
        let client = database.connect().await;
        // Constraints are checked by whoever wrote the template. Nothing of this has to outlive a crash.
        let set = "SET session_replication_role = replica; SET synchronous_commit = off;
            SET maintenance_work_mem = '1GB'; DELETE FROM outbox";
        client.batch_execute(set).await.expect("it is set");
        let row = client.query_one("SELECT arrival FROM commands", &[]).await.expect("the template");
        let columns =
            "SELECT column_name::text FROM information_schema.columns WHERE table_name = 'commands'";
        let columns = client.query(columns, &[]).await.expect("columns");
        let columns: Vec<String> = columns.iter().map(|row| row.get(0)).collect();
        assert!(OWN.iter().all(|(own, _)| columns.iter().any(|column| column == own)), "{columns:?}");
        let values: Vec<_> = columns.iter().map(|column| value(column)).collect();
        let insert = format!(
            "INSERT INTO commands ({}) SELECT {} FROM generate_series($4::bigint, $5::bigint) AS g, {TEMPLATE},
                LATERAL (SELECT $6::bigint - $7::bigint / $8::bigint * ($8::bigint - g) AS ended) AS e",
            columns.join(", "),
            values.join(", ")
        );
        let kept = Self { client, count, template: row.get(0), insert };
        kept.fill().await;
        kept
    }

    /// The connections that they are about.
    pub fn connections(&self) -> u128 {
        u128::try_from(self.count / COMMANDS_PER_CONNECTION).expect("a count")
    }

    async fn fill(&self) {
        let (client, count, begun) = (&self.client, self.count, Instant::now());
        let connections = count / COMMANDS_PER_CONNECTION;
        let indexes = Indexes::drop(client).await;
        let first = Uuid::from_u128(FIRST_GUEST).to_string();
        let sql = format!(
            "INSERT INTO connections (number, target, guest, sequence) OVERRIDING SYSTEM VALUE
             SELECT $1::bigint + g, $2, ('{}' || lpad(to_hex(g), 12, '0'))::uuid, {COMMANDS_PER_CONNECTION}
             FROM generate_series(0, $3::bigint - 1) AS g",
            &first[..24]
        );
        client.execute(&sql, &[&FIRST_CONNECTION, &REQUESTER, &connections]).await.expect("connections");
        let row = client.query_one("SELECT (extract(epoch FROM now()) * 1000000)::bigint", &[]).await;
        let now: i64 = row.expect("the time").get(0);
        for start in (1..=count).step_by(usize::try_from(CHUNK).expect("a length")) {
            let end = count.min(start + CHUNK - 1);
            let parameters: [&(dyn ToSql + Sync); 8] =
                [&self.template, &FIRST_CONNECTION, &connections, &start, &end, &now, &SPAN_MICROS, &count];
            client.execute(&self.insert, &parameters).await.expect("commands");
        }
        let last = self.template + count;
        client.execute("SELECT setval('commands_arrival', $1)", &[&last]).await.expect("the next number");
        indexes.build(client).await;
        self.settle().await;
        self.tell_size().await;
        println!(
            "# {count} commands on {connections} connections made in {:.0} s",
            begun.elapsed().as_secs_f64()
        );
    }

    /// The server's own work after so much is done now, and not while something is measured.
    async fn settle(&self) {
        for sql in
            ["VACUUM (ANALYZE) commands", "VACUUM (ANALYZE) connections", "VACUUM outbox", "CHECKPOINT"]
        {
            self.client.batch_execute(sql).await.expect(sql);
        }
    }

    /// Removes what was measured.
    pub async fn tidy(&self) {
        self.client.execute("DELETE FROM outbox", &[]).await.expect("messages are gone");
        let last = self.template + self.count;
        self.client
            .execute("DELETE FROM commands WHERE arrival > $1", &[&last])
            .await
            .expect("commands are gone");
        self.client.batch_execute("VACUUM outbox").await.expect("what they took is free");
    }

    /// Prints what a command takes on disk.
    async fn tell_size(&self) {
        let sql = "SELECT pg_table_size('commands'), pg_indexes_size('commands'), pg_total_relation_size('connections')";
        let row = self.client.query_one(sql, &[]).await.expect("sizes");
        let each = |index: usize, count: i64| row.get::<_, i64>(index) / count;
        let connections = self.count / COMMANDS_PER_CONNECTION;
        println!(
            "# {} commands on {connections} connections. Bytes of a command: {} in its row, {} in indexes; of a connection: {}; all in all {} MiB",
            self.count,
            each(0, self.count),
            each(1, self.count),
            each(2, connections),
            (0..3).map(|index| each(index, 1)).sum::<i64>() / (1 << 20)
        );
    }
}

/// What a column is filled with.
fn value(column: &str) -> String {
    match OWN.iter().find(|(own, _)| *own == column) {
        Some((_, expression)) => (*expression).to_owned(),
        None => format!("t.{column}"),
    }
}

/// The indexes of commands but for that of the primary key, while they are not there.
struct Indexes(Vec<String>);

impl Indexes {
    async fn drop(client: &Client) -> Self {
        let (mut drop, mut build) = (String::new(), Vec::new());
        let constraints = "SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint
            WHERE conrelid = 'commands'::regclass AND contype = 'u'";
        for row in client.query(constraints, &[]).await.expect("constraints") {
            let (name, definition): (String, String) = (row.get(0), row.get(1));
            let _ = write!(drop, "ALTER TABLE commands DROP CONSTRAINT {name};");
            build.push(format!("ALTER TABLE commands ADD CONSTRAINT {name} {definition}"));
        }
        let indexes = "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index i
            WHERE indrelid = 'commands'::regclass AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conindid = i.indexrelid)";
        for row in client.query(indexes, &[]).await.expect("indexes") {
            let _ = write!(drop, "DROP INDEX {};", row.get::<_, String>(0));
            build.push(row.get(1));
        }
        assert!(build.len() > 2, "{build:?}");
        client.batch_execute(&drop).await.expect("they are dropped");
        Self(build)
    }

    async fn build(self, client: &Client) {
        for sql in self.0 {
            client.batch_execute(&sql).await.expect("it is built");
        }
    }
}
