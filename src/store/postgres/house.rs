//! What is changed besides commands under way, for many at once: confirmations, pauses, the purge, and what administrators ask.
//! Pauses are those of this instance's seat: others judge for themselves. It is done beside the writer, and waits for none of its locks where others can be taken up instead.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::error::Fault;
use super::queries::row_limit;
use super::rows::text;
use super::session::Session;
use super::worker::Desk;
use crate::domain::act::{Act, ActRecord};
use crate::domain::command::{CommandId, OrganizationId};
use crate::domain::erasure::{Forgotten, Whose};
use crate::domain::lifecycle;
use crate::domain::message::Message;
use crate::domain::record::Outcome;
use crate::service::ports::{BULK_LENGTH_MAX, ForgetStep};
use crate::store::values::{Odd, from_json, json, micros, time};

/// Takes confirmed rows out of the outbox. Numbers that are not there any more are passed over; a redrive may have given the
/// command another event since. Rows are locked in one order, so that nobody waits in a circle.
pub(super) async fn confirm(desk: Desk<'_>, numbers: Vec<i64>) -> Result<(), Fault> {
    const SQL: &str = "
        WITH taken AS (DELETE FROM outbox WHERE number = ANY ($1::bigint[]) RETURNING command, event_id),
        locked AS (SELECT c.arrival FROM taken t JOIN commands c ON c.arrival = t.command AND c.event_id = t.event_id
            ORDER BY c.arrival FOR UPDATE OF c),
        noted AS (UPDATE commands c SET event_confirmed_time = $2 FROM locked l WHERE c.arrival = l.arrival)
        INSERT INTO totals AS t (writer, outbox_confirmed) SELECT $3, count(*) FROM taken
        ON CONFLICT (writer) DO UPDATE SET outbox_confirmed = t.outbox_confirmed + excluded.outbox_confirmed";
    let now = micros(desk.shared.now());
    desk.session.execute(SQL, &[&numbers, &now, &desk.shared.house]).await?;
    Ok(())
}

/// Puts off deferred commands that are due. Those that somebody is working on are not waited for.
pub(super) async fn put_off_due(
    desk: Desk<'_>,
    requester: Option<OrganizationId>,
    delay: Duration,
) -> Result<u64, Fault> {
    const SQL: &str = "
        UPDATE commands SET paused_since = coalesce(paused_since, due_time), due_time = $3 WHERE arrival IN (
            SELECT arrival FROM commands WHERE state = 'deferred' AND NOT waiting AND due_time <= $1
                AND ($4::uuid IS NULL OR requester = $4) AND connection % $5 = $6 LIMIT $2 FOR UPDATE SKIP LOCKED)";
    let now = desk.shared.now();
    let due_time = micros(now + lifecycle::span(delay));
    let (requester, (index, count)) = (requester.map(|requester| requester.0), desk.shared.seat());
    let parameters: [&(dyn ToSql + Sync); 6] =
        [&micros(now), &BULK_LENGTH_MAX.cast_signed(), &due_time, &requester, &count, &index];
    desk.session.execute(SQL, &parameters).await
}

/// Makes what is put off due now. One that stands behind another in line is woken when it is the first.
pub(super) async fn resume(desk: Desk<'_>, requester: Option<OrganizationId>) -> Result<u64, Fault> {
    const SQL: &str = "
        UPDATE commands SET due_time = $1 WHERE arrival IN (
            SELECT arrival FROM commands c WHERE paused_since IS NOT NULL AND due_time > $1
                AND ($3::uuid IS NULL OR requester = $3) AND connection % $4 = $5
                AND (NOT in_line OR NOT EXISTS (SELECT 1 FROM commands ahead
                    WHERE ahead.connection = c.connection AND ahead.in_line AND ahead.arrival < c.arrival))
            LIMIT $2 FOR UPDATE SKIP LOCKED)";
    let now = micros(desk.shared.now());
    let (requester, (index, count)) = (requester.map(|requester| requester.0), desk.shared.seat());
    desk.session.execute(SQL, &[&now, &BULK_LENGTH_MAX.cast_signed(), &requester, &count, &index]).await
}

