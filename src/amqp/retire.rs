//! An operator's part in leaving a generation of queues for another one.
//!
//! Everything that is published once the new queues are bound lies in them too. So what matters is that all that came
//! before is settled before the new queues are consumed from: a fence in each old queue marks where that is, and whoever gets
//! to it deletes the queue. Nothing here deletes a queue.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::time::{Instant, sleep};

use super::fence::fence;
use super::generation::{Generation, Source};
use super::link::{Channels, Link, within};
use super::settings::Settings;
use super::topology::Look;
use super::{round, topology};
use crate::service::ports::Publication;
use crate::service::readiness::Readiness;

/// How often the queues are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// When a queue is empty and still there, another fence is put there: an instance may have dropped the first one.
const FENCE_INTERVAL: Duration = Duration::from_secs(10);

/// How long it may take at least until a queue that is empty is deleted.
const PATIENCE_MIN: Duration = Duration::from_secs(30);

/// So many looks in a row must find several consumers before that is taken for what it is: instances that draw from a queue
/// by turns may meet for a moment.
const LOOKS: u32 = 10;

/// Has the queues of `partitions_from` left, and waits until they are gone. `tell` is told how it goes on.
///
/// # Errors
/// Why it does not, for operators. It can be begun again.
pub async fn retire(settings: Settings, tell: &mut (dyn FnMut(&str) + Send)) -> Result<(), String> {
    let Some(from) = settings.partitions_from else {
        return Err("there is nothing to retire: `amqp.partitions_from` is not set".to_owned());
    };
    let settings = Arc::new(settings);
    let part = Readiness::default().part("partitions");
    let session = Link::new(Arc::clone(&settings), "partitions", part).attempt().await?;
    let (channels, from) = (session.channels(), Generation(from));
    let grace = settings.grace;
    let outcome = Retirement { settings, channels, from, tell }.run().await;
    session.close(grace).await;
    outcome
}

struct Retirement<'a> {
    settings: Arc<Settings>,
    channels: Channels,
    from: Generation,
    tell: &'a mut (dyn FnMut(&str) + Send),
}

/// A queue that is waited for.
struct Waiting {
    source: Source,
    last: Look,
    fenced_at: Instant,
    /// Since when nothing waits in it, fences included.
    empty_since: Option<Instant>,
}

