//! Every metric by name, unit, attributes and meaning: the one table that instruments are made of and
//! `docs/metrics.md` is written from.
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions where there are any, buckets those that they
//! advise. Attributes are of few values by construction: states, reasons, doors, configured queues and addresses. The one
//! kind of id among them is that of organisations which the operator lists.

use std::fmt::Write as _;

use opentelemetry::metrics::{AsyncInstrument, Counter, Gauge, Histogram, UpDownCounter};
use opentelemetry_semantic_conventions::metric as conventions;

use super::metrics::meter;

/// What kind of instrument a metric has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is as it is when it is looked at.
    Gauge,
    /// The same where the values of several instances can be added up.
    UpDownCounter,
    /// How often which size was seen, in these buckets.
    Histogram(&'static [f64]),
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The name by OpenTelemetry. A scraper sees [`Self::scraped`].
    pub name: &'static str,
    /// The unit by UCUM.
    pub unit: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// What its series are told apart by.
    pub attributes: &'static [&'static str],
    /// What it says.
    pub description: &'static str,
}

/// Seconds of calls and requests, as the conventions advise.
const CALL_SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Seconds until something is done that may be put off for a day.
const LONG_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0,
    43_200.0, 86_400.0,
];
/// Seconds of what is done in the process and on its disk.
const SHORT_SECONDS: &[f64] =
    &[0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// How many at once.
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

const QUEUE: &str = "messaging.destination.name";

macro_rules! metrics {
    ($($name:ident: $kind:expr, $metric:expr, $unit:literal, [$($attribute:expr),*], $description:literal;)*) => {
        $(
            #[doc = $description]
            pub const $name: Metric = Metric {
                name: $metric,
                unit: $unit,
                kind: $kind,
                attributes: &[$($attribute),*],
                description: $description,
            };
        )*
        /// Every metric.
        pub const ALL: &[Metric] = &[$($name),*];
    };
}

metrics! {
    RPC_SERVER_CALL_DURATION: Kind::Histogram(CALL_SECONDS), conventions::RPC_SERVER_CALL_DURATION, "s",
        ["rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type"], "The time of a gRPC call.";
    HTTP_CLIENT_REQUEST_DURATION: Kind::Histogram(CALL_SECONDS), conventions::HTTP_CLIENT_REQUEST_DURATION, "s",
        ["http.request.method", "http.response.status_code", "url.template", "server.address", "server.port", "error.type"],
        "The time of one request to the upstream, or for a token.";
    MESSAGING_PROCESS_DURATION: Kind::Histogram(CALL_SECONDS), conventions::MESSAGING_PROCESS_DURATION, "s",
        ["messaging.system", "messaging.operation.name", QUEUE, "server.address", "server.port", "error.type"],
        "The time from the delivery of a message to its settlement.";
    MESSAGING_CLIENT_OPERATION_DURATION: Kind::Histogram(CALL_SECONDS), conventions::MESSAGING_CLIENT_OPERATION_DURATION, "s",
        ["messaging.system", "messaging.operation.name", "messaging.operation.type", QUEUE, "server.address", "server.port", "error.type"],
        "The time of one publication until its confirm, or of one acknowledgement.";
    MESSAGING_CLIENT_SENT_MESSAGES: Kind::Counter, conventions::MESSAGING_CLIENT_SENT_MESSAGES, "{message}",
        ["messaging.system", "messaging.operation.name", QUEUE, "server.address", "server.port", "error.type"],
        "Messages handed to the broker, those that it did not take included.";
    MESSAGING_CLIENT_CONSUMED_MESSAGES: Kind::Counter, conventions::MESSAGING_CLIENT_CONSUMED_MESSAGES, "{message}",
        ["messaging.system", "messaging.operation.name", QUEUE, "server.address", "server.port"], "Messages that the broker has delivered.";

    COMMANDS: Kind::Counter, "adapter.commands", "{command}", ["door", "state"],
        "How often a command came to a state at this instance.";
    COMMAND_DURATION: Kind::Histogram(LONG_SECONDS), "adapter.command.duration", "s", ["door", "state"],
        "The time from a command's acceptance to its final state.";
    SUBMISSIONS: Kind::Counter, "adapter.submissions", "{command}", ["door", "result"],
        "What became of wishes at the doors: accepted, in_progress or replayed (their key is known), conflict, refused, and left (with the broker, since nothing can be taken in for now; it comes again).";
    REFUSALS: Kind::Counter, "adapter.refusals", "{command}", ["door", "reason"],
        "What doors answered instead of a success, and why commands ended without one, by the reasons of docs/errors.md.";
    STEP_DURATION: Kind::Histogram(SHORT_SECONDS), "adapter.step.duration", "s", ["step"],
        "Where the time of commands goes: accept, recovery_wait, lane_wait, gate_wait, claim, attempt, retry_wait, finish, relay, confirm, settle.";
    UNDER_WAY: Kind::Gauge, "adapter.commands.under_way", "{command}", ["way"],
        "Commands under way in this process, by the way they came: a call, a message, or recovered from the store.";
    LANES: Kind::Gauge, "adapter.lanes", "{lane}", [], "Connections with work in this process.";
    LANE_DEPTH_MAX: Kind::Gauge, "adapter.lane.depth.max", "{command}", [], "Commands in the deepest lane.";

    BOOKS_COMMANDS: Kind::Gauge, "adapter.books.commands", "{command}", ["state"],
        "Commands in the store by state, as last counted.";
    BOOKS_OUTBOX: Kind::Gauge, "adapter.books.outbox", "{message}", ["state"],
        "Messages of the outbox: ever written, ever confirmed by the broker (or given up), and pending, as last counted.";
    BOOKS_BALANCE: Kind::Gauge, "adapter.books.balance", "", ["book"],
        "Zero if nothing is lost: commands registered less those in the eight states; messages written less those confirmed and pending.";
    BOOKS_AGE: Kind::Gauge, "adapter.books.age", "s", [], "The time since the books were counted, or since the ages were looked at if that is longer.";
    OLDEST_AGE: Kind::Gauge, "adapter.oldest.age", "s", ["state"],
        "The age of the oldest, zero if there is none: since its acceptance of what is accepted, deferred and maybe_applied (and not final), since its claim of what is in_flight, since it was written of what is unpublished. Looked at every few seconds.";
    SUSPECT: Kind::Gauge, "adapter.connections.suspect", "{connection}", [],
        "Connections that may show an older value than the newest applied one, and are to be healed.";
    FINISHES_REFUSED: Kind::Counter, "adapter.finishes.refused", "{command}", [],
        "Ends that were refused since the claim had passed to someone else.";

    OUTBOX_HELD: Kind::Gauge, "adapter.outbox.held", "{connection}", ["share"],
        "Connections, and messages without one, that the broker takes nothing of while it takes others; as of the last time that it answered.";
    OUTBOX_DELAY: Kind::Histogram(LONG_SECONDS), "adapter.outbox.delay", "s", ["kind"],
        "The time from the writing of a message to its confirmation.";
    GIVEN_UP: Kind::Counter, "adapter.outbox.given_up", "{message}", ["kind"],
        "Messages that the broker did not take and that are not tried again: replies whose queue is gone, and events while `events.when_unroutable` is `discard`.";
    QUEUE_MESSAGES: Kind::Gauge, "adapter.amqp.queue.messages", "{message}", [QUEUE],
        "Messages ready in a queue, as the broker tells.";
    QUEUE_CONSUMERS: Kind::Gauge, "adapter.amqp.queue.consumers", "{consumer}", [QUEUE],
        "Consumers of a queue, as the broker tells.";
    AMQP_CONNECTED: Kind::Gauge, "adapter.amqp.connected", "", ["purpose"],
        "1 where there is a connection to the broker, 0 where there is none.";
    ACKS_LOST: Kind::Counter, "adapter.amqp.acks_lost", "{message}", [],
        "Messages whose channel was closed before they were acknowledged; they come again.";
    MISROUTED: Kind::Counter, "adapter.amqp.misrouted", "{message}", [],
        "Messages whose routing key is not their guest: partitions cannot keep their order.";
    DEAD_LETTERS: Kind::Counter, "adapter.amqp.dead_letters", "{message}", [],
        "Messages refused at the door, with a dead letter. Those of commands that failed later count in adapter.outbox.delay.";

    BREAKERS: Kind::Gauge, "adapter.upstream.breakers", "{upstream}", ["state"],
        "Upstreams (base URLs) by the state of their breaker: closed, open (nothing is sent), half_open (one request tries), untried (one may try, and no command has come that would).";
    CONCURRENCY_LIMIT: Kind::Gauge, "adapter.upstream.concurrency.limit", "{request}", [],
        "Requests that may be under way to all upstreams.";
    CONCURRENCY_IN_USE: Kind::Gauge, "adapter.upstream.concurrency.in_use", "{request}", [],
        "Requests that are under way to all upstreams.";
    WAITING: Kind::Gauge, "adapter.upstream.waiting", "{command}", [], "Commands that wait until they may be sent.";
    REQUESTERS: Kind::Gauge, "adapter.requesters", "{organization}", ["state"],
        "Requester organisations by how they are served: served, paused, broken.";
    BUDGET_EXHAUSTED: Kind::Gauge, "adapter.retry.budget.exhausted", "{organization}", [],
        "Requester organisations whose retry budget was empty when a retry was wanted, in the last 10 s.";
    RETRIES: Kind::Counter, "adapter.retries", "{request}", ["reason"], "Requests of a command that has sent one before: after a backoff, the retry_after that was asked for, a token_refused, or a deferral.";
    RETRIES_REFUSED: Kind::Counter, "adapter.retries.refused", "{request}", [],
        "Requests that were not repeated for want of a retry budget.";
    TOKEN_AGE: Kind::Gauge, "adapter.token.age", "s", [], "The age of the oldest access token in use.";
    TOKENS: Kind::Gauge, "adapter.tokens", "{token}", ["state"],
        "Requester organisations that have a token (valid), or got none when they asked last (failing).";
    DRIFTS: Kind::Counter, "adapter.upstream.drifts", "", ["field", "kind"],
        "Differences between the upstream's answers and its contract.";

    COMMIT_DURATION: Kind::Histogram(SHORT_SECONDS), "adapter.store.commit.duration", "s", ["store"],
        "The time of one batch of changes, from its first statement to its commit.";
    BATCH_SIZE: Kind::Histogram(SIZES), "adapter.store.batch.size", "{change}", ["store"], "Changes that shared a commit.";
    STORE_ERRORS: Kind::Counter, "adapter.store.errors", "", ["store"], "Batches of changes that could not be committed.";
    PURGED: Kind::Counter, "adapter.retention.purged", "{command}", [], "Commands forgotten after their retention.";

    CONNECTIONS: Kind::UpDownCounter, "adapter.grpc.connections", "{connection}", [], "Connections of callers that are open.";
    CONNECTIONS_REFUSED: Kind::Counter, "adapter.grpc.connections.refused", "{connection}", ["reason"],
        "Connections of callers that were refused or cut off.";
    UNAUTHENTICATED: Kind::Counter, "adapter.grpc.unauthenticated", "{call}", ["reason"],
        "Calls that were refused because they did not prove who calls, by what was wrong.";
    ADMIN_REFUSED: Kind::Counter, "adapter.admin.refused", "{request}", ["reason"],
        "Requests to the admin door without its token that need it, by what was wrong.";
    CERTIFICATE_EXPIRY: Kind::Gauge, "adapter.grpc.certificate.expiry", "s", [],
        "When the certificate that callers are shown ends, in seconds since 1970.";
    CERTIFICATE_RELOADS: Kind::Counter, "adapter.grpc.certificate.reloads", "{reload}", ["result"],
        "Changed files for TLS of gRPC: applied, refused.";
    ORGANIZATIONS_CONFIGURED: Kind::Gauge, "adapter.organizations.configured", "{organization}", [],
        "Organisations that have credentials here.";
    ORGANIZATIONS_RELOADS: Kind::Counter, "adapter.organizations.reloads", "{reload}", ["result"],
        "Changed configurations of organisations: applied, refused.";
    PART_CONDITION: Kind::Gauge, "adapter.part.condition", "", ["part"],
        "0 if a part is ready, 1 if it is degraded, 2 if it is not ready. What it lacks is said at /readyz.";
    INSTANCES: Kind::Gauge, "adapter.instances", "{instance}", [], "Instances that share the store.";
    BUILD_INFO: Kind::Gauge, "adapter.build_info", "", ["service.version"], "Always 1; its attributes tell what is running.";
    LOG_RECORDS: Kind::Counter, "adapter.log.records", "{record}", ["level"], "Log records written.";
    LOG_SUPPRESSED: Kind::Counter, "adapter.log.suppressed", "{record}", [], "Log records left out as repeats.";
    SPANS_UNKEPT: Kind::Counter, "adapter.spans.unkept", "{span}", [],
        "Spans that could not be kept back until it was known whether their trace failed or was slow: there were too many.";
    CPU_TIME: Kind::Counter, conventions::PROCESS_CPU_TIME, "s", ["cpu.mode"], "Processor time of the process.";
    MEMORY_USAGE: Kind::UpDownCounter, conventions::PROCESS_MEMORY_USAGE, "By", [], "Memory that the process has in use.";
    MEMORY_VIRTUAL: Kind::UpDownCounter, conventions::PROCESS_MEMORY_VIRTUAL, "By", [], "Address space of the process.";
    FILE_DESCRIPTORS: Kind::UpDownCounter, conventions::PROCESS_UNIX_FILE_DESCRIPTOR_COUNT, "{file_descriptor}", [],
        "Files and sockets that the process has open.";
    THREADS: Kind::UpDownCounter, conventions::PROCESS_THREAD_COUNT, "{thread}", [], "Threads of the process.";
    UPTIME: Kind::Gauge, conventions::PROCESS_UPTIME, "s", [], "The time since the process began.";
    TOKIO_WORKERS: Kind::Gauge, "tokio.workers", "{thread}", [], "Threads that run tasks.";
    TOKIO_TASKS: Kind::Gauge, "tokio.tasks.alive", "{task}", [], "Tasks that have not ended.";
    TOKIO_QUEUE: Kind::Gauge, "tokio.queue.depth", "{task}", [], "Tasks in the common queue of the threads.";
    TOKIO_BUSY: Kind::Counter, "tokio.busy", "s", [], "The time that threads have run tasks for, in all.";

    ORGANIZATION_COMMANDS: Kind::Counter, "adapter.organization.commands", "{command}", ["organization", "state"],
        "How often a command of a listed requester organisation came to a state.";
    ORGANIZATION_DURATION: Kind::Histogram(LONG_SECONDS), "adapter.organization.command.duration", "s", ["organization"],
        "The time from acceptance to the final state of commands of a listed requester organisation.";
    ORGANIZATION_REQUESTS: Kind::Counter, "adapter.organization.requests", "{request}",
        ["organization", "http.response.status_code"], "Requests on behalf of a listed requester organisation.";
}

/// The page `docs/metrics.md`.
#[must_use]
pub fn page() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         <!-- Made of src/telemetry/catalogue.rs; a test keeps it equal. To write it anew:\n     \
         UPDATE_DOCS=1 cargo test --test metrics the_page -->\n\n\
         Every metric, as a scraper of the admin port's `/metrics` sees it and as OTLP names it. A histogram has the series\n\
         `_bucket`, `_sum` and `_count`. What begins with `rpc`, `http`, `messaging` or `process` is defined by OpenTelemetry's\n\
         semantic conventions. What is said of the books and of ages is of the whole store: several instances that share\n\
         one all say the same, so take the greatest, not the sum. Exemplars are not written: OpenTelemetry's SDK for Rust\n\
         records none as of 0.33.\n\n\
         | scraped as | by OTLP | kind | told apart by | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for metric in ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::UpDownCounter => "gauge (UpDownCounter)",
            Kind::Histogram(_) => "histogram",
        };
        let attributes: Vec<_> =
            metric.attributes.iter().map(|name| format!("`{}`", scraped(name))).collect();
        let Metric { name, description, .. } = metric;
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "| `{}` | `{name}` | {kind} | {} | {description} |",
            metric.scraped(),
            attributes.join(", ")
        );
    }
    text
}

