//! The parts of a run: a broker's node, the simulator, a database's server if there are several instances, and these.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use chrono::Utc;
use harness::{Broker, Names, Node, Organization, Server, Setup};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use simulator::Simulator;
use uuid::Uuid;

pub use crate::instance::{Client, Instance};

use crate::history::KillSeen;
use crate::instance::Surroundings;
use crate::ledger::Ledger;
use crate::plan::Cluster;

/// The queue in which events are kept.
pub const EVENTS_QUEUE: &str = "chaos.events";

/// The queue in which replies are kept.
pub const REPLIES_QUEUE: &str = "chaos.replies";

/// The parts.
pub struct Stage {
    /// The broker's node.
    pub node: tokio::sync::Mutex<Node>,
    /// Where clients but the adapter find the broker.
    pub broker_uri: String,
    /// The upstream.
    pub simulator: Simulator,
    /// The organisations that something is asked for.
    pub organizations: Vec<Organization>,
    /// The server of the database that several instances share.
    pub database: Option<tokio::sync::Mutex<Server>>,
    /// What stands in that database.
    pub ledger: Option<Ledger>,
    /// The instances.
    pub instances: Vec<Instance>,
    cluster: Cluster,
    /// The greatest name of an instance that is known, while none is being started.
    newest: tokio::sync::Mutex<Uuid>,
    kills: Mutex<Vec<KillSeen>>,
}

/// The adapter's program: it lies beside the one that runs, or one folder above in a test.
///
/// # Panics
/// It has not been built.
#[must_use]
pub fn program() -> PathBuf {
    let own = std::env::current_exe().expect("the path of this program");
    let mut folders = own.ancestors().skip(1).take(2);
    let found = folders.find_map(|folder| {
        let program = folder.join("guest-connection-adapter");
        program.is_file().then_some(program)
    });
    found.expect("the adapter's program is missing: cargo build --workspace --bins")
}

impl Stage {
    /// Starts everything, with one instance. `lines` are added to its configuration.
    pub async fn set(organizations: &[Uuid], lines: &str) -> Self {
        Self::with(organizations, lines, Cluster::ALONE).await
    }

    /// The same with as many instances as wanted.
    pub async fn with(organizations: &[Uuid], lines: &str, cluster: Cluster) -> Self {
        let node = Node::start().await;
        let simulator = Simulator::start(simulator::Config::default()).await.expect("the simulator starts");
        let numbered = |(number, id): (usize, &Uuid)| Organization::numbered(number, *id);
        let organizations: Vec<_> = organizations.iter().enumerate().map(numbered).collect();
        for Organization { client_id, client_secret, id, .. } in &organizations {
            simulator.register_client(client_id, client_secret, *id);
        }
        let server = if cluster.is_shared() { Some(Server::start().await) } else { None };
        let surroundings = Surroundings {
            broker: node.address(),
            upstream: simulator.address(),
            database: server.as_ref().map(Server::address),
        };
        let instance = |number| {
            Instance::new(number, &surroundings, |broker, upstream, database| {
                let base_url = format!("http://{}/v1-beta", upstream.address());
                let setup = Setup::with_organizations(program(), &base_url, &organizations)
                    .broker_at(&broker.amqp_uri(), &Names::usual())
                    .config(lines);
                match (&server, database) {
                    (Some(server), Some(proxy)) => {
                        setup.config(&format!("store.url = \"{}\"", server.url_at(proxy.address())))
                    }
                    _ => setup,
                }
            })
        };
        let instances = (0..cluster.instances).map(instance).collect();
        let broker_uri = node.uri().to_owned();
        declare(node.connect().await.channel()).await;
        let stage = Self {
            node: tokio::sync::Mutex::new(node),
            broker_uri,
            simulator,
            organizations,
            ledger: server.as_ref().map(|server| Ledger::at(server.url())),
            database: server.map(tokio::sync::Mutex::new),
            instances,
            cluster,
            newest: tokio::sync::Mutex::new(Uuid::nil()),
            kills: Mutex::default(),
        };
        stage.start().await;
        stage.ready().await;
        stage
    }

