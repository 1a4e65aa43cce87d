//! A machine that gives a node less than it asks for: no descriptors, a fifth of a core, little memory. It is late, and loses nothing.

use std::{
    fs::{self, File},
    io::{self, Write as _, stderr},
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};

use crate::{
    chat::{Chat, message_id, verdict},
    node::{Node, PATIENCE, directory},
    raw::Raw,
};

/// Acknowledgements waited for at a time: half of what a session may have under way.
const WINDOW: usize = 16;

/// A segment is full of 256 such messages.
const SEGMENT_MIB: &str = "4";
const TEXT_BYTES: usize = 16 << 10;

/// More than two segments take.
const LETTERS: usize = 800;

/// What bounds memory, in version 2 and 1 of control groups.
const MEMORY_FILES: [&str; 2] = ["memory.max", "memory.limit_in_bytes"];

/// Kept free for those who are there. Beyond it a node may take half of what the letters are, in the test of memory.
const RESERVE_MIB: &str = "64";
const BOUND: u64 = (64 + 6) << 20;

/// Sends letters to bob, each until it is taken. What was refused on the way is what `refused` is told.
fn send_all(alice: &mut Chat, ids: &[String], mut refused: impl FnMut(&Value)) {
    let text = "x".repeat(TEXT_BYTES);
    let letter = |id: &String| json!({ "to": "bob", "kind": "text", "text": text, "message_id": id });
    for window in ids.chunks(WINDOW) {
        let (mut left, begun) = (window.to_vec(), Instant::now());
        while !left.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "it does not recover");
            let asked: Vec<_> = left.into_iter().map(|id| (alice.send("send", letter(&id)), id)).collect();
            left = Vec::new();
            for (asked, id) in asked {
                let reply = alice.reply(asked);
                if verdict(&reply) != "ok" {
                    refused(&reply);
                    left.push(id);
                }
            }
        }
        alice.take_events();
    }
}

