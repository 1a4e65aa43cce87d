//! Backing up a node that works, and a node on what was restored.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::fs::{FallocateFlags, fallocate};
use serde_json::{Value, json};

use crate::{
    chat::Chat,
    disk::Disk,
    logtool::{SMALL, fill, fill_to, flip, letter_text, log, text},
    node::{Node, PATIENCE, check_refused, directory},
    power::log_of,
};

/// Left on a disk that is full: what the file system keeps its own lists in, and less than a segment has.
const LEFT_BYTES: u64 = 256 << 10;

/// What alice was told is stored of a conversation: its letters by sequence, by their ids, and which it is.
type Letters = (BTreeMap<u64, String>, Value);

/// What is acknowledged while a backup is taken, as it comes: with whom, in two logs.
#[derive(Default)]
struct Acked {
    letters: Mutex<BTreeMap<String, Letters>>,
    more: Condvar,
}

impl Acked {
    /// Sends to each in turn until `enough`.
    fn keep_sending(&self, alice: &mut Chat, peers: &[String; 2], enough: &AtomicBool) {
        for peer in peers.iter().cycle() {
            if enough.load(Ordering::Relaxed) {
                return;
            }
            let (acked, conversation) = fill_to(alice, peer, 64, 4 << 10);
            let mut letters = self.letters.lock().expect("no sender panics");
            let with_peer = letters.entry(peer.clone()).or_default();
            with_peer.0.extend(acked);
            with_peer.1 = conversation;
            self.more.notify_all();
        }
    }

    /// All so far, when there are `count` of each.
    fn when(&self, count: usize) -> BTreeMap<String, Letters> {
        let is_missing = |letters: &mut BTreeMap<String, Letters>| {
            letters.len() < 2 || letters.values().any(|(acked, _)| acked.len() < count)
        };
        let letters = self.letters.lock().expect("no sender panics");
        let waited = self.more.wait_timeout_while(letters, PATIENCE, is_missing);
        let (letters, timeout) = waited.expect("no sender panics");
        assert!(!timeout.timed_out(), "it does not acknowledge");
        letters.clone()
    }
}

#[track_caller]
pub(crate) fn restore(from: &Path, data: &Path) {
    log(&["restore", "--from", text(from), "--data", text(data)]).check(0, &["restored as it was at"]);
}

/// Every letter is in the conversation with bob, under its sequence, with its text.
#[track_caller]
pub(crate) fn check_letters(node: &Node, acked: &BTreeMap<u64, String>, conversation: &Value) {
    check_letters_to(node, "bob", acked, conversation);
}

#[track_caller]
fn check_letters_to(node: &Node, reader: &str, acked: &BTreeMap<u64, String>, conversation: &Value) {
    let history = Chat::connect(node, reader, "b").history(conversation);
    let stored: BTreeMap<u64, &Value> =
        history.iter().map(|item| (item["seq"].as_u64().expect("a sequence"), item)).collect();
    assert!(stored.keys().copied().eq(1..=stored.len() as u64), "dense");
    for (seq, id) in acked {
        let item = stored.get(seq).unwrap_or_else(|| panic!("acknowledged as {seq} of {}", stored.len()));
        let text = item["text"].as_str().unwrap_or_default();
        assert_eq!(item["message_id"].as_str(), Some(id.as_str()), "{seq}");
        assert!(!text.is_empty() && text == letter_text(id, text.len()), "{seq} of {id} is {text:?}");
    }
}

/// Two that alice writes to, one in each of two logs.
#[track_caller]
fn peers(alice: &mut Chat, data: &Path) -> [String; 2] {
    let mut found = [None, None];
    for number in 0..64 {
        let name = format!("peer-{number}");
        let (_, conversation) = fill_to(alice, &name, 1, 100);
        found[usize::from(log_of(data, &conversation))] = Some(name);
        if let [Some(first), Some(second)] = &found {
            return [first.clone(), second.clone()];
        }
    }
    panic!("of 64 conversations all are in one log");
}

fn cursor(chat: &mut Chat) -> Value {
    chat.ask("ping", json!({}))["cursor"].clone()
}

