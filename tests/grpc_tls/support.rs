//! An adapter behind TLS, and calls to it.

use std::net::SocketAddr;

use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::tls::{Authority, TlsClient, secured};
use harness::{Adapter, DEADLINE, Setup, Upstream};
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Channel;
use uuid::Uuid;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// A principal that may do everything. Its certificate has this name.
pub const BILLING: &str = "spiffe://example.org/billing";

pub fn billing() -> String {
    format!("principals.billing = {{ certificate_names = [\"{BILLING}\"], organizations = [\"*\"] }}")
}

/// An adapter that looks at its files often, and what is around it.
pub struct Place {
    pub upstream: Upstream,
    pub servers: Authority,
    pub clients: Authority,
    pub setup: Setup,
    pub adapter: Adapter,
}

impl Place {
    /// Asks for client certificates if `is_mutual`. `lines` are added to the configuration.
    pub async fn start(is_mutual: bool, lines: &str) -> Self {
        let (upstream, servers, clients) = (Upstream::start().await, Authority::new(), Authority::new());
        let setup = upstream.setup(PROGRAM).config("organizations_check_interval = \"20ms\"").config(lines);
        let setup = secured(setup, &servers.server(), is_mutual.then_some(&clients));
        let adapter = setup.start_ready().await;
        Self { upstream, servers, clients, setup, adapter }
    }

    /// A call that is refused by nothing but TLS.
    pub async fn call(&self, client: &TlsClient) -> Result<(), String> {
        let channel = client.channel(self.adapter.grpc).await.map_err(|fault| format!("{fault:?}"))?;
        self.call_on(channel).await
    }

    pub async fn call_on(&self, channel: Channel) -> Result<(), String> {
        let guest = Uuid::new_v4();
        let call = self.upstream.archive(guest, &guest.to_string());
        let mut client = GuestConnectionServiceClient::new(channel);
        match timeout(DEADLINE, client.archive_guest_connection(call)).await.expect("an answer in time") {
            Ok(_) => Ok(()),
            // It was served: whether the caller may is another's question.
            Err(status) if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) => Ok(()),
            Err(status) => Err(format!("{status:?}")),
        }
    }

    /// What the part `grpc.certificate` says, as soon as its status is as wanted.
    pub async fn certificate(&self, status: &str) -> String {
        let pointer = "/parts/grpc.certificate";
        let body = self
            .adapter
            .readiness(|_, body| body.pointer(pointer).is_some_and(|part| part["status"] == status));
        let part = body.await.pointer(pointer).cloned().unwrap_or_default();
        part["detail"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a series of the metrics is as wanted, and yields its value.
    pub async fn metric(&self, series: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        self.adapter.metric(series, wanted).await
    }
}

/// Reads what a socket says until it is closed, by an end or a reset.
pub async fn rest(socket: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    use tokio::io::AsyncReadExt as _;
    let mut said = Vec::new();
    let reading = async {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = socket.read(&mut chunk).await {
            said.extend_from_slice(&chunk[..count]);
        }
    };
    timeout(DEADLINE, reading).await.expect("the connection is closed");
    said
}

pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    use tokio::io::AsyncWriteExt as _;
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    rest(&mut socket).await
}
