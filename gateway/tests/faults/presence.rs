//! Who is online and who is typing, over real sockets, on more shards than one.

use serde_json::{Value, json};

use crate::{
    chat::Chat,
    node::{Node, directory},
};

/// The next news of this kind about `user`; news of others are passed over.
#[track_caller]
fn news(chat: &mut Chat, op: &str, user: &str) -> Value {
    loop {
        let event = chat.event(op);
        if event["user"] == user {
            return event;
        }
    }
}

fn view(chat: &mut Chat, conversation: &Value) -> Vec<(String, bool)> {
    let ok = chat.ask("view", json!({ "conversation": conversation }));
    assert_eq!(ok["op"], "ok", "{ok}");
    let one = |one: &Value| (one["user"].as_str().expect("a user").to_owned(), one["online"] == true);
    ok["presence"].as_array().expect("a list").iter().map(one).collect()
}

#[test]
fn viewers_see_members_of_every_shard_come_and_type_and_stop_seeing_what_they_leave() {
    let data = directory();
    let node = Node::start(data.path(), &[("shards", "4")]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let names: Vec<String> = (0..12).map(|number| format!("member-{number}")).collect();
    let fields = json!({ "title": "a group", "members": names, "history": "all" });
    let conversation = alice.ask("create", fields)["conversation"].take();
    assert!(view(&mut alice, &conversation).contains(&("alice".to_owned(), true)));
    let mut others: Vec<Chat> = names
        .iter()
        .map(|name| {
            let mut chat = Chat::connect(&node, name, "d");
            assert_eq!(news(&mut alice, "presence", name)["online"], true);
            // Everybody who is there is seen by who comes.
            let seen = view(&mut chat, &conversation);
            assert!(seen.contains(&("alice".to_owned(), true)) && seen.contains(&(name.clone(), true)));
            chat
        })
        .collect();
    for (name, chat) in names.iter().zip(&mut others) {
        chat.send_text(&json!({ "op": "typing", "conversation": conversation, "on": true }).to_string());
        let told = news(&mut alice, "typing", name);
        assert_eq!((&told["conversation"], &told["on"]), (&conversation, &json!(true)));
    }
    // One who was taken out is told nothing more of it, and what comes after her says so.
    let ok = alice.ask("members", json!({ "conversation": conversation, "remove": ["member-0"] }));
    assert_eq!(ok["op"], "ok", "{ok}");
    others[0].event("member");
    others[0].take_events();
    others[1].send_text(&json!({ "op": "typing", "conversation": conversation, "on": false }).to_string());
    assert_eq!(news(&mut alice, "typing", "member-1")["on"], false);
    others[0].is_fine();
    assert_eq!(others[0].take_events(), Vec::<Value>::new());
}

#[test]
fn a_restart_makes_nobody_leave() {
    let data = directory();
    let mut node = Node::start(data.path(), &[("shards", "2")]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let conversation = alice.tell("bob", "hello")["conversation"].take();
    let bob = Chat::connect(&node, "bob", "b");
    assert!(view(&mut alice, &conversation).contains(&("bob".to_owned(), true)));
    node.restart();
    drop((alice, bob));
    let mut alice = Chat::connect(&node, "alice", "a");
    // He is not there yet, and nobody says that he has left.
    assert_eq!(view(&mut alice, &conversation), [("alice".to_owned(), true)]);
    let _bob = Chat::connect(&node, "bob", "b");
    assert_eq!(news(&mut alice, "presence", "bob")["online"], true);
}

#[test]
fn a_ninth_view_and_the_view_of_a_stranger_are_refused() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let conversations: Vec<Value> = (0..9)
        .map(|number| alice.tell(&format!("friend-{number}"), "hello")["conversation"].take())
        .collect();
    for conversation in &conversations[..8] {
        assert_eq!(view(&mut alice, conversation).len(), 1, "one of two is known to be there");
    }
    let refusal = alice.ask("view", json!({ "conversation": conversations[8] }));
    assert_eq!(refusal["name"], "limit", "{refusal}");
    assert_eq!(alice.ask("unview", json!({ "conversation": conversations[0] }))["op"], "ok");
    view(&mut alice, &conversations[8]);
    let mut eve = Chat::connect(&node, "eve", "e");
    let refusal = eve.ask("view", json!({ "conversation": conversations[8] }));
    assert_eq!(refusal["name"], "not_a_member", "{refusal}");
}

/// A setting on disk: neither kill -9 nor an upgrade shows who is invisible, nor when it came and went.
#[test]
fn who_is_invisible_is_so_after_kill_9_and_an_upgrade_too() {
    let data = directory();
    let mut node = Node::start(data.path(), &[("shards", "3"), ("logs", "3")]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let conversation = alice.tell("bob", "hello")["conversation"].take();
    let mut bob = Chat::connect(&node, "bob", "b");
    assert!(view(&mut alice, &conversation).contains(&("bob".to_owned(), true)));
    let mut tablet = Chat::connect(&node, "bob", "tablet");
    let ok = bob.ask("invisible", json!({ "on": true }));
    assert_eq!(ok["op"], "ok", "{ok}");
    assert_eq!(tablet.event("invisible")["on"], true);
    let gone = news(&mut alice, "presence", "bob");
    assert!(gone["online"] == false && gone["last_seen"].is_u64(), "{gone}");
    drop(tablet);
    node.restart();
    drop((alice, bob));
    let mut alice = Chat::connect(&node, "alice", "a");
    let mut bob = Chat::connect(&node, "bob", "b");
    assert_eq!(bob.event("invisible")["on"], true);
    assert_eq!(view(&mut alice, &conversation), [("alice".to_owned(), true)]);
    // As of one who does not come back: when the first seconds are over.
    assert_eq!(news(&mut alice, "presence", "bob"), gone);
    let answer = node.upgrade();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    bob.send_text(&json!({ "op": "typing", "conversation": conversation, "on": true }).to_string());
    bob.is_fine();
    let ok = bob.ask("invisible", json!({ "on": false }));
    assert_eq!(ok["op"], "ok", "{ok}");
    assert_eq!(news(&mut alice, "presence", "bob")["online"], true);
    assert!(alice.take_events().iter().all(|event| event["op"] != "typing"));
    assert_eq!(bob.take_events(), Vec::<Value>::new(), "he knew that he was");
}

/// Who views is told of who comes and goes, and nothing that it knows: a new process knows who is there, and who has just left.
#[test]
fn an_upgrade_makes_nobody_come_or_leave() {
    let data = directory();
    let node = Node::start(data.path(), &[("shards", "3"), ("logs", "3")]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let fields = json!({ "title": "a group", "members": ["bob", "carl", "dora", "emil"], "history": "all" });
    let conversation = alice.ask("create", fields)["conversation"].take();
    let [mut bob, carl] = ["bob", "carl"].map(|name| Chat::connect(&node, name, "d"));
    // Dora and Emil are not there, which is known when the first seconds are over.
    view(&mut alice, &conversation);
    assert_eq!(news(&mut alice, "presence", "dora")["online"], false);
    assert_eq!(news(&mut alice, "presence", "emil")["online"], false);
    alice.take_events();
    drop(carl);
    bob.is_fine();
    // The second one while Carl may still be on the way back.
    for _ in 0..2 {
        let answer = node.upgrade();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let _dora = Chat::connect(&node, "dora", "d");
    let mut told: Vec<(String, bool)> = Vec::new();
    while told.len() < 2 {
        let event = alice.event("presence");
        told.push((event["user"].as_str().expect("a user").to_owned(), event["online"] == true));
    }
    told.sort_unstable();
    assert_eq!(told, [("carl".to_owned(), false), ("dora".to_owned(), true)]);
    let seen = view(&mut alice, &conversation);
    let here: Vec<&str> = seen.iter().filter(|(_, online)| *online).map(|(user, _)| user.as_str()).collect();
    assert_eq!((seen.len(), here), (5, vec!["alice", "bob", "dora"]));
    assert_eq!(alice.take_events(), Vec::<Value>::new());
}

/// `last_seen` of a user in the answer to a `view`, or told when the first seconds of a run are over.
fn last_seen(node: &Node, conversation: &Value, user: &str) -> u64 {
    let mut alice = Chat::connect(node, "alice", "a");
    view(&mut alice, conversation);
    let gone = news(&mut alice, "presence", user);
    assert_eq!(gone["online"], false, "{gone}");
    gone["last_seen"].as_u64().unwrap_or_else(|| panic!("it is known: {gone}"))
}

#[test]
fn when_somebody_was_last_seen_is_known_after_a_restart_and_after_kill_9() {
    let data = directory();
    let mut node = Node::start(data.path(), &[("shards", "3"), ("logs", "3")]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let conversation = alice.tell("bob", "hello")["conversation"].take();
    let came_at = Chat::connect(&node, "bob", "b").welcome["now"].as_u64().expect("a time");
    // He has gone, and who views is told so once grace has passed: then it is on its way to the disk.
    view(&mut alice, &conversation);
    let gone = news(&mut alice, "presence", "bob")["last_seen"].as_u64().expect("it is known");
    assert!(came_at <= gone && gone < came_at + 10_000, "{came_at} {gone}");
    drop(alice);
    node.restart();
    let seen = last_seen(&node, &conversation, "bob");
    assert!(came_at <= seen && seen <= gone, "after kill -9: {came_at} {seen} {gone}");
    // Here at an orderly end.
    let bob = Chat::connect(&node, "bob", "b");
    let before = bob.welcome["now"].as_u64().expect("a time");
    node.terminate();
    assert!(node.ended().success());
    drop(node);
    let node = Node::start(data.path(), &[("shards", "3"), ("logs", "3")]);
    assert!(last_seen(&node, &conversation, "bob") >= before, "seen until the end");
}
