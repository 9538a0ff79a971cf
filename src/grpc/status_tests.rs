use std::str::FromStr as _;

use uuid::Uuid;

use crate::domain::error;
use crate::grpc::fixture::record;

use super::*;

#[test]
fn every_reason_has_the_code_of_the_design() {
    let expected = [
        (
            "INVALID_ARGUMENT",
            "INVALID_FIELDS UNDECODABLE CONTENT_TYPE_UNSUPPORTED IDEMPOTENCY_KEY_MISSING UPSTREAM_INVALID",
        ),
        (
            "FAILED_PRECONDITION",
            "IDEMPOTENCY_KEY_REUSED SUPERSEDED COMMAND_EXPIRED COMMAND_ABANDONED UPSTREAM_CONFLICT UPSTREAM_REJECTED",
        ),
        ("UNAUTHENTICATED", "UNAUTHENTICATED"),
        ("PERMISSION_DENIED", "NOT_PERMITTED REQUESTER_NOT_CONFIGURED UPSTREAM_FORBIDDEN"),
        ("NOT_FOUND", "COMMAND_NOT_FOUND UPSTREAM_NOT_FOUND"),
        ("ABORTED", "COMMAND_IN_PROGRESS"),
        ("DEADLINE_EXCEEDED", "OUTCOME_PENDING DEADLINE_TOO_SHORT"),
        ("RESOURCE_EXHAUSTED", "OVERLOADED UPSTREAM_RATE_LIMITED BODY_TOO_LARGE"),
        (
            "UNAVAILABLE",
            "DRAINING STORE_UNAVAILABLE UPSTREAM_UNAUTHENTICATED UPSTREAM_UNAVAILABLE UPSTREAM_UNREACHABLE UPSTREAM_UNANSWERED UPSTREAM_PAUSED REQUESTER_PAUSED",
        ),
        ("INTERNAL", "INTERNAL"),
    ];
    let mut listed = 0;
    for (name, reasons) in expected {
        for reason in reasons.split(' ') {
            let reason = Reason::parse(reason).expect("a reason");
            assert_eq!(code_name(code(reason)), name, "{reason}");
            listed += 1;
        }
    }
    assert_eq!(listed, Reason::ALL.len());
}

#[test]
fn what_is_transient_says_when_to_try_again() {
    for reason in Reason::ALL {
        let expected = reason.is_transient() && *reason != Reason::DeadlineTooShort;
        assert_eq!(retry_delay(*reason).is_some(), expected, "{reason}");
    }
}

#[test]
fn every_error_carries_its_reason_and_what_it_is_about() {
    let subject = Subject::of(&record(State::Rejected));
    for reason in Reason::ALL {
        let status = of(&Refusal::new(*reason, "text"), &subject);
        let details = status.get_error_details();
        let info = details.error_info().expect("an ErrorInfo");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.as_str(), error::DOMAIN));
        assert_eq!(info.metadata["command_id"], Uuid::from_u128(7).to_string());
        assert_eq!(info.metadata["command_state"], "rejected");
        assert_eq!(info.metadata["maybe_applied"], "true");
        assert_eq!(details.resource_info().is_some(), status.code() == Code::NotFound, "{reason}");
        assert_eq!(status.metadata().contains_key(PUSHBACK), *reason == Reason::Overloaded);
    }
}

#[test]
fn all_own_violations_are_told() {
    let violations: Vec<_> =
        (0..7).map(|n| error::FieldViolation::new(format!("field_number_{n}"), "x".repeat(100))).collect();
    let details = of(&Refusal::invalid(violations), &Subject::default()).get_error_details();
    assert_eq!(details.bad_request().expect("a BadRequest").field_violations.len(), 7);
    assert!(!details.error_info().expect("an ErrorInfo").metadata.contains_key("violations_omitted"));
}

#[test]
fn the_greatest_status_fits_the_headers_of_every_client() {
    let text = "\u{1f980}".repeat(error::UPSTREAM_TEXT_LENGTH_MAX);
    let mut refusal = Refusal::new(Reason::UpstreamInvalid, text.clone());
    refusal.violations = vec![error::FieldViolation::new(text.clone(), text); 32];
    let subject = Subject::of(&record(State::Deferred));
    let greatest = [
        of(&refusal, &subject),
        deferred(&refusal, &record(State::Deferred), Timestamp::UNIX_EPOCH),
        of(&Refusal { reason: Reason::UpstreamNotFound, ..refusal.clone() }, &subject),
    ];
    for status in greatest {
        let response = status.clone().into_http::<()>();
        let length: usize =
            response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(length < 6 * 1024, "{length}");
        let details = status.get_error_details();
        let omitted = &details.error_info().expect("an ErrorInfo").metadata["violations_omitted"];
        let listed = details.bad_request().expect("a BadRequest").field_violations.len();
        assert_eq!(usize::from_str(omitted).expect("a number") + listed, 32);
        assert!(listed > 0);
    }
}

#[test]
fn a_deferred_command_invites_another_try_at_its_due_time() {
    let due = Timestamp::UNIX_EPOCH + Duration::from_secs(42);
    let record = CommandRecord { due_time: Some(due), ..record(State::Deferred) };
    let refusal = Refusal::new(Reason::UpstreamUnanswered, "no answer");
    let status = deferred(&refusal, &record, Timestamp::UNIX_EPOCH);
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("goes on by itself"), "{}", status.message());
    assert!(status.message().contains(&record.id.to_string()));
    let details = status.get_error_details();
    assert_eq!(details.retry_info().and_then(|info| info.retry_delay), Some(Duration::from_secs(42)));
    assert_eq!(details.error_info().expect("an ErrorInfo").metadata["command_state"], "deferred");

    let overdue = deferred(&refusal, &record, due + Duration::from_secs(1));
    assert!(overdue.get_error_details().retry_info().is_some());
    let lasting = Refusal::new(Reason::RequesterNotConfigured, "no credentials");
    assert_eq!(deferred(&lasting, &record, due).code(), Code::Unavailable);
}

#[test]
fn a_hint_of_the_upstream_is_handed_on() {
    let refusal = Refusal::new(Reason::UpstreamRateLimited, "slow down").retry_after(Duration::from_secs(77));
    let details = of(&refusal, &Subject::default()).get_error_details();
    assert_eq!(details.retry_info().and_then(|info| info.retry_delay), Some(Duration::from_secs(77)));
}

#[test]
fn a_text_is_cut_at_a_character_by_its_encoded_length() {
    assert_eq!(cut("plain", 5), "plain");
    assert_eq!(cut("plain", 4), "plai");
    assert_eq!(cut("a%b", 3), "a");
    assert_eq!(cut("aéb", 7), "aé");
    assert_eq!(cut("é", 5), "");
}
