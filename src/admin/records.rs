//! The log records of the admin door.

use std::io;

use crate::domain::erasure::Forgotten;
use crate::telemetry::record::records;

records! { "admin";
    /// The scrape at `/metrics` was answered with 500.
    ///
    /// A fault of the adapter: report it.
    WARN MetricsUnwritten<'a> "the metrics cannot be written" {
        error: &'a prometheus::Error => display "error",
    }
    /// The operating system gives no connection, most often because the process has no file descriptors left. The door
    /// tries again after a pause.
    ///
    /// Look at `error`; raise the limit of open files if that is it.
    WARN NotAccepted<'a> "the admin door takes no connection" {
        error: &'a io::Error => display "error",
    }
    /// `admin.insecure` is set.
    ///
    /// Give the door a token (`admin.token`) or keep its port from the network, unless that is what you want.
    WARN Insecure "the admin door listens beyond loopback without asking for a token (admin.insecure): whoever reaches it can read metrics and health";
    /// A request came without the token or with another one, or was not allowed for another `reason`. Told once a second
    /// at most; each is counted.
    ///
    /// Look at `address`: give a tool of yours the token; keep a stranger off the port.
    WARN RequestRefused<'a> "a request to the admin door was refused" {
        reason: &'static str => value "reason",
        address: Option<&'a str> => value "address",
    }
    /// An administrator had bodies erased; `forgotten` counts them.
    INFO BodiesErased "bodies were erased on request" {
        forgotten: Forgotten => debug "forgotten",
    }
    /// An act was asked for and the store failed in the midst of it. What was erased is erased.
    ///
    /// See that the store works, then ask for the act again.
    WARN ActFailed<'a> "an administrative act failed" {
        error: &'a dyn std::fmt::Display => display "error",
    }
}
