//! How far somebody has read, over sockets and across a kill.

use serde_json::{Value, json};

use crate::{
    chat::Chat,
    node::{Node, directory},
};

fn view(chat: &mut Chat, conversation: &Value) -> Value {
    let mut ok = chat.ask("view", json!({ "conversation": conversation }));
    assert_eq!(ok["op"], "ok", "{ok}");
    ok["receipts"].take()
}

#[test]
fn what_was_told_to_be_read_is_read_after_a_kill_and_never_less() {
    let data = directory();
    let mut node = Node::start(data.path(), &[("shards", "2")]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let conversation = alice.tell("bob", "one")["conversation"].take();
    (0..9).for_each(|_| drop(alice.tell("bob", "more")));
    let mut bob = Chat::connect(&node, "bob", "phone");
    let mut tablet = Chat::connect(&node, "bob", "tablet");
    // Who has written the newest has read it.
    let wrote = json!({ "user": "alice", "read": 10, "delivered": 10 });
    assert_eq!(view(&mut alice, &conversation), json!([wrote]));
    for seq in [3, 7, 5] {
        let ok = bob.ask("read", json!({ "conversation": conversation, "seq": seq }));
        assert_eq!(ok["op"], "ok", "{ok}");
    }
    let mut expected =
        json!({ "op": "receipt", "conversation": conversation, "user": "bob", "read": 7, "delivered": 7 });
    assert_eq!(alice.event("receipt"), expected, "who has read it has it");
    expected.as_object_mut().expect("fields").remove("delivered");
    assert_eq!(tablet.event("receipt"), expected, "told to all devices of who has read");

    node.restart();
    let mut alice = Chat::connect(&node, "alice", "a");
    assert_eq!(view(&mut alice, &conversation), json!([wrote, { "user": "bob", "read": 7, "delivered": 7 }]));
    let mut bob = Chat::connect(&node, "bob", "phone");
    bob.ask("read", json!({ "conversation": conversation, "seq": 2 }));
    bob.ask("read", json!({ "conversation": conversation, "seq": 10 }));
    assert_eq!(alice.event("receipt")["read"], 10);
    let refusal = bob.ask("read", json!({ "conversation": conversation, "seq": 11 }));
    assert_eq!(refusal["name"], "bad_field", "{refusal}");
}

#[test]
fn an_orderly_stop_keeps_what_was_read_a_moment_ago() {
    let data = directory();
    let mut node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let conversation = alice.tell("bob", "one")["conversation"].take();
    let mut bob = Chat::connect(&node, "bob", "b");
    assert_eq!(bob.ask("read", json!({ "conversation": conversation, "seq": 1 }))["op"], "ok");
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
    let node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let one = |name: &str| json!({ "user": name, "read": 1, "delivered": 1 });
    let expected = json!([one("alice"), one("bob")]);
    assert_eq!(view(&mut alice, &conversation), expected);
}

/// What is unread of each conversation that a page lists, by its place in the list.
fn unread(page: &Value) -> Vec<(Value, u64, u64)> {
    let listed = page["conversations"].as_array().unwrap_or_else(|| panic!("{page}")).iter();
    let number = |listed: &Value, name: &str| listed[name].as_u64().expect("a number");
    let facts =
        |listed: &Value| (listed["conversation"].clone(), number(listed, "read"), number(listed, "unread"));
    listed.map(facts).collect()
}

#[test]
fn a_list_says_the_same_before_and_after_a_kill_on_every_device() {
    let data = directory();
    let mut node = Node::start(data.path(), &[("shards", "2")]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let mut bob = Chat::connect(&node, "bob", "phone");
    let mut expected = Vec::new();
    // In both logs, by their ids, and more than one page of them.
    for number in 0..60_u64 {
        let fields = json!({ "title": format!("group {number}"), "members": ["bob"], "history": "all" });
        let group = alice.ask("create", fields)["conversation"].take();
        let said = number % 4;
        for _ in 0..said {
            let fields = json!({ "conversation": group, "kind": "text", "text": "word" });
            assert_eq!(alice.ask("send", fields)["op"], "ok");
        }
        let read = number % 3;
        if read > 0 && read <= said {
            bob.ask("read", json!({ "conversation": group, "seq": 1 + read }));
            expected.push((group, 1 + read, said - read));
        } else {
            expected.push((group, 1, said));
        }
    }
    // What is told to have been read is on disk.
    (0..expected.iter().filter(|(_, read, _)| *read > 1).count()).for_each(|_| drop(bob.event("receipt")));
    expected.sort_by_key(|(group, ..)| group.to_string());
    for restarted in [false, true] {
        if restarted {
            node.restart();
        }
        let mut tablet = Chat::connect(&node, "bob", "tablet");
        let page = tablet.ask("conversations", json!({ "limit": 50 }));
        let rest = tablet.ask("conversations", json!({ "limit": 50, "after": page["after"] }));
        let mut told = [unread(&page), unread(&rest)].concat();
        told.sort_by_key(|(group, ..)| group.to_string());
        assert_eq!(told, expected, "restarted: {restarted}");
        let pages =
            [&page, &rest].into_iter().flat_map(|page| page["conversations"].as_array().expect("a list"));
        let times: Vec<u64> = pages.map(|listed| listed["last"]["at"].as_u64().expect("a time")).collect();
        assert!(times.is_sorted_by(|one, next| one >= next), "{times:?}");
        assert_eq!((&page["more"], &rest["more"]), (&json!(true), &json!(false)));
        let mut carol = Chat::connect(&node, "carol", "c");
        assert_eq!(unread(&carol.ask("conversations", json!({ "limit": 50 }))), []);
        let refusal = carol.ask("conversations", json!({ "limit": 50, "after": page["after"] }));
        assert_eq!(refusal["code"], 1003, "{refusal}");
    }
}

#[test]
fn what_a_device_acknowledged_is_delivered_also_after_kill_9() {
    let data = directory();
    let mut node = Node::start(data.path(), &[("shards", "2"), ("logs", "2")]);
    let mut alice = Chat::connect(&node, "alice", "phone");
    let mut bob = Chat::connect(&node, "bob", "phone");
    let conversation = alice.tell("bob", "hello")["conversation"].take();
    alice.ask("view", json!({ "conversation": conversation }));
    bob.event("message");
    let cursor = bob.ask("ping", json!({}))["cursor"].take();
    bob.send_text(&json!({ "op": "ack", "cursor": cursor }).to_string());
    let receipt = alice.event("receipt");
    assert_eq!((&receipt["user"], &receipt["delivered"]), (&json!("bob"), &json!(1)), "{receipt}");
    assert!(receipt["read"].is_null(), "{receipt}");
    drop((alice, bob));
    node.restart();
    let mut alice = Chat::connect(&node, "alice", "phone");
    let ok = alice.ask("view", json!({ "conversation": conversation }));
    let receipts = ok["receipts"].as_array().expect("a list");
    assert!(receipts.contains(&json!({ "user": "bob", "delivered": 1 })), "{ok}");
}

/// It was in no conversation's record: what devices have acknowledged is kept by itself.
#[test]
fn what_was_acknowledged_while_nobody_looked_is_told_after_an_orderly_stop() {
    let data = directory();
    let mut node = Node::start(data.path(), &[("shards", "2"), ("logs", "2")]);
    let mut alice = Chat::connect(&node, "alice", "phone");
    let mut bob = Chat::connect(&node, "bob", "phone");
    let conversation = alice.tell("bob", "hello")["conversation"].take();
    bob.event("message");
    let cursor = bob.ask("ping", json!({}))["cursor"].take();
    bob.send_text(&json!({ "op": "ack", "cursor": cursor }).to_string());
    bob.is_fine();
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
    let node = Node::start(data.path(), &[("shards", "2")]);
    let mut alice = Chat::connect(&node, "alice", "phone");
    let ok = alice.ask("view", json!({ "conversation": conversation }));
    assert_eq!(ok["receipts"], json!([{ "user": "alice", "read": 1, "delivered": 1 }]), "found out now");
    let receipt = alice.event("receipt");
    assert_eq!((&receipt["user"], &receipt["delivered"]), (&json!("bob"), &json!(1)), "{receipt}");
}
