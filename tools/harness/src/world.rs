//! Everything that a black-box test needs, in one place: upstream, broker and a running adapter.

use std::path::PathBuf;

use guest_connection_adapter::proto;
use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use lapin::BasicProperties;
use serde_json::Value;
use simulator::Simulator;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::DEADLINE;
use crate::adapter::{Adapter, Setup};
use crate::broker::{Broker, Inbox, Names};
use crate::disk::Disk;
use crate::node::Node;
use crate::organization::Organization;
use crate::proxy::FaultProxy;

/// An upstream that knows some organisations.
pub struct Upstream {
    /// The stand-in of the API.
    pub simulator: Simulator,
    /// The first organisation, which is the only one unless a test asks for more.
    pub requester: Uuid,
    /// All of them.
    pub organizations: Vec<Organization>,
}

impl Upstream {
    /// Starts it on a free port, with one organisation.
    pub async fn start() -> Self {
        Self::start_with(1).await
    }

    /// Starts it on a free port, with `count` organisations.
    pub async fn start_with(count: usize) -> Self {
        let simulator = Simulator::start(simulator::Config::default()).await.expect("the simulator starts");
        let organizations: Vec<_> =
            (0..count).map(|number| Organization::numbered(number, Uuid::now_v7())).collect();
        for organization in &organizations {
            let Organization { client_id, client_secret, id, .. } = organization;
            simulator.register_client(client_id, client_secret, *id);
        }
        let requester = organizations.first().expect("an organisation at least").id;
        Self { simulator, requester, organizations }
    }

    /// An adapter for it.
    #[must_use]
    pub fn setup(&self, program: impl Into<PathBuf>) -> Setup {
        Setup::with_organizations(program, &self.simulator.base_url(), &self.organizations)
    }

    fn first(&self) -> &Organization {
        &self.organizations[0]
    }

    /// A call to archive the connection of `guest`, of the first organisation.
    #[must_use]
    pub fn archive(&self, guest: Uuid, key: &str) -> proto::ArchiveGuestConnectionRequest {
        self.first().archive(guest, key)
    }

    /// A call to unarchive the connection of `guest`, of the first organisation.
    #[must_use]
    pub fn unarchive(&self, guest: Uuid, key: &str) -> proto::UnarchiveGuestConnectionRequest {
        self.first().unarchive(guest, key)
    }

    /// The same as a message on the queue.
    #[must_use]
    pub fn message(&self, guest: Uuid, archived: bool, key: &str) -> Value {
        self.first().message(guest, archived, key)
    }

    /// The command of the first organisation that `adapter` keeps under `key`.
    ///
    /// # Errors
    /// The refusal of `GetCommand`.
    pub async fn command(&self, adapter: &Adapter, key: &str) -> Result<proto::Command, Status> {
        self.command_of(adapter, self.first(), key).await
    }

    /// The command of an organisation that `adapter` keeps under `key`.
    ///
    /// # Errors
    /// The refusal of `GetCommand`.
    pub async fn command_of(
        &self,
        adapter: &Adapter,
        organization: &Organization,
        key: &str,
    ) -> Result<proto::Command, Status> {
        let response = adapter.client().await.get_command(organization.lookup(key)).await?;
        Ok(response.into_inner().command.expect("a command"))
    }

    /// The command under `key`, as soon as it is as wanted.
    pub async fn command_when(
        &self,
        adapter: &Adapter,
        key: &str,
        wanted: impl Fn(&proto::Command) -> bool,
    ) -> proto::Command {
        let found = async {
            loop {
                match self.command(adapter, key).await {
                    Ok(command) if wanted(&command) => return command,
                    _ => crate::look_again().await,
                }
            }
        };
        timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("{key} did not become as wanted"))
    }

    /// The values of the PATCHes that took effect on the connection of `guest`, in order.
    #[must_use]
    pub fn applied(&self, guest: Uuid) -> Vec<bool> {
        let mut entries: Vec<_> = self.simulator.journal();
        entries.retain(|entry| entry.is_patch_of(guest) && entry.applied);
        entries.sort_by_key(|entry| entry.applied_seq);
        entries.iter().filter_map(|entry| entry.archived).collect()
    }

    /// How many PATCHes for the connection of `guest` were received.
    #[must_use]
    pub fn received(&self, guest: Uuid) -> usize {
        self.simulator.journal().iter().filter(|entry| entry.is_patch_of(guest)).count()
    }
}

/// An upstream, a broker and a ready adapter between them, under names of their own.
pub struct World {
    /// The upstream.
    pub upstream: Upstream,
    /// The broker.
    pub broker: Broker,
    /// Names of exchanges and queues.
    pub names: Names,
    /// What the adapter was started with, to start it again.
    pub setup: Setup,
    /// The adapter.
    pub adapter: Adapter,
    /// Events, from the moment when the adapter had declared their exchange.
    pub events: Inbox,
    /// The queue of events, if it outlives the connection.
    lasting: Option<String>,
}

