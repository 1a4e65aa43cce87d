//! Segments that become cold while a node serves: nothing is lost by it, whenever it is stopped.

use std::{collections::BTreeMap, fs, path::Path, time::Instant};

use serde_json::{Value, json};

use crate::{
    backup::{check_letters, restore},
    chat::{Chat, verdict},
    logtool::{fill, flip, log, text},
    node::{Node, PATIENCE, directory},
};

/// One log in small segments, each compacted as soon as it may be.
pub(crate) const EAGER: [(&str, &str); 3] =
    [("GATEHOUSE_LOGS", "1"), ("GATEHOUSE_SEGMENT_MIB", "4"), ("GATEHOUSE_COMPACT_AFTER_SECONDS", "1")];

/// Segments of log 0 by the ending of their names, as often as there are some.
fn endings(data: &Path) -> BTreeMap<String, usize> {
    let mut endings = BTreeMap::new();
    for entry in fs::read_dir(data.join("log-00")).expect("a log").flatten() {
        let name = entry.file_name().into_string().expect("a name of ours");
        if name.starts_with("seg-") {
            *endings.entry(name.rsplit('.').next().expect("an ending").to_owned()).or_default() += 1;
        }
    }
    endings
}

/// Waits until so many segments are cold.
#[track_caller]
pub(crate) fn wait_for_cold(data: &Path, count: usize) {
    wait_for_files(data, "cold", count);
}

/// Until there are so many files of this ending.
fn wait_for_files(data: &Path, ending: &str, count: usize) {
    let begun = Instant::now();
    while endings(data).get(ending).copied().unwrap_or(0) < count {
        assert!(begun.elapsed() < PATIENCE, "{:?}", endings(data));
        std::thread::yield_now();
    }
}

/// A group whose messages lie between those of the others.
fn chatter(node: &Node) -> Value {
    let mut alice = Chat::connect(node, "alice", "chatter");
    let made =
        alice.ask("create", json!({ "members": ["bob", "carol"], "title": "chatter", "history": "all" }));
    assert_eq!(verdict(&made), "ok", "{made}");
    made["conversation"].clone()
}

#[test]
fn cold_segments_hold_what_the_log_held_through_kills_and_restarts() {
    let root = directory();
    let [data, to, copy] = ["data", "to", "copy"].map(|name| root.path().join(name));
    let mut node = Node::start(&data, &EAGER);
    let group = chatter(&node);
    let (mut letters, mut conversation) = (BTreeMap::new(), Value::Null);
    for round in 1..=4_usize {
        let mut alice = Chat::connect(&node, "alice", "a");
        for number in 0..20 {
            let text = format!("round {round}, number {number}");
            let sent = alice.ask("send", json!({ "conversation": group, "kind": "text", "text": text }));
            assert_eq!(verdict(&sent), "ok");
            let (acked, to) = fill(&mut alice, 24, 16 << 10);
            letters.extend(acked);
            conversation = to;
        }
        wait_for_cold(&data, round);
        check_letters(&node, &letters, &conversation);
        assert_eq!(Chat::connect(&node, "carol", "c").history(&group).len(), round * 20 + 1);
        // In whatever it is doing now.
        node.restart();
        check_letters(&node, &letters, &conversation);
    }
    let files = endings(&data);
    assert!(files["cold"] >= 4 && files["log"] <= 5, "{files:?}");
    log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound"]);
    log(&["stat", "--data", text(&data)]).check(0, &[]);
    // A device that was away all the time is given all of it, once.
    let mut bob = Chat::connect_with(
        &node,
        &node.token("bob"),
        json!({ "device": "new", "positions": [
        { "conversation": conversation, "seq": 0 }, { "conversation": group, "seq": 0 },
    ] }),
    );
    bob.event("caught_up");
    let told = bob.take_events().into_iter().filter(|event| event["op"] == "message");
    let told: Vec<_> = told
        .filter(|event| event["conversation"] == conversation)
        .map(|event| event["seq"].clone())
        .collect();
    assert!(told.iter().cloned().eq((1..=told.len() as u64).map(Value::from)), "{} letters", told.len());
    assert!(told.len() >= letters.len());
    log(&["backup", "--data", text(&data), "--to", text(&to)]).check(0, &[]);
    restore(&to, &copy);
    let restored = Node::start(&copy, &EAGER);
    check_letters(&restored, &letters, &conversation);
    log(&["verify", "--data", text(&copy)]).check(0, &["log 0: sound"]);
}

