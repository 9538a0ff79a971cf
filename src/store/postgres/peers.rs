//! The instances that share a database: who is alive, who has which slots of the outbox, and words among them.
//!
//! Each instance has a row that it renews; one that has run out is removed by whoever sees it, and with it, by a foreign key, what
//! was held under it. To renew a row is to lock it, so that a row is either renewed or removed, and what was removed is found
//! gone when the slots are read after it. An instance counts its own time from before it asked, so it stops before others begin.
//!
//! Words are hints: who misses one looks by itself, later.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Shared;
use super::error::Fault;
use super::session::{Link, Session};
use crate::domain::seat::Seat;
use crate::service::ports::StoreError;
use crate::service::tenure::Slots;
use crate::store::records;

/// The channel of words.
pub(super) const LISTEN: &str = "LISTEN guest_connection_adapter";

/// Words that wait for the one who listens. Further ones say nothing new.
pub(super) const WORDS_MAX: usize = 64;

/// What is changed in so short a time is told at once.
const TELL_DELAY: Duration = Duration::from_millis(5);

/// The wait before another look at what could not be done yet.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// A lease is renewed so many times before it runs out.
const BEATS: u32 = 5;

const RENEW: &str = "
    INSERT INTO instances (id, version, lease_until) VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
    ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until";

const REMOVE: &str = "DELETE FROM instances WHERE lease_until < clock_timestamp()";

const MEMBERS: &str = "SELECT id FROM instances ORDER BY id";

const RELEASE: &str = "UPDATE outbox_slots SET owner = NULL WHERE owner = $1 AND slot = ANY ($2::smallint[])";

const TAKE: &str = "
    UPDATE outbox_slots SET owner = $1 WHERE slot IN (
        SELECT slot FROM outbox_slots WHERE owner IS NULL AND slot = ANY ($2::smallint[]) ORDER BY slot FOR UPDATE SKIP LOCKED)";

const HELD: &str = "SELECT slot FROM outbox_slots WHERE owner = $1";

const LEAVE: &str = "DELETE FROM instances WHERE id = $1";

const TELL: &str = "SELECT pg_notify('guest_connection_adapter', $1)";

/// What an instance tells the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It has written something.
    Written,
    /// It has come, gone, or given something back.
    Moved,
}

impl Word {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Moved => "moved",
        }
    }
}

/// What a look at the others came to.
struct Look {
    /// Others should look, too.
    has_moved: bool,
    /// Something is to be given back that is still at work.
    is_pending: bool,
}

/// Keeps this instance among those that share the database.
pub(super) struct Peers {
    /// Its row.
    pub(super) id: Uuid,
    pub(super) lease: Duration,
    /// A connection that listens.
    pub(super) link: Link,
    pub(super) shared: Arc<Shared>,
    /// What the others say.
    pub(super) words: mpsc::Receiver<String>,
    /// Changes when this instance has written something.
    pub(super) written: watch::Receiver<()>,
    /// Told when another one has.
    pub(super) changes: Arc<watch::Sender<()>>,
    pub(super) stop: CancellationToken,
    /// Told to leave the work to the others.
    pub(super) retiring: CancellationToken,
}

