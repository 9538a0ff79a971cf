use std::time::Duration;

use tonic::Code;
use tonic_types::StatusExt as _;

use crate::domain::record::Outcome;
use crate::grpc::fixture::record;

use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn heard(answer: Answer) -> (Code, String) {
    let status = answered(answer, NOW).expect_err("no success");
    let reason = status.get_error_details().error_info().expect("an ErrorInfo").reason.clone();
    (status.code(), reason)
}

fn refused_record(state: State, reason: Reason) -> CommandRecord {
    CommandRecord { outcome: Some(Outcome::refused(None, reason, "text")), ..record(state) }
}

fn final_answer(record: CommandRecord) -> Answer {
    Answer::Final { record, replayed: false }
}

#[test]
fn a_success_is_told_as_such() {
    let record = CommandRecord { outcome: Some(Outcome::default()), ..record(State::Succeeded) };
    let success = answered(Answer::Final { record, replayed: true }, NOW).expect("a success");
    let response = proto::ArchiveGuestConnectionResponse::from(success);
    assert!(response.replayed);
    assert_eq!(response.command_id, Uuid::from_u128(7).to_string());
}

#[test]
fn every_other_end_is_a_refusal() {
    let heard = |state, reason| heard(final_answer(refused_record(state, reason)));
    let expected = |code, reason: &str| (code, reason.to_owned());
    assert_eq!(
        heard(State::Rejected, Reason::UpstreamNotFound),
        expected(Code::NotFound, "UPSTREAM_NOT_FOUND")
    );
    assert_eq!(
        heard(State::Superseded, Reason::Superseded),
        expected(Code::FailedPrecondition, "SUPERSEDED")
    );
    assert_eq!(
        heard(State::Failed, Reason::UpstreamUnreachable),
        expected(Code::Unavailable, "UPSTREAM_UNREACHABLE")
    );
    assert_eq!(
        heard(State::Abandoned, Reason::CommandAbandoned),
        expected(Code::FailedPrecondition, "COMMAND_ABANDONED")
    );
}

#[test]
fn an_end_without_an_outcome_is_a_fault_of_ours() {
    let internal = (Code::Internal, "INTERNAL".to_owned());
    assert_eq!(heard(final_answer(record(State::Rejected))), internal);
    assert_eq!(heard(final_answer(record(State::Succeeded))), internal);
}

#[test]
fn what_goes_on_by_itself_says_so() {
    let deferred = Answer::Deferred(refused_record(State::Deferred, Reason::UpstreamUnanswered));
    assert_eq!(heard(deferred), (Code::Unavailable, "UPSTREAM_UNANSWERED".to_owned()));
    let pending = (Code::DeadlineExceeded, "OUTCOME_PENDING".to_owned());
    assert_eq!(heard(Answer::Waiting(record(State::Accepted))), pending);
    let status = answered(Answer::Waiting(record(State::Accepted)), NOW).expect_err("no success");
    let delay = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
    assert!(delay.is_some_and(|delay| delay > Duration::ZERO));
}
