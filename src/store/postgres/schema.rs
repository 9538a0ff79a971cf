//! The schema's steps, forward only.

use super::error::{Fault, OpenError};
use super::session::{Session, Target, text};

/// The version of a database is the number of steps it has taken.
const MIGRATIONS: &[Migration] =
    &[Migration { sql: include_str!("../migrations/postgres/0001_store.sql"), needs: 1 }];

struct Migration {
    sql: &'static str,
    /// How many steps a program must know at least to work with a database that has taken this one. While instances are
    /// replaced one by one, those of the version before work with the new schema: so a step that they cannot bear is taken
    /// one version after the last program that minds it.
    needs: i32,
}

/// Held while the schema is changed, so that of several instances that start together one does it. "gcad".
const LOCK: &str = "SELECT pg_advisory_xact_lock(1734566244)";

/// The schema of a database, as it is before a program opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// Its version: how many steps it has taken. 0 is an empty database.
    pub found: i32,
    /// The newest version that this program knows, to which it brings an older one when it opens the database.
    pub known: i32,
}

impl Target {
    /// Looks at the schema, and changes nothing.
    ///
    /// # Errors
    /// The server cannot be reached, or needs a newer program.
    pub async fn schema(&self) -> Result<Schema, OpenError> {
        const IS_THERE: &str = "SELECT to_regclass('schema_versions') IS NOT NULL";
        let fail = |fault: Fault| OpenError::Connect(text(&fault));
        let session = self.connect(None).await.map_err(fail)?;
        let client = &session.client;
        let there = session.within(client.query_one(IS_THERE, &[])).await.map_err(fail)?;
        let known = known();
        if !there.get::<_, bool>(0) {
            return Ok(Schema { found: 0, known });
        }
        let row = session.within(client.query_one(VERSION, &[])).await.map_err(fail)?;
        let (found, needs): (i32, i32) = (row.get(0), row.get(1));
        if needs > known {
            Err(OpenError::TooNew { found, needs, known })
        } else {
            Ok(Schema { found, known })
        }
    }
}

fn known() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// The version of a database, and the one that a program must know to work with it.
const VERSION: &str = "SELECT coalesce(max(version), 0), coalesce(max(needs), 0) FROM schema_versions";

/// Brings the database to the present schema, in one transaction.
pub(super) async fn prepare(session: &mut Session) -> Result<(), OpenError> {
    let fail = |fault: Fault| OpenError::Schema(text(&fault));
    let client = &session.client;
    let begin = format!(
        "BEGIN; SET LOCAL statement_timeout = 0; {LOCK}; CREATE TABLE IF NOT EXISTS schema_versions (
            version INTEGER PRIMARY KEY, needs INTEGER NOT NULL, taken_at TIMESTAMPTZ NOT NULL DEFAULT now())"
    );
    client.batch_execute(&begin).await.map_err(|error| fail(error.into()))?;
    let row = client.query_one(VERSION, &[]).await.map_err(|error| fail(error.into()))?;
    let (found, needs): (i32, i32) = (row.get(0), row.get(1));
    let known = known();
    if needs > known {
        return Err(OpenError::TooNew { found, needs, known });
    }
    for (version, step) in (1_i32..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        client.batch_execute(step.sql).await.map_err(|error| fail(error.into()))?;
        client
            .execute("INSERT INTO schema_versions (version, needs) VALUES ($1, $2)", &[&version, &step.needs])
            .await
            .map_err(|error| fail(error.into()))?;
    }
    client.batch_execute("COMMIT").await.map_err(|error| fail(error.into()))
}
