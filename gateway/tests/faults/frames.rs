//! Frames that break the WebSocket protocol or stretch its limits, against sessions of the chat.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    cases::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, close},
    chat::{Chat, LEFT_BYTES_MAX, undisturbed},
    node::{Node, PATIENCE, directory},
    raw::{REQUEST, Raw, connect, head},
    wire::masked,
};

const PING_COMMAND: &[u8] = br#"{"op":"ping","id":7}"#;

/// A header by hand: `length` as the byte behind the first, then its extension.
fn header(first: u8, length: u8, extension: &[u8]) -> Vec<u8> {
    [&[first, length], extension, &[0; 4]].concat()
}

/// Sends `bytes` on a WebSocket without a session, and on one with. Both are told `expected`, and nothing else.
#[track_caller]
fn check(node: &Node, token: &str, name: &str, bytes: &[u8], expected: &str) {
    for mut raw in [Raw::upgraded(node.listen), Raw::session(node.listen, token, "raw")] {
        raw.write_anyway(bytes);
        // B15: the transcript is made of whole frames and so refuses stray bytes.
        assert_eq!(raw.transcript(), [expected], "{name}");
    }
}

/// B2, B3, B5, B8, B12, B13, B17.
#[test]
fn frames_against_the_protocol() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let mut witness = Chat::connect(&node, "witness", "w");
        let token = node.token("alice");
        let check = |name: &str, bytes: &[u8], expected: &str| check(&node, &token, name, bytes, expected);
        check("B2 unmasked", b"\x81\x05hello", "close 1002");
        check("B3 top bit of the length", &header(FIN | TEXT, 0xFF, &[0xFF; 8]), "close 1002");
        for length in [i64::MAX as u64, 1 << 32, 1 << 31, 1 << 30, (64 << 10) + 1] {
            check("B3, B4 far too long", &header(FIN | TEXT, 0xFF, &length.to_be_bytes()), "close 1009");
        }
        check("B5 16 bits for 125", &header(FIN | TEXT, 0xFE, &125u16.to_be_bytes()), "close 1002");
        check("B5 64 bits for 65,535", &header(FIN | TEXT, 0xFF, &65_535u64.to_be_bytes()), "close 1002");
        check("B5 64 bits for 0", &header(FIN | TEXT, 0xFF, &0u64.to_be_bytes()), "close 1002");
        for opcode in [CLOSE, PING, PONG] {
            check("B8 long control", &masked(FIN | opcode, &[b'x'; 126]), "close 1002");
            check("B8 split control", &masked(opcode, b"x"), "close 1002");
        }
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            check("B8 reserved opcode", &masked(FIN | opcode, b""), "close 1002");
        }
        for bits in [0x10, 0x20, 0x40, 0x70] {
            check(
                "B8, B12 reserved bits: nothing is compressed",
                &masked(FIN | bits | TEXT, b"x"),
                "close 1002",
            );
        }
        check("nothing to continue", &masked(FIN | CONTINUATION, b"x"), "close 1002");
        check("two at once", &[masked(TEXT, b"{"), masked(TEXT, b"{")].concat(), "close 1002");
        check("B13 a lone byte", &masked(FIN | TEXT, b"{\"op\":\"\xff"), "close 1007");
        check("B13 cut character", &masked(FIN | TEXT, b"{\"op\":\"\xe2\x82"), "close 1007");
        check("B13 surrogate", &masked(FIN | TEXT, b"{\"op\":\"\xed\xa0\x80\"}"), "close 1007");
        // Told at the first bad byte: the rest of this frame never comes.
        check(
            "B13 at once",
            &masked(FIN | TEXT, &[b"{\xff".as_slice(), &[b'x'; 99]].concat())[..8],
            "close 1007",
        );
        check("B17 binary where text is due", &masked(FIN | BINARY, PING_COMMAND), "close 1003");
        witness.is_fine();
    });
}

