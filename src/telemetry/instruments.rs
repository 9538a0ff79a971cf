//! The instruments that are recorded to as things happen, made from the [`catalogue`](super::catalogue).
//!
//! What is looked at when it is asked for has none: see [`Metric::observe`](super::catalogue::Metric::observe).

use std::sync::LazyLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram};

use super::catalogue as metric;

/// Every instrument.
#[derive(Debug)]
pub struct Instruments {
    /// [`metric::RPC_SERVER_CALL_DURATION`]
    pub rpc_call_duration: Histogram<f64>,
    /// [`metric::HTTP_CLIENT_REQUEST_DURATION`]
    pub http_request_duration: Histogram<f64>,
    /// [`metric::MESSAGING_PROCESS_DURATION`]
    pub process_duration: Histogram<f64>,
    /// [`metric::MESSAGING_CLIENT_OPERATION_DURATION`]
    pub messaging_duration: Histogram<f64>,
    /// [`metric::MESSAGING_CLIENT_SENT_MESSAGES`]
    pub sent_messages: Counter<u64>,
    /// [`metric::MESSAGING_CLIENT_CONSUMED_MESSAGES`]
    pub consumed_messages: Counter<u64>,
    /// [`metric::COMMANDS`]
    pub commands: Counter<u64>,
    /// [`metric::COMMAND_DURATION`]
    pub command_duration: Histogram<f64>,
    /// [`metric::SUBMISSIONS`]
    pub submissions: Counter<u64>,
    /// [`metric::REFUSALS`]
    pub refusals: Counter<u64>,
    /// [`metric::STEP_DURATION`]
    pub step_duration: Histogram<f64>,
    /// [`metric::FINISHES_REFUSED`]
    pub finishes_refused: Counter<u64>,
    /// [`metric::OUTBOX_DELAY`]
    pub outbox_delay: Histogram<f64>,
    /// [`metric::GIVEN_UP`]
    pub given_up: Counter<u64>,
    /// [`metric::SPANS_UNKEPT`]
    pub spans_unkept: Counter<u64>,
    /// [`metric::OUTBOX_HELD`]
    pub outbox_held: Gauge<u64>,
    /// [`metric::AMQP_CONNECTED`]
    pub amqp_connected: Gauge<u64>,
    /// [`metric::ACKS_LOST`]
    pub acks_lost: Counter<u64>,
    /// [`metric::MISROUTED`]
    pub misrouted: Counter<u64>,
    /// [`metric::DEAD_LETTERS`]
    pub dead_letters: Counter<u64>,
    /// [`metric::RETRIES`]
    pub retries: Counter<u64>,
    /// [`metric::RETRIES_REFUSED`]
    pub retries_refused: Counter<u64>,
    /// [`metric::DRIFTS`]
    pub drifts: Counter<u64>,
    /// [`metric::COMMIT_DURATION`]
    pub commit_duration: Histogram<f64>,
    /// [`metric::BATCH_SIZE`]
    pub batch_size: Histogram<f64>,
    /// [`metric::STORE_ERRORS`]
    pub store_errors: Counter<u64>,
    /// [`metric::PURGED`]
    pub purged: Counter<u64>,
    /// [`metric::ORGANIZATION_COMMANDS`]
    pub organization_commands: Counter<u64>,
    /// [`metric::ORGANIZATION_DURATION`]
    pub organization_duration: Histogram<f64>,
    /// [`metric::ORGANIZATION_REQUESTS`]
    pub organization_requests: Counter<u64>,
}

/// The instruments of the process. They do nothing if they are asked for before it has a provider.
pub fn instruments() -> &'static Instruments {
    static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(Instruments::new);
    &INSTRUMENTS
}

/// Counts a batch of changes that was committed, or could not be.
pub fn note_commit(store: &'static str, count: usize, length: Duration, is_done: bool) {
    let (instruments, store) = (instruments(), [KeyValue::new("store", store)]);
    // A zero shows the series, so that its first increase is seen.
    instruments.store_errors.add(u64::from(!is_done), &store);
    if !is_done {
        return;
    }
    instruments.commit_duration.record(length.as_secs_f64(), &store);
    instruments.batch_size.record(f64::from(u32::try_from(count).unwrap_or(u32::MAX)), &store);
}

impl Instruments {
    fn new() -> Self {
        Self {
            rpc_call_duration: metric::RPC_SERVER_CALL_DURATION.histogram(),
            http_request_duration: metric::HTTP_CLIENT_REQUEST_DURATION.histogram(),
            process_duration: metric::MESSAGING_PROCESS_DURATION.histogram(),
            messaging_duration: metric::MESSAGING_CLIENT_OPERATION_DURATION.histogram(),
            sent_messages: metric::MESSAGING_CLIENT_SENT_MESSAGES.counter(),
            consumed_messages: metric::MESSAGING_CLIENT_CONSUMED_MESSAGES.counter(),
            commands: metric::COMMANDS.counter(),
            command_duration: metric::COMMAND_DURATION.histogram(),
            submissions: metric::SUBMISSIONS.counter(),
            refusals: metric::REFUSALS.counter(),
            step_duration: metric::STEP_DURATION.histogram(),
            finishes_refused: metric::FINISHES_REFUSED.counter(),
            outbox_delay: metric::OUTBOX_DELAY.histogram(),
            given_up: metric::GIVEN_UP.counter(),
            spans_unkept: metric::SPANS_UNKEPT.counter(),
            outbox_held: metric::OUTBOX_HELD.gauge(),
            amqp_connected: metric::AMQP_CONNECTED.gauge(),
            acks_lost: metric::ACKS_LOST.counter(),
            misrouted: metric::MISROUTED.counter(),
            dead_letters: metric::DEAD_LETTERS.counter(),
            retries: metric::RETRIES.counter(),
            retries_refused: metric::RETRIES_REFUSED.counter(),
            drifts: metric::DRIFTS.counter(),
            commit_duration: metric::COMMIT_DURATION.histogram(),
            batch_size: metric::BATCH_SIZE.histogram(),
            store_errors: metric::STORE_ERRORS.counter(),
            purged: metric::PURGED.counter(),
            organization_commands: metric::ORGANIZATION_COMMANDS.counter(),
            organization_duration: metric::ORGANIZATION_DURATION.histogram(),
            organization_requests: metric::ORGANIZATION_REQUESTS.counter(),
        }
    }

    /// Shows what counts rare things as zero before any of them has happened, so that its first increase is seen.
    pub(super) fn show(&self) {
        for counter in [&self.finishes_refused, &self.acks_lost, &self.misrouted, &self.dead_letters] {
            counter.add(0, &[]);
        }
        for counter in [&self.retries_refused, &self.spans_unkept, &self.purged] {
            counter.add(0, &[]);
        }
    }
}
