//! Why a connection to the broker could not be encrypted, in words for operators.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::access::Credentials;
use super::settings::Address;

/// The error of TLS that `error` is about, if it is about one.
#[must_use]
pub fn error(error: &io::Error) -> Option<&Error> {
    let mut inner = error.get_ref()?;
    // lapin and its libraries may wrap one I/O error in another.
    loop {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        inner = inner.downcast_ref::<io::Error>()?.get_ref()?;
    }
}

/// What it means.
#[must_use]
pub fn text(error: &Error, address: &Address, credentials: &Credentials) -> String {
    use AlertDescription as Alert;
    use CertificateError as Bad;
    match error {
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "its certificate has expired".to_owned()
        }
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "its certificate is not valid yet".to_owned()
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            format!("its certificate is not for the host \"{}\"", address.host)
        }
        Error::InvalidCertificate(Bad::UnknownIssuer) => {
            "its certificate is of an authority that is not trusted; `amqp.ca_file` can name it".to_owned()
        }
        Error::AlertReceived(Alert::CertificateRequired | Alert::HandshakeFailure)
            if credentials.certificate.is_none() =>
        {
            "it wants a client certificate (`amqp.certificate_file`)".to_owned()
        }
        Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied),
        ) => format!("it does not accept the client certificate ({alert:?})"),
        Error::AlertReceived(Alert::ProtocolVersion) | Error::PeerIncompatible(_) => {
            "it speaks no version of TLS that is spoken here".to_owned()
        }
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => "it does not speak TLS at this port".to_owned(),
        other => format!("no TLS: {other}"),
    }
}
