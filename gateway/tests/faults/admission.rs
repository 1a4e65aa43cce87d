//! More connections than a node takes, at once or at all: whoever can be served soon waits, the others are told, and those who are
//! connected go on talking.

use std::time::{Duration, Instant};

use crate::{
    chat::{Chat, undisturbed},
    node::{Node, directory},
    raw::{REQUEST, Raw, connect_of, head},
    wire::masked,
};

/// Requests and their `connect`, each in one go, of so many devices of several users.
fn handshakes(node: &Node, count: usize) -> Vec<Vec<u8>> {
    let users = (0..count.div_ceil(8)).map(|user| node.token(&format!("user{user}")));
    let of_user = |token: String| {
        (0..8).map(move |device| {
            let connect = connect_of(&token, &format!("d{device}"));
            [head(&REQUEST), masked(0x81, connect.as_bytes())].concat()
        })
    };
    users.flat_map(of_user).take(count).collect()
}

/// All of them at once, each on a connection of its own.
fn come(node: &Node, handshakes: &[Vec<u8>]) -> Vec<Raw> {
    let mut crowd: Vec<_> = handshakes.iter().map(|_| Raw::connect(node.listen)).collect();
    crowd.iter_mut().zip(handshakes).for_each(|(raw, bytes)| raw.write(bytes));
    crowd
}

/// Reads the answer of a handshake up to its `welcome`.
#[track_caller]
fn check_welcome(raw: &mut Raw) {
    let response = raw.head();
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    let (first, payload) = raw.frame();
    assert!(first == 0x81 && payload.starts_with(b"{\"op\":\"welcome\""), "{payload:?}");
}

fn refused(node: &Node, reason: &str) -> u64 {
    node.metric(&format!("refused_total{{reason=\"{reason}\"}}"))
}

fn paused(node: &Node, reason: &str) -> u64 {
    node.metric(&format!("accept_pauses_total{{reason=\"{reason}\"}}"))
}

#[test]
fn more_handshakes_than_may_be_in_progress_wait_and_all_are_served() {
    const CROWD: usize = 200;
    let data = directory();
    // One for each of the two shards.
    let node = Node::start(data.path(), &[("GATEHOUSE_HANDSHAKES_MAX", "2")]);
    let handshakes = handshakes(&node, CROWD);
    undisturbed(&node, || come(&node, &handshakes).iter_mut().for_each(check_welcome));
    assert!(paused(&node, "handshakes") > 0, "all came at once");
    node.log_line(&["connections had to wait because `handshakes_max` were in progress"]);
    for reason in ["displaced", "full", "no_credit", "system", "timeout"] {
        assert_eq!(refused(&node, reason), 0, "{reason}");
    }
    node.wait_for_metric("handshakes", 0);
}

#[test]
fn peers_that_say_nothing_hold_their_places_for_a_while_and_keep_nobody_out() {
    const SILENT: usize = 20;
    let data = directory();
    let node = Node::start(data.path(), &[("GATEHOUSE_HANDSHAKES_MAX", "8")]);
    undisturbed(&node, || {
        let mut silent: Vec<_> = (0..SILENT).map(|_| Raw::connect(node.listen)).collect();
        // Behind all of them, whichever shard it comes to.
        let mut honest = Chat::connect(&node, "honest", "h");
        honest.is_fine();
        assert!(node.metric("handshakes") <= 8);
        assert!(refused(&node, "displaced") > 0, "somebody had to go for it");
        assert_eq!(refused(&node, "timeout"), 0);
        drop(silent.split_off(SILENT / 2));
        silent.iter_mut().for_each(|raw| assert_eq!(raw.status(), 408));
    });
    node.log_line(&["handshakes were given up after 2 s because others waited"]);
}

#[test]
fn connections_come_no_faster_than_they_may() {
    let data = directory();
    // Ten a second for each shard, and one at once.
    let node = Node::start(data.path(), &[("GATEHOUSE_CONNECTS_PER_SECOND_MAX", "20")]);
    let handshakes = handshakes(&node, 30);
    let begun = Instant::now();
    come(&node, &handshakes).iter_mut().for_each(check_welcome);
    // 28 beyond the first of each shard, if they fall on both alike.
    assert!(begun.elapsed() >= Duration::from_millis(1_400), "{:?}", begun.elapsed());
    assert!(paused(&node, "rate") > 0);
    node.log_line(&["connections had to wait because `connects_per_second_max` had come"]);
}

/// E4: five times as many as the tables of sockets hold.
#[test]
fn a_full_node_answers_everybody_and_takes_connections_again() {
    const CROWD: usize = 3_000;
    let data = directory();
    let node = Node::start(data.path(), &[("GATEHOUSE_CONNECTIONS_MAX", "20")]);
    undisturbed(&node, || {
        let mut crowd: Vec<_> = (0..CROWD).map(|_| Raw::connect(node.listen)).collect();
        for raw in &mut crowd {
            // Whoever was refused already may have hung up.
            raw.write_anyway(&head(&REQUEST));
        }
        let (mut taken, mut full) = (0, 0);
        for raw in &mut crowd {
            let response = raw.head();
            match response.split(' ').nth(1) {
                Some("101") => taken += 1,
                Some("503") if response.contains("\r\nRetry-After: ") => full += 1,
                _ => panic!("{response}"),
            }
        }
        assert!(taken >= 20 && full > 0 && taken + full == CROWD, "{taken} taken, {full} told");
    });
    assert_eq!(refused(&node, "system"), 0, "the tables were never full");
    assert!(refused(&node, "full") > 0);
    node.log_line(&[
        "connections were refused with 503: the node has as many as it may; raise `connections_max`",
    ]);
    Chat::connect(&node, "after", "a").is_fine();
}

#[test]
fn a_node_that_is_short_of_memory_says_so_and_takes_no_connections() {
    let data = directory();
    let node = Node::start(data.path(), &[("GATEHOUSE_MEMORY_RESERVE_MIB", "1073741824")]);
    node.log_line(&["short of memory: new connections are refused with 503", "reserve_mib=1073741824"]);
    let ready = node.admin_get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("\nshort of memory: "), "{ready}");
    let mut raw = Raw::connect(node.listen);
    let response = raw.head();
    assert!(response.starts_with("HTTP/1.1 503 ") && response.contains("\r\nRetry-After: "), "{response}");
    assert_eq!(raw.rest(), b"this node has no memory for more connections\n");
    assert_eq!(refused(&node, "memory"), 1);
    node.log_line(&["connections were refused with 503 for want of memory", "times=1"]);
}
