//! A disk that fills up: a small file system of its own, where the test may mount one.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use gateway::store::segments::Access;
use serde_json::{Value, json};
use storage_log::format::{INDEX_FOOTER_BYTES, SEGMENT_BYTES};

use crate::{
    chat::{Chat, message_id, verdict},
    disk::{Ballast, Disk},
    node::{Node, PATIENCE, directory},
};

const MIB: u64 = 1 << 20;

/// Room for the first segment, and not for a second.
const LEFT_BYTES: u64 = SEGMENT_BYTES + 40 * MIB;

/// Acknowledgements waited for at a time: half of what a session may have under way.
const WINDOW: usize = 16;

fn letter(id: &str, text: &str) -> Value {
    json!({ "to": "bob", "kind": "text", "text": text, "message_id": id })
}

/// Sends large messages until one is refused. How many were stored, and the refusal.
fn fill(alice: &mut Chat) -> (u64, Value) {
    fill_with(alice, &"x".repeat(16 << 10))
}

/// The same with messages of another length.
fn fill_with(alice: &mut Chat, text: &str) -> (u64, Value) {
    let (now, begun) = (alice.welcome["now"].clone(), Instant::now());
    let mut stored = 0;
    loop {
        let ids: Vec<_> = (0..WINDOW).map(|_| alice.send("send", letter(&message_id(&now), text))).collect();
        let mut refusal = None;
        for id in ids {
            let reply = alice.reply(id);
            match verdict(&reply).as_str() {
                "ok" => stored = reply["seq"].as_u64().expect("a sequence"),
                "3003 storage_full" => refusal = Some(reply),
                // For a moment nobody knows yet that there is to be no other segment.
                "3002 busy" => {
                    assert!(begun.elapsed() < PATIENCE, "it does not say that it is full: {reply}")
                }
                other => panic!("{other} on a full disk: {reply}"),
            }
        }
        alice.take_events();
        if let Some(refusal) = refusal {
            return (stored, refusal);
        }
    }
}

#[test]
fn a_full_disk_stops_senders_only_and_only_while_it_is_full() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    let (data, ballast) = (disk.root.join("data"), Ballast::lay(&disk, LEFT_BYTES));

    let mut node = Node::start(&data, &[("GATEHOUSE_LOGS", "1")]);
    node.log_line(&["no room for the next segment"]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let first = alice.ask("send", letter(&message_id(&alice.welcome["now"].clone()), "short"));
    let conversation = first["conversation"].clone();
    let (stored, refusal) = fill(&mut alice);
    assert!(refusal["retry_after_ms"].is_u64(), "{refusal}");

    // Reading goes on: history, catching up, and being ready.
    let positions = json!([{ "conversation": conversation, "seq": stored - 6 }]);
    let connect = json!({ "device": "b", "positions": positions });
    let mut bob = Chat::connect_with(&node, &node.token("bob"), connect);
    bob.event("caught_up");
    assert_eq!(bob.take_events().iter().filter(|event| event["op"] == "message").count(), 6);
    let page = bob.ask("history", json!({ "conversation": conversation, "limit": 2 }));
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(2));
    assert!(node.admin_get("/readyz").starts_with("HTTP/1.1 200 "));
    // Somebody was told in time.
    node.log_line(&["the disk of the data directory is nearly full", "used_percent"]);
    assert!(node.admin_get("/readyz").contains("\r\n\r\nready\nthe disk of the data directory is "));
    assert!(node.admin_get("/readyz").contains("\nlog 0 has no next segment"));
    assert_eq!(node.metric("logs_without_next_segment"), 1);
    assert!(node.metric("data_free_bytes") < node.metric("data_bytes") / 10);
    let full = "errors_total{code=\"3003\",name=\"storage_full\"}";
    assert!(node.metric(full) > 0);

    // Room again: the same command goes through, once.
    ballast.remove();
    let (id, text) = (message_id(&alice.welcome["now"].clone()), "y".repeat(16 << 10));
    let begun = Instant::now();
    let ok = loop {
        let reply = alice.ask("send", letter(&id, &text));
        match verdict(&reply).as_str() {
            "ok" => break reply,
            "3003 storage_full" => assert!(begun.elapsed() < PATIENCE, "it does not recover"),
            other => panic!("{other}: {reply}"),
        }
    };
    node.log_line(&["the next segment could be made"]);
    assert_eq!(node.metric("logs_without_next_segment"), 0);
    assert_eq!(ok["seq"], stored + 1);
    assert_eq!(bob.event("message")["message_id"], json!(id));

    node.restart();
    let mut bob = Chat::connect(&node, "bob", "b");
    let page = bob.ask("history", json!({ "conversation": conversation, "limit": 2 }));
    let sequences: Vec<_> =
        page["messages"].as_array().expect("a list").iter().map(|item| &item["seq"]).collect();
    assert!(sequences.contains(&&json!(stored + 1)) && sequences.contains(&&json!(stored)), "{sequences:?}");
    drop(node);
    drop(disk);
}

