//! The pipeline behind both doors.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::{Board, Notice};
use super::entry::{Entry, Place};
use super::gate::{Gate, Organization};
use super::lanes::Lanes;
use super::load::{Hold, Load};
use super::ports::{Accepted, Clock, Store, StoreError, Upstream};
use super::worker::{Caller, Claim, Job};
use super::{Settings, Shared, backlog, heal, others, records, recovery, tally};
use crate::domain::Timestamp;
use crate::domain::access::AskedBy;
use crate::domain::command::{Command, CommandId, IdempotencyKey, OrganizationId};
use crate::domain::error::{Reason, Refusal};
use crate::domain::record::{CommandRecord, Door, ReplyAddress, State};
use crate::domain::trace::TraceContext;
use crate::telemetry::span::Span;

/// How often a command that another process may be working on is looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// When a caller that was refused for want of room should come again.
const OVERLOAD_RETRY_DELAY: Duration = Duration::from_secs(1);

/// A command and how its caller wants to hear of it.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What is asked.
    pub command: Command,
    /// By which door it came.
    pub door: Door,
    /// Who asks.
    pub asked_by: AskedBy,
    /// The context of the door's span.
    pub trace: TraceContext,
    /// The caller's name for its conversation.
    pub correlation_id: Option<String>,
    /// Where an answer is wanted in writing.
    pub reply: Option<ReplyAddress>,
    /// Bytes that the door keeps until it has its answer.
    pub message_length: usize,
    /// Until when the caller must have its answer. Work goes on after it.
    pub answer_by: Instant,
}

/// What a caller hears.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The command is final: `record.outcome` says how it ended.
    Final {
        /// The command.
        record: CommandRecord,
        /// Whether this is the answer to an earlier submission with the same key.
        replayed: bool,
    },
    /// The command is durable and runs later, without the caller's doing; `record.outcome` says what happened so far.
    Deferred(CommandRecord),
    /// The command is durable and waits: for its turn, another command or a quiet time. Told to the queue's door only.
    Waiting(CommandRecord),
}

/// The pipeline. Cloning shares it.
#[derive(Clone)]
pub struct Archiver {
    shared: Arc<Shared>,
}

