//! Commands that one may not give, that make no sense, or that come twice.

use std::{collections::BTreeSet, thread};

use serde_json::{Value, json};

use crate::{
    chat::{Chat, Received, message_id, undisturbed, verdict},
    node::{Node, directory},
};

const NOBODYS: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// A group of `owner` and `members`; its id.
fn group(owner: &mut Chat, members: &[&str]) -> Value {
    let ok = owner.ask("create", json!({ "title": "group", "members": members, "history": "all" }));
    assert_eq!(ok["op"], "ok", "{ok}");
    ok["conversation"].clone()
}

/// C7: every command about a conversation, from somebody outside it.
#[test]
fn members_only() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let mut alice = Chat::connect(&node, "alice", "a");
        let mut eve = Chat::connect(&node, "eve", "e");
        let group = group(&mut alice, &["bob"]);
        let direct = alice.tell("bob", "between us")["conversation"].clone();
        for (conversation, expected) in [
            (&group, "2004 not_a_member"),
            (&direct, "2004 not_a_member"),
            (&json!(NOBODYS), "2003 not_found"),
        ] {
            for (op, mut fields) in [
                ("send", json!({ "kind": "text", "text": "let me in" })),
                ("history", json!({ "limit": 10 })),
                ("history", json!({ "limit": 10, "after": 0 })),
                ("members", json!({ "list": true })),
                ("members", json!({ "add": ["eve"] })),
                ("members", json!({ "remove": ["bob"] })),
                ("members", json!({ "roles": { "eve": "owner" } })),
                ("title", json!({ "title": "mine" })),
                ("leave", json!({})),
                ("edit", json!({ "seq": 1, "text": "let me in" })),
                ("delete", json!({ "seq": 1 })),
                ("react", json!({ "seq": 1, "emoji": "+", "on": true })),
                ("read", json!({ "seq": 1 })),
                ("view", json!({})),
                ("mute", json!({ "until": 9_007_199_254_740_991_u64 })),
                ("retention", json!({ "last": 1 })),
            ] {
                fields["conversation"] = conversation.clone();
                assert_eq!(verdict(&eve.ask(op, fields)), expected, "{op}");
            }
        }
        // `typing` has no reply: whoever looks is told of bob, and of nobody else.
        alice.ask("view", json!({ "conversation": group }));
        let mut bob = Chat::connect(&node, "bob", "b");
        for stranger in [&mut eve, &mut bob] {
            stranger.send_text(&json!({ "op": "typing", "conversation": group, "on": true }).to_string());
            stranger.is_fine();
        }
        assert_eq!(alice.event("typing")["user"], "bob");
        assert!(alice.take_events().iter().all(|event| event["op"] != "typing"));
        // What is not in this version is refused by name, not by silence.
        assert_eq!(verdict(&eve.ask("summarize", json!({ "conversation": group }))), "1002 unknown_op");
        assert_eq!(alice.history(&group).len(), 1, "nothing of it was stored");
        assert_eq!(alice.history(&direct).len(), 1);
    });
}

/// C7: a member is removed while its messages are under way. The log decides: each is before the removal or refused.
#[test]
fn a_removal_has_one_place_among_the_messages() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let mut alice = Chat::connect(&node, "alice", "a");
        let mut bob = Chat::connect(&node, "bob", "b");
        for _ in 0..10 {
            let group = group(&mut alice, &["bob"]);
            let message = json!({ "conversation": group, "kind": "text", "text": "still here" });
            let removal = json!({ "conversation": group, "remove": ["bob"] });
            let (replies, removal) = thread::scope(|scope| {
                let sending = scope.spawn(|| {
                    let ids: Vec<_> = (0..30).map(|_| bob.send("send", message.clone())).collect();
                    ids.into_iter().map(|id| bob.reply(id)).collect::<Vec<_>>()
                });
                let removal = alice.ask("members", removal);
                (sending.join().expect("bob is answered"), removal)
            });
            let removed_at = removal["seq"].as_u64().unwrap_or_else(|| panic!("{removal}"));
            let stored: BTreeSet<u64> = replies.iter().filter_map(|reply| reply["seq"].as_u64()).collect();
            assert!(stored.iter().all(|seq| *seq < removed_at), "{stored:?} and removed at {removed_at}");
            let refused = replies.iter().filter(|reply| verdict(reply) == "2004 not_a_member").count();
            assert_eq!(stored.len() + refused, replies.len(), "{replies:?}");
            assert_eq!(
                verdict(&bob.ask("history", json!({ "conversation": group, "limit": 1 }))),
                "2004 not_a_member"
            );

            let after = alice.ask("send", message.clone())["seq"].as_u64();
            assert_eq!(after, Some(removed_at + 1));
            let history = alice.history(&group);
            let sequences: Vec<_> =
                history.iter().map(|item| item["seq"].as_u64().expect("a sequence")).collect();
            assert_eq!(sequences, (1..=removed_at + 1).collect::<Vec<_>>());
            let of_bob = history.iter().filter(|item| item["sender"] == "bob");
            assert_eq!(of_bob.filter_map(|item| item["seq"].as_u64()).collect::<BTreeSet<_>>(), stored);
            bob.is_fine();
            let seen = bob.take_events();
            let late = seen
                .iter()
                .find(|event| event["conversation"] == group && event["seq"].as_u64() > Some(removed_at));
            assert_eq!(late, None, "nothing after the removal reaches the removed");
        }
    });
}

