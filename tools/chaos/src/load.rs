//! Sends what the plan says, and writes down what was heard.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};

use crate::calls;
use crate::history::{Answer, Door, Sending, Standing, Time, What};
use crate::messages::{Message, Publisher};
use crate::plan::{Plan, Step, Wish};
use crate::stage::Stage;

/// The wait before a call is made again.
const RETRY_DELAY: Duration = Duration::from_millis(300);

/// What was sent so far.
#[derive(Debug, Default)]
pub struct Sent {
    sendings: Mutex<Vec<Sending>>,
}

impl Sent {
    fn begin(&self, step: &Step) -> usize {
        let sending = Sending {
            what: step.what,
            door: step.door,
            at: Utc::now(),
            answered_at: None,
            wants_reply: step.wants_reply,
            answer: Answer::Unknown("no answer yet".to_owned()),
        };
        let mut sendings = self.sendings.lock().unwrap_or_else(PoisonError::into_inner);
        sendings.push(sending);
        sendings.len() - 1
    }

    fn end(&self, number: usize, answer: Answer) {
        let mut sendings = self.sendings.lock().unwrap_or_else(PoisonError::into_inner);
        sendings[number].answered_at = Some(Utc::now());
        sendings[number].answer = answer;
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> Vec<Sending> {
        self.sendings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sends everything at its time, and waits for all answers.
pub async fn send_all(stage: &Arc<Stage>, plan: &Plan, started: Instant, started_at: Time, sent: &Sent) {
    let publisher = Publisher::new(&stage.broker_uri);
    let sender = Sender { stage, plan, publisher: &publisher, started_at, sent };
    let mut under_way = FuturesUnordered::new();
    for step in &plan.steps {
        let due = sleep_until(started + step.at);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => break,
                Some(()) = under_way.next() => {}
            }
        }
        under_way.push(sender.send(step));
    }
    while under_way.next().await.is_some() {}
}

struct Sender<'a> {
    stage: &'a Arc<Stage>,
    plan: &'a Plan,
    publisher: &'a Publisher,
    started_at: Time,
    sent: &'a Sent,
}

impl Sender<'_> {
    async fn send(&self, step: &Step) {
        match (step.door, step.what) {
            (Door::Amqp, _) => self.publish(step).await,
            (Door::Grpc, What::Wish(wish)) => self.call(step, &self.plan.wishes[wish]).await,
            (Door::Grpc, What::Garbage(_)) => {}
        }
    }

    /// Calls, and calls again while nothing is known, as a client with a key does: another instance, if there is one, as
    /// callers behind a load balancer do.
    async fn call(&self, step: &Step, wish: &Wish) {
        let others = self.stage.instances.len() - 1;
        let more = if wish.key.is_empty() { 0 } else { u32::try_from(others).unwrap_or_default() };
        for (attempt, instance) in (0..step.tries + more).zip(step.instance..) {
            if attempt > 0 {
                sleep(RETRY_DELAY).await;
            }
            let number = self.sent.begin(step);
            let answer = match self.stage.client_of(instance) {
                Some(client) => {
                    let moment = |ms: Option<i64>| ms.map(|ms| self.moment(ms));
                    let times = (moment(wish.issued_ms), moment(wish.expires_ms));
                    calls::call(client, wish, times, step.timeout).await
                }
                None => Answer::NotSent("there is no adapter".to_owned()),
            };
            let again = matches!(answer, Answer::NotSent(_)) || answer.standing() == Standing::Unknown;
            self.sent.end(number, answer);
            if !again {
                return;
            }
        }
    }

    async fn publish(&self, step: &Step) {
        let number = self.sent.begin(step);
        let message = match step.what {
            What::Wish(wish) => {
                let wish = &self.plan.wishes[wish];
                let moment = |ms: Option<i64>| ms.map(|ms| self.moment(ms));
                let times = (moment(wish.issued_ms), moment(wish.expires_ms));
                Message::of_wish(wish, times, step.form, number)
            }
            What::Garbage(garbage) => Message::of_garbage(&self.plan.garbage[garbage], number),
        };
        let message = if step.wants_reply { message.with_reply(number) } else { message };
        let answer = self.publisher.publish(&message).await;
        self.sent.end(number, answer);
    }

    fn moment(&self, ms: i64) -> Time {
        self.started_at + TimeDelta::milliseconds(ms)
    }
}