#[test]
fn a_start_on_a_full_disk_serves_what_is_there_and_recovers_by_itself() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    let (data, ballast) = (disk.root.join("data"), Ballast::lay(&disk, LEFT_BYTES));
    let mut node = Node::start(&data, &[("GATEHOUSE_LOGS", "1")]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let first = alice.ask("send", letter(&message_id(&alice.welcome["now"].clone()), "short"));
    let conversation = first["conversation"].clone();
    fill(&mut alice);
    // To the last place that a message fits into.
    let (stored, _) = fill_with(&mut alice, "y");
    for _ in 0..3 {
        node.restart();
        alice = Chat::connect(&node, "alice", "a");
        let page = alice.ask("history", json!({ "conversation": conversation, "limit": 1 }));
        assert!(page["messages"][0]["seq"].as_u64() >= Some(stored), "{page}");
        assert!(node.admin_get("/readyz").starts_with("HTTP/1.1 200 "));
        fill_with(&mut alice, "y");
    }
    ballast.remove();
    let (id, begun) = (message_id(&alice.welcome["now"].clone()), Instant::now());
    loop {
        let reply = alice.ask("send", letter(&id, "room again"));
        match verdict(&reply).as_str() {
            "ok" => break,
            "3003 storage_full" => assert!(begun.elapsed() < PATIENCE, "it does not recover"),
            other => panic!("{other}: {reply}"),
        }
    }
    drop(node);
    drop(disk);
}

#[test]
fn a_disk_that_takes_whole_pages_only_is_given_those() {
    let Some(disk) = Disk::of_blocks(4096) else {
        return;
    };
    let data = disk.root.join("data");
    let mut node = Node::start(&data, &[("GATEHOUSE_LOGS", "1")]);
    node.log_line(&["past the page cache", "block_bytes=4096"]);
    let mut alice = Chat::connect(&node, "alice", "a");
    for seq in 1..=3 {
        let ok = alice.ask("send", letter(&message_id(&alice.welcome["now"].clone()), "hello"));
        assert_eq!(ok["seq"], seq, "{ok}");
    }
    node.restart();
    let mut alice = Chat::connect(&node, "alice", "a");
    let ok = alice.ask("send", letter(&message_id(&alice.welcome["now"].clone()), "hello"));
    assert_eq!(ok["seq"], 4, "{ok}");
    let page = alice.ask("history", json!({ "conversation": ok["conversation"], "limit": 10 }));
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(4), "{page}");
    drop(node);
    drop(disk);
}

#[test]
fn a_full_disk_is_still_written_past_the_page_cache() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    assert!(matches!(Access::of(&disk.root, 512), (Access::Direct, None)));
    let mut ballast = File::create(disk.root.join("ballast")).expect("an empty disk");
    let block = vec![1; 1 << 20];
    let mut size = block.len();
    // Large pieces first, then whatever is left.
    while size > 0 {
        if let Err(error) = ballast.write_all(&block[..size]).and_then(|()| ballast.sync_data()) {
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            size /= 16;
        }
    }
    assert_eq!(disk.free_bytes(), 0);
    assert!(matches!(Access::of(&disk.root, 512), (Access::Direct, None)));
    drop(ballast);
    drop(disk);
}

/// A direct conversation over several segments of 4 MiB: its id, and how many messages it has.
pub(crate) fn fill_segments(node: &Node, data: &Path) -> (Value, u64) {
    let mut alice = Chat::connect(node, "alice", "a");
    let (now, text) = (alice.welcome["now"].clone(), "x".repeat(16 << 10));
    let (mut stored, mut conversation) = (0, Value::Null);
    while stored < 1_000 {
        let sent: Vec<_> = (0..WINDOW).map(|_| message_id(&now)).collect();
        let ids: Vec<_> = sent.iter().map(|id| alice.send("send", letter(id, &text))).collect();
        for (request, id) in ids.into_iter().zip(sent) {
            let reply = alice.reply(request);
            let reply = alice.ask_again(reply, &letter(&id, &text));
            stored += 1;
            assert_eq!(verdict(&reply), "ok", "{reply}");
            conversation = reply["conversation"].clone();
        }
        alice.take_events();
    }
    let segments = files_of(data, ".log").len();
    assert!(segments >= 5, "{segments} segments for {stored} messages of 16 KiB");
    (conversation, stored)
}

