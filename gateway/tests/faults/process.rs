//! The process: stopped, killed, started twice, and started on what it must not touch.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::mpsc::{Sender, channel},
    thread,
    time::Instant,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use crate::{
    chat::{Chat, Received, message_id, verdict},
    node::{Node, PATIENCE, check_refused, directory, field_of},
    power::Moments,
};

/// Where the first batch of a segment begins.
const FIRST_BATCH: u64 = storage_log::format::SEGMENT_HEADER_BYTES as u64;

#[test]
fn a_drain_says_goodbye() {
    let data = directory();
    let mut node = Node::start(data.path(), &[("GATEHOUSE_DRAIN_SECONDS", "1")]);
    let mut chats: Vec<_> =
        ["alice", "bob", "carl", "dora"].iter().map(|user| Chat::connect(&node, user, "d")).collect();
    let begun = Instant::now();
    node.terminate();
    let mut acked = Vec::new();
    for chat in &mut chats {
        let (frames, ended) = chat.until_closed(|chat, frame| {
            if frame["op"] == "drain" {
                assert!(frame["reconnect_in_ms"].as_u64().is_some_and(|millis| millis > 0), "{frame}");
                // Until the close frame everything goes on. Whoever is slow finds the node gone, which is no error.
                let _ = chat.try_send("send", json!({ "to": "emil", "kind": "text", "text": "last words" }));
            }
        });
        assert_eq!(ended, Received::Closed(4000));
        assert_eq!(frames[0]["op"], "drain");
        assert!(frames.iter().all(|frame| frame["op"] != "error"), "{frames:?}");
        acked.extend(frames.into_iter().filter(|frame| frame["op"] == "ok"));
    }
    let status = node.ended();
    assert_eq!(status.code(), Some(0), "{}", node.log_text());
    assert!(begun.elapsed() < PATIENCE);
    assert!(node.log_text().contains("drained"));
    node.restart();
    let mut emil = Chat::connect(&node, "emil", "e");
    for ok in acked {
        let history = emil.history(&ok["conversation"]);
        assert_eq!(history.last().map(|item| &item["seq"]), Some(&ok["seq"]));
    }
}

#[test]
fn a_drain_acknowledges_in_every_log_until_the_close_frame() {
    let data = directory();
    let mut node = Node::start(data.path(), &[("GATEHOUSE_LOGS", "2"), ("GATEHOUSE_DRAIN_SECONDS", "1")]);
    let mut alice = Chat::connect(&node, "alice", "phone");
    node.terminate();
    alice.event("drain");
    // One shard has nobody to say goodbye to, and the conversations of its log are answered all the same.
    let text = |peer| json!({ "to": format!("peer-{peer}"), "kind": "text", "text": "before I go" });
    let asked: Vec<u64> = (0..16).map(|peer| alice.send("send", text(peer))).collect();
    for id in asked {
        assert_eq!(verdict(&alice.reply(id)), "ok");
    }
    let (_, ended) = alice.until_closed(|_, _| {});
    assert_eq!(ended, Received::Closed(4000));
    assert_eq!(node.ended().code(), Some(0));
}

#[test]
fn a_drain_waits_for_nobody_who_does_not_listen() {
    let data = directory();
    let mut node = Node::start(data.path(), &[("GATEHOUSE_DRAIN_SECONDS", "0")]);
    let silent = [Chat::connect(&node, "alice", "a"), Chat::open(&node)];
    let begun = Instant::now();
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
    assert!(begun.elapsed() < PATIENCE);
    drop(silent);
}

/// A service manager may stop a node in the moment in which it says that it serves.
#[test]
fn a_signal_in_the_first_moment_is_a_drain_too() {
    let data = directory();
    let mut node = Node::start(data.path(), &[]);
    for _ in 0..20 {
        node.terminate();
        assert_eq!(node.ended().code(), Some(0));
        node.restart();
    }
}

