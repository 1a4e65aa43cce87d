//! Peers that take their time. Their deadlines are real seconds, so they all wait side by side.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    chat::Chat,
    node::{Node, directory},
    raw::{REQUEST, Raw, connect, head},
    wire::masked,
};

/// Deadlines are kept by the second, so one of 10 s is never earlier than this.
const TEN_SECONDS_MIN: Duration = Duration::from_secs(8);
/// The same for the 5 s in which a close is to be answered.
const FIVE_SECONDS_MIN: Duration = Duration::from_secs(3);

const SLOW_SOCKETS: usize = 300;
const HELD_MESSAGES: usize = 100;

#[test]
fn whoever_takes_too_long_is_let_go() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let mut witness = Chat::connect(&node, "witness", "w");
    let before = node.resident_bytes();
    let node = &node;
    thread::scope(|scope| {
        scope.spawn(|| a_byte_a_second_is_no_request(node));
        scope.spawn(|| nothing_at_all_is_no_request(node));
        scope.spawn(|| an_upgrade_alone_is_no_session(node));
        scope.spawn(|| a_trickled_connect_is_no_session(node));
        scope.spawn(|| a_message_has_an_end(node));
        scope.spawn(|| a_close_is_answered_or_not(node));
        scope.spawn(move || (0..500).for_each(|_| witness.is_fine()));
    });
    node.wait_for_metric("connections", 0);
    assert!(node.metric("refused_total{reason=\"timeout\"}") > SLOW_SOCKETS as u64);
    assert!(node.resident_bytes() < before + (32 << 20), "nothing was kept of those who left");
}

/// A1: absolute, not per byte.
fn a_byte_a_second_is_no_request(node: &Node) {
    let begun = Instant::now();
    let request = head(&REQUEST);
    let mut raws: Vec<_> = (0..SLOW_SOCKETS).map(|_| Raw::connect(node.listen)).collect();
    for byte in request.chunks(1) {
        raws.iter_mut().for_each(|raw| _ = raw.write_anyway(byte));
        // Waits a second for an answer; that is the pace of this attack.
        if raws[0].hears_within(Duration::from_secs(1)) {
            break;
        }
    }
    assert!(begun.elapsed() >= TEN_SECONDS_MIN);
    raws.iter_mut().for_each(|raw| assert_eq!(raw.status(), 408));
}

/// A2.
fn nothing_at_all_is_no_request(node: &Node) {
    let begun = Instant::now();
    let mut raw = Raw::connect(node.listen);
    assert_eq!(raw.status(), 408);
    assert!(begun.elapsed() >= TEN_SECONDS_MIN);
}

/// C1.
fn an_upgrade_alone_is_no_session(node: &Node) {
    let begun = Instant::now();
    let mut silent = Raw::upgraded(node.listen);
    let mut pinging = Raw::upgraded(node.listen);
    pinging.write(&masked(0x89, b"here"));
    assert_eq!(pinging.frame(), (0x8A, b"here".to_vec()));
    assert_eq!(silent.transcript(), ["close 4002"]);
    assert_eq!(pinging.transcript(), ["close 4002"]);
    assert!(begun.elapsed() >= TEN_SECONDS_MIN);
}

/// C1, with a first frame that never ends.
fn a_trickled_connect_is_no_session(node: &Node) {
    let begun = Instant::now();
    let mut raw = Raw::upgraded(node.listen);
    for byte in masked(0x81, connect(&node.token("slow")).as_bytes()).chunks(1) {
        if !raw.write_anyway(byte) || raw.hears_within(Duration::from_secs(1)) {
            break;
        }
    }
    assert_eq!(raw.transcript(), ["close 4002"]);
    assert!(begun.elapsed() >= TEN_SECONDS_MIN);
}

/// B4: a length is announced and one byte comes. Only that byte is held.
fn a_message_has_an_end(node: &Node) {
    let token = node.token("cutter");
    let opened: Vec<_> = (0..HELD_MESSAGES)
        .map(|place| {
            // Eight sessions a user; the others hold the frame back before they have one.
            if place < 8 {
                Raw::session(node.listen, &token, &format!("d{place}"))
            } else {
                Raw::upgraded(node.listen)
            }
        })
        .collect();
    let before = node.resident_bytes();
    let begun = Instant::now();
    let mut raws = opened;
    for raw in &mut raws {
        raw.write(&masked(0x81, &[b' '; 40_000])[..8 + 1]);
    }
    assert!(node.resident_bytes() < before + (16 << 20), "a length is no reason to take memory");
    raws.iter_mut().for_each(|raw| assert_eq!(raw.transcript(), ["close 4002"]));
    assert!(begun.elapsed() >= FIVE_SECONDS_MIN);
}

/// B16: we close, the peer does not.
fn a_close_is_answered_or_not(node: &Node) {
    let token = node.token("twin");
    let mut first = Raw::session(node.listen, &token, "same");
    let begun = Instant::now();
    let mut second = Raw::session(node.listen, &token, "same");
    assert_eq!(first.transcript(), ["close 4104"]);
    assert!(begun.elapsed() >= FIVE_SECONDS_MIN);
    second.write(&masked(0x88, b"\x03\xe8"));
    assert_eq!(second.transcript(), ["close 1000"]);
}
