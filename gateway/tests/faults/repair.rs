//! A damaged log that is mended, or cut where an operator says so.

use std::fs;

use serde_json::json;

use crate::{
    chat::Chat,
    logtool::{SMALL, fill, flip, log, text},
    node::{Node, directory, field_of},
};

const FIRST_BATCH: u64 = storage_log::format::SEGMENT_HEADER_BYTES as u64;

fn kept(directory: &std::path::Path) -> usize {
    let names = fs::read_dir(directory).expect("a log").flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().contains(".damaged-")).count()
}

#[test]
fn a_header_is_made_again_and_costs_nothing() {
    let data = directory();
    let mut node = Node::start(data.path(), &SMALL);
    let repair = ["repair", "--data", text(data.path()), "--log", "0"];
    log(&repair).check(2, &["is in use by a node"]);
    let (acked, conversation) = fill(&mut Chat::connect(&node, "alice", "a"), 500, 16 << 10);
    node.kill();
    flip(&data.path().join("log-00/seg-0000000000400000.log"), 9);
    log(&["verify", "--data", text(data.path())]).check(1, &["header is unreadable"]);
    log(&repair).check(0, &["the header of seg-0000000000400000.log was made again", "log 0: sound"]);
    assert_eq!(kept(&data.path().join("log-00")), 1);
    log(&["verify", "--data", text(data.path())]).check(0, &[]);
    log(&["repair", "--data", text(data.path()), "--log", "7"]).check(2, &["no log 7"]);
    let mut node = Node::start(data.path(), &SMALL);
    assert_eq!(Chat::connect(&node, "bob", "b").history(&conversation).len(), acked.len());
    node.kill();
    fs::remove_file(data.path().join("log-00/seg-0000000000000000.log")).expect("it was made");
    log(&repair).check(2, &["has lost its first segment", "gatehouse log restore"]);
}

#[test]
fn a_log_is_cut_only_at_a_damage_that_is_named() {
    let data = directory();
    let mut node = Node::start(data.path(), &SMALL);
    let mut alice = Chat::connect(&node, "alice", "a");
    let (acked, conversation) = fill(&mut alice, 700, 16 << 10);
    let further = Chat::connect(&node, "bob", "d").ask("ping", json!({}))["cursor"].clone();
    node.kill();
    let segment = "seg-0000000000400000.log";
    let log_0 = data.path().join("log-00");
    flip(&log_0.join(segment), 1 << 20);
    let said = log(&["verify", "--data", text(data.path()), "--json"]);
    said.check(1, &[]);
    let offset = said.json()["logs"][0]["damaged"][0]["offset"].as_u64().expect("an offset");

    // Nothing is cut that was not named as it is.
    let repair = ["repair", "--data", text(data.path()), "--log", "0"];
    log(&repair).check(1, &[&format!("--cut-at {segment}:{offset}"), "A backup loses less"]);
    let elsewhere = format!("{segment}:{}", offset + 16);
    log(&[&repair[..], &["--cut-at", &elsewhere]].concat()).check(2, &["has no damage that begins at"]);
    log(&[&repair[..], &["--cut-at", segment]].concat()).check(2, &["name a segment and an offset"]);
    assert_eq!(kept(&log_0), 0);

    let place = format!("{segment}:{offset}");
    let cut = log(&[&repair[..], &["--cut-at", &place]].concat());
    cut.check(0, &["records are given up", conversation.as_str().expect("an id"), "log 0: sound"]);
    assert!(kept(&log_0) >= 2);
    log(&["verify", "--data", text(data.path())]).check(0, &["log 0: sound"]);

    // It serves what is left, and whoever was further is told.
    let mut node = Node::start(data.path(), &SMALL);
    let history = Chat::connect(&node, "bob", "b").history(&conversation);
    let sequences: Vec<u64> = history.iter().filter_map(|item| item["seq"].as_u64()).collect();
    assert!(sequences.iter().copied().eq(1..=sequences.len() as u64));
    assert!((200..acked.len()).contains(&sequences.len()), "{}", sequences.len());
    for item in &history {
        assert_eq!(item["message_id"], acked[&item["seq"].as_u64().expect("a sequence")].as_str());
    }
    let bob = Chat::connect_with(&node, &node.token("bob"), json!({ "device": "d", "cursor": further }));
    assert_eq!(bob.welcome["reset"], true);
    fill(&mut Chat::connect(&node, "alice", "a"), 300, 16 << 10);
    node.restart();
    node.kill();
    log(&["verify", "--data", text(data.path())]).check(0, &[]);
}

/// At three in the morning the line of the start is what is at hand.
#[test]
fn a_log_is_cut_where_the_line_of_a_start_names_it() {
    let data = directory();
    // Two logs, so that the node serves the other one.
    let mut node = Node::start(data.path(), &[("GATEHOUSE_LOGS", "2")]);
    let mut alice = Chat::connect(&node, "alice", "a");
    (0..16).for_each(|peer| _ = alice.tell(&format!("peer-{peer}"), "worth keeping"));
    node.kill();
    flip(&data.path().join("log-00/seg-0000000000000000.log"), FIRST_BATCH + 100);
    let mut node = Node::start(data.path(), &[]);
    let line = node.log_line(&["damaged and not served", "what=\"records that were acknowledged"]);
    let place = format!("{}:{}", field_of(&line, "segment"), field_of(&line, "offset"));
    node.kill();
    let repair = ["repair", "--data", text(data.path()), "--log", "0", "--cut-at", &place];
    log(&repair).check(0, &["records are given up", "log 0: sound"]);
}