/// A node that reads its log back for as long as the test wants: the snapshot of the index is a pipe, and to open one waits
/// for its other end.
fn node_that_reads_back(data: &Path) -> (Node, PathBuf) {
    let settings = [("GATEHOUSE_LOGS", "1")];
    drop(Node::start(data, &settings));
    let pipe = data.join("log-00/index.snap");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    let node = Node::begin(data, &settings).unwrap_or_else(|log| panic!("it does not begin: {log:#?}"));
    (node, pipe)
}

/// Whoever asks a node that recovers is told so, and is let in when it has recovered.
#[test]
fn a_node_that_recovers_says_so() {
    let data = directory();
    let (mut node, pipe) = node_that_reads_back(data.path());
    let answers = |node: &Node, path, status: &str, words: &str| {
        let answer = node.admin_get(path);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(words), "{answer}");
    };
    answers(&node, "/livez", "200", "ok");
    answers(&node, "/readyz", "503", "recovering: 1 of 1 logs are not open yet");
    answers(&node, "/metrics", "200", "\ngatehouse_ready 0\n");
    answers(&node, "/metrics", "200", "\ngatehouse_logs{health=\"starting\"} 1\n");
    let token = fs::read_to_string(data.path().join("admin.token")).expect("it was made");
    let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
    for request in ["POST /v1/drain", "POST /v1/revoke"] {
        let answer = node.admin_ask(request, &bearer);
        let refused = answer.starts_with("HTTP/1.1 503 ") && answer.contains("recovering: nothing was done");
        assert!(refused, "{answer}");
        assert!(node.admin_ask(request, "").starts_with("HTTP/1.1 401 "), "{request} needs the token");
    }
    // Opened when the node has it open too: it goes on, and nobody finds a pipe there again.
    let other_end = fs::OpenOptions::new().write(true).open(&pipe).expect("the node reads it");
    fs::remove_file(&pipe).expect("it is ours");
    drop(other_end);
    node.wait_until_it_serves().unwrap_or_else(|log| panic!("it does not serve: {log:#?}"));
    answers(&node, "/readyz", "200", "ready");
    answers(&node, "/metrics", "200", "\ngatehouse_revocations 0\n");
    Chat::connect(&node, "alice", "a").is_fine();
}

#[test]
fn a_node_that_recovers_is_stopped_in_order() {
    let data = directory();
    let (mut node, pipe) = node_that_reads_back(data.path());
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
    assert!(node.log_text().contains("stopped before the logs were read back"), "{}", node.log_text());
    fs::remove_file(&pipe).expect("it is ours");
    node.restart();
    Chat::connect(&node, "alice", "a").is_fine();
}

/// One sender's life over several nodes: what it sent, and what was acknowledged.
struct Letters {
    user: String,
    conversation: Value,
    /// Sent and not acknowledged: sent again, under the same id, to the next node.
    open: Vec<String>,
    acked: BTreeMap<u64, String>,
}

impl Letters {
    /// Sends until the node is gone. Every acknowledgement is told to `progress`.
    fn send_until_gone(&mut self, mut chat: Chat, progress: &Sender<()>) {
        let mut asked = BTreeMap::new();
        let mut again = std::mem::take(&mut self.open).into_iter();
        loop {
            while asked.len() < 16 {
                let id = again.next().unwrap_or_else(|| message_id(&chat.welcome["now"]));
                let letter = json!({ "to": "reader", "kind": "text", "text": id, "message_id": id });
                let Ok(number) = chat.try_send("send", letter) else {
                    self.open = asked.into_values().chain([id]).chain(again).collect();
                    return;
                };
                asked.insert(number, id);
            }
            match chat.next() {
                Received::Frame(frame) if frame["op"] == "ok" => {
                    let id = asked.remove(&frame["id"].as_u64().expect("a number")).expect("it was asked");
                    self.conversation = frame["conversation"].clone();
                    let seq = frame["seq"].as_u64().expect("a sequence");
                    let before = self.acked.insert(seq, id.clone());
                    assert!(before.is_none_or(|before| before == id), "{seq} is one message");
                    // Nobody listens any more when the node has been killed.
                    let _ = progress.send(());
                }
                // A killed node says nothing more: not that its log failed, not goodbye.
                Received::Frame(frame) => {
                    assert!(frame["op"] != "error" && frame["op"] != "drain", "{frame}")
                }
                Received::Closed(_) | Received::Gone => {
                    self.open = asked.into_values().chain(again).collect();
                    return;
                }
            }
        }
    }
}

