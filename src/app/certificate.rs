//! The gRPC door's certificate, key and client authorities at run time: what their files say takes effect for new
//! connections, and calls under way go on. They are looked at as those of the configuration are.

use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::files::Signature;
use super::journal::Journal;
use super::records;
use crate::config::{Config, Fault, Faults};
use crate::grpc::incoming::PROTOCOL;
use crate::service::readiness::{Condition, Part, Readiness};
use crate::telemetry::catalogue as metric;
use crate::tls::{Error, Files, Identity};

/// A certificate that ends sooner than this wants an eye.
const EXPIRY_NOTICE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the files looked like; nothing for one that is not there.
type Signatures = Vec<Option<Signature>>;

struct Metrics {
    expiry: Gauge<u64>,
    reloads: Counter<u64>,
}

impl Metrics {
    fn new() -> Self {
        let (expiry, reloads) = (metric::CERTIFICATE_EXPIRY.gauge(), metric::CERTIFICATE_RELOADS.counter());
        Self { expiry, reloads }
    }
}

/// Follows the files, if there are some, until `stop`.
pub(super) async fn run(certificate: Option<Certificate>, stop: CancellationToken) {
    match certificate {
        Some(certificate) => certificate.run(stop).await,
        None => stop.cancelled().await,
    }
}

/// The files that are followed.
pub(super) struct Certificate {
    files: Files,
    seen: Signatures,
    current: watch::Sender<Identity>,
    /// What is wrong with the files, if they could not be taken.
    fault: Option<String>,
    interval: Duration,
    part: Part,
    metrics: Metrics,
    journal: Journal,
}

impl Certificate {
    /// Reads the files, if `config` names some.
    pub(super) fn begin(
        config: &Config,
        readiness: &Readiness,
        journal: Journal,
    ) -> Result<Option<Self>, Faults> {
        let Some(files) = config.grpc.tls() else { return Ok(None) };
        let seen = signatures(&files);
        let identity = files.read(PROTOCOL).map_err(|Error { message, .. }| {
            Faults(vec![Fault { key: "grpc.certificate_file".to_owned(), message }])
        })?;
        let certificate = Self {
            files,
            seen,
            current: watch::Sender::new(identity),
            fault: None,
            interval: config.organizations_check_interval.max(Duration::from_millis(1)),
            part: readiness.part("grpc.certificate"),
            metrics: Metrics::new(),
            journal,
        };
        certificate.tell(SystemTime::now());
        Ok(Some(certificate))
    }

    /// What new connections are made with.
    pub(super) fn identity(&self) -> watch::Receiver<Identity> {
        self.current.subscribe()
    }

    /// Looks at the files until `stop`.
    async fn run(mut self, stop: CancellationToken) {
        let mut looks = interval(self.interval);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            let files = self.files.clone();
            // A file system that hangs takes a thread of its own with it, and no other work.
            let look = tokio::task::spawn_blocking(move || signatures(&files));
            let Some(Ok(found)) = stop.run_until_cancelled(look).await else { continue };
            let now = SystemTime::now();
            // Of a certificate and a key that are being replaced one may be there before the other.
            let is_fresh = found.iter().flatten().any(|file| file.is_fresh(now));
            if found != self.seen && !is_fresh {
                let files = self.files.clone();
                let reading = tokio::task::spawn_blocking(move || files.read(PROTOCOL));
                let Some(Ok(read)) = stop.run_until_cancelled(reading).await else { continue };
                // What was written in the midst of the reading is another change for the next look.
                self.seen = found;
                self.take(read);
            }
            self.tell(now);
        }
    }

    fn take(&mut self, read: Result<Identity, Error>) {
        let result = match read {
            Ok(identity) => {
                records::CertificateTaken { expiry: identity.expiry_seconds() }.log();
                self.journal.note([("grpc_certificate", "changed".to_owned())]);
                self.current.send_replace(identity);
                self.fault = None;
                "applied"
            }
            Err(fault) => {
                let fault = fault.to_string();
                records::CertificateFaulty { fault: &fault }.log();
                self.fault = Some(fault);
                "refused"
            }
        };
        self.metrics.reloads.add(1, &[KeyValue::new("result", result)]);
    }

    /// Enters how things stand.
    fn tell(&self, now: SystemTime) {
        let identity = self.current.borrow().clone();
        self.metrics.expiry.record(identity.expiry_seconds(), &[]);
        let mut texts = Vec::new();
        if let Some(fault) = &self.fault {
            texts.push(format!(
                "the changed files for TLS are at fault, those before them are still used: {fault}"
            ));
        }
        texts.extend(expiry_notice(identity.expiry, now));
        let is_good = texts.is_empty();
        self.part.set(if is_good { Condition::Ready } else { Condition::Degraded(texts.join("; ")) });
    }
}

fn signatures(files: &Files) -> Signatures {
    files.paths().map(|path| Signature::at(path)).collect()
}

/// What is to be said of a certificate that ends at `expiry`.
fn expiry_notice(expiry: SystemTime, now: SystemTime) -> Option<String> {
    const DAY_SECONDS: u64 = 24 * 3600;
    match expiry.duration_since(now) {
        Err(_) => Some("the certificate has expired".to_owned()),
        Ok(left) if left < EXPIRY_NOTICE => {
            let days = left.as_secs() / DAY_SECONDS;
            Some(format!("the certificate expires in {days} days and some hours"))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_told_a_week_before() {
        let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
        assert_eq!(expiry_notice(now + 8 * day, now), None);
        let text = expiry_notice(now + 6 * day + day / 2, now).unwrap();
        assert!(text.contains("expires in 6 days"), "{text}");
        assert!(expiry_notice(now - day, now).unwrap().contains("has expired"));
    }
}
