//! A group that goes from small to large and back while its members talk, a kill in between: nobody loses anything, nobody is told
//! of anything that is not theirs.

use serde_json::{Value, json};

use crate::{
    chat::Chat,
    node::{Node, directory},
};

/// Most members of a small group.
const SMALL: usize = 99;

/// Changes of members, each across the limit, and messages of each of the two writers between them.
const CHANGES: usize = 8;
const BETWEEN: usize = 5;

fn members(names: std::ops::Range<usize>) -> Vec<String> {
    names.map(|number| format!("member-{number}")).collect()
}

fn create(owner: &mut Chat, size: usize) -> Value {
    let fields = json!({ "title": "a group", "members": members(1..size), "history": "joined" });
    let mut ok = owner.ask("create", fields);
    assert_eq!(ok["op"], "ok", "{ok}");
    ok["conversation"].take()
}

/// A cursor after which a member is away.
fn leave(node: &Node, user: &str) -> Value {
    let mut chat = Chat::connect(node, user, "d");
    chat.ask("ping", json!({}))["cursor"].take()
}

fn back(node: &Node, user: &str, cursor: &Value) -> Chat {
    Chat::connect_with(node, &node.token(user), json!({ "device": "d", "cursor": cursor }))
}

/// What comes of one conversation while catching up: `(sequence, operation)`.
fn caught_up(chat: &mut Chat, conversation: &Value) -> Vec<(u64, String)> {
    let end = chat.event("caught_up");
    assert!(end["partial"].is_null(), "{end}");
    let mut told = Vec::new();
    for event in chat.take_events() {
        let op = event["op"].as_str().expect("an operation").to_owned();
        if event["conversation"] == *conversation {
            told.push((event["seq"].as_u64().expect("a sequence"), op));
        } else if op == "heads" {
            let heads = event["conversations"].as_array().expect("a list").iter();
            let ours = heads.filter(|head| head["conversation"] == *conversation);
            told.extend(ours.map(|head| (head["head"].as_u64().expect("a sequence"), op.clone())));
        }
    }
    told
}

/// That nothing between two of them is missing: a head says what is passed over.
#[track_caller]
fn assert_dense(told: &[(u64, String)], from: u64, to: u64) {
    let mut at = from;
    for (seq, op) in told {
        assert!(*seq == at + 1 || (op == "heads" && *seq >= at), "{seq} after {at} in {told:?}");
        at = *seq;
    }
    assert_eq!(at, to, "{told:?}");
}

/// Two members talk while a third one is let in and taken out, again and again, without waiting for any answer. The last sequence.
fn talk(owner: &mut Chat, other: &mut Chat, conversation: &Value) -> u64 {
    let (mut last, mut of_other) = (0, Vec::new());
    for change in 0..CHANGES {
        let mut asked = Vec::new();
        for _ in 0..BETWEEN {
            let text = json!({ "conversation": conversation, "kind": "text", "text": "on both sides of it" });
            asked.push(owner.send("send", text.clone()));
            of_other.push(other.send("send", text));
        }
        let (kind, names) = (if change % 2 == 0 { "add" } else { "remove" }, ["the hundredth"]);
        asked.push(owner.send("members", json!({ "conversation": conversation, kind: names })));
        for id in asked {
            let ok = owner.reply(id);
            assert_eq!(ok["op"], "ok", "{ok}");
            last = last.max(ok["seq"].as_u64().expect("a sequence"));
        }
    }
    // What the other says stands before the last one, too.
    of_other.into_iter().for_each(|id| assert_eq!(other.reply(id)["op"], "ok"));
    let ok = owner.ask("send", json!({ "conversation": conversation, "kind": "text", "text": "the last" }));
    last.max(ok["seq"].as_u64().expect("a sequence"))
}

#[test]
fn a_group_grows_large_and_small_again_under_load_and_nobody_loses_anything() {
    let data = directory();
    let mut node = Node::start(data.path(), &[]);
    let mut owner = Chat::connect(&node, "owner", "o");
    let conversation = create(&mut owner, SMALL);
    let cursor = leave(&node, "member-7");
    let mut other = Chat::connect(&node, "member-1", "o");
    let mut online = Chat::connect(&node, "member-2", "o");
    let last = talk(&mut owner, &mut other, &conversation);

    let mut seqs = Vec::new();
    while seqs.last() != Some(&last) {
        let crate::chat::Received::Frame(event) = online.next() else { panic!("it ends: {seqs:?}") };
        if event["conversation"] == conversation {
            seqs.push(event["seq"].as_u64().expect("a sequence"));
        }
    }
    assert_eq!(seqs, (2..=last).collect::<Vec<_>>(), "live, once and in order");

    let told = caught_up(&mut back(&node, "member-7", &cursor), &conversation);
    assert_dense(&told, 1, last);
    let heads = told.iter().filter(|(_, op)| op == "heads").count();
    assert_eq!(heads, CHANGES / 2, "one for each time that it was large: {told:?}");
    node.restart();
    assert_eq!(caught_up(&mut back(&node, "member-7", &cursor), &conversation), told);

    // And what is passed over is read when it is opened.
    let items = Chat::connect(&node, "member-7", "reader").history(&conversation);
    let read: Vec<u64> = items.iter().map(|item| item["seq"].as_u64().expect("a sequence")).collect();
    assert_eq!(read, (1..=last).collect::<Vec<_>>());
}

#[test]
fn a_large_group_survives_a_kill_with_its_members_and_its_heads() {
    let data = directory();
    let mut node = Node::start(data.path(), &[]);
    let mut owner = Chat::connect(&node, "owner", "o");
    let conversation = create(&mut owner, 500);
    let text = |text: &str| json!({ "conversation": conversation, "kind": "text", "text": text });
    let (stays, goes) = (leave(&node, "member-499"), leave(&node, "member-498"));
    assert_eq!(owner.ask("send", text("to all"))["seq"], 2);
    let change = json!({ "conversation": conversation, "remove": ["member-498"] });
    assert_eq!(owner.ask("members", change)["seq"], 3);
    assert_eq!(owner.ask("send", text("to those who are left"))["seq"], 4);
    node.restart();
    let heads = |seq| (seq, "heads".to_owned());
    let mut stayed = back(&node, "member-499", &stays);
    assert_eq!(caught_up(&mut stayed, &conversation), [heads(4)]);
    let mut gone = back(&node, "member-498", &goes);
    assert_eq!(caught_up(&mut gone, &conversation), [heads(2), (3, "member".to_owned())]);

    let mut owner = Chat::connect(&node, "owner", "o");
    assert_eq!(owner.ask("send", text("live again"))["seq"], 5);
    assert_eq!(stayed.event("message")["seq"], 5);
    let refusal = gone.ask("send", text("let me in"));
    assert_eq!(refusal["name"], "not_a_member", "{refusal}");
}
