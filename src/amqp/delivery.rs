//! The way of one message: read, submitted, answered, settled.

use std::future::ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use lapin::message::Delivery;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use uuid::Uuid;

use super::access::Sender;
use super::acks::Due;
use super::decode::{Decoded, Rules, decode};
use super::generation::Source;
use super::lane::Purpose;
use super::publish::BrokerPublisher;
use super::render::{Publishing, render};
use super::settings::Settings;
use super::settle::{Settlement, refused, settlement};
use super::spans::Processing;
use super::{dead_letter, properties, records, spans};
use crate::domain::command::Command;
use crate::domain::error::{Reason, Refusal};
use crate::domain::message::{Message, Reply};
use crate::domain::record::{Door, Outcome};
use crate::domain::trace::TraceContext;
use crate::service::archiver::{Answer, Archiver, Submission};
use crate::service::ports::Publication;
use crate::service::tally;
use crate::telemetry::instruments::instruments;
use crate::telemetry::span::Span;

/// How much later than promised an answer may come before it is not waited for any more.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// How long it may take to look a command up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How a delivery ended, for the consumer.
pub enum Ending {
    /// Nothing is left to do but to acknowledge it.
    Settled(Box<Due>),
    /// Nothing can be taken for now, and why.
    Suspend(Refusal),
    /// Its dead letter cannot be placed, and why.
    Stuck(String),
    /// It is left as it is, until the channel closes.
    Left,
}

/// Counts of what should be rare.
#[derive(Debug, Default)]
pub struct Counts {
    /// Acknowledgements that came too late: the channel was closed before.
    pub acks_lost: AtomicU64,
    /// Messages refused for good, with a confirmed dead letter.
    pub dead_letters: AtomicU64,
    /// Panics while a message was worked on.
    pub panics: AtomicU64,
    /// Messages that came by a partition which their guest does not decide on.
    pub misrouted: AtomicU64,
}

/// Works on messages.
pub struct Desk {
    /// The settings.
    pub settings: Arc<Settings>,
    /// The pipeline.
    pub archiver: Archiver,
    /// For dead letters and replies of messages that were refused.
    pub publisher: BrokerPublisher,
    /// Counts.
    pub counts: Arc<Counts>,
}

/// A delivery under way.
struct Work {
    desk: Arc<Desk>,
    delivery: Delivery,
    span: Span,
    trace: TraceContext,
    hold_until: Instant,
    processing: Processing,
}

