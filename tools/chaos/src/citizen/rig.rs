//! The parts of one measurement: a simulator, an adapter and a listener for events, under names of their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use harness::{Adapter, Broker, Names, Node, Organization, Setup};
use simulator::{Config, Simulator};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::history::Time;
use crate::stage::{Client, program};

/// How long the API takes for a PATCH.
const API_DELAY: Duration = Duration::from_millis(20);

/// The pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A measurement's parts. Dropping it ends them.
pub struct Rig {
    /// The upstream.
    pub simulator: Simulator,
    /// What makes the load.
    pub loader: Arc<Loader>,
    /// When the event of each key came.
    pub events: Arc<Mutex<HashMap<String, Time>>>,
    adapter: Adapter,
    listening: JoinHandle<()>,
}

/// What is needed to send something.
pub struct Loader {
    /// A client of the adapter.
    pub client: Client,
    /// A client of the broker.
    pub broker: Broker,
    /// The names of exchanges and queues.
    pub names: Names,
    /// For whom commands are sent.
    pub organizations: Vec<Organization>,
}

impl Rig {
    /// Starts everything for `count` organisations. `lines` are added to the adapter's configuration.
    pub async fn set(node: &Node, count: usize, lines: &str) -> Self {
        let simulator = Simulator::start(Config { delay: API_DELAY, ..Config::default() }).await;
        let simulator = simulator.expect("the simulator starts");
        let organizations: Vec<_> =
            (0..count).map(|number| Organization::numbered(number, Uuid::now_v7())).collect();
        for Organization { client_id, client_secret, id, .. } in &organizations {
            simulator.register_client(client_id, client_secret, *id);
        }
        let (broker, names) = (node.connect().await, Names::default());
        let setup = Setup::with_organizations(program(), &simulator.base_url(), &organizations)
            .broker_at(&broker.address(), &names)
            .config("telemetry.log_filter = \"warn,guest_connection_adapter::app=info\"")
            .config(lines);
        let adapter = setup.start_ready().await;
        let events = Arc::default();
        let listening = tokio::spawn(listen(broker.again().await, names.clone(), Arc::clone(&events)));
        let client = adapter.client().await;
        let loader = Arc::new(Loader { client, broker, names, organizations });
        let rig = Self { simulator, loader, events, adapter, listening };
        rig.listens().await;
        rig
    }

    /// Waits until the queue of events is bound: until then they would be held as unroutable. Fetches every token besides.
    async fn listens(&self) {
        for (number, organization) in self.loader.organizations.iter().enumerate() {
            let key = format!("first-{number}");
            let call = organization.archive(Uuid::new_v4(), &key);
            let mut client = self.loader.client.clone();
            client.archive_guest_connection(call).await.expect("an undisturbed call succeeds");
            assert!(
                self.heard(Duration::from_secs(30), |events| events.contains_key(&key)).await,
                "no event"
            );
        }
    }

    /// Waits until the events are as wanted. Yields whether they became so in time.
    pub async fn heard(
        &self,
        deadline: Duration,
        mut wanted: impl FnMut(&HashMap<String, Time>) -> bool,
    ) -> bool {
        let since = Instant::now();
        while !wanted(&self.events.lock().unwrap_or_else(PoisonError::into_inner)) {
            if since.elapsed() > deadline {
                return false;
            }
            sleep(LOOK_INTERVAL).await;
        }
        true
    }

    /// When the event of each key came.
    #[must_use]
    pub fn arrivals(&self) -> HashMap<String, Time> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Messages that wait in the command queue.
    pub async fn waiting(&self) -> u32 {
        self.loader.broker.depth(&self.loader.names.commands).await
    }

    /// Dead letters so far.
    pub async fn dead_letters(&self) -> u32 {
        self.loader.broker.depth(&self.loader.names.dead_letters).await
    }

    /// Ends everything, whatever is still to do, and yields what the simulator found wrong.
    pub async fn end(self) -> Vec<String> {
        let violations = self.simulator.violations();
        self.listening.abort();
        self.adapter.kill().await;
        let Loader { broker, names, .. } = &*self.loader;
        for queue in [&names.commands, &names.dead_letters] {
            let _ = broker.channel().queue_delete(queue.as_str().into(), <_>::default()).await;
        }
        violations
    }
}

async fn listen(broker: Broker, names: Names, events: Arc<Mutex<HashMap<String, Time>>>) {
    let mut inbox = broker.subscribe(&names.events).await;
    loop {
        let Some(event) = inbox.next_within(Duration::from_secs(3600)).await else { return };
        let now = Utc::now();
        if let Some(key) = event.json()["data"]["command"]["idempotency_key"].as_str() {
            let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
            events.entry(key.to_owned()).or_insert(now);
        }
    }
}
