//! The schema's steps, forward only.

use super::error::{Fault, OpenError};
use super::session::{Session, text};

/// The version of a database is the number of steps it has taken.
const MIGRATIONS: &[&str] = &[include_str!("../migrations/postgres/0001_store.sql")];

/// Held while the schema is changed, so that of several instances that start together one does it. "gcad".
const LOCK: &str = "SELECT pg_advisory_xact_lock(1734566244)";

/// Brings the database to the present schema, in one transaction.
pub(super) async fn prepare(session: &mut Session) -> Result<(), OpenError> {
    let fail = |fault: Fault| OpenError::Schema(text(&fault));
    let client = &session.client;
    let begin = format!(
        "BEGIN; {LOCK}; CREATE TABLE IF NOT EXISTS schema_versions (
            version INTEGER PRIMARY KEY, taken_at TIMESTAMPTZ NOT NULL DEFAULT now())"
    );
    client.batch_execute(&begin).await.map_err(|error| fail(error.into()))?;
    let found: i32 = client
        .query_one("SELECT coalesce(max(version), 0) FROM schema_versions", &[])
        .await
        .map_err(|error| fail(error.into()))?
        .get(0);
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    if found > known {
        return Err(OpenError::TooNew { found, known });
    }
    for (version, step) in (1_i32..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        client.batch_execute(step).await.map_err(|error| fail(error.into()))?;
        client
            .execute("INSERT INTO schema_versions (version) VALUES ($1)", &[&version])
            .await
            .map_err(|error| fail(error.into()))?;
    }
    client.batch_execute("COMMIT").await.map_err(|error| fail(error.into()))
}
