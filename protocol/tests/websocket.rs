//! The codec: headers as vectors, limits, memory, and tungstenite as the oracle.

#![forbid(unsafe_code)]

mod wire;

use std::io::{Cursor, Read, Write};

use proptest::prelude::*;
use protocol::event::CloseCode;
use protocol::ws::{
    Decoder, DecoderLimits, Message, Opcode, Role, Utf8, Violation, encode_close, encode_frame, frame_header,
    read_header, unmask,
};
use tungstenite::protocol::{Role as OracleRole, WebSocket, WebSocketConfig};
use wire::masked;

const LIMITS: DecoderLimits = DecoderLimits { message_bytes_max: 64 << 10, fragments_max: 4096 };

#[test]
fn header_forms() {
    // Input, and what a server makes of it: (fin, opcode, payload, header) or the reason.
    #[track_caller]
    fn check(input: &[u8], expected: Result<Option<(bool, Opcode, u64, usize)>, &str>) {
        let head = read_header(input, Role::Server);
        let seen =
            head.map(|head| head.map(|head| (head.fin, head.opcode, head.payload_bytes, head.header_bytes)));
        assert_eq!(seen.map_err(Violation::reason), expected, "{input:02x?}");
    }
    let mask = [1, 2, 3, 4];
    let with = |start: &[u8]| [start, &mask].concat();
    check(&with(&[0x81, 0x85]), Ok(Some((true, Opcode::Text, 5, 6))));
    check(&with(&[0x02, 0xFD]), Ok(Some((false, Opcode::Binary, 125, 6))));
    check(&with(&[0x80, 0xFE, 0, 126]), Ok(Some((true, Opcode::Continuation, 126, 8))));
    check(&with(&[0x82, 0xFE, 255, 255]), Ok(Some((true, Opcode::Binary, 65_535, 8))));
    check(&with(&[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0]), Ok(Some((true, Opcode::Binary, 65_536, 14))));
    let longest = with(&[0x82, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255]);
    check(&longest, Ok(Some((true, Opcode::Binary, i64::MAX as u64, 14))));
    for cut in 0..longest.len() {
        check(&longest[..cut], Ok(None));
    }
    let long = "the length is not in its shortest form";
    check(&with(&[0x81, 0xFE, 0, 125]), Err(long));
    check(&with(&[0x81, 0xFE, 0, 0]), Err(long));
    check(&with(&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 255, 255]), Err(long));
    check(&with(&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]), Err(long));
    check(&[0x81, 0x05], Err("a frame of the client is not masked"));
    check(&[0xC1, 0x85], Err("a reserved bit is set"));
    check(&[0x83, 0x85], Err("the opcode is reserved"));
    check(&[0x8B, 0x85], Err("the opcode is reserved"));
    check(&[0x09, 0x85], Err("a control frame is split"));
    check(&[0x89, 0xFE], Err("a control frame is too long"));
    check(&[0x88, 0xFF], Err("a control frame is too long"));
    assert_eq!(
        read_header(&[0x81, 0x85], Role::Client),
        Err(Violation::Protocol("a frame of the server is masked"))
    );
}

#[test]
fn headers_are_written_as_they_are_read() {
    for payload_bytes in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 40] {
        for opcode in [Opcode::Text, Opcode::Binary, Opcode::Continuation] {
            let (bytes, used) = frame_header(opcode, payload_bytes);
            let head = read_header(&bytes[..used], Role::Client).expect("valid").expect("whole");
            assert!(head.fin && head.opcode == opcode && head.mask == [0; 4]);
            assert_eq!((head.payload_bytes, head.header_bytes), (payload_bytes as u64, used));
            assert_eq!(
                used,
                [2, 4, 10][usize::from(payload_bytes > 125) + usize::from(payload_bytes > 65_535)]
            );
        }
    }
}

/// A declared length is judged at once and buys no memory.
#[test]
fn declared_lengths_allocate_nothing() {
    for length in [65_537_u64, 1 << 30, 1 << 31, 1 << 32, i64::MAX as u64] {
        let mut decoder = Decoder::new(Role::Server, LIMITS);
        let mut input = vec![0x82, 0xFF];
        input.extend_from_slice(&length.to_be_bytes());
        input.extend_from_slice(&[0; 5]);
        assert_eq!(decoder.decode(&mut input).err(), Some(Violation::TooBig));
        assert_eq!(decoder.held_bytes(), 0);
    }
    let mut decoder = Decoder::new(Role::Server, DecoderLimits { message_bytes_max: 1 << 30, ..LIMITS });
    let mut input = [0x82, 0xFF, 0, 0, 0, 0, 0x3F, 0, 0, 0, 0, 0, 0, 0, 7];
    assert_eq!(decoder.decode(&mut input).expect("legal so far").message, None);
    assert!(decoder.held_bytes() < 300 && !decoder.is_idle());
}

