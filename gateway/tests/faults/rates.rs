//! Who asks for more than is allowed is told when to come back; nothing is lost by it, and nobody else is disturbed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    chat::{Chat, Received, message_id, verdict},
    node::{Node, directory},
};

/// Allowed a second, and four times that at once.
const RATE: &str = "3";
const BURST: usize = 12;

/// Fewer than a session may have under way.
const SENDS: usize = 30;

#[track_caller]
fn is_limited(reply: &Value) -> bool {
    let is_limited = verdict(reply) == "3001 rate_limited";
    assert!(is_limited || verdict(reply) == "ok", "{reply}");
    assert_eq!(is_limited, reply["retry_after_ms"].as_u64().is_some_and(|millis| millis > 0), "{reply}");
    is_limited
}

#[test]
fn a_user_who_sends_too_much_is_told_when_to_go_on_and_loses_nothing() {
    let data = directory();
    let node = Node::start(data.path(), &[("GATEHOUSE_USER_MESSAGES_PER_SECOND", RATE)]);
    let (mut phone, mut tablet) =
        (Chat::connect(&node, "alice", "phone"), Chat::connect(&node, "alice", "tablet"));
    let now = phone.welcome["now"].clone();
    let letters: Vec<Value> = (0..SENDS)
        .map(|_| json!({ "to": "bob", "kind": "text", "text": "x", "message_id": message_id(&now) }))
        .collect();

    let asked: Vec<u64> = letters.iter().map(|letter| phone.send("send", letter.clone())).collect();
    let replies: Vec<Value> = asked.into_iter().map(|id| phone.reply(id)).collect();
    let limited = replies.iter().filter(|reply| is_limited(reply)).count();
    assert!(limited > 0, "all of {SENDS} were taken at once");
    assert!(SENDS - limited >= BURST, "{limited} of {SENDS} were refused");
    // All devices of a user have one allowance; others, and what stores nothing, have theirs.
    let letter = || json!({ "to": "bob", "kind": "text", "text": "x" });
    assert!((0..SENDS).any(|_| is_limited(&tablet.ask("send", letter()))), "the tablet has one of its own");
    let conversation = replies[0]["conversation"].clone();
    assert!(Chat::connect(&node, "carol", "phone").tell("bob", "x")["seq"].is_u64());
    phone.is_fine();

    for letter in &letters {
        while is_limited(&phone.ask("send", letter.clone())) {}
    }
    let stored = phone.history(&conversation);
    for letter in &letters {
        let times = stored.iter().filter(|item| item["message_id"] == letter["message_id"]).count();
        assert_eq!(times, 1, "{letter}");
    }
}

/// Rounds of a flood, and as many without beside them.
const ROUNDS: usize = 100;

/// C12: one user asks for far more than ten times of what it may, for a while. Each command is answered, what was acknowledged is there and nothing
/// else is, and others are served as they are beside it.
#[test]
fn who_floods_is_refused_in_words_and_slows_nobody() {
    let data = directory();
    let settings =
        [("GATEHOUSE_USER_MESSAGES_PER_SECOND", RATE), ("GATEHOUSE_SESSION_COMMANDS_PER_SECOND", "0")];
    let node = Node::start(data.path(), &settings);
    let mut flood = Chat::connect(&node, "alice", "phone");
    let now = flood.welcome["now"].clone();
    let begun = Instant::now();
    let first = flood.tell("bob", "x");
    let conversation = first["conversation"].clone();
    let mut acknowledged = vec![first["message_id"].clone()];
    // Each sends no more than it may at once, in turn with and without the flood.
    let mut others: Vec<Chat> = (0..2 * ROUNDS / (BURST - 2))
        .map(|number| Chat::connect(&node, &format!("witness-{number}"), "phone"))
        .collect();
    let (mut beside, mut without) = (Vec::new(), Vec::new());
    for round in 0..2 * ROUNDS {
        let is_flooded = round % 2 == 1;
        let letters: Vec<String> =
            (0..if is_flooded { SENDS } else { 0 }).map(|_| message_id(&now)).collect();
        let letter = |id: &String| json!({ "to": "bob", "kind": "text", "text": "x", "message_id": id });
        let asked: Vec<u64> = letters.iter().map(|id| flood.send("send", letter(id))).collect();
        let number = round / (BURST - 2);
        let sent = Instant::now();
        others[number].tell("carol", "x");
        if is_flooded { &mut beside } else { &mut without }.push(sent.elapsed());
        for (asked, id) in asked.into_iter().zip(letters) {
            if !is_limited(&flood.reply(asked)) {
                acknowledged.push(json!(id));
            }
        }
    }
    let allowed = BURST as u64 + RATE.parse::<u64>().expect("a number") * (begun.elapsed().as_secs() + 1);
    assert!(acknowledged.len() as u64 <= allowed, "{} were taken of {allowed}", acknowledged.len());
    let stored: Vec<Value> =
        flood.history(&conversation).iter().map(|item| item["message_id"].clone()).collect();
    assert_eq!(stored, acknowledged);
    node.wait_for_metric("messages_stored_total", (acknowledged.len() + 2 * ROUNDS) as u64);
    // The same machine at the same time, and far more than a turn: this is of those who wait for what is refused.
    let median = |times: &mut Vec<Duration>| *times.select_nth_unstable(ROUNDS / 2).1;
    let (beside, without) = (median(&mut beside), median(&mut without));
    assert!(beside <= without * 5 + Duration::from_millis(100), "{beside:?}, and {without:?} without");
}