/// A damaged record of a cold segment is a gap; a damaged index of one is made anew from its records.
#[test]
fn damage_in_a_cold_segment_costs_what_is_damaged() {
    let root = directory();
    let data = root.path().join("data");
    let mut node = Node::start(&data, &EAGER);
    let (letters, conversation) = fill(&mut Chat::connect(&node, "alice", "a"), 400, 16 << 10);
    wait_for_cold(&data, 1);
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
    let cold = data.join("log-00/seg-0000000000000000.cold");
    let length = fs::metadata(&cold).expect("it was compacted").len();
    for from_end in [200, 5] {
        flip(&cold, length - from_end);
        node.restart();
        node.log_line(&["an index file is damaged", "made anew"]);
        check_letters(&node, &letters, &conversation);
        // The one that was made stands beside it, and is what the next start reads.
        node.restart();
        check_letters(&node, &letters, &conversation);
        node.kill();
        assert!(!node.log_text().contains("damaged"), "{}", node.log_text());
        fs::remove_file(cold.with_extension("idx")).expect("it was made");
        flip(&cold, length - from_end);
    }
    flip(&cold, length / 2);
    node.restart();
    let mut bob = Chat::connect(&node, "bob", "b");
    let told = bob.history(&conversation);
    let gaps = told.iter().filter(|item| item["op"] == "gap").count();
    assert_eq!((told.len(), gaps), (letters.len(), 1), "each is told, as a message or as a gap");
    assert_eq!(node.metric("log_damaged_records_total"), 1);
    log(&["verify", "--data", text(&data)]).check(1, &["DAMAGED", "seg-0000000000000000.cold"]);
    bob.is_fine();
}

/// A node that was stopped between the rename and the removal finds both, and one that was stopped before it finds the one that was.
#[test]
fn what_a_broken_off_compaction_leaves_is_tidied_up_at_start() {
    let root = directory();
    let [data, before] = ["data", "before"].map(|name| root.path().join(name));
    let lazy =
        [("GATEHOUSE_LOGS", "1"), ("GATEHOUSE_SEGMENT_MIB", "4"), ("GATEHOUSE_COMPACT_AFTER_SECONDS", "0")];
    let mut node = Node::start(&data, &lazy);
    let (letters, conversation) = fill(&mut Chat::connect(&node, "alice", "a"), 300, 16 << 10);
    // Another thread writes it, when the disk lets it.
    wait_for_files(&data, "idx", 1);
    assert_eq!(node.metric("log_compactions_total"), 0);
    node.kill();
    let name = |ending: &str| format!("log-00/seg-0000000000000000.{ending}");
    fs::create_dir_all(before.join("log-00")).expect("room");
    for ending in ["log", "idx"] {
        fs::copy(data.join(name(ending)), before.join(name(ending))).expect("it is sealed");
    }
    let mut node = Node::start(&data, &EAGER);
    wait_for_cold(&data, 1);
    node.kill();
    for ending in ["log", "idx"] {
        fs::copy(before.join(name(ending)), data.join(name(ending))).expect("room");
    }
    fs::write(data.join(name("cold.new")), "half of one").expect("room");
    node.restart();
    check_letters(&node, &letters, &conversation);
    assert!(["log", "idx"].iter().all(|ending| !data.join(name(ending)).exists()), "{:?}", endings(&data));
    node.kill();
    log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound"]);
    // A cold one whose header is damaged, beside what it was made from, is not needed.
    for ending in ["log", "idx"] {
        fs::copy(before.join(name(ending)), data.join(name(ending))).expect("room");
    }
    flip(&data.join(name("cold")), 20);
    node.restart();
    check_letters(&node, &letters, &conversation);
}
