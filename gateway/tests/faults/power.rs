//! The disk fails under a running node, and the power is cut with it.

use serde_json::{Value, json};

use crate::{
    chat::{Chat, Received, message_id, verdict},
    disk::Disk,
    node::Node,
};

/// Sends under way at the same time: half of what a session may have.
const WINDOW: u64 = 16;

/// Sends without waiting for each answer until the connection ends; the power is cut behind the `cut`-th acknowledgement,
/// while others are under way. What was acknowledged: sequence and message id.
fn send_until_the_end(alice: &mut Chat, disk: &Disk, cut: usize) -> Vec<(u64, Value)> {
    let now = alice.welcome["now"].clone();
    let send = |alice: &mut Chat| {
        let letter =
            json!({ "to": "bob", "kind": "text", "text": "x".repeat(700), "message_id": message_id(&now) });
        alice.try_send("send", letter).is_ok()
    };
    let mut acknowledged = Vec::new();
    let mut under_way = 0;
    loop {
        while under_way < WINDOW && send(alice) {
            under_way += 1;
        }
        match alice.next() {
            Received::Frame(frame) if frame["op"] == "ok" => {
                acknowledged.push((frame["seq"].as_u64().expect("a sequence"), frame["message_id"].clone()));
                under_way -= 1;
                if acknowledged.len() == cut {
                    disk.cut_power();
                }
            }
            Received::Frame(frame) if frame["op"] == "error" => {
                assert_eq!(
                    (&frame["code"], &frame["retry_after_ms"].is_u64()),
                    (&json!(3004), &true),
                    "{frame}"
                );
                under_way -= 1;
            }
            Received::Frame(_) => {}
            Received::Closed(_) | Received::Gone => return acknowledged,
        }
    }
}

/// F2, and a disk that only gives errors: the log stops at once, the node says so, drains and exits with 1, and the next
/// start has every acknowledged message under its sequence.
#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    let data = disk.root.join("data");
    let settings = [("GATEHOUSE_LOGS", "1"), ("GATEHOUSE_DRAIN_SECONDS", "0")];
    let mut acknowledged = Vec::new();
    for cut in [1, 40, 203, 377] {
        let mut node = Node::start(&data, &settings);
        let mut alice = Chat::connect(&node, "alice", "a");
        acknowledged.extend(send_until_the_end(&mut alice, &disk, cut));
        drop(alice);
        node.log_line(&["log stopped", "log=0"]);
        assert_eq!(node.ended().code(), Some(1));
        drop(node);
        disk.restore_power();

        let node = Node::start(&data, &settings);
        let mut bob = Chat::connect(&node, "bob", "b");
        let mut alice = Chat::connect(&node, "alice", "a");
        let conversation = alice.tell("bob", "after the power cut")["conversation"].clone();
        let history = bob.history(&conversation);
        let stored: Vec<_> = history
            .iter()
            .map(|item| (item["seq"].as_u64().expect("a sequence"), item["message_id"].clone()))
            .collect();
        assert!(stored.iter().map(|(seq, _)| *seq).eq(1..=stored.len() as u64), "dense from 1");
        let lost: Vec<_> = acknowledged.iter().filter(|one| !stored.contains(one)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    }
}

/// Whoever asks is told while the node still drains.
#[test]
fn a_failed_log_is_told_to_whoever_asks() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    let mut node = Node::start(&disk.root.join("data"), &[("GATEHOUSE_LOGS", "1")]);
    let mut alice = Chat::connect(&node, "alice", "a");
    assert!(node.admin_get("/readyz").starts_with("HTTP/1.1 200 "));
    disk.cut_power();
    let reply = alice.ask("send", json!({ "to": "bob", "kind": "text", "text": "too late" }));
    assert_eq!(verdict(&reply), "3004 unavailable");
    // She stays connected until a second after the goodbye, and so does the node.
    let ready = node.admin_get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("log 0 failed"), "{ready}");
    assert_eq!(node.metric("logs{health=\"failed\"}"), 1);
    assert!(node.admin_get("/livez").starts_with("HTTP/1.1 200 "), "it still drains");
    let (_, ended) = alice.until_closed(|_, _| {});
    assert_eq!(ended, Received::Closed(4000));
    assert_eq!(node.ended().code(), Some(1));
}
