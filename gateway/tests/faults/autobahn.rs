//! The Autobahn testsuite's cases over real sockets, against the echo service: groups 1 to 7, 9 and 10.

use std::thread;

use crate::{
    cases::{self, BINARY, CONTINUATION, Case, FIN, TEXT, close},
    node::{Node, directory},
    raw::Raw,
    wire::{masked, shorten},
};

const MIB: usize = 1 << 20;

/// Sends `pieces`, each in a write of its own, and reads until the end.
#[track_caller]
fn check(node: &Node, name: &str, pieces: &[&[u8]], expected: &[String]) {
    let mut raw = Raw::upgraded(node.echo);
    for piece in pieces {
        // After a violation the server may be gone before all is sent.
        if !raw.write_anyway(piece) {
            break;
        }
    }
    assert_eq!(raw.transcript(), expected, "{name} in {} pieces", pieces.len());
}

#[test]
fn groups_1_to_7() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    for Case { name, frames, expected } in (1..=7).flat_map(cases::group) {
        let stream = frames.concat();
        check(&node, name, &[&stream], &expected);
        check(&node, name, &frames.iter().map(Vec::as_slice).collect::<Vec<_>>(), &expected);
        if stream.len() <= 64 {
            check(&node, name, &stream.chunks(1).collect::<Vec<_>>(), &expected);
        }
    }
    node.wait_for_metric("connections", 0);
}

/// 6.4: the close comes although the frame, or the message, has not ended.
#[test]
fn group_6_4_fails_fast() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let valid = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5".as_slice();
    for bad in [b"\xf4\x90".as_slice(), b"\xf4\x90\x80\x80", b"\xed\xa0"] {
        let expected = ["close 1007".to_owned()];
        check(&node, "6.4.1", &[&masked(TEXT, valid), &masked(CONTINUATION, bad)], &expected);
        let whole = masked(FIN | TEXT, &[valid, bad, b"edited, and never sent"].concat());
        check(&node, "6.4.3", &[&whole[..6 + valid.len() + 2]], &expected);
    }
}

/// One message over the wire: `fragment_bytes` in a frame, `write_bytes` in a write.
fn check_message(node: &Node, opcode: u8, bytes: usize, fragment_bytes: usize, write_bytes: usize) {
    let payload = vec![b'*'; bytes];
    let mut stream = Vec::with_capacity(2 * bytes);
    if fragment_bytes == bytes {
        stream.extend(masked(FIN | opcode, &payload));
    } else {
        for (place, fragment) in payload.chunks(fragment_bytes).enumerate() {
            stream.extend(masked(if place == 0 { opcode } else { CONTINUATION }, fragment));
        }
        stream.extend(masked(FIN | CONTINUATION, b""));
    }
    let mut raw = Raw::upgraded(node.echo);
    stream.chunks(write_bytes).for_each(|piece| raw.write(piece));
    let (first, echoed) = raw.frame();
    assert_eq!(first, FIN | opcode);
    assert!(echoed == payload, "{bytes} bytes in fragments of {fragment_bytes} come back as they were");
    raw.write(&close(1000));
    assert_eq!(raw.transcript(), ["close 1000"]);
}

#[test]
fn group_9_limits() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let node = &node;
    thread::scope(|scope| {
        for opcode in [TEXT, BINARY] {
            scope.spawn(move || {
                // 9.1, 9.2: one frame.
                for bytes in [MIB / 16, MIB / 4, MIB, 4 * MIB, 8 * MIB, 16 * MIB] {
                    check_message(node, opcode, bytes, bytes, MIB);
                }
                // 9.3, 9.4: fragments, 65,536 of them at first, and an empty one to end with.
                for fragment_bytes in [64, 256, 1024, 4096, 16 << 10, 64 << 10, 256 << 10, MIB, 4 * MIB] {
                    check_message(node, opcode, 4 * MIB, fragment_bytes, MIB);
                }
                // 9.5, 9.6: one frame in many writes.
                for write_bytes in [64, 128, 256, 512, 1024, 2048] {
                    check_message(node, opcode, MIB, MIB, write_bytes);
                }
            });
        }
    });
    node.wait_for_metric("connections", 0);
}

/// 9.7, 9.8: a thousand messages, each sent when the one before has come back.
#[test]
fn group_9_round_trips() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    for opcode in [TEXT, BINARY] {
        for bytes in [0, 16, 64, 256, 1024, 4096] {
            let (mut raw, payload) = (Raw::upgraded(node.echo), vec![b'*'; bytes]);
            let frame = masked(FIN | opcode, &payload);
            for _ in 0..1000 {
                raw.write(&frame);
                assert_eq!(raw.frame(), (FIN | opcode, payload.clone()));
            }
            raw.write(&close(1000));
            assert_eq!(raw.transcript(), ["close 1000"]);
        }
    }
}

/// 10.1: the client's library splits at a size that fits no power of two.
#[test]
fn group_10_fragments_by_size() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    check_message(&node, TEXT, 65_536, 1300, MIB);
}

/// One beyond what the suite needs: the limits of the echo service themselves.
#[test]
fn one_more_than_the_limits() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let too_big = ["close 1009".to_owned()];
    // The header alone says it.
    let mut long = vec![FIN | BINARY, 0xFF];
    long.extend_from_slice(&(16 * MIB as u64 + 1).to_be_bytes());
    check(&node, "16 MiB and a byte", &[&[&long[..], &[0; 4]].concat()], &too_big);
    let mut many = masked(TEXT, b"x");
    for _ in 0..65_537 {
        many.extend(masked(CONTINUATION, b"x"));
    }
    check(&node, "65,538 fragments", &[&many], &too_big);
    let echoed = format!("text {}", shorten(b"still here"));
    let expected = [echoed, "close 1000".to_owned()];
    check(&node, "afterwards", &[&masked(FIN | TEXT, b"still here"), &close(1000)], &expected);
}
