//! How much of a conversation is kept, over real sockets: what is not stands in no file soon after, and a kill neither brings it back nor
//! forgets what was set.

use std::{path::Path, time::Instant};

use serde_json::{Value, json};

use crate::{
    chat::Chat,
    erasure::holding,
    logtool::{fill, fill_to, log, text},
    node::{Node, PATIENCE, directory},
    retention::check_told,
};

const SMALL: [(&str, &str); 3] =
    [("GATEHOUSE_LOGS", "1"), ("GATEHOUSE_SEGMENT_MIB", "4"), ("GATEHOUSE_COMPACT_AFTER_SECONDS", "1")];

/// Nobody is to find it later.
const SECRET: &str = "this is not to be kept";

#[track_caller]
fn wait_until_gone(data: &Path) {
    let begun = Instant::now();
    loop {
        let holding = holding(data, SECRET);
        if holding.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{holding:?}");
        std::thread::yield_now();
    }
}

/// The list says how much is kept, and what is unread of it.
#[track_caller]
fn check_listed(chat: &mut Chat, conversation: &Value, retention: &Value, unread: u64) {
    let page = chat.ask("conversations", json!({ "limit": 50 }));
    let mut listed = page["conversations"].as_array().expect("a list").iter();
    let one = listed.find(|listed| listed["conversation"] == *conversation).expect("it is listed");
    assert_eq!((&one["retention"], &one["unread"]), (retention, &json!(unread)), "{one}");
}

#[test]
fn what_is_not_kept_is_shown_to_nobody_at_once_and_stands_in_no_file_soon() {
    let root = directory();
    let data = root.path().join("data");
    let mut node = Node::start(&data, &SMALL);
    let mut alice = Chat::connect(&node, "alice", "a");
    let away = Chat::connect(&node, "carol", "away").welcome["cursor"].clone();
    let mut conversation = Value::Null;
    for number in 0..20 {
        conversation = alice.tell("carol", &format!("{SECRET}: {number}"))["conversation"].clone();
    }
    (0..3).for_each(|_| drop(alice.tell("carol", "this is")));
    let kept = json!({ "last": 4 });
    let set = alice.ask("retention", json!({ "conversation": conversation, "last": 4 }));
    assert_eq!((&set["op"], &set["seq"]), (&json!("ok"), &json!(24)), "{set}");
    let mut carol = Chat::connect(&node, "carol", "c");
    assert_eq!(check_told(&carol.history(&conversation), 1, 24), 21);
    check_listed(&mut carol, &conversation, &kept, 3);
    // What was said to others seals the segment.
    fill(&mut alice, 400, 15 << 10);
    wait_until_gone(&data);
    for _ in 0..2 {
        let mut carol = Chat::connect(&node, "carol", "c");
        assert_eq!(check_told(&carol.history(&conversation), 1, 24), 21);
        check_listed(&mut carol, &conversation, &kept, 3);
        let connect = json!({ "device": "away", "cursor": away });
        let mut carol = Chat::connect_with(&node, &node.token("carol"), connect);
        assert_eq!(carol.welcome["reset"], false);
        carol.event("caught_up");
        let told: Vec<Value> =
            carol.take_events().into_iter().filter(|event| event["conversation"] == conversation).collect();
        assert_eq!(check_told(&told, 1, 24), 21);
        node.restart();
    }
    // All is kept from now on; what is gone stays so.
    let mut carol = Chat::connect(&node, "carol", "c");
    let set = carol.ask("retention", json!({ "conversation": conversation, "last": null }));
    assert_eq!((&set["op"], &set["seq"]), (&json!("ok"), &json!(25)), "{set}");
    carol.tell("alice", "this is, too");
    node.restart();
    let mut alice = Chat::connect(&node, "alice", "a");
    assert_eq!(check_told(&alice.history(&conversation), 1, 26), 21);
    check_listed(&mut alice, &conversation, &Value::Null, 1);
    assert!(holding(&data, SECRET).is_empty());
    log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound"]);
}

/// What is cold by then is written anew for it as well.
#[test]
fn what_was_compacted_before_it_was_set_goes_too() {
    let root = directory();
    let data = root.path().join("data");
    let node = Node::start(&data, &SMALL);
    let mut alice = Chat::connect(&node, "alice", "a");
    (0..20).for_each(|number| drop(alice.tell("carol", &format!("{SECRET}: {number}"))));
    let (letters, conversation) = fill_to(&mut alice, "carol", 200, 15 << 10);
    fill(&mut alice, 200, 15 << 10);
    let begun = Instant::now();
    while !data.join("log-00/seg-0000000000000000.cold").exists() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    assert!(!holding(&data, SECRET).is_empty(), "nothing is set of it");
    let set = alice.ask("retention", json!({ "conversation": conversation, "last": 10 }));
    assert_eq!(set["op"], "ok", "{set}");
    wait_until_gone(&data);
    let head = 20 + letters.len() as u64 + 1;
    assert_eq!(check_told(&alice.history(&conversation), 1, head), head - 9);
    log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound"]);
}
