//! Whom a message does not reach is called: over real sockets, by a file that is read here as whoever calls devices reads it.
//!
//! That somebody is not called shows when somebody else is who was told something later.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    chat::Chat,
    node::{Node, PATIENCE, directory},
};

/// A node that calls, and where it says so.
struct Calling {
    node: Node,
    file: PathBuf,
    /// What was read of files that were taken away.
    read: Vec<Value>,
    _directories: [TempDir; 2],
}

impl Calling {
    #[track_caller]
    fn start(logs: &str) -> Self {
        Self::start_at("push_due.jsonl", logs)
    }

    /// With a file of this name in a directory of its own.
    #[track_caller]
    fn start_at(name: &str, logs: &str) -> Self {
        let directories = [directory(), directory()];
        let file = directories[1].path().join(name);
        let path = file.to_str().expect("a path of ours").to_owned();
        let settings = [("GATEHOUSE_PUSH_FILE", path.as_str()), ("GATEHOUSE_LOGS", logs)];
        let node = Node::start(directories[0].path(), &settings);
        Self { node, file, read: Vec::new(), _directories: directories }
    }

    /// A user with this token on each device, who has gone away.
    #[track_caller]
    fn away(&self, user: &str, devices: &[&str]) {
        for device in devices {
            drop(with_token(&self.node, user, device));
        }
    }

    /// All calls so far: who, of which message, how many.
    fn calls(&self) -> Vec<(String, u64, u64)> {
        let call = |line: &Value| {
            let number = |field: &str| line[field].as_u64().expect("a number");
            (line["user"].as_str().expect("a user").to_owned(), number("seq"), number("count"))
        };
        self.read.iter().chain(&lines_of(&self.file)).map(call).collect()
    }

    /// The call of a user, when it comes.
    #[track_caller]
    fn wait_for(&self, user: &str) -> Value {
        let begun = Instant::now();
        loop {
            let found = lines_of(&self.file).into_iter().find(|line| line["user"] == user);
            if let Some(line) = found {
                return line;
            }
            assert!(begun.elapsed() < PATIENCE, "{user} is never called: {:?}", self.calls());
            thread::yield_now();
        }
    }

    /// Everybody who was to be called of what was said before is called by the time this one is.
    #[track_caller]
    fn pass(&self, chat: &mut Chat, user: &str) {
        self.away(user, &["phone"]);
        chat.tell(user, "hello");
        self.wait_for(user);
    }
}

#[track_caller]
fn with_token(node: &Node, user: &str, device: &str) -> Chat {
    let mut chat = Chat::connect(node, user, device);
    let ok = chat.ask("push_token", json!({ "token": format!("s3cr3t-{user}-{device}") }));
    assert_eq!(ok["op"], "ok", "{ok}");
    chat
}

