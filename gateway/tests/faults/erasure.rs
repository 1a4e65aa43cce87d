//! What is erased is shown to nobody from the moment in which it was asked for, and stands in no file soon after.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    backup::restore,
    chat::{Chat, verdict},
    logtool::{fill, flip, log, text},
    node::{Node, PATIENCE, check_refused, directory},
};

/// Two logs in small segments, of which none is written anew for anything else.
const LAZY: [(&str, &str); 3] =
    [("GATEHOUSE_LOGS", "2"), ("GATEHOUSE_SEGMENT_MIB", "4"), ("GATEHOUSE_COMPACT_AFTER_SECONDS", "0")];

/// Alice says it, and nobody is to find it later.
const SECRET: &str = "alice told me this under four eyes";

/// Bob says it, and it stays.
const KEPT: &str = "bob does not mind who reads this";

/// Status line and body of an answer of the admin.
#[track_caller]
fn admin(node: &Node, data: &Path, method: &str, body: &str) -> (String, String) {
    let token = fs::read_to_string(data.join("admin.token")).expect("the node made it");
    let mut stream = TcpStream::connect(node.admin).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket of ours");
    write!(
        stream,
        "{method} /v1/erase HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        token.trim_end(),
        body.len()
    )
    .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// Erases; the time under which it is known.
#[track_caller]
pub(crate) fn erase(node: &Node, data: &Path, asked: &Value) -> u64 {
    let (status, body) = admin(node, data, "POST", &asked.to_string());
    assert_eq!(status, "HTTP/1.1 200 OK", "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(answer["erased"], *asked);
    answer["asked_at"].as_u64().expect("a time")
}

/// What the report says of one erasure.
#[track_caller]
fn report(node: &Node, data: &Path, asked_at: u64) -> Value {
    let (status, body) = admin(node, data, "GET", "");
    assert_eq!(status, "HTTP/1.1 200 OK", "{body}");
    let report: Value = serde_json::from_str(&body).expect("JSON");
    let lines = report["erasures"].as_array().expect("a list");
    lines.iter().find(|line| line["asked_at"] == asked_at).expect("it is kept").clone()
}

/// Waits until it is said to be done.
#[track_caller]
pub(crate) fn wait_until_done(node: &Node, data: &Path, asked_at: u64) -> Value {
    let begun = Instant::now();
    loop {
        let line = report(node, data, asked_at);
        if line["done_at"].is_u64() {
            let logs = line["logs"].as_array().expect("a list");
            assert!(logs.iter().all(|log| log["segments_left"] == 0), "{line}");
            return line;
        }
        assert!(begun.elapsed() < PATIENCE, "{line}");
        std::thread::yield_now();
    }
}

/// Every file below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The files that hold these words, byte for byte.
pub(crate) fn holding(data: &Path, words: &str) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(words.len()).any(|part| part == words.as_bytes())
    };
    files(data).into_iter().filter(holds).collect()
}

/// A group of alice, bob and carol, and what bob and alice have said to each other there and in private, in turn.
struct Talk {
    group: Value,
    direct: Value,
}

impl Talk {
    #[track_caller]
    fn begin(node: &Node) -> Self {
        let (mut alice, mut bob) = (Chat::connect(node, "alice", "a"), Chat::connect(node, "bob", "b"));
        let made = json!({ "members": ["bob", "carol"], "title": "three", "history": "all" });
        let group = alice.ask("create", made)["conversation"].clone();
        let mut direct = Value::Null;
        for number in 0..12 {
            let say = |chat: &mut Chat, to: Value, text: String| {
                let mut fields = to;
                fields["kind"] = "text".into();
                fields["text"] = text.into();
                let said = chat.ask("send", fields);
                assert_eq!(verdict(&said), "ok", "{said}");
                said["conversation"].clone()
            };
            say(&mut alice, json!({ "conversation": group }), format!("{SECRET}, {number}"));
            say(&mut bob, json!({ "conversation": group }), format!("{KEPT}, {number}"));
            direct = say(&mut alice, json!({ "to": "bob" }), format!("{SECRET}, {number}"));
            say(&mut bob, json!({ "to": "alice" }), format!("{KEPT}, {number}"));
        }
        Self { group, direct }
    }

