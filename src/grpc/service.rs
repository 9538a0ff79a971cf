//! The three RPCs.

use std::future::Future;

use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::records;
use crate::domain::Timestamp;
use crate::domain::access::{AskedBy, Method};
use crate::domain::command::{Command, OrganizationId};
use crate::domain::error::{Reason, Refusal};
use crate::domain::record::{CommandRecord, Door, State};
use crate::service::archiver::{Answer, Archiver, Submission};
use crate::service::tally;
use crate::telemetry::span::Span;

use super::admission::Admission;
use super::call::Arrival;
use super::callers::Caller;
use super::convert::{self, Lookup, Success, Wish};
use super::deadline::{self, Bounds};
use super::proto;
use super::proto::guest_connection_service_server::GuestConnectionService;
use super::status::{self, Subject, resource};

/// The service of the contract, over the pipeline.
#[derive(Clone)]
pub struct GuestConnections {
    archiver: Archiver,
    admission: Admission,
    bounds: Bounds,
}

impl GuestConnections {
    /// The service, over `archiver`.
    #[must_use]
    pub const fn new(archiver: Archiver, admission: Admission, bounds: Bounds) -> Self {
        Self { archiver, admission, bounds }
    }

    /// Archives or unarchives: the one path of both RPCs.
    async fn change<R: Into<Wish>, T: From<Success> + Send + 'static>(
        &self,
        request: Request<R>,
    ) -> Result<Response<T>, Status> {
        let answer_by = self.answer_by(&request)?;
        let caller = caller(&request)?;
        let archiver = self.archiver.clone();
        let wish = request.into_inner().into();
        let work = async move { change(&archiver, wish, caller, answer_by).await.map(T::from) };
        self.admission.run(work).await.map(Response::new)
    }

    fn answer_by<R>(&self, request: &Request<R>) -> Result<Instant, Status> {
        let now = Instant::now();
        let arrival = request.extensions().get().map_or(now, |Arrival(arrival)| *arrival);
        let timeout = request.metadata().get(deadline::HEADER).and_then(|value| value.to_str().ok());
        deadline::answer_by(timeout.and_then(deadline::parse), arrival, now, self.bounds)
            .map_err(|refusal| refuse(&refusal))
    }
}

#[tonic::async_trait]
impl GuestConnectionService for GuestConnections {
    async fn archive_guest_connection(
        &self,
        request: Request<proto::ArchiveGuestConnectionRequest>,
    ) -> Result<Response<proto::ArchiveGuestConnectionResponse>, Status> {
        self.change(request).await
    }

    async fn unarchive_guest_connection(
        &self,
        request: Request<proto::UnarchiveGuestConnectionRequest>,
    ) -> Result<Response<proto::UnarchiveGuestConnectionResponse>, Status> {
        self.change(request).await
    }

    async fn get_command(
        &self,
        request: Request<proto::GetCommandRequest>,
    ) -> Result<Response<proto::GetCommandResponse>, Status> {
        let answer_by = self.answer_by(&request)?;
        let caller = caller(&request)?;
        let archiver = self.archiver.clone();
        let work = async move { look_up(&archiver, request.into_inner(), &caller, answer_by).await };
        self.admission.run(work).await.map(Response::new)
    }
}

/// Who calls. Without a word on that nothing is done.
fn caller<R>(request: &Request<R>) -> Result<Caller, Status> {
    request.extensions().get().cloned().ok_or_else(|| {
        records::CallerUnasked.log();
        status::of(&Refusal::new(Reason::Internal, "a fault of the adapter"), &Subject::default())
    })
}

/// The requester of a request that names none. One that the caller may not ask for is as good as none: the answer must not
/// tell whether there is one.
fn default_requester(archiver: &Archiver, caller: &Caller) -> Option<OrganizationId> {
    archiver.default_requester().filter(|requester| caller.sees(*requester))
}

/// The answer to a wish that was not taken in.
fn refuse(refusal: &Refusal) -> Status {
    tally::refused(Door::Grpc, refusal);
    status::of(refusal, &Subject::default())
}

