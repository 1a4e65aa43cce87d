//! The disk fails under a running node, and the power is cut with it.

use std::{collections::BTreeMap, env, fs, os::unix::fs::symlink, path::Path};

use gateway::store::StoreFacts;
use router::places::Places;
use serde_json::{Value, json};

use crate::{
    chat::{Chat, Received, message_id, verdict, wait_as_told},
    compaction::{EAGER, wait_for_cold},
    disk::Disk,
    logtool::{log, text},
    node::{Node, check_refused, directory, kill},
};

/// Sends under way at the same time: half of what a session may have.
const WINDOW: u64 = 16;

/// Letters of the longest kind, so that segments fill.
pub(crate) const LONG: usize = 15 << 10;

/// Cuts before a disk is replaced: it fills, and all that it holds is read after each.
pub(crate) const CUTS_PER_DISK: usize = 8;

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number: {text}")))
}

/// Where the faults come, from `GATEHOUSE_TEST_SEED` or a seed of its own.
pub(crate) struct Moments(u64);

impl Moments {
    /// And how many power cuts: `GATEHOUSE_TEST_CUTS`, or a few.
    pub(crate) fn of_cuts() -> (Self, usize) {
        Self::of("GATEHOUSE_TEST_CUTS", 4)
    }

    /// And how many kills: `GATEHOUSE_TEST_KILLS`, or a few.
    pub(crate) fn of_kills() -> (Self, usize) {
        Self::of("GATEHOUSE_TEST_KILLS", 5)
    }

    /// And how many upgrades: `GATEHOUSE_TEST_UPGRADES`, or a few.
    pub(crate) fn of_upgrades() -> (Self, usize) {
        Self::of("GATEHOUSE_TEST_UPGRADES", 10)
    }

    fn of(variable: &str, few: u64) -> (Self, usize) {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("randomness");
        let seed = number("GATEHOUSE_TEST_SEED").unwrap_or(u64::from_le_bytes(random));
        let faults = number(variable).unwrap_or(few) as usize;
        // Shown when the test fails.
        eprintln!("GATEHOUSE_TEST_SEED={seed} {variable}={faults}");
        (Self(seed), faults)
    }

    /// Behind so many acknowledgements: from 1 to `most`. SplitMix64.
    pub(crate) fn next(&mut self, most: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        1 + ((mixed ^ (mixed >> 31)) % most) as usize
    }
}

/// What alice was told of her letters to somebody, or they were shown: by sequence, the message's id.
#[derive(Default)]
pub(crate) struct Kept {
    conversation: Value,
    letters: BTreeMap<u64, Value>,
}

impl Kept {
    /// The answer to a send.
    #[track_caller]
    fn take(&mut self, reply: &Value) {
        assert_eq!(verdict(reply), "ok", "{reply}");
        let seq = reply["seq"].as_u64().expect("a sequence");
        let before = self.letters.insert(seq, reply["message_id"].clone());
        assert_eq!(before, None, "{seq} was given before");
        self.conversation = reply["conversation"].clone();
    }

    /// Sends so many letters, and waits until they are stored.
    #[track_caller]
    pub(crate) fn send(&mut self, alice: &mut Chat, bytes: usize, count: usize) {
        let (now, body) = (alice.welcome["now"].clone(), "x".repeat(bytes));
        for _ in 0..count {
            let letter = json!({ "to": "bob", "kind": "text", "text": body, "message_id": message_id(&now) });
            self.take(&alice.ask_to_store(&letter));
        }
        alice.take_events();
    }

    /// The newest sequence that she was told of, or shown.
    pub(crate) fn head(&self) -> u64 {
        self.letters.last_key_value().map_or(0, |(head, _)| *head)
    }

    /// What she was told of the letters behind this one does not count.
    pub(crate) fn forget_behind(&mut self, seq: u64) {
        self.letters.retain(|letter, _| *letter <= seq);
    }