    /// In these items of a conversation, dense from 1, all of bob is there and nothing of alice but that there was something.
    #[track_caller]
    fn check(items: &[Value], first_of_alice: u64) {
        let numbers = items.iter().map(|item| item["seq"].as_u64().or(item["from"].as_u64()));
        assert!(numbers.eq((1..=items.len() as u64).map(Some)), "{items:?}");
        let told: Vec<&Value> = items.iter().filter(|item| item["op"] != "member").collect();
        assert_eq!(told.len(), 24, "{items:?}");
        for (number, pair) in told.chunks(2).enumerate() {
            let seq = first_of_alice + 2 * number as u64;
            let gap = ["op", "from", "to", "reason"].map(|field| pair[0][field].clone());
            assert_eq!(gap, [json!("gap"), json!(seq), json!(seq), json!("erased")]);
            assert_eq!(pair[1]["text"], format!("{KEPT}, {number}"));
        }
    }

    /// The same in `history`, by a cursor of before, and by positions.
    #[track_caller]
    fn check_everywhere(&self, node: &Node, cursor: &Value) {
        let mut bob = Chat::connect(node, "bob", "b");
        Self::check(&bob.history(&self.group), 2);
        Self::check(&bob.history(&self.direct), 1);
        let positions = [&self.group, &self.direct].map(|talk| json!({ "conversation": talk, "seq": 0 }));
        for fields in [
            json!({ "device": "away", "cursor": cursor }),
            json!({ "device": "new", "positions": positions }),
        ] {
            let mut bob = Chat::connect_with(node, &node.token("bob"), fields);
            assert_eq!(bob.welcome["reset"], false);
            bob.event("caught_up");
            let mut told: BTreeMap<String, Vec<Value>> = BTreeMap::new();
            for event in bob.take_events() {
                let talk = event["conversation"].as_str().unwrap_or_default().to_owned();
                told.entry(talk).or_default().push(event);
            }
            let of = |talk: &Value| told[talk.as_str().expect("an id")].clone();
            Self::check(&of(&self.group), 2);
            Self::check(&of(&self.direct), 1);
        }
    }
}