/// B17 the other way round, and B7 at both sides of the limit.
#[test]
fn the_limits_themselves_are_allowed() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let token = node.token("alice");
        let mut padded = PING_COMMAND.to_vec();
        padded.resize(64 << 10, b' ');
        let mut raw = Raw::session(node.listen, &token, "raw");
        raw.write(&masked(FIN | TEXT, &padded));
        let (first, pong) = raw.frame();
        assert!(first == FIN | TEXT && pong.starts_with(b"{\"op\":\"pong\",\"id\":7"));
        padded.push(b' ');
        raw.write_anyway(&masked(FIN | TEXT, &padded));
        assert_eq!(raw.transcript(), ["close 1009"]);

        // 4096 fragments are a message, the first included; before `connect` only 48 KiB are.
        let mut fragments = masked(TEXT, PING_COMMAND);
        (0..4094).for_each(|_| fragments.extend(masked(CONTINUATION, b" ")));
        fragments.extend(masked(FIN | CONTINUATION, b""));
        let mut raw = Raw::session(node.listen, &token, "raw");
        raw.write(&fragments);
        assert_eq!(raw.frame().0, FIN | TEXT);
        let mut raw = Raw::upgraded(node.listen);
        raw.write_anyway(&masked(FIN | TEXT, &[b' '; (48 << 10) + 1]));
        assert_eq!(raw.transcript(), ["close 1009"]);

        let mut raw = Raw::connect(node.listen);
        raw.write(&head(&[REQUEST.as_slice(), &["Sec-WebSocket-Protocol: chat.v1.bin"]].concat()));
        assert!(raw.head().contains("\r\nSec-WebSocket-Protocol: chat.v1.bin\r\n"));
        raw.write(&masked(FIN | TEXT, connect(&token).as_bytes()));
        assert_eq!(raw.transcript(), ["close 1003"]);
    });
}

/// B6: a frame may be cut anywhere.
#[test]
fn frames_in_pieces() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let token = node.token("alice");
        let mut long = PING_COMMAND.to_vec();
        long.resize(300, b' ');
        let mut raw = Raw::session(node.listen, &token, "raw");
        for frame in [masked(FIN | TEXT, PING_COMMAND), masked(FIN | TEXT, &long)] {
            for cut in 1..=20 {
                raw.write(&frame[..cut]);
                raw.write(&frame[cut..]);
                assert!(raw.frame().1.starts_with(b"{\"op\":\"pong\",\"id\":7"), "cut at {cut}");
            }
            frame.chunks(1).for_each(|byte| raw.write(byte));
            assert!(raw.frame().1.starts_with(b"{\"op\":\"pong\",\"id\":7"), "byte by byte");
        }
        // A whole life in single bytes.
        let stream = [
            head(&REQUEST),
            masked(FIN | TEXT, connect(&token).as_bytes()),
            masked(FIN | PING, b"x"),
            close(1000),
        ];
        let mut raw = Raw::connect(node.listen);
        stream.concat().chunks(1).for_each(|byte| raw.write(byte));
        assert!(raw.head().starts_with("HTTP/1.1 101 "));
        assert_eq!(raw.transcript().last().map(String::as_str), Some("close 1000"));
    });
}