    /// Sends letters without waiting for each answer until the connection ends, and calls `fault` behind each
    /// acknowledgement with their number, while others are under way.
    pub(crate) fn send_until_the_end(
        &mut self,
        alice: &mut Chat,
        bytes: usize,
        mut fault: impl FnMut(usize),
    ) {
        let (now, body) = (alice.welcome["now"].clone(), "x".repeat(bytes));
        let send = |alice: &mut Chat| {
            let letter = json!({ "to": "bob", "kind": "text", "text": body, "message_id": message_id(&now) });
            alice.try_send("send", letter).is_ok()
        };
        let (mut acknowledged, mut under_way) = (0, 0);
        loop {
            while under_way < WINDOW && send(alice) {
                under_way += 1;
            }
            match alice.next() {
                Received::Frame(frame) if frame["op"] == "ok" => {
                    self.take(&frame);
                    (acknowledged, under_way) = (acknowledged + 1, under_way - 1);
                    fault(acknowledged);
                }
                Received::Frame(frame) if frame["op"] == "error" => {
                    // A segment takes a moment to be made; a log that stopped takes nothing more.
                    let is_expected = frame["code"] == 3002 || frame["code"] == 3004;
                    assert!(is_expected, "{frame}");
                    wait_as_told(&frame);
                    under_way -= 1;
                }
                Received::Frame(_) => {}
                Received::Closed(_) | Received::Gone => return,
            }
        }
    }

    /// The other one finds all of it, dense from 1, each under its sequence and once; what else is shown is kept from now on too.
    #[track_caller]
    pub(crate) fn check(&mut self, node: &Node, reader: &str) {
        let history = Chat::connect(node, reader, "b").history(&self.conversation);
        let stored: BTreeMap<u64, Value> = history
            .iter()
            .map(|item| (item["seq"].as_u64().expect("a sequence"), item["message_id"].clone()))
            .collect();
        assert!(stored.keys().copied().eq(1..=history.len() as u64), "dense from 1");
        let ids: BTreeMap<&str, u64> =
            stored.iter().map(|(seq, id)| (id.as_str().expect("an id"), *seq)).collect();
        assert_eq!(ids.len(), stored.len(), "nothing is doubled");
        let lost: Vec<_> = self.letters.iter().filter(|(seq, id)| stored.get(seq) != Some(id)).collect();
        assert!(lost.is_empty(), "told and lost: {lost:?}");
        self.letters = stored;
    }
}

/// A node whose disk has failed: it says so, drains and exits with 1; then the power is back.
#[track_caller]
pub(crate) fn check_stopped(mut node: Node, disk: &Disk) {
    node.log_line(&["log stopped", "log=0"]);
    assert_eq!(node.ended().code(), Some(1));
    drop(node);
    disk.restore_power();
}

/// F2, and a disk that only gives errors: the log stops at once, the node says so, drains and exits with 1, and the next
/// start has every acknowledged message under its sequence.
#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    let data = disk.root.join("data");
    let settings = [("GATEHOUSE_LOGS", "1"), ("GATEHOUSE_DRAIN_SECONDS", "0")];
    let mut kept = Kept::default();
    for cut in [1, 40, 203, 377] {
        let node = Node::start(&data, &settings);
        let mut alice = Chat::connect(&node, "alice", "a");
        kept.send_until_the_end(&mut alice, 700, |count| {
            if count == cut {
                disk.cut_power();
            }
        });
        drop(alice);
        check_stopped(node, &disk);

        let node = Node::start(&data, &settings);
        Chat::connect(&node, "alice", "a").tell("bob", "after the power cut");
        kept.check(&node, "bob");
    }
}

/// Whether a segment is being written anew.
fn is_compacting(data: &Path) -> bool {
    let mut files = fs::read_dir(data.join("log-00")).expect("a log").flatten();
    files.any(|file| file.file_name().to_string_lossy().ends_with(".cold.new"))
}

/// Letters after which a cut comes although no compaction was seen: it may be over between two looks, and the disk has an end.
const UNSEEN_MAX: usize = 600;

