//! The log records of putting the parts together and taking them down.

use std::error::Error;
use std::net::SocketAddr;

use tokio::task::JoinError;

use crate::service::ports::StoreError;
use crate::telemetry::record::records;

records! { "app";
    /// A change of the configuration took effect and the store could not note it among the acts.
    ///
    /// See that the store works. Note the change elsewhere, if the record of acts has to be complete.
    WARN ChangeUnrecorded<'a> "a change of the configuration could not be recorded among the acts" {
        error: &'a StoreError => display "error",
    }
    /// The task that looks for changes of the configuration has panicked; another goes on in its place.
    ///
    /// A fault of the adapter: report it, with what the panic said on standard error.
    WARN LookLost<'a> "looking at the configuration failed" {
        panic: &'a JoinError => display "panic",
    }
    /// The faults of the changed configuration are put right.
    INFO ConfigurationGood "the configuration is good again";
    /// A file of the configuration was changed and cannot be used, for `faults`. Nothing of it is taken. Told once for
    /// each fault.
    ///
    /// Put right what `faults` names; it is taken without a restart. `check` tells the same before a change is made.
    WARN ConfigurationFaulty<'a> "the changed configuration is at fault; what held before it still holds" {
        faults: &'a str => value "faults",
    }
    /// The values of `keys` were changed, which the running process does not take.
    ///
    /// Start the adapter again, when it suits.
    WARN RestartNeeded<'a> "keys have changed that take effect after a restart only" {
        keys: &'a str => value "keys",
    }
    /// Organisations were `added`, `changed` and `removed`, as their names tell; `default` is the default organisation,
    /// and `callers` says whether something changed in who may call.
    INFO OrganizationsChanged<'a> "the organisations have changed" {
        added: &'a str => value "added",
        changed: &'a str => value "changed",
        removed: &'a str => value "removed",
        default: Option<&'a str> => value "default",
        callers: bool => value "callers",
    }
    /// The adapter's own `credentials` at the broker have changed, or which `senders` it obeys.
    INFO BrokerAccessChanged "the access to the broker, or by it, has changed" {
        credentials: bool => value "credentials",
        senders: bool => value "senders",
    }
    /// The doors are open.
    INFO Started "the adapter is started" {
        grpc: SocketAddr => display "grpc.listen",
        admin: SocketAddr => display "admin.listen",
    }
    /// Nothing new is taken in; what is under way comes to its end.
    INFO Draining "the adapter drains";
    /// The store did not close within its time. What was committed is safe.
    ///
    /// Nothing, if it is rare. If it comes at each stop, see to the store's disk or its server.
    WARN StoreUnclosed "the store could not be closed in time";
    /// Everything is taken down, in order.
    INFO Stopped "the adapter is stopped";
    /// The first part of the drain is over. Calls and messages that still wait get no answer; their commands go on after
    /// the next start.
    INFO ServiceOver "calls and messages still wait; from now on only requests that were sent are waited for";
    /// The time of `shutdown.drain_timeout` is nearly over, and requests to the upstream have no answer. They count as
    /// perhaps applied and are tried again.
    ///
    /// If it comes at each stop, give the drain more time.
    WARN WorkLeft "work is still under way; it is taken up after the next start";
    /// Commands that were claimed and not sent could not be given back. They wait until their lease is over.
    ///
    /// See that the store works.
    WARN ClaimsKept "what was not begun could not be given up; it is taken up once it counts as left";
    /// The broker did not take everything within the drain's time. Nothing is lost.
    ///
    /// If it comes at each stop, see to the broker, or give the drain more time.
    WARN OutboxLeft "the outbox could not be published to its end; the rest is published after the next start";
    /// One of the parts that should run for ever has ended, for `error`; the process ends.
    ///
    /// Put right what `error` names. Whatever supervises the process should start it again.
    WARN PartEnded<'a> "a part of the adapter ended; the adapter stops" {
        error: &'a (dyn Error + 'static) => cause "error",
    }
    /// The gRPC door listens beyond loopback and `lacks` what would keep strangers out.
    ///
    /// Configure what `lacks` names, unless something else keeps strangers from the port.
    WARN GrpcInsecure<'a> "gRPC is open to a network and insecure, as `grpc.insecure` allows" {
        grpc: SocketAddr => display "grpc.listen",
        lacks: &'a str => value "lacks",
    }
    /// Calls are asked who makes them; messages are not.
    ///
    /// Set `amqp.identify` to `user_id`, unless the broker's own permissions say enough.
    WARN SendersUnasked "there are principals, but whoever may publish messages is obeyed: amqp.identify is not `user_id`";
    /// New connections use the changed certificate, which lasts until `expiry` (seconds since 1970).
    INFO CertificateTaken "the files for TLS have changed and are taken" {
        expiry: u64 => value "expiry",
    }
    /// The files of `grpc.certificate_file`, `grpc.key_file` or `grpc.client_ca_file` have changed and cannot be used.
    ///
    /// Put right what `fault` names before the certificate in use expires; it is taken without a restart.
    WARN CertificateFaulty<'a> "the changed files for TLS are at fault; those before them are still used" {
        fault: &'a str => value "fault",
    }
    /// The store could not count the books, by which metrics tell that nothing is lost. It is tried again.
    ///
    /// See that the store works; if it does, `error` tells what else is wrong.
    WARN BooksUncounted<'a> "the books could not be counted" {
        error: &'a StoreError => display "error",
    }
}
