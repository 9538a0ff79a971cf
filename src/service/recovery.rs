//! Takes up what nobody works on: accepted commands without an owner, deferred ones that are due, claims whose lease
//! ended, lanes that the store holds more for, suspect connections.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::gate::{Appetite, Closed};
use super::load::{Counted, Way};
use super::ports::{BULK_LENGTH_MAX, Due, DueCursor, StoreError};
use super::worker::Job;
use super::{Shared, heal, records};
use crate::domain::command::OrganizationId;
use crate::domain::connection::Connection;
use crate::domain::record::Door;

/// Commands read at once.
const PAGE_LENGTH: usize = 512;

/// The longest wait between two looks: what another process left behind becomes due without a word to this one.
const INTERVAL_MAX: Duration = Duration::from_secs(1);

/// The wait when something is due that cannot be taken up: no room, or worked on here already.
const INTERVAL_BUSY: Duration = Duration::from_millis(250);

/// The wait after a word that something may be due, so that many words are one look.
const INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Looks for work until the adapter drains.
pub(super) async fn run(shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(shared.settings.load.recovered_max));
    loop {
        let wait = match round(&shared, &room).await {
            Ok(wait) => wait,
            Err(error) => {
                records::DueUnread { error: &error }.log();
                INTERVAL_MAX
            }
        };
        tokio::select! {
            () = shared.draining.cancelled() => return,
            () = sleep(wait) => {}
            () = shared.recovery.notified() => sleep(INTERVAL_MIN).await,
        }
    }
}

/// Takes up what there is, as far as there is room, and yields the wait until the next look.
async fn round(shared: &Arc<Shared>, room: &Arc<Semaphore>) -> Result<Duration, StoreError> {
    for requester in shared.gate.reopened() {
        while shared.store.resume(Some(requester)).await? >= BULK_LENGTH_MAX {}
    }
    if let Some(closed) = shared.gate.everyone_closed() {
        // What is deferred is paused from now on; lines stay as they are.
        while shared.store.put_off_due(None, closed.remaining()).await? >= BULK_LENGTH_MAX {}
        return Ok(closed.remaining().clamp(INTERVAL_MIN, INTERVAL_MAX));
    }
    heal_suspects(shared, room).await?;
    let mut menu = Menu { shared, room, requesters: HashMap::new() };
    let mut lines = shared.lanes.short();
    let has_room = menu.take_due(&mut lines).await?;
    let mut unfilled = BTreeSet::new();
    for connection in lines {
        if !(has_room && menu.fill(connection).await?) {
            unfilled.insert(connection);
        }
    }
    menu.put_off_closed().await?;
    let is_busy = !unfilled.is_empty();
    shared.lanes.put_back(unfilled);
    let next = shared.store.due_next().await?;
    let wait =
        next.map_or(INTERVAL_MAX, |next| (next - shared.clock.now()).to_std().unwrap_or(INTERVAL_BUSY));
    Ok(if is_busy { INTERVAL_BUSY } else { wait.clamp(INTERVAL_MIN, INTERVAL_MAX) })
}

/// Whether another instance has the command in hand, with a caller, say, to whom it would be told that it was put off: it was
/// accepted to be begun there. What stands behind it in line waits for its end anyway. If that instance is gone it is due in
/// the end, and taken up then.
fn is_elsewhere(shared: &Shared, due: &Due, now: i64) -> bool {
    let is_owned = !due.waiting && (due.cursor.due_time - now) > 0;
    let lease = i64::try_from(shared.settings.lease.as_micros()).unwrap_or(i64::MAX);
    is_owned && due.cursor.due_time - now <= lease && shared.store.tenure().seat().borrow().count > 1
}

/// What may be taken up in one look.
struct Menu<'a> {
    shared: &'a Arc<Shared>,
    room: &'a Arc<Semaphore>,
    /// What the gate said of each requester.
    requesters: HashMap<OrganizationId, Appetite>,
}

/// Whether a command may be taken up.
enum Serving {
    /// It may, in this place.
    Yes(OwnedSemaphorePermit, Counted),
    /// Its requester is to wait, while others may go on.
    Later,
    /// Its requester may not send.
    Closed(Closed),
    /// There is no room for any.
    Full,
}

