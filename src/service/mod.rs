//! The loop: take in, decide, do, tell.
//!
//! - [`archiver`]: the pipeline behind both doors
//! - [`lanes`]: one command of a connection after another
//! - [`load`]: how much the process may hold
//! - [`gate`]: who may send to the upstream, and how much
//! - [`board`]: who works on what, and who waits for it
//! - [`entry`]: how a submission gets in
//! - [`worker`]: a claim, and its end
//! - [`attempt`]: the attempts under a claim
//! - [`recovery`]: what nobody works on any more, and what is due again
//! - [`heal`]: sending the newest value again where it may have been overwritten
//! - [`others`]: what other instances do with the store
//! - [`backlog`]: watching what the store holds
//! - [`relay`]: the outbox, to the broker
//! - [`tenure`]: what of it falls to this instance
//! - [`retention`]: forgetting what is old
//! - [`tally`]: counting what becomes of commands
//! - [`custody`]: what administrators ask for
//! - [`readiness`]: what is ready and what is not
//! - `records`: what it logs
//! - [`ports`]: what all this needs of the outside

pub mod archiver;
pub mod attempt;
pub mod backlog;
pub mod board;
pub mod custody;
pub mod entry;
pub mod gate;
pub mod heal;
pub mod lanes;
pub mod load;
pub mod others;
pub mod ports;
pub mod readiness;
pub(crate) mod records;
pub mod recovery;
pub mod relay;
pub mod retention;
pub mod tally;
pub mod tenure;
pub mod worker;

use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::command::{CommandId, OrganizationId};
use crate::domain::retry::Backoff;

/// Numbers that the loop goes by. `limits` asserts their relations.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The time of one PATCH, from connect to the last byte.
    pub attempt_timeout: Duration,
    /// The time of all attempts under one claim, waits included.
    pub command_timeout: Duration,
    /// How long a claim lasts.
    pub lease: Duration,
    /// Waits between attempts.
    pub retry: Backoff,
    /// Waits of deferred commands.
    pub deferral: Backoff,
    /// How long final commands are remembered.
    pub retention: TimeDelta,
    /// Commands of one connection in one lane.
    pub lane_depth_max: usize,
    /// What the process may hold.
    pub load: load::Limits,
    /// What is sent to the upstream.
    pub gate: gate::Settings,
}

/// What the parts of the loop share.
struct Shared {
    settings: Settings,
    store: Arc<dyn ports::Store>,
    upstream: Arc<dyn ports::Upstream>,
    clock: Arc<dyn ports::Clock>,
    /// The requester of a request that names none.
    default_requester: RwLock<Option<OrganizationId>>,
    lanes: lanes::Lanes,
    load: load::Load,
    gate: gate::Gate,
    board: board::Board,
    healing: heal::UnderWay,
    /// Woken when a command may have become due.
    recovery: Arc<Notify>,
    /// Changes when a row was written to the outbox.
    outbox: watch::Sender<()>,
    /// Cancelled when no new work is to be begun.
    draining: CancellationToken,
    /// What was to be begun here and was not, for the drain.
    left: Mutex<Vec<CommandId>>,
    /// Work under way.
    tasks: TaskTracker,
}
