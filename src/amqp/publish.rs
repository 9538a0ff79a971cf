//! The publisher: events and dead letters on one connection, replies on another.

use std::sync::Arc;

use futures::future::{BoxFuture, join};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::depth::Depths;
use super::lane::{Lane, Purpose};
use super::link::Link;
use super::render::{Publishing, render};
use super::settings::Settings;
use crate::domain::message::Message;
use crate::service::ports::{Publication, Publisher};
use crate::service::readiness::{Part, Readiness};

/// The part of readiness for events and dead letters.
pub const PUBLISH_PART: &str = "amqp.publish";

/// The part of readiness for replies.
pub const REPLY_PART: &str = "amqp.reply";

/// Replies have few headers, of known lengths.
const REPLY_FRAME_MAX: u32 = 16 * 1024;

/// Publishes to the broker. Cloning shares it. Nothing is published unless [`Self::run`] runs.
#[derive(Debug, Clone)]
pub struct BrokerPublisher {
    settings: Arc<Settings>,
    publish: Arc<Lane>,
    reply: Arc<Lane>,
    revivals: Arc<watch::Sender<()>>,
    parts: (Part, Part),
}

impl BrokerPublisher {
    /// A publisher, entered into `readiness`.
    #[must_use]
    pub fn new(settings: Arc<Settings>, readiness: &Readiness) -> Self {
        let revivals = Arc::new(watch::Sender::new(()));
        let parts = (readiness.part(PUBLISH_PART), readiness.part(REPLY_PART));
        let lane = |purpose, part: &Part| {
            Arc::new(Lane::new(Arc::clone(&settings), purpose, part.clone(), Arc::clone(&revivals)))
        };
        Self {
            publish: lane(Purpose::Publish, &parts.0),
            reply: lane(Purpose::Reply, &parts.1),
            revivals,
            parts,
            settings,
        }
    }

    /// Keeps both connections up until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let link = |purpose, part: &Part| Link::new(Arc::clone(&self.settings), purpose, part.clone());
        let depths = Depths::default();
        depths.observe();
        let reply = link("reply", &self.parts.1).with_frame_max(REPLY_FRAME_MAX);
        let keeping = join(
            self.publish.keep(link("publish", &self.parts.0), shutdown.clone()),
            self.reply.keep(reply, shutdown),
        );
        tokio::select! {
            _ = keeping => {}
            () = depths.run(&self.settings, self.publish.connection()) => {}
        }
    }

    /// Publishes one message that is not of the outbox.
    pub(super) async fn publish_alone(&self, purpose: Purpose, publishing: &Publishing) -> Publication {
        let lane = match purpose {
            Purpose::Publish => &self.publish,
            Purpose::Reply => &self.reply,
        };
        let publications = lane.publish(std::slice::from_ref(publishing), None).await;
        publications.into_iter().next().unwrap_or_else(|| Publication::Failed("nothing was sent".to_owned()))
    }

    async fn publish_all(&self, messages: Vec<Arc<Message>>, until: Option<Instant>) -> Vec<Publication> {
        let mut publications: Vec<_> = messages.iter().map(|_| None).collect();
        let mut batches = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
        for (index, message) in messages.iter().enumerate() {
            let lane = usize::from(matches!(**message, Message::Reply(_)));
            match render(message, &self.settings) {
                Ok(publishing) => {
                    batches[lane].0.push(index);
                    batches[lane].1.push(publishing);
                }
                Err(reason) => publications[index] = Some(Publication::Refused(reason)),
            }
        }
        let [publish, reply] = &batches;
        let (published, replied) =
            join(self.publish.publish(&publish.1, until), self.reply.publish(&reply.1, until)).await;
        let answers = publish.0.iter().zip(published).chain(reply.0.iter().zip(replied));
        for (index, publication) in answers {
            publications[*index] = Some(publication);
        }
        let missing = || Publication::Failed("nothing was sent".to_owned());
        publications.into_iter().map(|publication| publication.unwrap_or_else(missing)).collect()
    }
}

impl Publisher for BrokerPublisher {
    fn revivals(&self) -> watch::Receiver<()> {
        self.revivals.subscribe()
    }

    fn publish(
        &self,
        messages: Vec<Arc<Message>>,
        until: Option<Instant>,
    ) -> BoxFuture<'_, Vec<Publication>> {
        Box::pin(self.publish_all(messages, until))
    }
}
