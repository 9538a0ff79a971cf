use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as Told;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt as _;

use crate::grpc::proto;
use crate::grpc::proto::guest_connection_service_client::GuestConnectionServiceClient;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// Stands for the service: archiving ends when it is released, unarchiving never, and looking up at once.
#[derive(Clone, Default)]
struct Fake {
    begun: Arc<Notify>,
    release: Arc<Notify>,
}

#[tonic::async_trait]
impl GuestConnectionService for Fake {
    async fn archive_guest_connection(
        &self,
        _: Request<proto::ArchiveGuestConnectionRequest>,
    ) -> Result<Response<proto::ArchiveGuestConnectionResponse>, Status> {
        self.begun.notify_one();
        self.release.notified().await;
        Ok(Response::new(proto::ArchiveGuestConnectionResponse::default()))
    }

    async fn unarchive_guest_connection(
        &self,
        _: Request<proto::UnarchiveGuestConnectionRequest>,
    ) -> Result<Response<proto::UnarchiveGuestConnectionResponse>, Status> {
        self.begun.notify_one();
        pending().await
    }

    async fn get_command(
        &self,
        _: Request<proto::GetCommandRequest>,
    ) -> Result<Response<proto::GetCommandResponse>, Status> {
        Ok(Response::new(proto::GetCommandResponse::default()))
    }
}

struct Door {
    fake: Fake,
    readiness: Readiness,
    shutdown: Shutdown,
    address: SocketAddr,
    served: JoinHandle<Result<(), Error>>,
}

impl Door {
    async fn open() -> Self {
        Self::open_with(Settings::default()).await
    }

    async fn open_with(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (fake, readiness, shutdown) = (Fake::default(), Readiness::default(), Shutdown::default());
        let settings = Settings { drain_notice: Duration::ZERO, ..settings };
        let listener = Listener { socket: listener, identity: None };
        let callers = Callers::new(None);
        let served = run(fake.clone(), settings, listener, callers, readiness.clone(), shutdown.clone());
        Self { fake, readiness, shutdown, address, served: tokio::spawn(served) }
    }

    async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).expect("an address");
        endpoint.connect().await.expect("connected")
    }

    async fn closed(self) {
        timeout(PATIENCE, self.served).await.expect("in time").expect("joined").expect("closed well");
    }
}

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_follows_readiness_until_the_drain_ends_its_watches() {
    let door = Door::open().await;
    let mut health = HealthClient::new(door.channel().await);
    for service in ["", SERVICE_NAME] {
        let mut watch = health.watch(check(service)).await.expect("watched").into_inner();
        let store = door.readiness.part("store");
        let mut until = async |wanted: Told| {
            timeout(PATIENCE, async {
                while watch.next().await.expect("goes on").expect("a status").status() != wanted {}
            })
            .await
            .expect("in time");
        };
        until(Told::NotServing).await;
        store.set(Condition::Degraded("slow".to_owned()));
        until(Told::Serving).await;
        store.set(Condition::NotReady("gone".to_owned()));
        until(Told::NotServing).await;
        store.set(Condition::Ready);
        until(Told::Serving).await;
    }
    let mut watch = health.watch(check(SERVICE_NAME)).await.expect("watched").into_inner();
    door.shutdown.draining.cancel();
    let last = timeout(PATIENCE, async {
        let mut last = None;
        while let Some(Ok(response)) = watch.next().await {
            last = Some(response.status());
        }
        last
    });
    assert_eq!(last.await.expect("in time"), Some(Told::NotServing));
    assert_eq!(door.readiness.conditions()["grpc"], Condition::NotReady("draining".to_owned()));
    door.closed().await;
}

#[tokio::test]
async fn a_drain_lets_what_is_under_way_end() {
    let door = Door::open().await;
    let mut client = GuestConnectionServiceClient::new(door.channel().await);
    let call = tokio::spawn(async move {
        client.archive_guest_connection(proto::ArchiveGuestConnectionRequest::default()).await
    });
    timeout(PATIENCE, door.fake.begun.notified()).await.expect("begun");
    door.shutdown.draining.cancel();
    door.fake.release.notify_one();
    timeout(PATIENCE, call).await.expect("in time").expect("joined").expect("answered");
    door.closed().await;
}

#[tokio::test]
async fn a_stop_waits_for_nothing() {
    let door = Door::open().await;
    let mut client = GuestConnectionServiceClient::new(door.channel().await);
    let call = tokio::spawn(async move {
        client.unarchive_guest_connection(proto::UnarchiveGuestConnectionRequest::default()).await
    });
    timeout(PATIENCE, door.fake.begun.notified()).await.expect("begun");
    door.shutdown.draining.cancel();
    door.shutdown.stopped.cancel();
    door.closed().await;
    call.abort();
}

#[tokio::test]
async fn a_message_too_large_is_refused_and_the_connection_goes_on() {
    let door = Door::open().await;
    let mut client = GuestConnectionServiceClient::new(door.channel().await);
    let request = proto::ArchiveGuestConnectionRequest {
        idempotency_key: "k".repeat(Settings::default().message_length_max + 1),
        ..Default::default()
    };
    let status = client.archive_guest_connection(request).await.expect_err("refused");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.get_error_details().error_info().expect("an ErrorInfo").reason, "BODY_TOO_LARGE");
    client.get_command(proto::GetCommandRequest::default()).await.expect("the same connection serves");
}

#[tokio::test]
async fn reflection_shows_the_services_and_all_that_they_need() {
    let door = Door::open().await;
    let mut client = ServerReflectionClient::new(door.channel().await);
    let questions = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol(SERVICE_NAME.to_owned()),
        MessageRequest::FileByFilename("google/protobuf/timestamp.proto".to_owned()),
    ];
    let requests = questions
        .map(|question| ServerReflectionRequest { message_request: Some(question), ..Default::default() });
    let answers =
        client.server_reflection_info(futures::stream::iter(requests)).await.expect("answered").into_inner();
    let answers: Vec<_> =
        answers.map(|answer| answer.expect("no error").message_response.expect("an answer")).collect().await;
    let [
        MessageResponse::ListServicesResponse(list),
        MessageResponse::FileDescriptorResponse(_),
        MessageResponse::FileDescriptorResponse(_),
    ] = answers.as_slice()
    else {
        panic!("{answers:?}")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in [SERVICE_NAME, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn a_connection_that_is_old_ends_and_its_call_is_answered() {
    let settings = Settings { connection_age_max: Duration::from_millis(300), ..Settings::default() };
    let door = Door::open_with(settings).await;
    let mut idle = tokio::net::TcpStream::connect(door.address).await.expect("connected");
    idle.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
    let mut client = GuestConnectionServiceClient::new(door.channel().await);
    let call = tokio::spawn(async move {
        client.archive_guest_connection(proto::ArchiveGuestConnectionRequest::default()).await
    });
    timeout(PATIENCE, door.fake.begun.notified()).await.expect("begun");
    let mut said = Vec::new();
    let goaway = async {
        while !said.windows(4).any(|bytes| bytes == [7, 0, 0, 0]) {
            if idle.read_buf(&mut said).await.expect("read") == 0 {
                break;
            }
        }
    };
    let told = timeout(PATIENCE, goaway).await;
    assert!(told.is_ok(), "the idle connection is told to go: {said:?}");
    door.fake.release.notify_one();
    timeout(PATIENCE, call).await.expect("in time").expect("joined").expect("answered");
}