/// Makes those due now that nobody has begun.
pub(super) async fn release(desk: Desk<'_>, ids: Vec<CommandId>) -> Result<(), Fault> {
    const SQL: &str = "UPDATE commands SET due_time = $2 WHERE arrival = ANY (ARRAY(
        SELECT arrival FROM commands WHERE id = ANY ($1::uuid[]) AND state = 'accepted' AND NOT waiting AND due_time > $2
        ORDER BY arrival FOR UPDATE))";
    let now = micros(desk.shared.now());
    let ids: Vec<Uuid> = ids.into_iter().map(|id| id.0).collect();
    desk.session.execute(SQL, &[&ids, &now]).await?;
    desk.shared.written.send_replace(());
    Ok(())
}

/// Forgets what is final for longer than the retention and fully told.
pub(super) async fn purge(desk: Desk<'_>, limit: usize) -> Result<u64, Fault> {
    const SQL: &str = "
        WITH gone AS (DELETE FROM commands WHERE arrival IN (
            SELECT arrival FROM commands c WHERE finished_time < $1
                AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.command = c.arrival)
            ORDER BY finished_time LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING 1),
        counted AS (INSERT INTO totals AS t (writer, registered) SELECT $3, -count(*) FROM gone
            ON CONFLICT (writer) DO UPDATE SET registered = t.registered + excluded.registered)
        SELECT count(*) FROM gone";
    // A retention longer than time itself keeps everything.
    let Some(horizon) = desk.shared.now().checked_sub_signed(desk.shared.retention.max(TimeDelta::zero()))
    else {
        return Ok(0);
    };
    let found = desk.session.query(SQL, &[&micros(horizon), &row_limit(limit), &desk.shared.house]).await?;
    Ok(found.first().map_or(0, |row| row.get::<_, i64>(0).cast_unsigned()))
}

/// Looks at the `limit` commands that arrived after `after`, and empties what is kept of those concerned.
pub(super) async fn forget(
    desk: Desk<'_>,
    whose: Whose,
    after: i64,
    limit: usize,
) -> Result<ForgetStep, Fault> {
    const LAST: &str = "SELECT max(arrival) FROM
        (SELECT arrival FROM commands WHERE arrival > $1 ORDER BY arrival LIMIT $2) AS step";
    const CONCERNED: &str = "
        SELECT c.arrival FROM commands c JOIN connections n ON n.number = c.connection
        WHERE c.arrival > $1 AND c.arrival <= $2 AND (n.guest = $3 OR c.requester = $4 OR n.target = $4)
        ORDER BY c.arrival";
    let Desk { session, .. } = desk;
    let mut forgotten = Forgotten::default();
    let found = session.query(LAST, &[&after, &row_limit(limit)]).await?;
    let Some(last) = found.first().and_then(|row| row.get::<_, Option<i64>>(0)) else {
        return Ok(ForgetStep { forgotten, next: None });
    };
    let (guest, organization) = match whose {
        Whose::Guest(id) => (Some(id.0), None),
        Whose::Organization(id) => (None, Some(id.0)),
    };
    for row in session.query(CONCERNED, &[&after, &last, &guest, &organization]).await? {
        // One after another: who holds one and waits for the next may wait in a circle with the writer.
        session.command("BEGIN").await?;
        forget_one(session, row.get(0), &mut forgotten).await?;
        session.command("COMMIT").await?;
    }
    Ok(ForgetStep { forgotten, next: Some(last) })
}

