//! A new binary takes over while clients talk: they notice nothing, whatever becomes of it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    chat::{Chat, Received, verdict},
    node::{Node, directory},
    power::Moments,
    raw::{REQUEST, Raw, connect_of, head},
    wire::masked,
};

/// Pairs of users who write to each other: twice as many connections.
const PAIRS: usize = 100;

/// Letters on their way of each.
const WINDOW: usize = 2;

/// One who writes numbered letters to another, and notes what comes.
struct Writer {
    chat: Chat,
    to: String,
    next: u64,
    /// Requests that have no answer yet.
    asked: BTreeMap<u64, u64>,
    /// What the other wrote, as it came.
    came: Vec<u64>,
}

impl Writer {
    fn new(node: &Node, user: String, to: String) -> Self {
        let chat = Chat::connect(node, &user, "d");
        Self { chat, to, next: 1, asked: BTreeMap::new(), came: Vec::new() }
    }

    fn write(&mut self) {
        let letter = json!({ "to": self.to, "kind": "text", "text": self.next.to_string() });
        self.asked.insert(self.chat.send("send", letter), self.next);
        self.next += 1;
    }

    fn read(&mut self) {
        match self.chat.next() {
            Received::Frame(frame) if frame["op"] == "ok" => {
                let id = frame["id"].as_u64().expect("a number");
                assert!(self.asked.remove(&id).is_some(), "answered once: {frame}");
            }
            Received::Frame(frame) if frame["op"] == "message" => {
                if frame["sender"] == self.to.as_str() {
                    self.came.push(frame["text"].as_str().and_then(|text| text.parse().ok()).expect("ours"));
                }
            }
            Received::Frame(frame) => {
                assert!(["cursor", "caught_up"].contains(&frame["op"].as_str().unwrap_or("")), "{frame}");
                assert_ne!(frame["op"], "caught_up", "nobody was away");
            }
            ended => panic!("{ended:?}"),
        }
    }

    /// Writes until `enough`, then until all is answered.
    fn run(&mut self, enough: &AtomicBool, written: &AtomicUsize) {
        while !enough.load(Ordering::Relaxed) {
            while self.asked.len() < WINDOW {
                self.write();
            }
            self.read();
            written.fetch_add(1, Ordering::Relaxed);
        }
        while !self.asked.is_empty() {
            self.read();
        }
    }
}

/// Lets all pairs write to each other while `work` is done, and checks that every letter was answered, and came once and in order.
fn while_all_write(node: &Node, work: impl FnOnce(&AtomicUsize)) {
    let name = |pair: usize, side| format!("{side}-{pair}");
    let mut writers: Vec<Writer> = (0..PAIRS)
        .flat_map(|pair| {
            [("left", "right"), ("right", "left")].map(|(me, other)| (name(pair, me), name(pair, other)))
        })
        .map(|(user, to)| Writer::new(node, user, to))
        .collect();
    let (enough, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for writer in &mut writers {
            let (enough, written) = (&enough, &written);
            scope.spawn(move || writer.run(enough, written));
        }
        // Also where it panics, or nobody would end.
        struct Enough<'a>(&'a AtomicBool);
        impl Drop for Enough<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _enough = Enough(&enough);
        wait_for(&written, 10 * PAIRS);
        work(&written);
        wait_for(&written, written.load(Ordering::Relaxed) + 10 * PAIRS);
    });
    let counts: Vec<u64> = writers.iter().map(|writer| writer.next - 1).collect();
    for (place, writer) in writers.iter_mut().enumerate() {
        let of_other = counts[place ^ 1];
        while (writer.came.len() as u64) < of_other {
            writer.read();
        }
        assert!(writer.came.iter().copied().eq(1..=of_other), "{}: {:?}", writer.to, writer.came);
        writer.chat.is_fine();
    }
}

/// Until so many frames have come, which they do.
fn wait_for(written: &AtomicUsize, count: usize) {
    let begun = Instant::now();
    while written.load(Ordering::Relaxed) < count {
        assert!(begun.elapsed() < crate::node::PATIENCE, "nothing comes any more");
        thread::yield_now();
    }
}

#[track_caller]
fn is_upgraded(answer: &str) -> Value {
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    serde_json::from_str(body).expect("JSON")
}

#[track_caller]
fn is_refused(answer: &str, words: &[&str]) {
    assert!(answer.starts_with("HTTP/1.1 409 "), "{answer}");
    words.iter().for_each(|word| assert!(answer.contains(word), "no {word:?} in {answer}"));
}

