//! How SQLite goes about the statements: a table with a million final rows must not matter.

use rusqlite::Connection;

use super::*;
use crate::store::sqlite::schema::MIGRATIONS;

#[test]
fn the_statements_read_nothing_but_their_index() {
    let database = Connection::open_in_memory().unwrap();
    for step in MIGRATIONS {
        database.execute_batch(step).unwrap();
    }
    for (sql, read) in [
        (PUT_OFF_DUE, "SEARCH commands USING INDEX commands_due (due_time<?)"),
        (PUT_OFF_DUE_OF, "SEARCH commands USING INDEX commands_deferred (requester=? AND due_time<?)"),
        (RESUME, "SCAN c USING INDEX commands_paused"),
        (RESUME_OF, "SEARCH c USING INDEX commands_paused (requester=? AND due_time>?)"),
    ] {
        let mut statement = database.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let plan: Vec<String> =
            statement.raw_query().mapped(|row| row.get(3)).collect::<Result<_, _>>().unwrap();
        let plan: Vec<_> = plan.iter().map(|step| step.replace("COVERING ", "")).collect();
        let expected = |step: &str| {
            step == read
                || step == "SEARCH commands USING INTEGER PRIMARY KEY (rowid=?)"
                || step == "SEARCH ahead USING INDEX commands_in_line (connection=? AND arrival<?)"
                || !(step.starts_with("SEARCH") || step.starts_with("SCAN"))
        };
        assert!(plan.iter().any(|step| step == read), "{plan:?}");
        assert!(plan.iter().all(|step| expected(step)), "{plan:?}");
    }
}
