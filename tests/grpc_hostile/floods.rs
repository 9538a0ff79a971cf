//! Floods of frames, one connection each.

use tokio::task::JoinHandle;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use guest_connection_adapter::proto::GetCommandRequest;
use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;

use crate::support::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, Place, RST_STREAM, Raw, SETTINGS,
    WINDOW_UPDATE, call, call_with, frame, preface,
};

/// Frames in one write.
const BATCH: usize = 50;

/// Floods `place`, which must serve others until the flood is cut off. Returns how many frames it came to.
async fn is_cut_off(place: &Place, begin: Vec<u8>, next: impl FnMut(u32) -> Vec<u8> + Send + 'static) -> u32 {
    let mut raw = Raw::open(place.adapter.grpc).await;
    raw.say(&begin).await;
    let flood: JoinHandle<u32> = tokio::spawn(raw.flood(next));
    loop {
        let is_over = flood.is_finished();
        place.serves().await;
        place.serves_anew().await;
        if is_over {
            return flood.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_ask_for_nothing_are_cut_off() {
    let place = Place::start("").await;
    let opened = [preface(), frame(HEADERS, END_HEADERS, 1, &call())].concat();
    let cases = [
        ("pings", preface(), frame(PING, 0, 0, &[7; 8])),
        ("settings", preface(), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("priorities", preface(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])),
        ("window updates", preface(), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown frames", preface(), frame(99, 0, 0, &[])),
        ("empty data", opened, frame(DATA, 0, 1, &[])),
    ];
    for (number, (name, begin, frame)) in cases.into_iter().enumerate() {
        let batch = frame.repeat(BATCH);
        let count = is_cut_off(&place, begin, move |_| batch.clone()).await;
        // What had not been read yet lay in buffers of the system.
        println!("{name}: cut off after at most {} frames", usize::try_from(count).unwrap() * BATCH);
        // Empty data is known to the HTTP/2 library, which has a lower bound.
        place.refused("idle_frames", (number + 1).min(5)).await;
    }
}

/// The id of the `count`th stream of a client.
fn stream(count: u32) -> u32 {
    2 * count + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_cancelled_at_once_are_cut_off() {
    let place = Place::start("").await;
    let headers = call();
    let reset = move |count| {
        let (headers, id) = (frame(HEADERS, END_HEADERS, stream(count), &headers), stream(count));
        [headers, frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
    };
    // The HTTP/2 library cuts off those that it has not handed on yet, the guard the others: whichever is first.
    is_cut_off(&place, preface(), reset).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_bound_are_refused() {
    const SENT: u32 = 3_000;
    const OPEN_MAX: u32 = 1_024;
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    let place = Place::start("").await;
    let mut raw = Raw::open(place.adapter.grpc).await;
    raw.say(&preface()).await;
    for count in 0..SENT {
        raw.say(&frame(HEADERS, END_HEADERS, stream(count), &call())).await;
    }
    // Those that are open wait for a message which never comes.
    place.serves().await;
    place.serves_anew().await;
    let frames = raw.finish().await;
    let refused = frames.iter().filter(|frame| **frame == (RST_STREAM, 0, REFUSED_STREAM.to_vec()));
    assert_eq!(u32::try_from(refused.count()).unwrap(), SENT - OPEN_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_are_cut_off() {
    let place = Place::start("").await;
    let mut raw = Raw::open(place.adapter.grpc).await;
    raw.say(&[preface(), frame(HEADERS, 0, 1, &call())].concat()).await;
    let flood = tokio::spawn(raw.flood(|_| frame(CONTINUATION, 0, 1, &[])));
    place.serves().await;
    flood.await.unwrap();
    // The same with headers in them.
    let begin = [preface(), frame(HEADERS, 0, 1, &call())].concat();
    let header = [&[0, 1, b'x', 127, 0x81, 0x7e][..], &[b'y'; 16_000]].concat();
    is_cut_off(&place, begin, move |_| frame(CONTINUATION, 0, 1, &header)).await;
}

#[tokio::test]
async fn a_list_of_headers_too_long_is_refused_alone() {
    let place = Place::start("").await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", place.adapter.grpc)).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut request = Request::new(GetCommandRequest::default());
    for number in 0..5 {
        let name: tonic::metadata::MetadataKey<_> = format!("x-{number}").parse().unwrap();
        request.metadata_mut().insert(name, MetadataValue::try_from("v".repeat(4_000)).unwrap());
    }
    let status = GuestConnectionServiceClient::new(channel.clone()).get_command(request).await.unwrap_err();
    assert_ne!(status.code(), Code::Ok);
    place.serves_on(channel).await;
}

#[tokio::test]
async fn nonsense_is_hung_up_on() {
    let place = Place::start("").await;
    let cases: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        &[preface(), frame(HEADERS, END_HEADERS, 2, &call())].concat(),
        &[preface(), frame(DATA, 0, 0, b"data of no stream")].concat(),
        &[preface(), vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]].concat(),
    ];
    for bytes in cases {
        let mut raw = Raw::open(place.adapter.grpc).await;
        raw.say(bytes).await;
        raw.end().await;
        place.serves().await;
    }
}

#[tokio::test]
async fn half_a_frame_holds_up_nobody() {
    let place = Place::start("").await;
    let whole = [preface(), frame(HEADERS, END_HEADERS, 1, &call())].concat();
    let mut halves = Vec::new();
    for count in 0..100 {
        let mut raw = Raw::open_from(&format!("127.0.0.{}", 2 + count % 3), place.adapter.grpc).await;
        // Cut within the frame's header, and at each place within what follows.
        raw.say(&whole[..preface().len() + 1 + count % (9 + call().len() - 1)]).await;
        halves.push(raw);
    }
    place.serves().await;
    place.serves_anew().await;
    assert!(halves.iter().all(|raw| !raw.is_closed()), "they have their time");
}

#[tokio::test]
async fn compressed_messages_are_refused_unread() {
    let place = Place::start("").await;
    // The beginning of a gzip bomb, under an encoding that is told, one that is not, and one that is not known.
    let gzip =
        [&[1, 0, 0, 0, 18][..], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xed, 0xc1, 1, 1, 0, 0, 0, 0x80]]
            .concat();
    for encoding in ["gzip", "identity", "br"] {
        let mut raw = Raw::open(place.adapter.grpc).await;
        let headers = frame(HEADERS, END_HEADERS, 1, &call_with("grpc-encoding", encoding));
        raw.say(&[preface(), headers, frame(DATA, END_STREAM, 1, &gzip)].concat()).await;
        raw.answered().await;
        let frames = raw.finish().await;
        let answers: Vec<_> = frames.iter().filter(|(kind, ..)| *kind == HEADERS).collect();
        // An error alone: headers that end the stream, and no message.
        assert!(answers.len() == 1 && answers[0].1 & END_STREAM != 0, "{encoding}: {frames:?}");
        assert!(!frames.iter().any(|(kind, ..)| *kind == DATA), "{encoding}: {frames:?}");
    }
    place.serves().await;
}

#[tokio::test]
async fn line_ends_in_headers_are_refused_and_inject_nothing() {
    let place = Place::start("").await;
    let cases = [
        ("x-note", "a"),
        ("x-note", "a\r\nauthorization: Bearer injected"),
        ("x-note", "a\nb"),
        ("x-note", "a\0b"),
        ("x-note\r\ninjected", "a"),
        ("traceparent", "00-1\r\ninjected: 1"),
        ("grpc-timeout", "1S\r\ninjected: 1"),
    ];
    for (name, value) in cases {
        let mut raw = Raw::open(place.adapter.grpc).await;
        let message = frame(DATA, END_STREAM, 1, &[0; 5]);
        let said = [preface(), frame(HEADERS, END_HEADERS, 1, &call_with(name, value)), message].concat();
        raw.say(&said).await;
        raw.answered().await;
        let frames = raw.finish().await;
        let is_answered = frames.iter().any(|(kind, ..)| *kind == HEADERS);
        assert_eq!(is_answered, value == "a" && name == "x-note", "{name:?}: {value:?}: {frames:?}");
        place.serves().await;
    }
    let (status, log) = place.adapter.terminate().await;
    assert!(status.success() && !log.join("\n").contains("injected"), "{log:?}");
}
