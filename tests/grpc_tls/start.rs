//! What an adapter starts with, and what it refuses to start with.

use harness::Upstream;
use harness::tls::{Authority, secured};

use crate::support::{BILLING, PROGRAM, billing};

const WARNING: &str = "gRPC is open to a network and insecure";

#[tokio::test]
async fn an_open_door_is_refused_or_warned_of_at_every_start() {
    let upstream = Upstream::start().await;
    let open = upstream.setup(PROGRAM).config("grpc.listen = \"0.0.0.0:0\"");
    let (status, log) = open.start_in_vain().await;
    assert_eq!(status.code(), Some(2), "{log}");
    for text in ["grpc.listen", "grpc.certificate_file", "principals", "grpc.insecure = true"] {
        assert!(log.contains(text), "{text}: {log}");
    }
    let insecure = open.config("grpc.insecure = true");
    for _ in 0..2 {
        let adapter = insecure.start_ready().await;
        let (_, log) = adapter.terminate().await;
        assert_eq!(log.iter().filter(|line| line.contains(WARNING)).count(), 1, "{log:?}");
    }
}

#[tokio::test]
async fn an_open_door_with_locks_is_no_matter_of_warning() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let open = upstream.setup(PROGRAM).config("grpc.listen = \"0.0.0.0:0\"");
    let half = secured(open, &authority.server(), Some(&authority));
    let (status, log) = half.start_in_vain().await;
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("principals") && !log.contains("needs TLS"), "{log}");
    let adapter = half.config(&billing()).start_ready().await;
    let (_, log) = adapter.terminate().await;
    assert!(!log.iter().any(|line| line.contains(WARNING)), "{log:?}");
    assert!(!log.iter().any(|line| line.contains(BILLING)), "{log:?}");
}

#[tokio::test]
async fn loopback_needs_nothing() {
    let upstream = Upstream::start().await;
    let adapter = upstream.setup(PROGRAM).start_ready().await;
    let (_, log) = adapter.terminate().await;
    assert!(!log.iter().any(|line| line.contains(WARNING)), "{log:?}");
}