/// Files of the only log whose name ends like this, by name.
pub(crate) fn files_of(data: &Path, end: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(data.join("log-00")).expect("a log").map(|entry| entry.expect("a file").path());
    let mut files: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    files.sort();
    files
}

#[track_caller]
pub(crate) fn check_whole(node: &Node, conversation: &Value, stored: u64) {
    let read = Chat::connect(node, "bob", "b").history(conversation);
    let mut sequences: Vec<u64> = read.iter().filter_map(|item| item["seq"].as_u64()).collect();
    sequences.sort_unstable();
    assert!(sequences == (1..=stored).collect::<Vec<_>>(), "{} of {stored}", sequences.len());
}

pub(crate) const SMALL_SEGMENTS: [(&str, &str); 2] =
    [("GATEHOUSE_LOGS", "1"), ("GATEHOUSE_SEGMENT_MIB", "4")];

#[test]
fn a_log_of_many_segments_is_served_whole_before_and_after_a_kill() {
    let data = directory();
    let mut node = Node::start(data.path(), &SMALL_SEGMENTS);
    let (conversation, stored) = fill_segments(&node, data.path());
    check_whole(&node, &conversation, stored);
    node.restart();
    check_whole(&node, &conversation, stored);
    // What was stored first, segments ago, is known by its id.
    let mut alice = Chat::connect(&node, "alice", "a");
    let page = alice.ask("history", json!({ "conversation": conversation, "after": 0, "limit": 1 }));
    let first = &page["messages"][0];
    let id = first["message_id"].as_str().expect("an id");
    let again = alice.ask("send", letter(id, &"x".repeat(16 << 10)));
    assert_eq!((verdict(&again).as_str(), &again["seq"]), ("ok", &first["seq"]), "{again}");
    let new = alice.ask("send", letter(&message_id(&alice.welcome["now"].clone()), "new"));
    assert_eq!(new["seq"], stored + 1, "{new}");
}

#[test]
fn an_index_file_that_rots_costs_no_message_and_no_restart() {
    let data = directory();
    let mut node = Node::start(data.path(), &SMALL_SEGMENTS);
    let (conversation, stored) = fill_segments(&node, data.path());
    node.restart();
    // At start: made anew, and said so. One is missing, one is damaged.
    let indexes = files_of(data.path(), ".idx");
    assert!(indexes.len() >= 3, "{indexes:?}");
    node.kill();
    rot(&indexes[1]);
    fs::remove_file(&indexes[2]).expect("it was there");
    node.restart();
    node.log_line(&["an index file is damaged", &file_name(&indexes[1])]);
    check_whole(&node, &conversation, stored);
    assert_eq!(files_of(data.path(), ".idx")[..3], indexes[..3]);
    // While it serves: who asks for what it holds waits until it is made again, as it was.
    let whole = fs::read(&indexes[0]).expect("an index file");
    rot(&indexes[0]);
    let mut bob = Chat::connect(&node, "bob", "b");
    let page = bob.ask("history", json!({ "conversation": conversation, "after": 0, "limit": 2 }));
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(2));
    node.log_line(&["an index file was damaged and is made again", "log=0", &file_name(&indexes[0])]);
    assert_eq!(node.metric("index_rebuilds_total"), 1);
    let made = fs::read(&indexes[0]).expect("an index file");
    assert!(made[..made.len() - INDEX_FOOTER_BYTES] == whole[..whole.len() - INDEX_FOOTER_BYTES]);
    check_whole(&node, &conversation, stored);
    // Within a minute it is not made again once more: who asks is told so, and who catches up waits.
    rot(&indexes[0]);
    let mut bob = Chat::connect(&node, "bob", "b");
    let refused = bob.ask("history", json!({ "conversation": conversation, "after": 0, "limit": 2 }));
    assert_eq!(verdict(&refused), "3004 unavailable", "{refused}");
    bob.is_fine();
    node.restart();
    check_whole(&node, &conversation, stored);
}

/// Changes a byte of the first block.
pub(crate) fn rot(file: &Path) {
    let file = File::options().read(true).write(true).open(file).expect("an index file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100).expect("a block");
    file.write_all_at(&[byte[0] ^ 1], 100).expect("room");
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}
