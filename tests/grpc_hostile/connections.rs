//! Connections that are many, or silent.

use std::time::Instant;

use harness::tls::{Authority, TlsClient, secured};
use harness::{DEADLINE, Upstream, look_again};
use tokio::time::timeout;

use crate::support::{DATA, END_HEADERS, END_STREAM, HEADERS, PROGRAM, Place, Raw, call, frame, preface};

#[tokio::test]
async fn one_connection_too_many_is_closed_and_room_is_used_again() {
    // One of them is the caller's.
    let place = Place::start("grpc.connections_max = 4").await;
    place.serves().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::open(place.adapter.grpc).await;
        // A call, whose answer comes: nobody is asked who they are here.
        let call = frame(HEADERS, END_HEADERS, 1, &call());
        raw.say(&[preface(), call, frame(DATA, END_STREAM, 1, &[0; 5])].concat()).await;
        raw.answered().await;
        held.push(raw);
    }
    assert_eq!(Raw::open(place.adapter.grpc).await.end().await, []);
    place.refused("total", 1).await;
    place.serves().await;
    held.pop();
    let served = async {
        loop {
            let mut raw = Raw::open(place.adapter.grpc).await;
            // A closed socket takes words as well; what counts is whether it stays.
            raw.say(&preface()).await;
            look_again().await;
            if !raw.is_closed() {
                return;
            }
        }
    };
    timeout(DEADLINE, served).await.expect("the place that became free is given again");
    assert!(held.iter().all(|raw| !raw.is_closed()));
}

#[tokio::test]
async fn connections_on_which_nobody_calls_give_way() {
    let place = Place::start("grpc.connections_max = 8").await;
    place.serves().await;
    let mut idle = Vec::new();
    for count in 0..40 {
        let mut raw = Raw::open_from(&format!("127.0.0.{}", 2 + count % 10), place.adapter.grpc).await;
        raw.say(&preface()).await;
        idle.push(raw);
    }
    // The others have given way, the oldest first, and the caller has kept its connection.
    place.refused("displaced", 33).await;
    place.serves_anew().await;
    place.serves().await;
    let closed = async {
        while idle.iter().filter(|raw| raw.is_closed()).count() < 33 {
            look_again().await;
        }
    };
    timeout(DEADLINE, closed).await.expect("they are closed");
}

#[tokio::test]
async fn an_address_has_its_share_and_no_more() {
    let place = Place::start("grpc.connections_per_address_max = 3").await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(Raw::open_from("127.0.0.2", place.adapter.grpc).await);
    }
    for count in 1..=5 {
        assert_eq!(Raw::open_from("127.0.0.2", place.adapter.grpc).await.end().await, []);
        place.refused("address", count).await;
    }
    place.serves().await;
    place.serves_anew().await;
    assert!(held.iter().all(|raw| !raw.is_closed()));
}

#[tokio::test]
async fn who_does_not_begin_is_cut_off() {
    let place = Place::start("").await;
    let began = Instant::now();
    let silent = Raw::open(place.adapter.grpc).await;
    let mut half = Raw::open(place.adapter.grpc).await;
    half.say(&preface()[..20]).await;
    let mut begun = Raw::open(place.adapter.grpc).await;
    begun.say(&preface()).await;
    place.serves().await;
    silent.end().await;
    half.end().await;
    assert!(began.elapsed().as_secs() >= 9, "there is time enough to begin");
    place.refused("silence", 2).await;
    assert!(!begun.is_closed());
    place.serves().await;
}

#[tokio::test]
async fn silent_handshakes_hold_up_nobody() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let setup = secured(upstream.setup(PROGRAM), &authority.server(), Some(&authority));
    let adapter = setup.start_ready().await;
    let client = TlsClient::new(&authority, Some(&authority.client("billing.example")));
    let channel = client.channel(adapter.grpc).await.unwrap();
    let began = Instant::now();
    // More than may be under way, from more than one address.
    let mut silent = Vec::new();
    for count in 0..300 {
        silent.push(Raw::open_from(&format!("127.0.0.{}", 2 + count % 3), adapter.grpc).await);
    }
    // Each of them is older than this one's handshake, and the oldest have given way.
    client.connect(adapter.grpc).await.unwrap();
    let displaced = async {
        while silent.iter().filter(|raw| raw.is_closed()).count() < 44 {
            look_again().await;
        }
    };
    timeout(DEADLINE, displaced).await.expect("the oldest give way");
    assert!(began.elapsed().as_secs() < 9, "before their time is over");
    let uuid = uuid::Uuid::new_v4();
    let call = upstream.archive(uuid, &uuid.to_string());
    let mut caller =
        guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient::new(
            channel,
        );
    caller.archive_guest_connection(call).await.expect("who is in is served");
    // The others have their time, and no more.
    for raw in silent {
        assert_eq!(raw.end().await, []);
    }
}
