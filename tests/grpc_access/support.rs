//! Issuers of tokens, and an adapter that asks for them.

use guest_connection_adapter::proto;
use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::adapter::{replace_file, secret_file};
pub use harness::issuer::{AUDIENCE, ISSUER, Issuer, claims, claims_with, now, set};
use harness::{Adapter, Organization, Setup, Upstream};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// Below the adapter's directory.
pub const KEYS: &str = "jwks.json";

pub type Client = GuestConnectionServiceClient<Channel>;

/// An upstream with two organisations, and a running adapter that asks who calls: `first` and `second` have one
/// organisation each, `reader` may only look at the first one's commands, `operator` may do anything.
pub struct House {
    pub upstream: Upstream,
    pub setup: Setup,
    pub adapter: Adapter,
    pub issuer: Issuer,
}

const PRINCIPALS: &str = r#"
organizations_check_interval = "50ms"
jwt.issuer = "https://idp.example.org/"
jwt.audience = ["another", "guest-connection-adapter"]
principals.first = { jwt_subjects = ["first"], organizations = ["test"] }
principals.second = { jwt_subjects = ["second"], organizations = ["test-1"] }
principals.reader = { jwt_subjects = ["reader"], organizations = ["test"], methods = ["get"] }
principals.operator = { jwt_subjects = ["operator"], organizations = ["*"] }
"#;

/// How an adapter is started that takes its keys from a file with `keys`.
pub fn setup(upstream: &Upstream, keys: &str, lines: &str) -> Setup {
    let setup = upstream.setup(PROGRAM).config(PRINCIPALS);
    let file = secret_file(setup.directory(), KEYS, keys);
    setup.config(&format!("jwt.keys_file = \"{}\"", file.display())).config(lines)
}

/// How one is started that gets them from `url`.
pub fn setup_with_url(upstream: &Upstream, url: &str, lines: &str) -> Setup {
    upstream.setup(PROGRAM).config(PRINCIPALS).config(&format!("jwt.jwks_url = \"{url}\"")).config(lines)
}

impl House {
    pub async fn start(lines: &str) -> Self {
        let issuer = Issuer::rsa("key-1");
        let upstream = Upstream::start_with(2).await;
        let setup = setup(&upstream, &set(&[&issuer]), lines);
        let adapter = setup.start_ready().await;
        Self { upstream, setup, adapter, issuer }
    }

    pub fn organization(&self, number: usize) -> &Organization {
        &self.upstream.organizations[number]
    }

    pub fn replace_keys(&self, keys: &str) {
        replace_file(&self.setup.directory().join(KEYS), keys);
    }

    /// Archives a connection of the first organisation as whom the token names.
    pub async fn archive(
        &self,
        token: &str,
        key: &str,
    ) -> Result<proto::ArchiveGuestConnectionResponse, Status> {
        archive(&mut self.adapter.client().await, token, self.upstream.archive(Uuid::new_v4(), key)).await
    }

    /// How often calls were refused for each reason, as the metrics say.
    pub async fn refused(&self, reason: &str) -> u64 {
        let text = self.adapter.metrics().await;
        let label = format!("reason=\"{reason}\"");
        let mut lines = text.lines().filter(|line| line.starts_with("adapter_grpc_unauthenticated_total{"));
        let line = lines.find(|line| line.contains(&label));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    pub async fn end(self) {
        let (status, log) = self.adapter.terminate().await;
        assert!(status.success(), "{status}:\n{}", log.join("\n"));
        assert_eq!(self.upstream.simulator.violations(), Vec::<String>::new());
    }
}

/// `message` with this token.
pub fn bearing<T>(token: &str, message: T) -> Request<T> {
    authorized(&format!("Bearer {token}"), message)
}

pub fn authorized<T>(authorization: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", MetadataValue::try_from(authorization).unwrap());
    request
}

pub async fn archive(
    client: &mut Client,
    token: &str,
    message: proto::ArchiveGuestConnectionRequest,
) -> Result<proto::ArchiveGuestConnectionResponse, Status> {
    client.archive_guest_connection(bearing(token, message)).await.map(tonic::Response::into_inner)
}

pub async fn look_up(
    client: &mut Client,
    token: &str,
    question: proto::GetCommandRequest,
) -> Result<proto::Command, Status> {
    let answer = client.get_command(bearing(token, question)).await?;
    Ok(answer.into_inner().command.expect("a command"))
}

pub fn by_id(id: &str) -> proto::GetCommandRequest {
    proto::GetCommandRequest { lookup: Some(proto::get_command_request::Lookup::CommandId(id.to_owned())) }
}

pub fn reason(status: &Status) -> (Code, String) {
    (status.code(), status.get_details_error_info().expect("details").reason)
}

pub fn unauthenticated() -> (Code, String) {
    (Code::Unauthenticated, "UNAUTHENTICATED".to_owned())
}

pub fn not_permitted() -> (Code, String) {
    (Code::PermissionDenied, "NOT_PERMITTED".to_owned())
}

/// All that a caller sees of a refusal but the time.
pub fn whole(status: &Status) -> (Code, String, Vec<u8>, Vec<String>) {
    let metadata = status.metadata().clone().into_headers();
    let mut names: Vec<_> = metadata.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    names.retain(|line| !line.starts_with("date:"));
    names.sort();
    (status.code(), status.message().to_owned(), status.details().to_vec(), names)
}