/// The limit holds over all fragments, in bytes and in number, and memory follows what arrived.
#[test]
fn fragments_are_bounded() {
    let limits = DecoderLimits { message_bytes_max: 1000, fragments_max: 5000 };
    let mut decoder = Decoder::new(Role::Server, limits);
    let mut fragments = 0;
    let end = loop {
        let mut frame = masked(if fragments == 0 { 2 } else { 0 }, b"x");
        match decoder.decode(&mut frame) {
            Ok(decoded) => assert_eq!((decoded.consumed, decoded.message), (frame_bytes(1), None)),
            Err(violation) => break violation,
        }
        fragments += 1;
        assert!(decoder.held_bytes() <= 400 + 2 * fragments);
    };
    assert_eq!((end, fragments), (Violation::TooBig, 1000));

    let mut decoder = Decoder::new(Role::Server, DecoderLimits { fragments_max: 10, ..limits });
    for index in 0..10 {
        decoder.decode(&mut masked(if index == 0 { 1 } else { 0 }, b"")).expect("within the limit");
    }
    assert_eq!(decoder.decode(&mut masked(0x80, b"")).err(), Some(Violation::TooBig));

    let limits = DecoderLimits { message_bytes_max: 16 << 20, fragments_max: 1 << 20 };
    let mut decoder = Decoder::new(Role::Server, limits);
    for index in 0..65_536 {
        let mut frame = masked(if index == 0 { 2 } else { 0 }, &[7; 64]);
        decoder.decode(&mut frame).expect("within the limit");
    }
    let mut last = masked(0x80, b"");
    let decoded = decoder.decode(&mut last).expect("within the limit");
    assert_eq!(decoded.message, Some(Message::Binary(&[7; 65_536 * 64])));
}

const fn frame_bytes(payload: usize) -> usize {
    6 + payload
}

/// A frame that is whole in the input is shown where it lies; nothing is held for it.
#[test]
fn whole_frames_are_not_copied() {
    let mut decoder = Decoder::new(Role::Server, LIMITS);
    let mut input = [masked(0x81, b"one"), masked(0x82, b"two")].concat();
    let start = input.as_ptr() as usize;
    let decoded = decoder.decode(&mut input).expect("valid");
    let Some(Message::Text(text)) = decoded.message else { panic!("a text") };
    assert_eq!((text, text.as_ptr() as usize - start), ("one", 6));
    assert!(decoder.is_idle() && decoder.held_bytes() == 0);

    // Split frames are held only until they were seen.
    let (head, tail) = input.split_at_mut(9 + 4);
    assert_eq!(decoder.decode(&mut head[9..]).expect("valid").message, None);
    assert!(!decoder.is_idle());
    assert_eq!(decoder.decode(tail).expect("valid").message, Some(Message::Binary(b"two")));
    assert!(decoder.is_idle() && decoder.held_bytes() > 0);
    assert_eq!(decoder.decode(&mut []).expect("valid").consumed, 0);
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn close_payloads_are_bounded() {
    assert_eq!(encode_close(CloseCode::NO_STATUS, "unsaid"), b"");
    assert_eq!(encode_close(CloseCode::DRAIN, "bye"), b"\x0f\xa0bye");
    let long = "ß".repeat(100);
    let payload = encode_close(CloseCode::INTERNAL, &long);
    assert_eq!(payload.len(), 2 + 122);
    assert_eq!(str::from_utf8(&payload[2..]), Ok(&long[..122]));
}

/// A stream a client might send: messages in fragments, control frames between them.
fn pieces() -> impl Strategy<Value = Vec<(Vec<Vec<u8>>, bool)>> {
    let fragment = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(any::<u8>(), 100..300),
        "[a-zß\u{1f980}]{0,30}".prop_map(String::into_bytes),
    ];
    prop::collection::vec((prop::collection::vec(fragment, 1..5), any::<bool>()), 1..6)
}

fn stream(messages: &[(Vec<Vec<u8>>, bool)], mask: [u8; 4], pings: &[bool]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut pings = pings.iter().cycle();
    for (fragments, is_text) in messages {
        for (index, fragment) in fragments.iter().enumerate() {
            let opcode = match (index, is_text) {
                (0, true) => Opcode::Text,
                (0, false) => Opcode::Binary,
                _ => Opcode::Continuation,
            };
            let start = bytes.len();
            encode_frame(opcode, fragment, Some(mask), &mut bytes);
            if index + 1 < fragments.len() {
                bytes[start] &= 0x7F;
            }
            if pings.next() == Some(&true) {
                encode_frame(Opcode::Ping, b"are you there", Some(mask), &mut bytes);
            }
        }
    }
    bytes
}

/// What we read, and `None` at the end if it was a violation.
fn ours(bytes: &[u8], cuts: &[usize]) -> Vec<Option<tungstenite::Message>> {
    ours_with(bytes, cuts, |decoder| decoder)
}

/// The same, with a new decoder at each cut that was given what the one before held.
fn ours_replayed(bytes: &[u8], cuts: &[usize]) -> Vec<Option<tungstenite::Message>> {
    ours_with(bytes, cuts, |decoder| {
        let (mut held, mut next) = (decoder.replay(), Decoder::new(Role::Server, LIMITS));
        let decoded = next.decode(&mut held).expect("what was taken once is taken again");
        assert_eq!(decoded.message, None, "nothing has ended");
        assert_eq!(next.is_idle(), decoder.is_idle());
        next
    })
}