impl Desk {
    /// Takes a delivery in. The command is submitted before this returns, so that the order of calls is the order of
    /// arrival; the future settles the delivery.
    ///
    /// # Errors
    /// Nothing can be taken for now, and why. The delivery goes back to the queue with the channel, so none that came
    /// after it may be taken in from the same channel: it may be about the same connection.
    pub fn receive(
        self: &Arc<Self>,
        delivery: Delivery,
        source: &Source,
    ) -> Result<BoxFuture<'static, Ending>, Refusal> {
        let hold_until = Instant::now() + self.settings.delivery_hold;
        let processing = Processing::begin(&self.settings);
        let read = catch_unwind(AssertUnwindSafe(|| self.read(&delivery))).unwrap_or_else(|_| {
            self.counts.panics.fetch_add(1, Ordering::Relaxed);
            Err(Refusal::new(Reason::Internal, "the message could not be read, by a fault of the adapter"))
        });
        let trace = match &read {
            Ok((_, decoded, _)) => decoded.trace.clone(),
            Err(_) => properties::trace(&delivery.properties),
        };
        let span = spans::process(&self.settings, &delivery, source.number, &trace);
        let trace = spans::context_of(&span, &trace);
        if let (Some(_), Ok((command, ..))) = (source.number, &read) {
            self.check_route(&delivery, command);
        }
        let mut work =
            Work { desk: Arc::clone(self), delivery, span: span.clone(), trace, hold_until, processing };
        let (command, decoded, sender) = match read {
            Ok(read) => read,
            Err(refusal) => {
                tally::refused(Door::Amqp, &refusal);
                return Ok(span.around(work.refuse(refusal)).boxed());
            }
        };
        let submission = Submission {
            command: command.clone(),
            door: Door::Amqp,
            asked_by: sender.asked_by(),
            trace: work.trace.clone(),
            correlation_id: decoded.correlation_id,
            reply: decoded.reply,
            message_length: work.delivery.data.len(),
            answer_by: hold_until,
        };
        let submit = || self.archiver.submit(submission).map(futures::FutureExt::boxed);
        let answer = match span.within(|| catch_unwind(AssertUnwindSafe(submit))) {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(refusal)) if refused(refusal.reason) == Settlement::Suspend => {
                work.processing.fail(&span, refusal.reason.as_str());
                return Err(refusal);
            }
            Ok(Err(refusal)) => Some(ready(Err(refusal)).boxed()),
            Err(_) => None,
        };
        Ok(span.around(work.finish(command, answer)).boxed())
    }

    /// Counts a message whose routing key is not its guest. It is worked on all the same.
    fn check_route(&self, delivery: &Delivery, command: &Command) {
        if delivery.routing_key.as_str() == command.connection.guest.0.hyphenated().to_string() {
            return;
        }
        instruments().misrouted.add(1, &[]);
        if self.counts.misrouted.fetch_add(1, Ordering::Relaxed) == 0 {
            records::Misrouted.log();
        }
    }

    /// Reads a message. Who sent it comes first: a stranger does not even learn what is wrong with it.
    fn read(&self, delivery: &Delivery) -> Result<(Command, Decoded, Sender), Refusal> {
        let sender = self.settings.access.borrow().senders.sender(&delivery.properties)?;
        let rules = Rules {
            body_length_max: self.settings.body_length_max,
            accept_without_key: self.settings.accept_without_key,
        };
        let mut decoded = decode(&delivery.properties, &delivery.data, &rules, Uuid::now_v7())?;
        decoded.draft.default_requester(self.archiver.default_requester());
        let command = decoded.command(self.archiver.now(), self.archiver.retention())?;
        sender.permit(&command)?;
        Ok((command, decoded, sender))
    }
}

/// A message that asks again for what was refused for good has no effect and no second dead letter; an operator who
/// sent it should hear why.
fn tell_repeat(answer: &Result<Answer, Refusal>) {
    let Ok(Answer::Final { record, replayed: true }) = answer else { return };
    if let Some(refusal) = record.outcome.as_ref().and_then(|outcome| outcome.refusal.as_ref()) {
        let reason = refusal.reason.as_str();
        records::RefusedBefore { command_id: record.id, reason }.log();
    }
}

impl Work {
    /// Waits for the answer and settles accordingly. `answer` is absent if submitting panicked.
    async fn finish(
        mut self,
        command: Command,
        answer: Option<BoxFuture<'static, Result<Answer, Refusal>>>,
    ) -> Ending {
        let Some(answer) = answer else { return self.panicked(&command).await };
        let answer = AssertUnwindSafe(answer).catch_unwind();
        match timeout_at(self.hold_until + ANSWER_MARGIN, answer).await {
            Ok(Ok(answer)) => match (settlement(&answer), answer) {
                (Settlement::Ack, answer) => {
                    tell_repeat(&answer);
                    self.settled()
                }
                (Settlement::DeadLetter, Err(refusal)) => self.refuse(refusal).await,
                (Settlement::Suspend, Err(refusal)) => {
                    self.processing.fail(&self.span, refusal.reason.as_str());
                    Ending::Suspend(refusal)
                }
                (Settlement::Verify | Settlement::DeadLetter | Settlement::Suspend, _) => {
                    self.verify(&command).await
                }
            },
            Ok(Err(_)) => self.panicked(&command).await,
            Err(_) => {
                records::AnswerLate.log();
                self.verify(&command).await
            }
        }
    }