/// B14, B15, and what may follow a close.
#[test]
fn closes() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let token = node.token("alice");
        let check = |name: &str, bytes: &[u8], expected: &str| check(&node, &token, name, bytes, expected);
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            check("B14", &close(code), "close 1002");
        }
        check("B14 one byte", &masked(FIN | CLOSE, b"\x03"), "close 1002");
        check(
            "B14 long reason",
            &masked(FIN | CLOSE, &[b"\x03\xe8".as_slice(), &[b'x'; 124]].concat()),
            "close 1002",
        );
        check("B14 reason in no language", &masked(FIN | CLOSE, b"\x03\xe8\xff"), "close 1007");
        check("no code", &masked(FIN | CLOSE, b""), "close");
        for code in [1000, 1001, 1011, 3000, 4000, 4999] {
            check("good codes come back", &close(code), &format!("close {code}"));
        }
        let after =
            [close(1000), masked(FIN | TEXT, PING_COMMAND), masked(FIN | PING, b"x"), close(1001)].concat();
        check("B16 data after close", &after, "close 1000");
        let mut raw = Raw::upgraded(node.listen);
        raw.write(b"\x81\x00");
        let bytes = raw.rest();
        let reason = bytes.get(4..).and_then(|reason| std::str::from_utf8(reason).ok());
        assert_eq!(&bytes[..4], [0x88, bytes.len() as u8 - 2, 0x03, 0xEA]);
        assert_eq!(
            reason,
            Some("a frame of the client is not masked"),
            "B15: a reason in words and nothing behind it"
        );
    });
}

/// Some clients are shown why a connection was closed, and not the frame before it: it said nothing once.
#[test]
fn what_is_wrong_with_a_first_command_is_in_the_close_too() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    for first in [PING_COMMAND, br#"{"op":"connect","id":7,"device":8}"#, br#"{"op":"dance","id":7}"#] {
        let mut raw = Raw::upgraded(node.listen);
        raw.write(&masked(FIN | TEXT, first));
        let (kind, error) = raw.frame();
        let error: Value = serde_json::from_slice(&error).expect("it sends JSON");
        assert_eq!((kind, &error["op"], &error["id"]), (FIN | TEXT, &json!("error"), &json!(7)));
        let (kind, payload) = raw.frame();
        let (code, reason) = payload.split_at(2);
        assert_eq!((kind, code), (FIN | CLOSE, &4103_u16.to_be_bytes()[..]));
        assert_eq!(Some(reason), error["message"].as_str().map(str::as_bytes), "{error}");
    }
}

/// B16: however a connection ends, nothing of it stays.
#[test]
fn every_end_frees_everything() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let mut witness = Chat::connect(&node, "witness", "w");
    let token = node.token("alice");
    let partial = &masked(FIN | TEXT, &[b' '; 40_000])[..10_000];
    let request = head(&REQUEST);
    let mut held = Vec::new();
    let mut end_all = || {
        for place in 0..8 {
            let device = format!("d{place}");
            let session = || Raw::session(node.listen, &token, &device);
            let mut silent_after_close = session();
            silent_after_close.write(&close(1000));
            let mut finished = session();
            finished.finish();
            let mut finished_mid_frame = session();
            finished_mid_frame.write(partial);
            finished_mid_frame.finish();
            let mut finished_mid_head = Raw::connect(node.listen);
            finished_mid_head.write(&request[..50]);
            finished_mid_head.finish();
            // Their sockets stay open on this side.
            held.extend([silent_after_close, finished, finished_mid_frame, finished_mid_head]);
            for mut reset in [session(), Raw::upgraded(node.listen)] {
                reset.write(&masked(FIN | PING, b"x"));
                reset.write(partial);
                reset.reset();
            }
            drop(session());
        }
        node.wait_for_metric("connections", 1);
        node.wait_for_metric("sessions", 1);
    };
    end_all();
    let before = node.resident_bytes();
    (0..10).for_each(|_| end_all());
    assert!(node.resident_bytes() < before + LEFT_BYTES_MAX, "560 ends left nothing behind");
    witness.is_fine();
}

/// Runs a flood once to see what a busy node needs, then often, and sees that the need does not grow.
#[track_caller]
fn check_flood(node: &Node, times: usize, left_bytes_max: u64, mut flood: impl FnMut()) {
    let mut witness = Chat::connect(node, "witness", "w");
    let mut round = |times: usize| {
        for _ in 0..times {
            flood();
            witness.is_fine();
        }
        node.wait_for_metric("connections", 1);
        node.resident_bytes()
    };
    // How much of a flood stands there at one time depends on how busy the machine is: what is lost grows with every round.
    let mut needs = vec![round(1)];
    while needs.len() < 5 {
        let (before, after) = (needs[needs.len() - 1], round(times));
        if after < before + left_bytes_max {
            return;
        }
        needs.push(after);
    }
    panic!("every round leaves more behind: {needs:?} bytes");
}