fn ours_with(
    bytes: &[u8],
    cuts: &[usize],
    mut go_on: impl FnMut(Decoder) -> Decoder,
) -> Vec<Option<tungstenite::Message>> {
    let mut decoder = Decoder::new(Role::Server, LIMITS);
    let mut seen = Vec::new();
    let mut bytes = bytes.to_vec();
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
    cuts.sort_unstable();
    let mut start = 0;
    for end in cuts {
        loop {
            let decoded = match decoder.decode(&mut bytes[start..end]) {
                Ok(decoded) => decoded,
                Err(_) => {
                    seen.push(None);
                    return seen;
                }
            };
            start += decoded.consumed;
            seen.push(Some(match decoded.message {
                None => break,
                Some(Message::Binary(payload)) => tungstenite::Message::binary(payload.to_vec()),
                Some(Message::Ping(payload)) => tungstenite::Message::Ping(payload.to_vec().into()),
                Some(Message::Pong(payload)) => tungstenite::Message::Pong(payload.to_vec().into()),
                Some(Message::Text(text)) => tungstenite::Message::text(text),
                Some(Message::Close { .. }) => tungstenite::Message::Close(None),
            }));
        }
        assert_eq!(start, end);
        decoder = go_on(decoder);
    }
    seen
}

fn theirs(bytes: &[u8]) -> Vec<Option<tungstenite::Message>> {
    struct OneWay(Cursor<Vec<u8>>);
    impl Read for OneWay {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl Write for OneWay {
        fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
            Ok(buffer.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let config = WebSocketConfig::default().max_message_size(Some(64 << 10)).max_frame_size(Some(64 << 10));
    let input = OneWay(Cursor::new(bytes.to_vec()));
    let mut oracle = WebSocket::from_raw_socket(input, OracleRole::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        match oracle.read() {
            Ok(message) => seen.push(Some(message)),
            Err(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => return seen,
            Err(_) => {
                seen.push(None);
                return seen;
            }
        }
    }
}

proptest! {
    /// Whatever is sent and however it is cut, tungstenite and we read the same.
    #[test]
    fn tungstenite_reads_the_same(
        messages in pieces(),
        mask in any::<[u8; 4]>(),
        pings in prop::collection::vec(any::<bool>(), 1..8),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let bytes = stream(&messages, mask, &pings);
        prop_assert_eq!(ours(&bytes, &cuts), theirs(&bytes));
    }

    /// A decoder goes on anywhere in the place of another.
    #[test]
    fn a_decoder_goes_on_with_what_another_held(
        messages in pieces(),
        mask in any::<[u8; 4]>(),
        pings in prop::collection::vec(any::<bool>(), 1..8),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let bytes = stream(&messages, mask, &pings);
        prop_assert_eq!(ours_replayed(&bytes, &cuts), theirs(&bytes));
    }

    /// Noise never panics, and how it is cut does not matter.
    #[test]
    fn cuts_do_not_matter(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        prop_assert_eq!(ours(&bytes, &cuts), ours(&bytes, &[]));
    }

    /// What we write, tungstenite reads.
    #[test]
    fn tungstenite_reads_what_we_write(
        payload in prop::collection::vec(any::<u8>(), 0..70_000),
        mask in any::<[u8; 4]>(),
        dirty in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut out = dirty.clone();
        encode_frame(Opcode::Binary, &payload, Some(mask), &mut out);
        prop_assert_eq!(&out[..dirty.len()], &dirty[..]);
        let expected = (payload.len() <= 64 << 10).then(|| tungstenite::Message::binary(payload));
        prop_assert_eq!(theirs(&out[dirty.len()..]), [expected]);
    }

    #[test]
    fn masking_is_what_the_standard_says(
        payload in prop::collection::vec(any::<u8>(), 0..100),
        mask in any::<[u8; 4]>(),
        cut in 0..100_usize,
    ) {
        let expected: Vec<_> = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        let mut seen = payload.clone();
        let cut = cut.min(payload.len());
        unmask(&mut seen[..cut], mask, 0);
        unmask(&mut seen[cut..], mask, cut);
        prop_assert_eq!(seen, expected);
    }

    /// The streaming check says what the standard library says, and as early as it can be said.
    #[test]
    fn utf8_is_judged_as_by_the_standard_library(
        noise in prop::collection::vec(prop_oneof![Just(0xE0_u8), Just(0xED), Just(0xF0), Just(0xF4), any::<u8>()], 0..12),
        text in "[a\u{e9}\u{20ac}\u{1f980}]{0,6}",
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let bytes = [text.as_bytes(), &noise].concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
        cuts.sort_unstable();
        let mut check = Utf8::default();
        let mut start = 0;
        for end in cuts {
            let prefix = std::str::from_utf8(&bytes[..end]);
            let is_hopeless = prefix.is_err_and(|error| error.error_len().is_some());
            prop_assert_eq!(check.push(&bytes[start..end]).is_err(), is_hopeless);
            if is_hopeless {
                return Ok(());
            }
            prop_assert_eq!(check.finish().is_ok(), prefix.is_ok());
            start = end;
        }
    }
}