    async fn panicked(self, command: &Command) -> Ending {
        self.desk.counts.panics.fetch_add(1, Ordering::Relaxed);
        records::Panicked.log();
        self.verify(command).await
    }

    /// Acknowledges if the command is durable.
    async fn verify(mut self, command: &Command) -> Ending {
        self.processing.fail(&self.span, Reason::Internal.as_str());
        let lookup = self.desk.archiver.command_by_key(command.requester, command.key.clone());
        match timeout(LOOKUP_TIMEOUT, AssertUnwindSafe(lookup).catch_unwind()).await {
            Ok(Ok(Ok(Some(record)))) if record.command.same_parameters(command) => self.settled(),
            _ => Ending::Left,
        }
    }

    /// Answers, places the dead letter, and only then acknowledges. What cannot be done while the message is held leaves
    /// it with the broker; then the answer comes again with it, which does less harm than a second dead letter.
    async fn refuse(mut self, refusal: Refusal) -> Ending {
        self.processing.fail(&self.span, refusal.reason.as_str());
        if let Err(reason) = self.reply(&refusal).await {
            records::Unanswered { reason: &reason }.log();
            return Ending::Stuck(format!("a refused message could not be answered: {reason}"));
        }
        let exchange = self.desk.settings.names.dead_letters_exchange.as_str();
        let copy = dead_letter::copy(&self.delivery, &refusal, &self.trace, exchange, Uuid::now_v7());
        if let Err(reason) = self.place(Purpose::Publish, &copy).await {
            records::Unplaced { reason: &reason }.log();
            return Ending::Stuck(format!("a dead letter could not be placed: {reason}"));
        }
        self.desk.counts.dead_letters.fetch_add(1, Ordering::Relaxed);
        instruments().dead_letters.add(1, &[]);
        records::DeadLetterPlaced { reason: refusal.reason.as_str() }.log();
        self.settled()
    }

    /// Tells the sender, if it wants to hear of it and there is a queue for it that takes the answer.
    async fn reply(&self, refusal: &Refusal) -> Result<(), String> {
        let Some(address) = properties::reply_address(&self.delivery.properties) else { return Ok(()) };
        let reply = Reply {
            id: Uuid::now_v7(),
            address,
            trace: self.trace.clone(),
            command: None,
            replayed: false,
            time: None,
            outcome: Outcome { refusal: Some(refusal.clone()), ..Outcome::default() },
        };
        match render(&Message::Reply(Box::new(reply)), &self.desk.settings) {
            Ok(publishing) => self.place(Purpose::Reply, &publishing).await,
            Err(reason) => {
                records::ReplyUnwritten { reason: &reason }.log();
                Ok(())
            }
        }
    }

    /// Publishes until it is confirmed, for as long as the message is held. A reply that its queue does not take is done
    /// with: nobody waits for it there.
    async fn place(&self, purpose: Purpose, publishing: &Publishing) -> Result<(), String> {
        let mut attempt = 0;
        loop {
            let reason = match self.desk.publisher.publish_alone(purpose, publishing).await {
                Publication::Confirmed => return Ok(()),
                Publication::Unroutable | Publication::Refused(_) if purpose == Purpose::Reply => {
                    records::ReplyUnroutable.log();
                    return Ok(());
                }
                Publication::Unroutable => {
                    format!("exchange \"{}\" has no queue for it", publishing.exchange)
                }
                Publication::Refused(reason) | Publication::Failed(reason) => reason,
            };
            attempt += 1;
            let retry_at =
                Instant::now() + self.desk.settings.backoff.deferral(attempt, None, rand::random());
            if retry_at > self.hold_until {
                return Err(reason);
            }
            sleep_until(retry_at).await;
        }
    }

    /// Has it acknowledged, on the channel that delivered it.
    fn settled(self) -> Ending {
        Ending::Settled(Box::new(Due::new(&self.desk, self.delivery, Some(self.processing))))
    }
}
