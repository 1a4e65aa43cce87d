//! Coming back with a cursor or with positions: good ones, and ones that nobody should trust. Nothing is skipped in
//! silence.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    chat::{Chat, undisturbed, verdict},
    node::{Node, directory},
};

/// The cursor of a session that has everything.
fn cursor(chat: &mut Chat) -> Value {
    let pong = chat.ask("ping", json!({}));
    assert!(pong["cursor"].is_string(), "{pong}");
    pong["cursor"].clone()
}

fn back(node: &Node, user: &str, cursor: &Value) -> Chat {
    Chat::connect_with(node, &node.token(user), json!({ "device": "d", "cursor": cursor }))
}

/// The `seq` of every message up to `caught_up`.
fn caught_up(chat: &mut Chat) -> Vec<u64> {
    let end = chat.event("caught_up");
    assert!(end["partial"].is_null(), "{end}");
    let messages = chat.take_events();
    messages
        .iter()
        .filter(|event| event["op"] == "message")
        .filter_map(|event| event["seq"].as_u64())
        .collect()
}

#[test]
fn a_good_cursor_brings_what_was_missed() {
    let data = directory();
    let mut node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    alice.tell("bob", "before");
    let mut bob = Chat::connect(&node, "bob", "d");
    let cursor = cursor(&mut bob);
    drop(bob);
    // More than one page.
    (0..300).for_each(|_| drop(alice.tell("bob", "while away")));
    let mut bob = back(&node, "bob", &cursor);
    assert_eq!(bob.welcome["reset"], false);
    assert_eq!(caught_up(&mut bob), (2..=301).collect::<Vec<_>>());
    alice.tell("bob", "live again");
    assert_eq!(bob.event("message")["seq"], 302);
    // Across a kill: the cursor is of an earlier run and holds.
    node.restart();
    undisturbed(&node, || {
        let mut bob = back(&node, "bob", &cursor);
        assert_eq!(bob.welcome["reset"], false);
        assert_eq!(caught_up(&mut bob), (2..=302).collect::<Vec<_>>());
    });
}

/// A second away or a month, it is one path: what was missed comes oldest first, however much it is.
#[test]
fn a_hundred_thousand_missed_messages_come_in_their_order() {
    const MISSED: u64 = 100_000;
    let data = directory();
    let unlimited =
        [("GATEHOUSE_USER_MESSAGES_PER_SECOND", "0"), ("GATEHOUSE_SESSION_COMMANDS_PER_SECOND", "0")];
    let node = Node::start(data.path(), &unlimited);
    let mut alice = Chat::connect(&node, "alice", "a");
    alice.tell("bob", "before");
    let mut bob = Chat::connect(&node, "bob", "d");
    let cursor = cursor(&mut bob);
    drop(bob);
    for _ in 0..MISSED / 16 {
        let letter = || json!({ "to": "bob", "kind": "text", "text": "while away" });
        let asked: Vec<u64> = (0..16).map(|_| alice.send("send", letter())).collect();
        asked.into_iter().for_each(|id| assert_eq!(verdict(&alice.reply(id)), "ok"));
        alice.take_events();
    }
    let mut bob = back(&node, "bob", &cursor);
    assert_eq!(bob.welcome["reset"], false);
    for seq in 2..=MISSED + 1 {
        assert_eq!(bob.event("message")["seq"], seq);
        bob.take_events();
    }
    assert!(bob.event("caught_up")["partial"].is_null());
    alice.tell("bob", "live again");
    assert_eq!(bob.event("message")["seq"], MISSED + 2);
}

