//! The log records of the loop.

use uuid::Uuid;

use super::ports::StoreError;
use crate::domain::command::{CommandId, OrganizationId};
use crate::telemetry::record::records;

records! { "service";
    /// As many commands are not final yet as `limits.backlog_max` lets in. New ones are refused, and messages left with
    /// the broker, until there are a tenth fewer.
    ///
    /// Find out why commands do not become final: most often the upstream is away. Raise the limit if the store bears it.
    WARN BacklogFull "too many commands are not final yet; nothing more is taken in" {
        backlog: u64 => value "backlog",
    }
    /// The backlog is below its limit again.
    INFO BacklogOpen "there is room for commands again" {
        backlog: u64 => value "backlog",
    }
    /// Requests for this organisation fail while others succeed, for the reason `cause`. Its commands wait, and one is tried now
    /// and then.
    ///
    /// Look at the organisation's credentials and its own address, if it has one.
    WARN RequesterDown "the upstream fails for a requester organisation; its commands wait" {
        organization: OrganizationId => display "organization",
        cause: &'static str => value "cause",
    }
    /// The upstream has answered 429 with a `Retry-After`: nothing is sent for this organisation for so many milliseconds. Said
    /// when it begins, and not again while it lasts.
    ///
    /// Nothing, unless it lasts: then ask the API's owner for more, or send less (`requests_per_second`).
    WARN RequesterPaused "the upstream asks a requester organisation to pause" {
        organization: OrganizationId => display "organization",
        pause_ms: u64 => value "pause_ms",
    }
    /// A request for the organisation has succeeded; its commands go on.
    INFO RequesterServed "a requester organisation is served again" {
        organization: OrganizationId => display "organization",
    }
    /// Requests fail for the reason `cause`, whoever they are for. Commands wait, and one is tried now and then.
    ///
    /// See that the upstream can be reached from here; tell its owner if it can and fails all the same.
    WARN UpstreamDown "the upstream fails; nothing is sent until it is back" {
        cause: &'static str => value "cause",
    }
    /// A request has succeeded again after `outage_s` seconds; commands go on, few at first.
    INFO UpstreamBack "the upstream is back" {
        outage: Option<f64> => value "outage_s",
    }
    /// Other instances' commands are waited for here, and the store could not be read. It is asked again.
    ///
    /// See that the store works.
    WARN OthersUnread<'a> "it could not be asked what became of commands of others" {
        error: &'a StoreError => display "error",
    }
    /// The relay has messages to publish and the store fails it. It tries again; what was published and not marked is
    /// published twice.
    ///
    /// See that the store works.
    WARN OutboxUnread<'a> "the outbox could not be read or marked" {
        error: &'a StoreError => display "error",
    }
    /// A reply whose queue is gone, or an event while `events.when_unroutable` is `discard`, was dropped.
    ///
    /// For a reply nothing: nobody waits for it. For events bind a queue to the exchange, if somebody should get them.
    WARN MessageDropped "no queue takes the message; it is given up" {
        command_id: Option<String> => value "command.id",
        message_id: Uuid => display "message.id",
    }
    /// The broker has refused a reply and would always refuse it.
    ///
    /// Look at `why`: most often the adapter's user may not write to the default exchange.
    WARN ReplyDropped<'a> "the reply is given up" {
        command_id: Option<String> => value "command.id",
        message_id: Uuid => display "message.id",
        why: &'a str => value "why",
    }
    /// The broker gave no confirm for `count` messages. They are published again, so some may come twice.
    ///
    /// If it goes on, see to the broker; `why` says what it did.
    WARN Unpublished<'a> "messages could not be published; they are tried again" {
        count: usize => value "count",
        why: &'a str => value "why",
    }
    /// One message has to wait, and with it those behind it on its connection.
    DEBUG MessageHeld<'a> "the message is held" {
        command_id: Option<String> => value "command.id",
        message_id: Uuid => display "message.id",
        why: &'a str => value "why",
    }
    /// The broker has no queue, no room or no permission for some messages: the events of so many `connections`, and so
    /// many others `alone`. Told once for all of them, until none is held.
    ///
    /// Look at `/readyz`, which names a permission that is missing; see that the exchanges have queues and these have room.
    WARN Holding "the broker takes no messages of these; they are held and tried again" {
        connections: usize => value "connections",
        alone: usize => value "alone",
    }
    /// Everything that was held is published.
    INFO HoldingNone "no messages are held any more";
    /// The task that works on commands has panicked. The command is not lost: it is tried again when its lease is over.
    ///
    /// A fault of the adapter: report it, with what the panic said on standard error.
    ERROR WorkerLost "the work on a command panicked; recovery takes it up" {
        command_id: CommandId => display "command.id",
    }
    /// The attempts on a command have panicked. It counts as one that may have been applied and is tried again.
    ///
    /// A fault of the adapter: report it, with what the panic said on standard error.
    ERROR AttemptLost "the work on a command panicked" {
        command_id: CommandId => display "command.id",
    }
    /// A command was to wait for the upstream and the store could not note it. It is tried again when its lease is over.
    ///
    /// See that the store works.
    WARN NotPutOff<'a> "a command could not be put off" {
        command_id: CommandId => display "command.id",
        error: &'a StoreError => display "error",
    }
    /// The store did not answer when a command was to be begun. It is asked again for a while; the caller is told that
    /// the store is away.
    ///
    /// See that the store works.
    WARN Unclaimed<'a> "the claim could not be asked for" {
        command_id: CommandId => display "command.id",
        error: &'a StoreError => display "error",
    }
    /// The lease of a claim was over before its result came, and another worker has the command. The result is not used.
    ///
    /// If it is not rare: the store or the machine is too slow for `store.lease`.
    WARN ClaimStale "the claim had passed to someone else; its late result is refused" {
        command_id: CommandId => display "command.id",
    }
    /// The upstream has answered and the store could not note it. It is written again and again while the lease lasts.
    ///
    /// See that the store works.
    WARN OutcomeDelayed<'a> "the outcome could not be stored yet" {
        command_id: CommandId => display "command.id",
        error: &'a StoreError => display "error",
    }
    /// The store was away until the lease was over. The outcome is still offered to it, and another worker may have the
    /// command by now.
    ///
    /// See that the store works; nothing has to be done for the command.
    WARN OutcomeLate<'a> "the outcome could not be stored within its lease" {
        command_id: CommandId => display "command.id",
        error: &'a StoreError => display "error",
    }
    /// A command has come to a state in which it rests: final, or deferred. `reason` (docs/errors.md) is why it did not
    /// succeed; its trace tells the rest.
    INFO Settled "command settled" {
        command_id: CommandId => display "command.id",
        state: &'static str => value "command.state",
        reason: Option<&'static str> => value "reason",
        attempts: u32 => value "attempts",
        status: Option<u16> => value "upstream.status",
    }
    /// Final commands older than `store.retention` were deleted.
    INFO Forgotten "commands older than the retention were forgotten" {
        count: u64 => value "count",
    }
    /// Commands older than `store.retention` are still kept. It is tried again later.
    ///
    /// See that the store works: personal data is kept for longer than was promised.
    WARN Unforgotten<'a> "old commands could not be forgotten" {
        error: &'a StoreError => display "error",
    }
    /// The store could not tell which commands are due. It is asked again.
    ///
    /// See that the store works.
    WARN DueUnread<'a> "recovery could not read what is due" {
        error: &'a StoreError => display "error",
    }
    /// A connection whose upstream value is in doubt was to be put right and the store failed. It is due again.
    ///
    /// See that the store works.
    WARN HealUnclaimed<'a> "a suspect connection could not be claimed" {
        error: &'a StoreError => display "error",
    }
    /// A connection whose upstream value was in doubt has its newest applied value for certain.
    INFO Healed "a suspect connection shows its newest applied value again";
    /// The newest applied value could not be sent, or someone else has the connection; it is due again.
    INFO HealPutOff "a suspect connection is not healed yet" {
        result: &'static str => value "result",
    }
    /// The upstream refuses the newest applied value for good, so which value it has is not known.
    ///
    /// Ask the upstream what it shows for this connection, and send a command that sets what you want.
    WARN HealGivenUp "a suspect connection could not be healed and is given up";
    /// The newest value of a connection was sent again, and the store was away until the lease was over. The connection
    /// is healed again.
    ///
    /// See that the store works.
    WARN HealLate<'a> "the end of a healing could not be stored within its lease" {
        error: &'a StoreError => display "error",
    }
    /// The task that takes a command in has panicked. Whether the command was accepted is found out by its key.
    ///
    /// A fault of the adapter: report it, with what the panic said on standard error.
    WARN EntryLost "taking in a command failed";
    /// A caller was told that the store is unavailable.
    ///
    /// See that the store works.
    WARN StoreRefused<'a> "the store refused a call" {
        error: &'a StoreError => display "error",
    }
}
