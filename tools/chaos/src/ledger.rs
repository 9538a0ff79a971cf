//! What stands in the database that several instances share. No promise is judged by it but that its own sums are right and that
//! nothing is left in it that should be gone.

use std::time::Duration;

use chrono::DateTime;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};
use uuid::Uuid;

use crate::history::{BooksSeen, Time};

/// How long a question may take. The database may be away.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a new instance may take to enter its name.
const ENTRY_PATIENCE: Duration = Duration::from_secs(2);

/// The pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

const BOOKS: &str = "
    SELECT (SELECT sum(registered)::bigint FROM totals), (SELECT count(*) FROM commands),
        (SELECT count(*) FROM commands WHERE finished_time IS NULL), (SELECT sum(outbox_written)::bigint FROM totals),
        (SELECT sum(outbox_confirmed)::bigint FROM totals), (SELECT count(*) FROM outbox),
        (SELECT count(*) FROM connections WHERE suspect_since IS NOT NULL), (SELECT count(*) FROM instances)";

const PUBLISHED: &str = "
    SELECT event_confirmed_time, (connection % 64)::smallint FROM commands WHERE event_confirmed_time IS NOT NULL
    ORDER BY event_confirmed_time";

/// The database.
pub struct Ledger {
    url: String,
}

impl Ledger {
    /// The one at `url`.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned() }
    }

    async fn client(&self) -> Option<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    async fn ask(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Option<Vec<Row>> {
        let asked = async { self.client().await?.query(sql, parameters).await.ok() };
        timeout(PATIENCE, asked).await.ok()?
    }

    /// The greatest name of an instance; those that start later have greater ones.
    pub async fn newest_instance(&self) -> Option<Uuid> {
        // There is no greatest of UUIDs in PostgreSQL 15.
        let sql = "SELECT id FROM instances ORDER BY id DESC LIMIT 1";
        // Before the first start there is no such table.
        match self.ask(sql, &[]).await {
            Some(rows) => Some(rows.first().map_or(Uuid::nil(), |row| row.get(0))),
            None => self.client().await.map(|_| Uuid::nil()),
        }
    }

    /// The greatest name of an instance beyond `known`, once there is one.
    pub async fn instance_after(&self, known: Uuid) -> Option<Uuid> {
        let looking = async {
            loop {
                match self.newest_instance().await {
                    Some(newest) if newest > known => return newest,
                    _ => sleep(LOOK_INTERVAL).await,
                }
            }
        };
        timeout(ENTRY_PATIENCE, looking).await.ok()
    }

    /// The slots of the outbox that an instance holds.
    pub async fn slots(&self, instance: Uuid) -> Vec<i16> {
        let rows = self.ask("SELECT slot FROM outbox_slots WHERE owner = $1", &[&instance]).await;
        rows.unwrap_or_default().iter().map(|row| row.get(0)).collect()
    }

    /// When events were confirmed, and in which slot.
    pub async fn published(&self) -> Vec<(Time, i16)> {
        let rows = self.ask(PUBLISHED, &[]).await.unwrap_or_default();
        let time = |row: &Row| DateTime::from_timestamp_micros(row.get(0)).unwrap_or_default();
        rows.iter().map(|row| (time(row), row.get(1))).collect()
    }

    /// The sums.
    pub async fn books(&self) -> Option<BooksSeen> {
        let rows = self.ask(BOOKS, &[]).await?;
        let number = |column: usize| rows[0].get::<_, Option<i64>>(column).unwrap_or_default();
        Some(BooksSeen {
            registered: number(0),
            commands: number(1),
            unfinished: number(2),
            outbox_written: number(3),
            outbox_confirmed: number(4),
            outbox_pending: number(5),
            suspect: number(6),
            instances: number(7),
        })
    }

    /// Nobody else changes a command for a while.
    pub async fn lock(&self, lasts: Duration) {
        let Some(client) = self.client().await else { return };
        let locked =
            timeout(lasts, client.batch_execute("BEGIN; LOCK TABLE commands IN EXCLUSIVE MODE")).await;
        if matches!(locked, Ok(Ok(()))) {
            sleep(lasts).await;
        }
        // With its client the lock is gone, too.
    }
}