/// Twice into one directory, under load: what was acknowledged before each began is there, and the second copies little.
#[test]
fn a_backup_under_load_has_everything_that_was_acknowledged_before() {
    let root = directory();
    let [data, to, first, second] = ["data", "to", "first", "second"].map(|name| root.path().join(name));
    fs::create_dir(&data).expect("a new directory");
    let revoked = "{\"version\":1,\"revocations\":[\n{\"user\":\"mallory\",\"issued_before\":1}\n]}";
    fs::write(data.join("revocations.json"), revoked).expect("a file");
    let two_logs = [("GATEHOUSE_LOGS", "2"), ("GATEHOUSE_SEGMENT_MIB", "4")];
    let mut node = Node::start(&data, &two_logs);
    let mut alice = Chat::connect(&node, "alice", "a");
    let peers = peers(&mut alice, &data);
    let (acked, enough) = (Acked::default(), AtomicBool::new(false));
    let backup = || {
        let said = log(&["backup", "--data", text(&data), "--to", text(&to)]);
        said.check(0, &["a backup of"]);
        said.out
    };
    let (before_first, before_second, of_later) = thread::scope(|scope| {
        let sender = scope.spawn(|| acked.keep_sending(&mut alice, &peers, &enough));
        let before_first = acked.when(1_500);
        let said = backup();
        assert!(said.contains(" linked, 0 there before") && !said.contains(" 0 linked"), "{said}");
        restore(&to, &first);
        let most = |letters: &BTreeMap<String, Letters>| {
            letters.values().map(|(acked, _)| acked.len()).max().expect("two")
        };
        let before_second = acked.when(most(&before_first) + 1_500);
        let said = backup();
        assert!(!said.contains(" 0 there before"), "{said}");
        acked.when(most(&before_second) + 200);
        let of_later = cursor(&mut Chat::connect(&node, &peers[0], "later"));
        enough.store(true, Ordering::Relaxed);
        sender.join().expect("it sends");
        (before_first, before_second, of_later)
    });
    restore(&to, &second);
    let check_all = |node: &Node, letters: &BTreeMap<String, Letters>| {
        for (peer, (acked, conversation)) in letters {
            check_letters_to(node, peer, acked, conversation);
        }
    };
    for (copy, letters) in [(&first, &before_first), (&second, &before_second)] {
        log(&["verify", "--data", text(copy)]).check(0, &["log 0: sound", "log 1: sound"]);
        let segments = [0, 1].map(|log| format!("log-0{log}/seg-0000000000000000.log"));
        for secret in ["store.toml", "revocations.json", &segments[0], &segments[1]] {
            let mode = fs::metadata(copy.join(secret)).expect("it was restored").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
        assert_eq!(fs::read_to_string(copy.join("revocations.json")).expect("a file"), revoked);
        let restored = Node::start(copy, &two_logs);
        check_all(&restored, letters);
        // A run that the copy knows, and a position that it has not: told, and not passed over in silence.
        let lost = json!({ "device": "later", "cursor": of_later });
        let peer = Chat::connect_with(&restored, &restored.token(&peers[0]), lost);
        assert_eq!(peer.welcome["reset"], true);
        for peer in &peers {
            fill_to(&mut Chat::connect(&restored, "alice", "a"), peer, 64, 4 << 10);
        }
    }
    // Neither the copies nor their nodes touched the original, which shares files with the backup.
    node.restart();
    check_all(&node, &before_second);
    log(&["verify", "--data", text(&data)]).check(0, &[]);
}

#[test]
fn an_idle_node_is_backed_up_to_its_last_message_and_so_is_a_killed_one() {
    let root = directory();
    let data = root.path().join("data");
    let mut node = Node::start(&data, &SMALL);
    let mut alice = Chat::connect(&node, "alice", "a");
    let (acked, conversation) = fill(&mut alice, 40, 100);
    for (round, restored) in ["live", "killed"].map(|name| root.path().join(name)).iter().enumerate() {
        let to = root.path().join(format!("to-{round}"));
        log(&["backup", "--data", text(&data), "--to", text(&to)]).check(0, &[]);
        restore(&to, restored);
        let copy = Node::start(restored, &SMALL);
        check_letters(&copy, &acked, &conversation);
        node.kill();
    }
}

/// Where nothing can be linked everything is copied, once; what an interrupted backup left is tidied up.
#[test]
fn a_backup_on_another_disk_copies_each_sealed_segment_once() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    let root = directory();
    let (data, to, copy) = (root.path().join("data"), disk.root.join("to"), root.path().join("copy"));
    let mut node = Node::start(&data, &SMALL);
    let mut alice = Chat::connect(&node, "alice", "a");
    let (mut acked, conversation) = fill(&mut alice, 600, 16 << 10);
    let backup = || log(&["backup", "--data", text(&data), "--to", text(&to)]);
    backup().check(0, &[" 0 linked, 0 there before"]);
    let stray = to.join("log-00/seg-0000000000400000.log.abc.part");
    fs::write(&stray, "half a segment").expect("room");
    acked.extend(fill(&mut alice, 200, 16 << 10).0);
    let said = backup();
    said.check(0, &[" 0 linked, "]);
    assert!(!said.out.contains(" 0 there before"), "{}", said.out);
    assert!(!stray.exists());
    // Of the segment that took batches, only what this backup names is left.
    let parts = fs::read_dir(to.join("log-00")).expect("a log").flatten();
    let parts = parts.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "part"));
    assert_eq!(parts.count(), 1);
    node.kill();
    restore(&to, &copy);
    let mut copy = Node::start(&copy, &SMALL);
    check_letters(&copy, &acked, &conversation);
    copy.kill();
    // A disk that is full leaves the backup before.
    let manifest = fs::read(to.join("backup.json")).expect("a manifest");
    let ballast = File::create(disk.root.join("ballast")).expect("room");
    fallocate(&ballast, FallocateFlags::empty(), 0, disk.free_bytes() - LEFT_BYTES).expect("room");
    backup().check(2, &["No space left"]);
    assert_eq!(fs::read(to.join("backup.json")).expect("a manifest"), manifest);
    drop(ballast);
    restore(&to, &root.path().join("again"));
}

