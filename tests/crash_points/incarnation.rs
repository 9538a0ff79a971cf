//! One process: the pipeline over the real store, from the opening of its file to a blow or to rest.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use guest_connection_adapter::amqp::settle::{Settlement, settlement};
use guest_connection_adapter::domain::access::AskedBy;
use guest_connection_adapter::domain::error::{Reason, Refusal};
use guest_connection_adapter::domain::lifecycle::Terms;
use guest_connection_adapter::domain::record::Door;
use guest_connection_adapter::domain::retry::Backoff;
use guest_connection_adapter::domain::trace::TraceContext;
use guest_connection_adapter::service::Settings;
use guest_connection_adapter::service::archiver::{Answer, Archiver, Submission};
use guest_connection_adapter::service::load::Limits;
use guest_connection_adapter::service::ports::{Clock as _, Store};
use guest_connection_adapter::service::readiness::Readiness;
use guest_connection_adapter::service::relay::{self, Relay, Share, WhenUnroutable};
use guest_connection_adapter::store::sqlite::{self, SqliteStore};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gate::{Gate, Way};
use crate::history::Entry;
use crate::outside::Outside;
use crate::point::Effect;
use crate::ports::Gated;
use crate::scenario::{Patience, Step};

pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(100);
pub const LEASE: Duration = Duration::from_millis(700);
pub const SETTLE: TimeDelta = TimeDelta::milliseconds(300);
pub const RETENTION: TimeDelta = TimeDelta::days(7);

/// A caller is patient: what is tested here is what becomes of commands.
const PATIENCE: Duration = Duration::from_secs(20);

/// What callers and the command queue remember while processes come and go.
#[derive(Default)]
pub struct Progress {
    /// The caller has its answer, or the message is acknowledged.
    pub done: AtomicBool,
    /// The caller went away with the process it had called.
    pub gone: AtomicBool,
    /// What it asks for: the same each time.
    command: Mutex<Option<guest_connection_adapter::domain::command::Command>>,
}

pub type Wishes = Arc<[(Step, Progress)]>;

pub fn wishes(steps: &[Step]) -> Wishes {
    steps.iter().map(|step| (step.clone(), Progress::default())).collect()
}

pub fn open_store(path: &Path, outside: &Arc<Outside>) -> SqliteStore {
    let terms = Terms {
        lease: TimeDelta::from_std(LEASE).unwrap(),
        settle: SETTLE,
        hold: TimeDelta::milliseconds(500),
        give_up_after: TimeDelta::hours(24),
    };
    SqliteStore::open(sqlite::Settings::new(path), terms, RETENTION, outside.clone()).unwrap()
}

fn settings() -> Settings {
    let backoff = |base, max| Backoff {
        delay_base: Duration::from_millis(base),
        delay_max: Duration::from_millis(max),
    };
    Settings {
        attempt_timeout: ATTEMPT_TIMEOUT,
        command_timeout: Duration::from_millis(400),
        lease: LEASE,
        retry: backoff(5, 20),
        deferral: backoff(20, 60),
        retention: RETENTION,
        lane_depth_max: 16,
        load: Limits {
            commands_max: 64,
            bytes_max: 1 << 20,
            backlog_max: 1_000,
            calls_max: 64,
            messages_max: 64,
            recovered_max: 16,
        },
        gate: guest_connection_adapter::service::gate::Settings {
            failures_max: 5,
            failure_share: 0.5,
            delay: Backoff { delay_base: Duration::from_millis(1), delay_max: Duration::from_millis(2) },
            concurrency_max: 64,
            retry_share: 0.2,
            retry_floor: 100,
        },
    }
}

