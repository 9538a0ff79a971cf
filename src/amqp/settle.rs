//! How a delivery ends: one table.

use crate::domain::error::{Reason, Refusal};
use crate::service::archiver::Answer;

/// How a delivery ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Acknowledged: its command is durable, and whatever is left to do is the store's to drive.
    Ack,
    /// Refused for good: acknowledged once its dead letter is confirmed.
    DeadLetter,
    /// Left as it is, and consuming stops: nothing can be taken for now.
    Suspend,
    /// Acknowledged if its command turns out to be durable, else left until the channel closes.
    Verify,
}

/// How a delivery ends whose command was answered like this.
#[must_use]
pub fn settlement(answer: &Result<Answer, Refusal>) -> Settlement {
    match answer {
        Ok(Answer::Final { .. } | Answer::Deferred(_) | Answer::Waiting(_)) => Settlement::Ack,
        Err(refusal) => refused(refusal.reason),
    }
}

/// How a delivery ends that was refused, or not answered in time.
#[must_use]
pub const fn refused(reason: Reason) -> Settlement {
    match reason {
        Reason::CommandInProgress | Reason::OutcomePending => Settlement::Ack,
        Reason::InvalidFields
        | Reason::Undecodable
        | Reason::ContentTypeUnsupported
        | Reason::BodyTooLarge
        | Reason::IdempotencyKeyMissing
        | Reason::IdempotencyKeyReused
        | Reason::Unauthenticated
        | Reason::NotPermitted
        | Reason::RequesterNotConfigured
        | Reason::CommandNotFound
        | Reason::Superseded
        | Reason::CommandExpired
        | Reason::CommandAbandoned
        | Reason::UpstreamInvalid
        | Reason::UpstreamForbidden
        | Reason::UpstreamNotFound
        | Reason::UpstreamConflict
        | Reason::UpstreamRejected => Settlement::DeadLetter,
        Reason::StoreUnavailable | Reason::Draining | Reason::Overloaded | Reason::UpstreamPaused => {
            Settlement::Suspend
        }
        // Not refusals of a submission to a queue's door: what became of the command is looked up.
        Reason::DeadlineTooShort
        | Reason::UpstreamUnauthenticated
        | Reason::UpstreamRateLimited
        | Reason::UpstreamUnavailable
        | Reason::UpstreamUnreachable
        | Reason::UpstreamUnanswered
        | Reason::RequesterPaused
        | Reason::Internal => Settlement::Verify,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_never_given_up() {
        for reason in Reason::ALL {
            if reason.is_transient() {
                assert_ne!(refused(*reason), Settlement::DeadLetter, "{reason}");
            }
        }
        assert_eq!(refused(Reason::OutcomePending), Settlement::Ack);
        assert_eq!(refused(Reason::StoreUnavailable), Settlement::Suspend);
        assert_eq!(refused(Reason::IdempotencyKeyReused), Settlement::DeadLetter);
    }
}