/// Every letter is there, once.
#[track_caller]
fn check_all(node: &Node, ids: &[String]) {
    let mut bob = Chat::connect(node, "bob", "later");
    let list = bob.ask("conversations", json!({ "limit": 1 }));
    let stored = bob.history(&list["conversations"][0]["conversation"]);
    let mut found: Vec<_> = stored.iter().filter_map(|item| item["message_id"].as_str()).collect();
    let mut expected: Vec<_> = ids.iter().map(String::as_str).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

fn letters(alice: &Chat, count: usize) -> Vec<String> {
    (0..count).map(|_| message_id(&alice.welcome["now"])).collect()
}

/// What a process may open, while this lives.
struct Descriptors {
    node: Pid,
    before: Rlimit,
}

impl Descriptors {
    fn limit(node: &Node, count: u64) -> Self {
        // What nobody but root may raise again is left as it is: a process starts with what the one that starts it may have.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: Some(count), maximum };
        let before = prlimit(Some(node.id()), Resource::Nofile, limit).expect("a process of ours");
        Self { node: node.id(), before }
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        prlimit(Some(self.node), Resource::Nofile, self.before).expect("a process of ours");
    }
}

/// E3: nothing more can be opened. Who is there goes on, who comes is let in, because sockets of the chat are none of the process's
/// descriptors; senders are held back where the log needs its next file; the operator hears of it; and it passes by itself.
#[test]
fn a_node_that_may_open_nothing_more_holds_back_and_goes_on_when_it_may() {
    let data = directory();
    let settings = [("GATEHOUSE_LOGS", "1"), ("GATEHOUSE_SEGMENT_MIB", SEGMENT_MIB)];
    let node = Node::start(data.path(), &settings);
    let mut alice = Chat::connect(&node, "alice", "a");
    let ids = letters(&alice, LETTERS);
    let mut nothing = Some(Descriptors::limit(&node, 0));
    let mut bob = Chat::connect(&node, "bob", "b");
    send_all(&mut alice, &ids, |reply| {
        let verdict = verdict(reply);
        assert!(reply["retry_after_ms"].is_u64(), "{reply}");
        // For a moment nobody knows yet that there is to be no other segment.
        assert!(["3002 busy", "3003 storage_full"].contains(&&*verdict), "{reply}");
        if verdict == "3003 storage_full" && nothing.is_some() {
            // Nobody else is disturbed by it.
            bob.is_fine();
            Chat::connect(&node, "carol", "c").is_fine();
            nothing = None;
        }
    });
    assert!(nothing.is_none(), "the log went on without a file");
    node.log_line(&["the next segment cannot be made", "Too many open files", "LimitNOFILE"]);
    node.log_line(&["the next segment could be made"]);
    check_all(&node, &ids);
}

/// What a node may have of something: a control group of version 1 or 2, whichever there is.
struct Share {
    group: PathBuf,
    node: Pid,
}

/// Where a version of control groups is, and what is written into which of its files.
type Bounds<'b> = (&'b str, &'b [(&'b str, &'b str)]);

impl Share {
    /// `None`, said aloud, where this user may make none.
    fn of(node: &Node, what: &str, bounds: [Bounds<'_>; 2]) -> Option<Self> {
        let node = node.id();
        let name = format!("gatehouse-test-{}", node.as_raw_nonzero());
        for (root, settings) in bounds {
            let share = Self { group: Path::new(root).join(&name), node };
            let made = fs::create_dir(&share.group)
                .and_then(|()| settings.iter().try_for_each(|(file, text)| share.set(file, text)))
                .and_then(|()| share.set("cgroup.procs", &node.as_raw_nonzero().to_string()));
            if made.is_ok() {
                return Some(share);
            }
        }
        let _ = writeln!(stderr(), "not run: no control group bounds what a node may have of {what}");
        None
    }

    /// A fifth of a core for all threads of a node together.
    fn of_a_core(node: &Node) -> Option<Self> {
        let version_1 = [("cpu.cfs_period_us", "50000"), ("cpu.cfs_quota_us", "10000")];
        let version_2 = [("cpu.max", "10000 50000")];
        Self::of(node, "the cores", [("/sys/fs/cgroup", &version_2), ("/sys/fs/cgroup/cpu", &version_1)])
    }

    /// So much memory, of what it takes from now on.
    fn of_memory(node: &Node, bytes: u64) -> Option<Self> {
        let bytes = bytes.to_string();
        let (version_1, version_2) = ([(MEMORY_FILES[1], &*bytes)], [(MEMORY_FILES[0], &*bytes)]);
        Self::of(node, "memory", [("/sys/fs/cgroup", &version_2), ("/sys/fs/cgroup/memory", &version_1)])
    }

    /// Another bound on memory.
    fn set_memory(&self, bytes: u64) {
        let is_set = MEMORY_FILES.iter().any(|file| self.set(file, &bytes.to_string()).is_ok());
        assert!(is_set, "it was set before");
    }

    fn set(&self, file: &str, text: &str) -> io::Result<()> {
        File::options().write(true).open(self.group.join(file))?.write_all(text.as_bytes())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Nobody may be in it: neither a node that runs, nor one that has just been killed.
        let outer = self.group.with_file_name("cgroup.procs");
        let _ = fs::write(outer, self.node.as_raw_nonzero().to_string());
        let begun = Instant::now();
        while fs::remove_dir(&self.group).is_err() && self.group.exists() && begun.elapsed() < PATIENCE {
            thread::yield_now();
        }
    }
}

/// E7: everything takes longer, and nothing else is different: no session is closed, nothing lost or doubled.
#[test]
fn a_node_with_a_fifth_of_a_core_is_late_and_loses_nothing() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let Some(share) = Share::of_a_core(&node) else {
        return;
    };
    let mut bob = Chat::connect(&node, "bob", "b");
    let mut alice = Chat::connect(&node, "alice", "a");
    let ids = letters(&alice, LETTERS);
    send_all(&mut alice, &ids, |reply| assert_eq!(verdict(reply), "3002 busy", "{reply}"));
    let given: Vec<Value> = ids.iter().map(|_| bob.event("message")["message_id"].clone()).collect();
    assert_eq!(given, ids.iter().map(|id| json!(id)).collect::<Vec<_>>());
    alice.is_fine();
    bob.is_fine();
    check_all(&node, &ids);
    // It looks every ten seconds, and says so once it has had too little for so long; until somebody asks again, and from then on.
    let begun = Instant::now();
    while !node.log_text().contains("does not let the node run") {
        assert!(begun.elapsed() < 2 * PATIENCE, "nobody is told why everything is late");
        let more = letters(&alice, WINDOW);
        send_all(&mut alice, &more, |_| {});
        more.iter().for_each(|_| _ = bob.event("message"));
    }
    let ready = node.admin_get("/readyz");
    assert!(ready.contains("degraded: a control group did not let the node run"), "{ready}");
    assert!(node.metric("cpu_held_back_percent") > 0);
    drop(share);
}

/// E6: who is there keeps what memory is left, whoever comes is told to come later, and nobody is killed for it.
#[test]
fn a_node_whose_control_group_has_little_memory_left_takes_nobody_more() {
    let data = directory();
    let settings = [("GATEHOUSE_LOGS", "1"), ("GATEHOUSE_MEMORY_RESERVE_MIB", RESERVE_MIB)];
    let node = Node::start(data.path(), &settings);
    let (mut alice, mut bob) = (Chat::connect(&node, "alice", "a"), Chat::connect(&node, "bob", "b"));
    let Some(share) = Share::of_memory(&node, BOUND) else {
        return;
    };
    Chat::connect(&node, "carol", "c").is_fine();
    let ids = letters(&alice, LETTERS);
    send_all(&mut alice, &ids, |reply| assert_eq!(verdict(reply), "3002 busy", "{reply}"));
    node.log_line(&["short of memory: new connections are refused with 503"]);
    let response = Raw::connect(node.listen).head();
    assert!(response.starts_with("HTTP/1.1 503 ") && response.contains("\r\nRetry-After: "), "{response}");
    alice.is_fine();
    bob.is_fine();
    share.set_memory(BOUND * 4);
    node.log_line(&["memory suffices again"]);
    check_all(&node, &ids);
    drop(share);
}