fn scraped(name: &str) -> String {
    name.replace('.', "_")
}

impl Metric {
    /// The name that a scraper sees, without the suffixes of a histogram's series.
    #[must_use]
    pub fn scraped(&self) -> String {
        let name = scraped(self.name);
        let unit = match self.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "",
        };
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{name}{unit}{total}")
    }

    /// A counter that is added to.
    #[must_use]
    pub fn counter(&self) -> Counter<u64> {
        meter().u64_counter(self.name).with_description(self.description).with_unit(self.unit).build()
    }

    /// A gauge that is added to and taken from.
    #[must_use]
    pub fn up_down_counter(&self) -> UpDownCounter<i64> {
        meter().i64_up_down_counter(self.name).with_description(self.description).with_unit(self.unit).build()
    }

    /// A gauge that is set.
    #[must_use]
    pub fn gauge(&self) -> Gauge<u64> {
        meter().u64_gauge(self.name).with_description(self.description).with_unit(self.unit).build()
    }

    pub(super) fn histogram(&self) -> Histogram<f64> {
        let buckets = if let Kind::Histogram(buckets) = self.kind { buckets } else { &[] };
        let meter = meter();
        let histogram = meter.f64_histogram(self.name).with_description(self.description);
        histogram.with_unit(self.unit).with_boundaries(buckets.to_vec()).build()
    }

    /// Has `look` tell the value whenever it is asked for. It stays for as long as the process.
    pub fn observe(&self, look: impl Fn(&dyn AsyncInstrument<f64>) + Send + Sync + 'static) {
        let meter = meter();
        match self.kind {
            Kind::Counter => {
                let counter = meter.f64_observable_counter(self.name).with_description(self.description);
                counter.with_unit(self.unit).with_callback(look).build();
            }
            Kind::UpDownCounter => {
                let counter =
                    meter.f64_observable_up_down_counter(self.name).with_description(self.description);
                counter.with_unit(self.unit).with_callback(look).build();
            }
            Kind::Gauge | Kind::Histogram(_) => {
                let gauge = meter.f64_observable_gauge(self.name).with_description(self.description);
                gauge.with_unit(self.unit).with_callback(look).build();
            }
        }
    }
}