/// Killed again and again in the middle of its work: what was acknowledged is there, once, under the same sequence.
#[test]
fn kills_lose_and_double_nothing() {
    let data = directory();
    let mut node = Node::start(data.path(), &[]);
    let mut all: Vec<_> = ["alice", "bob", "carl", "dora"]
        .map(|user| Letters {
            user: user.to_owned(),
            conversation: Value::Null,
            open: Vec::new(),
            acked: BTreeMap::new(),
        })
        .into();
    let (mut moments, kills) = Moments::of_kills();
    for _ in 0..kills {
        let moment = moments.next(600);
        let (progress, acks) = channel();
        let pid = node.id();
        // All are connected before anybody sends: the kill comes after so many acknowledgements, whoever's they are.
        let chats: Vec<Chat> = all.iter().map(|letters| Chat::connect(&node, &letters.user, "d")).collect();
        thread::scope(|scope| {
            for (letters, chat) in all.iter_mut().zip(chats) {
                let progress = progress.clone();
                scope.spawn(move || letters.send_until_gone(chat, &progress));
            }
            for _ in 0..moment {
                acks.recv_timeout(PATIENCE).expect("it acknowledges");
            }
            crate::node::kill(pid);
        });
        node.restart();
    }
    let mut reader = Chat::connect(&node, "reader", "d");
    for Letters { user, conversation, acked, .. } in &all {
        let history = reader.history(conversation);
        let stored: BTreeMap<u64, String> = history
            .iter()
            .map(|item| {
                let id = item["message_id"].as_str().expect("an id").to_owned();
                (item["seq"].as_u64().expect("a sequence"), id)
            })
            .collect();
        assert!(stored.keys().copied().eq(1..=history.len() as u64), "{user}: dense");
        assert_eq!(
            stored.values().collect::<BTreeSet<_>>().len(),
            stored.len(),
            "{user}: nothing is doubled"
        );
        for (seq, id) in acked {
            assert_eq!(stored.get(seq), Some(id), "{user}: acknowledged as {seq}");
        }
    }
}

#[test]
fn one_directory_has_one_node() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    check_refused(data.path(), &[], &["is in use by another gatehouse", data.path().to_str().expect("text")]);
    Chat::connect(&node, "alice", "a").is_fine();
}

/// The shards of a node share its port, and another node is not to have a part of its clients.
#[test]
fn one_port_has_one_node() {
    let (data, other) = (directory(), directory());
    let node = Node::start(data.path(), &[]);
    let listen = node.listen.to_string();
    let words = ["cannot listen on", &listen, "another program listens there"];
    check_refused(other.path(), &[("GATEHOUSE_LISTEN", &listen)], &words);
    // A supervisor tries again and again: no start is recorded that was none.
    let segment = || fs::read(other.path().join("log-00/seg-0000000000000000.log")).expect("a segment");
    let before = segment();
    check_refused(other.path(), &[("GATEHOUSE_LISTEN", &listen)], &words);
    assert!(segment() == before, "the log was written to");
    Chat::connect(&node, "alice", "a").is_fine();
}

