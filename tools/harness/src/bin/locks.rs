//! What the locks of the gRPC door cost, side by side in one run: a call and a handshake, plain, by TLS, by mutual TLS
//! and with bearer tokens.
//!
//! Each way has an adapter of its own; calls go round among them, so that whatever else the machine does falls on all alike. A
//! call is `GetCommand` for a key that is not there: little else than the door. `cargo run --release -p harness --bin locks`
//! after `cargo build --release`. Client and server share the machine, so that a handshake is the cost of both ends.

#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::error::Error;
use std::time::{Duration, Instant};

use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::adapter::secret_file;
use harness::issuer::{AUDIENCE, ISSUER, Issuer, set};
use harness::tls::{Authority, TlsClient, secured};
use harness::{Adapter, Setup, Upstream};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Request};

/// Rounds, and calls of each way in one.
const ROUNDS: usize = 20;
const CALLS: usize = 100;

/// How long connections are made, and by how many at once.
const CONNECTING: Duration = Duration::from_secs(4);
const CONNECTORS: usize = 4;

/// The name in the client's certificate.
const NAME: &str = "spiffe://example.org/locks";

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A way in.
struct Way {
    name: &'static str,
    adapter: Adapter,
    /// Nothing for plaintext.
    tls: Option<TlsClient>,
    /// The bearer token that is shown with each call.
    token: Option<String>,
    caller: GuestConnectionServiceClient<Channel>,
    /// What each call took.
    calls: Vec<Duration>,
    connections_per_second: f64,
}

impl Way {
    async fn open(name: &'static str, adapter: Adapter, tls: Option<TlsClient>) -> Outcome<Self> {
        let channel = match &tls {
            Some(tls) => tls.channel(adapter.grpc).await?,
            None => Channel::from_shared(format!("http://{}", adapter.grpc))?.connect().await?,
        };
        let caller = GuestConnectionServiceClient::new(channel);
        Ok(Self { name, adapter, tls, token: None, caller, calls: Vec::new(), connections_per_second: 0.0 })
    }

    /// The same with a token of `issuer`.
    async fn with_token(
        name: &'static str,
        setup: Setup,
        tls: Option<TlsClient>,
        issuer: &Issuer,
    ) -> Outcome<Self> {
        let keys = secret_file(setup.directory(), "jwks.json", &set(&[issuer]));
        let lines = format!(
            "jwt = {{ issuer = \"{ISSUER}\", audience = [\"{AUDIENCE}\"], keys_file = \"{}\" }}\n\
             principals.token = {{ jwt_subjects = [\"locks\"], organizations = [\"*\"] }}",
            keys.display()
        );
        let way = Self::open(name, setup.config(&lines).start_ready().await, tls).await?;
        Ok(Self { token: Some(issuer.token("locks")), ..way })
    }

    async fn call(&mut self, upstream: &Upstream) -> Outcome<Duration> {
        let mut request = Request::new(upstream.organizations[0].lookup("nobody-sent-this"));
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        }
        let began = Instant::now();
        let answer = self.caller.get_command(request).await;
        let took = began.elapsed();
        match answer {
            Err(status) if status.code() == Code::NotFound => Ok(took),
            other => Err(format!("{}: {other:?}", self.name).into()),
        }
    }

    /// Makes connections one after another, some at once.
    async fn connect(&mut self) -> Outcome {
        let (address, began) = (self.adapter.grpc, Instant::now());
        let mut connectors = JoinSet::new();
        for _ in 0..CONNECTORS {
            let tls = self.tls.clone();
            connectors.spawn(async move {
                let mut count = 0_u32;
                while began.elapsed() < CONNECTING {
                    // With the server's first word it has taken the client in.
                    match &tls {
                        Some(tls) => tls.connect(address).await?.read_u8().await?,
                        None => TcpStream::connect(address).await?.read_u8().await?,
                    };
                    count += 1;
                }
                Ok::<_, std::io::Error>(count)
            });
        }
        let mut count = 0;
        while let Some(ended) = connectors.join_next().await {
            count += ended??;
        }
        self.connections_per_second = f64::from(count) / began.elapsed().as_secs_f64();
        Ok(())
    }

    fn tell(&mut self) {
        self.calls.sort();
        let micros = |percent: usize| self.calls[(self.calls.len() * percent).div_ceil(100) - 1].as_micros();
        let (name, per_second) = (self.name, self.connections_per_second);
        println!("{name:<12} {:>12} {:>12} {:>12} {per_second:>16.0}", micros(50), micros(90), micros(99));
    }
}

#[tokio::main]
async fn main() -> Outcome {
    let program = std::env::current_exe()?.with_file_name("guest-connection-adapter");
    if !program.exists() {
        return Err(format!("{} is missing; `cargo build` makes it", program.display()).into());
    }
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let setup = || upstream.setup(&program);
    let own = authority.client(NAME);
    let principal =
        format!("principals.locks = {{ certificate_names = [\"{NAME}\"], organizations = [\"*\"] }}");
    let tls = secured(setup(), &authority.server(), None);
    let mutual = secured(setup(), &authority.server(), Some(&authority)).config(&principal);
    let with_jwt = secured(setup(), &authority.server(), None);
    let mut ways = vec![
        Way::open("plaintext", setup().start_ready().await, None).await?,
        Way::open("TLS", tls.start_ready().await, Some(TlsClient::new(&authority, None))).await?,
        Way::open("mutual TLS", mutual.start_ready().await, Some(TlsClient::new(&authority, Some(&own))))
            .await?,
        Way::with_token("JWT RS256", setup(), None, &Issuer::rsa("rsa")).await?,
        Way::with_token("JWT ES256", setup(), None, &Issuer::ec("ec")).await?,
        Way::with_token("TLS, RS256", with_jwt, Some(TlsClient::new(&authority, None)), &Issuer::rsa("rsa"))
            .await?,
    ];
    for round in 0..=ROUNDS {
        for way in &mut ways {
            for _ in 0..CALLS {
                let took = way.call(&upstream).await?;
                // The first round is to get warm.
                if round > 0 {
                    way.calls.push(took);
                }
            }
        }
    }
    for way in &mut ways {
        way.connect().await?;
    }
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!("{build} build, {} calls each, one at a time; {CONNECTORS} connect at once\n", ROUNDS * CALLS);
    println!("{:<12} {:>12} {:>12} {:>12} {:>16}", "", "call p50 us", "p90 us", "p99 us", "connections/s");
    ways.iter_mut().for_each(Way::tell);
    Ok(())
}