/// All lines that are whole.
fn lines_of(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn call(user: &str, seq: u64, count: u64) -> (String, u64, u64) {
    (user.to_owned(), seq, count)
}

#[test]
fn who_took_nothing_is_called_by_every_token_and_who_took_it_or_wants_none_is_not() {
    let calling = Calling::start("2");
    let node = &calling.node;
    calling.away("bob", &["phone", "tablet"]);
    let mut dave = with_token(node, "dave", "phone");
    let muted = dave.tell("alice", "hello")["conversation"].take();
    let ok = dave.ask("mute", json!({ "conversation": muted, "until": 9_007_199_254_740_991_u64 }));
    assert_eq!(ok["op"], "ok", "{ok}");
    // A session alone takes nothing.
    let silent = with_token(node, "silent", "phone");
    let mut carol = with_token(node, "carol", "phone");
    let mut reader = with_token(node, "reader", "phone");

    let mut alice = Chat::connect(node, "alice", "phone");
    for user in ["bob", "dave", "carol", "reader", "without-a-token", "silent"] {
        alice.tell(user, "hello");
    }
    let conversation = reader.event("message")["conversation"].take();
    assert_eq!(reader.ask("read", json!({ "conversation": conversation, "seq": 1 }))["op"], "ok");
    carol.event("message");
    let cursor = carol.ask("ping", json!({}))["cursor"].take();
    carol.ask("ping", json!({ "cursor": cursor }));
    let second = alice.tell("bob", "and again");
    calling.pass(&mut alice, "zoe");
    node.wait_for_metric("push_silent_total", 2);
    calling.wait_for("silent");
    let bob = calling.wait_for("bob");

    let tokens = json!([
        { "device": "phone", "token": "s3cr3t-bob-phone" },
        { "device": "tablet", "token": "s3cr3t-bob-tablet" },
    ]);
    let expected = json!({ "op": "push_due", "at": bob["at"], "user": "bob",
        "conversation": second["conversation"], "seq": 2, "count": 2, "tokens": tokens });
    assert_eq!(bob, expected);
    let mut calls = calling.calls();
    calls.sort();
    assert_eq!(calls, [call("bob", 2, 2), call("silent", 1, 1), call("zoe", 1, 1)]);
    assert_eq!(node.metric("push_calls_total"), 3);
    let mode = fs::metadata(&calling.file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds tokens");
    assert!(!node.log_text().contains("s3cr3t"), "{}", node.log_text());
    drop(silent);
}

/// No member's inbox has it: whom it has reached is known from how far devices have acknowledged the log.
#[test]
fn of_a_large_group_who_acknowledged_is_not_called_and_who_is_away_or_silent_is() {
    let calling = Calling::start("2");
    let node = &calling.node;
    calling.away("bob", &["phone"]);
    let mut carol = with_token(node, "carol", "phone");
    let silent = with_token(node, "silent", "phone");
    let mut alice = Chat::connect(node, "alice", "phone");
    let others = (0..97).map(|number| format!("without-a-token-{number}"));
    let members: Vec<String> = others.chain(["bob", "carol", "silent"].map(str::to_owned)).collect();
    let fields = json!({ "title": "all of us", "members": members, "history": "all" });
    let group = alice.ask("create", fields)["conversation"].take();
    let fields = json!({ "conversation": group, "kind": "text", "text": "hello" });
    assert_eq!(alice.ask("send", fields)["seq"], 2);
    carol.event("message");
    let cursor = carol.ask("ping", json!({}))["cursor"].take();
    carol.ask("ping", json!({ "cursor": cursor }));
    for user in ["bob", "silent"] {
        let line = calling.wait_for(user);
        assert_eq!((&line["conversation"], &line["seq"], &line["count"]), (&group, &json!(2), &json!(1)));
    }
    calling.pass(&mut alice, "zoe");
    let mut called: Vec<String> = calling.calls().into_iter().map(|(user, ..)| user).collect();
    called.sort_unstable();
    assert_eq!(called, ["bob", "silent", "zoe"]);
    drop((carol, silent));
}

#[test]
fn who_is_to_be_called_is_after_kill_9_and_once() {
    let mut calling = Calling::start("2");
    for user in ["bob", "carol", "dave"] {
        calling.away(user, &["phone"]);
    }
    let mut alice = Chat::connect(&calling.node, "alice", "phone");
    for user in ["bob", "carol", "dave"] {
        alice.tell(user, "hello");
    }
    let conversation = alice.tell("carol", "and again")["conversation"].take();
    // Durable, and not due.
    calling.node.restart();
    assert_eq!(calling.calls(), []);
    let mut carol = Chat::connect(&calling.node, "carol", "tablet");
    assert_eq!(carol.ask("read", json!({ "conversation": conversation, "seq": 2 }))["op"], "ok");
    calling.wait_for("bob");
    calling.wait_for("dave");
    // Of what was called the mark is on the disk.
    calling.node.log_line(&["conversations in which nobody may have been called yet"]);
    let mut alice = Chat::connect(&calling.node, "alice", "phone");
    calling.pass(&mut alice, "zoe");
    calling.node.restart();
    let mut alice = Chat::connect(&calling.node, "alice", "phone");
    calling.pass(&mut alice, "yan");
    let mut calls = calling.calls();
    calls.sort();
    calls.dedup();
    let expected = [call("bob", 1, 1), call("dave", 1, 1), call("yan", 1, 1), call("zoe", 1, 1)];
    assert_eq!(calls, expected, "carol has read it");
}

/// The process that was to call somebody goes, and the next one does: neither forgets, nor calls of what was called.
#[test]
fn who_is_to_be_called_is_by_the_process_that_takes_over() {
    let calling = Calling::start("2");
    let mut alice = Chat::connect(&calling.node, "alice", "phone");
    calling.pass(&mut alice, "zoe");
    // Its mark is on the disk, or will be before the process goes.
    calling.away("bob", &["phone"]);
    alice.tell("bob", "hello");
    let upgraded = calling.node.upgrade();
    assert!(upgraded.contains(" 200 "), "{upgraded}");
    assert!(calling.calls().iter().all(|(user, ..)| user == "zoe"));
    calling.wait_for("bob");
    calling.pass(&mut alice, "yan");
    let mut calls = calling.calls();
    calls.sort();
    calls.dedup();
    assert_eq!(calls, [call("bob", 1, 1), call("yan", 1, 1), call("zoe", 1, 1)]);
}

/// What a node said before it was told to call belongs to nobody.
#[test]
fn a_node_that_begins_to_call_calls_of_what_comes() {
    let (data, file) = (directory(), directory());
    let node = Node::start(data.path(), &[("GATEHOUSE_LOGS", "1")]);
    drop(with_token(&node, "bob", "phone"));
    Chat::connect(&node, "alice", "phone").tell("bob", "hello");
    drop(node);
    let file = file.path().join("push_due.jsonl");
    let path = file.to_str().expect("a path of ours");
    let settings = [("GATEHOUSE_PUSH_FILE", path)];
    let node = Node::start(data.path(), &settings);
    node.log_line(&["no mark of push calls"]);
    let calling = Calling { node, file, read: Vec::new(), _directories: [data, directory()] };
    let mut alice = Chat::connect(&calling.node, "alice", "phone");
    calling.pass(&mut alice, "zoe");
    assert_eq!(calling.calls(), [call("zoe", 1, 1)]);
}

#[test]
fn a_file_that_takes_nothing_stops_calls_and_nothing_else() {
    let calling = Calling::start_at("missing/push_due.jsonl", "1");
    calling.away("bob", &["phone"]);
    let mut alice = Chat::connect(&calling.node, "alice", "phone");
    alice.tell("bob", "hello");
    calling.node.log_line(&["ERROR", "push calls cannot be written", "missing/push_due.jsonl"]);
    assert_eq!(calling.node.metric("push_failing"), 1);
    alice.tell("bob", "and again");
    alice.is_fine();
    fs::create_dir(calling.file.parent().expect("it has one")).expect("room for a directory");
    calling.wait_for("bob");
    calling.node.log_line(&["push calls can be written again"]);
    assert_eq!(calling.node.metric("push_failing"), 0);

    // Nobody takes the file away, and it is full: sparse, so that the disk is not.
    let full = fs::OpenOptions::new().write(true).open(&calling.file).expect("it is there");
    let length = full.metadata().expect("it is there").len();
    full.set_len(256 << 20).expect("it is sparse");
    calling.away("zoe", &["phone"]);
    alice.tell("zoe", "hello");
    calling.node.wait_for_metric("push_failing", 1);
    full.set_len(length).expect("its own bytes");
    calling.wait_for("zoe");
}

#[test]
fn a_file_that_was_taken_away_is_whole_and_the_next_one_has_its_name() {
    let mut calling = Calling::start("1");
    let mut alice = Chat::connect(&calling.node, "alice", "phone");
    let users = ["bob", "carol", "dave"];
    for (user, calls) in users.into_iter().zip(1..) {
        calling.pass(&mut alice, user);
        // Taken away before that, it would be written into the next one too.
        calling.node.wait_for_metric("push_calls_total", calls);
        let taken = calling.file.with_extension(user);
        fs::rename(&calling.file, &taken).expect("it is there");
        calling.read.extend(lines_of(&taken));
    }
    assert_eq!(calling.calls(), users.map(|user| call(user, 1, 1)));
    // A line that was cut off by a kill is a line of its own.
    fs::write(&calling.file, b"{\"op\":\"push_d").expect("room for a line");
    calling.node.restart();
    let mut alice = Chat::connect(&calling.node, "alice", "phone");
    calling.away("zoe", &["phone"]);
    alice.tell("zoe", "hello");
    calling.wait_for("zoe");
    let text = fs::read_to_string(&calling.file).expect("it is there");
    let (cut, others) = text.split_once('\n').expect("lines");
    assert_eq!(cut, "{\"op\":\"push_d");
    assert_eq!(lines_of(&calling.file).len(), others.lines().count(), "{text}");
}