/// C8: who sends is what the token says.
#[test]
fn the_session_is_the_sender() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let mut alice = Chat::connect(&node, "alice", "a");
        let mut bob = Chat::connect(&node, "bob", "b");
        for field in ["sender", "user", "from", "sub", "at", "seq"] {
            let forged = json!({ "to": "bob", "kind": "text", "text": "not me", field: "mallory" });
            assert_eq!(verdict(&alice.ask("send", forged)), "1003 bad_field", "{field}");
        }
        alice.tell("bob", "me");
        let event = bob.event("message");
        assert_eq!((&event["sender"], &event["text"]), (&json!("alice"), &json!("me")));
    });
}

/// What one frame of a live session comes to: the verdict of its answer, or the close code.
fn outcome(chat: &mut Chat, text: &str) -> String {
    chat.send_text(text);
    match chat.next() {
        Received::Frame(frame) => {
            let message = frame["message"].as_str().unwrap_or_default();
            assert!(message.len() <= 256 && !message.contains("secret"), "errors repeat nothing: {message}");
            verdict(&frame)
        }
        Received::Closed(code) => format!("closed {code}"),
        Received::Gone => "gone".to_owned(),
    }
}

/// C9: frames that are damaged, odd or hostile. Those with an id are answered and the session goes on.
#[test]
fn frames_that_make_no_sense() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let token = node.token("alice");
        let mut chat = Chat::connect_with(&node, &token, json!({ "device": "d" }));
        for (text, expected) in [odd_commands(), odd_pings()].concat() {
            assert_eq!(outcome(&mut chat, &text), expected, "{}", &text[..text.len().min(200)]);
        }
        chat.is_fine();
        // Nobody can be told which command it was: the connection ends.
        for text in UNNUMBERED {
            let mut chat = Chat::connect_with(&node, &token, json!({ "device": "d" }));
            assert_eq!(outcome(&mut chat, text), "closed 1003", "{text}");
        }
    });
}

const BAD_FRAME: &str = "1001 bad_frame";
const BAD_FIELD: &str = "1003 bad_field";

