//! The Autobahn testsuite's cases over real sockets, against the echo service: groups 1 to 7, 9 and 10.

use std::thread;

use crate::{
    cases::{self, BINARY, CONTINUATION, COUNTS, Case, FIN, TEXT, Volume, close},
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

/// In one piece, frame by frame, and in single bytes where that is short or the suite does so.
fn check_case(node: &Node, Case { name, frames, chop, expected }: &Case) {
    let stream = frames.concat();
    check(node, name, &[&stream], expected);
    check(node, name, &frames.iter().map(Vec::as_slice).collect::<Vec<_>>(), expected);
    if let Some(bytes) = chop.or((stream.len() <= 64).then_some(1)) {
        check(node, name, &stream.chunks(bytes).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn groups_1_to_7() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    for (number, count) in COUNTS.into_iter().filter(|(number, _)| *number <= 7) {
        let cases = cases::group(number);
        cases.iter().for_each(|case| check_case(&node, case));
        assert_eq!(cases.len(), count, "all of group {number}");
    }
    node.wait_for_metric("connections", 0);
}

#[test]
fn more_than_the_suite_has() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    cases::beyond_the_suite().iter().for_each(|case| check_case(&node, case));
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

/// A message over the wire, so many times, each when the one before has come back.
fn check_volume(node: &Node, case: &Volume) {
    let (payload, stream) = (case.payload(), case.stream());
    let mut raw = Raw::upgraded(node.echo);
    for _ in 0..case.messages {
        stream.chunks(case.write_bytes).for_each(|piece| raw.write(piece));
        let (first, echoed) = raw.frame();
        assert_eq!(first, FIN | case.opcode, "{}", case.name);
        assert!(echoed == payload, "{} comes back as it was sent", case.name);
    }
    raw.write(&close(1000));
    assert_eq!(raw.transcript(), ["close 1000"], "{}", case.name);
}

#[test]
fn groups_9_and_10() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let (texts, others): (Vec<_>, Vec<_>) =
        cases::group_9().into_iter().partition(|case| case.opcode == TEXT);
    let node_ref = &node;
    thread::scope(|scope| {
        for cases in [texts, others] {
            scope.spawn(move || cases.iter().for_each(|case| check_volume(node_ref, case)));
        }
    });
    cases::group_10().iter().for_each(|case| check_volume(&node, case));
    node.wait_for_metric("connections", 0);
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
