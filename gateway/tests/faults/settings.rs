//! What a user has set, over real sockets, on more logs than one, and over kill -9.

use serde_json::{Value, json};

use crate::{
    chat::Chat,
    node::{Node, directory},
};

/// `muted_until` of a conversation in a list of one's own; null where it is not muted.
#[track_caller]
fn muted_until(chat: &mut Chat, conversation: &Value) -> Value {
    let page = chat.ask("conversations", json!({ "limit": 50 }));
    let listed = page["conversations"].as_array().expect("a list").iter();
    let mut one = listed.filter(|listed| listed["conversation"] == *conversation);
    one.next().expect("it is listed")["muted_until"].clone()
}

#[test]
fn a_mute_is_known_on_all_devices_and_after_kill_9() {
    const FOR_EVER: u64 = 9_007_199_254_740_991;
    let data = directory();
    let mut node = Node::start(data.path(), &[("shards", "3"), ("logs", "3")]);
    let mut conversations = Vec::new();
    // Several, so that settings and conversations stand in one log and in two.
    for name in ["alice", "bob", "carol", "dave"] {
        let mut chat = Chat::connect(&node, name, "phone");
        let conversation = chat.tell("eve", "hello")["conversation"].take();
        let ok = chat.ask("mute", json!({ "conversation": conversation, "until": FOR_EVER }));
        assert_eq!(ok["op"], "ok", "{ok}");
        conversations.push((name, conversation));
    }
    let mut eve = Chat::connect(&node, "eve", "phone");
    for (_, conversation) in &conversations {
        assert_eq!(muted_until(&mut eve, conversation), Value::Null, "it is the other's alone");
    }
    drop(eve);
    node.restart();
    for (name, conversation) in &conversations {
        let mut tablet = Chat::connect(&node, name, "tablet");
        assert_eq!(muted_until(&mut tablet, conversation), FOR_EVER);
        let ok = tablet.ask("mute", json!({ "conversation": conversation, "until": 0 }));
        assert_eq!(ok["op"], "ok", "{ok}");
        assert_eq!(muted_until(&mut tablet, conversation), Value::Null);
    }
    let mut mallory = Chat::connect(&node, "mallory", "phone");
    let refusal = mallory.ask("mute", json!({ "conversation": conversations[0].1, "until": FOR_EVER }));
    assert_eq!(refusal["name"], "not_a_member", "{refusal}");
}

/// Whoever has a push token can call the device: the node says none to anybody.
#[test]
fn a_push_token_is_taken_after_kill_9_too_and_in_no_log_line() {
    let data = directory();
    let mut node = Node::start(data.path(), &[("shards", "2"), ("logs", "2")]);
    for _ in 0..2 {
        let mut phone = Chat::connect(&node, "alice", "phone");
        for token in [json!("fcm:s3cr3t"), Value::Null, json!("apns:s3cr3t")] {
            let ok = phone.ask("push_token", json!({ "token": token }));
            assert_eq!(ok["op"], "ok", "{ok}");
        }
        let refusal = phone.ask("push_token", json!({ "token": "s3cr3t\n" }));
        assert_eq!(refusal["name"], "bad_field", "{refusal}");
        assert!(!refusal.to_string().contains("s3cr3t"), "{refusal}");
        node.restart();
    }
    assert!(!node.log_text().contains("s3cr3t"), "{}", node.log_text());
}

#[test]
fn a_block_keeps_two_apart_also_after_kill_9() {
    let data = directory();
    let mut node = Node::start(data.path(), &[("shards", "2"), ("logs", "2")]);
    let mut alice = Chat::connect(&node, "alice", "phone");
    let conversation = alice.tell("bob", "hello")["conversation"].take();
    let ok = alice.ask("block", json!({ "user": "bob", "on": true }));
    assert_eq!(ok["op"], "ok", "{ok}");
    // Before anything was said.
    let ok = alice.ask("block", json!({ "user": "mallory", "on": true }));
    assert_eq!(ok["op"], "ok", "{ok}");
    node.restart();
    let mut alice = Chat::connect(&node, "alice", "phone");
    let page = alice.ask("conversations", json!({ "limit": 50 }));
    let listed = page["conversations"].as_array().expect("a list");
    assert!(listed.len() == 1 && listed[0]["blocked"] == true, "{page}");
    let text = json!({ "to": "alice", "kind": "text", "text": "hello" });
    for name in ["bob", "mallory"] {
        let mut chat = Chat::connect(&node, name, "phone");
        let refusal = chat.ask("send", text.clone());
        assert_eq!(refusal["name"], "not_allowed", "{refusal}");
    }
    let mut bob = Chat::connect(&node, "bob", "phone");
    assert_eq!(bob.history(&conversation).len(), 1, "what was said can be read");
    let ok = alice.ask("block", json!({ "user": "bob", "on": false }));
    assert_eq!(ok["op"], "ok", "{ok}");
    let ok = bob.ask("send", text);
    assert_eq!(ok["seq"], 2, "{ok}");
}