async fn change(
    archiver: &Archiver,
    wish: Wish,
    caller: Caller,
    answer_by: Instant,
) -> Result<Success, Status> {
    // What is wrong with a request is in the request alone, so that saying so first tells nothing of others.
    let command = wish
        .command(archiver.now(), archiver.retention(), Uuid::now_v7(), default_requester(archiver, &caller))
        .map_err(|refusal| refuse(&refusal))?;
    caller
        .permit(Method::setting(command.archived), command.requester)
        .map_err(|refusal| refuse(&refusal))?;
    let subject = Subject { key: Some(command.key.clone()), ..Subject::default() };
    let answer = match archiver.submit(submission(command, caller.asked_by, answer_by)) {
        Ok(answer) => answer.await,
        Err(refusal) => Err(refusal),
    };
    answer.map_err(|refusal| refused(&refusal, &subject)).and_then(|answer| answered(answer, archiver.now()))
}

fn submission(command: Command, asked_by: AskedBy, answer_by: Instant) -> Submission {
    Submission {
        command,
        door: Door::Grpc,
        asked_by,
        trace: Span::present().context(),
        correlation_id: None,
        reply: None,
        // What was asked is read, and its message gone.
        message_length: 0,
        answer_by,
    }
}

fn answered(answer: Answer, now: Timestamp) -> Result<Success, Status> {
    match answer {
        Answer::Final { record, replayed } => ended(&record, replayed),
        Answer::Deferred(record) | Answer::Waiting(record) => {
            let last = record.outcome.as_ref().and_then(|outcome| outcome.refusal.clone());
            let refusal = last.unwrap_or_else(|| {
                Refusal::new(Reason::OutcomePending, "the command waits for another one of its connection")
            });
            Err(status::deferred(&refusal, &record, now))
        }
    }
}

fn ended(record: &CommandRecord, replayed: bool) -> Result<Success, Status> {
    match (&record.outcome, record.state) {
        (Some(outcome), State::Succeeded) => Ok(Success::of(record, outcome, replayed)),
        (outcome, _) => {
            let refusal = outcome.as_ref().and_then(|outcome| outcome.refusal.clone()).unwrap_or_else(|| {
                records::OutcomeMissing { command_id: record.id, state: record.state.as_str() }.log();
                Refusal::new(Reason::Internal, "a fault of the adapter: the outcome is not known")
            });
            Err(status::of(&refusal, &Subject::of(record)))
        }
    }
}

async fn look_up(
    archiver: &Archiver,
    request: proto::GetCommandRequest,
    caller: &Caller,
    answer_by: Instant,
) -> Result<proto::GetCommandResponse, Status> {
    let refuse = |refusal: Refusal| status::of(&refusal, &Subject::default());
    let lookup = Lookup::read(request, default_requester(archiver, caller)).map_err(refuse)?;
    match &lookup {
        Lookup::Id(_) => caller.permit_some(Method::Get),
        Lookup::Key(requester, _) => caller.permit(Method::Get, *requester),
    }
    .map_err(refuse)?;
    let subject =
        Subject { resource: Some((resource::COMMAND, lookup.resource_name())), ..Subject::default() };
    let found = match lookup {
        // Another one's command is an unknown one.
        Lookup::Id(id) => in_time(answer_by, archiver.command(id, |requester| caller.sees(requester))).await,
        Lookup::Key(requester, key) => in_time(answer_by, archiver.command_by_key(requester, key)).await,
    };
    let not_found = || {
        Refusal::new(Reason::CommandNotFound, "no command is known by that name, or it was forgotten since")
    };
    match found.and_then(|record| record.ok_or_else(not_found)) {
        Ok(record) => Ok(proto::GetCommandResponse { command: Some(convert::command(&record)) }),
        Err(refusal) => Err(refused(&refusal, &subject)),
    }
}

/// A look-up has nothing that could go on after the deadline.
async fn in_time<T>(
    answer_by: Instant,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let late =
        |_| Err(Refusal::new(Reason::StoreUnavailable, "the store gave no answer before the deadline"));
    timeout_at(answer_by, work).await.unwrap_or_else(late)
}

fn refused(refusal: &Refusal, subject: &Subject) -> Status {
    if refusal.reason == Reason::Internal {
        records::CallFailed { refusal }.log();
    }
    status::of(refusal, subject)
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
