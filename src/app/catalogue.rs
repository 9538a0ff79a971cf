//! Every log record that the adapter can write, in one place.

use crate::telemetry::record::{self, Folder};

/// The log records of all folders, by the way of a command.
#[must_use]
pub const fn log_records() -> [Folder; 10] {
    [
        crate::cli::records::RECORDS,
        super::records::RECORDS,
        crate::admin::records::RECORDS,
        crate::grpc::records::RECORDS,
        crate::jwt::records::RECORDS,
        crate::amqp::records::RECORDS,
        crate::service::records::RECORDS,
        crate::store::records::RECORDS,
        crate::mycreditapp::records::RECORDS,
        crate::telemetry::records::RECORDS,
    ]
}

/// The page `docs/logs.md`.
#[must_use]
pub fn log_page() -> String {
    record::page(&log_records())
}