/// Without its name a store would be made anew, and its segments would be another's.
#[test]
fn a_store_without_its_name_is_left_alone() {
    let data = directory();
    drop(Node::start(data.path(), &[]));
    let (store, aside) = (data.path().join("store.toml"), data.path().join("aside"));
    fs::rename(&store, &aside).expect("a file");
    check_refused(data.path(), &[], &["store.toml is missing", "log-00 has segments", "backup"]);
    assert!(!store.exists() && !data.path().join("store.toml.new").exists(), "nothing was made");
    // What cannot be looked into may have segments.
    let (log, moved) = (data.path().join("log-00"), data.path().join("log-00.moved"));
    fs::rename(&log, &moved).expect("a directory");
    fs::write(&log, "").expect("a file in its place");
    check_refused(data.path(), &[], &["cannot read", "log-00"]);
    assert!(!store.exists() && !data.path().join("store.toml.new").exists(), "nothing was made");
    fs::remove_file(&log).expect("it is ours");
    fs::rename(&moved, &log).expect("a directory");
    fs::rename(&aside, &store).expect("a file");
    Node::start(data.path(), &[]);
}

#[test]
fn a_newer_format_is_left_alone() {
    let data = directory();
    drop(Node::start(data.path(), &[]));
    let store = data.path().join("store.toml");
    let text = fs::read_to_string(&store).expect("it was made");
    for (format, words) in [
        ("format = 99", &["has format 99, this program knows 1", "newer program"][..]),
        ("format = \"x\"", &["store.toml cannot be understood"]),
    ] {
        fs::write(&store, text.replace("format = 1", format)).expect("a file");
        check_refused(data.path(), &[], words);
    }
    fs::write(&store, text).expect("a file");
    Node::start(data.path(), &[]);
}

/// A segment of a newer format among ours: the log that has it is left alone and named with it, the other is served. Where
/// there is no other, the node does not start.
#[test]
fn a_newer_segment_is_left_alone() {
    const VERSION: Range<usize> = 8..10;
    const CHECKED: Range<usize> = 4..64;
    for (logs, refused) in [("2", false), ("1", true)] {
        let (data, settings) = (directory(), [("GATEHOUSE_LOGS", logs)]);
        drop(Node::start(data.path(), &settings));
        let path = data.path().join("log-00/seg-0000000000000000.log");
        let segment = fs::OpenOptions::new().read(true).write(true).open(&path).expect("a segment");
        let mut header = [0; CHECKED.end];
        segment.read_exact_at(&mut header, 0).expect("a header");
        let before = header;
        header[VERSION].copy_from_slice(&99_u16.to_le_bytes());
        let checksum = crc32c::crc32c(&header[CHECKED]);
        header[..CHECKED.start].copy_from_slice(&checksum.to_le_bytes());
        segment.write_all_at(&header, 0).expect("it is ours");
        let words = ["log=0", "seg-0000000000000000.log", "format 99", "newer program"];
        if refused {
            check_refused(data.path(), &settings, &words);
        } else {
            let node = Node::start(data.path(), &settings);
            node.log_line(&words);
            assert!(node.admin_get("/readyz").contains("log 0 was refused"));
        }
        segment.write_all_at(&before, 0).expect("it is ours");
        let node = Node::start(data.path(), &settings);
        assert!(node.admin_get("/readyz").contains("\r\n\r\nready"), "nothing was changed");
    }
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    let data = directory();
    drop(Node::start(data.path(), &[]));
    for name in ["dev.key", "admin.token"] {
        let file = data.path().join(name);
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("our file");
        assert_eq!(fs::metadata(&file).expect("it was made").permissions().mode() & 0o777, 0o600, "{name}");
        for open in [0o644, 0o640, 0o660, 0o602] {
            mode(open);
            check_refused(data.path(), &[], &[name, "chmod 600", &format!("{open:04o}")]);
        }
        mode(0o600);
    }
    Node::start(data.path(), &[]);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let data = directory();
    let file = data.path().join("gatehouse.toml");
    fs::write(&file, "shards = 2\nlogs = 1000\norigin = [\"https://a.example\"]\n").expect("a file");
    let path = file.to_str().expect("text");
    let words = [&format!("{path}:2: `logs`"), &format!("{path}:3: `origin` is not a setting")];
    check_refused(data.path(), &[("GATEHOUSE_CONFIG", path)], &words.map(String::as_str));
    check_refused(
        data.path(),
        &[("GATEHOUSE_LISTEN", "0.0.0.0:7100")],
        &["GATEHOUSE_LISTEN: `listen` is 0.0.0.0:7100, which other machines can reach"],
    );
    check_refused(
        data.path(),
        &[("GATEHOUSE_ECHO", "0.0.0.0:7102")],
        &["GATEHOUSE_ECHO: `echo` is 0.0.0.0:7102"],
    );
    assert!(!data.path().join("store.toml").exists(), "nothing was made");
}