#[test]
fn what_is_no_good_backup_is_refused_before_anything_is_made() {
    let root = directory();
    let [data, to, other, copy] = ["data", "to", "other", "copy"].map(|name| root.path().join(name));
    let mut node = Node::start(&data, &SMALL);
    let (acked, conversation) = fill(&mut Chat::connect(&node, "alice", "a"), 400, 16 << 10);
    node.kill();
    let restore_to = |copy: &Path| log(&["restore", "--from", text(&to), "--data", text(copy)]);
    restore_to(&copy).check(2, &["is no backup: it has no backup.json"]);
    let backup = || log(&["backup", "--data", text(&data), "--to", text(&to)]);
    backup().check(0, &[]);
    // Nor is one that would go with what it is made of, by whatever name.
    std::os::unix::fs::symlink(&data, root.path().join("link")).expect("one disk");
    for inside in [data.clone(), data.join("sub"), root.path().join("link/a/b"), data.join("new/../sub")] {
        log(&["backup", "--data", text(&data), "--to", text(&inside)])
            .check(2, &["is inside of the data directory", "name a directory elsewhere"]);
    }
    assert!(["sub", "a", "new"].iter().all(|name| !data.join(name).exists()), "nothing was made");
    check_refused(&to, &SMALL, &["is a backup", "gatehouse log restore"]);
    log(&["stat", "--data", text(&to)]).check(2, &["is a backup", "gatehouse log restore"]);
    // Nor one that was broken off, which has no list of its files yet, and segments of the node's as its own.
    let (list, aside) = (to.join("backup.json"), to.join("aside"));
    fs::rename(&list, &aside).expect("a file");
    check_refused(&to, &SMALL, &["is a backup", "gatehouse log restore"]);
    fs::rename(&aside, &list).expect("a file");

    // The segment in the backup is the one of the original where it is linked: so damage a copy of it.
    let segment = to.join("log-00/seg-0000000000000000.log");
    fs::copy(&segment, root.path().join("copied")).expect("room");
    fs::rename(root.path().join("copied"), &segment).expect("one disk");
    flip(&segment, 5000);
    restore_to(&copy)
        .check(1, &["seg-0000000000000000.log is missing or does not hold its hash", "Nothing was restored"]);
    assert!(!copy.exists());
    // Backing up again mends it.
    backup().check(0, &["1 linked"]);
    fs::create_dir(&copy).expect("a new directory");
    fs::write(copy.join("something"), "of mine").expect("a file");
    restore_to(&copy).check(2, &["is not empty"]);
    fs::remove_file(copy.join("something")).expect("it was made");
    restore_to(&copy).check(0, &[]);
    let mut restored = Node::start(&copy, &SMALL);
    check_letters(&restored, &acked, &conversation);
    restored.kill();

    // Of another store, into something else, and a manifest that leads elsewhere.
    drop(Node::start(&other, &SMALL));
    log(&["backup", "--data", text(&other), "--to", text(&to)])
        .check(2, &["holds a backup of another store"]);
    log(&["backup", "--data", text(&other), "--to", text(&data)])
        .check(2, &["holds something that is no backup"]);
    let manifest = to.join("backup.json");
    let said = fs::read_to_string(&manifest).expect("a manifest");
    let next = root.path().join("next");
    for (from, into) in
        [("\"path\": \"store.toml\"", "\"path\": \"../store.toml\""), ("log-00/seg", "log-00/../seg")]
    {
        fs::write(&manifest, said.replacen(from, into, 1)).expect("a file");
        restore_to(&next).check(2, &["which no backup has"]);
        assert!(!next.exists());
    }
}