#[test]
fn upgrades_in_a_row_disconnect_nobody_and_lose_nothing() {
    let data = directory();
    let node = Node::start(data.path(), &[("GATEHOUSE_LOGS", "2")]);
    let (_, upgrades) = Moments::of_upgrades();
    let mut pauses = Vec::new();
    while_all_write(&node, |written| {
        for _ in 0..upgrades {
            let upgraded = is_upgraded(&node.upgrade());
            assert_eq!(upgraded["connections"], 2 * PAIRS);
            pauses.push(upgraded["paused_ms"].as_u64().expect("a time"));
            wait_for(written, written.load(Ordering::Relaxed) + 2 * PAIRS);
        }
    });
    pauses.sort_unstable();
    eprintln!("pauses in ms: median {}, worst {:?}", pauses[pauses.len() / 2], pauses.last());
    assert_eq!(node.metric("closes_total"), 0);
}

/// The binary where it can be replaced.
fn program_in(data: &Path) -> std::path::PathBuf {
    let program = data.join("gatehouse");
    fs::hard_link(env!("CARGO_BIN_EXE_gatehouse"), &program).expect("it is on the same disk");
    program
}

/// Puts a script in its place. Written by a process of its own: a file that this one writes is open in whatever it forks meanwhile, and
/// what is open for writing cannot be run.
fn replace(program: &Path, script: &str) {
    let new = program.with_extension("new");
    let words = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let mut shell = Command::new("sh");
    let written = shell.args(["-c", words, "sh", script]).arg(&new).status().expect("a shell");
    assert!(written.success());
    fs::rename(&new, program).expect("ours");
}

#[test]
fn a_new_binary_that_does_not_begin_disturbs_nobody() {
    let (data, programs) = (directory(), directory());
    let program = program_in(programs.path());
    let node = Node::start_as(&program, data.path(), &[("GATEHOUSE_LOGS", "2")]);
    while_all_write(&node, |_| {
        replace(&program, "#!/bin/sh\nexit 1\n");
        is_refused(&node.upgrade(), &["the new process ended", "exit status: 1"]);
        replace(&program, "#!/bin/sh\nkill -9 $$\n");
        is_refused(&node.upgrade(), &["the new process ended", "signal: 9"]);
        replace(&program, "#!/bin/sh\necho this is no gatehouse >&0\n");
        is_refused(&node.upgrade(), &["it did not begin"]);
        fs::remove_file(&program).expect("ours");
        is_refused(&node.upgrade(), &["cannot be started"]);
        // Another layout, another store.
        let real = env!("CARGO_BIN_EXE_gatehouse");
        replace(&program, &format!("#!/bin/sh\nexec {real} \"$@\" --connections-max 100\n"));
        is_refused(&node.upgrade(), &["room for"]);
        replace(
            &program,
            &format!(
                "#!/bin/sh\nGATEHOUSE_SHARDS=3 exec {real} --data {} --shards 3 --listen 127.0.0.1:0 --admin 127.0.0.1:0 --echo 127.0.0.1:0\n",
                data.path().display()
            ),
        );
        is_refused(&node.upgrade(), &["the number of shards differs, 2 here and 3"]);
        replace(
            &program,
            &format!(
                "#!/bin/sh\nexec {real} --data {} --listen 127.0.0.1:1 --echo 127.0.0.1:0 --shards 2\n",
                data.path().display()
            ),
        );
        is_refused(&node.upgrade(), &["`listen` is 127.0.0.1:1 now"]);
        node.log_line(&["the upgrade was given up, and this process serves on"]);
        replace(&program, &format!("#!/bin/sh\nexec {real} \"$@\"\n"));
        is_upgraded(&node.upgrade());
    });
    assert_eq!(node.metric("closes_total"), 0);
}

/// It is told to leave in order while a new process begins: that process gets nothing, and everybody a goodbye.
#[test]
fn a_drain_during_an_upgrade_is_a_drain() {
    let (data, programs) = (directory(), directory());
    let program = program_in(programs.path());
    let mut node = Node::start_as(&program, data.path(), &[("GATEHOUSE_LOGS", "2")]);
    let mut chat = Chat::connect(&node, "alice", "d");
    replace(
        &program,
        &format!("#!/bin/sh\nkill -TERM $PPID\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_gatehouse")),
    );
    is_refused(&node.upgrade(), &["the node drains"]);
    assert_eq!(chat.event("drain")["op"], "drain");
    drop(chat);
    assert_eq!(node.ended().code(), Some(0));
}

