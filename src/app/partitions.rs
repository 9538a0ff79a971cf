//! Leaving one number of partitions for another, at an operator's word.

use std::time::Duration;

use crate::amqp::retire;
use crate::config::Config;

/// Why partitions are not retired.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// Has the queues left that `config` says are being left, and waits until they are gone. `tell` is told how it goes on.
///
/// # Errors
/// Why it does not. It can be begun again.
pub async fn retire(config: &Config, tell: &mut (dyn FnMut(&str) + Send)) -> Result<(), Error> {
    let settings = config.amqp(Duration::ZERO).map_err(|faults| Error(faults.to_string()))?;
    let settings = settings.ok_or_else(|| Error("there is no broker: give the section `amqp`".to_owned()))?;
    let access = config.broker_access();
    let settings = crate::amqp::Settings {
        access: tokio::sync::watch::Sender::new(std::sync::Arc::new(access)).subscribe(),
        ..settings
    };
    retire::retire(settings, tell).await.map_err(Error)
}
