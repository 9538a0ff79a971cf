//! The gRPC contract with the PATCH behind it and nothing else.

use guest_connection_adapter::proto;
use guest_connection_adapter::proto::guest_connection_service_server::{
    GuestConnectionService, GuestConnectionServiceServer,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::Api;
use crate::Outcome;

struct Bare(Api);

impl Bare {
    async fn patch(&self, guest: &str, archived: bool) -> Result<(), Status> {
        let body =
            self.0.patch(guest, archived).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let read: Result<serde_json::Value, _> = serde_json::from_slice(&body);
        read.map(drop).map_err(|error| Status::internal(error.to_string()))
    }
}

#[tonic::async_trait]
impl GuestConnectionService for Bare {
    async fn archive_guest_connection(
        &self,
        request: Request<proto::ArchiveGuestConnectionRequest>,
    ) -> Result<Response<proto::ArchiveGuestConnectionResponse>, Status> {
        self.patch(&request.into_inner().guest_organization_id, true).await?;
        Ok(Response::new(proto::ArchiveGuestConnectionResponse::default()))
    }

    async fn unarchive_guest_connection(
        &self,
        request: Request<proto::UnarchiveGuestConnectionRequest>,
    ) -> Result<Response<proto::UnarchiveGuestConnectionResponse>, Status> {
        self.patch(&request.into_inner().guest_organization_id, false).await?;
        Ok(Response::new(proto::UnarchiveGuestConnectionResponse::default()))
    }

    async fn get_command(
        &self,
        _: Request<proto::GetCommandRequest>,
    ) -> Result<Response<proto::GetCommandResponse>, Status> {
        Err(Status::unimplemented("nothing is tracked"))
    }
}

/// Serves until it is stopped.
pub async fn run(api: Api) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ready http://{}", listener.local_addr()?);
    let service = GuestConnectionServiceServer::new(Bare(api));
    Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)).await?;
    Ok(())
}