impl Archiver {
    /// A pipeline over these parts. [`Self::recover`] and a [`Relay`](super::relay::Relay) run beside it.
    #[must_use]
    pub fn new(
        settings: Settings,
        store: Arc<dyn Store>,
        upstream: Arc<dyn Upstream>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let recovery: Arc<tokio::sync::Notify> = Arc::default();
        let lanes = Lanes::new(settings.lane_depth_max, Arc::clone(&recovery));
        let load = Load::new(settings.load);
        let gate = Gate::new(settings.gate, Arc::clone(&recovery));
        let shared = Shared {
            settings,
            store,
            upstream,
            clock,
            default_requester: RwLock::default(),
            lanes,
            load,
            gate,
            board: Board::default(),
            healing: heal::UnderWay::default(),
            recovery,
            outbox: watch::Sender::new(()),
            draining: CancellationToken::new(),
            left: Mutex::default(),
            tasks: TaskTracker::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes a command in. Everything that decides its place among the commands of its connection is done before this
    /// returns, so that the order of calls is the order of arrival; the future then waits for the answer. Dropping the
    /// future cancels nothing. Must be called within a runtime.
    ///
    /// # Errors
    /// A refusal at once, before the store was asked. The future yields one if the command was not accepted, or
    /// `OUTCOME_PENDING` / `COMMAND_IN_PROGRESS` when `answer_by` came first.
    pub fn submit(
        &self,
        submission: Submission,
    ) -> Result<impl Future<Output = Result<Answer, Refusal>> + Send + 'static, Refusal> {
        let answer_by = submission.answer_by;
        let alive = Arc::new(());
        let caller = Caller { answer_by, alive: Arc::downgrade(&alive) };
        let door = submission.door;
        let entry = self.shared.enter(submission).inspect_err(|refusal| tally::refused(door, refusal))?;
        let (tell, admitted) = oneshot::channel();
        self.shared.tasks.spawn(self.shared.clone().take_in(entry, caller, tell));
        let shared = self.shared.clone();
        Ok(async move {
            let admitted = match timeout_at(answer_by, admitted).await {
                Ok(Ok(admitted)) => admitted?,
                // Who takes it in has panicked.
                Ok(Err(_)) => {
                    records::EntryLost.log();
                    return Err(failed());
                }
                // Whether it will be accepted is not known, so nobody may rely on it.
                Err(_) => return Err(Refusal::new(Reason::StoreUnavailable, STORE_SILENT_TEXT)),
            };
            let heard = shared.hear(admitted, answer_by).await;
            drop(alive);
            heard.inspect_err(|refusal| tally::told(door, refusal))
        })
    }

    /// A command by its id, if its requester is one of those that are `shown`. Of another one's no more is read than of one
    /// that is not there, so that the time tells nothing either.
    ///
    /// # Errors
    /// `STORE_UNAVAILABLE`.
    pub async fn command(
        &self,
        id: CommandId,
        shown: impl Fn(OrganizationId) -> bool,
    ) -> Result<Option<CommandRecord>, Refusal> {
        let store = &self.shared.store;
        let requester = store.requester(id).await.map_err(|error| store_unavailable(&error))?;
        if !requester.is_some_and(shown) {
            return Ok(None);
        }
        store.command(id).await.map_err(|error| store_unavailable(&error))
    }

    /// A command by its requester and key.
    ///
    /// # Errors
    /// `STORE_UNAVAILABLE`.
    pub async fn command_by_key(
        &self,
        requester: OrganizationId,
        key: IdempotencyKey,
    ) -> Result<Option<CommandRecord>, Refusal> {
        self.shared.store.command_by_key(requester, key).await.map_err(|error| store_unavailable(&error))
    }

    /// The clock that validation goes by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// How long commands are remembered, for validation.
    #[must_use]
    pub fn retention(&self) -> chrono::TimeDelta {
        self.shared.settings.retention
    }

    /// The requester of a request that names none, if there is one.
    #[must_use]
    pub fn default_requester(&self) -> Option<OrganizationId> {
        *self.shared.default_requester.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the requester of requests that name none from now on.
    pub fn set_default_requester(&self, requester: Option<OrganizationId>) {
        *self.shared.default_requester.write().unwrap_or_else(PoisonError::into_inner) = requester;
    }

    /// Changes when a row was written to the outbox.
    #[must_use]
    pub fn outbox(&self) -> watch::Receiver<()> {
        self.shared.outbox.subscribe()
    }

    /// What is held, and whether there is room for more.
    #[must_use]
    pub fn load(&self) -> &Load {
        &self.shared.load
    }

    /// The lanes of connections with work.
    #[must_use]
    pub fn lanes(&self) -> &Lanes {
        &self.shared.lanes
    }

    /// Whether the upstream may be called, and for whom.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// Takes over which requester organisations there are, and their limits. May be called again at any time; what was
    /// learnt of those in `renewed` is forgotten.
    pub fn configure(
        &self,
        organizations: &HashMap<OrganizationId, Organization>,
        renewed: &HashSet<OrganizationId>,
    ) {
        self.shared.gate.configure(organizations, renewed);
    }

    /// Keeps [`Self::load`] told of the store's backlog, until the adapter drains.
    pub async fn watch_backlog(&self) {
        backlog::run(&self.shared).await;
    }

    /// Takes note of what other instances do with the store, until the adapter drains.
    pub async fn follow_others(&self) {
        others::run(&self.shared).await;
    }

    /// Takes up what nobody works on, until the adapter drains.
    pub async fn recover(&self) {
        recovery::run(self.shared.clone()).await;
    }

    /// Begins nothing new from now on: submissions are refused, waits between attempts end, what is under way goes on.
    pub fn drain(&self) {
        self.shared.draining.cancel();
        self.shared.tasks.close();
    }

    /// Gives up what was accepted to be begun here and was not, so that others need not wait until it is taken for left.
    ///
    /// # Errors
    /// The store does not take it.
    pub async fn give_up(&self) -> Result<(), StoreError> {
        let left = std::mem::take(&mut *self.shared.left.lock().unwrap_or_else(PoisonError::into_inner));
        if left.is_empty() { Ok(()) } else { self.shared.store.release(left).await }
    }

    /// Resolves when the adapter drains and no work is under way any more.
    pub async fn drained(&self) {
        self.shared.tasks.wait().await;
    }
}

/// An accepted submission.
enum Admitted {
    /// The answer is known.
    Known(Answer),
    /// It is under way, begun by this submission or by an earlier one.
    UnderWay { door: Door, id: CommandId, listener: super::board::Listener, first: bool },
}

/// Whom it is told how a submission got in.
type Tell = oneshot::Sender<Result<Admitted, Refusal>>;

impl Shared {
    /// Takes a submission in, tells how it got in, and works on its command if that falls to it.
    fn take_in(self: Arc<Self>, entry: Entry, caller: Caller, tell: Tell) -> impl Future<Output = ()> + Send {
        let door = Span::present();
        async move {
            // The door's span does not last as long as the work.
            let admitting = door.around(self.admit(entry, caller));
            drop(door);
            let (admitted, work) = match admitting.await {
                Ok((admitted, work)) => (Ok(admitted), work),
                Err(refusal) => (Err(refusal), None),
            };
            // Whoever asked may be gone.
            let _ = tell.send(admitted);
            if let Some((job, hold)) = work {
                self.work_alone(job, hold).await;
            }
        }
    }

    /// Waits until the command is durable.
    async fn admit(&self, entry: Entry, caller: Caller) -> Result<(Admitted, Option<(Job, Hold)>), Refusal> {
        let Entry { door, connection, trace, place, accepted, asked, step, span } = entry;
        let accepted = accepted.await.inspect_err(|refusal| tally::refused(door, refusal))?;
        step.end();
        tally::accepted(door, &accepted);
        if let Some(id) = accepted.id() {
            span.tell_command(id);
        }
        match accepted {
            Accepted::Conflict => {
                let text = "the idempotency key names a command with other parameters";
                Err(Refusal::new(Reason::IdempotencyKeyReused, text))
            }
            Accepted::Replayed(record) => {
                // A reply may have been written for it.
                self.outbox.send_replace(());
                Ok((Admitted::Known(Answer::Final { record, replayed: true }), None))
            }
            Accepted::InProgress(record) => {
                let listener = self.board.listen(record.id);
                if record.state == State::Deferred {
                    self.recovery.notify_one();
                }
                Ok((Admitted::UnderWay { door, id: record.id, listener, first: false }, None))
            }
            Accepted::Fresh(record, begun) => {
                let listener = self.board.listen(record.id);
                let Some(Place { ticket, hold, pass }) = place else {
                    if record.state == State::Deferred {
                        return Ok((Admitted::Known(Answer::Deferred(record)), None));
                    }
                    self.lanes.note_more(connection);
                    return Ok((Admitted::Known(Answer::Waiting(record)), None));
                };
                let claim = begun.map(|begun| Claim { begun, asked, pass });
                let caller = (door == Door::Grpc).then_some(caller);
                let requester = record.command.requester;
                let job = Job { id: record.id, requester, door, trace, ticket, claim, caller, due: None };
                Ok((Admitted::UnderWay { door, id: record.id, listener, first: true }, Some((job, hold))))
            }
        }
    }

    /// Waits for the news that the door can make use of.
    async fn hear(&self, admitted: Admitted, answer_by: Instant) -> Result<Answer, Refusal> {
        let (door, id, mut listener, first) = match admitted {
            Admitted::Known(answer) => return Ok(answer),
            Admitted::UnderWay { door, id, listener, first } => (door, id, listener, first),
        };
        // The first one listens since before the work began; a later one may have missed the news.
        let mut look = !first;
        loop {
            if look && let Some(answer) = self.look(id, door, !first).await? {
                return Ok(answer);
            }
            tokio::select! {
                biased;
                notice = listener.next() => match notice {
                    Notice::Final(record) => return Ok(Answer::Final { record, replayed: !first }),
                    Notice::Deferred(record) => return Ok(Answer::Deferred(record)),
                    Notice::Waiting(record) if door == Door::Amqp => return Ok(Answer::Waiting(record)),
                    Notice::Waiting(_) => look = false,
                    Notice::Left(Reason::Draining) => return Err(draining()),
                    Notice::Left(Reason::Internal) => return Err(failed()),
                    Notice::Left(reason) => return Err(Refusal::new(reason, STORE_UNAVAILABLE_TEXT)),
                },
                () = tokio::time::sleep_until(answer_by) => return Err(pending(first)),
                () = sleep(POLL_INTERVAL) => {
                    if self.draining.is_cancelled() && !self.board.is_running(id) {
                        return Err(draining());
                    }
                    look = true;
                }
            }
        }
    }

    /// Looks at what is stored: the work may be another process's.
    async fn look(&self, id: CommandId, door: Door, replayed: bool) -> Result<Option<Answer>, Refusal> {
        let record = self.store.command(id).await.map_err(|error| store_unavailable(&error))?;
        let Some(record) = record else {
            return Err(Refusal::new(Reason::Internal, "the command is not kept any more"));
        };
        Ok(match record.state {
            state if state.is_final() => Some(Answer::Final { record, replayed }),
            // Behind a head that takes its time: it is durable, and a message that is held longer would keep the broker from
            // handing out those of other connections.
            State::Accepted if door == Door::Amqp => Some(Answer::Waiting(record)),
            _ if record.waiting && door == Door::Amqp => Some(Answer::Waiting(record)),
            _ => None,
        })
    }
}

const STORE_SILENT_TEXT: &str = "the adapter's store did not answer in time; repeat with the same key";

const STORE_UNAVAILABLE_TEXT: &str = "the adapter's store is unavailable";

pub(super) fn store_unavailable(error: &StoreError) -> Refusal {
    records::StoreRefused { error }.log();
    Refusal::new(Reason::StoreUnavailable, STORE_UNAVAILABLE_TEXT)
}

pub(super) fn overloaded(text: &str) -> Refusal {
    Refusal::new(Reason::Overloaded, text).retry_after(OVERLOAD_RETRY_DELAY)
}

fn failed() -> Refusal {
    Refusal::new(Reason::Internal, "the adapter failed; the command goes on if it was accepted")
}

pub(super) fn draining() -> Refusal {
    Refusal::new(
        Reason::Draining,
        "the adapter is shutting down; a command that was accepted goes on after its restart",
    )
}

/// What a caller is told whose deadline comes before the outcome.
fn pending(first: bool) -> Refusal {
    if first {
        Refusal::new(
            Reason::OutcomePending,
            "the command goes on; look it up, or repeat the call with the same key",
        )
    } else {
        let text = "the first call with this key is still under way; repeat it with the same key";
        Refusal::new(Reason::CommandInProgress, text).retry_after(POLL_INTERVAL)
    }
}
