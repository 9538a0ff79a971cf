//! What the store does for administrators: bodies are erased step by step, and acts are kept.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use rusqlite::OptionalExtension as _;

use super::error::Fault;
use super::rows::{self, from_json, json, micros};
use super::task::Scope;
use crate::domain::act::{Act, ActRecord};
use crate::domain::erasure::{Forgotten, Whose};
use crate::domain::message::Message;
use crate::domain::record::Outcome;
use crate::service::ports::ForgetStep;

/// Looks at the `limit` commands that arrived after `after`, and empties what is kept of those concerned. There is no index
/// for it: it would cost every command, and this is rare.
pub(super) fn forget(
    scope: &mut Scope<'_>,
    whose: Whose,
    after: i64,
    limit: usize,
) -> Result<ForgetStep, Fault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut forgotten = Forgotten::default();
    let last: Option<i64> = scope
        .connection
        .prepare_cached(
            "SELECT max(arrival) FROM (SELECT arrival FROM commands WHERE arrival > ?1 ORDER BY arrival LIMIT ?2)",
        )?
        .query_row((after, limit), |row| row.get(0))?;
    let Some(last) = last else {
        // What was there before still lies in the log: it is to be cut.
        scope.shared.log_is_to_be_cut.store(true, Ordering::Relaxed);
        return Ok(ForgetStep { forgotten, next: None });
    };
    for (arrival, is_final) in concerned(scope, whose, after, last)? {
        forgotten.commands += 1;
        if is_final {
            forgotten.outcomes += u64::from(empty_outcome(scope, arrival)?);
        } else {
            forgotten.not_final += 1;
        }
        empty_messages(scope, arrival, &mut forgotten)?;
    }
    Ok(ForgetStep { forgotten, next: Some(last) })
}

/// Commands of the one concerned that arrived after `after` and not after `last`, and whether they are final.
fn concerned(scope: &Scope<'_>, whose: Whose, after: i64, last: i64) -> Result<Vec<(i64, bool)>, Fault> {
    let (sql, id) = match whose {
        Whose::Guest(guest) => (
            "SELECT c.arrival, c.finished_time IS NOT NULL FROM commands c JOIN connections n ON n.number = c.connection
             WHERE c.arrival > ?1 AND c.arrival <= ?2 AND n.guest = ?3",
            guest,
        ),
        Whose::Organization(organization) => (
            "SELECT c.arrival, c.finished_time IS NOT NULL FROM commands c JOIN connections n ON n.number = c.connection
             WHERE c.arrival > ?1 AND c.arrival <= ?2 AND (c.requester = ?3 OR n.target = ?3)",
            organization,
        ),
    };
    let mut statement = scope.connection.prepare_cached(sql)?;
    let found = statement.query_map((after, last, id.0.as_bytes()), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn empty_outcome(scope: &Scope<'_>, arrival: i64) -> Result<bool, Fault> {
    let text: Option<Option<String>> = scope
        .connection
        .prepare_cached("SELECT outcome FROM commands WHERE arrival = ?1")?
        .query_row([arrival], |row| row.get(0))
        .optional()?;
    let Some(text) = text.flatten() else { return Ok(false) };
    let mut outcome: Outcome = from_json("outcome", &text)?;
    let is_changed = outcome.forget();
    if is_changed {
        scope
            .connection
            .prepare_cached("UPDATE commands SET outcome = ?2 WHERE arrival = ?1")?
            .execute((arrival, json(&outcome)?))?;
    }
    Ok(is_changed)
}

fn empty_messages(scope: &mut Scope<'_>, arrival: i64, forgotten: &mut Forgotten) -> Result<(), Fault> {
    let mut statement =
        scope.connection.prepare_cached("SELECT number, message FROM outbox WHERE command = ?1")?;
    let found = statement.query_map([arrival], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let found: Vec<(i64, String)> = found.collect::<Result<_, _>>()?;
    for (number, text) in found {
        let mut message: Message = from_json("message", &text)?;
        if message.forget() {
            forgotten.count(&message);
            scope
                .connection
                .prepare_cached("UPDATE outbox SET message = ?2 WHERE number = ?1")?
                .execute((number, json(&message)?))?;
            scope.outbox.is_other = true;
        }
    }
    Ok(())
}

pub(super) fn begin_act(scope: &mut Scope<'_>, act: &Act) -> Result<i64, Fault> {
    let mut statement = scope.connection.prepare_cached(
        "INSERT INTO acts (time, actor, address, act, subject) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let subject = json(&act.subject)?;
    statement.execute((micros(scope.now()), &act.actor, &act.address, &act.act, subject))?;
    Ok(scope.connection.last_insert_rowid())
}

pub(super) fn end_act(
    scope: &mut Scope<'_>,
    number: i64,
    result: &BTreeMap<String, u64>,
) -> Result<(), Fault> {
    scope
        .connection
        .prepare_cached("UPDATE acts SET finished_time = ?2, result = ?3 WHERE number = ?1")?
        .execute((number, micros(scope.now()), json(result)?))?;
    Ok(())
}

/// The newest acts with numbers below `before`, the newest first.
pub(super) fn acts(scope: &Scope<'_>, before: Option<i64>, limit: usize) -> Result<Vec<ActRecord>, Fault> {
    let mut statement = scope.connection.prepare_cached(
        "SELECT number, time, actor, address, act, subject, finished_time, result FROM acts
         WHERE number < ?1 ORDER BY number DESC LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut found = statement.query((before.unwrap_or(i64::MAX), limit))?;
    let mut acts = Vec::new();
    while let Some(row) = found.next()? {
        let (subject, result): (String, Option<String>) = (row.get(5)?, row.get(7)?);
        acts.push(ActRecord {
            number: row.get(0)?,
            time: rows::time(row.get(1)?)?,
            act: Act {
                actor: row.get(2)?,
                address: row.get(3)?,
                act: row.get(4)?,
                subject: from_json("subject", &subject)?,
            },
            finish_time: row.get::<_, Option<i64>>(6)?.map(rows::time).transpose()?,
            result: result.map(|text| from_json("result", &text)).transpose()?,
        });
    }
    Ok(acts)
}
