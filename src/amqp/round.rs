//! A batch on a channel in confirm mode: published as a whole, confirmed as a whole, and only then decided.
//!
//! The broker hands an unroutable message back before it confirms it, but lapin gives a returned message out with
//! whichever confirm completes next. So all returns of a round are gathered first and known by their message id.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{BoxFuture, MaybeDone, maybe_done};
use futures::stream::FuturesUnordered;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::time::{Instant, timeout_at};

use super::render::Publishing;
use super::settings::Settings;
use super::{fault, properties, records, spans};
use crate::service::ports::Publication;
use crate::telemetry::span::Span;
use crate::telemetry::step::{Name, Step};

/// What became of a round.
#[derive(Debug)]
pub struct Round {
    /// One entry for each message, in order.
    pub publications: Vec<Publication>,
    /// Whether the channel is good for another round. A late answer could be taken for one to a later round.
    pub is_clean: bool,
    /// Whether the broker answered nothing at all.
    pub is_silent: bool,
    /// Whether the broker has closed the channel over one of several messages, whichever that was.
    pub is_spoilt: bool,
}

type Confirm<'a> = MaybeDone<BoxFuture<'a, lapin::Result<Confirmation>>>;

/// One message under way.
struct Sending<'a> {
    confirm: std::pin::Pin<Box<Confirm<'a>>>,
    span: Span,
    began: std::time::Instant,
    /// How long its own answer took.
    took: Arc<OnceLock<Duration>>,
}

/// Publishes `publishings` on `channel` and waits for the confirms, for `patience`.
pub async fn run(
    channel: &Channel,
    settings: &Settings,
    publishings: &[Publishing],
    patience: Duration,
) -> Round {
    let deadline = Instant::now() + patience;
    let mut sendings = Vec::with_capacity(publishings.len());
    for publishing in publishings {
        let mut sending = send(channel, settings, publishing);
        // The first poll hands the message to lapin; the order of these polls is the order on the wire.
        let _ = futures::poll!(&mut sending.confirm);
        sendings.push(sending);
    }
    await_all(&mut sendings, deadline, patience).await;
    let mut answers = Vec::with_capacity(sendings.len());
    let mut returned = HashSet::new();
    let mut spoilt = None;
    for sending in &mut sendings {
        let answer = match sending.confirm.as_mut().take_output() {
            Some(Ok(confirmation)) => {
                let is_ack = confirmation.is_ack();
                if let Some(message) = confirmation.take_message() {
                    returned.extend(properties::some(message.properties.message_id()).map(str::to_owned));
                }
                if is_ack { Ok(()) } else { Err(Silence::Refused) }
            }
            Some(Err(error)) if fault::is_about_a_message(&error) => {
                spoilt.get_or_insert_with(|| fault::text(&error));
                Err(Silence::Broken(fault::text(&error)))
            }
            Some(Err(error)) => Err(Silence::Broken(fault::text(&error))),
            None => Err(Silence::Broken(format!("no confirm within {patience:?}"))),
        };
        answers.push(answer);
    }
    let mut round = decide(publishings, answers, &returned, &sendings, settings);
    if let Some(reason) = spoilt {
        records::ChannelSpoilt { reason: &reason, count: publishings.len() }.log();
        match &mut round.publications[..] {
            [alone] => *alone = Publication::Refused(reason),
            _ => round.is_spoilt = true,
        }
    }
    round
}

/// When other messages of the round were confirmed, one that is not so much later is given up for this round: its queue
/// is in trouble and the others are not to wait for it.
const STRAGGLER_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits for the confirms until the deadline, or until those that are missing are stragglers.
async fn await_all(sendings: &mut [Sending<'_>], deadline: Instant, patience: Duration) {
    let mut missing: FuturesUnordered<_> =
        sendings.iter_mut().map(|sending| sending.confirm.as_mut()).collect();
    let mut give_up_at = deadline;
    while let Ok(Some(())) = timeout_at(give_up_at, missing.next()).await {
        give_up_at = deadline.min(Instant::now() + STRAGGLER_TIMEOUT.min(patience));
    }
}

/// Why a message was not confirmed.
enum Silence {
    /// The broker says that it did not take it.
    Refused,
    /// Nothing was heard.
    Broken(String),
}

fn send<'a>(channel: &'a Channel, settings: &Settings, publishing: &'a Publishing) -> Sending<'a> {
    let (span, began) = (spans::send(settings, publishing), std::time::Instant::now());
    let properties = publishing.properties_in(&spans::context_of(&span, &publishing.trace));
    let names = (
        ShortString::try_new(publishing.exchange.as_str()),
        ShortString::try_new(publishing.routing_key.as_str()),
    );
    let took: Arc<OnceLock<Duration>> = Arc::default();
    let answered = Arc::clone(&took);
    let published = async move {
        let (Ok(exchange), Ok(routing_key)) = names else {
            return Ok(Confirmation::Nack(None));
        };
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        // lapin writes and hears while others are polled, so that only both together can be told from here.
        let _step = Step::begin(Name::Confirm);
        let publish = channel.basic_publish(exchange, routing_key, options, &publishing.body, properties);
        let confirmed = publish.await?.await;
        // It is set once.
        let _ = answered.set(began.elapsed());
        confirmed
    };
    let confirm: BoxFuture<'a, _> = Box::pin(span.around(published));
    Sending { confirm: Box::pin(maybe_done(confirm)), span, began, took }
}

fn decide(
    publishings: &[Publishing],
    answers: Vec<Result<(), Silence>>,
    returned: &HashSet<String>,
    sendings: &[Sending<'_>],
    settings: &Settings,
) -> Round {
    // The broker goes on refusing on a channel what it has refused once for want of room, also when there is room again.
    let is_clean = answers.iter().all(Result::is_ok);
    let is_silent = answers.iter().all(|answer| matches!(answer, Err(Silence::Broken(_))));
    let publications =
        publishings.iter().zip(answers).zip(sendings).map(|((publishing, answer), sending)| {
            // The broker returns a message before it confirms it, and hands an unroutable one's confirm out at once: the
            // return of a message that is confirmed came with its own confirm or an earlier one.
            let publication = match answer {
                _ if returned.contains(&publishing.message_id) => Publication::Unroutable,
                Ok(()) => Publication::Confirmed,
                Err(Silence::Refused) => {
                    Publication::Refused("the broker did not take the message".to_owned())
                }
                Err(Silence::Broken(reason)) => Publication::Failed(reason),
            };
            let error_type = match &publication {
                Publication::Confirmed => None,
                Publication::Unroutable => Some("unroutable"),
                Publication::Refused(_) => Some("refused"),
                Publication::Failed(_) => Some("unconfirmed"),
            };
            if let Some(error_type) = error_type {
                sending.span.fail(error_type);
            }
            let exchange = spans::destination(publishing);
            spans::operated(
                settings,
                spans::SEND,
                exchange,
                sending.took.get().copied().unwrap_or_else(|| sending.began.elapsed()),
                error_type,
            );
            publication
        });
    Round { publications: publications.collect(), is_clean, is_silent, is_spoilt: false }
}
