//! Telemetry and the edges of gRPC: cases 35 and 36.

use std::time::{Duration, Instant};

use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::World;
use simulator::Rule;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::PROGRAM;
use crate::callers::{event, is_refused, nothing_more_is_told, until_sent};

#[tokio::test]
async fn case_35_a_request_to_end_is_met_in_time_whatever_hangs() {
    // A collector that takes connections and never answers.
    let black_hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = black_hole.local_addr().unwrap();
    let lines = format!(
        "shutdown.drain_timeout = \"5s\"\ntelemetry.otlp_endpoint = \"http://{endpoint}\"\n\
         upstream.attempt_timeout = \"20s\"\nupstream.command_timeout = \"25s\"\ngrpc.answer_timeout = \"25s\""
    );
    // One worker thread: whoever blocks it blocks all.
    let arrange = |setup: harness::Setup| setup.config(&lines).env("TOKIO_WORKER_THREADS", "1");
    let mut world = World::arranged(PROGRAM, arrange).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).hang());
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    until_sent(&world, guest).await;
    let started = Instant::now();
    let (status, log) = world.adapter.terminate().await;
    assert!(status.success(), "{}", log.join("\n"));
    assert!(started.elapsed() < Duration::from_secs(5 + 2 + 2 + 3), "{:?}", started.elapsed());
    // Nothing is lost: the next process takes it up.
    world.adapter = world.setup.start_ready().await;
    assert_eq!(event(&mut world).await, "k");
    drop(black_hole);
}

/// Pings a hundred times as often as the case has them, through a long call and beside it.
#[tokio::test]
async fn case_36_pings_and_large_requests_do_not_end_the_connection() {
    let mut world = World::start(PROGRAM, "").await;
    let endpoint = Channel::from_shared(format!("http://{}", world.adapter.grpc)).unwrap();
    let endpoint = endpoint
        .http2_keep_alive_interval(Duration::from_millis(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    let connect = async || GuestConnectionServiceClient::new(endpoint.connect().await.unwrap());
    let (mut idle, mut busy) = (connect().await, connect().await);
    let (guest, other) = (Uuid::new_v4(), Uuid::new_v4());
    idle.archive_guest_connection(world.upstream.archive(other, "before")).await.unwrap();
    assert_eq!(event(&mut world).await, "before");
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).delay(Duration::from_secs(4)));
    busy.archive_guest_connection(world.upstream.archive(guest, "long")).await.expect("no GOAWAY");
    assert_eq!(event(&mut world).await, "long");
    idle.archive_guest_connection(world.upstream.archive(other, "after")).await.expect("no GOAWAY");
    assert_eq!(event(&mut world).await, "after");

    let large = world.upstream.archive(guest, &"k".repeat(5 * 1024 * 1024));
    let refused = busy.archive_guest_connection(large).await;
    is_refused(refused, Code::ResourceExhausted, "BODY_TOO_LARGE");
    busy.archive_guest_connection(world.upstream.archive(guest, "small")).await.expect("it survives");
    assert_eq!(event(&mut world).await, "small");
    nothing_more_is_told(world).await;
}