fn odd_commands() -> Vec<(String, &'static str)> {
    let send = |to: &str| format!(r#"{{"op":"send","id":2,"to":{to},"kind":"text","text":"x"}}"#);
    let history = |rest: &str| format!(r#"{{"op":"history","id":2,"limit":1,"conversation":{rest}}}"#);
    let quoted = |text: &str| format!("\"{text}\"");
    vec![
        (send(&quoted("")), BAD_FIELD),
        (send(&quoted(&"x".repeat(65))), BAD_FIELD),
        (send(&quoted(&"x".repeat(60_000))), BAD_FIELD),
        (send(&quoted("a\\u0000b")), BAD_FIELD),
        (send(&quoted("a\\nb")), BAD_FIELD),
        (send("17"), BAD_FIELD),
        (send("null"), BAD_FIELD),
        (send(r#"["bob"]"#), BAD_FIELD),
        (send(&quoted("alice")), "2005 not_allowed"),
        (history("\"\""), BAD_FIELD),
        (history(&quoted("../../etc/passwd")), BAD_FIELD),
        (history(&quoted(&NOBODYS.replace('-', ""))), BAD_FIELD),
        (history(&format!("\"{{{NOBODYS}}}\"")), BAD_FIELD),
        (history(&quoted(&"0".repeat(60_000))), BAD_FIELD),
        (history(&quoted(NOBODYS)), "2003 not_found"),
        (history(&format!("\"{NOBODYS}\",\"after\":1,\"before\":2")), BAD_FIELD),
        (history(&format!("\"{NOBODYS}\",\"after\":-1")), BAD_FIELD),
        (history(&format!("\"{NOBODYS}\",\"after\":1.5")), BAD_FIELD),
        (history(&format!("\"{NOBODYS}\",\"after\":9007199254740992")), BAD_FIELD),
        (history(&format!("\"{NOBODYS}\",\"after\":99999999999999999999999")), BAD_FIELD),
        (history(&format!("\"{NOBODYS}\",\"after\":1e400")), BAD_FRAME),
        (history(&format!("\"{NOBODYS}\",\"after\":NaN")), BAD_FRAME),
    ]
}

fn odd_pings() -> Vec<(String, &'static str)> {
    let ping = |rest: &str| format!(r#"{{"op":"ping","id":2{rest}}}"#);
    vec![
        (ping(&format!(",\"{}\":1", "secret".repeat(10_000))), BAD_FIELD),
        (ping(&format!(",\"x\":{}", "[".repeat(10_000))), BAD_FRAME),
        (ping(&format!(",\"x\":{}{}", "[".repeat(10_000), "]".repeat(10_000))), BAD_FIELD),
        (ping(&format!(",\"cursor\":{}{}", "[".repeat(10_000), "]".repeat(10_000))), BAD_FIELD),
        (ping(&format!(",\"x\":{}1{}", "{\"x\":".repeat(10_000), "}".repeat(10_000))), BAD_FIELD),
        (ping(",\"cursor\":\"secret\",\"cursor\":\"secret\""), BAD_FIELD),
        (ping(",\"op\":\"ping\""), BAD_FIELD),
        (ping(",\"cursor\":\"\\ud800\""), BAD_FRAME),
        (ping(",\"cursor\":\"\t\""), BAD_FRAME),
        (ping(",\"cursor\":Infinity"), BAD_FRAME),
        (ping(",}"), BAD_FRAME),
        (ping("") + "secret", BAD_FRAME),
        (r#"{"id":2,"op":"secret"}"#.to_owned(), "1002 unknown_op"),
        (r#"{"id":2,"op":7}"#.to_owned(), BAD_FIELD),
        (r#"{"id":2}"#.to_owned(), BAD_FIELD),
        (
            format!(
                r#"{{"op":"send","id":2,"to":"bob","kind":"text","text":"{}"}}"#,
                "x".repeat((16 << 10) + 1)
            ),
            "1004 too_large",
        ),
        (r#"{"op":"connect","id":2,"device":"d"}"#.to_owned(), BAD_FIELD),
        (ping(""), "pong"),
    ]
}

/// Frames without a number that can be repeated.
const UNNUMBERED: [&str; 14] = [
    r#"{"op":"ping"}"#,
    r#"{"op":"ping","id":0}"#,
    r#"{"op":"ping","id":-1}"#,
    r#"{"op":"ping","id":2147483648}"#,
    r#"{"op":"ping","id":1.5}"#,
    r#"{"op":"ping","id":1e400}"#,
    r#"{"op":"ping","id":"2"}"#,
    r#"{"op":"ping","id":2,"id":3}"#,
    "",
    "null",
    "[]",
    "\"ping\"",
    "{",
    "[[[[",
];

/// C9: names that look alike or point somewhere are names like all others.
#[test]
fn odd_names_are_names() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let mut alice = Chat::connect(&node, "alice", "a");
        let names = [
            "../../etc/passwd",
            "\u{430}lice",
            "\u{202e}ecila",
            "ALICE",
            "alice ",
            " ",
            "%00",
            "a\u{301}",
            "\u{e1}",
        ];
        let conversations: BTreeSet<String> =
            names.iter().map(|name| alice.tell(name, "hello")["conversation"].to_string()).collect();
        assert_eq!(conversations.len(), names.len(), "each is somebody else");
        for name in ["../../etc/passwd", "\u{430}lice", "\u{202e}ecila"] {
            let mut other = Chat::connect(&node, name, "../d");
            assert_eq!(other.welcome["user"], name);
            alice.tell(name, "you");
            assert_eq!(other.event("message")["text"], "you");
        }
    });
}

/// C10: sent again in every way there is, stored once.
#[test]
fn one_id_is_one_message() {
    let data = directory();
    let mut node = Node::start(data.path(), &[]);
    let mut phone = Chat::connect(&node, "alice", "phone");
    let now = phone.welcome["now"].clone();
    // Of now, and of a time at which memory does not reach back and the log is asked.
    let old = json!(now.as_u64().expect("a time") - 11 * 60 * 1000);
    let ids: Vec<String> = [&now, &old].map(message_id).to_vec();
    let letter =
        |id: &str, text: &str| json!({ "to": "bob", "kind": "text", "text": text, "message_id": id });
    let seen =
        |ok: &Value| (ok["op"].clone(), ok["conversation"].clone(), ok["seq"].clone(), ok["at"].clone());
    let first: Vec<_> = ids.iter().map(|id| seen(&phone.ask("send", letter(id, "once")))).collect();
    assert_eq!(first[0].2, 1);
    assert_eq!(first[1].2, 2);

    let mut tablet = Chat::connect(&node, "alice", "tablet");
    thread::scope(|scope| {
        for chat in [&mut phone, &mut tablet] {
            let (ids, first, letter) = (&ids, &first, &letter);
            scope.spawn(move || {
                for _ in 0..20 {
                    for (id, first) in ids.iter().zip(first) {
                        assert_eq!(seen(&chat.ask("send", letter(id, "once"))), *first);
                    }
                    assert_eq!(verdict(&chat.ask("send", letter(&ids[0], "twice"))), "2006 conflict");
                }
            });
        }
    });
    // At once on two connections, never seen before.
    let new = message_id(&now);
    let both = thread::scope(|scope| {
        let one = scope.spawn(|| seen(&phone.ask("send", letter(&new, "new"))));
        let other = seen(&tablet.ask("send", letter(&new, "new")));
        [one.join().expect("it is answered"), other]
    });
    assert_eq!(both[0], both[1]);
    assert_eq!(both[0].2, 3);

    drop(phone);
    node.restart();
    undisturbed(&node, || {
        let mut phone = Chat::connect(&node, "alice", "phone");
        for (id, first) in ids.iter().zip(&first) {
            assert_eq!(seen(&phone.ask("send", letter(id, "once"))), *first);
            assert_eq!(verdict(&phone.ask("send", letter(id, "twice"))), "2006 conflict");
        }
        let history = phone.history(&first[0].1);
        let texts: Vec<_> = history.iter().map(|item| item["text"].as_str().expect("a text")).collect();
        assert_eq!(texts, ["once", "once", "new"]);
        // Another sender's message under the same id is another message.
        let mut bob = Chat::connect(&node, "bob", "b");
        let answer = json!({ "to": "alice", "kind": "text", "text": "mine", "message_id": ids[0] });
        assert_eq!(bob.ask("send", answer)["seq"], 4);

        let ahead = message_id(&json!(now.as_u64().expect("a time") + 30 * 60 * 1000));
        for id in [ahead.as_str(), "6ba7b810-9dad-41d1-80b4-00c04fd430c8", "not an id"] {
            assert_eq!(verdict(&phone.ask("send", letter(id, "x"))), "1003 bad_field", "{id}");
        }
    });
}

/// C10 for a command that makes a conversation.
#[test]
fn one_id_is_one_group() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let mut alice = Chat::connect(&node, "alice", "a");
        let id = message_id(&alice.welcome["now"]);
        let create =
            |title: &str| json!({ "title": title, "members": ["bob"], "history": "all", "message_id": id });
        let first = alice.ask("create", create("one"));
        assert_eq!(first["seq"], 1, "{first}");
        let again = alice.ask("create", create("one"));
        assert_eq!((&again["conversation"], &again["seq"]), (&first["conversation"], &first["seq"]));
        assert_eq!(verdict(&alice.ask("create", create("two"))), "2006 conflict");
        assert_eq!(alice.history(&first["conversation"]).len(), 1);
    });
}