/// Every second cut comes while a segment is being written anew, the others wherever the seed says: while the next segment is
/// made or zeroed, an index file is written, or what a compaction has superseded is removed.
#[test]
fn power_cuts_while_segments_are_made_and_compacted_lose_nothing() {
    let (mut moments, cuts) = Moments::of_cuts();
    let settings = [&EAGER[..], &[("GATEHOUSE_DRAIN_SECONDS", "0")]].concat();
    for begun in (0..cuts).step_by(CUTS_PER_DISK) {
        let Some(disk) = Disk::mount() else {
            return;
        };
        let data = disk.root.join("data");
        let mut kept = Kept::default();
        for cut in begun..cuts.min(begun + CUTS_PER_DISK) {
            let node = Node::start(&data, &settings);
            let mut alice = Chat::connect(&node, "alice", "a");
            let (behind, mut is_cut) = (moments.next(600), false);
            kept.send_until_the_end(&mut alice, LONG, |count| {
                let is_moment = cut % 2 == 0 || count >= behind + UNSEEN_MAX || is_compacting(&data);
                if !is_cut && count >= behind && is_moment {
                    disk.cut_power();
                    is_cut = true;
                }
            });
            drop(alice);
            check_stopped(node, &disk);
            kept.check(&Node::start(&data, &settings), "bob");
        }
        // It was about what it says.
        let node = Node::start(&data, &settings);
        wait_for_cold(&data, 2);
        kept.check(&node, "bob");
        drop(node);
        log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound"]);
    }
}

/// What was only in the page cache when a node was killed reads back fine: the start brings it to the disk before it shows it.
#[test]
fn what_a_start_after_a_kill_shows_survives_a_power_cut() {
    let (mut moments, cuts) = Moments::of_cuts();
    for begun in (0..cuts).step_by(CUTS_PER_DISK) {
        let Some(disk) = Disk::mount() else {
            return;
        };
        let data = disk.root.join("data");
        let mut kept = Kept::default();
        for _ in begun..cuts.min(begun + CUTS_PER_DISK) {
            let mut node = Node::start(&data, &EAGER);
            let mut alice = Chat::connect(&node, "alice", "a");
            let behind = moments.next(400);
            kept.send_until_the_end(&mut alice, LONG, |count| {
                if count == behind {
                    kill(node.id());
                }
            });
            node.restart();
            // Only read: nothing that is sent after the start syncs what it did not.
            kept.check(&node, "bob");
            disk.cut_power();
            drop(node);
            disk.restore_power();
            kept.check(&Node::start(&data, &EAGER), "bob");
        }
    }
}

/// Whoever waits or asks is told while the node still drains, and everybody reads.
#[track_caller]
fn check_told(disk: &Disk, fail: fn(&Disk)) {
    let mut node = Node::start(&disk.root.join("data"), &[("GATEHOUSE_LOGS", "1")]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let conversation = alice.tell("bob", "in time")["conversation"].clone();
    assert!(node.admin_get("/readyz").starts_with("HTTP/1.1 200 "));
    fail(disk);
    let letter = json!({ "to": "bob", "kind": "text", "text": "too late" });
    let asked: Vec<u64> = (0..8).map(|_| alice.send("send", letter.clone())).collect();
    for id in asked {
        let reply = alice.reply(id);
        assert_eq!(verdict(&reply), "3004 unavailable");
        assert!(reply["retry_after_ms"].is_u64(), "{reply}");
    }
    assert_eq!(alice.history(&conversation).last().map(|item| item["text"].clone()), Some(json!("in time")));
    // She stays connected until a second after the goodbye, and so does the node.
    let ready = node.admin_get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("log 0 failed"), "{ready}");
    assert_eq!(node.metric("logs{health=\"failed\"}"), 1);
    assert!(node.admin_get("/livez").starts_with("HTTP/1.1 200 "), "it still drains");
    let (_, ended) = alice.until_closed(|_, _| {});
    assert_eq!(ended, Received::Closed(4000));
    assert_eq!(node.ended().code(), Some(1));
}

#[test]
fn a_failed_log_is_told_to_whoever_asks() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    check_told(&disk, Disk::cut_power);
}

