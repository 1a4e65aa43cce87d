//! A disk that is full while an operator says how much is to be kept: the oldest messages go, and nothing else does.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Instant};

use serde_json::{Value, json};

use crate::{
    chat::{Chat, message_id, verdict, wait_as_told},
    disk::{Ballast, Disk},
    logtool::{log, text},
    node::{Node, PATIENCE},
    retention::check_told,
};

/// What the disk gives: nine segments of 4 MiB and their index files.
const LEFT_BYTES: u64 = 40 << 20;

/// Messages in a segment, at least: 15 KiB each, and what is stored with it.
const PER_SEGMENT: u64 = 250;

/// One log in small segments, so much of which is kept; a segment is compacted after so long, or never.
const fn keep(mib: &'static str, compact_after_seconds: &'static str) -> [(&'static str, &'static str); 4] {
    [
        ("GATEHOUSE_LOGS", "1"),
        ("GATEHOUSE_SEGMENT_MIB", "4"),
        ("GATEHOUSE_COMPACT_AFTER_SECONDS", compact_after_seconds),
        ("GATEHOUSE_KEEP_MIB", mib),
    ]
}

/// What alice was told is stored, by sequence.
#[derive(Default)]
struct Letters {
    texts: BTreeMap<u64, String>,
    conversation: Value,
}

impl Letters {
    fn head(&self) -> u64 {
        self.texts.last_key_value().map_or(0, |(head, _)| *head)
    }

    /// Sends the next letter with an id until it is stored, or refused with anything but `busy`: then it waits as it is told.
    #[track_caller]
    fn send(&mut self, alice: &mut Chat, id: &str) -> String {
        let text = format!("{} {}", self.head() + 1, "x".repeat(15 << 10));
        let reply =
            alice.ask_to_store(&json!({ "to": "bob", "kind": "text", "text": text, "message_id": id }));
        match verdict(&reply).as_str() {
            "ok" => {
                self.conversation = reply["conversation"].clone();
                self.texts.insert(reply["seq"].as_u64().expect("a sequence"), text);
            }
            _ => wait_as_told(&reply),
        }
        verdict(&reply)
    }

    /// The same until it is stored, while bob reads and is told as ever.
    #[track_caller]
    fn send_when_there_is_room(&mut self, alice: &mut Chat, bob: &mut Chat) {
        let (id, begun) = (message_id(&alice.welcome["now"].clone()), Instant::now());
        loop {
            match self.send(alice, &id).as_str() {
                "ok" => break,
                "3003 storage_full" => {
                    assert!(begun.elapsed() < PATIENCE, "it does not free anything");
                    let fields = json!({ "conversation": self.conversation, "limit": 2 });
                    assert_eq!(bob.ask("history", fields)["messages"][1]["seq"], self.head());
                }
                other => panic!("{other}"),
            }
        }
        assert_eq!(bob.event("message")["message_id"], json!(id));
        // Who only listens is gone after a minute, and a disk may be slow.
        assert_eq!(bob.ask("ping", json!({}))["op"], "pong");
        alice.take_events();
    }

    /// What is left is told whole, behind a gap, to who reads while nothing goes: what went between two pages is a gap between them.
    /// The first of it.
    #[track_caller]
    fn check_kept(&self, node: &Node) -> u64 {
        let (mut bob, begun) = (Chat::connect(node, "bob", "reader"), Instant::now());
        let items = loop {
            let items = bob.history(&self.conversation);
            if items[1..].iter().all(|item| item["op"] != "gap") {
                break items;
            }
            assert!(begun.elapsed() < PATIENCE, "it goes on and on: {}", items.len());
        };
        let first = check_told(&items, 1, self.head());
        for item in &items[1..] {
            let seq = item["seq"].as_u64().expect("a message");
            assert!(self.texts.get(&seq).is_some_and(|letter| item["text"] == json!(letter)), "{seq}");
        }
        first
    }
}

#[test]
fn a_disk_that_filled_up_is_freed_by_a_start_that_keeps_less() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    let (data, _ballast) = (disk.root.join("data"), Ballast::lay(&disk, LEFT_BYTES));
    let mut letters = Letters::default();
    let mut node = Node::start(&data, &keep("0", "0"));
    let mut alice = Chat::connect(&node, "alice", "a");
    let now = alice.welcome["now"].clone();
    while letters.send(&mut alice, &message_id(&now)) == "ok" {
        alice.take_events();
    }
    assert!(letters.head() > 7 * PER_SEGMENT, "{} letters", letters.head());
    // Nothing goes unless somebody says so, however often it is started.
    node.restart();
    let mut alice = Chat::connect(&node, "alice", "a");
    assert_eq!(letters.send(&mut alice, &message_id(&now)), "3003 storage_full");
    let all = Chat::connect(&node, "bob", "reader").history(&letters.conversation);
    assert_eq!(all.len() as u64, letters.head());
    assert_eq!(node.metric("log_freed_segments_total"), 0);
    node.kill();

    let node = Node::start(&data, &keep("16", "0"));
    let [mut alice, mut bob] = ["alice", "bob"].map(|user| Chat::connect(&node, user, "a"));
    for _ in 0..2 * PER_SEGMENT {
        letters.send_when_there_is_room(&mut alice, &mut bob);
    }
    assert_eq!(node.metric("log_freed_segments_total"), 0, "the disk gives more than is kept");
    let (first, head) = (letters.check_kept(&node), letters.head());
    assert!(head - first > PER_SEGMENT, "{first} of {head}: what is kept is there");
    drop(node);
    log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound"]);
    drop(disk);
}

