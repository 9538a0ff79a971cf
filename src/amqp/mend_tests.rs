use proptest::prelude::*;

use super::*;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, 1];
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    frame.push(0xCE);
    frame
}

fn short(text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).unwrap()];
    bytes.extend(text);
    bytes
}

fn long(kind: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_vec();
    bytes.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
    bytes.extend(content);
    bytes
}

fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    payload.extend(flags.to_be_bytes());
    payload.extend(properties);
    frame(HEADER_FRAME, &payload)
}

fn mended(stream: &[u8]) -> (Vec<u8>, u64) {
    let (mut mender, mut out) = (Mender::default(), Vec::new());
    mender.take(stream, &mut out);
    (out, mender.mended())
}

#[test]
fn what_is_not_utf_8_is_exchanged_in_every_place() {
    let bad = short(b"a\xFFb\xE9");
    let good = short(b"a\x1Ab\x1A");
    let properties = |text: &[u8]| {
        let table = [text, b"V", text, &long(b"S", b"\xFF"), text, &long(b"F", &[text, b"t\x01"].concat())];
        let table = long(b"", &table.concat());
        // All properties: type, encoding, headers, mode, priority, four texts, timestamp, four texts.
        let before = [text, text, &table, &[2, 9]].concat();
        [before, text.repeat(4), vec![0xFF; 8], text.repeat(4)].concat()
    };
    assert_eq!(mended(&header(0xFFFC, &properties(&bad))), (header(0xFFFC, &properties(&good)), 1));
    let deliver = |text: &[u8]| frame(METHOD_FRAME, &[&DELIVER[..], text, &[0xFF; 9], text, text].concat());
    assert_eq!(mended(&deliver(&bad)), (deliver(&good), 1));
}

#[test]
fn what_is_sound_stays() {
    let text = short("größe".as_bytes());
    let every = b"t\x01|b\x01|B\x01|s\x01\x02|U\x01\x02|u\x01\x02|I1234|i1234|f1234|D12345|l12345678|L12345678|d12345678|T12345678|V";
    let values: Vec<u8> = every.split(|byte| *byte == b'|').flatten().copied().collect();
    let array = long(b"A", &[&values[..], &long(b"x", b"\xFF\xFE")].concat());
    let table = long(b"", &[&text[..], &array].concat());
    let stream = [
        header(0xA000, &[&text[..], &table].concat()),
        frame(3, b"\xFF\xFE body"),
        frame(8, b""),
        frame(METHOD_FRAME, b"\x00\x0A\x00\x32\xFF\xFE other methods"),
        frame(HEADER_FRAME, b"no properties"),
        b"AMQP\x00\x00\x09\x01".to_vec(),
    ]
    .concat();
    let (out, count) = mended(&stream);
    // The greeting of another version is no frame; the rest of it is waited for in vain.
    assert_eq!((&out[..], count), (&stream[..], 0));
}

#[test]
fn what_is_nested_too_deep_becomes_bytes() {
    let nest = |depth: usize| (0..depth).fold(Vec::new(), |inner, _| long(b"A", &inner));
    let message = |value: &[u8]| header(0x2000, &long(b"", &[&short(b"n"), value].concat()));
    assert_eq!(mended(&message(&nest(DEPTH_MAX))).1, 0);
    let deep = message(&nest(20_000));
    let (out, count) = mended(&deep);
    let exchanged = deep.iter().zip(&out).filter(|(before, after)| before != after);
    assert_eq!((count, exchanged.collect::<Vec<_>>()), (1, vec![(&b'A', &b'x')]));
}

proptest! {
    #[test]
    fn pieces_make_no_difference_and_nothing_panics(
        stream in prop::collection::vec(any::<u8>(), 0..400),
        kind in 1_u8..4,
        cuts in prop::collection::vec(1_usize..50, 1..20),
    ) {
        let stream = frame(kind, &stream);
        let whole = mended(&stream);
        prop_assert_eq!(whole.0.len(), stream.len());
        let (mut mender, mut out, mut rest) = (Mender::default(), Vec::new(), &stream[..]);
        for cut in cuts.iter().cycle() {
            let (piece, later) = rest.split_at((*cut).min(rest.len()));
            mender.take(piece, &mut out);
            rest = later;
            if rest.is_empty() { break }
        }
        prop_assert_eq!((out, mender.mended()), whole);
    }
}
