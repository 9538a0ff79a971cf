//! The log records of the upstream's client.

use crate::domain::command::OrganizationId;
use crate::telemetry::record::records;

records! { "mycreditapp";
    /// The API answered 401 to a token that should be good. A new one is asked for and the request tried again.
    ///
    /// Nothing, if it is rare. If it goes on, the organisation's credentials lack access to the API.
    WARN TokenRefused "the upstream refused a token" {
        organization: OrganizationId => display "organization",
    }
    /// The token endpoint answered with success, but without a token that can be read.
    ///
    /// See whether `upstream.base_url` is the right address, and tell the upstream's owner.
    ERROR TokenUnreadable "the token endpoint's answer holds no token" {
        organization: OrganizationId => display "organization",
    }
    /// The token endpoint does not know the organisation's credentials. Its commands wait.
    ///
    /// Put the right client id and secret into the organisation's section; they are taken without a restart.
    ERROR CredentialsRefused "the token endpoint refused the credentials" {
        organization: OrganizationId => display "organization",
        status: u16 => value "status",
    }
    /// The token endpoint is out of order or asks for patience. It is asked again later.
    ///
    /// If it goes on, tell the upstream's owner.
    WARN TokenDenied "the token endpoint gives no token" {
        organization: OrganizationId => display "organization",
        status: u16 => value "status",
    }
    /// The request was sent and no status line came within its time, so it may have been applied. It is tried again.
    ///
    /// If it goes on, look at the upstream's health; `upstream.attempt_timeout` is the time.
    WARN StatusLate "the upstream sent no status line in time";
    /// The request was sent and the connection failed before an answer came, or something came that is no answer to it. So
    /// it may have been applied. It is tried again.
    ///
    /// If it goes on, look at the upstream's health, the network, and what lies between; `error` says how it failed.
    WARN NoAnswer<'a> "the upstream gave no answer" {
        status: Option<u16> => value "status",
        error: Option<&'a str> => value "error",
        kind: &'static str => value "error.type",
    }
    /// An answer came and its body could not be read in full. Its status decides what becomes of the command.
    ///
    /// If it goes on, tell the upstream's owner; `error` says what is wrong with it.
    WARN BodyUnread<'a> "the body of the upstream's answer could not be read" {
        status: u16 => value "status",
        error: &'a str => value "error",
    }
    /// The request certainly was not processed: there was no connection, no TLS, or the upstream gave it back, as `why`
    /// says. It is tried again.
    ///
    /// If it goes on, put right what `why` and `error` name: the address, name resolution, certificates, the network.
    WARN NotProcessed<'a> "the upstream did not process a request" {
        why: &'static str => value "why",
        error: &'a str => value "error",
        kind: &'static str => value "error.type",
    }
}
