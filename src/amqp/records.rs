//! The log records of the RabbitMQ door and the publisher.

use std::time::Duration;

use super::lane::Purpose;
use crate::domain::command::CommandId;
use crate::telemetry::record::records;

records! { "amqp";
    /// The broker has closed the channel over a message that was published. What can be told from the others is held
    /// alone; the rest is published again.
    ///
    /// Look at `reason`: most often a permission or an exchange is missing.
    WARN ChannelSpoilt<'a> "broker: a message has ended the channel" {
        reason: &'a str => value "reason",
        count: usize => value "count",
    }
    /// Another instance consumes this partition from now on.
    INFO PartitionLeft "amqp: left to the instance to whom it falls" {
        partition: Option<u32> => value "partition",
    }
    /// A mark of `partitions retire` stands in a queue, and names other numbers than this instance is configured with.
    /// The mark is dropped; nothing is deleted.
    ///
    /// Give every instance the same `amqp.partitions` and `amqp.partitions_from`, and retire again.
    ERROR FenceForeign<'a> "amqp: partitions are being retired for another configuration than this instance's (amqp.partitions, amqp.partitions_from); every instance must have the same" {
        queue: &'a str => value "queue",
    }
    /// All messages of a queue from before `amqp.partitions` changed have been worked on.
    INFO QueueDeleted<'a> "amqp: a queue that was left is done with, and deleted" {
        queue: &'a str => value "queue",
    }
    /// Messages were in hand when the consumer ended. They come again, here or at another instance; their commands are
    /// found by their keys.
    INFO GivenBack "amqp: messages go back to the queue" {
        count: usize => value "count",
    }
    /// Nothing is consumed for a while, for `reason`: the store or the upstream is away. Messages stay with the broker.
    ///
    /// Put right what `reason` names (docs/errors.md); consuming goes on by itself.
    WARN Suspended "amqp: consuming is suspended" {
        reason: &'static str => value "reason",
    }
    /// Queues from before `amqp.partitions` changed are emptied before the new ones are consumed from.
    INFO OldFirst "amqp: queues that are being left come first" {
        count: usize => value "count",
    }
    /// The credentials for the broker have changed and the consumer connects with the new ones.
    INFO UserChanged "amqp: consuming goes on as another user";
    /// The queues from before `amqp.partitions` changed are gone.
    INFO QueuesChanged "amqp: the queues that were left are gone, the new ones are taken";
    /// There is room for commands again.
    INFO PauseOver "amqp: room again, consuming goes on";
    /// The process or the store holds as many commands as it may, for some time now. Messages stay with the broker.
    ///
    /// If it goes on, find out why commands do not become final; `why` names the limit.
    WARN Paused<'a> "amqp: no room, consuming pauses" {
        why: &'a str => value "why",
    }
    /// A sender does not use the guest organisation as the routing key, so two commands of one connection may be in
    /// different partitions, and overtake each other.
    ///
    /// Have the senders set the routing key (docs/amqp.md); `adapter.amqp.misrouted` counts such messages.
    WARN Misrouted "amqp: the routing key of a message is not its guest organisation in lower case; partitions cannot keep the order of such messages; this is said once, and counted";
    /// A message repeats a command that was refused for `reason`. It changes nothing, so it is acknowledged.
    ///
    /// Nothing, unless a sender repeats itself without end: a new try needs a new key.
    WARN RefusedBefore "amqp: the key's command was refused before; acknowledged" {
        command_id: CommandId => display "command.id",
        reason: &'static str => value "reason",
    }
    /// A message has been in hand for `amqp.delivery_hold` and its command gave no answer. It is acknowledged if the
    /// command is stored, and otherwise goes back.
    ///
    /// A fault of the adapter, or a machine without time: report it if it comes again.
    ERROR AnswerLate "amqp: no answer within the time that a message is held";
    /// The work on a message has panicked. It is acknowledged if its command is stored, and otherwise goes back.
    ///
    /// A fault of the adapter: report it, with what the panic said on standard error.
    ERROR Panicked "amqp: a panic while a message was worked on";
    /// The answer to a refused message could not be published, so the message stays with the broker and comes again.
    ///
    /// See to the broker: `reason` says what it did.
    ERROR Unanswered<'a> "amqp: a refused message could not be answered, it is kept" {
        reason: &'a str => value "reason",
    }
    /// The dead letter of a refused message could not be published, so the message stays with the broker and comes again.
    ///
    /// See to the broker: `reason` says what it did; most often the exchange or its queue is missing.
    ERROR Unplaced<'a> "amqp: a dead letter could not be placed, its message is kept" {
        reason: &'a str => value "reason",
    }
    /// A message could not become a command, for `reason`; a copy is with the dead letters, with all details in its headers.
    ///
    /// Find the copy in `amqp.dead_letters_queue`, and have its sender put right what `reason` names (docs/errors.md).
    WARN DeadLetterPlaced "amqp: message refused, dead letter placed" {
        reason: &'static str => value "reason",
    }
    /// The answer to a refused message cannot be put into an AMQP message. The dead letter is placed all the same.
    ///
    /// Look at `reason`: most often the message's reply address is too long.
    WARN ReplyUnwritten<'a> "amqp: a reply to a refused message cannot be written" {
        reason: &'a str => value "reason",
    }
    /// A sender wants answers at a queue that is not there or takes nothing.
    ///
    /// Nothing, unless it is a sender of yours: then its queue should live until the answer has come.
    WARN ReplyUnroutable "amqp: a reply to a refused message found no queue that takes it";
    /// A message was done with and could not be acknowledged any more. It comes again, and is found by its key.
    ///
    /// Nothing, if it is rare. If it goes on, look for what ends the channel in the records before.
    WARN AckLost "amqp: the channel was closed before a message was acknowledged";
    /// The broker takes nothing from a connection, because it is short of memory or disk. What is to be published waits.
    ///
    /// See to the broker's memory and disk; `reason` says what it lacks.
    WARN Blocked<'a> "broker: blocked" {
        purpose: Purpose => debug "purpose",
        reason: &'a str => value "reason",
    }
    /// There is no connection to the broker, or it has ended. It is made again after `delay`, longer each time.
    ///
    /// If it goes on, put right what `reason` names: the address, the credentials, permissions, the broker itself.
    WARN Unavailable<'a> "broker: not available" {
        purpose: &'static str => value "purpose",
        reason: &'a str => value "reason",
        delay: Duration => debug "delay",
    }
    /// A connection to the broker is made.
    INFO Connected "broker: connected" {
        purpose: &'static str => value "purpose",
    }
    /// A message held bytes that are no text where AMQP wants text, or tables in one another beyond measure. They were
    /// exchanged for others, so that the connection could go on; the message is refused for it if it matters.
    ///
    /// Find the sender, by the dead letter that most often follows, and have it put right.
    WARN Mended "broker: a message holds properties or headers that had to be exchanged";
}