impl World {
    /// Starts everything. `lines` are added to the adapter's configuration.
    pub async fn start(program: &str, lines: &str) -> Self {
        Self::arranged(program, |setup| setup.config(lines)).await
    }

    /// Starts everything; `arrange` completes how the adapter is to be started.
    pub async fn arranged(program: &str, arrange: impl FnOnce(Setup) -> Setup) -> Self {
        Self::before(Upstream::start().await, program, arrange).await
    }

    /// Starts everything, for `count` organisations. `lines` are added to the adapter's configuration.
    pub async fn start_with(count: usize, program: &str, lines: &str) -> Self {
        Self::arranged_with(count, program, |setup| setup.config(lines)).await
    }

    /// Starts everything, for `count` organisations; `arrange` completes how the adapter is to be started.
    pub async fn arranged_with(count: usize, program: &str, arrange: impl FnOnce(Setup) -> Setup) -> Self {
        Self::before(Upstream::start_with(count).await, program, arrange).await
    }

    async fn before(upstream: Upstream, program: &str, arrange: impl FnOnce(Setup) -> Setup) -> Self {
        let (broker, names) = (Broker::connect().await, Names::default());
        let setup = arrange(upstream.setup(program).broker(&broker, &names));
        let adapter = setup.start_ready().await;
        let events = broker.subscribe(&names.events).await;
        Self { upstream, broker, names, setup, adapter, events, lasting: None }
    }

    /// The same on a node of one's own.
    pub async fn start_on(program: &str, node: &Node, lines: &str) -> Self {
        let broker = node.connect().await;
        let address = broker.address();
        Self::start_at(program, broker, &address, lines).await
    }

    /// The same on the broker of the environment, or on a node if one is given, which the adapter, and it alone, finds
    /// behind a proxy.
    pub async fn start_behind(program: &str, node: Option<&Node>, lines: &str) -> (Self, FaultProxy) {
        let broker = match node {
            Some(node) => node.connect().await,
            None => Broker::connect().await,
        };
        let proxy = FaultProxy::start(broker.socket());
        (Self::start_at(program, broker, &proxy.amqp_uri(), lines).await, proxy)
    }

    /// The test is a client of `broker`, the adapter one of `address`. Events are kept over a loss of the connection.
    pub async fn start_at(program: &str, broker: Broker, address: &str, lines: &str) -> Self {
        let (upstream, names) = (Upstream::start().await, Names::default());
        let setup = upstream.setup(program).broker_at(address, &names).config(lines);
        let adapter = setup.start_ready().await;
        let queue = broker.lasting_queue(&names.events).await;
        let events = broker.consume(&queue).await;
        Self { upstream, broker, names, setup, adapter, events, lasting: Some(queue) }
    }

    /// Connects to the broker anew, after it was away. Events that arrived before are not lost.
    pub async fn reconnect(&mut self) {
        let queue = self.lasting.as_deref().expect("a world with a queue of events that lasts");
        self.broker = self.broker.again().await;
        let events = self.broker.consume(queue).await;
        let earlier = std::mem::replace(&mut self.events, events);
        self.events.succeed(earlier);
    }

    /// Starts everything, with a disk below the adapter's store that can fail.
    pub async fn on_disk(program: &str, lines: &str) -> (Self, Disk) {
        let mut disk = None;
        let world = Self::arranged(program, |setup| {
            let (setup, below) = Disk::below(setup.config(lines));
            disk = Some(below);
            setup
        });
        (world.await, disk.expect("it was arranged"))
    }

    /// A gRPC client.
    pub async fn client(&self) -> GuestConnectionServiceClient<Channel> {
        self.adapter.client().await
    }

    /// Publishes a command as JSON, keyed by its guest as producers should.
    pub async fn send(&self, guest: Uuid, body: &Value) {
        self.send_with(guest, BasicProperties::default().with_content_type("application/json".into()), body)
            .await;
    }

    /// The same with properties of one's own.
    pub async fn send_with(&self, guest: Uuid, properties: BasicProperties, body: &Value) {
        let body = serde_json::to_vec(body).expect("JSON");
        self.broker.publish(&self.names, &guest.to_string(), properties, &body).await;
    }

    /// Stops the adapter and asserts that it did so well, and that the upstream saw nothing outside its contract.
    pub async fn end(self) {
        let (status, log) = self.adapter.terminate().await;
        assert!(status.success(), "{status}:\n{}", log.join("\n"));
        assert_eq!(self.upstream.simulator.violations(), Vec::<String>::new());
    }
}