#[test]
fn the_command_says_what_came_of_it_and_ends_so() {
    let (data, programs) = (directory(), directory());
    let program = program_in(programs.path());
    let node = Node::start_as(&program, data.path(), &[]);
    let ask = |admin: &str, data: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
        let output =
            command.arg("upgrade").arg("--data").arg(data).args(["--admin", admin]).output().expect("runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    };
    let admin = node.admin.to_string();
    let (code, said) = ask(&admin, data.path());
    assert!(
        code == Some(0) && said.starts_with("upgraded to pid ") && said.contains(": 0 connections in "),
        "{said}"
    );
    replace(&program, "#!/bin/sh\nexit 1\n");
    let (code, said) = ask(&admin, data.path());
    assert!(code == Some(1) && said.contains("the new process ended"), "{said}");
    // Nobody is there, and nobody's token.
    let (code, said) = ask("127.0.0.1:1", data.path());
    assert!(code == Some(2) && said.contains("no node answers at 127.0.0.1:1"), "{said}");
    let (code, said) = ask(&admin, programs.path());
    assert!(code == Some(2) && said.contains("admin.token"), "{said}");
    let token = programs.path().join("admin.token");
    fs::write(&token, "not that of the node, and long enough").expect("written");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("ours");
    let (code, said) = ask(&admin, programs.path());
    assert!(code == Some(1) && said.contains("does not take the admin token in"), "{said}");
    assert!(said.contains("are --data and --admin those of one node?"), "{said}");
}

/// It has got as far as it can without changing anything, and fails then: what stood still goes on.
#[test]
fn a_new_binary_that_fails_in_the_pause_disturbs_nobody() {
    let data = directory();
    let node = Node::start(data.path(), &[("GATEHOUSE_LOGS", "2")]);
    let list = data.path().join("revocations.json");
    while_all_write(&node, |_| {
        for _ in 0..3 {
            fs::write(&list, "no list").expect("a file");
            fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).expect("ours");
            is_refused(&node.upgrade(), &["the new process refuses", "revocations.json"]);
            fs::remove_file(&list).expect("ours");
        }
        // Killed while it waits for what never comes.
        let pipe = data.path().join("log-00/index.snap");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        thread::scope(|scope| {
            let upgrade = scope.spawn(|| node.upgrade());
            // To open a pipe waits for its other end: then the new process is in the middle of the pause.
            let other_end = fs::OpenOptions::new().write(true).open(&pipe).expect("it reads it");
            let child = child_of(node.id().as_raw_nonzero().get());
            kill_process(child, Signal::KILL).expect("it runs");
            drop(other_end);
            is_refused(&upgrade.join().expect("it is answered"), &["the new process ended", "signal: 9"]);
        });
        fs::remove_file(&pipe).expect("ours");
        is_upgraded(&node.upgrade());
    });
    assert_eq!(node.metric("closes_total"), 0);
}