impl Peers {
    /// Works until it is told to stop, and then leaves.
    pub(super) async fn run(mut self) {
        let (mut look_at, mut has_left) = (Instant::now(), false);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.retiring.cancelled(), if !has_left => has_left = self.retire().await,
                () = sleep_until(look_at), if !has_left => look_at = self.look().await,
                Some(word) = self.words.recv() => {
                    if self.hear(&word) {
                        look_at = Instant::now();
                    }
                }
                Ok(()) = self.written.changed(), if self.shared.tenure.seat().borrow().count > 1 => {
                    sleep(TELL_DELAY).await;
                    self.written.mark_unchanged();
                    self.tell(Word::Written).await;
                }
            }
        }
        self.leave().await;
    }

    /// Looks at the others. Yields when to do so again.
    async fn look(&mut self) -> Instant {
        match self.attend().await {
            Ok(Look { has_moved, is_pending }) => {
                if has_moved {
                    self.tell(Word::Moved).await;
                }
                Instant::now() + if is_pending { RETRY_DELAY } else { self.lease / BEATS }
            }
            Err(error) => {
                records::PeersUnseen { error: &error }.log();
                Instant::now() + RETRY_DELAY
            }
        }
    }

    async fn attend(&mut self) -> Result<Look, StoreError> {
        let Self { id, lease, link, shared, changes, .. } = self;
        let session = link.session().await?;
        match attend(session, shared, *id, *lease).await {
            Ok((look, has_grown)) => {
                if has_grown {
                    changes.send_replace(());
                }
                Ok(look)
            }
            Err(fault) => {
                link.undo(&fault).await;
                Err(fault.into())
            }
        }
    }

    /// Takes note of what another one says. Whether that asks for a look.
    fn hear(&mut self, word: &str) -> bool {
        let (from, what) = word.split_once(' ').unwrap_or((word, ""));
        if from == self.id.to_string() {
            return false;
        }
        // A word of a kind that only newer instances know says at least that something has changed.
        self.changes.send_replace(());
        what != Word::Written.as_str()
    }

    async fn tell(&mut self, word: Word) {
        let text = format!("{} {}", self.id, word.as_str());
        let Ok(session) = self.link.session().await else { return };
        if let Err(fault) = session.query(TELL, &[&text]).await {
            self.link.undo(&fault).await;
        }
    }

    /// Leaves the work to the others, once no round of publishing is under way. Who is alone does it to its end.
    async fn retire(&mut self) -> bool {
        let seat = *self.shared.tenure.seat().borrow();
        if seat.count <= 1 {
            self.retiring = CancellationToken::new();
            return false;
        }
        let none = Seat { index: seat.count, count: seat.count };
        self.shared.tenure.grant(none, Slots::NONE, Instant::now());
        while self.shared.tenure.withdraw(Slots::NONE) != Slots::ALL {
            if self.stop.run_until_cancelled(sleep(RETRY_DELAY)).await.is_none() {
                break;
            }
        }
        self.leave().await;
        true
    }

    async fn leave(&mut self) {
        self.shared.tenure.withdraw(Slots::NONE);
        let Ok(session) = self.link.session().await else { return };
        match session.execute(LEAVE, &[&self.id]).await {
            Ok(_) => self.tell(Word::Moved).await,
            Err(fault) => records::LeaveUntaken { fault: &fault }.log(),
        }
    }
}

/// Renews the lease and divides the work anew. Yields also whether something has come to this instance.
async fn attend(
    session: &mut Session,
    shared: &Shared,
    id: Uuid,
    lease: Duration,
) -> Result<(Look, bool), Fault> {
    // Before the server begins to count.
    let until = Instant::now() + lease;
    session.execute(RENEW, &[&id, &env!("CARGO_PKG_VERSION"), &lease.as_secs_f64()]).await?;
    let removed = session.execute(REMOVE, &[]).await?;
    if removed > 0 {
        records::PeersRemoved { count: removed }.log();
    }
    let members: Vec<Uuid> = session.query(MEMBERS, &[]).await?.iter().map(|row| row.get(0)).collect();
    let seat = seat(&members, id);
    let wanted = Slots::of(seat);
    let releasable = shared.tenure.withdraw(wanted);
    let released = session.execute(RELEASE, &[&id, &numbers(releasable)]).await?;
    let taken = session.execute(TAKE, &[&id, &numbers(wanted)]).await?;
    let held: Slots = session
        .query(HELD, &[&id])
        .await?
        .iter()
        .filter_map(|row| u32::try_from(row.get::<_, i16>(0)).ok())
        .collect();
    let is_pending = !held.without(wanted).is_empty();
    let before = *shared.tenure.seat().borrow();
    if before != seat {
        records::WorkDivided { index: seat.index, count: seat.count }.log();
    }
    shared.tenure.grant(seat, held.and(wanted), until);
    Ok((
        Look { has_moved: released + removed > 0 || before != seat, is_pending },
        taken > 0 || before != seat,
    ))
}

/// The place of an instance among `members`, in their order.
fn seat(members: &[Uuid], id: Uuid) -> Seat {
    let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
    match members.iter().position(|member| *member == id).map(u32::try_from) {
        Some(Ok(index)) => Seat { index, count },
        _ => Seat::ALONE,
    }
}

fn numbers(slots: Slots) -> Vec<i16> {
    slots.iter().filter_map(|slot| i16::try_from(slot).ok()).collect()
}
