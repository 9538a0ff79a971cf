//! The log records of telemetry itself.

use super::record::records;

records! { "telemetry";
    /// A field of the upstream's answers is unknown, missing or of another type than its contract says. Commands go on
    /// as far as the answer can be understood; `adapter.upstream.drifts` counts how often, and names every one of
    /// them even where the log has left some out.
    ///
    /// Compare the upstream's contract with `docs/mycreditapp.openapi.yaml` and tell the upstream's owner.
    WARN Drifted<'a> "the upstream's answer differs from its contract; this is said once, and counted" {
        field: &'a str => value "field",
        kind: &'static str => value "kind",
    }
}