#[test]
fn a_session_that_asks_too_much_is_told_when_to_go_on() {
    let data = directory();
    let node = Node::start(data.path(), &[("GATEHOUSE_SESSION_COMMANDS_PER_SECOND", RATE)]);
    let (mut phone, mut tablet) =
        (Chat::connect(&node, "alice", "phone"), Chat::connect(&node, "alice", "tablet"));
    let conversation = phone.tell("bob", "x")["conversation"].take();
    let ask = |chat: &mut Chat| chat.ask("members", json!({ "conversation": conversation, "list": true }));
    let refused = (0..100).find_map(|asked| {
        let reply = ask(&mut phone);
        (reply["op"] == "error").then_some((asked, reply))
    });
    let (asked, reply) = refused.expect("a hundred were taken in a moment");
    assert!(is_limited(&reply) && asked >= BURST - 1, "after {asked}: {reply}");
    // Another session has its own, of the same user too.
    assert_eq!(ask(&mut tablet)["op"], "page");
    while ask(&mut phone)["op"] == "error" {}

    // What cannot be read, and new tokens, count as well.
    let token = node.token("alice");
    let others: [&dyn Fn(&mut Chat) -> Value; 2] =
        [&|chat| chat.ask("no such op", json!({})), &|chat| chat.ask("refresh", json!({ "token": token }))];
    for other in others {
        assert!((0..100).any(|_| verdict(&other(&mut tablet)) == "3001 rate_limited"));
        while verdict(&other(&mut tablet)) == "3001 rate_limited" {}
    }
}

/// Approached an hour: conversations, and people in groups.
const APPROACHES: [(&str, &str); 2] =
    [("GATEHOUSE_USER_NEW_CONVERSATIONS_PER_HOUR", "3"), ("GATEHOUSE_USER_ADDED_PEOPLE_PER_HOUR", "5")];

#[test]
fn a_user_begins_so_many_conversations_and_goes_on_in_those_on_every_device() {
    let data = directory();
    let node = Node::start(data.path(), &APPROACHES);
    let mut alice = Chat::connect(&node, "alice", "phone");
    let letter = |to: &str| json!({ "to": to, "kind": "text", "text": "x" });
    for to in ["u1", "u2"] {
        assert_eq!(verdict(&alice.ask("send", letter(to))), "ok");
    }
    assert_eq!(
        verdict(&alice.ask("create", json!({ "title": "three", "members": ["u9"], "history": "all" }))),
        "ok"
    );
    let is_held_back = |reply: &Value| {
        assert_eq!(verdict(reply), "3001 rate_limited", "{reply}");
        // One in twenty minutes, and they have just begun.
        let millis = reply["retry_after_ms"].as_u64().expect("a time");
        assert!((600_000..=1_200_000).contains(&millis), "{reply}");
    };
    is_held_back(&alice.ask("send", letter("u3")));
    is_held_back(&alice.ask("create", json!({ "title": "four", "members": ["u9"], "history": "all" })));
    // What was begun goes on, whoever began it.
    assert_eq!(verdict(&alice.ask("send", letter("u2"))), "ok");
    assert!(Chat::connect(&node, "u3", "phone").tell("alice", "x")["seq"].is_u64());
    assert_eq!(verdict(&alice.ask("send", letter("u3"))), "ok");
    // Nobody gets more by coming back.
    drop(alice);
    is_held_back(&Chat::connect(&node, "alice", "tablet").ask("send", letter("u4")));
}

#[test]
fn a_user_puts_so_many_people_into_groups() {
    let data = directory();
    let node = Node::start(data.path(), &APPROACHES);
    let mut alice = Chat::connect(&node, "alice", "phone");
    let group = alice.ask("create", json!({ "title": "x", "members": ["u1", "u2", "u3"], "history": "all" }));
    let mut add = |names: &[&str]| {
        let change = json!({ "conversation": group["conversation"], "add": names });
        verdict(&alice.ask("members", change))
    };
    assert_eq!(add(&["u4", "u5", "u6", "u7"]), "ok", "who may add one may fill a group");
    assert_eq!(add(&["u8"]), "3001 rate_limited");
    let remove = json!({ "conversation": group["conversation"], "remove": ["u1"] });
    assert_eq!(verdict(&alice.ask("members", remove)), "ok", "nobody is approached");
}

/// Eight devices, of which the newest session counts; a ninth is refused, and the eight are not disturbed.
#[test]
fn a_user_has_eight_sessions_and_the_ninth_is_refused() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let mut devices: Vec<Chat> =
        (0..8).map(|device| Chat::connect(&node, "alice", &format!("d{device}"))).collect();
    let token = node.token("alice");
    for _ in 0..2 {
        let mut ninth = Chat::open(&node);
        ninth.send("connect", json!({ "device": "d8", "token": token }));
        let (told, ended) = ninth.until_closed(|_, _| {});
        assert_eq!(told.iter().map(verdict).collect::<Vec<_>>(), ["2007 limit"]);
        assert_eq!(ended, Received::Closed(4103));
    }
    devices.iter_mut().for_each(Chat::is_fine);
    // One of the eight that comes again takes its own place, and one that goes leaves its place.
    devices[3] = Chat::connect(&node, "alice", "d3");
    drop(devices.pop());
    node.wait_for_metric("sessions", 7);
    devices.push(Chat::connect(&node, "alice", "d8"));
    devices.iter_mut().for_each(Chat::is_fine);
}