    /// The first organisation.
    #[must_use]
    pub fn requester(&self) -> Uuid {
        self.organizations[0].id
    }

    /// Starts every instance.
    pub async fn start(&self) {
        for instance in &self.instances {
            self.start_one(instance).await;
        }
    }

    /// Starts an instance, and learns by which name the others know it, if that can be learnt now.
    pub async fn start_one(&self, instance: &Instance) {
        let Some(ledger) = &self.ledger else { return instance.start().await };
        // One after another, so that it is plain whose the new name is.
        let mut newest = self.newest.lock().await;
        let before = ledger.newest_instance().await;
        instance.start().await;
        let id = match before {
            Some(before) => ledger.instance_after(before.max(*newest)).await,
            None => None,
        };
        *newest = newest.max(id.unwrap_or_default());
        *instance.id.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }

    /// Waits until every instance is ready.
    pub async fn ready(&self) {
        for instance in &self.instances {
            instance.ready().await;
        }
    }

    /// Waits until every instance takes calls.
    pub async fn takes_calls(&self) {
        for instance in &self.instances {
            instance.takes_calls().await;
        }
    }

    /// Kills an instance, and notes what it was to publish.
    pub async fn kill(&self, number: usize) {
        let instance = &self.instances[number];
        let id = *instance.id.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = match (&self.ledger, id) {
            (Some(ledger), Some(id)) => ledger.slots(id).await,
            _ => Vec::new(),
        };
        let at = Utc::now();
        instance.kill().await;
        let kill = KillSeen { instance: number, at, slots };
        self.kills.lock().unwrap_or_else(PoisonError::into_inner).push(kill);
    }

    /// The instances that were killed.
    #[must_use]
    pub fn kills(&self) -> Vec<KillSeen> {
        self.kills.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends every instance in an orderly way. Yields whether all did so.
    pub async fn terminate(&self) -> bool {
        let ended = self.instances.iter().map(Instance::terminate);
        futures::future::join_all(ended).await.into_iter().all(|well| well)
    }

    /// A client of an instance.
    #[must_use]
    pub fn client_of(&self, number: usize) -> Option<Client> {
        self.instances[number % self.instances.len()].client()
    }

    /// A client of the first instance.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        self.client_of(0)
    }

    /// The queues that commands come by.
    #[must_use]
    pub fn command_queues(&self) -> Vec<String> {
        let queue = Names::usual().commands;
        match self.cluster.partitions {
            0 => vec![queue],
            count => (0..count).map(|number| format!("{queue}.{count}.{number}")).collect(),
        }
    }

    /// A new client of the broker.
    pub async fn broker(&self) -> Broker {
        Broker::connect_to(&self.broker_uri).await
    }
}

/// Declares what keeps events and replies until they are fetched, over every restart of the broker.
async fn declare(channel: &Channel) {
    let events = Names::usual().events;
    let durable = ExchangeDeclareOptions { durable: true, ..<_>::default() };
    let declared =
        channel.exchange_declare(events.as_str().into(), ExchangeKind::Topic, durable, FieldTable::default());
    declared.await.expect("the exchange of events");
    for queue in [EVENTS_QUEUE, REPLIES_QUEUE] {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let durable = QueueDeclareOptions { durable: true, ..<_>::default() };
        channel.queue_declare(queue.into(), durable, arguments).await.expect("a queue");
    }
    bind_events(channel).await;
}

/// Lets events come into their queue.
pub async fn bind_events(channel: &Channel) {
    let (exchange, options, arguments) =
        (Names::usual().events, QueueBindOptions::default(), FieldTable::default());
    let bound =
        channel.queue_bind(EVENTS_QUEUE.into(), exchange.as_str().into(), "#".into(), options, arguments);
    bound.await.expect("bound");
}

/// Lets no more events come into their queue.
pub async fn unbind_events(channel: &Channel) {
    let (exchange, arguments) = (Names::usual().events, FieldTable::default());
    let unbound = channel.queue_unbind(EVENTS_QUEUE.into(), exchange.as_str().into(), "#".into(), arguments);
    unbound.await.expect("unbound");
}