/// What they hold, 40 MB, fills the pool of one of two shards however they are spread: evenly, 800 of them filled neither.
const STRANGERS: usize = 1_000;

/// Before they have a session, all peers of a shard together may be held 16 MiB. Beyond it they are told to come back,
/// and those who have a session do not notice.
#[test]
fn strangers_share_one_pool() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let partial = &masked(FIN | TEXT, &[b' '; 48_000])[..40_000];
    check_flood(&node, 3, LEFT_BYTES_MAX, || {
        let mut witness = Chat::connect(&node, "other", "w");
        let mut strangers: Vec<_> = (0..STRANGERS).map(|_| Raw::upgraded(node.listen)).collect();
        strangers.iter_mut().for_each(|raw| _ = raw.write_anyway(partial));
        let begun = Instant::now();
        while !strangers.iter_mut().any(|raw| raw.hears_within(Duration::from_millis(1))) {
            assert!(begun.elapsed() < PATIENCE, "nobody finds the pool full");
        }
        (0..10).for_each(|_| witness.is_fine());
        drop(witness);
        strangers.iter_mut().for_each(Raw::finish);
        let ends: Vec<_> = strangers.iter_mut().map(Raw::transcript).collect();
        let refused = ends.iter().filter(|lines| **lines == ["close 4003"]).count();
        assert!((1..STRANGERS).contains(&refused), "{refused} of {STRANGERS} found the pool full");
        assert!(ends.iter().all(|lines| lines.is_empty() || *lines == ["close 4003"]), "{ends:?}");
    });
}

/// B9, B10: a message of ever more fragments ends by their number, of the echo service as of the chat.
#[test]
fn fragments_without_end() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let token = node.token("alice");
    for payload in [b"".as_slice(), b" "] {
        let fragments = masked(CONTINUATION, payload).repeat(10_000);
        let endless = |mut raw: Raw| {
            raw.write_anyway(&masked(TEXT, b""));
            let begun = Instant::now();
            while raw.write_anyway(&fragments) {
                assert!(begun.elapsed() < PATIENCE, "it takes fragments for ever");
            }
            assert_eq!(raw.transcript(), ["close 1009"]);
        };
        check_flood(&node, 20, LEFT_BYTES_MAX, || {
            endless(Raw::session(node.listen, &token, "raw"));
            endless(Raw::upgraded(node.echo));
        });
    }
}

/// What the pongs of one flood would take if each ping had its own.
const PONGS_BYTES: u64 = 100_000 * 127;

/// B11: a hundred thousand pings from somebody who does not listen: pongs are merged, the newest is answered.
#[test]
fn pings_without_end() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let token = node.token("alice");
    let mut pings: Vec<u8> =
        (0..100_000).flat_map(|number| masked(FIN | PING, format!("{number:0125}").as_bytes())).collect();
    pings.extend(close(1000));
    check_flood(&node, 5, PONGS_BYTES / 2, || {
        for mut raw in [Raw::session(node.listen, &token, "raw"), Raw::upgraded(node.echo)] {
            raw.write(&pings);
            let lines = raw.transcript();
            // How many are merged depends on what comes at once: 4,000 to 5,500 are left where each ping alone makes 100,000.
            assert!(lines.len() < 50_000, "{} answers", lines.len());
            assert_eq!(lines.last().map(String::as_str), Some("close 1000"));
        }
    });
    let mut raw = Raw::session(node.listen, &token, "raw");
    raw.write(&pings[..pings.len() - close(1000).len()]);
    let last = format!("{:0125}", 99_999);
    while raw.frame() != (FIN | PONG, last.clone().into_bytes()) {}
}
