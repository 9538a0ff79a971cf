//! One instance of the adapter, and a proxy on each of its ways.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::{Adapter, DEADLINE, FaultProxy, Setup};
use tokio::sync::watch;
use tokio::time::{Instant as Moment, sleep};
use tonic::transport::{Channel as GrpcChannel, Endpoint};
use uuid::Uuid;

/// How long a client waits for a connection to the adapter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The wait before an instance is started again that has ended at its start, as a supervisor waits.
const START_AGAIN_DELAY: Duration = Duration::from_millis(200);

/// The last part of the address from which the first instance comes to the upstream; those of the others follow.
const SOURCE: u8 = 10;

/// A client of the adapter.
pub type Client = GuestConnectionServiceClient<GrpcChannel>;

/// The loopback address from which an instance comes to the upstream.
#[must_use]
pub fn source(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, SOURCE + u8::try_from(number).expect("few instances"))
}

/// The instance that comes from `address`.
#[must_use]
pub fn at_source(address: Option<IpAddr>) -> Option<usize> {
    match address? {
        IpAddr::V4(address) if address.octets()[..3] == [127, 0, 0] => {
            address.octets()[3].checked_sub(SOURCE).map(usize::from)
        }
        _ => None,
    }
}

/// Where an instance finds the others.
pub struct Surroundings {
    /// The broker.
    pub broker: SocketAddr,
    /// The upstream.
    pub upstream: SocketAddr,
    /// The database, if it has one.
    pub database: Option<SocketAddr>,
}

/// An instance.
pub struct Instance {
    /// Between it and the broker.
    pub broker_proxy: FaultProxy,
    /// Between it and the upstream.
    pub upstream_proxy: FaultProxy,
    /// Between it and its database, if it has one.
    pub database_proxy: Option<FaultProxy>,
    /// Its process, while there is one.
    pub adapter: tokio::sync::Mutex<Option<Adapter>>,
    /// The name by which the others know it, as far as that could be learnt.
    pub id: Mutex<Option<Uuid>>,
    setup: Setup,
    client: watch::Sender<Option<Client>>,
    logs: Mutex<Vec<String>>,
}

impl Instance {
    /// Sets up an instance. `setup` makes its configuration of its proxies.
    pub fn new(
        number: usize,
        surroundings: &Surroundings,
        setup: impl FnOnce(&FaultProxy, &FaultProxy, Option<&FaultProxy>) -> Setup,
    ) -> Self {
        let broker_proxy = FaultProxy::start(surroundings.broker);
        let upstream_proxy = FaultProxy::start_from(surroundings.upstream, source(number));
        let database_proxy = surroundings.database.map(FaultProxy::start);
        let setup = setup(&broker_proxy, &upstream_proxy, database_proxy.as_ref());
        Self {
            broker_proxy,
            upstream_proxy,
            database_proxy,
            adapter: tokio::sync::Mutex::new(None),
            id: Mutex::default(),
            setup,
            client: watch::Sender::new(None),
            logs: Mutex::default(),
        }
    }

    /// Starts it. Whether it becomes ready is another matter. One whose database is away ends, and is started again.
    pub async fn start(&self) {
        let mut place = self.adapter.lock().await;
        let since = Moment::now();
        let adapter = loop {
            match self.setup.try_start().await {
                Ok(adapter) => break adapter,
                Err(log) if self.database_proxy.is_some() && since.elapsed() < DEADLINE => {
                    self.keep_log(log, "not started");
                    sleep(START_AGAIN_DELAY).await;
                }
                Err(log) => panic!("the adapter did not start:\n{}", log.join("\n")),
            }
        };
        let endpoint = Endpoint::from_shared(format!("http://{}", adapter.grpc)).expect("an address");
        let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy();
        self.client.send_replace(Some(GuestConnectionServiceClient::new(channel)));
        *place = Some(adapter);
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        self.adapter.lock().await.as_ref().expect("the adapter runs").ready().await;
    }

    /// Waits until it takes calls. It may take no messages for a while: so much may be left to be done that nothing more is
    /// taken in, for organisations that are sent for slowly.
    pub async fn takes_calls(&self) {
        self.adapter.lock().await.as_ref().expect("the adapter runs").takes_calls().await;
    }

    /// Kills it.
    pub async fn kill(&self) {
        let mut place = self.adapter.lock().await;
        if let Some(adapter) = place.take() {
            let log = adapter.kill().await;
            self.keep_log(log, "killed");
        }
    }

    /// Ends it in an orderly way. Yields whether it did so.
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

    /// Everything that it has logged, over all its starts.
    pub async fn log(&self) -> Vec<String> {
        let mut log = self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        log.extend(self.adapter.lock().await.as_ref().map(|adapter| adapter.log().all()).unwrap_or_default());
        log
    }

    /// What it says of itself: its readiness and its metrics.
    pub async fn standing(&self) -> String {
        let place = self.adapter.lock().await;
        let Some(adapter) = place.as_ref() else { return "it does not run".to_owned() };
        let mut text = String::new();
        for path in ["/readyz", "/metrics"] {
            let answer = harness::http::get(adapter.admin, path).await;
            writeln!(text, "{path}: {answer:?}").expect("a string");
        }
        text.replace("\\n", "\n")
    }

    /// A client of the process that was started last.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        self.client.borrow().clone()
    }

    /// The file of its store, if it has no database.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.setup.store()
    }

    /// The configuration that it was started with.
    #[must_use]
    pub fn configuration(&self) -> &str {
        self.setup.text()
    }

    /// Where its files lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.setup.directory()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_known_by_where_it_comes_from() {
        for number in 0..5 {
            assert_eq!(at_source(Some(source(number).into())), Some(number));
        }
        assert_eq!(at_source(Some(Ipv4Addr::LOCALHOST.into())), None);
        assert_eq!(at_source(None), None);
    }
}