#[test]
fn what_a_user_said_is_gone_at_once_through_kills_and_soon_from_every_file() {
    let root = directory();
    let data = root.path().join("data");
    let mut node = Node::start(&data, &LAZY);
    let cursor = Chat::connect(&node, "bob", "away").welcome["cursor"].clone();
    let talk = Talk::begin(&node);
    assert!(!holding(&data, SECRET).is_empty() && !holding(&data, KEPT).is_empty());
    let (status, _) = admin(&node, &data, "POST", r#"{"user":"alice","conversation":null}"#);
    assert_eq!(status, "HTTP/1.1 400 Bad Request");
    assert!(node.admin_get("/v1/erase").starts_with("HTTP/1.1 401"));

    let asked_at = erase(&node, &data, &json!({ "user": "alice" }));
    talk.check_everywhere(&node, &cursor);
    let dump = log(&["dump", "--data", text(&data), "--user", "bob"]);
    dump.check(0, &[KEPT, "erased"]);
    assert!(!dump.out.contains(SECRET), "{}", dump.out);
    node.restart();
    talk.check_everywhere(&node, &cursor);
    // Who comes back is heard again.
    let mut alice = Chat::connect(&node, "alice", "a");
    assert_eq!(alice.tell("dave", "here I am again")["seq"], 1);

    let line = wait_until_done(&node, &data, asked_at);
    assert_eq!((&line["user"], line["logs"].as_array().map(Vec::len)), (&json!("alice"), Some(2)));
    assert_eq!(holding(&data, SECRET), Vec::<PathBuf>::new());
    assert!(!holding(&data, KEPT).is_empty() && !holding(&data, "here I am again").is_empty());
    node.log_line(&["stands in no file of this node any more", "what alice has sent"]);
    assert_eq!(node.metric("erasures{state=\"done\"}"), 1);
    talk.check_everywhere(&node, &cursor);
    node.restart();
    assert_eq!(report(&node, &data, asked_at)["done_at"], line["done_at"], "a start knows");
    talk.check_everywhere(&node, &cursor);
    let dave = Chat::connect(&node, "dave", "d").history(&alice_and_dave(&node));
    assert_eq!(dave[0]["text"], "here I am again");
    log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound", "log 1: sound"]);
    log(&["stat", "--data", text(&data)]).check(0, &[]);
}

#[track_caller]
fn alice_and_dave(node: &Node) -> Value {
    Chat::connect(node, "dave", "asks").tell("alice", "welcome")["conversation"].clone()
}

/// An edit holds all of its message, and so does the reaction of somebody else: both go with it, before and after.
#[test]
fn what_amends_a_message_goes_with_it_from_every_file() {
    let root = directory();
    let data = root.path().join("data");
    let mut node = Node::start(&data, &LAZY);
    let (mut alice, mut bob) = (Chat::connect(&node, "alice", "a"), Chat::connect(&node, "bob", "b"));
    let talk = alice.tell("bob", SECRET)["conversation"].clone();
    bob.tell("alice", KEPT);
    let edited = format!("{SECRET}, and better");
    let amend = |chat: &mut Chat, op: &str, mut fields: Value| {
        fields["conversation"] = talk.clone();
        let done = chat.ask(op, fields);
        assert_eq!(verdict(&done), "ok", "{done}");
    };
    amend(&mut alice, "edit", json!({ "seq": 1, "text": edited }));
    amend(&mut bob, "react", json!({ "seq": 1, "emoji": "+", "on": true }));
    amend(&mut alice, "react", json!({ "seq": 2, "emoji": "+", "on": true }));
    let asked_at = erase(&node, &data, &json!({ "user": "alice" }));
    for round in 0..3 {
        let mut bob = Chat::connect(&node, "bob", "b");
        let told = bob.history(&talk);
        let reasons: Vec<&Value> = told.iter().map(|item| &item["reason"]).collect();
        let erased = json!("erased");
        assert_eq!(reasons, [&erased, &Value::Null, &erased, &erased, &Value::Null], "{told:?}");
        assert_eq!((&told[1]["text"], &told[1]["reactions"][0]["users"]), (&json!(KEPT), &json!(["alice"])));
        let more = json!({ "conversation": talk, "seq": 1, "emoji": "-", "on": true });
        assert_eq!(verdict(&bob.ask("react", more)), "2003 not_found");
        match round {
            0 => drop(wait_until_done(&node, &data, asked_at)),
            _ => node.restart(),
        }
        assert_eq!(holding(&data, SECRET), Vec::<PathBuf>::new());
    }
}

/// In many segments, some of them written anew before, and in conversations of which nothing is erased everything stays.
#[test]
fn a_conversation_and_the_front_of_another_are_erased_from_all_their_segments() {
    let root = directory();
    let data = root.path().join("data");
    let mut settings = LAZY;
    settings[2].1 = "1";
    let mut node = Node::start(&data, &settings);
    let talk = Talk::begin(&node);
    let (letters, to_bob) = fill(&mut Chat::connect(&node, "erin", "e"), 900, 16 << 10);
    let of_group = Chat::connect(&node, "carol", "c").history(&talk.group);
    assert_eq!(of_group.len(), 25);
    let asked = json!({ "conversation": talk.direct });
    let direct = erase(&node, &data, &asked);
    let front = erase(&node, &data, &json!({ "conversation": talk.group, "below": 14 }));
    // In whatever it is doing now.
    (0..3).for_each(|_| node.restart());
    for round in 0..3 {
        let mut bob = Chat::connect(&node, "bob", "b");
        let gone = bob.history(&talk.direct);
        assert_eq!(gone.len(), 24);
        assert!(gone.iter().all(|item| item["reason"] == "erased"), "{gone:?}");
        let kept = bob.history(&talk.group);
        let gap = json!({ "op": "gap", "conversation": talk.group, "from": 1, "to": 13, "reason": "not kept any more" });
        assert_eq!((&kept[0], &kept[1..]), (&gap, &of_group[13..]), "in round {round}");
        assert_eq!(bob.history(&to_bob).len(), letters.len());
        let known = json!({ "device": "knows", "positions": [{ "conversation": talk.group, "seq": 5 }] });
        let mut bob = Chat::connect_with(&node, &node.token("bob"), known);
        bob.event("caught_up");
        let told: Vec<Value> =
            bob.take_events().into_iter().filter(|event| event["conversation"] == talk.group).collect();
        assert_eq!((&told[0]["from"], &told[0]["to"], &told[1..]), (&json!(6), &json!(13), &of_group[13..]));
        if round == 0 {
            wait_until_done(&node, &data, direct);
            wait_until_done(&node, &data, front);
            let first = format!("{SECRET}, 0");
            assert_eq!(holding(&data, &first), Vec::<PathBuf>::new());
            assert!(
                !holding(&data, &format!("{SECRET}, 11")).is_empty(),
                "what stands behind the front is kept"
            );
        } else {
            node.restart();
        }
    }
    assert_eq!(Chat::connect(&node, "bob", "b").tell("alice", "and on")["seq"], 25);
    log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound", "log 1: sound"]);
}

/// What stands in a damaged segment nobody can tell: it is not said to be gone, and is given to nobody.
#[test]
fn what_cannot_be_gone_through_is_said_and_not_shown() {
    let root = directory();
    let data = root.path().join("data");
    let mut settings = LAZY;
    settings[0].1 = "1";
    let mut node = Node::start(&data, &settings);
    let (letters, conversation) = fill(&mut Chat::connect(&node, "alice", "a"), 600, 16 << 10);
    node.kill();
    let segment = data.join("log-00/seg-0000000000000000.log");
    flip(&segment, 2 << 20);
    node.restart();
    let asked_at = erase(&node, &data, &json!({ "user": "alice" }));
    let begun = Instant::now();
    let line = loop {
        let line = report(&node, &data, asked_at);
        if line["logs"][0]["segments_left"] == 1 {
            break line;
        }
        assert!(begun.elapsed() < PATIENCE, "{line}");
        std::thread::yield_now();
    };
    assert_eq!((&line["logs"][0]["damaged"], &line["done_at"]), (&json!(1), &Value::Null));
    let told = Chat::connect(&node, "bob", "b").history(&conversation);
    assert_eq!(told.len(), letters.len());
    let damaged = told.iter().filter(|item| item["reason"] == "damaged on disk").count();
    assert!(damaged == 1 && told.iter().all(|item| item["op"] == "gap"), "{damaged} are damaged");
    node.log_line(&["this segment is damaged and stays as it is", "seg-0000000000000000.log"]);
    assert_eq!(node.metric("erasures{state=\"pending\"}"), 1);
}

/// A backup of after the erasure obeys it, whatever its segments hold; one of before does when the list is put beside it.
#[test]
fn a_restored_backup_erases_what_it_is_told_was_erased() {
    let root = directory();
    let [data, to, early, copy] = ["data", "to", "early", "copy"].map(|name| root.path().join(name));
    let mut node = Node::start(&data, &LAZY);
    let cursor = Chat::connect(&node, "bob", "away").welcome["cursor"].clone();
    let talk = Talk::begin(&node);
    let backup = |to: &Path| log(&["backup", "--data", text(&data), "--to", text(to)]).check(0, &[]);
    backup(&early);
    let asked_at = erase(&node, &data, &json!({ "user": "alice" }));
    // Of this moment: the content is still there, or not any more.
    backup(&to);
    wait_until_done(&node, &data, asked_at);
    let list = fs::read(data.join("erasures.json")).expect("it was written");
    // Of a log at rest, all of whose segments with something in them were written anew.
    log(&["stat", "--data", text(&data)]).check(0, &["of them live"]);
    let (done, at_rest) = (root.path().join("done"), root.path().join("at-rest"));
    backup(&done);
    node.kill();
    restore(&done, &at_rest);
    log(&["verify", "--data", text(&at_rest)]).check(0, &["log 0: sound", "log 1: sound"]);
    let mut restored = Node::start(&at_rest, &LAZY);
    talk.check_everywhere(&restored, &cursor);
    restored.kill();
    restore(&to, &copy);
    let mut restored = Node::start(&copy, &LAZY);
    talk.check_everywhere(&restored, &cursor);
    wait_until_done(&restored, &copy, asked_at);
    assert_eq!(holding(&copy, SECRET), Vec::<PathBuf>::new());
    restored.kill();

    let again = root.path().join("again");
    restore(&early, &again);
    assert!(!again.join("erasures.json").exists() && !holding(&again, SECRET).is_empty());
    fs::write(again.join("erasures.json"), &list).expect("room");
    let mut restored = Node::start(&again, &LAZY);
    talk.check_everywhere(&restored, &cursor);
    // It says itself that it was done once.
    wait_until_done(&restored, &again, asked_at);
    assert_eq!(holding(&again, SECRET), Vec::<PathBuf>::new());
    talk.check_everywhere(&restored, &cursor);
    restored.kill();
    fs::write(again.join("erasures.json"), &list[..list.len() / 2]).expect("room");
    check_refused(&again, &LAZY, &["erasures.json cannot be used", "would be shown again"]);
}
