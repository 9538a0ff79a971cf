//! The log records of the gRPC door.

use std::io;
use std::net::SocketAddr;

use crate::domain::command::CommandId;
use crate::domain::error::Refusal;
use crate::telemetry::record::records;

records! { "grpc";
    /// A call showed no proof of who calls, or one that does not hold. Told five times a
    /// second at most; each is counted.
    ///
    /// Look at `reason` and `address`: a caller of yours needs its certificate or token renewed; a stranger is to be kept
    /// off the port.
    WARN CallRefused<'a> "a call was refused: it did not prove who calls" {
        reason: &'static str => value "reason",
        address: Option<&'a str> => value "address",
    }
    /// One address has as many connections as one address may have.
    DEBUG AddressFull "a connection is refused: there are too many of its address" {
        address: SocketAddr => display "address",
    }
    /// A client was let go because its TLS handshake did not end in time.
    DEBUG HandshakeSlow "a handshake took too long" {
        address: SocketAddr => display "address",
    }
    /// A client was let go because it does not speak HTTP/2.
    DEBUG ProtocolMissing "a client did not offer HTTP/2" {
        address: SocketAddr => display "address",
    }
    /// A client and the door could not agree on a secure connection.
    DEBUG HandshakeFailed<'a> "a handshake failed" {
        address: SocketAddr => display "address",
        error: &'a io::Error => cause "error",
    }
    /// All places for connections are taken.
    DEBUG Full "a connection is refused: there are too many";
    /// A client broke a limit of the door, which `offence` names.
    DEBUG ConnectionCut "a connection is cut off" {
        offence: &'static str => value "offence",
    }
    /// The operating system gives no connection, most often because the process has no file descriptors left. The door
    /// tries again after a pause.
    ///
    /// Look at `error`; raise the limit of open files if that is it.
    WARN NotAccepted<'a> "no connection can be accepted" {
        error: &'a io::Error => cause "error",
    }
    /// The task that served a call has panicked or was cancelled; the caller got `INTERNAL`.
    ///
    /// A fault of the adapter: report it, with what the panic said on standard error.
    ERROR CallLost "a call's task did not end properly" {
        panicked: bool => value "panicked",
    }
    /// A call reached the service without its caller being asked for; it was refused.
    ///
    /// A fault of the adapter: report it.
    ERROR CallerUnasked "a call came past the question who calls";
    /// The store has a final command without its outcome; the caller got `INTERNAL`.
    ///
    /// A fault of the adapter or a store that was changed by hand: report it.
    ERROR OutcomeMissing "a final command has no outcome" {
        command_id: CommandId => display "command.id",
        state: &'static str => value "command.state",
    }
    /// A call was answered with `INTERNAL`.
    ///
    /// A fault of the adapter: report it, with the records of the same trace.
    ERROR CallFailed<'a> "a call failed by a fault of the adapter" {
        refusal: &'a Refusal => display "refusal",
    }
}
