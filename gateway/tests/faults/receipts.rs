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
    assert_eq!(view(&mut alice, &conversation), json!([]));
    for seq in [3, 7, 5] {
        let ok = bob.ask("read", json!({ "conversation": conversation, "seq": seq }));
        assert_eq!(ok["op"], "ok", "{ok}");
    }
    let expected = json!({ "op": "receipt", "conversation": conversation, "user": "bob", "read": 7 });
    assert_eq!(alice.event("receipt"), expected);
    assert_eq!(tablet.event("receipt"), expected, "told to all devices of who has read");

    node.restart();
    let mut alice = Chat::connect(&node, "alice", "a");
    assert_eq!(view(&mut alice, &conversation), json!([{ "user": "bob", "read": 7 }]));
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
    assert_eq!(view(&mut alice, &conversation), json!([{ "user": "bob", "read": 1 }]));
}