/// A process whose parts run as tasks of the present runtime and end with it.
pub struct Process {
    archiver: Archiver,
    gate: Arc<Gate>,
    outside: Arc<Outside>,
    store: Arc<dyn Store>,
    answered: watch::Sender<()>,
    /// Relays, and what follows from answers.
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Process {
    /// Starts the pipeline, its recovery and its relays.
    pub fn start(outside: &Arc<Outside>, store: &Arc<dyn Store>, gate: &Arc<Gate>) -> Arc<Self> {
        let (outside, store, gate) = (outside.clone(), store.clone(), gate.clone());
        let behind: Arc<dyn Store> =
            Arc::new(Gated { gate: gate.clone(), outside: outside.clone(), port: store.clone() });
        let edge = Arc::new(Gated { gate: gate.clone(), outside: outside.clone(), port: Arc::new(()) });
        let archiver = Archiver::new(settings(), behind.clone(), edge.clone(), outside.clone());
        let recovering = archiver.clone();
        tokio::spawn(async move { recovering.recover().await });
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let readiness = Readiness::default();
        for (share, name) in [(Share::Events, "events"), (Share::Replies, "replies")] {
            let settings = relay::Settings {
                share,
                batch_max: 16,
                backoff: Backoff {
                    delay_base: Duration::from_millis(5),
                    delay_max: Duration::from_millis(20),
                },
                when_unroutable: WhenUnroutable::Hold,
            };
            let (store, publisher) = (behind.clone(), edge.clone());
            let relay = Relay::new(settings, store, publisher, archiver.outbox(), readiness.part(name));
            tasks.spawn(relay.run(stop.clone()));
        }
        Arc::new(Self { archiver, gate, outside, store, answered: watch::Sender::new(()), tasks, stop })
    }

    /// Ends everything that is under way.
    pub async fn finish(&self) {
        self.archiver.drain();
        self.archiver.drained().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Sends everything that is not done and comes by these doors, in order.
    pub async fn serve(self: Arc<Self>, wishes: Wishes, doors: &'static [Door]) {
        let waits = |(step, progress): &(Step, Progress)| doors.contains(&step.door) && !progress.is_over();
        for index in 0..wishes.len() {
            let (step, progress) = &wishes[index];
            if !doors.contains(&step.door) {
                continue;
            }
            if step.after {
                let mut answered = self.answered.subscribe();
                while wishes[..index].iter().any(waits) {
                    // The sender lives as long as this process.
                    let _ = answered.changed().await;
                }
            }
            if progress.is_over() {
                continue;
            }
            let answer = self.submit(step, progress);
            let (this, wishes) = (self.clone(), wishes.clone());
            self.tasks.spawn(async move {
                this.follow(&wishes[index], answer).await;
                this.answered.send_replace(());
                this.outside.changed();
            });
        }
    }

    fn submit(&self, step: &Step, progress: &Progress) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let mut command = progress.command.lock().unwrap();
        let command = command.get_or_insert_with(|| step.command_at(self.outside.now())).clone();
        let submission = Submission {
            command,
            door: step.door,
            asked_by: AskedBy::default(),
            trace: TraceContext::default(),
            correlation_id: None,
            reply: step.reply_address(),
            message_length: 256,
            answer_by: Instant::now() + PATIENCE,
        };
        match self.archiver.submit(submission) {
            Ok(answer) => answer.boxed(),
            Err(refusal) => std::future::ready(Err(refusal)).boxed(),
        }
    }

    /// What the door does with the answer. A message that is left comes again.
    async fn follow(
        &self,
        (step, progress): &(Step, Progress),
        answer: impl Future<Output = Result<Answer, Refusal>>,
    ) {
        let mut answer = answer.await;
        self.gate.pass().await;
        if step.door == Door::Grpc {
            self.note_answer(step, &answer);
            progress.done.store(true, Ordering::SeqCst);
            return;
        }
        loop {
            let kept = match settlement(&answer) {
                Settlement::Ack => self.is_known(step).await,
                Settlement::DeadLetter => self.refuse().await,
                _ if matches!(&answer, Err(refusal) if refusal.reason == Reason::Draining) => return,
                Settlement::Suspend | Settlement::Verify => {
                    answer = self.submit(step, progress).await;
                    continue;
                }
            };
            return self.ack(step, progress, kept).await;
        }
    }

    fn note_answer(&self, step: &Step, answer: &Result<Answer, Refusal>) {
        let command = step.command;
        match answer {
            Ok(Answer::Final { record, .. }) => {
                self.outside.note(Entry::Answered { command, state: record.state });
            }
            Ok(Answer::Deferred(_) | Answer::Waiting(_)) => self.outside.note(Entry::Promised { command }),
            Err(_) => {}
        }
    }

    /// Whether the store knows the command, at this very moment.
    async fn is_known(&self, step: &Step) -> bool {
        let command = step.command_at(self.outside.now());
        self.store.command_by_key(command.requester, command.key).await.unwrap().is_some()
    }

    /// Places the dead letter of a message that is no command.
    async fn refuse(&self) -> bool {
        if matches!(self.gate.approach(Effect::Refuse), Way::Free(Some(_))) {
            self.gate.strike();
        }
        self.gate.pass().await;
        true
    }

    async fn ack(&self, step: &Step, progress: &Progress, kept: bool) {
        let way = self.gate.approach(Effect::Ack);
        if way == Way::Shut {
            self.gate.pass().await;
        }
        progress.done.store(true, Ordering::SeqCst);
        self.outside.note(Entry::Acked { command: step.command, kept });
        if matches!(way, Way::Free(Some(_))) {
            self.gate.strike();
        }
        self.gate.pass().await;
    }
}

impl Progress {
    pub fn is_over(&self) -> bool {
        self.done.load(Ordering::SeqCst) || self.gone.load(Ordering::SeqCst)
    }
}

/// Callers of a process that was struck hear no more of it. Some go away.
pub fn desert(wishes: &Wishes) {
    for (step, progress) in wishes.iter() {
        let called = progress.command.lock().unwrap().is_some();
        if called && step.door == Door::Grpc && step.patience == Patience::GoesAway {
            progress.gone.store(true, Ordering::SeqCst);
        }
    }
}
