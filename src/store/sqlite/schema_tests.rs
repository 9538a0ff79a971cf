//! Whether the checks of a table cost little and hold, and SQLite is built as `.cargo/config.toml` says.

use super::*;

/// A database that has taken the first `steps` of its steps, with one final command.
fn database(steps: usize) -> Connection {
    let database = Connection::open_in_memory().unwrap();
    for step in &MIGRATIONS[..steps] {
        database.execute_batch(step).unwrap();
    }
    database
        .execute_batch(
            "INSERT INTO connections (number, target, guest) VALUES (1, zeroblob(16), zeroblob(16));
             INSERT INTO commands (id, requester, key, connection, archived, door, state, generation, epoch, attempts,
                 maybe_applied, blocking, waiting, effective_time, accepted_time, due_time, finished_time)
             VALUES (zeroblob(16), zeroblob(16), 'k', 1, 1, 'amqp', 'succeeded', 1, 1, 1, 0, 0, 0, 4, 4, NULL, 9)",
        )
        .unwrap();
    database
}

/// Tables that SQLite fills besides when it does `sql`.
fn tables_filled(database: &Connection, sql: &str) -> usize {
    let mut statement = database.prepare(&format!("EXPLAIN {sql}")).unwrap();
    let steps: Vec<String> =
        statement.raw_query().mapped(|row| row.get(1)).collect::<Result<_, _>>().unwrap();
    steps.iter().filter(|step| *step == "OpenEphemeral").count()
}

const UPDATE: &str =
    "UPDATE commands SET state = 'failed', finished_time = 1, due_time = NULL WHERE arrival = 1";

#[test]
fn a_check_fills_no_table() {
    assert!(tables_filled(&database(4), UPDATE) > 0, "what the fifth step is for");
    assert_eq!(tables_filled(&database(MIGRATIONS.len()), UPDATE), 0);
}

#[test]
fn a_former_table_keeps_its_rows_and_its_checks() {
    let former = database(4);
    former.execute_batch(MIGRATIONS[4]).unwrap();
    for database in [former, database(MIGRATIONS.len())] {
        assert_eq!(tables_filled(&database, UPDATE), 0);
        assert_eq!(find_damage(&database).unwrap(), None);
        for (state, due_time, finished_time, is_sound) in [
            ("accepted", Some(1), None, true),
            ("in_flight", Some(1), None, true),
            ("deferred", Some(1), None, true),
            ("succeeded", None, Some(1), true),
            ("rejected", None, Some(1), true),
            ("superseded", None, Some(1), true),
            ("failed", None, Some(1), true),
            ("abandoned", None, Some(1), true),
            ("deferred", None, Some(1), false),
            ("failed", Some(1), None, false),
            ("failed", None, None, false),
            ("odd", None, Some(1), false),
            ("odd", Some(1), None, false),
        ] {
            let changed = database.execute(
                "UPDATE commands SET state = ?1, due_time = ?2, finished_time = ?3 WHERE key = 'k'",
                (state, due_time, finished_time),
            );
            assert_eq!(changed.is_ok(), is_sound, "{state} {due_time:?} {finished_time:?}: {changed:?}");
        }
    }
}

#[test]
fn sqlite_is_built_for_connections_of_one_thread() {
    let database = Connection::open_in_memory().unwrap();
    let mut statement = database.prepare("PRAGMA compile_options").unwrap();
    let options: Vec<String> =
        statement.raw_query().mapped(|row| row.get(0)).collect::<Result<_, _>>().unwrap();
    for option in ["THREADSAFE=2", "OMIT_SHARED_CACHE"] {
        assert!(options.iter().any(|found| found == option), "{options:?}");
    }
    assert!(!options.iter().any(|found| found == "ENABLE_MEMORY_MANAGEMENT"), "{options:?}");
}

#[test]
fn a_start_reads_no_more_of_a_large_file() {
    let database = database(MIGRATIONS.len());
    database
        .execute_batch(
            "WITH RECURSIVE numbers (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < 5000)
             INSERT INTO commands (id, requester, key, connection, archived, door, state, generation, epoch, attempts,
                 maybe_applied, blocking, waiting, effective_time, accepted_time, due_time, finished_time)
             SELECT CAST(printf('%016d', n) AS BLOB), zeroblob(16), n, 1, 1, 'amqp', 'succeeded', 1, 1, 1, 0, 0, 0, 4, 4,
                 NULL, n FROM numbers",
        )
        .unwrap();
    touch(&database).unwrap();
    for sql in ends() {
        let mut statement = database.prepare(&sql).unwrap();
        statement.query_row([], |_| Ok(())).optional().unwrap();
        let steps = statement.get_status(rusqlite::StatementStatus::VmStep);
        assert!(steps < 100, "{sql}: {steps}");
    }
}
