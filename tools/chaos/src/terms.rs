//! The adapter's durations during a run: as small as their relations allow, so that a few seconds hold many of each.
//!
//! What the faults may do to a request has to stay below [`SETTLE`]: beyond it the design promises nothing. A request can
//! be held by the proxy ([`STALL_MAX`], [`SLOW_MAX`]) and then by the upstream ([`LATE_MAX`]); the rest is room for a
//! busy machine.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use crate::plan::Cluster;

/// `upstream.attempt_timeout`
pub const ATTEMPT: Duration = Duration::from_millis(500);

/// `upstream.settle`
pub const SETTLE: Duration = Duration::from_secs(2);

/// `store.lease`
pub const LEASE: Duration = Duration::from_millis(2_500);

/// `store.instance_lease`
pub const INSTANCE_LEASE: Duration = Duration::from_millis(1_500);

/// How long one of several instances sleeps beyond the quiet time after its lease, at most: what it was about to send is older
/// then than what others have sent since.
pub const OVERSLEEP_LONG_MAX: Duration = Duration::from_secs(4);

/// For how long what is sent to the upstream is held before an instance is frozen; less than [`ATTEMPT`], so that what is held is
/// waited for.
pub const HOLD: Duration = Duration::from_millis(400);

/// How long a proxy before the upstream holds everything, at most.
pub const STALL_MAX: Duration = Duration::from_millis(500);

/// How much slower a proxy makes a connection, at most.
pub const SLOW_MAX: Duration = Duration::from_millis(120);

/// How late the upstream applies what it has been sent, at most.
pub const LATE_MAX: Duration = Duration::from_millis(700);

/// How long a frozen adapter sleeps beyond its lease, at most; less than [`SETTLE`].
pub const OVERSLEEP_MAX: Duration = Duration::from_millis(1_200);

/// Bounds by chance, since small ones are met in a minute, and large ones leave room for much at once.
#[must_use]
pub fn bounds(rng: &mut StdRng) -> String {
    let mut one_of = |bounds: &[u32]| *bounds.choose(rng).expect("some are given");
    format!(
        r"
amqp.prefetch = {}
limits.lane_depth_max = {}
limits.in_flight_max = {}
limits.backlog_max = {}
relay.batch = {}
",
        one_of(&[1, 4, 32, 256]),
        one_of(&[1, 2, 8, 256]),
        one_of(&[8, 64, 4096]),
        one_of(&[50, 200, 100_000]),
        one_of(&[1, 8, 256]),
    )
}

/// Lines of configuration for instances that share a database. The address of that is each one's own.
#[must_use]
pub fn cluster(cluster: Cluster) -> String {
    let lines = format!(
        r#"
store.instance_lease = "{}ms"
store.connect_timeout = "2s"
store.statement_timeout = "3s"
"#,
        INSTANCE_LEASE.as_millis(),
    );
    match cluster.partitions {
        0 => lines,
        partitions => format!("{lines}amqp.partitions = {partitions}\n"),
    }
}

/// Lines of configuration with the durations and what goes with them.
#[must_use]
pub fn durations() -> String {
    format!(
        r#"
upstream.attempt_timeout = "{}ms"
upstream.connect_timeout = "300ms"
upstream.command_timeout = "1500ms"
upstream.settle = "{}ms"
upstream.retry_delay_base = "20ms"
upstream.retry_delay_max = "200ms"
upstream.defer_delay_base = "100ms"
upstream.defer_delay_max = "500ms"
upstream.token_delay_base = "50ms"
upstream.token_delay_max = "500ms"
grpc.answer_timeout = "3s"
amqp.delivery_hold = "3s"
amqp.confirm_timeout = "1500ms"
amqp.connect_timeout = "2s"
amqp.heartbeat = "2s"
amqp.check_interval = "3s"
store.lease = "{}ms"
store.give_up_after = "1h"
shutdown.drain_timeout = "3s"
"#,
        ATTEMPT.as_millis(),
        SETTLE.as_millis(),
        LEASE.as_millis()
    )
}