/// C11: another user's, another store's, damaged, made up.
#[test]
fn a_foreign_cursor_is_a_reset() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let elsewhere = directory();
        let other = Node::start(elsewhere.path(), &[]);
        let mut alice = Chat::connect(&node, "alice", "a");
        let good = cursor(&mut alice);
        let text = good.as_str().expect("a cursor is text");
        let mut flipped = text.as_bytes().to_vec();
        flipped[30] = if flipped[30] == b'A' { b'B' } else { b'A' };
        let foreign = cursor(&mut Chat::connect(&other, "bob", "b"));
        for bad in [
            good.clone(),
            foreign,
            json!(String::from_utf8(flipped).expect("ASCII")),
            json!(&text[..text.len() - 2]),
            json!("x"),
            json!("A".repeat(512)),
        ] {
            let mut bob = back(&node, "bob", &bad);
            assert_eq!(bob.welcome["reset"], true, "{bad}");
            assert!(bob.welcome["cursor"].is_string(), "where to go on from: {}", bob.welcome);
            bob.is_fine();
        }
        assert_eq!(back(&node, "alice", &good).welcome["reset"], false);
    });
}

/// C11, F14: a directory that was restored from an older copy knows cursors of its own past only.
#[test]
fn a_restored_copy_is_a_reset() {
    let data = directory();
    let (present, copy) = (data.path().join("data"), data.path().join("copy"));
    let settings = [("GATEHOUSE_LOGS", "1")];
    let mut node = Node::start(&present, &settings);
    let mut alice = Chat::connect(&node, "alice", "a");
    alice.tell("bob", "one");
    let of_the_past = cursor(&mut Chat::connect(&node, "bob", "d"));
    node.kill();
    let copied = Command::new("cp").args(["-a", "--sparse=always"]).args([&present, &copy]).status();
    assert!(copied.expect("cp is everywhere").success());

    let mut node = Node::start(&present, &settings);
    let mut alice = Chat::connect(&node, "alice", "a");
    alice.tell("bob", "two");
    let of_a_lost_run = cursor(&mut Chat::connect(&node, "bob", "d"));
    node.kill();

    let node = Node::start(&copy, &settings);
    undisturbed(&node, || {
        Chat::connect(&node, "alice", "a").tell("bob", "another two");
        assert_eq!(back(&node, "bob", &of_a_lost_run).welcome["reset"], true);
        let mut bob = back(&node, "bob", &of_the_past);
        assert_eq!(bob.welcome["reset"], false);
        assert_eq!(caught_up(&mut bob), [2]);
    });
}

/// C11: positions from the beginning, from the middle, of a conversation one is not in, and beyond the head.
#[test]
fn positions_are_fed_or_named() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let mut alice = Chat::connect(&node, "alice", "a");
        let conversation = |user, count: usize, alice: &mut Chat| {
            let ids: Vec<_> = (0..count).map(|_| alice.tell(user, "text")["conversation"].clone()).collect();
            ids[0].clone()
        };
        let long = conversation("bob", 600, &mut alice);
        let foreign = conversation("carl", 3, &mut alice);
        let mut dora = Chat::connect(&node, "dora", "d");
        let unknown = dora.tell("bob", "a head")["conversation"].clone();
        let mut emil = Chat::connect(&node, "emil", "e");
        let future = emil.tell("bob", "one")["conversation"].clone();

        let positions = json!([
            { "conversation": long, "seq": 0 },
            { "conversation": foreign, "seq": 0 },
            { "conversation": future, "seq": 1_000_000 },
        ]);
        let connect = json!({ "device": "d", "positions": positions });
        let mut bob = Chat::connect_with(&node, &node.token("bob"), connect);
        bob.event("caught_up");
        let events = bob.take_events();
        let fed = events.iter().filter(|event| event["op"] == "message" && event["conversation"] == long);
        let fed: Vec<_> = fed.filter_map(|event| event["seq"].as_u64()).collect();
        assert_eq!(fed, (1..=600).collect::<Vec<_>>());
        let heads: Vec<_> =
            events.iter().filter_map(|event| event["conversations"].as_array()).flatten().collect();
        let head_of =
            |id: &Value| heads.iter().find(|head| head["conversation"] == *id).map(|head| &head["head"]);
        assert_eq!(head_of(&unknown), Some(&json!(1)));
        assert!(!events.iter().any(|event| event.to_string().contains(foreign.as_str().expect("an id"))));
        assert_eq!(
            head_of(&future),
            Some(&json!(1)),
            "a client that is ahead of the store is told where the store is"
        );
        alice.tell("bob", "live");
        assert_eq!(bob.event("message")["seq"], 601);
    });
}