/// A file system that finds an error in itself takes no more writes: that is a failed write like any other, and no start goes on
/// where nothing could be stored, however the file system came to be read-only.
#[test]
fn a_file_system_that_becomes_read_only_stops_its_log_and_refuses_a_start() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    let (data, settings) = (disk.root.join("data"), [("GATEHOUSE_LOGS", "1")]);
    let words = [text(&data), "takes no writes", "mount it for writing"];
    check_told(&disk, Disk::make_read_only);
    check_refused(&data, &settings, &words);
    disk.restore_power();
    let head = |expected| {
        let node = Node::start(&data, &settings);
        assert_eq!(Chat::connect(&node, "alice", "a").tell("bob", "again")["seq"], expected);
    };
    head(2);
    disk.mount_for_reading();
    check_refused(&data, &settings, &words);
    disk.restore_power();
    head(3);
}

/// The log that a conversation is in.
#[track_caller]
pub(crate) fn log_of(data: &Path, conversation: &Value) -> u16 {
    let facts = StoreFacts::read(data).expect("a store");
    let places = Places::new(facts.id, facts.key, facts.logs, 1);
    places.log_of(conversation.as_str().and_then(|text| text.parse().ok()).expect("an id"))
}

/// One of alice's conversations: with whom, in which of two logs, and what was acknowledged of it.
struct Peer {
    name: String,
    log: u16,
    kept: Kept,
}

impl Peer {
    /// Sixteen, some in each log.
    #[track_caller]
    fn all(alice: &mut Chat, data: &Path) -> Vec<Self> {
        let peer = |number| {
            let name = format!("peer-{number}");
            let ok = alice.tell(&name, "before");
            let log = log_of(data, &ok["conversation"]);
            let mut kept = Kept::default();
            kept.take(&ok);
            Self { name, log, kept }
        };
        let peers: Vec<_> = (0..16).map(peer).collect();
        assert!([0, 1].iter().all(|log| peers.iter().any(|peer| peer.log == *log)), "some in each log");
        peers
    }

    /// Log 1 has failed, and log 0 has not.
    #[track_caller]
    fn hear(&mut self, reply: &Value) {
        if self.log == 0 {
            return self.kept.take(reply);
        }
        let heard = (verdict(reply), reply["retry_after_ms"].is_u64());
        assert_eq!(heard, ("3004 unavailable".to_owned(), true), "{reply}");
    }
}

/// One disk of two fails: who writes to it is told, everybody else is served until they are told to go elsewhere.
#[test]
fn a_failed_log_leaves_the_other_acknowledging_until_the_close_frame() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    let root = directory();
    let (data, elsewhere) = (root.path().join("data"), disk.root.join("log-01"));
    fs::create_dir(&data).and_then(|()| fs::create_dir(&elsewhere)).expect("room");
    symlink(&elsewhere, data.join("log-01")).expect("room");
    let settings =
        [("GATEHOUSE_LOGS", "2"), ("GATEHOUSE_SEGMENT_MIB", "4"), ("GATEHOUSE_DRAIN_SECONDS", "1")];
    let mut node = Node::start(&data, &settings);
    let mut alice = Chat::connect(&node, "alice", "a");
    let mut peers = Peer::all(&mut alice, &data);
    disk.cut_power();
    let letter = |peer: &Peer| json!({ "to": peer.name, "kind": "text", "text": "after" });
    for peer in &mut peers {
        let reply = alice.ask("send", letter(peer));
        peer.hear(&reply);
    }
    node.log_line(&["log stopped", "log=1"]);
    alice.event("drain");
    // One to each in turn, the next when the one before is answered: until the end.
    let (mut asked, mut answered) = (alice.send("send", letter(&peers[0])), 0);
    let (_, ended) = alice.until_closed(|alice, frame| {
        if frame["id"] == asked {
            peers[answered % 16].hear(frame);
            answered += 1;
            if let Ok(id) = alice.try_send("send", letter(&peers[answered % 16])) {
                asked = id;
            }
        }
    });
    assert_eq!(ended, Received::Closed(4000));
    assert!(answered >= 16, "only {answered} sends were answered in the second of the drain");
    assert_eq!(node.ended().code(), Some(1));
    let stopped = node.log_text().lines().filter(|line| line.contains("log stopped")).count();
    assert_eq!(stopped, 1, "one log: {}", node.log_text());
    drop(node);
    disk.restore_power();

    let node = Node::start(&data, &settings);
    peers.iter_mut().for_each(|peer| peer.kept.check(&node, &peer.name));
}