impl Retirement<'_> {
    async fn run(mut self) -> Result<(), String> {
        let patience = self.settings.connect_timeout;
        let channel = self.channels.open(patience).await?;
        topology::consuming(&channel, &self.settings).await?;
        (self.tell)(if self.settings.declare {
            "the new queues are there and bound"
        } else {
            "the new queues are there; that they are bound, this configuration leaves to you"
        });
        self.refuse_crowd().await?;
        topology::unbind(&channel, &self.settings, self.from).await?;
        (self.tell)("nothing more comes into the old queues");
        let confirmed = channel.confirm_select(ConfirmSelectOptions::default());
        within(patience, "confirm mode", confirmed).await?;
        self.drain(&channel).await?;
        if let Err(reason) = topology::delete_exchange(&channel, &self.settings, self.from).await {
            (self.tell)(&format!("the old exchange is left as it is: {reason}"));
        }
        self.watch().await?;
        (self.tell)("done: `amqp.partitions_from` can be taken out of the configuration");
        Ok(())
    }

    async fn standing(&self) -> Result<Vec<(Source, Look)>, String> {
        let mut standing = Vec::new();
        for source in self.from.sources(&self.settings.names) {
            let look = topology::look(&self.channels, &source.queue, self.settings.connect_timeout).await?;
            standing.extend(look.map(|look| (source, look)));
        }
        Ok(standing)
    }

    /// Instances that are configured for the change draw from the one queue by turns. Who does not is another instance.
    async fn refuse_crowd(&self) -> Result<(), String> {
        for _ in 0..LOOKS {
            let standing = self.standing().await?;
            let crowd = standing.iter().find(|(source, look)| source.number.is_none() && look.consumers > 1);
            let Some((source, look)) = crowd else { return Ok(()) };
            if look.consumers > 2 {
                return Err(self.crowded(source, *look));
            }
            sleep(LOOK_INTERVAL).await;
        }
        match self.standing().await?.first() {
            Some((source, look)) if look.consumers > 1 => Err(self.crowded(source, *look)),
            _ => Ok(()),
        }
    }

    fn crowded(&self, source: &Source, look: Look) -> String {
        format!(
            "queue \"{}\" has {} consumers, but instances with this configuration draw from it one at a time: {}; \
             nothing was changed",
            source.queue,
            look.consumers,
            self.rule()
        )
    }

    fn rule(&self) -> String {
        let (to, from) = (self.settings.partitions, self.from.0);
        format!("every instance must run with `amqp.partitions = {to}` and `amqp.partitions_from = {from}`")
    }

    /// Puts the fences, and waits until the queues are gone.
    async fn drain(&mut self, channel: &Channel) -> Result<(), String> {
        let mut waiting = Vec::new();
        for (source, last) in self.standing().await? {
            self.fence(channel, &source).await?;
            self.report(&source, last);
            waiting.push(Waiting { source, last, fenced_at: Instant::now(), empty_since: None });
        }
        while !waiting.is_empty() {
            sleep(LOOK_INTERVAL).await;
            let mut left = Vec::new();
            for queue in waiting {
                left.extend(self.look_again(channel, queue).await?);
            }
            waiting = left;
        }
        Ok(())
    }

    /// Looks at a queue that was there, and sees to it that a fence is in it. Nothing, if it is gone.
    async fn look_again(&mut self, channel: &Channel, queue: Waiting) -> Result<Option<Waiting>, String> {
        let Waiting { source, last, mut fenced_at, empty_since } = queue;
        let look = topology::look(&self.channels, &source.queue, self.settings.connect_timeout).await?;
        let Some(look) = look else {
            (self.tell)(&format!("queue \"{}\" is done with, and gone", source.queue));
            return Ok(None);
        };
        if look != last {
            self.report(&source, look);
        }
        let empty_since = (look.ready == 0).then(|| empty_since.unwrap_or_else(Instant::now));
        let patience = PATIENCE_MIN.max(2 * self.settings.delivery_hold);
        if empty_since.is_some_and(|since| since.elapsed() > patience) {
            let (queue, rule) = (&source.queue, self.rule());
            return Err(format!(
                "queue \"{queue}\" is empty, and nobody deletes it: {rule}; then begin again"
            ));
        }
        if empty_since.is_some() && fenced_at.elapsed() > FENCE_INTERVAL {
            self.fence(channel, &source).await?;
            fenced_at = Instant::now();
        }
        Ok(Some(Waiting { source, last: look, fenced_at, empty_since }))
    }

    fn report(&mut self, source: &Source, look: Look) {
        let (queue, ready, consumers) = (&source.queue, look.ready, look.consumers);
        (self.tell)(&format!("queue \"{queue}\": {ready} messages wait, {consumers} consumers"));
    }

    /// Puts a fence into a queue. Nothing may come into it any more when it is deleted: RabbitMQ 3.10 ends the connection of
    /// who publishes to a quorum queue in that moment. So what an instance has bound again meanwhile is unbound again.
    async fn fence(&self, channel: &Channel, source: &Source) -> Result<(), String> {
        topology::unbind(channel, &self.settings, self.from).await?;
        let fence = fence(&source.queue, self.from, Generation(self.settings.partitions));
        let round =
            round::run(channel, &self.settings, std::slice::from_ref(&fence), self.settings.confirm_timeout)
                .await;
        match round.publications.first() {
            // The queue is gone already.
            Some(Publication::Confirmed | Publication::Unroutable) | None => Ok(()),
            Some(Publication::Refused(reason) | Publication::Failed(reason)) => {
                Err(format!("the fence for queue \"{}\" was not taken: {reason}", source.queue))
            }
        }
    }

    /// An instance with the former configuration declares its queues again when they are deleted.
    async fn watch(&mut self) -> Result<(), String> {
        let patience = self.settings.check_interval + self.settings.backoff.delay_max;
        (self.tell)(&format!("all are gone; for {patience:?} it is watched that none comes back"));
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some((source, _)) = self.standing().await?.first() {
                let (queue, rule) = (&source.queue, self.rule());
                return Err(format!(
                    "queue \"{queue}\" is there again, declared by an instance with another configuration, and commands \
                     may be worked on out of their order until it is stopped: {rule}; then begin again"
                ));
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }
}