#[test]
fn a_disk_that_gives_less_than_is_kept_loses_its_oldest_messages_alone() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    let (data, _ballast) = (disk.root.join("data"), Ballast::lay(&disk, LEFT_BYTES));
    let mut letters = Letters::default();
    // Some of it may be compacted first; then there is no room for that, which holds nothing back.
    let mut node = Node::start(&data, &keep("1024", "1"));
    node.log_line(&["`keep_mib` is more than the disk of the data directory holds", "keep_mib=1024"]);
    let [mut alice, mut bob] = ["alice", "bob"].map(|user| Chat::connect(&node, user, "a"));
    // What is compacted in time takes less room, and then the same letters fill less of the disk.
    while letters.head() < 12 * PER_SEGMENT
        || (letters.head() < 16 * PER_SEGMENT && node.metric("log_freed_segments_total") < 3)
    {
        for _ in 0..PER_SEGMENT / 10 {
            letters.send_when_there_is_room(&mut alice, &mut bob);
        }
    }
    node.log_line(&["the disk gives less than `keep_mib`", "segment=\"seg-0000000000000000."]);
    let freed = node.metric("log_freed_segments_total");
    assert!((3..=6).contains(&freed), "{freed} segments for some four more than there is room for");
    for _ in 0..2 {
        let (first, head) = (letters.check_kept(&node), letters.head());
        assert!(first > PER_SEGMENT && head - first > 5 * PER_SEGMENT, "{first} of {head}");
        node.restart();
    }
    drop(node);
    log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound"]);
    drop(disk);
}

/// Files that the node has open though they have no name any more: their room is nobody's.
fn held_though_gone(node: &Node) -> Vec<PathBuf> {
    let open = fs::read_dir(format!("/proc/{}/fd", node.id().as_raw_nonzero())).expect("it runs");
    let files = open.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    files.filter(|file| file.to_string_lossy().ends_with(".log (deleted)")).collect()
}

/// The index of words stands still on a disk that is nearly full, and had the segment open that it stood in: when that was given up, its room was
/// not free.
#[test]
fn an_index_that_stands_still_keeps_no_room_of_what_is_given_up() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    // So much that the index goes on for a few segments.
    let (data, _ballast) = (disk.root.join("data"), Ballast::lay(&disk, 64 << 20));
    let mut letters = Letters::default();
    let node = Node::start(&data, &[&keep("1024", "0")[..], &[("GATEHOUSE_SEARCH", "true")]].concat());
    let [mut alice, mut bob] = ["alice", "bob"].map(|user| Chat::connect(&node, user, "a"));
    letters.send_when_there_is_room(&mut alice, &mut bob);
    let begun = Instant::now();
    while node.metric("search_records_total") == 0 {
        assert!(begun.elapsed() < PATIENCE, "the index does not begin");
    }
    while node.metric("log_freed_segments_total") < 5 {
        for _ in 0..PER_SEGMENT / 10 {
            letters.send_when_there_is_room(&mut alice, &mut bob);
        }
    }
    node.log_line(&["the index of words stands still until there is room"]);
    let begun = Instant::now();
    while let Some(file) = held_though_gone(&node).first() {
        assert!(begun.elapsed() < PATIENCE, "{} is held", file.display());
    }
}

/// What frees it needs a few blocks first, for what is left of the segment: of a full disk they were not to be had, at each attempt. Also
/// where a segment has gone before, that was too much, and used what was kept for this.
#[test]
fn a_disk_that_is_full_to_its_last_block_is_freed() {
    for (keep_mib, goes_before) in [("1024", 0), ("24", 1)] {
        let Some(disk) = Disk::mount() else {
            return;
        };
        let (data, _ballast) = (disk.root.join("data"), Ballast::lay(&disk, LEFT_BYTES));
        let mut letters = Letters::default();
        let node = Node::start(&data, &keep(keep_mib, "0"));
        let [mut alice, mut bob] = ["alice", "bob"].map(|user| Chat::connect(&node, user, "a"));
        let compactions = || node.metric("log_compactions_total");
        while letters.head() < 5 * PER_SEGMENT || compactions() < goes_before {
            letters.send_when_there_is_room(&mut alice, &mut bob);
        }
        disk.fill();
        let full_at = letters.head();
        while letters.head() < full_at + 3 * PER_SEGMENT {
            letters.send_when_there_is_room(&mut alice, &mut bob);
        }
        assert!(compactions() >= goes_before + 2, "{} segments went", compactions());
        assert!(node.metric("log_freed_segments_total") <= 5, "no more than it needs");
        letters.check_kept(&node);
        drop(node);
        log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound"]);
        drop(disk);
    }
}
