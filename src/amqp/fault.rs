//! What went wrong with the broker, in words for operators. Never a password, never the content of a message.

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};

use super::access::Credentials;
use super::settings::Address;
use super::tls;

/// Why there is no connection.
#[must_use]
pub fn connecting(address: &Address, credentials: &Credentials, error: &Error) -> String {
    let place = format!("{}:{}", address.host, address.port);
    let user = if credentials.external {
        "the client certificate's user".to_owned()
    } else {
        format!("user \"{}\"", credentials.username)
    };
    if let ErrorKind::IOError(error) = error.kind()
        && let Some(error) = tls::error(error)
    {
        return format!("no connection to the broker at {place}: {}", tls::text(error, address, credentials));
    }
    match amqp_kind(error) {
        Some(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)) => {
            format!("the broker at {place} refused the credentials of {user}")
        }
        Some(AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)) => {
            let vhost = &address.vhost;
            format!("the broker at {place} does not let {user} into vhost \"{vhost}\"")
        }
        _ => format!("no connection to the broker at {place}: {}", text(error)),
    }
}

/// Why something asked of the broker was not done; `object` is what it was about.
#[must_use]
pub fn about(object: &str, error: &Error) -> String {
    format!("{object}: {}", text(error))
}

/// The error as the broker or lapin tells it.
#[must_use]
pub fn text(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => format!("{} {}", error.get_id(), error.get_message()),
        _ => error.to_string(),
    }
}

/// Whether the broker has closed a channel over what one message is or may do, and not over the state of things.
#[must_use]
pub fn is_about_a_message(error: &Error) -> bool {
    use AMQPSoftError::{ACCESSREFUSED, PRECONDITIONFAILED};
    matches!(amqp_kind(error), Some(AMQPErrorKind::Soft(ACCESSREFUSED | PRECONDITIONFAILED)))
}

/// Whether what was asked about is not there.
#[must_use]
pub fn is_not_found(error: &Error) -> bool {
    matches!(amqp_kind(error), Some(AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)))
}

fn amqp_kind(error: &Error) -> Option<&AMQPErrorKind> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.kind()),
        _ => None,
    }
}
