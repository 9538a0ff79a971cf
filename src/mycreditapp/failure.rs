//! What a failed request was, by the kinds of the errors and not by their texts: whether it certainly was not applied.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage};

use crate::domain::error::public_text;
use crate::domain::obstacle::Obstacle;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The request certainly was not processed.
    Unreachable(Obstacle),
    /// Something was sent, or may have been, and no status line came. The text is the `error.type`.
    Unanswered(&'static str),
}

impl Failure {
    /// The stable name, as in `error.type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable(obstacle) => obstacle.as_str(),
            Self::Unanswered(kind) => kind,
        }
    }
}

/// What `error`, the end of a request without a status line, comes to.
pub fn of(error: &reqwest::Error) -> Failure {
    if error.is_connect() {
        return Failure::Unreachable(no_connection(error));
    }
    if error.is_builder() {
        return Failure::Unreachable(Obstacle::Unsent);
    }
    if let Some(hyper) = find::<hyper::Error>(error) {
        // Said only of a request that was still in the queue of its connection when that ended.
        if hyper.is_canceled() {
            return Failure::Unreachable(Obstacle::Unsent);
        }
        if hyper.is_parse() {
            return Failure::Unanswered("malformed_answer");
        }
    }
    match find::<h2::Error>(error) {
        Some(h2) if not_processed(h2) => Failure::Unreachable(Obstacle::StreamRefused),
        Some(h2) if h2.is_reset() => Failure::Unanswered("stream_reset"),
        _ if error.is_timeout() => Failure::Unanswered("timeout"),
        _ => Failure::Unanswered("connection_lost"),
    }
}

/// RFC 9113 promises of two things that nothing was processed: a stream that the other side refused (8.7), and one above
/// the last that its GOAWAY names (6.8). h2 hands a GOAWAY of the other side to such streams alone; the others go on, and
/// end otherwise.
fn not_processed(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

fn no_connection(error: &reqwest::Error) -> Obstacle {
    if error.is_dns() {
        Obstacle::Name
    } else if let Some(tls) = find::<rustls::Error>(error) {
        no_tls(tls)
    } else if error.is_timeout() {
        Obstacle::ConnectTimeout
    } else {
        Obstacle::Connect
    }
}

fn no_tls(error: &rustls::Error) -> Obstacle {
    use rustls::Error as Tls;
    match error {
        Tls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            Obstacle::TlsExpired
        }
        Tls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Obstacle::TlsWrongHost,
        Tls::InvalidCertificate(CertificateError::UnknownIssuer) => Obstacle::TlsUnknownAuthority,
        Tls::AlertReceived(AlertDescription::ProtocolVersion) | Tls::PeerIncompatible(_) => {
            Obstacle::TlsVersion
        }
        // The first bytes are no record of TLS.
        Tls::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            Obstacle::TlsAbsent
        }
        _ => Obstacle::Tls,
    }
}

/// The first error of this type among `error` and its causes.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// `error` and its causes. An I/O error passes over the error that it wraps when it is asked for its source.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let next = |cause: &&'a (dyn Error + 'static)| {
        let cause: &'a (dyn Error + 'static) = *cause;
        match cause.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => cause.source(),
        }
    };
    std::iter::successors(Some(error), next)
}

/// An error with its causes, made fit for a log; the address stays out, as it stands in the span.
pub fn described(error: &reqwest::Error) -> String {
    let kind = if error.is_connect() { "connect" } else { "request" };
    let mut texts = vec![kind.to_owned()];
    for cause in causes(error).skip(1) {
        let text = cause.to_string();
        // An I/O error repeats the one that it wraps.
        if texts.last() != Some(&text) {
            texts.push(text);
        }
    }
    public_text(&texts.join(": "))
}
