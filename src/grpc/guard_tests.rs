use super::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

fn begun() -> (Meter, Instant) {
    let now = Instant::now();
    let mut meter = Meter::new(now);
    meter.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now).unwrap();
    assert!(!meter.is_begun);
    meter.read(&frame(SETTINGS, 0, &[0; 12]), now).unwrap();
    assert!(meter.is_begun);
    (meter, now)
}

/// How many times `bytes` are let through, at most `max`.
fn let_through(meter: &mut Meter, bytes: &[u8], now: Instant, max: usize) -> (usize, Option<Offence>) {
    for count in 0..max {
        if let Err(offence) = meter.read(bytes, now) {
            return (count, Some(offence));
        }
    }
    (max, None)
}

#[test]
fn frames_are_found_however_they_are_cut_into_reads() {
    let now = Instant::now();
    let text = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, &[0; 6]),
        frame(HEADERS, 4, &[6; 100]),
        frame(DATA, 1, &[6; 300]),
        frame(6, 0, &[0; 8]),
    ]
    .concat();
    for length in 1..text.len() {
        let mut meter = Meter::new(now);
        for part in text.chunks(length) {
            meter.read(part, now).unwrap();
        }
        assert!(meter.is_begun);
        // The settings were made good by the call, and the ping was not.
        assert!((meter.idle_frames.left - (IDLE_FRAMES.depth - 1.0)).abs() < 1e-6, "{length}");
    }
}

#[test]
fn frames_that_ask_for_nothing_have_a_bound() {
    for (kind, flags, payload) in [
        (6, 0, &[0; 8][..]),
        (SETTINGS, 0, &[]),
        (2, 0, &[0; 5]),
        (8, 0, &[0; 4]),
        (DATA, 0, &[]),
        (99, 0, &[]),
    ] {
        let (mut meter, now) = begun();
        let (count, offence) = let_through(&mut meter, &frame(kind, flags, payload), now, 100_000);
        assert_eq!((count, offence), (4_095, Some(Offence::IdleFrames)), "{kind}");
    }
}

#[test]
fn who_asks_for_something_may_ping_and_open_windows() {
    let (mut meter, now) = begun();
    let call = [frame(HEADERS, 4, &[0; 50]), frame(DATA, 1, &[0; 50])].concat();
    let frames = [call, frame(6, 0, &[0; 8]).repeat(4), frame(8, 0, &[0; 4]).repeat(4)].concat();
    assert_eq!(let_through(&mut meter, &frames, now, 20_000), (20_000, None));
    // A large answer is taken in by windows of 16 KiB, for the stream and for the connection.
    for _ in 0..20_000 {
        meter.wrote(16 * 1024);
        meter.read(&frame(8, 0, &[0; 4]).repeat(2), now).unwrap();
    }
    // Empty data that ends a stream is no flood.
    assert_eq!(let_through(&mut meter, &frame(DATA, 1, &[]), now, 20_000), (20_000, None));
}

#[test]
fn calls_that_are_cancelled_have_a_bound_which_time_lifts() {
    let (mut meter, now) = begun();
    let reset = [frame(HEADERS, 4, &[0; 50]), frame(RST_STREAM, 0, &[0; 4])].concat();
    let (count, offence) = let_through(&mut meter, &reset, now, 100_000);
    assert_eq!((count, offence), (2_048, Some(Offence::Resets)));
    let (mut meter, now) = begun();
    for second in 0..100 {
        let now = now + Duration::from_secs(second);
        assert_eq!(let_through(&mut meter, &reset, now, 100), (100, None), "{second}");
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn who_says_nothing_is_cut_off_and_who_has_begun_is_not() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (_client, server) = tokio::io::duplex(1024);
    let fault = Guard::new(server, Duration::from_millis(10), LONG).read_u8().await.unwrap_err();
    assert_eq!(fault.to_string(), "silence");

    let (mut client, server) = tokio::io::duplex(1024);
    let mut guard = Guard::new(server, LONG, LONG);
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut preface = [0; 24];
    guard.read_exact(&mut preface).await.unwrap();
    assert!(!guard.is_begun, "the settings are to come");
    client.write_all(&frame(SETTINGS, 0, &[])).await.unwrap();
    let mut settings = [0; 9];
    guard.read_exact(&mut settings).await.unwrap();
    assert!(guard.is_begun);
}

#[tokio::test]
async fn who_stays_too_long_is_cut_off_also_while_it_takes_nothing_in() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, &[])].concat();
    for is_writing in [false, true] {
        let (mut client, server) = tokio::io::duplex(64);
        let mut guard = Guard::new(server, LONG, Duration::from_millis(10));
        client.write_all(&begin).await.unwrap();
        guard.read_exact(&mut [0; 33]).await.unwrap();
        let fault = if is_writing {
            guard.write_all(&[0; 1024]).await.unwrap_err()
        } else {
            guard.read_u8().await.unwrap_err()
        };
        assert_eq!(fault.to_string(), "age");
    }
}