/// Empties what is kept of a command, if it is still there.
async fn forget_one(session: &mut Session, arrival: i64, forgotten: &mut Forgotten) -> Result<(), Fault> {
    const COMMAND: &str =
        "SELECT finished_time IS NOT NULL, outcome FROM commands WHERE arrival = $1 FOR UPDATE";
    const MESSAGES: &str = "SELECT number, message FROM outbox WHERE command = $1 ORDER BY number FOR UPDATE";
    let found = session.query(COMMAND, &[&arrival]).await?;
    let Some(row) = found.first() else { return Ok(()) };
    forgotten.commands += 1;
    if row.get(0) {
        if let Some(text) = row.get::<_, Option<&str>>(1) {
            let mut outcome: Outcome = from_json("outcome", text)?;
            if outcome.forget() {
                forgotten.outcomes += 1;
                let sql = "UPDATE commands SET outcome = $2 WHERE arrival = $1";
                session.execute(sql, &[&arrival, &json(&outcome)?]).await?;
            }
        }
    } else {
        forgotten.not_final += 1;
    }
    for row in session.query(MESSAGES, &[&arrival]).await? {
        let mut message: Message = from_json("message", row.get(1))?;
        if message.forget() {
            forgotten.count(&message);
            let sql = "UPDATE outbox SET message = $2 WHERE number = $1";
            session.execute(sql, &[&row.get::<_, i64>(0), &json(&message)?]).await?;
        }
    }
    Ok(())
}

pub(super) async fn begin_act(desk: Desk<'_>, act: Act) -> Result<i64, Fault> {
    const SQL: &str =
        "INSERT INTO acts (time, actor, address, act, subject) VALUES ($1, $2, $3, $4, $5) RETURNING number";
    let (now, subject) = (micros(desk.shared.now()), json(&act.subject)?);
    let (actor, address) = (text(Some(&act.actor)), text(act.address.as_ref()));
    let found = desk.session.query(SQL, &[&now, &actor, &address, &act.act, &subject]).await?;
    found.first().map(|row| row.get(0)).ok_or_else(|| Fault::Other("an act got no number".to_owned()))
}

pub(super) async fn end_act(desk: Desk<'_>, number: i64, result: BTreeMap<String, u64>) -> Result<(), Fault> {
    const SQL: &str = "UPDATE acts SET finished_time = $2, result = $3 WHERE number = $1";
    let now = micros(desk.shared.now());
    desk.session.execute(SQL, &[&number, &now, &json(&result)?]).await?;
    Ok(())
}

/// The newest acts with numbers below `before`, the newest first.
pub(super) async fn acts(desk: Desk<'_>, before: Option<i64>, limit: usize) -> Result<Vec<ActRecord>, Fault> {
    const SQL: &str = "SELECT number, time, actor, address, act, subject, finished_time, result FROM acts
        WHERE number < $1 ORDER BY number DESC LIMIT $2";
    let found = desk.session.query(SQL, &[&before.unwrap_or(i64::MAX), &row_limit(limit)]).await?;
    Ok(found.iter().map(read_act).collect::<Result<_, Odd>>()?)
}

fn read_act(row: &Row) -> Result<ActRecord, Odd> {
    Ok(ActRecord {
        number: row.get(0),
        time: time(row.get(1))?,
        act: Act {
            actor: row.get(2),
            address: row.get(3),
            act: row.get(4),
            subject: from_json("subject", row.get(5))?,
        },
        finish_time: row.get::<_, Option<i64>>(6).map(time).transpose()?,
        result: row.get::<_, Option<&str>>(7).map(|text| from_json("result", text)).transpose()?,
    })
}

/// Writes something that nobody reads.
pub(super) async fn probe(desk: Desk<'_>) -> Result<(), Fault> {
    const SQL: &str = "INSERT INTO totals (writer, probe_time) VALUES ($1, $2)
        ON CONFLICT (writer) DO UPDATE SET probe_time = excluded.probe_time";
    // Where nothing is changed for long nobody else hears the server's time.
    let now = micros(desk.shared.note_server_time(desk.session.time().await?));
    desk.session.execute(SQL, &[&desk.shared.house, &now]).await?;
    Ok(())
}