impl Menu<'_> {
    /// A place for a command of `requester`.
    fn serve(&mut self, requester: OrganizationId) -> Serving {
        let gate = &self.shared.gate;
        let appetite = self.requesters.entry(requester).or_insert_with(|| gate.appetite(requester));
        match *appetite {
            Appetite::Closed(closed) => return Serving::Closed(closed),
            Appetite::Later => return Serving::Later,
            Appetite::Share if self.shared.load.is_beyond_share(requester, Way::Recovered) => {
                return Serving::Later;
            }
            Appetite::One => *appetite = Appetite::Later,
            Appetite::Plenty | Appetite::Share => {}
        }
        let is_constrained = *appetite == Appetite::Share;
        let Ok(permit) = self.room.clone().try_acquire_owned() else { return Serving::Full };
        Serving::Yes(permit, self.shared.load.count(requester, Way::Recovered, is_constrained))
    }

    /// Takes up every due command that finds a place, those that are longest due first. Lines in which one is due are
    /// added to `lines`. Whether there is room left.
    async fn take_due(&mut self, lines: &mut BTreeSet<Connection>) -> Result<bool, StoreError> {
        let mut after = DueCursor::default();
        loop {
            let page = self.shared.store.due(after, PAGE_LENGTH).await?;
            let is_last = page.len() < PAGE_LENGTH;
            for due in page {
                after = due.cursor;
                // One that is worked on here keeps its owner.
                if self.shared.board.is_running(due.id) {
                    continue;
                }
                if due.in_line {
                    lines.insert(due.connection);
                    continue;
                }
                match self.serve(due.requester) {
                    Serving::Yes(permit, counted) => {
                        take_up(self.shared, due, (permit, counted));
                    }
                    Serving::Later | Serving::Closed(_) => {}
                    Serving::Full => return Ok(false),
                }
            }
            if is_last {
                return Ok(true);
            }
        }
    }

    /// Fills the lane of a connection from the store, in order of arrival. Whether all is done that can be done now.
    async fn fill(&mut self, connection: Connection) -> Result<bool, StoreError> {
        let shared = self.shared;
        let filled_depth = shared.lanes.filled_depth();
        let line = shared.store.line(connection, filled_depth).await?;
        let now = shared.clock.now().timestamp_micros();
        if line.first().is_some_and(|first| first.waiting && first.cursor.due_time > now) {
            shared.lanes.note_stalled(connection);
            return Ok(true);
        }
        let mut has_more = line.len() == filled_depth;
        for due in line {
            if shared.board.is_running(due.id) {
                continue;
            }
            if is_elsewhere(shared, &due, now) {
                return Ok(true);
            }
            let place = match self.serve(due.requester) {
                Serving::Yes(permit, counted) => (Some(permit), counted),
                // It leaves the line when its turn has come, since those of others stand behind it. It takes nobody's place.
                Serving::Closed(closed) if !closed.is_everyone => {
                    (None, shared.load.count(due.requester, Way::Recovered, false))
                }
                Serving::Later | Serving::Closed(_) | Serving::Full => return Ok(false),
            };
            if !take_up(shared, due, place) {
                has_more = true;
                break;
            }
        }
        if has_more {
            shared.lanes.note_more(connection);
        }
        Ok(true)
    }

    /// What is due of requesters that may not send is paused from now on.
    async fn put_off_closed(&self) -> Result<(), StoreError> {
        for (requester, appetite) in &self.requesters {
            if let Appetite::Closed(closed) = appetite {
                let store = &self.shared.store;
                while store.put_off_due(Some(*requester), closed.remaining()).await? >= BULK_LENGTH_MAX {}
            }
        }
        Ok(())
    }
}

/// Sets a command to work, if its lane has room for it.
fn take_up(shared: &Arc<Shared>, due: Due, place: impl Send + 'static) -> bool {
    let Some(ticket) = shared.lanes.rejoin(due.connection) else { return false };
    let Due { id, requester, trace, cursor, .. } = due;
    let micros = u64::try_from(cursor.due_time).unwrap_or_default();
    let due = Some((SystemTime::UNIX_EPOCH + Duration::from_micros(micros)).min(SystemTime::now()));
    let job = Job { id, requester, door: Door::Amqp, trace, ticket, claim: None, caller: None, due };
    shared.spawn_work(job, place);
    true
}

async fn heal_suspects(shared: &Arc<Shared>, room: &Arc<Semaphore>) -> Result<(), StoreError> {
    for connection in shared.store.suspects(PAGE_LENGTH).await? {
        let Ok(permit) = room.clone().try_acquire_owned() else { break };
        let Some(healing) = shared.healing.begin(connection) else { continue };
        let Some(ticket) = shared.lanes.rejoin(connection) else { continue };
        let task = Arc::clone(shared);
        shared.tasks.spawn(async move {
            let _held = (permit, healing);
            heal::heal(&task, connection, ticket).await;
        });
    }
    Ok(())
}
