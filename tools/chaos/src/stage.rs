//! The parts of a run: a broker's node, the simulator, a proxy before each, and the adapter.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::{Adapter, Broker, FaultProxy, Names, Node, Organization, Setup};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use simulator::Simulator;
use tokio::sync::watch;
use tonic::transport::{Channel as GrpcChannel, Endpoint};
use uuid::Uuid;

/// The queue in which events are kept.
pub const EVENTS_QUEUE: &str = "chaos.events";

/// The queue in which replies are kept.
pub const REPLIES_QUEUE: &str = "chaos.replies";

/// How long a client waits for a connection to the adapter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A client of the adapter.
pub type Client = GuestConnectionServiceClient<GrpcChannel>;

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
    /// Between the adapter and the broker.
    pub broker_proxy: FaultProxy,
    /// Between the adapter and the upstream.
    pub upstream_proxy: FaultProxy,
    /// The adapter, while there is one.
    pub adapter: tokio::sync::Mutex<Option<Adapter>>,
    setup: Setup,
    client: watch::Sender<Option<Client>>,
    logs: Mutex<Vec<String>>,
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
    /// Starts everything. `lines` are added to the adapter's configuration.
    pub async fn set(organizations: &[Uuid], lines: &str) -> Self {
        let node = Node::start().await;
        let simulator = Simulator::start(simulator::Config::default()).await.expect("the simulator starts");
        let numbered = |(number, id): (usize, &Uuid)| Organization::numbered(number, *id);
        let organizations: Vec<_> = organizations.iter().enumerate().map(numbered).collect();
        for Organization { client_id, client_secret, id, .. } in &organizations {
            simulator.register_client(client_id, client_secret, *id);
        }
        let broker_proxy = FaultProxy::start(node.address());
        let upstream_proxy = FaultProxy::start(simulator.address());
        let base_url = format!("http://{}/v1-beta", upstream_proxy.address());
        let setup = Setup::with_organizations(program(), &base_url, &organizations)
            .broker_at(&broker_proxy.amqp_uri(), &Names::usual())
            .config(lines);
        let broker_uri = node.uri().to_owned();
        declare(node.connect().await.channel()).await;
        let stage = Self {
            node: tokio::sync::Mutex::new(node),
            broker_uri,
            simulator,
            organizations,
            broker_proxy,
            upstream_proxy,
            adapter: tokio::sync::Mutex::new(None),
            setup,
            client: watch::Sender::new(None),
            logs: Mutex::default(),
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

    /// Starts the adapter. Whether it becomes ready is another matter.
    pub async fn start(&self) {
        let mut place = self.adapter.lock().await;
        let adapter = self.setup.start().await;
        let endpoint = Endpoint::from_shared(format!("http://{}", adapter.grpc)).expect("an address");
        let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy();
        self.client.send_replace(Some(GuestConnectionServiceClient::new(channel)));
        *place = Some(adapter);
    }

    /// Waits until the adapter is ready.
    pub async fn ready(&self) {
        self.adapter.lock().await.as_ref().expect("the adapter runs").ready().await;
    }

    /// Kills the adapter.
    pub async fn kill(&self) {
        let mut place = self.adapter.lock().await;
        if let Some(adapter) = place.take() {
            let log = adapter.kill().await;
            self.keep_log(log, "killed");
        }
    }

    /// Ends the adapter in an orderly way. Yields whether it did so.
    pub async fn terminate(&self) -> bool {
        let mut place = self.adapter.lock().await;
        let Some(adapter) = place.take() else { return true };
        let (status, log) = adapter.terminate().await;
        self.keep_log(log, &format!("ended: {status}"));
        status.success()
    }

    fn keep_log(&self, log: Vec<String>, end: &str) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.extend(log);
        logs.push(format!("---- the adapter was {end}"));
    }

    /// Everything that the adapter has logged, over all its starts.
    pub async fn log(&self) -> Vec<String> {
        let mut log = self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        log.extend(self.adapter.lock().await.as_ref().map(|adapter| adapter.log().all()).unwrap_or_default());
        log
    }

    /// A client of the adapter that was started last.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        self.client.borrow().clone()
    }

    /// The file of the adapter's store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.setup.directory().join("var/adapter.db")
    }

    /// The configuration that the adapter was started with.
    #[must_use]
    pub fn configuration(&self) -> &str {
        self.setup.text()
    }

    /// Where the adapter's files lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.setup.directory()
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