/// Inverts the byte at `offset`; called twice, it was never done.
fn flip(segment: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(segment).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("it is long");
    file.write_all_at(&[!byte[0]], offset).expect("it is ours");
    file.sync_all().expect("a disk");
}

/// One byte of acknowledged data goes bad: its log is refused by name and offset, the other is served, nothing is cut.
#[test]
fn damage_is_named_and_stays_alone() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let peers: Vec<_> = (0..16).map(|number| format!("peer-{number}")).collect();
    for _ in 0..3 {
        peers.iter().for_each(|peer| drop(alice.tell(peer, "worth keeping")));
    }
    let conversations: Vec<Value> =
        peers.iter().map(|peer| alice.tell(peer, "the last")["conversation"].clone()).collect();
    drop(node);
    for (log, offset, damaged) in [
        (0, FIRST_BATCH + 100, FIRST_BATCH),
        (0, FIRST_BATCH + 4, FIRST_BATCH),
        (1, FIRST_BATCH + 30, FIRST_BATCH),
        (1, 20, 0),
    ] {
        let segment = data.path().join(format!("log-0{log}/seg-0000000000000000.log"));
        flip(&segment, offset);
        let node = Node::start(data.path(), &[]);
        let line = node.log_line(&["damaged and not served", &format!("log={log}")]);
        assert_eq!(field_of(&line, "segment"), "seg-0000000000000000.log");
        assert_eq!(field_of(&line, "offset"), damaged.to_string(), "{line}");
        assert!(node.admin_get("/readyz").contains(&format!("log {log} was refused")));
        let mut alice = Chat::connect(&node, "alice", "a");
        let (mut served, mut refused) = (0, 0);
        for (peer, conversation) in peers.iter().zip(&conversations) {
            let page = alice.ask("history", json!({ "conversation": conversation, "limit": 10, "after": 0 }));
            let sent = alice.ask("send", json!({ "to": peer, "kind": "text", "text": "more" }));
            match verdict(&page).as_str() {
                "page" => {
                    served += 1;
                    assert!(page["messages"].as_array().is_some_and(|items| items.len() >= 4), "{page}");
                    assert_eq!(verdict(&sent), "ok");
                }
                verdict_of_page => {
                    refused += 1;
                    assert_eq!(verdict_of_page, "3004 unavailable");
                    assert_eq!(verdict(&sent), "3004 unavailable");
                    assert!(page["retry_after_ms"].is_u64() && sent["retry_after_ms"].is_u64());
                }
            }
        }
        assert!(served > 0 && refused > 0, "{served} conversations served, {refused} not");
        drop(node);
        flip(&segment, offset);
    }
    let node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    for conversation in &conversations {
        let history = alice.history(conversation);
        assert_eq!(
            history.iter().filter(|item| item["text"] == "worth keeping").count(),
            3,
            "all is still there"
        );
    }
}

/// The service manager is told that the node serves, that it is well, and that it stops.
#[test]
fn the_service_manager_hears_of_everything() {
    let data = directory();
    let path = data.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a socket of ours");
    let hear = |wanted: &str| {
        let mut buffer = [0; 256];
        loop {
            let bytes = manager.recv(&mut buffer).expect("the node says it in time");
            if buffer[..bytes].starts_with(wanted.as_bytes()) {
                return;
            }
        }
    };
    let mut node = Node::start(data.path(), &[("NOTIFY_SOCKET", path.to_str().expect("a path of ours"))]);
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    node.terminate();
    hear("STOPPING=1");
    assert_eq!(node.ended().code(), Some(0));
}