fn child_of(parent: i32) -> rustix::process::Pid {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).expect("it runs");
    let children = tasks.flatten().find_map(|task| {
        let children = fs::read_to_string(task.path().join("children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    });
    rustix::process::Pid::from_raw(children.expect("it has a child")).expect("a number")
}

/// Something that is sent in four parts.
struct Half {
    raw: Raw,
    bytes: Vec<u8>,
    part: usize,
}

impl Half {
    fn go_on(&mut self) {
        let parts = self.bytes.len().div_ceil(4);
        self.raw.write(self.bytes.chunks(parts).nth(self.part).expect("four parts"));
        self.part += 1;
    }
}

/// A request, a `connect` and a message of a session, of which each a part has been sent.
fn halves(node: &Node) -> Vec<Half> {
    let connect = masked(0x81, connect_of(&node.token("carl"), "c").as_bytes());
    let letter =
        "{\"op\":\"send\",\"id\":7,\"to\":\"dora\",\"kind\":\"text\",\"text\":\"\u{fc}ber \u{1f980} alles\"}";
    let letter = masked(0x81, letter.as_bytes());
    let session = Raw::session(node.listen, &node.token("emil"), "e");
    let all = [
        (Raw::connect(node.listen), head(&REQUEST)),
        (Raw::upgraded(node.listen), connect),
        (session, letter),
    ];
    let mut halves: Vec<Half> = all.into_iter().map(|(raw, bytes)| Half { raw, bytes, part: 0 }).collect();
    halves.iter_mut().for_each(Half::go_on);
    halves
}

/// Frames that are half received, and half sent, and what was asked and waits, go on where they were.
#[test]
fn halves_go_on_in_the_new_process() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let mut bob = Chat::connect(&node, "bob", "b");
    // Bob reads nothing: his outbox fills, and further his log waits; his questions wait for the outbox.
    let text = "x".repeat(14 << 10);
    const LETTERS: u64 = 400;
    let conversation = alice.tell("bob", "0")["conversation"].clone();
    for letter in 1..LETTERS {
        alice.tell("bob", &format!("{letter} {text}"));
    }
    let page = json!({ "conversation": conversation, "after": 0, "limit": 2 });
    let mut asked: Vec<u64> = (0..3).map(|_| bob.send("history", page.clone())).collect();
    asked.push(bob.send("conversations", json!({ "limit": 10 })));
    let viewed = alice.ask("view", json!({ "conversation": conversation }));
    assert_eq!(verdict(&viewed), "ok");
    let mut halves = halves(&node);
    for _ in 0..3 {
        is_upgraded(&node.upgrade());
        halves.iter_mut().for_each(Half::go_on);
    }
    assert!(halves[0].raw.head().starts_with("HTTP/1.1 101 "));
    for (half, words) in halves[1..].iter_mut().zip(["\"op\":\"welcome\"", "\"op\":\"ok\""]) {
        let (_, payload) = half.raw.frame();
        assert!(String::from_utf8_lossy(&payload).contains(words), "{payload:?}");
    }
    let (mut next, mut answers) = (0, Vec::new());
    while next < LETTERS || answers.len() < asked.len() {
        match bob.next() {
            Received::Frame(frame) if frame["op"] == "message" => {
                let text = frame["text"].as_str().expect("a text");
                assert_eq!(text.split(' ').next(), Some(next.to_string().as_str()));
                next += 1;
            }
            Received::Frame(frame) if frame["op"] == "page" => {
                answers.push(frame["id"].as_u64().expect("a number"))
            }
            Received::Frame(frame) if frame["op"] == "cursor" => {}
            other => panic!("{other:?}"),
        }
    }
    answers.sort_unstable();
    assert_eq!(answers, asked);
    // What she views she still views, and is told nothing that she knows.
    bob.send_text(&json!({ "op": "typing", "conversation": conversation, "on": true }).to_string());
    let typing = alice.event("typing");
    assert_eq!(typing["user"], "bob", "{typing}");
    let heard = alice.take_events();
    assert!(!heard.iter().any(|frame| frame["op"] == "presence" || !frame["id"].is_null()), "{heard:?}");
    alice.is_fine();
    bob.is_fine();
}

/// A token ends, and is taken back, after an upgrade as before.
#[test]
fn what_is_known_of_a_token_goes_on() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    is_upgraded(&node.upgrade());
    let token = fs::read_to_string(data.path().join("admin.token")).expect("it was made");
    let body = r#"{"user":"alice"}"#;
    let headers =
        format!("Authorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}", token.trim(), body.len());
    let answer = node.admin_ask("POST /v1/revoke", &headers);
    assert!(answer.contains("\"sessions_closed\":1"), "{answer}");
    let (_, ended) = alice.until_closed(|_, _| {});
    assert!(matches!(ended, Received::Closed(_)), "{ended:?}");
}

/// SIGUSR2 asks too, and the process that was there ends with 0.
#[test]
fn a_signal_asks_for_an_upgrade_and_the_old_process_ends_with_0() {
    let data = directory();
    let mut node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let old = node.id();
    kill_process(old, Signal::USR2).expect("it runs");
    node.log_line(&["upgraded to pid", "1 connections in"]);
    assert_eq!(node.first_ended().code(), Some(0));
    assert_ne!(node.id(), old);
    alice.is_fine();
    node.terminate();
    let (_, ended) = alice.until_closed(|_, _| {});
    assert_eq!(ended, Received::Closed(4000));
}

/// There is no way back then: both end, clients are told nothing more, and what was acknowledged is there at the next start.
#[test]
fn a_new_process_that_dies_with_everything_in_its_hands_is_a_crash_like_any_other() {
    let (data, programs) = (directory(), directory());
    let program = program_in(programs.path());
    let mut node = Node::start_as(&program, data.path(), &[("GATEHOUSE_LOGS", "1")]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let text = "x".repeat(14 << 10);
    let conversation = (0..5).map(|_| alice.tell("bob", &text)).last().expect("five");
    // It cannot write behind them, which it does first when everything is its own.
    let real = env!("CARGO_BIN_EXE_gatehouse");
    replace(&program, &format!("#!/bin/sh\nulimit -f 32\nexec {real} \"$@\"\n"));
    is_refused(&node.upgrade(), &["had everything and did not come to serve", "start the node again"]);
    let (_, ended) = alice.until_closed(|_, _| {});
    assert_eq!(ended, Received::Gone);
    assert_eq!(node.first_ended().code(), Some(1));
    let node = Node::start(data.path(), &[]);
    let history = Chat::connect(&node, "alice", "a").history(&conversation["conversation"]);
    assert_eq!(history.len(), 5);
}
