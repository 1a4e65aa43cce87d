//! A store that may take only so much of the disk: the oldest messages go, and everybody is told what is gone.

use std::{fs, path::Path, time::Instant};

use serde_json::{Value, json};

use crate::{
    chat::Chat,
    logtool::{fill, log, text},
    node::{Node, PATIENCE, check_refused, directory},
};

/// One log of four segments.
const SMALL: [(&str, &str); 4] = [
    ("GATEHOUSE_LOGS", "1"),
    ("GATEHOUSE_SEGMENT_MIB", "4"),
    ("GATEHOUSE_COMPACT_AFTER_SECONDS", "1"),
    ("GATEHOUSE_KEEP_MIB", "16"),
];

const KEPT_BYTES: u64 = 16 << 20;

/// Said once, to somebody who is not written to again for long: what is needed of it later is that it was.
const SECRET: &str = "nobody is to find this later";

fn log_bytes(data: &Path) -> u64 {
    let files = fs::read_dir(data.join("log-00")).expect("a log").flatten();
    let bytes = |entry: fs::DirEntry| entry.metadata().map_or(0, |file| file.len());
    files.filter(|entry| entry.file_name().to_string_lossy().starts_with("seg-")).map(bytes).sum()
}

/// Waits until no more is on the disk than may be.
#[track_caller]
fn wait_for_room(data: &Path) {
    let begun = Instant::now();
    while log_bytes(data) > KEPT_BYTES {
        assert!(begun.elapsed() < PATIENCE, "{} bytes", log_bytes(data));
        std::thread::yield_now();
    }
}

/// No file of the log holds these words any more.
#[track_caller]
fn check_gone(data: &Path, words: &str) {
    for entry in fs::read_dir(data.join("log-00")).expect("a log").flatten() {
        let bytes = fs::read(entry.path()).unwrap_or_default();
        assert!(!bytes.windows(words.len()).any(|part| part == words.as_bytes()), "in {:?}", entry.path());
    }
}

/// The first sequence that is kept, of a list of items that begins with a gap and is dense to `head`.
#[track_caller]
pub(crate) fn check_told(items: &[Value], from: u64, head: u64) -> u64 {
    let (gap, kept) = items.split_first().expect("something is told");
    assert_eq!(
        (&gap["op"], &gap["from"], &gap["reason"]),
        (&json!("gap"), &json!(from), &json!("not kept any more"))
    );
    let first = gap["to"].as_u64().expect("a sequence") + 1;
    let told = kept.iter().map(|item| item["seq"].as_u64().unwrap_or_else(|| panic!("no message: {item}")));
    let other = told.zip(first..).find(|(told, seq)| told != seq);
    assert_eq!(
        (other, kept.len() as u64),
        (None, head + 1 - first),
        "from {first} to {head}, and behind {gap}"
    );
    first
}

#[test]
fn the_oldest_messages_go_when_the_disk_is_full_enough_and_readers_are_told_of_a_gap() {
    let root = directory();
    let data = root.path().join("data");
    let mut node = Node::start(&data, &SMALL);
    let away = Chat::connect(&node, "bob", "away").welcome["cursor"].clone();
    let mut alice = Chat::connect(&node, "alice", "a");
    let early = alice.tell("carol", SECRET)["conversation"].clone();
    let (letters, conversation) = fill(&mut alice, 2_400, 15 << 10);
    let head = letters.len() as u64;
    wait_for_room(&data);
    check_gone(&data, SECRET);
    for round in 0..2 {
        let mut bob = Chat::connect(&node, "bob", "b");
        let first = check_told(&bob.history(&conversation), 1, head);
        assert!((head - 1_100..head - 400).contains(&first), "{first} of {head}");
        // Backwards, and beyond the end.
        let page = |chat: &mut Chat, before: u64| {
            let fields = json!({ "conversation": conversation, "before": before, "limit": 50 });
            chat.ask("history", fields)
        };
        let last = page(&mut bob, first + 2);
        assert_eq!(
            (check_told(last["messages"].as_array().expect("a list"), 1, first + 1), &last["more"]),
            (first, &json!(false))
        );
        let nothing = page(&mut bob, 10)["messages"].clone();
        assert_eq!(
            (nothing.as_array().map(Vec::len), &nothing[0]["from"], &nothing[0]["to"]),
            (Some(1), &json!(1), &json!(9))
        );
        // Of a conversation that fell silent long ago, that there was one.
        let silent = Chat::connect(&node, "carol", "c").history(&early);
        assert_eq!((silent.len(), &silent[0]["op"], &silent[0]["to"]), (1, &json!("gap"), &json!(1)));
        assert_eq!(Chat::connect(&node, "alice", "a").tell("dave", "hello")["seq"].as_u64(), Some(round + 1));
        check_who_was_away(&node, &away, &conversation, first, head);
        // A start knows the same.
        node.restart();
    }
    log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound"]);
}

/// A device that was away with a cursor starts anew; one that knows its conversations is told what is gone, then what is kept.
fn check_who_was_away(node: &Node, cursor: &Value, conversation: &Value, first: u64, head: u64) {
    let bob = Chat::connect_with(node, &node.token("bob"), json!({ "device": "away", "cursor": cursor }));
    assert_eq!(bob.welcome["reset"], true);
    let known = json!({ "device": "knows", "positions": [{ "conversation": conversation, "seq": 7 }] });
    let mut bob = Chat::connect_with(node, &node.token("bob"), known);
    bob.event("caught_up");
    let told: Vec<Value> =
        bob.take_events().into_iter().filter(|event| event["conversation"] == *conversation).collect();
    assert_eq!(check_told(&told, 8, head), first);
}

#[test]
fn less_than_a_log_needs_is_refused_in_words() {
    let root = directory();
    let mut settings = SMALL;
    settings[3].1 = "15";
    check_refused(
        &root.path().join("data"),
        &settings,
        &["`keep_mib` is 15, and 1 logs in segments of 4 MiB need at least 16: set that, or 0"],
    );
}
